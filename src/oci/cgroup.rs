//! The container's control group, in the notation of either cgroup driver.

use std::path::PathBuf;

use crate::error::{Error, Result};

/// The middle part of a scope's name, `cri-containerd-<id>.scope`: the kubelet recognises containers by it.
const SCOPE_PREFIX: &str = "cri-containerd";

/// The `cgroupsPath` of a container or of a sandbox's process, in the form that the runtime's driver wants: `<slice>:cri-containerd:<id>` for
/// systemd, else `<parent>/<id>` below every hierarchy. Without a parent it goes to `system.slice` or `/k8s.io`: a place
/// that can be found again, where a runtime's own default cannot.
///
/// # Errors
/// As [`check`].
pub fn path(parent: &str, systemd: bool, id: &str) -> Result<PathBuf> {
    check(parent, systemd)?;
    if systemd {
        let slice = parent.rsplit('/').find(|part| !part.is_empty()).unwrap_or("system.slice");
        return Ok(format!("{slice}:{SCOPE_PREFIX}:{id}").into());
    }
    let parent = match parent.trim_matches('/') {
        "" if parent.is_empty() => "k8s.io",
        trimmed => trimmed,
    };
    Ok(PathBuf::from("/").join(parent).join(id))
}

/// Where the group `parent` is below every hierarchy: a slice lies in those that its name begins with. `None` without
/// a group.
pub fn directory(parent: &str) -> Option<PathBuf> {
    let path = parent.trim_matches('/');
    let name = path.rsplit('/').next().filter(|name| !name.is_empty())?;
    let Some(stem) = name.strip_suffix(".slice") else { return Some(path.into()) };
    let ends = stem.match_indices('-').map(|(at, _)| at).chain([stem.len()]).filter(|at| *at > 0);
    Some(ends.map(|end| format!("{}.slice", &stem[..end])).collect())
}

/// Refuses a parent of the other driver: the container would land outside its pod's limits.
pub(super) fn check(parent: &str, systemd: bool) -> Result<()> {
    if parent.split('/').any(|part| part == "..") || parent.contains([':', '\0']) {
        return Err(Error::invalid(format!("cgroup parent {parent:?} is not a plain path")));
    }
    let is_slice = parent.trim_end_matches('/').ends_with(".slice");
    match (systemd, is_slice) {
        (true, false) if !parent.is_empty() => Err(Error::invalid(format!(
            "cgroup parent {parent:?} is no slice, but this runtime handler uses the systemd cgroup driver: \
             let the kubelet use it too"
        ))),
        (false, true) => Err(Error::invalid(format!(
            "cgroup parent {parent:?} is a slice, but this runtime handler does not use the systemd cgroup driver: \
             let the kubelet use cgroupfs, or set systemd_cgroup for the handler"
        ))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_lie_in_each_other() {
        let of = |parent| directory(parent).map(|path| path.display().to_string());
        assert_eq!(of("/kubepods/burstable/pod1").as_deref(), Some("kubepods/burstable/pod1"));
        let nested = Some("kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice");
        assert_eq!(of("kubepods-burstable-pod1_2.slice").as_deref(), nested);
        assert_eq!(of("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod1_2.slice").as_deref(), nested);
        assert_eq!(of("/system.slice/").as_deref(), Some("system.slice"));
        assert_eq!((of(""), of("/")), (None, None));
    }
    use crate::error::Kind;

    #[test]
    fn both_notations() {
        let id = "c1";
        let cases = [
            ("/kubepods/burstable/pod1", false, "/kubepods/burstable/pod1/c1"),
            ("kubepods/pod1/", false, "/kubepods/pod1/c1"),
            ("/", false, "/c1"),
            ("", false, "/k8s.io/c1"),
            ("/kubepods.slice/kubepods-pod1.slice", true, "kubepods-pod1.slice:cri-containerd:c1"),
            ("kubepods-pod1.slice", true, "kubepods-pod1.slice:cri-containerd:c1"),
            ("/kubepods.slice/", true, "kubepods.slice:cri-containerd:c1"),
            ("", true, "system.slice:cri-containerd:c1"),
        ];
        for (parent, systemd, expected) in cases {
            assert_eq!(path(parent, systemd, id).expect("valid"), PathBuf::from(expected), "{parent} {systemd}");
        }
    }

    #[test]
    fn refused() {
        let id = "c1";
        let cases = [
            ("/kubepods.slice/kubepods-pod1.slice", false),
            ("/kubepods/pod1", true),
            ("/", true),
            ("/kubepods/../..", false),
            ("a.slice:b:c.slice", true),
        ];
        for (parent, systemd) in cases {
            assert_eq!(path(parent, systemd, id).map_err(|e| e.kind()), Err(Kind::InvalidArgument), "{parent}");
        }
    }
}
