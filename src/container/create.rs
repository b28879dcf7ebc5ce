//! CreateContainer: plan, act with undo, commit.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use cricket_proto::records;
use cricket_proto::runtime::{
    ContainerConfig, ContainerEventType, CreateContainerRequest, CreateContainerResponse, NamespaceMode,
};
use oci_spec::runtime::Spec;
use protobuf::{Message, MessageField};

use crate::call::Call;
use crate::cgroup;
use crate::clock;
use crate::config::Handler;
use crate::container::{declared, start, volume};
use crate::containerd::{config_file, Any, Labels, Record, RuncOptions, SnapshotRef};
use crate::error::{Context, Error, Idempotent, Kind, Result};
use crate::host;
use crate::ids::ContainerId;
use crate::image::{unpack, Images};
use crate::oci;
use crate::oci::accounts::Accounts;
use crate::oci::facts::{DeviceFacts, HandlerFacts, Namespaces, OwnVolume, Profiles};
use crate::oci::user::User;
use crate::oci::users::Users;
use crate::reference::{looks_like_id, Reference};
use crate::rollback::Rollback;
use crate::runtime::Runtime;
use crate::store::container::reserved_name;
use crate::store::image::Image;
use crate::store::{Container, ContainerState, Sandbox};
use crate::sys::layer::Layer;
use crate::sys::tree;

/// The extension of containerd's record that holds ours.
pub const METADATA_TYPE: &str = "cricket.v1.Container";
/// Marks the snapshots that are ours to remove; its value is the container's id.
pub const OWN_SNAPSHOT: &str = "cricket/container";
/// Keeps containerd's garbage collection away from a snapshot that no record names yet. We remove what we make, so it
/// may stay.
const GC_ROOT: &str = "containerd.io/gc.root";

/// Give the files of a snapshot other owners.
const UID_MAPPING: &str = "containerd.io/snapshot/uidmapping";
const GID_MAPPING: &str = "containerd.io/snapshot/gidmapping";

/// Everything about the container that is known before anything is made.
struct Plan<'a> {
    id: ContainerId,
    sandbox: &'a Sandbox,
    handler: &'a Handler,
    image: &'a Image,
    config: ContainerConfig,
    log_path: Option<PathBuf>,
    target_pid: Option<u32>,
    /// Volumes of the image.
    volumes: Vec<PathBuf>,
}

/// Makes a container: its snapshot, its OCI spec, its containerd record. No process yet. Blocks for containerd. An equal
/// request meanwhile gets the same container; so does one that comes afterwards, as long as nothing was done with it.
/// When nobody waits for it any more, it is undone.
///
/// # Errors
/// `InvalidArgument` and `Unimplemented` before anything happens; `NotFound` for sandbox or image; `AlreadyExists` for
/// a name in use; `FailedPrecondition` if the sandbox is not ready; otherwise what failed, and nothing is left.
pub fn create(rt: &Runtime, call: &Call, request: CreateContainerRequest) -> Result<CreateContainerResponse> {
    let sandbox = rt.sandboxes.get(&request.pod_sandbox_id)?;
    let config = request.config.as_ref().ok_or_else(|| Error::invalid("request has no container config"))?;
    let name = reserved_name(config, &sandbox.config.metadata)?;
    let made = rt.creating_containers.join(call, &name, request, |call, request| {
        // Until the container can be found: a stop of the pod waits for us and then sees it.
        let _joined = sandbox.join()?;
        match unheard(rt, &name, &sandbox, request) {
            Some(container) => {
                log::info!("container {name} is there already, with id {}: the request is the same", container.id);
                Ok(container.id.to_string())
            }
            None => {
                // Its start comes next, mostly.
                cgroup::expect_move();
                make(rt, call, &name, &sandbox, request.config.clone().unwrap_or_default())
            }
        }
    });
    Ok(CreateContainerResponse { container_id: made?, ..Default::default() })
}

/// The container that this very request has made, if the answer may have been lost on its way: nobody has done anything
/// with it.
fn unheard(rt: &Runtime, name: &str, sandbox: &Sandbox, request: &CreateContainerRequest) -> Option<Arc<Container>> {
    let container = rt.containers.named(name)?;
    let same = container.sandbox_id == sandbox.id && container.config == *request.config;
    (same && container.is_untouched()).then_some(container)
}

fn make(rt: &Runtime, call: &Call, name: &str, sandbox: &Sandbox, config: ContainerConfig) -> Result<String> {
    if config.image.image.is_empty() {
        return Err(Error::invalid("container config names no image"));
    }
    if looks_like_id(&config.image.image).is_none() {
        Reference::parse(&config.image.image)?;
    }
    let image = rt.images.get(&config.image.image).map_err(|e| match e.kind() {
        Kind::NotFound => e.context("the image must be pulled or imported first"),
        _ => e,
    })?;
    let plan = Plan {
        id: ContainerId::random()?,
        sandbox,
        handler: rt.handler(&sandbox.runtime_handler)?,
        image: &image,
        log_path: log_path(&sandbox.config.log_directory, &config.log_path)?,
        target_pid: target_pid(rt, sandbox, &config)?,
        volumes: declared::wanted(rt, &config, &image)?,
        config,
    };
    plan.check(rt)?;
    let slot = rt.containers.reserve(name, plan.id.as_str())?;
    call.check()?;
    let images = volume::mount_images(rt, call, sandbox, rt.config.snapshotter(plan.handler), &plan.config)?;
    let container = plan.act(rt, call, &images).with_context(|| format!("create container {name}"))?;
    let container = slot.fill(container);
    rt.tell(ContainerEventType::CONTAINER_CREATED_EVENT, container.id.as_str(), &sandbox.id);
    Ok(container.id.to_string())
}

/// What was found out for it on this node.
#[derive(Clone, Copy)]
struct Found<'a> {
    user: &'a User,
    profiles: &'a Profiles,
    /// Where the images of its mounts are.
    images: &'a [Option<PathBuf>],
    /// The directories for volumes of its own image.
    volumes: &'a [OwnVolume],
}

impl Plan<'_> {
    fn check(&self, rt: &Runtime) -> Result<()> {
        oci::check(&self.request(rt, &rt.handler_facts(self.handler)))
    }

    fn request<'a>(&'a self, rt: &'a Runtime, handler: &'a HandlerFacts) -> oci::Request<'a> {
        let (sandbox, config, image) = (&self.sandbox.config, &self.config, &self.image.config);
        oci::Request { sandbox, config, image, host: &rt.host.facts, handler }
    }

    fn act(&self, rt: &Runtime, call: &Call, images: &[Option<PathBuf>]) -> Result<Container> {
        let containerd = &*rt.containerd;
        let (id, snapshotter) = (self.id.as_str(), rt.config.snapshotter(self.handler));
        let at = SnapshotRef { snapshotter, key: id };
        let root = rt.layout.container_root(&self.id);
        let profiles = host::profiles::resolve(&self.request(rt, &rt.handler_facts(self.handler)), &self.sandbox.id)?;
        let mut undo = Rollback::new();

        let made = fs::DirBuilder::new().mode(0o711).recursive(true).create(&root);
        made.with_context(|| format!("make {}", root.display()))?;
        undo.push("container directory", || tree::remove(&root).or_gone());

        unpack::ensure(&Images { containerd, store: &rt.images, snapshotter }, call, self.image)?;
        undo.push("snapshot", || containerd.remove_snapshot(&Call::undo(), &at).or_gone());
        let mut labels = Labels::from([(OWN_SNAPSHOT.into(), id.into()), (GC_ROOT.into(), "cricket".into())]);
        if let Some(users) = oci::users::of(&self.sandbox.config)? {
            labels.insert(UID_MAPPING.into(), users.uids.label());
            labels.insert(GID_MAPPING.into(), users.gids.label());
        }
        let mounts = containerd.prepare_snapshot(call, &at, &self.image.chain_id, &labels);
        let mounts = mounts.context("prepare snapshot")?;
        let layers: Vec<Layer<'_>> =
            mounts.iter().map(|m| Layer { kind: &m.kind, source: &m.source, options: &m.options }).collect();
        let user = self.user(&layers, &root)?;
        let users = oci::users::of(&self.sandbox.config)?;
        let into = declared::Place { root: &root, volumes: &rt.layout.container_volumes(&self.id), users };
        let volumes = declared::make(call, &self.config, &self.volumes, &layers, &into)?;

        let found = Found { user: &user, profiles: &profiles, images, volumes: &volumes };
        let (record, container) = self.record(rt, snapshotter, &found)?;
        call.check()?;
        undo.push("containerd record", || containerd.delete_container(&Call::undo(), id).or_gone());
        containerd.create_container(call, &record).context("create containerd record")?;
        // The last look at whether anybody waits: from there on it is theirs.
        call.check()?;
        undo.commit();
        container.keep_parts(start::parts_of(rt, record, mounts));
        Ok(container)
    }

    /// Who the container runs as. The image is looked into unless the request leaves it no say.
    fn user(&self, layers: &[Layer<'_>], at: &Path) -> Result<User> {
        let wanted = oci::user::wanted(&self.config, &self.image.config)?;
        if !wanted.depends_on_image() {
            return wanted.resolve(&Accounts::default());
        }
        wanted.resolve(&host::accounts::read(layers, at)?)
    }

    fn spec(&self, rt: &Runtime, handler: &HandlerFacts, found: &Found<'_>) -> Result<Spec> {
        let Found { user, profiles, images, volumes } = *found;
        let request = self.request(rt, handler);
        let score = oci::resources::oom_score_adj(&self.config.linux.resources, &rt.host.facts)?;
        if let Some(wanted) = score.clamped_from {
            rt.note_clamped_oom_score(wanted, score.value);
        }
        let mut devices = host::devices::resolve(&[], request.wants_host_devices())?;
        devices.extend(self.devices(rt)?);
        let edits = host::cdi::resolve(&oci::cdi_names(&self.config)?, &rt.config.cdi_dirs)?;
        let mounts = host::mounts::resolve(&self.config.mounts, images)?;
        let files = rt.layout.sandbox_files(&self.sandbox.id, &self.sandbox.namespaces());
        if let Some(labels) = &profiles.selinux {
            let own_shm = self.sandbox.namespaces().ipc != NamespaceMode::NODE.into();
            host::selinux::label_volumes(&self.config.mounts, &mounts, &labels.mount)?;
            host::selinux::label_files(&files, own_shm, &labels.mount)?;
            volumes.iter().try_for_each(|volume| host::selinux::relabel(&volume.source, &labels.mount))?;
        }
        oci::container::spec(&oci::container::Input {
            request,
            id: &self.id,
            sandbox_id: &self.sandbox.id,
            namespaces: &self.namespaces(rt),
            hostname: self.hostname(rt),
            files: &files,
            user,
            mounts: &mounts,
            volumes,
            devices: &devices,
            edits: &edits,
            profiles,
        })
    }

    /// The devices that the container names by their paths, owned by whom the configuration says.
    fn devices(&self, rt: &Runtime) -> Result<Vec<DeviceFacts>> {
        let mut devices = host::devices::resolve(&self.config.devices, false)?;
        if rt.config.device_ownership_from_security_context {
            let security = &self.config.linux.security_context;
            let id = |value: Option<i64>| value.and_then(|id| u32::try_from(id).ok());
            let (uid, gid) = (security.run_as_user.as_ref(), security.run_as_group.as_ref());
            let (uid, gid) = (id(uid.map(|u| u.value)), id(gid.map(|g| g.value)));
            for device in &mut devices {
                (device.uid, device.gid) = (uid.unwrap_or(device.uid), gid.unwrap_or(device.gid));
            }
        }
        Ok(devices)
    }

    /// What the container joins of its pod.
    fn namespaces(&self, rt: &Runtime) -> Namespaces {
        let pins = self.sandbox.pins(&rt.layout);
        let target = self.target_pid.map(|pid| PathBuf::from(format!("/proc/{pid}/ns/pid")));
        Namespaces { pid: target.or(pins.pid), ..pins }
    }

    fn hostname<'a>(&'a self, rt: &'a Runtime) -> &'a str {
        match self.sandbox.config.hostname.as_str() {
            "" => &rt.host.hostname,
            own => own,
        }
    }

    /// The containerd record, spec and metadata in it, and what the store keeps.
    fn record(&self, rt: &Runtime, snapshotter: &str, found: &Found<'_>) -> Result<(Record, Container)> {
        let user = found.user;
        let handler = rt.handler_facts(self.handler);
        let users = oci::users::of(&self.sandbox.config)?;
        let spec = self.spec(rt, &handler, found)?;
        let spec = oci::base::complete(&spec, rt.base_spec(self.handler), &self.request(rt, &handler))?;
        let metadata = records::Container {
            sandbox_id: self.sandbox.id.to_string(),
            config: MessageField::some(self.config.clone()),
            image_id: self.image.id.clone(),
            log_path: self.log_path.as_deref().map(Path::to_string_lossy).unwrap_or_default().into_owned(),
            stop_signal: oci::signal::of(&self.config, &self.image.config)?,
            created_at: clock::now(),
            uid: i64::from(user.uid),
            gid: i64::from(user.gid),
            supplemental_groups: user.additional_gids.iter().copied().map(i64::from).collect(),
            ..Default::default()
        };
        let encoded = metadata.write_to_bytes();
        let encoded = encoded.map_err(|e| Error::caused(Kind::Internal, "encode container metadata", e))?;
        let record = Record {
            id: self.id.to_string(),
            labels: oci::labels::of(&self.config.labels, &self.image.config.labels),
            image: self.image.names.first().cloned().unwrap_or_default(),
            runtime: rt.shim(self.handler, users.is_some())?,
            runtime_options: runtime_options(self.handler, handler.systemd_cgroup, users.as_ref())?,
            spec,
            snapshotter: snapshotter.to_owned(),
            snapshot_key: self.id.to_string(),
            extensions: BTreeMap::from([(
                METADATA_TYPE.to_owned(),
                Any { type_url: METADATA_TYPE.to_owned(), value: encoded },
            )]),
            created_at: 0,
        };
        let container = Container::from_record(self.id.as_str(), &metadata, ContainerState::Created);
        Ok((record, container))
    }
}

/// `<sandbox's log directory>/<container's log path>`; no log if either is missing.
///
/// # Errors
/// `InvalidArgument` for a path that leaves the directory.
fn log_path(directory: &str, path: &str) -> Result<Option<PathBuf>> {
    if directory.is_empty() || path.is_empty() {
        return Ok(None);
    }
    let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    match inside && Path::new(directory).is_absolute() {
        true => Ok(Some(Path::new(directory).join(path))),
        false => Err(Error::invalid(format!("log path {path:?} must lie in the pod's log directory {directory:?}"))),
    }
}

/// The pid whose PID namespace the container joins, with namespace mode TARGET.
///
/// # Errors
/// `InvalidArgument` for a target of another pod; `NotFound`, `FailedPrecondition` for one that does not run.
fn target_pid(rt: &Runtime, sandbox: &Sandbox, config: &ContainerConfig) -> Result<Option<u32>> {
    let options = config.linux.security_context.namespace_options.clone().unwrap_or_default();
    if options.pid != NamespaceMode::TARGET.into() {
        return Ok(None);
    }
    let target = rt.containers.get(&options.target_id).context("PID namespace target")?;
    if target.sandbox_id != sandbox.id {
        return Err(Error::invalid(format!("PID namespace target {} is in another pod", target.id)));
    }
    target.must_be_running().context("PID namespace target").map(Some)
}

/// The shim's options: the runc family has its own, any other is given the name of a file.
pub fn runtime_options(handler: &Handler, systemd_cgroup: bool, users: Option<&Users>) -> Result<Option<Any>> {
    let path = |p: &Option<PathBuf>| p.as_deref().map(Path::to_string_lossy).unwrap_or_default().into_owned();
    let owner = users.map_or((0, 0), |users| (users.uids.host, users.gids.host));
    let options = RuncOptions { binary: &path(&handler.binary), root: &path(&handler.root), systemd_cgroup, owner };
    match &handler.config_path {
        _ if handler.is_runc() => options.encode().map(Some),
        Some(config) => config_file(&handler.runtime_type, config).map(Some),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_stays_in_its_directory() {
        let made = |directory, path| log_path(directory, path).map_err(|e| e.kind());
        assert_eq!(made("/var/log/pods/x", "c/0.log"), Ok(Some("/var/log/pods/x/c/0.log".into())));
        assert_eq!(made("", "0.log"), Ok(None));
        assert_eq!(made("/var/log", ""), Ok(None));
        for (directory, path) in [("/l", "../x"), ("/l", "/etc/passwd"), ("/l", "a/../../x"), ("relative", "x")] {
            assert_eq!(made(directory, path), Err(Kind::InvalidArgument), "{directory} {path}");
        }
    }
}
