//! The specs of sandbox processes.

use std::path::Path;

use cricket::oci::facts::Namespaces;
use cricket::oci::sandbox;
use cricket_proto::runtime::{Int64Value, LinuxContainerResources, NamespaceMode};
use oci_spec::runtime::Spec;

use super::cases::user_namespace;
use super::fixture::Case;

/// How a spec is made.
pub type Build = fn() -> Spec;

/// Name of the folder, and its spec.
pub const ALL: &[(&str, Build)] = &[
    ("sandbox-process", || spec(&shared())),
    ("sandbox-process-host-pid", || {
        let mut case = shared();
        case.modes(NamespaceMode::NODE, NamespaceMode::NODE, NamespaceMode::NODE);
        case.namespaces = Namespaces::default();
        spec(&case)
    }),
    ("sandbox-process-user", || {
        let mut case = shared();
        let int = |value| Some(Int64Value { value, ..Default::default() }).into();
        let security = case.pod_security();
        (security.run_as_user, security.run_as_group) = (int(1000), int(2000));
        security.supplemental_groups = vec![3000, 4000];
        case.host.capabilities = Default::default();
        case.host.oom_score_adj = -500;
        spec(&case)
    }),
    ("sandbox-process-systemd", || {
        let mut case = shared();
        case.handler.systemd_cgroup = true;
        case.sandbox.linux.mut_or_insert_default().cgroup_parent = "/kubepods.slice/kubepods-pod6e7f.slice".into();
        case.sandbox.log_directory = "/var/log/pods/default_web-0_6e7f".into();
        spec(&case)
    }),
    ("sandbox-process-annotations", || {
        let mut case = shared();
        case.handler.pod_annotations = vec!["io.katacontainers.*".into(), "io.kubernetes.cri.*".into()];
        let pairs = [("io.katacontainers.config.x", "1"), ("io.kubernetes.cri.sandbox-id", "forged"), ("other", "2")];
        case.sandbox.annotations = pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).into();
        let whole = LinuxContainerResources {
            cpu_period: 100_000,
            cpu_quota: 150_000,
            cpu_shares: 1536,
            memory_limit_in_bytes: 512 << 20,
            ..Default::default()
        };
        case.sandbox.linux.mut_or_insert_default().resources = Some(whole).into();
        spec(&case)
    }),
    ("sandbox-process-userns", || {
        let mut case = shared();
        user_namespace(&mut case);
        spec(&case)
    }),
];

fn shared() -> Case {
    let mut case = Case::new();
    case.modes(NamespaceMode::POD, NamespaceMode::POD, NamespaceMode::POD);
    case.namespaces.pid = Some("/run/cricket/sandboxes/5/pid".into());
    case
}

fn spec(case: &Case) -> Spec {
    let made = sandbox::spec(&sandbox::Input {
        config: &case.sandbox,
        id: &case.sandbox_id,
        namespaces: &case.namespaces,
        host: &case.host,
        handler: &case.handler,
        root: Path::new("/var/lib/cricket/pause/1"),
    });
    made.expect("a case is valid")
}
