//! No request makes the builder panic, and every spec that it gives is one that a runtime loads.

use cricket::oci::accounts::Accounts;
use cricket::oci::capabilities::CapSet;
use cricket::oci::facts::{Arch, CgroupMode, MountSource, Propagation};
use cricket::oci::seccomp::Profile;
use cricket_proto::runtime::{
    Device, Int64Value, KeyValue, LinuxContainerResources, Mount, NamespaceOption, SecurityProfile, UserNamespace,
};
use protobuf::{EnumOrUnknown, MessageField};

use super::fixture::Case;
use super::rules;

/// Enough to meet every pair of oddities; a second or two.
const REQUESTS: u64 = 20_000;

#[test]
fn no_request_makes_the_builder_panic() {
    let (mut built, mut refused) = (0, 0);
    for seed in 1..=REQUESTS {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let case = request(&mut dice);
        match case.with_volumes().and_then(|case| case.try_spec().map(|_| case)) {
            Ok(case) => {
                rules::assert_loadable(&case.json());
                built += 1;
            }
            Err(e) => {
                assert!(!e.message().is_empty());
                refused += 1;
            }
        }
    }
    // The dice are loaded well enough for both.
    assert!(built > REQUESTS / 20 && refused > REQUESTS / 20, "{built} built, {refused} refused");
}

/// xorshift: the same requests every time.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// One of `sides` times out of all.
    fn one_in(&mut self, sides: u64) -> bool {
        self.roll() % sides == 0
    }

    fn of<T: Clone>(&mut self, all: &[T]) -> T {
        all[self.roll() as usize % all.len()].clone()
    }

    fn text(&mut self) -> String {
        self.of(&["", "/", "a", "/a", "/a/../b", "a=b", "=", "\0", "é", "../x", "/dev", "/proc", "x\ny", " "])
            .to_owned()
    }

    fn texts(&mut self, usual: &[&str]) -> Vec<String> {
        let many = self.roll() % 3;
        (0..many).map(|_| if self.one_in(32) { self.text() } else { self.of(usual).to_owned() }).collect()
    }

    fn number(&mut self) -> i64 {
        match self.one_in(16) {
            true => self.of(&[-1, i64::MAX, i64::MIN, 1 << 31, (1 << 31) - 1]),
            false => self.of(&[0, 0, 1, 1000, 100_000]),
        }
    }

    fn value(&mut self) -> MessageField<Int64Value> {
        match self.one_in(3) {
            true => MessageField::some(Int64Value { value: self.number(), ..Default::default() }),
            false => MessageField::none(),
        }
    }

    fn variant<E: protobuf::Enum>(&mut self) -> EnumOrUnknown<E> {
        let odd = self.one_in(16);
        EnumOrUnknown::from_i32(if odd { self.of(&[2, 3, 9, -1]) } else { self.of(&[0, 1]) })
    }

    fn profile(&mut self) -> MessageField<SecurityProfile> {
        if !self.one_in(4) {
            return MessageField::none();
        }
        let localhost_ref = if self.one_in(4) { self.text() } else { String::new() };
        MessageField::some(SecurityProfile { profile_type: self.variant(), localhost_ref, ..Default::default() })
    }

    fn namespaces(&mut self) -> MessageField<NamespaceOption> {
        let mut options = NamespaceOption { network: self.variant(), pid: self.variant(), ..Default::default() };
        options.ipc = self.variant();
        if self.one_in(30) {
            let user = UserNamespace { mode: self.variant(), ..Default::default() };
            options.userns_options = MessageField::some(user);
        }
        options.target_id = if self.one_in(2) { "t".into() } else { String::new() };
        MessageField::some(options)
    }
}

fn request(dice: &mut Dice) -> Case {
    let mut case = Case::new();
    host(&mut case, dice);
    // Few at a time: most oddities are refused, and the first one hides all others.
    for shake in [process, security, places, resources] {
        if dice.one_in(2) {
            shake(&mut case, dice);
        }
    }
    case
}

fn host(case: &mut Case, dice: &mut Dice) {
    case.host.cgroups = dice.of(&[CgroupMode::V1, CgroupMode::Hybrid, CgroupMode::V2]);
    case.host.arch = dice.of(&[Arch::X86_64, Arch::Aarch64, Arch::Other]);
    case.host.kernel = dice.of(&[(6, 1), (4, 4), (0, 0)]);
    case.host.seccomp = !dice.one_in(8);
    case.host.apparmor = dice.one_in(2);
    if dice.one_in(4) {
        case.host.capabilities = CapSet::from_bits(dice.roll());
    }
    case.handler.seccomp_by_default = dice.one_in(4);
    case.handler.systemd_cgroup = dice.one_in(6);
    case.handler.recursive_read_only = dice.one_in(2);
    case.handler.pod_annotations = dice.texts(&["*", "[", "a*"]);
    case.accounts = Accounts::parse(b"web:x:1000:1001::\n", b"web:x:5:web\n\xff:x:6:web\n");
    let file = br#"{"defaultAction": "SCMP_ACT_ERRNO"}"#;
    case.profiles.seccomp = (!dice.one_in(8)).then(|| Profile::parse(file, case.host.arch).expect("a profile"));
    case.profiles.apparmor = dice.one_in(4).then(|| "any".to_owned());
}

fn process(case: &mut Case, dice: &mut Dice) {
    case.config.command = dice.texts(&["sh"]);
    case.config.args = dice.texts(&["-c"]);
    case.config.tty = dice.one_in(2);
    case.image.entrypoint = dice.texts(&["/app"]);
    case.image.user = dice.of(&["", "", "web", "1000", "web:web", "1000:web", ":5", "a:b:c", "ghost"]).into();
    case.image.env = dice.texts(&["A=1", "PATH", "PATH=/x"]);
    if dice.one_in(6) {
        case.config.working_dir = dice.text();
    }
    let pair = |dice: &mut Dice| KeyValue {
        key: if dice.one_in(8) { dice.text() } else { dice.of(&["A", "B", "PATH", "HOSTNAME"]).into() },
        value: dice.of(&[&b""[..], b"x=y", b"\xff", b"plain"]).into(),
        ..Default::default()
    };
    case.config.envs = (0..dice.roll() % 4).map(|_| pair(dice)).collect();
    case.sandbox.annotations = dice.texts(&["a", "io.kubernetes.cri.x"]).into_iter().map(|k| (k, "v".into())).collect();
    if dice.one_in(8) {
        case.config.stop_signal = dice.variant();
    }
}

fn security(case: &mut Case, dice: &mut Dice) {
    if dice.one_in(6) {
        case.pod_security().namespace_options = dice.namespaces();
    }
    if dice.one_in(6) {
        case.security().namespace_options = dice.namespaces();
    }
    let security = case.security();
    security.run_as_user = dice.value();
    security.run_as_group = if security.run_as_user.is_some() || dice.one_in(8) { dice.value() } else { None.into() };
    security.run_as_username =
        if dice.one_in(6) { dice.of(&["web", "1", "x:y", "ghost"]).into() } else { String::new() };
    security.supplemental_groups = (0..dice.roll() % 3).map(|_| dice.number()).collect();
    security.supplemental_groups_policy = dice.variant();
    security.no_new_privs = dice.one_in(2);
    security.readonly_rootfs = dice.one_in(2);
    security.seccomp = dice.profile();
    security.apparmor = dice.profile();
    security.masked_paths = dice.texts(&["/proc/kcore"]);
    if dice.one_in(12) {
        security.seccomp_profile_path = dice.of(&["runtime/default", "unconfined", "localhost//x", "x"]).into();
    }
    let capabilities = security.capabilities.mut_or_insert_default();
    let names = &["ALL", "all", "CHOWN", "cap_sys_admin", "KILL", "NET_RAW"];
    capabilities.add_capabilities = dice.texts(names);
    capabilities.drop_capabilities = dice.texts(names);
    capabilities.add_ambient_capabilities = dice.texts(names);
    if dice.one_in(6) {
        security.privileged = true;
        case.pod_security().privileged = dice.one_in(2);
    }
}

fn places(case: &mut Case, dice: &mut Dice) {
    for _ in 0..dice.roll() % 3 {
        let mount = Mount {
            container_path: if dice.one_in(16) {
                dice.text()
            } else {
                dice.of(&["/data", "/dev", "/etc/hosts"]).into()
            },
            host_path: if dice.one_in(16) { dice.text() } else { "/srv".into() },
            readonly: dice.one_in(2),
            recursive_read_only: dice.one_in(8),
            propagation: if dice.one_in(3) { dice.variant() } else { EnumOrUnknown::default() },
            ..Default::default()
        };
        let propagation = dice.of(&[Propagation::Private, Propagation::Slave, Propagation::Shared]);
        case.mount(mount, MountSource { path: "/srv".into(), propagation });
    }
    if dice.one_in(3) {
        case.image.volumes = (0..dice.roll() % 4).map(|_| dice.text()).collect();
    }
    if dice.one_in(12) {
        let device = Device {
            host_path: "/dev/null".into(),
            container_path: dice.text(),
            permissions: dice.of(&["", "r", "rwm", "x"]).into(),
            ..Default::default()
        };
        case.config.devices.push(device);
    }
    if dice.one_in(6) {
        case.sandbox.linux.mut_or_insert_default().cgroup_parent =
            dice.of(&["", "/", "/a", "a.slice", "/a.slice/a-b.slice", "..", "/../x", "a b"]).into();
    }
}

fn resources(case: &mut Case, dice: &mut Dice) {
    *case.resources() = LinuxContainerResources {
        cpu_period: dice.number(),
        cpu_quota: dice.number(),
        cpu_shares: dice.number(),
        memory_limit_in_bytes: dice.number(),
        memory_swap_limit_in_bytes: dice.number(),
        oom_score_adj: dice.of(&[0, 0, 500, 500, -1000, 1000, 5000]),
        cpuset_cpus: dice.of(&["", "0", "0-3", "0-3", "x"]).into(),
        ..Default::default()
    };
}
