//! How long a runtime spec takes: `cargo bench --bench spec`, or `make bench ONLY=spec`. The plainest container, one as a
//! kubelet asks for it, the same under the default filter, and a privileged one with the devices of this machine.
#![allow(clippy::print_stdout, reason = "a benchmark says what it measured")]

#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../tests/golden/fixture.rs"]
mod fixture;

use std::hint::black_box;
use std::time::{Duration, Instant};

use cricket::host::devices;
use cricket::oci::facts::Propagation;
use cricket_proto::runtime::security_profile::ProfileType;
use cricket_proto::runtime::{Int64Value, KeyValue, LinuxContainerResources, Mount, SecurityProfile};
use fixture::{source, Case};
use protobuf::MessageField;

/// As many batches are timed, each short enough for a scheduler to leave it in one piece, and the median is shown: the
/// machine does other things as well.
const BATCHES: usize = 1000;
const ROUNDS: u32 = 20;

fn main() {
    let mut privileged = typical();
    privileged.privileged();
    privileged.devices = devices::resolve(&[], true).expect("the devices of this machine");
    println!("this machine has {} devices", privileged.devices.len());
    for (name, case) in
        [("plain", Case::new()), ("typical", typical()), ("filtered", filtered()), ("privileged", privileged)]
    {
        per_round(&format!("{name}: built"), || drop(black_box(case.spec())));
        per_round(&format!("{name}: built and encoded"), || drop(black_box(serde_json::to_vec(&case.spec()))));
    }
    per_round("the devices of this machine looked up", || drop(black_box(devices::resolve(&[], true))));
}

/// What a kubelet sends for a container of an ordinary deployment.
fn typical() -> Case {
    let mut case = Case::new();
    let env = |n: u32| KeyValue {
        key: format!("WEB_SERVICE_PORT_{n}"),
        value: format!("tcp://10.96.0.{n}:443").into(),
        ..Default::default()
    };
    case.config.envs = (0..20).map(env).collect();
    for path in ["/data", "/etc/hosts", "/dev/termination-log", "/var/run/secrets/kubernetes.io/serviceaccount"] {
        let mount = Mount { container_path: path.into(), host_path: "/as/typed".into(), ..Default::default() };
        case.mount(mount, source("/var/lib/kubelet/pods/6e7f/volumes/x", Propagation::Private));
    }
    *case.resources() = LinuxContainerResources {
        cpu_period: 100_000,
        cpu_quota: 50_000,
        cpu_shares: 512,
        memory_limit_in_bytes: 256 << 20,
        oom_score_adj: 970,
        ..Default::default()
    };
    let security = case.security();
    security.run_as_user = MessageField::some(Int64Value { value: 1000, ..Default::default() });
    security.no_new_privs = true;
    security.readonly_rootfs = true;
    security.capabilities.mut_or_insert_default().drop_capabilities = vec!["ALL".into()];
    let masked =
        "/proc/asound /proc/acpi /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list /proc/timer_stats \
                  /proc/sched_debug /proc/scsi /sys/firmware /sys/devices/virtual/powercap";
    security.masked_paths = masked.split(' ').map(String::from).collect();
    let readonly = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
    security.readonly_paths = readonly.map(String::from).to_vec();
    case
}

fn filtered() -> Case {
    let mut case = typical();
    let profile = SecurityProfile { profile_type: ProfileType::RuntimeDefault.into(), ..Default::default() };
    case.security().seccomp = MessageField::some(profile);
    case
}

fn per_round(what: &str, work: impl Fn()) {
    let batch = || {
        let begun = Instant::now();
        (0..ROUNDS).for_each(|_| work());
        begun.elapsed() / ROUNDS
    };
    batch();
    let mut times: Vec<Duration> = (0..BATCHES).map(|_| batch()).collect();
    times.sort();
    println!("{what}: {:.1} µs", times[BATCHES / 2].as_secs_f64() * 1e6);
}
