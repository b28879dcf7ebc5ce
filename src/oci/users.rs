//! User namespaces: which pods have one, and how their ids lie in the node's.

use cricket_proto::runtime::{ContainerConfig, IDMapping, NamespaceMode, PodSandboxConfig, UserNamespace};
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder};

use crate::error::{Error, Kind, Result};

/// The one range of users and the one of groups of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Users {
    /// Users.
    pub uids: Range,
    /// Groups.
    pub gids: Range,
}

/// Ids from 0 on in the pod are those from `host` on outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Range {
    /// What 0 is outside.
    pub host: u32,
    /// How many there are.
    pub length: u32,
}

impl Range {
    /// As a line of `/proc/<pid>/uid_map`.
    pub fn line(&self) -> String {
        format!("0 {} {}", self.host, self.length)
    }

    /// As containerd's snapshotters take it.
    pub fn label(&self) -> String {
        format!("0:{}:{}", self.host, self.length)
    }
}

/// Both ranges as a runtime spec has them.
#[derive(Clone, Debug)]
pub(super) struct Mappings {
    pub(super) uids: Vec<LinuxIdMapping>,
    pub(super) gids: Vec<LinuxIdMapping>,
}

/// The pod's users; `None` for the node's.
///
/// # Errors
/// `InvalidArgument` for what is no user namespace of a pod.
pub fn of(sandbox: &PodSandboxConfig) -> Result<Option<Users>> {
    read(sandbox.linux.security_context.namespace_options.userns_options.as_ref())
}

/// Refuses a container whose users are not those of its pod.
pub(super) fn check(sandbox: &PodSandboxConfig, config: &ContainerConfig) -> Result<()> {
    let asked = read(config.linux.security_context.namespace_options.userns_options.as_ref())?;
    match asked.is_none() || asked == of(sandbox)? {
        true => Ok(()),
        false => Err(Error::invalid("the container's user namespace is not that of its pod sandbox")),
    }
}

/// The pod's users for a runtime spec.
pub(super) fn mappings(sandbox: &PodSandboxConfig) -> Result<Option<Mappings>> {
    let one = |range: Range| -> Result<Vec<LinuxIdMapping>> {
        let built = LinuxIdMappingBuilder::default().host_id(range.host).container_id(0u32).size(range.length).build();
        Ok(vec![built.map_err(|e| Error::caused(Kind::Internal, "build an id mapping", e))?])
    };
    of(sandbox)?.map(|users| Ok(Mappings { uids: one(users.uids)?, gids: one(users.gids)? })).transpose()
}

/// The kubelet omits the options or sends NODE for a pod that shares the host's users.
fn read(options: Option<&UserNamespace>) -> Result<Option<Users>> {
    let Some(options) = options else { return Ok(None) };
    match options.mode.enum_value() {
        Ok(NamespaceMode::POD) => {
            let (uids, gids) = (range("uids", &options.uids)?, range("gids", &options.gids)?);
            Ok(Some(Users { uids, gids }))
        }
        Ok(NamespaceMode::NODE) if options.uids.is_empty() && options.gids.is_empty() => Ok(None),
        Ok(NamespaceMode::NODE) => Err(Error::invalid("userns_options: mode NODE with mappings")),
        Ok(NamespaceMode::CONTAINER | NamespaceMode::TARGET) => {
            Err(Error::invalid("userns_options: a user namespace belongs to a pod: its mode can only be POD or NODE"))
        }
        Err(n) => Err(Error::invalid(format!("userns_options: unknown mode {n}"))),
    }
}

fn range(what: &str, mappings: &[IDMapping]) -> Result<Range> {
    let [one] = mappings else {
        return Err(Error::invalid(format!("userns_options: {what} has {} mappings, must have one", mappings.len())));
    };
    if one.container_id != 0 {
        return Err(Error::invalid(format!("userns_options: {what} must map id 0 of the containers")));
    }
    if one.length == 0 || one.host_id.checked_add(one.length - 1).is_none_or(|last| last == u32::MAX) {
        return Err(Error::invalid(format!("userns_options: {what} maps {} ids from {} on", one.length, one.host_id)));
    }
    Ok(Range { host: one.host_id, length: one.length })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::container::tests::Case;

    fn mapping(container_id: u32, host_id: u32, length: u32) -> IDMapping {
        IDMapping { container_id, host_id, length, ..Default::default() }
    }

    fn user(mode: NamespaceMode, uids: &[IDMapping], gids: &[IDMapping]) -> UserNamespace {
        UserNamespace { mode: mode.into(), uids: uids.into(), gids: gids.into(), ..Default::default() }
    }

    #[test]
    fn what_is_a_user_namespace() {
        use NamespaceMode::{CONTAINER, NODE, POD, TARGET};
        let one = [mapping(0, 100_000, 65536)];
        let users =
            Users { uids: Range { host: 100_000, length: 65536 }, gids: Range { host: 100_000, length: 65536 } };
        assert_eq!(read(None).expect("none"), None);
        assert_eq!(read(Some(&user(NODE, &[], &[]))).expect("none"), None);
        assert_eq!(read(Some(&user(POD, &one, &one))).expect("some"), Some(users));
        let two = [one[0].clone(), one[0].clone()];
        let refused = [
            user(POD, &[], &[]),
            user(POD, &one, &[]),
            user(POD, &two, &one),
            user(POD, &one, &[mapping(1, 100_000, 65536)]),
            user(POD, &one, &[mapping(0, 100_000, 0)]),
            user(POD, &one, &[mapping(0, u32::MAX, 2)]),
            user(NODE, &one, &one),
            user(CONTAINER, &one, &one),
            user(TARGET, &[], &[]),
        ];
        for options in refused {
            assert_eq!(read(Some(&options)).map_err(|e| e.kind()), Err(Kind::InvalidArgument), "{options:?}");
        }
        assert_eq!((users.uids.line(), users.uids.label()), ("0 100000 65536".into(), "0:100000:65536".into()));
    }

    #[test]
    fn a_container_lives_in_its_pods() {
        let mut case = Case::default();
        let one = [mapping(0, 100_000, 65536)];
        let options = Some(user(NamespaceMode::POD, &one, &one));
        let pod = case.sandbox.linux.mut_or_insert_default().security_context.mut_or_insert_default();
        pod.namespace_options.mut_or_insert_default().userns_options = options.clone().into();
        assert_eq!(case.spec().map_err(|e| e.kind()).err(), Some(Kind::Internal), "its path is missing");
        case.namespaces.user = Some("/ns/user".into());
        case.security().namespace_options.mut_or_insert_default().userns_options = options.into();
        let spec = case.spec().expect("valid");
        let linux = spec.linux().as_ref().expect("linux");
        let namespaces = linux.namespaces().clone().unwrap_or_default();
        let path = namespaces.iter().find(|n| n.typ() == oci_spec::runtime::LinuxNamespaceType::User);
        assert_eq!(path.and_then(|n| n.path().clone()), Some("/ns/user".into()));
        assert_eq!(linux.uid_mappings().as_ref().map(|m| (m[0].host_id(), m[0].size())), Some((100_000, 65536)));
        let other = [mapping(0, 200_000, 65536)];
        let differing = user(NamespaceMode::POD, &other, &one);
        case.security().namespace_options.mut_or_insert_default().userns_options = Some(differing).into();
        assert_eq!(case.check().map_err(|e| e.kind()), Err(Kind::InvalidArgument));
    }
}
