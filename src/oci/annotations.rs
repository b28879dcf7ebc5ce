//! Annotations of the spec: what shims and sandboxing runtimes read to find out which pod a container belongs to.

use std::collections::HashMap;

use cricket_proto::runtime::NamespaceMode;

use super::cgroup;
use super::container::Input;
use crate::config::glob;

/// `container` or `sandbox`.
pub const CONTAINER_TYPE: &str = "io.kubernetes.cri.container-type";
/// The runc shim serves containers with the same value together; it wins over the sandbox's id.
pub const SHIM_GROUP: &str = "io.containerd.runc.v2.group";
/// The runc shim serves containers with the same value together.
pub const SANDBOX_ID: &str = "io.kubernetes.cri.sandbox-id";
/// The pod's name.
pub const SANDBOX_NAME: &str = "io.kubernetes.cri.sandbox-name";
/// The pod's namespace.
pub const SANDBOX_NAMESPACE: &str = "io.kubernetes.cri.sandbox-namespace";
/// The pod's uid.
pub const SANDBOX_UID: &str = "io.kubernetes.cri.sandbox-uid";
/// The container's name in the pod.
pub const CONTAINER_NAME: &str = "io.kubernetes.cri.container-name";
/// The image as its user wrote it.
pub const IMAGE_NAME: &str = "io.kubernetes.cri.image-name";

/// The annotations of a container: those of pod and container that the handler lets through, and over them ours.
pub(super) fn of(input: &Input<'_>) -> HashMap<String, String> {
    let (pod, config) = (&input.request.sandbox.metadata, input.request.config);
    let written = &config.image.user_specified_image;
    let image = if written.is_empty() { &config.image.image } else { written };
    let handler = input.request.handler;
    let of_pod = passed(&input.request.sandbox.annotations, &handler.pod_annotations);
    let mut all: HashMap<String, String> =
        of_pod.chain(passed(&config.annotations, &handler.container_annotations)).collect();
    let ours = [
        (CONTAINER_TYPE, "container"),
        (SANDBOX_ID, input.sandbox_id.as_str()),
        (SANDBOX_NAME, &pod.name),
        (SANDBOX_NAMESPACE, &pod.namespace),
        (SANDBOX_UID, &pod.uid),
        (CONTAINER_NAME, &config.metadata.name),
        (IMAGE_NAME, image),
    ];
    all.extend(ours.map(|(key, value)| (key.to_string(), value.to_string())));
    // After what the pod says, which must not choose whose shim serves it.
    let group = input.request.handler.shim_group.clone();
    all.extend(group.map(|group| (SHIM_GROUP.to_string(), group)));
    if handler.systemd_cgroup {
        let pids = config.linux.security_context.namespace_options.pid.enum_value_or_default();
        let process = (pids == NamespaceMode::POD).then(|| input.sandbox_id.as_str());
        for (key, value) in cgroup::scope(&config.annotations, process) {
            // An operator who lets pods say it gets what they say.
            all.entry(key.to_string()).or_insert(value);
        }
    }
    all
}

/// The annotations whose names fit one of `patterns`.
pub(super) fn passed<'a>(
    all: &'a HashMap<String, String>,
    patterns: &'a [String],
) -> impl Iterator<Item = (String, String)> + 'a {
    let fits = |name: &str| patterns.iter().any(|pattern| glob::matches(pattern, name));
    // A spec cannot hold one without a name.
    all.iter()
        .filter(move |(name, _)| !name.is_empty() && fits(name))
        .map(|(name, value)| (name.clone(), value.clone()))
}
