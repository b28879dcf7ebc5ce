//! Mounts: the base of every container, the sandbox's files, the request's own, and which of them wins.

use std::path::{Component, Path, PathBuf};

use cricket_proto::runtime::{ContainerConfig, IDMapping, Mount as CriMount, MountPropagation};
use oci_spec::runtime::{LinuxIdMapping, LinuxIdMappingBuilder, Mount};

use super::container::Input;
use super::facts::{CgroupMode, HandlerFacts, MountSource, OwnVolume, Propagation};
use crate::error::{Error, Kind, Result};

/// What the kubelet looks for at the start of the message.
pub const IMAGE_MOUNT_FAILED: &str = "ImageVolumeMountFailed";
/// The same for another reason.
const RRO_UNSUPPORTED: &str = "RROUnsupported";

/// Destination, type, source, options. Ordered so that nothing hides what comes before it.
const BASE: [(&str, &str, &str, &[&str]); 6] = [
    ("/proc", "proc", "proc", &["nosuid", "noexec", "nodev"]),
    ("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
    ("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
    ("/dev/mqueue", "mqueue", "mqueue", &["nosuid", "noexec", "nodev"]),
    (SYS, "sysfs", "sysfs", &["nosuid", "noexec", "nodev"]),
    (CGROUP, "cgroup", "cgroup", &["nosuid", "noexec", "nodev", "relatime"]),
];
const SYS: &str = "/sys";
const CGROUP: &str = "/sys/fs/cgroup";

/// Refuses mounts that cannot be or that this handler cannot do.
pub(super) fn check(config: &ContainerConfig, handler: &HandlerFacts) -> Result<()> {
    for mount in &config.mounts {
        check_one(mount, handler)?;
    }
    Ok(())
}

fn check_one(mount: &CriMount, handler: &HandlerFacts) -> Result<()> {
    let path = &mount.container_path;
    if !path.starts_with('/') {
        return Err(Error::invalid(format!("mount {path:?}: the path in the container is not absolute")));
    }
    let is_image = mount.image.is_some();
    if is_image {
        check_image(mount).map_err(|why| Error::invalid(format!("{IMAGE_MOUNT_FAILED}: mount {path}: {why}")))?;
    }
    if !is_image && !mount.host_path.starts_with('/') {
        return Err(Error::invalid(format!("mount {path}: the host path {:?} is not absolute", mount.host_path)));
    }
    let propagation =
        mount.propagation.enum_value().map_err(|n| Error::invalid(format!("mount {path}: unknown propagation {n}")))?;
    if mount.recursive_read_only {
        if !mount.readonly || propagation != MountPropagation::PROPAGATION_PRIVATE {
            return Err(Error::invalid(format!(
                "mount {path}: recursive read-only needs readonly and private propagation"
            )));
        }
        if !handler.recursive_read_only {
            let why = "this runtime handler or kernel cannot make a mount read-only with everything below it";
            return Err(Error::new(Kind::Unimplemented, format!("{RRO_UNSUPPORTED}: mount {path}: {why}")));
        }
    }
    match (mount.uidMappings.is_empty(), mount.gidMappings.is_empty()) {
        (true, true) => Ok(()),
        (false, false) if handler.idmap_mounts => Ok(()),
        (false, false) => Err(Error::new(
            Kind::Unimplemented,
            format!("mount {path}: this runtime handler or kernel cannot map the owners of a mount"),
        )),
        _ => Err(Error::invalid(format!("mount {path}: mappings of users and of groups come together"))),
    }
}

/// What is wrong with a mount of an image.
fn check_image(mount: &CriMount) -> std::result::Result<(), &'static str> {
    let sub_path = Path::new(&mount.image_sub_path);
    if mount.image.image.is_empty() {
        return Err("the image has no name");
    }
    if !mount.host_path.is_empty() {
        return Err("an image and a host path at once");
    }
    if !mount.readonly {
        return Err("an image can only be mounted read-only");
    }
    if mount.propagation.enum_value_or_default() != MountPropagation::PROPAGATION_PRIVATE {
        return Err("an image has nothing to propagate");
    }
    if sub_path.components().any(|part| !matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Err("image_sub_path must be relative and must not climb");
    }
    Ok(())
}

/// The container's mounts in mount order, and the propagation that its root needs for them.
pub(super) fn of(input: &Input<'_>) -> Result<(Vec<Mount>, Option<&'static str>)> {
    let config = input.request.config;
    if config.mounts.len() != input.mounts.len() {
        return Err(Error::internal("a mount of the request was not looked up on the host"));
    }
    let mut added = Vec::new();
    let mut root = Propagation::Private;
    for (mount, source) in config.mounts.iter().zip(input.mounts) {
        let propagation = propagation(mount, source)?;
        root = root.max(propagation);
        added.push(of_request(mount, source, propagation)?);
    }
    let of_image = input.volumes.iter().map(of_volume);
    for mount in of_image.chain(of_sandbox(input)) {
        if !is_at(&added, mount.destination()) {
            added.push(mount);
        }
    }
    // Stable, so that of two mounts at one place the later one stays on top.
    added.sort_by_cached_key(|m| m.destination().components().count());

    let dev = Path::new("/dev");
    let own_dev = added.iter().any(|m| m.destination() == dev);
    let mut all = base(input);
    all.retain(|b| {
        let hidden = own_dev && b.destination().starts_with(dev);
        !hidden && !is_at(&added, b.destination())
    });
    all.append(&mut added);
    Ok((all, (root != Propagation::Private).then(|| option(root))))
}

/// Whether one of them is mounted there. All paths are clean, so that it is enough to compare bytes.
fn is_at(mounts: &[Mount], place: &Path) -> bool {
    mounts.iter().any(|mount| mount.destination().as_os_str() == place.as_os_str())
}

fn base(input: &Input<'_>) -> Vec<Mount> {
    let (privileged, host) = (input.request.privileged(), input.request.host);
    let make = |&(destination, typ, source, options): &(&str, &str, &str, &[&str])| {
        let mut options: Vec<String> = options.iter().map(|o| o.to_string()).collect();
        if destination == SYS || destination == CGROUP {
            options.push(if privileged { "rw" } else { "ro" }.into());
        }
        // In the host's cgroup namespace a mount without these flags takes them from the whole machine.
        if destination == CGROUP && privileged && host.cgroups == CgroupMode::V2 {
            options.extend(host.cgroup2_flags.iter().cloned());
        }
        let mut mount = Mount::default();
        mount
            .set_destination(destination.into())
            .set_typ(Some(typ.into()))
            .set_source(Some(source.into()))
            .set_options(Some(options));
        mount
    };
    BASE.iter().map(make).collect()
}

/// Writable also where the root is not: that is what a volume is for.
fn of_volume(volume: &OwnVolume) -> Mount {
    bind(volume.destination.clone(), &volume.source, Propagation::Private, false)
}

/// What every container of the sandbox sees unless it mounts something else there.
fn of_sandbox(input: &Input<'_>) -> Vec<Mount> {
    let files = input.files;
    let readonly = input.request.config.linux.security_context.readonly_rootfs;
    [
        ("/etc/hostname", &files.hostname, readonly),
        ("/etc/hosts", &files.hosts, readonly),
        ("/etc/resolv.conf", &files.resolv_conf, readonly),
        ("/dev/shm", &files.shm, false),
    ]
    .into_iter()
    .map(|(destination, source, readonly)| bind(destination.into(), source, Propagation::Private, readonly))
    .collect()
}

fn of_request(asked: &CriMount, source: &MountSource, propagation: Propagation) -> Result<Mount> {
    let mut mount = bind(clean(&asked.container_path), &source.path, propagation, asked.readonly);
    if asked.recursive_read_only {
        // Beside `ro`, so that a runtime that does not know it still protects the top.
        mount.options_mut().get_or_insert_default().push("rro".into());
    }
    if !asked.uidMappings.is_empty() {
        mount.set_uid_mappings(Some(id_mappings(&asked.uidMappings)?));
        mount.set_gid_mappings(Some(id_mappings(&asked.gidMappings)?));
    }
    Ok(mount)
}

fn bind(destination: PathBuf, source: &Path, propagation: Propagation, readonly: bool) -> Mount {
    let options = ["rbind", option(propagation), if readonly { "ro" } else { "rw" }];
    let mut mount = Mount::default();
    mount
        .set_destination(destination)
        .set_typ(Some("bind".into()))
        .set_source(Some(source.into()))
        .set_options(Some(options.map(String::from).to_vec()));
    mount
}

/// What is asked for, if the source can give it: events travel only through a mount point that lets them.
fn propagation(mount: &CriMount, source: &MountSource) -> Result<Propagation> {
    let (wanted, needs) = match mount.propagation.enum_value_or_default() {
        MountPropagation::PROPAGATION_PRIVATE => return Ok(Propagation::Private),
        MountPropagation::PROPAGATION_HOST_TO_CONTAINER => (Propagation::Slave, "shared or slave"),
        MountPropagation::PROPAGATION_BIDIRECTIONAL => (Propagation::Shared, "shared"),
    };
    if source.propagation < wanted {
        let (path, source) = (&mount.container_path, source.path.display());
        return Err(Error::precondition(format!(
            "mount {path}: {source} is not on a {needs} mount point of the host, which its propagation needs; \
             `mount --make-rshared` changes that"
        )));
    }
    Ok(wanted)
}

fn option(propagation: Propagation) -> &'static str {
    match propagation {
        Propagation::Private => "rprivate",
        Propagation::Slave => "rslave",
        Propagation::Shared => "rshared",
    }
}

fn id_mappings(all: &[IDMapping]) -> Result<Vec<LinuxIdMapping>> {
    let one = |of: &IDMapping| {
        let mapping =
            LinuxIdMappingBuilder::default().host_id(of.host_id).container_id(of.container_id).size(of.length).build();
        mapping.map_err(|e| Error::caused(Kind::Internal, "build an id mapping", e))
    };
    all.iter().map(one).collect()
}

/// An absolute path without `.`, `..` and doubled slashes, so that two spellings of one place are equal.
pub(super) fn clean(path: &str) -> PathBuf {
    let mut clean = PathBuf::from("/");
    for part in Path::new(path).components() {
        match part {
            Component::Normal(name) => clean.push(name),
            Component::ParentDir => drop(clean.pop()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    clean
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::container::tests::Case;
    use cricket_proto::runtime::ImageSpec;
    use MountPropagation::{PROPAGATION_BIDIRECTIONAL as BIDIRECTIONAL, PROPAGATION_HOST_TO_CONTAINER as SLAVE};

    fn mount(path: &str) -> CriMount {
        CriMount { container_path: path.into(), host_path: "/host".into(), ..Default::default() }
    }

    fn source(path: &str) -> MountSource {
        MountSource { path: path.into(), propagation: Propagation::Private }
    }

    fn with(mounts: Vec<CriMount>) -> Case {
        let sources = (0..mounts.len()).map(|n| source(&format!("/src/{n}"))).collect();
        let mut case = Case { mounts: sources, ..Case::default() };
        case.config.mounts = mounts;
        case
    }

    fn list(case: &Case) -> Vec<String> {
        let spec = case.spec().expect("valid");
        let all = spec.mounts().clone().unwrap_or_default();
        let show = |m: &Mount| {
            let source = m.source().clone().unwrap_or_default();
            format!(
                "{} {} {}",
                source.display(),
                m.destination().display(),
                m.options().clone().unwrap_or_default().join(",")
            )
        };
        all.iter().map(show).collect()
    }

    #[test]
    fn the_request_wins_and_depth_sorts() {
        let all = list(&with(vec![
            mount("/a/b/c"),
            mount("/etc//hosts/"),
            mount("/a"),
            mount("/sys/fs/x/../cgroup"),
            mount("/a"),
        ]));
        let rest: Vec<&str> = all[5..].iter().map(String::as_str).collect();
        assert_eq!(
            rest,
            [
                "/src/2 /a rbind,rprivate,rw",
                "/src/4 /a rbind,rprivate,rw",
                "/src/1 /etc/hosts rbind,rprivate,rw",
                "/sandbox/hostname /etc/hostname rbind,rprivate,rw",
                "/sandbox/resolv.conf /etc/resolv.conf rbind,rprivate,rw",
                "/sandbox/shm /dev/shm rbind,rprivate,rw",
                "/src/0 /a/b/c rbind,rprivate,rw",
                "/src/3 /sys/fs/cgroup rbind,rprivate,rw",
            ]
        );
        assert!(all[..5].iter().all(|m| !m.contains("cgroup")), "{all:?}");
    }

    #[test]
    fn a_dev_of_ones_own_drops_the_base_below_it() {
        let all = list(&with(vec![mount("/dev")]));
        let dev: Vec<&String> = all.iter().filter(|m| m.contains(" /dev")).collect();
        assert_eq!(dev, ["/src/0 /dev rbind,rprivate,rw", "/sandbox/shm /dev/shm rbind,rprivate,rw"]);
    }

    #[test]
    fn read_only() {
        let mut case = with(vec![CriMount { readonly: true, ..mount("/data") }]);
        case.security().readonly_rootfs = true;
        let all = list(&case);
        assert!(all.contains(&"/src/0 /data rbind,rprivate,ro".into()), "{all:?}");
        assert!(all.contains(&"/sandbox/hosts /etc/hosts rbind,rprivate,ro".into()), "{all:?}");
        assert!(all.contains(&"/sandbox/shm /dev/shm rbind,rprivate,rw".into()), "{all:?}");
    }

    #[test]
    fn recursive_read_only() {
        let asked = CriMount { readonly: true, recursive_read_only: true, ..mount("/data") };
        let mut case = with(vec![asked.clone()]);
        let refused = case.check().expect_err("not offered");
        assert_eq!(refused.kind(), Kind::Unimplemented);
        assert!(refused.to_string().starts_with("RROUnsupported"), "{refused}");
        case.handler.recursive_read_only = true;
        assert!(list(&case).contains(&"/src/0 /data rbind,rprivate,ro,rro".into()));
        for wrong in [CriMount { readonly: false, ..asked.clone() }, CriMount { propagation: SLAVE.into(), ..asked }] {
            case.config.mounts = vec![wrong];
            assert_eq!(case.check().map_err(|e| e.kind()), Err(Kind::InvalidArgument));
        }
    }

    #[test]
    fn propagation_needs_a_source_that_propagates() {
        let cases = [
            (SLAVE, Propagation::Shared, Some("rslave")),
            (SLAVE, Propagation::Slave, Some("rslave")),
            (SLAVE, Propagation::Private, None),
            (BIDIRECTIONAL, Propagation::Shared, Some("rshared")),
            (BIDIRECTIONAL, Propagation::Slave, None),
            (BIDIRECTIONAL, Propagation::Private, None),
        ];
        for (asked, have, expected) in cases {
            let mut case = with(vec![CriMount { propagation: asked.into(), ..mount("/data") }]);
            case.mounts[0].propagation = have;
            let spec = case.spec().map_err(|e| e.kind());
            let Some(expected) = expected else {
                assert_eq!(spec.map(|_| ()), Err(Kind::FailedPrecondition), "{asked:?} {have:?}");
                continue;
            };
            let spec = spec.expect("propagates");
            let root = spec.linux().as_ref().and_then(|l| l.rootfs_propagation().clone());
            assert_eq!(root.as_deref(), Some(expected));
            assert!(list(&case).contains(&format!("/src/0 /data rbind,{expected},rw")));
        }
    }

    #[test]
    fn the_widest_propagation_is_the_roots() {
        let asked = |p: MountPropagation, path: &str| CriMount { propagation: p.into(), ..mount(path) };
        let mut case = with(vec![asked(BIDIRECTIONAL, "/a"), asked(SLAVE, "/b"), mount("/c")]);
        case.mounts.iter_mut().for_each(|m| m.propagation = Propagation::Shared);
        let spec = case.spec().expect("valid");
        assert_eq!(spec.linux().as_ref().and_then(|l| l.rootfs_propagation().as_deref()), Some("rshared"));
        let spec = Case::default().spec().expect("valid");
        assert_eq!(spec.linux().as_ref().and_then(|l| l.rootfs_propagation().as_deref()), None);
    }

    #[test]
    fn owners_are_mapped_where_that_works() {
        let one = vec![IDMapping { host_id: 65536, container_id: 0, length: 100, ..Default::default() }];
        let asked = CriMount { uidMappings: one.clone(), gidMappings: one.clone(), ..mount("/data") };
        let mut case = with(vec![asked.clone()]);
        assert_eq!(case.check().map_err(|e| e.kind()), Err(Kind::Unimplemented));
        case.handler.idmap_mounts = true;
        let spec = case.spec().expect("valid");
        let mounts = spec.mounts().clone().unwrap_or_default();
        let mapped = mounts.iter().find(|m| m.destination() == Path::new("/data")).expect("there");
        assert_eq!(mapped.uid_mappings(), &Some(id_mappings(&one).expect("valid")));
        assert_eq!(mapped.uid_mappings(), mapped.gid_mappings());
        case.config.mounts = vec![CriMount { gidMappings: vec![], ..asked }];
        assert_eq!(case.check().map_err(|e| e.kind()), Err(Kind::InvalidArgument));
    }

    #[test]
    fn refused() {
        let image = || Some(ImageSpec { image: "app".into(), ..Default::default() }).into();
        let cases = [
            (CriMount { container_path: "data".into(), ..mount("") }, Kind::InvalidArgument),
            (mount(""), Kind::InvalidArgument),
            (CriMount { host_path: String::new(), ..mount("/data") }, Kind::InvalidArgument),
            (CriMount { host_path: "data".into(), ..mount("/data") }, Kind::InvalidArgument),
            (CriMount { propagation: protobuf::EnumOrUnknown::from_i32(5), ..mount("/data") }, Kind::InvalidArgument),
            (CriMount { image: image(), ..mount("/data") }, Kind::InvalidArgument),
        ];
        for (mount, expected) in cases {
            assert_eq!(with(vec![mount.clone()]).check().map_err(|e| e.kind()), Err(expected), "{mount:?}");
        }
        let mut forgotten = with(vec![mount("/data")]);
        forgotten.mounts.clear();
        assert_eq!(forgotten.spec().map_err(|e| e.kind()), Err(Kind::Internal));
    }

    /// The kubelet sends what a volume's `subPath` says with mounts of every kind; their host path has it already.
    #[test]
    fn a_sub_path_is_the_images_alone() {
        let all = list(&with(vec![CriMount { image_sub_path: "inner".into(), ..mount("/data") }]));
        assert_eq!(all, list(&with(vec![mount("/data")])));
    }

    #[test]
    fn images() {
        let image = Some(ImageSpec { image: "app".into(), ..Default::default() });
        let asked = CriMount { image: image.into(), host_path: String::new(), readonly: true, ..mount("/data") };
        let all = list(&with(vec![CriMount { image_sub_path: "a/./b".into(), ..asked.clone() }]));
        assert!(all.contains(&"/src/0 /data rbind,rprivate,ro".into()), "{all:?}");
        let refused = [
            CriMount { image: Some(ImageSpec::default()).into(), ..asked.clone() },
            CriMount { host_path: "/host".into(), ..asked.clone() },
            CriMount { readonly: false, ..asked.clone() },
            CriMount { propagation: SLAVE.into(), ..asked.clone() },
            CriMount { image_sub_path: "/a".into(), ..asked.clone() },
            CriMount { image_sub_path: "a/../..".into(), ..asked },
        ];
        for mount in refused {
            let e = with(vec![mount.clone()]).check().expect_err("refused");
            assert_eq!(e.kind(), Kind::InvalidArgument, "{mount:?}");
            assert!(e.to_string().starts_with("ImageVolumeMountFailed: "), "{e}");
        }
    }

    #[test]
    fn privileged_writes_to_sys_and_keeps_the_flags_of_the_cgroup_mount() {
        let mut case = with(vec![]);
        case.host.cgroup2_flags = vec!["nsdelegate".into()];
        let plain = list(&case);
        assert!(plain.contains(&"sysfs /sys nosuid,noexec,nodev,ro".into()), "{plain:?}");
        assert!(plain.contains(&"cgroup /sys/fs/cgroup nosuid,noexec,nodev,relatime,ro".into()), "{plain:?}");
        case.make_privileged();
        let all = list(&case);
        assert!(all.contains(&"sysfs /sys nosuid,noexec,nodev,rw".into()), "{all:?}");
        assert!(all.contains(&"cgroup /sys/fs/cgroup nosuid,noexec,nodev,relatime,rw,nsdelegate".into()), "{all:?}");
        case.host.cgroups = CgroupMode::V1;
        assert!(list(&case).contains(&"cgroup /sys/fs/cgroup nosuid,noexec,nodev,relatime,rw".into()));
    }
}
