//! The container's control group, in the notation of either cgroup driver.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::error::{Error, Result};

/// The middle part of a scope's name, `cri-containerd-<id>.scope`: the kubelet recognises containers by it.
const SCOPE_PREFIX: &str = "cri-containerd";

/// By this annotation the runtime tells systemd how long the scope may take to end.
const STOP_BOUND: &str = "org.systemd.property.TimeoutStopUSec";
/// By this one it tells what the scope is started after, and therefore stopped before.
const AFTER: &str = "org.systemd.property.After";
/// In this annotation of a container the kubelet says how many seconds its pod has to end.
const GRACE: &str = "io.kubernetes.pod.terminationGracePeriod";
/// Kubernetes' own, for a pod that names none.
const GRACE_SECONDS: u64 = 30;
/// systemd's own for everything else: nothing that a pod says holds up a shutdown for longer.
const LONGEST_SECONDS: u64 = 90;

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

/// What systemd is told of a scope, as annotations of the spec. When the node shuts down, systemd ends the scopes, and waits
/// for a process that minds no SIGTERM, such as any first process of a PID namespace without a handler: as long as the pod's
/// grace is, not for the minute and a half that it gives to services. The containers of a sandbox whose process holds their
/// PID namespace are ended before that process, whose end would be theirs.
pub(super) fn scope(asked: &HashMap<String, String>, sandbox_process: Option<&str>) -> Vec<(&'static str, String)> {
    let grace = asked.get(GRACE).and_then(|seconds| seconds.parse().ok()).unwrap_or(GRACE_SECONDS);
    let mut told = vec![(STOP_BOUND, format!("uint64 {}", grace.clamp(1, LONGEST_SECONDS) * 1_000_000))];
    told.extend(sandbox_process.map(|id| (AFTER, format!("['{SCOPE_PREFIX}-{id}.scope']"))));
    told
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
    fn a_shutdown_waits_as_long_as_the_pod_may_take() {
        let bound = |asked: Option<&str>| {
            let asked = asked.map(|seconds| (GRACE.to_owned(), seconds.to_owned())).into_iter().collect();
            scope(&asked, None).remove(0).1
        };
        let cases = [
            (None, "uint64 30000000"),
            (Some("5"), "uint64 5000000"),
            // systemd takes 0 for ever.
            (Some("0"), "uint64 1000000"),
            (Some("3600"), "uint64 90000000"),
            (Some("18446744073709551615"), "uint64 90000000"),
            (Some("-1"), "uint64 30000000"),
            (Some("soon"), "uint64 30000000"),
        ];
        for (asked, expected) in cases {
            assert_eq!(bound(asked), expected, "{asked:?}");
        }
    }

    #[test]
    fn containers_end_before_what_holds_their_namespace() {
        let told = scope(&HashMap::new(), Some("s1"));
        assert_eq!(told[1], (AFTER, "['cri-containerd-s1.scope']".to_owned()));
        assert_eq!(scope(&HashMap::new(), None).len(), 1);
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
