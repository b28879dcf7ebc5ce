//! A whole input of the spec builder that a case changes where it differs.

use std::path::PathBuf;

use cricket::error::Result;
use cricket::ids::{ContainerId, SandboxId};
use cricket::oci::accounts::Accounts;
use cricket::oci::base;
use cricket::oci::capabilities::CapSet;
use cricket::oci::container::{self, Input};
use cricket::oci::facts::{
    Arch, CgroupMode, DeviceEdits, DeviceFacts, HandlerFacts, HostFacts, ImageFacts, MountSource, Namespaces,
    OwnVolume, Profiles, SandboxFiles,
};
use cricket::oci::user::{self, User};
use cricket::oci::volumes;
use cricket::oci::Request;
use cricket_proto::runtime::{
    ContainerConfig, LinuxContainerResources, LinuxContainerSecurityContext, LinuxSandboxSecurityContext,
    NamespaceMode, PodSandboxConfig,
};
use oci_spec::runtime::Spec;
use serde_json::Value;

/// Everything that goes into one spec.
pub struct Case {
    pub id: ContainerId,
    pub sandbox_id: SandboxId,
    pub sandbox: PodSandboxConfig,
    pub config: ContainerConfig,
    pub image: ImageFacts,
    pub host: HostFacts,
    pub handler: HandlerFacts,
    pub namespaces: Namespaces,
    pub hostname: String,
    pub files: SandboxFiles,
    pub mounts: Vec<MountSource>,
    pub volumes: Vec<OwnVolume>,
    pub devices: Vec<DeviceFacts>,
    pub edits: DeviceEdits,
    pub accounts: Accounts,
    pub profiles: Profiles,
    pub base: Option<Value>,
}

impl Case {
    /// What the kubelet sends for the plainest of pods, on a host with cgroup v2.
    pub fn new() -> Case {
        let mut sandbox = PodSandboxConfig { hostname: "web-0".into(), ..Default::default() };
        let pod = sandbox.metadata.mut_or_insert_default();
        (pod.name, pod.namespace, pod.uid) = ("web-0".into(), "default".into(), "6e7f".into());
        sandbox.linux.mut_or_insert_default().cgroup_parent = "/kubepods/besteffort/pod6e7f".into();
        let mut config = ContainerConfig::default();
        config.metadata.mut_or_insert_default().name = "nginx".into();
        config.image.mut_or_insert_default().user_specified_image = "nginx:1.27".into();
        let mut case = Case {
            id: ContainerId::from_record("c".repeat(64)),
            sandbox_id: SandboxId::from_record("5".repeat(64)),
            sandbox,
            config,
            image: ImageFacts {
                entrypoint: vec!["/docker-entrypoint.sh".into()],
                cmd: vec!["nginx".into(), "-g".into(), "daemon off;".into()],
                env: vec!["PATH=/usr/sbin:/usr/bin".into(), "NGINX_VERSION=1.27".into()],
                ..Default::default()
            },
            host: HostFacts {
                cgroups: CgroupMode::V2,
                hugetlb: true,
                swap: true,
                capabilities: CapSet::from_bits(u64::MAX),
                seccomp: true,
                arch: Arch::X86_64,
                kernel: (6, 1),
                ..Default::default()
            },
            handler: HandlerFacts::default(),
            namespaces: Namespaces {
                net: Some("/run/netns/cricket-5".into()),
                ipc: Some("/run/cricket/sandboxes/5/ipc".into()),
                uts: Some("/run/cricket/sandboxes/5/uts".into()),
                user: None,
                pid: None,
            },
            hostname: "web-0".into(),
            files: SandboxFiles {
                hostname: "/var/lib/cricket/sandboxes/5/hostname".into(),
                hosts: "/var/lib/cricket/sandboxes/5/hosts".into(),
                resolv_conf: "/var/lib/cricket/sandboxes/5/resolv.conf".into(),
                shm: "/run/cricket/sandboxes/5/shm".into(),
            },
            mounts: vec![],
            volumes: vec![],
            devices: vec![],
            edits: DeviceEdits::default(),
            accounts: Accounts::default(),
            profiles: Profiles::default(),
            base: None,
        };
        case.modes(NamespaceMode::POD, NamespaceMode::CONTAINER, NamespaceMode::POD);
        case
    }

    pub fn security(&mut self) -> &mut LinuxContainerSecurityContext {
        self.config.linux.mut_or_insert_default().security_context.mut_or_insert_default()
    }

    pub fn pod_security(&mut self) -> &mut LinuxSandboxSecurityContext {
        self.sandbox.linux.mut_or_insert_default().security_context.mut_or_insert_default()
    }

    pub fn resources(&mut self) -> &mut LinuxContainerResources {
        self.config.linux.mut_or_insert_default().resources.mut_or_insert_default()
    }

    /// Network, PID and IPC mode of pod and container.
    pub fn modes(&mut self, network: NamespaceMode, pid: NamespaceMode, ipc: NamespaceMode) {
        let options = self.pod_security().namespace_options.mut_or_insert_default();
        (options.network, options.pid, options.ipc) = (network.into(), pid.into(), ipc.into());
        let same = self.pod_security().namespace_options.clone();
        self.security().namespace_options = same;
    }

    pub fn privileged(&mut self) {
        self.pod_security().privileged = true;
        self.security().privileged = true;
    }

    /// A mount of the request and where its source was found.
    pub fn mount(&mut self, mount: cricket_proto::runtime::Mount, source: MountSource) {
        self.config.mounts.push(mount);
        self.mounts.push(source);
    }

    /// With a directory for every volume of the image, as if each were what it is called.
    pub fn with_volumes(mut self) -> Result<Case> {
        let wanted = volumes::declared(&self.config, &self.image)?;
        let of = |(number, path)| OwnVolume { destination: path, source: format!("/volumes/{number}").into() };
        self.volumes = wanted.into_iter().enumerate().map(of).collect();
        Ok(self)
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

    /// The spec as it is stored, a base below it.
    pub fn json(&self) -> Value {
        let bytes = base::complete(&self.spec(), self.base.as_ref(), &self.request()).expect("a case is valid");
        serde_json::from_slice(&bytes).expect("JSON")
    }

    pub fn spec(&self) -> Spec {
        self.try_spec().expect("a case is valid")
    }

    pub fn try_spec(&self) -> Result<Spec> {
        let user: User = user::wanted(&self.config, &self.image)?.resolve(&self.accounts)?;
        container::spec(&Input {
            request: self.request(),
            id: &self.id,
            sandbox_id: &self.sandbox_id,
            namespaces: &self.namespaces,
            hostname: &self.hostname,
            files: &self.files,
            user: &user,
            mounts: &self.mounts,
            volumes: &self.volumes,
            devices: &self.devices,
            edits: &self.edits,
            profiles: &self.profiles,
        })
    }
}

/// Where a mount's source was found.
pub fn source(path: &str, propagation: cricket::oci::facts::Propagation) -> MountSource {
    MountSource { path: PathBuf::from(path), propagation }
}
