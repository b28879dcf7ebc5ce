//! The runtime spec of a container.

use oci_spec::runtime::{Linux, LinuxResources, Root, Spec};

use super::facts::{DeviceEdits, DeviceFacts, MountSource, Namespaces, OwnVolume, Profiles, SandboxFiles};
use super::user::User;
use super::{
    annotations, cdi, cgroup, check, devices, mounts, namespaces, process, resources, security, users, Request,
};
use crate::error::Result;
use crate::ids::{ContainerId, SandboxId};

/// The version of the runtime spec that we write; later additions we use only where the handler has them.
pub(super) const VERSION: &str = "1.0.2";

/// Everything a container's spec is made of.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// What was asked for.
    pub request: Request<'a>,
    /// The container's id.
    pub id: &'a ContainerId,
    /// Its sandbox's id.
    pub sandbox_id: &'a SandboxId,
    /// What it joins.
    pub namespaces: &'a Namespaces,
    /// The pod's host name, or the node's when the pod is in its network namespace.
    pub hostname: &'a str,
    /// The sandbox's files.
    pub files: &'a SandboxFiles,
    /// Who runs its first process.
    pub user: &'a User,
    /// The source of each of `config.mounts`, in the same order.
    pub mounts: &'a [MountSource],
    /// The directories of its own for volumes of the image.
    pub volumes: &'a [OwnVolume],
    /// The device nodes: the host's, if [`Request::wants_host_devices`], then those of `config.devices`.
    pub devices: &'a [DeviceFacts],
    /// What its CDI devices change.
    pub edits: &'a DeviceEdits,
    /// What `host::profiles::resolve` found for the request.
    pub profiles: &'a Profiles,
}

/// The runtime spec. Sysctls are not in it: they belong to the sandbox. The root is the directory `rootfs` of the bundle.
///
/// # Errors
/// As [`check`], which it repeats; `FailedPrecondition` if a mount's source cannot propagate or there is no PID
/// namespace to join; `Internal` if `input` does not fit the request.
pub fn spec(input: &Input<'_>) -> Result<Spec> {
    check(&input.request)?;
    let config = input.request.config;
    let mut root = Root::default();
    root.set_path("rootfs".into()).set_readonly(Some(config.linux.security_context.readonly_rootfs));
    let (mounts, propagation) = mounts::of(input)?;
    // Every field with a preset is set: oci-spec's default spec is a container of its own.
    let mut spec = Spec::default();
    spec.set_version(VERSION.into())
        .set_root(Some(root))
        .set_mounts(Some(mounts))
        .set_process(Some(process::of(input)?))
        .set_hostname(None)
        .set_annotations(Some(annotations::of(input)))
        .set_linux(Some(linux(input, propagation)?));
    cdi::apply(&mut spec, input.edits)?;
    Ok(spec)
}

fn linux(input: &Input<'_>, propagation: Option<&str>) -> Result<Linux> {
    let Request { sandbox, config, host, handler, .. } = input.request;
    let security = &config.linux.security_context;
    let (devices, rules) = devices::of(input);
    let mappings = users::mappings(sandbox)?;
    let mut limits = LinuxResources::default();
    limits.set_devices(Some(rules));
    resources::apply(&mut limits, &config.linux.resources, host)?;
    // The lists are exactly those of the request: an empty one is how a pod asks for an unmasked /proc.
    let listed = |paths: &Vec<String>| (!paths.is_empty() && !input.request.privileged()).then(|| paths.clone());

    let mut linux = Linux::default();
    linux
        .set_resources(Some(limits))
        .set_cgroups_path(Some(cgroup::path(&sandbox.linux.cgroup_parent, handler.systemd_cgroup, input.id.as_str())?))
        .set_namespaces(Some(namespaces::of(input)?))
        .set_uid_mappings(mappings.as_ref().map(|m| m.uids.clone()))
        .set_gid_mappings(mappings.map(|m| m.gids))
        .set_devices((!devices.is_empty()).then_some(devices))
        .set_seccomp(security::filter(input)?)
        .set_mount_label(input.profiles.selinux.as_ref().map(|labels| labels.mount.clone()))
        .set_rootfs_propagation(propagation.map(String::from))
        .set_masked_paths(listed(&security.masked_paths))
        .set_readonly_paths(listed(&security.readonly_paths));
    Ok(linux)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::oci::capabilities::CapSet;
    use crate::oci::facts::{Arch, HandlerFacts, HostFacts, ImageFacts};
    use cricket_proto::runtime::{ContainerConfig, LinuxContainerSecurityContext, NamespaceMode, PodSandboxConfig};

    /// A whole input that can be changed in one place and then built.
    pub struct Case {
        pub sandbox: PodSandboxConfig,
        pub config: ContainerConfig,
        pub image: ImageFacts,
        pub host: HostFacts,
        pub handler: HandlerFacts,
        pub namespaces: Namespaces,
        pub mounts: Vec<MountSource>,
        pub volumes: Vec<OwnVolume>,
        pub devices: Vec<DeviceFacts>,
        pub edits: DeviceEdits,
        pub profiles: Profiles,
    }

    impl Default for Case {
        /// A container with a command and a PID namespace of its own, on a v2 host where everything is possible.
        fn default() -> Self {
            let mut config = ContainerConfig { command: vec!["app".into()], ..Default::default() };
            config.metadata.mut_or_insert_default().name = "main".into();
            let mut sandbox = PodSandboxConfig::default();
            sandbox.metadata.mut_or_insert_default().name = "web".into();
            let mut case = Case {
                sandbox,
                config,
                image: ImageFacts::default(),
                host: HostFacts {
                    capabilities: CapSet::from_bits(u64::MAX),
                    hugetlb: true,
                    swap: true,
                    seccomp: true,
                    arch: Arch::X86_64,
                    kernel: (6, 1),
                    ..Default::default()
                },
                handler: HandlerFacts::default(),
                namespaces: Namespaces {
                    net: Some("/ns/net".into()),
                    ipc: Some("/ns/ipc".into()),
                    uts: Some("/ns/uts".into()),
                    user: None,
                    pid: None,
                },
                mounts: vec![],
                volumes: vec![],
                devices: vec![],
                edits: DeviceEdits::default(),
                profiles: Profiles::default(),
            };
            case.security().namespace_options.mut_or_insert_default().pid = NamespaceMode::CONTAINER.into();
            case
        }
    }

    impl Case {
        pub fn security(&mut self) -> &mut LinuxContainerSecurityContext {
            self.config.linux.mut_or_insert_default().security_context.mut_or_insert_default()
        }

        pub fn make_privileged(&mut self) {
            self.security().privileged = true;
            self.sandbox.linux.mut_or_insert_default().security_context.mut_or_insert_default().privileged = true;
        }

        pub fn request(&self) -> Request<'_> {
            Request {
                sandbox: &self.sandbox,
                config: &self.config,
                image: &self.image,
                host: &self.host,
                handler: &self.handler,
            }
        }

        pub fn check(&self) -> Result<()> {
            check(&self.request())
        }

        pub fn apparmor(&self) -> Result<security::Profile<'_>> {
            security::apparmor(&self.request())
        }

        pub fn spec(&self) -> Result<Spec> {
            spec(&Input {
                request: self.request(),
                id: &ContainerId::from_record("c1"),
                sandbox_id: &SandboxId::from_record("s1"),
                namespaces: &self.namespaces,
                hostname: "web-0",
                files: &SandboxFiles {
                    hostname: "/sandbox/hostname".into(),
                    hosts: "/sandbox/hosts".into(),
                    resolv_conf: "/sandbox/resolv.conf".into(),
                    shm: "/sandbox/shm".into(),
                },
                user: &User::default(),
                mounts: &self.mounts,
                volumes: &self.volumes,
                devices: &self.devices,
                edits: &self.edits,
                profiles: &self.profiles,
            })
        }
    }

    #[test]
    fn nothing_of_the_default_spec_of_the_crate_is_left() {
        let spec = Case::default().spec().expect("valid");
        assert_eq!(spec.hostname(), &None);
        let linux = spec.linux().as_ref().expect("linux");
        assert_eq!((linux.masked_paths(), linux.readonly_paths(), linux.seccomp()), (&None, &None, &None));
        let process = spec.process().as_ref().expect("process");
        assert_eq!((process.rlimits(), process.no_new_privileges()), (&None, Some(false)));
        assert_eq!(process.oom_score_adj(), None);
        assert_eq!(spec.root().as_ref().and_then(|r| r.readonly()), Some(false));
    }

    #[test]
    fn paths_are_masked_as_sent() {
        let mut case = Case::default();
        case.security().masked_paths = vec!["/proc/kcore".into()];
        case.security().readonly_paths = vec!["/proc/sys".into()];
        let lists = |case: &Case| {
            let spec = case.spec().expect("valid");
            let linux = spec.linux().clone().expect("linux");
            (linux.masked_paths().clone(), linux.readonly_paths().clone())
        };
        assert_eq!(lists(&case), (Some(vec!["/proc/kcore".into()]), Some(vec!["/proc/sys".into()])));
        case.make_privileged();
        assert_eq!(lists(&case), (None, None));
    }

    #[test]
    fn configs_without_metadata_are_refused() {
        let mut case = Case::default();
        case.config.metadata = None.into();
        assert_eq!(case.check().map_err(|e| e.kind()), Err(Kind::InvalidArgument));
        let mut case = Case::default();
        case.sandbox.metadata = None.into();
        assert_eq!(case.spec().map_err(|e| e.kind()), Err(Kind::InvalidArgument));
    }
}
