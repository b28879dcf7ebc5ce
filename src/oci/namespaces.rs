//! Namespaces: what a container joins, what it gets for itself and what it shares with the host.

use std::path::Path;

use cricket_proto::runtime::{ContainerConfig, NamespaceMode, PodSandboxConfig};
use oci_spec::runtime::{LinuxNamespace, LinuxNamespaceType as Type};

use super::container::Input;
use super::facts::CgroupMode;
use super::users;
use crate::error::{Error, Result};

/// Refuses modes that do not fit the sandbox.
pub(super) fn check(sandbox: &PodSandboxConfig, config: &ContainerConfig) -> Result<()> {
    let of_pod = &sandbox.linux.security_context.namespace_options;
    let asked = &config.linux.security_context.namespace_options;
    for options in [of_pod, asked] {
        for mode in [options.network, options.pid, options.ipc] {
            mode.enum_value().map_err(|n| Error::invalid(format!("unknown namespace mode {n}")))?;
        }
    }
    users::check(sandbox, config)?;
    // What the container says of network and ipc does not matter, except when it would get less than it says: it
    // always lives in its sandbox's.
    for (what, of_pod, asked) in
        [("network", of_pod.network, asked.network), ("ipc", of_pod.ipc, asked.ipc), ("pid", of_pod.pid, asked.pid)]
    {
        if asked.enum_value() == Ok(NamespaceMode::NODE) && of_pod.enum_value() != Ok(NamespaceMode::NODE) {
            return Err(Error::invalid(format!("{what} mode NODE is not that of the container's pod sandbox")));
        }
    }
    if asked.pid.enum_value() == Ok(NamespaceMode::TARGET) && asked.target_id.is_empty() {
        return Err(Error::invalid("pid mode TARGET without a target container"));
    }
    Ok(())
}

/// The namespaces of a checked request. A missing path means the host's, so a path that is missing although the
/// configuration asks for isolation is an error, never a gap in the list.
pub(super) fn of(input: &Input<'_>) -> Result<Vec<LinuxNamespace>> {
    let request = &input.request;
    let of_pod = &request.sandbox.linux.security_context.namespace_options;
    let asked = &request.config.linux.security_context.namespace_options;
    let joined = input.namespaces;
    let on_host = |mode: NamespaceMode| mode == NamespaceMode::NODE;
    let network_on_host = on_host(of_pod.network.enum_value_or_default());

    let mut all = vec![own(Type::Mount)];
    if users::of(request.sandbox)?.is_some() {
        let user = joined.user.as_deref();
        all.push(join(
            Type::User,
            user.ok_or_else(|| Error::internal("no user namespace for a sandbox that has its own"))?,
        ));
    }
    // Simple clients send no options at all: their containers see only themselves, unless the pod is the host's.
    let pid = match asked.as_ref() {
        Some(asked) => asked.pid.enum_value_or_default(),
        None if on_host(of_pod.pid.enum_value_or_default()) => NamespaceMode::NODE,
        None => NamespaceMode::CONTAINER,
    };
    match pid {
        NamespaceMode::CONTAINER => all.push(own(Type::Pid)),
        NamespaceMode::TARGET => all.push(pid_of(joined.pid.as_deref(), "the target container")?),
        NamespaceMode::POD | NamespaceMode::NODE => {
            if !on_host(of_pod.pid.enum_value_or_default()) {
                all.push(pid_of(joined.pid.as_deref(), "the pod sandbox, whose pid mode is not POD,")?);
            }
        }
    }
    all.extend(of_sandbox(Type::Ipc, joined.ipc.as_deref(), on_host(of_pod.ipc.enum_value_or_default()))?);
    all.extend(of_sandbox(Type::Uts, joined.uts.as_deref(), network_on_host)?);
    all.extend(of_sandbox(Type::Network, joined.net.as_deref(), network_on_host)?);
    if request.host.cgroups == CgroupMode::V2 && !request.privileged() {
        all.push(own(Type::Cgroup));
    }
    Ok(all)
}

fn pid_of(path: Option<&Path>, whose: &str) -> Result<LinuxNamespace> {
    let path = path.ok_or_else(|| Error::precondition(format!("{whose} has no PID namespace to join")))?;
    Ok(join(Type::Pid, path))
}

fn of_sandbox(typ: Type, path: Option<&Path>, on_host: bool) -> Result<Option<LinuxNamespace>> {
    match (path, on_host) {
        (Some(path), false) => Ok(Some(join(typ, path))),
        (None, true) => Ok(None),
        (Some(_), true) => Err(Error::internal(format!("{typ} namespace given to a sandbox that uses the host's"))),
        (None, false) => Err(Error::internal(format!("no {typ} namespace for a sandbox that has its own"))),
    }
}

pub(super) fn own(typ: Type) -> LinuxNamespace {
    let mut namespace = LinuxNamespace::default();
    namespace.set_typ(typ);
    namespace
}

pub(super) fn join(typ: Type, path: &Path) -> LinuxNamespace {
    let mut namespace = own(typ);
    namespace.set_path(Some(path.into()));
    namespace
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::oci::container::tests::Case;
    use crate::oci::facts::Namespaces;
    use cricket_proto::runtime::NamespaceMode::{CONTAINER, NODE, POD, TARGET};
    use cricket_proto::runtime::NamespaceOption;

    /// network, pid, ipc
    type Modes = (NamespaceMode, NamespaceMode, NamespaceMode);

    fn options(modes: Modes) -> NamespaceOption {
        NamespaceOption { network: modes.0.into(), pid: modes.1.into(), ipc: modes.2.into(), ..Default::default() }
    }

    fn case(pod: Modes, container: Modes, joined: &[&str]) -> Case {
        let mut case = Case::default();
        let security = case.sandbox.linux.mut_or_insert_default().security_context.mut_or_insert_default();
        security.namespace_options = Some(options(pod)).into();
        case.security().namespace_options = Some(options(container)).into();
        case.security().namespace_options.mut_or_insert_default().target_id = "t".into();
        let path = |name: &str| joined.contains(&name).then(|| format!("/ns/{name}").into());
        case.namespaces =
            Namespaces { net: path("net"), ipc: path("ipc"), uts: path("uts"), user: None, pid: path("pid") };
        case
    }

    fn list(case: &Case) -> Result<String> {
        let spec = case.spec()?;
        let all = spec.linux().as_ref().and_then(|l| l.namespaces().clone()).unwrap_or_default();
        let show = |n: &LinuxNamespace| match n.path() {
            Some(path) => format!("{}={}", n.typ(), path.display()),
            None => n.typ().to_string(),
        };
        Ok(all.iter().map(show).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn by_mode() {
        let pod = (POD, POD, POD);
        let all = &["net", "ipc", "uts", "pid"][..];
        let cases: &[(Modes, Modes, &[&str], &str)] = &[
            (pod, pod, all, "mnt pid=/ns/pid ipc=/ns/ipc uts=/ns/uts net=/ns/net cgroup"),
            (pod, (POD, CONTAINER, POD), all, "mnt pid ipc=/ns/ipc uts=/ns/uts net=/ns/net cgroup"),
            (
                (POD, CONTAINER, POD),
                (POD, TARGET, POD),
                all,
                "mnt pid=/ns/pid ipc=/ns/ipc uts=/ns/uts net=/ns/net cgroup",
            ),
            ((NODE, NODE, NODE), (NODE, NODE, NODE), &[], "mnt cgroup"),
            ((NODE, NODE, NODE), (POD, POD, POD), &[], "mnt cgroup"),
            ((NODE, CONTAINER, POD), (NODE, CONTAINER, POD), &["ipc"], "mnt pid ipc=/ns/ipc cgroup"),
            ((POD, CONTAINER, NODE), (POD, CONTAINER, NODE), &["net", "uts"], "mnt pid uts=/ns/uts net=/ns/net cgroup"),
        ];
        for (pod, container, joined, expected) in cases {
            assert_eq!(list(&case(*pod, *container, joined)).expect("valid"), *expected, "{pod:?} {container:?}");
        }
    }

    #[test]
    fn a_missing_path_never_means_the_host() {
        let isolated = (POD, CONTAINER, POD);
        for joined in [&["ipc", "uts"][..], &["net", "uts"], &["net", "ipc"]] {
            assert_eq!(
                list(&case(isolated, isolated, joined)).map_err(|e| e.kind()),
                Err(Kind::Internal),
                "{joined:?}"
            );
        }
        let host = case((NODE, NODE, NODE), (NODE, NODE, NODE), &["net"]);
        assert_eq!(list(&host).map_err(|e| e.kind()), Err(Kind::Internal));
        let three = &["net", "ipc", "uts"][..];
        for pid in [POD, TARGET] {
            let asked = case(isolated, (POD, pid, POD), three);
            assert_eq!(list(&asked).map_err(|e| e.kind()), Err(Kind::FailedPrecondition), "{pid:?}");
        }
    }

    #[test]
    fn refused() {
        let pod = (POD, POD, POD);
        for container in [(NODE, POD, POD), (POD, NODE, POD), (POD, POD, NODE)] {
            let found = case(pod, container, &[]).check().map_err(|e| e.kind());
            assert_eq!(found, Err(Kind::InvalidArgument), "{container:?}");
        }
        let mut target = case(pod, (POD, TARGET, POD), &[]);
        target.security().namespace_options.mut_or_insert_default().target_id.clear();
        assert_eq!(target.check().map_err(|e| e.kind()), Err(Kind::InvalidArgument));
        let mut unknown = case(pod, pod, &[]);
        unknown.security().namespace_options.mut_or_insert_default().ipc = protobuf::EnumOrUnknown::from_i32(7);
        assert_eq!(unknown.check().map_err(|e| e.kind()), Err(Kind::InvalidArgument));
    }

    #[test]
    fn the_host_cgroup_namespace() {
        let isolated = (POD, CONTAINER, POD);
        let mut privileged = case(isolated, isolated, &["net", "ipc", "uts"]);
        privileged.make_privileged();
        assert!(!list(&privileged).expect("valid").contains("cgroup"));
        let mut old = case(isolated, isolated, &["net", "ipc", "uts"]);
        old.host.cgroups = CgroupMode::Hybrid;
        assert!(!list(&old).expect("valid").contains("cgroup"));
    }
}
