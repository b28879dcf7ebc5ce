//! The cases of users, rights and profiles.

use cricket::oci::accounts::Accounts;
use cricket::oci::capabilities::CapSet;
use cricket::oci::facts::{Arch, ImageFacts};
use cricket::oci::seccomp::Profile;
use cricket::oci::selinux::Labels;
use cricket_proto::runtime::security_profile::ProfileType;
use cricket_proto::runtime::{Int64Value, SecurityProfile, SupplementalGroupsPolicy};
use protobuf::MessageField;
use serde_json::json;

use super::cases::Build;
use super::fixture::Case;

/// Name of the folder, and its input.
pub const ALL: &[(&str, Build)] = &[
    ("seccomp-default", seccomp_default),
    ("seccomp-default-aarch64", seccomp_default_aarch64),
    ("seccomp-default-all-capabilities", seccomp_default_all_capabilities),
    ("seccomp-deprecated-path", seccomp_deprecated_path),
    ("seccomp-localhost", seccomp_localhost),
    ("seccomp-privileged", seccomp_privileged),
    ("seccomp-unset-by-default", seccomp_unset_by_default),
    ("apparmor-default", apparmor_default),
    ("apparmor-localhost", apparmor_localhost),
    ("apparmor-unconfined", apparmor_unconfined),
    ("seccomp-unconfined", seccomp_unconfined),
    ("selinux", selinux),
    ("selinux-privileged", selinux_privileged),
    ("user-by-name", user_by_name),
    ("user-of-image", user_of_image),
    ("user-of-image-with-group", user_of_image_with_group),
    ("user-name-with-run-as-group", user_name_with_run_as_group),
    ("user-unknown-number", user_unknown_number),
    ("root-in-groups", root_in_groups),
    ("groups-strict", groups_strict),
    ("groups-merged", groups_merged),
    ("capabilities-drop-all", capabilities_drop_all),
    ("capabilities-add-all", capabilities_add_all),
    ("capabilities-bounded", capabilities_bounded),
    ("capabilities-all-but-one", capabilities_all_but_one),
    ("no-new-privileges", no_new_privileges),
    ("entrypoint-of-image", entrypoint_of_image),
    ("environment-not-utf8", environment_not_utf8),
    ("annotations-passed", annotations_passed),
    ("base-spec", base_spec),
];

fn strings(all: &[&str]) -> Vec<String> {
    all.iter().map(|s| s.to_string()).collect()
}

fn field(kind: ProfileType, name: &str) -> MessageField<SecurityProfile> {
    let profile = SecurityProfile { profile_type: kind.into(), localhost_ref: name.into(), ..Default::default() };
    MessageField::some(profile)
}

fn int(value: i64) -> MessageField<Int64Value> {
    MessageField::some(Int64Value { value, ..Default::default() })
}

fn seccomp_default() -> Case {
    let mut case = Case::new();
    case.security().seccomp = field(ProfileType::RuntimeDefault, "");
    case
}

fn seccomp_default_aarch64() -> Case {
    let mut case = seccomp_default();
    case.host.arch = Arch::Aarch64;
    case
}

fn seccomp_default_all_capabilities() -> Case {
    let mut case = seccomp_default();
    case.security().capabilities.mut_or_insert_default().add_capabilities = strings(&["ALL"]);
    case
}

/// A file with conditions, as other engines have them.
const FILE: &[u8] = br#"{
    "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
    "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
    "syscalls": [
        {"names": ["read", "write", "exit_group"], "action": "SCMP_ACT_ALLOW", "comment": "all"},
        {"names": ["chroot"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_CHROOT"]}},
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["personality"], "action": "SCMP_ACT_LOG", "args": [{"index": 0, "value": 8, "op": "SCMP_CMP_NE"}]}
    ]}"#;

fn seccomp_localhost() -> Case {
    let mut case = Case::new();
    case.security().seccomp = field(ProfileType::Localhost, "/var/lib/kubelet/seccomp/a.json");
    case.profiles.seccomp = Some(Profile::parse(FILE, case.host.arch).expect("a profile"));
    case
}

fn seccomp_deprecated_path() -> Case {
    let mut case = Case::new();
    case.security().seccomp_profile_path = "localhost//var/lib/kubelet/seccomp/b.json".into();
    let file = br#"{"defaultAction": "SCMP_ACT_LOG", "architectures": ["SCMP_ARCH_X86_64"]}"#;
    case.profiles.seccomp = Some(Profile::parse(file, case.host.arch).expect("a profile"));
    case
}

/// Everything that confines is gone, whatever is asked for.
fn seccomp_privileged() -> Case {
    let mut case = seccomp_default();
    case.host.apparmor = true;
    case.security().apparmor = field(ProfileType::RuntimeDefault, "");
    case.privileged();
    case
}

fn seccomp_unset_by_default() -> Case {
    let mut case = Case::new();
    case.handler.seccomp_by_default = true;
    case.security().capabilities.mut_or_insert_default().drop_capabilities = strings(&["ALL"]);
    case
}

fn apparmor_default() -> Case {
    let mut case = Case::new();
    case.host.apparmor = true;
    case.profiles.apparmor = Some(cricket::oci::apparmor::DEFAULT.into());
    case
}

fn apparmor_localhost() -> Case {
    let mut case = Case::new();
    case.host.apparmor = true;
    case.security().apparmor = field(ProfileType::Localhost, "k8s deny write");
    case.profiles.apparmor = Some("k8s deny write".into());
    case
}

fn apparmor_unconfined() -> Case {
    let mut case = Case::new();
    case.host.apparmor = true;
    case.security().apparmor = field(ProfileType::Unconfined, "");
    case
}

/// What is said counts more than what is usual on the node.
fn seccomp_unconfined() -> Case {
    let mut case = seccomp_unset_by_default();
    case.security().seccomp = field(ProfileType::Unconfined, "");
    case
}

fn selinux() -> Case {
    let mut case = Case::new();
    case.profiles.selinux = Some(Labels {
        process: Some("system_u:system_r:container_t:s0:c1,c2".into()),
        mount: "system_u:object_r:container_file_t:s0:c1,c2".into(),
    });
    case
}

/// Its files have a label, its processes are not confined by one.
fn selinux_privileged() -> Case {
    let mut case = selinux();
    case.privileged();
    case.profiles.selinux.as_mut().expect("set above").process = None;
    case
}

/// An image with users.
fn populated() -> Case {
    let mut case = Case::new();
    case.accounts = Accounts::parse(
        b"root:x:0:0:root:/root:/bin/sh\nwww-data:x:33:33:www-data:/var/www:/bin/false\nweb:x:1000:1001::/:\n",
        b"root:x:0:\nadm:x:4:root,web\nwww-data:x:33:\nstaff:x:50:web\nweb:x:1001:\nlate:x:50000:web,www-data\n",
    );
    case
}

fn user_by_name() -> Case {
    let mut case = populated();
    case.security().run_as_username = "web".into();
    case
}

fn user_of_image() -> Case {
    let mut case = populated();
    case.image.user = "www-data".into();
    case
}

fn user_of_image_with_group() -> Case {
    let mut case = populated();
    case.image.user = "1000:staff".into();
    case
}

fn user_name_with_run_as_group() -> Case {
    let mut case = populated();
    case.security().run_as_username = "web".into();
    case.security().run_as_group = int(2000);
    case
}

/// Nobody's id: group 0, and in no group of the image.
fn user_unknown_number() -> Case {
    let mut case = populated();
    case.image.user = "www-data".into();
    case.security().run_as_user = int(4711);
    case
}

fn root_in_groups() -> Case {
    populated()
}

fn groups_merged() -> Case {
    let mut case = populated();
    case.security().run_as_user = int(1000);
    case.security().supplemental_groups = vec![7, 4];
    case
}

fn groups_strict() -> Case {
    let mut case = groups_merged();
    case.security().supplemental_groups_policy = SupplementalGroupsPolicy::Strict.into();
    case
}

fn capabilities_drop_all() -> Case {
    let mut case = Case::new();
    case.security().capabilities.mut_or_insert_default().drop_capabilities = strings(&["all"]);
    case
}

fn capabilities_add_all() -> Case {
    let mut case = Case::new();
    case.security().capabilities.mut_or_insert_default().add_capabilities = strings(&["ALL"]);
    case
}

fn capabilities_all_but_one() -> Case {
    let mut case = capabilities_add_all();
    case.security().capabilities.mut_or_insert_default().drop_capabilities = strings(&["cap_sys_admin"]);
    case
}

/// A daemon without CAP_SYS_RESOURCE, CAP_MKNOD and CAP_NET_RAW cannot give them away.
fn capabilities_bounded() -> Case {
    let mut case = Case::new();
    case.host.capabilities = CapSet::from_bits(!(1 << 24 | 1 << 27 | 1 << 13));
    let asked = case.security().capabilities.mut_or_insert_default();
    asked.add_capabilities = strings(&["SYS_TIME"]);
    case
}

fn no_new_privileges() -> Case {
    let mut case = seccomp_localhost();
    case.security().no_new_privs = true;
    case
}

fn entrypoint_of_image() -> Case {
    let mut case = Case::new();
    case.image = ImageFacts {
        entrypoint: strings(&["/bin/tini", "--"]),
        cmd: strings(&["serve"]),
        working_dir: "/srv/app".into(),
        // The last one takes the default away.
        env: strings(&["A=1", "B=a=b", "PATH"]),
        ..Default::default()
    };
    case
}

fn environment_not_utf8() -> Case {
    let mut case = Case::new();
    let env = |key: &str, value: &[u8]| cricket_proto::runtime::KeyValue {
        key: key.into(),
        value: value.into(),
        ..Default::default()
    };
    case.config.envs = vec![env("LATIN", b"caf\xe9"), env("NEWLINE", b"a\nb"), env("QUOTE", b"\"\\")];
    case
}

fn annotations_passed() -> Case {
    let mut case = Case::new();
    case.handler.pod_annotations = strings(&["io.katacontainers.*"]);
    case.handler.container_annotations = strings(&["example.com/*", "io.kubernetes.cri.*"]);
    let pairs = [
        ("io.katacontainers.config.vcpus", "2"),
        ("example.com/a", "1"),
        ("other", "x"),
        // Ours are ours.
        ("io.kubernetes.cri.sandbox-id", "forged"),
    ];
    case.sandbox.annotations = pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).into();
    case.config.annotations = case.sandbox.annotations.clone();
    case
}

fn base_spec() -> Case {
    let mut case = seccomp_localhost();
    case.base = Some(json!({
        "process": {
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096}],
            "env": ["TZ=Europe/Berlin", "NGINX_VERSION=0"],
            "noNewPrivileges": true,
            "capabilities": {"bounding": ["CAP_SYS_ADMIN"]},
        },
        "hooks": {"createRuntime": [{"path": "/usr/bin/hook", "args": ["hook", "create"]}]},
        "mounts": [
            {"destination": "/proc", "type": "bind", "source": "/"},
            {"destination": "/etc", "type": "tmpfs", "source": "tmpfs", "options": ["ro"]},
        ],
        "linux": {
            "resources": {"pids": {"limit": 512}, "memory": {"swappiness": 0}},
            "seccomp": {"defaultAction": "SCMP_ACT_ALLOW"},
            "readonlyPaths": ["/proc/sys"],
        },
    }));
    case
}
