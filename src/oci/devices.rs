//! Device nodes, and the device cgroup that forbids all others.

use std::collections::hash_map::{Entry, HashMap};
use std::ffi::OsStr;

use cricket_proto::runtime::ContainerConfig;
use oci_spec::runtime::{LinuxDevice, LinuxDeviceCgroup, LinuxDeviceType};

use super::container::Input;
use super::facts::{DeviceFacts, DeviceKind};
use crate::error::{Error, Result};

/// Read, write, mknod.
const EVERYTHING: &str = "rwm";

/// Refuses devices that are not described as such. That a node exists is for whoever looks it up.
pub(super) fn check(config: &ContainerConfig) -> Result<()> {
    for device in &config.devices {
        for path in [&device.host_path, &device.container_path] {
            if !path.starts_with('/') {
                return Err(Error::invalid(format!("device {path:?} is not an absolute path")));
            }
        }
        if !device.permissions.chars().all(|p| EVERYTHING.contains(p)) {
            let (path, permissions) = (&device.host_path, &device.permissions);
            return Err(Error::invalid(format!("device {path}: permissions {permissions:?} are not letters of rwm")));
        }
    }
    Ok(())
}

/// The nodes to make and the rules of the device cgroup. Of two nodes at one path the later one counts: the host's come
/// before those of the request. The runtime itself adds null, zero and the other harmless ones.
pub(super) fn of(input: &Input<'_>) -> (Vec<LinuxDevice>, Vec<LinuxDeviceCgroup>) {
    let all = || input.devices.iter().chain(&input.edits.nodes);
    let mut devices: Vec<LinuxDevice> = Vec::with_capacity(input.devices.len());
    // A machine has hundreds of nodes.
    let mut places: HashMap<&OsStr, usize> = HashMap::with_capacity(input.devices.len());
    for facts in all() {
        match places.entry(facts.path.as_os_str()) {
            Entry::Occupied(earlier) => devices[*earlier.get()] = node(facts),
            Entry::Vacant(place) => {
                place.insert(devices.len());
                devices.push(node(facts));
            }
        }
    }
    if input.request.wants_host_devices() {
        return (devices, vec![everything(true)]);
    }
    let mut rules = vec![everything(false)];
    rules.extend(all().filter_map(allow));
    (devices, rules)
}

fn node(facts: &DeviceFacts) -> LinuxDevice {
    let mut device = LinuxDevice::default();
    device
        .set_path(facts.path.clone())
        .set_typ(letter(facts.kind))
        .set_major(facts.major)
        .set_minor(facts.minor)
        .set_file_mode(Some(facts.mode))
        .set_uid(Some(facts.uid))
        .set_gid(Some(facts.gid));
    device
}

/// A pipe is no device to the cgroup.
fn allow(facts: &DeviceFacts) -> Option<LinuxDeviceCgroup> {
    if facts.kind == DeviceKind::Fifo {
        return None;
    }
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(true)
        .set_typ(Some(letter(facts.kind)))
        .set_major(Some(facts.major))
        .set_minor(Some(facts.minor))
        .set_access(Some(facts.access.clone()));
    Some(rule)
}

fn everything(allow: bool) -> LinuxDeviceCgroup {
    let mut rule = LinuxDeviceCgroup::default();
    rule.set_allow(allow).set_access(Some(EVERYTHING.into()));
    rule
}

fn letter(kind: DeviceKind) -> LinuxDeviceType {
    match kind {
        DeviceKind::Char => LinuxDeviceType::C,
        DeviceKind::Block => LinuxDeviceType::B,
        DeviceKind::Fifo => LinuxDeviceType::P,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::oci::container::tests::Case;
    use cricket_proto::runtime::Device;

    fn facts(path: &str, kind: DeviceKind, minor: i64, access: &str) -> DeviceFacts {
        DeviceFacts { path: path.into(), kind, major: 1, minor, mode: 0o660, uid: 0, gid: 6, access: access.into() }
    }

    fn rules(case: &Case) -> Vec<String> {
        let spec = case.spec().expect("valid");
        let linux = spec.linux().as_ref().expect("linux");
        let rules = linux.resources().as_ref().and_then(|r| r.devices().clone()).unwrap_or_default();
        rules.iter().map(|r| format!("{} {r}", if r.allow() { "allow" } else { "deny" })).collect()
    }

    #[test]
    fn everything_else_is_denied() {
        let mut case = Case::default();
        assert_eq!(rules(&case), ["deny a *:* rwm"]);
        case.devices = vec![
            facts("/dev/a", DeviceKind::Char, 1, "rwm"),
            facts("/dev/b", DeviceKind::Block, 2, "r"),
            facts("/dev/p", DeviceKind::Fifo, 0, "rwm"),
        ];
        assert_eq!(rules(&case), ["deny a *:* rwm", "allow c 1:1 rwm", "allow b 1:2 r"]);
        let spec = case.spec().expect("valid");
        assert_eq!(spec.linux().as_ref().and_then(|l| l.devices().as_ref().map(Vec::len)), Some(3));
    }

    #[test]
    fn privileged() {
        let mut case = Case::default();
        case.make_privileged();
        case.devices = vec![facts("/dev/a", DeviceKind::Char, 1, "rwm"), facts("/dev/a", DeviceKind::Char, 9, "r")];
        assert_eq!(rules(&case), ["allow a *:* rwm"]);
        let spec = case.spec().expect("valid");
        let devices = spec.linux().as_ref().and_then(|l| l.devices().clone()).unwrap_or_default();
        assert_eq!(devices.iter().map(|d| d.minor()).collect::<Vec<_>>(), [9]);
        case.handler.privileged_without_host_devices = true;
        assert_eq!(rules(&case), ["deny a *:* rwm", "allow c 1:1 rwm", "allow c 1:9 r"]);
    }

    #[test]
    fn refused() {
        for (host, container, permissions) in
            [("dev/a", "/dev/a", "rwm"), ("/dev/a", "", "rwm"), ("/dev/a", "/dev/a", "rx"), ("", "/dev/a", "")]
        {
            let mut case = Case::default();
            case.config.devices = vec![Device {
                host_path: host.into(),
                container_path: container.into(),
                permissions: permissions.into(),
                ..Default::default()
            }];
            assert_eq!(case.check().map_err(|e| e.kind()), Err(Kind::InvalidArgument), "{host} {container}");
        }
    }
}
