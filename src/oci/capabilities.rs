//! Capabilities: the default set, what a container adds and drops, and the bound that the daemon's own rights set.

use std::str::FromStr;

use oci_spec::runtime::{Capabilities, Capability, LinuxCapabilities};

use super::Request;
use crate::error::{Error, Kind, Result};

/// Every capability at the position of its bit in the kernel's masks.
const ORDER: [Capability; 41] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::DacReadSearch,
    Capability::Fowner,
    Capability::Fsetid,
    Capability::Kill,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setpcap,
    Capability::LinuxImmutable,
    Capability::NetBindService,
    Capability::NetBroadcast,
    Capability::NetAdmin,
    Capability::NetRaw,
    Capability::IpcLock,
    Capability::IpcOwner,
    Capability::SysModule,
    Capability::SysRawio,
    Capability::SysChroot,
    Capability::SysPtrace,
    Capability::SysPacct,
    Capability::SysAdmin,
    Capability::SysBoot,
    Capability::SysNice,
    Capability::SysResource,
    Capability::SysTime,
    Capability::SysTtyConfig,
    Capability::Mknod,
    Capability::Lease,
    Capability::AuditWrite,
    Capability::AuditControl,
    Capability::Setfcap,
    Capability::MacOverride,
    Capability::MacAdmin,
    Capability::Syslog,
    Capability::WakeAlarm,
    Capability::BlockSuspend,
    Capability::AuditRead,
    Capability::Perfmon,
    Capability::Bpf,
    Capability::CheckpointRestore,
];

/// What a container may do that asks for nothing: the set that images have come to expect.
const DEFAULT: [Capability; 14] = [
    Capability::Chown,
    Capability::DacOverride,
    Capability::Fsetid,
    Capability::Fowner,
    Capability::Mknod,
    Capability::NetRaw,
    Capability::Setgid,
    Capability::Setuid,
    Capability::Setfcap,
    Capability::Setpcap,
    Capability::NetBindService,
    Capability::SysChroot,
    Capability::Kill,
    Capability::AuditWrite,
];

/// A set of capabilities, one bit each as in `/proc/<pid>/status`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CapSet(u64);

impl CapSet {
    /// From a mask of the kernel; bits without a name are left out.
    pub const fn from_bits(bits: u64) -> Self {
        CapSet(bits & ((1 << ORDER.len()) - 1))
    }

    /// Whether it holds `capability`.
    pub fn contains(self, capability: Capability) -> bool {
        self.0 & bit(capability) != 0
    }

    /// Whether it holds every one of `others`.
    pub fn contains_all(self, others: CapSet) -> bool {
        self.0 & others.0 == others.0
    }

    /// Whether it holds one of `others`.
    pub fn contains_any(self, others: CapSet) -> bool {
        self.0 & others.0 != 0
    }

    fn with(self, other: CapSet) -> Self {
        CapSet(self.0 | other.0)
    }

    fn without(self, other: CapSet) -> Self {
        CapSet(self.0 & !other.0)
    }

    fn within(self, bound: CapSet) -> Self {
        CapSet(self.0 & bound.0)
    }

    fn names(self) -> String {
        let names: Vec<String> = ORDER.iter().filter(|c| self.contains(**c)).map(|c| format!("CAP_{c}")).collect();
        names.join(", ")
    }
}

impl FromIterator<Capability> for CapSet {
    fn from_iter<I: IntoIterator<Item = Capability>>(all: I) -> Self {
        CapSet(all.into_iter().fold(0, |bits, c| bits | bit(c)))
    }
}

impl From<CapSet> for Capabilities {
    fn from(set: CapSet) -> Self {
        ORDER.into_iter().filter(|c| set.contains(*c)).collect()
    }
}

/// The five sets of a process, of which four are equal or empty.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sets {
    /// Bounding, effective and permitted.
    pub(super) held: CapSet,
    /// Inheritable and ambient: what survives an exec by a user who is not root. Empty unless asked for; a filled
    /// inheritable set alone is CVE-2022-24769.
    ambient: CapSet,
}

impl From<Sets> for LinuxCapabilities {
    fn from(sets: Sets) -> Self {
        let ambient = (sets.ambient != CapSet::default()).then(|| Capabilities::from(sets.ambient));
        let mut all = LinuxCapabilities::default();
        all.set_bounding(Some(sets.held.into()))
            .set_effective(Some(sets.held.into()))
            .set_permitted(Some(sets.held.into()))
            .set_inheritable(ambient.clone())
            .set_ambient(ambient);
        all
    }
}

/// The container's capabilities. Order: ALL of add, ALL of drop, single adds, single drops; an ambient capability is
/// added to every set and, like every other, taken away by a drop. A privileged container gets all that the daemon has.
pub(super) fn of(request: &Request<'_>) -> Result<Sets> {
    let bound = request.host.capabilities;
    let asked = &request.config.linux.security_context.capabilities;
    let add = Asked::parse(&asked.add_capabilities)?;
    let drop = Asked::parse(&asked.drop_capabilities)?;
    let ambient = Asked::parse(&asked.add_ambient_capabilities)?;
    let ambient_set = if ambient.all { bound } else { ambient.single };
    if request.privileged() {
        return Ok(Sets { held: bound, ambient: ambient_set.within(bound) });
    }
    let start = match (add.all, drop.all) {
        (_, true) => CapSet::default(),
        (true, false) => bound,
        (false, false) => DEFAULT.into_iter().collect::<CapSet>().within(bound),
    };
    let held = start.with(add.single).with(ambient_set).without(drop.single);
    let missing = held.without(bound);
    if missing != CapSet::default() {
        return Err(Error::new(
            Kind::FailedPrecondition,
            format!("cannot add {}: cricket itself does not have it", missing.names()),
        ));
    }
    Ok(Sets { held, ambient: ambient_set.without(drop.single) })
}

/// One list of the request.
struct Asked {
    all: bool,
    single: CapSet,
}

impl Asked {
    fn parse(names: &[String]) -> Result<Self> {
        let mut asked = Asked { all: false, single: CapSet::default() };
        for name in names {
            let upper = name.to_ascii_uppercase();
            if upper == "ALL" {
                asked.all = true;
                continue;
            }
            let capability = Capability::from_str(upper.strip_prefix("CAP_").unwrap_or(&upper))
                .map_err(|_| Error::invalid(format!("unknown capability {name:?}")))?;
            asked.single = asked.single.with([capability].into_iter().collect());
        }
        Ok(asked)
    }
}

fn bit(capability: Capability) -> u64 {
    ORDER.iter().position(|c| *c == capability).map_or(0, |at| 1 << at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::facts::{HandlerFacts, HostFacts, ImageFacts};
    use cricket_proto::runtime::{ContainerConfig, PodSandboxConfig};

    const ALL: CapSet = CapSet::from_bits(u64::MAX);

    fn sets(bound: CapSet, privileged: bool, add: &[&str], drop: &[&str], ambient: &[&str]) -> Result<Sets> {
        let strings = |of: &[&str]| of.iter().map(|s| s.to_string()).collect();
        let mut config = ContainerConfig::default();
        let security = config.linux.mut_or_insert_default().security_context.mut_or_insert_default();
        security.privileged = privileged;
        let asked = security.capabilities.mut_or_insert_default();
        asked.add_capabilities = strings(add);
        asked.drop_capabilities = strings(drop);
        asked.add_ambient_capabilities = strings(ambient);
        of(&Request {
            sandbox: &PodSandboxConfig::default(),
            config: &config,
            image: &ImageFacts::default(),
            host: &HostFacts { capabilities: bound, ..Default::default() },
            handler: &HandlerFacts::default(),
        })
    }

    fn set(of: &[Capability]) -> CapSet {
        of.iter().copied().collect()
    }

    #[test]
    fn the_table_is_the_kernels() {
        assert_eq!(bit(Capability::Chown), 1);
        assert_eq!(bit(Capability::SysAdmin), 1 << 21);
        assert_eq!(bit(Capability::SysResource), 1 << 24);
        assert_eq!(bit(Capability::CheckpointRestore), 1 << 40);
        // The mask that every container of every runtime shows.
        assert_eq!(DEFAULT.into_iter().collect::<CapSet>(), CapSet(0xa804_25fb));
    }

    #[test]
    fn adding_and_dropping() {
        use Capability::{Chown, Kill, NetAdmin, SysTime};
        let default: CapSet = DEFAULT.into_iter().collect();
        type Case<'a> = (&'a [&'a str], &'a [&'a str], CapSet);
        let cases: &[Case] = &[
            (&[], &[], default),
            (&["NET_ADMIN"], &[], default.with(set(&[NetAdmin]))),
            (
                &["cap_net_admin", "Cap_Sys_Time"],
                &["KILL"],
                default.with(set(&[NetAdmin, SysTime])).without(set(&[Kill])),
            ),
            (&["ALL"], &[], ALL),
            (&["all"], &["chown"], ALL.without(set(&[Chown]))),
            (&[], &["ALL"], set(&[])),
            (&["CHOWN"], &["ALL"], set(&[Chown])),
            (&["ALL", "CHOWN"], &["ALL"], set(&[Chown])),
            (&["CHOWN"], &["CHOWN"], default.without(set(&[Chown]))),
        ];
        for (add, drop, expected) in cases {
            let found = sets(ALL, false, add, drop, &[]).expect("valid");
            assert_eq!(found, Sets { held: *expected, ambient: set(&[]) }, "+{add:?} -{drop:?}");
        }
    }

    #[test]
    fn ambient_goes_to_all_five_sets() {
        use Capability::{NetAdmin, NetBindService};
        let found = sets(ALL, false, &[], &["ALL"], &["NET_ADMIN"]).expect("valid");
        assert_eq!(found, Sets { held: set(&[NetAdmin]), ambient: set(&[NetAdmin]) });
        let spec = LinuxCapabilities::from(found);
        let all: Capabilities = [NetAdmin].into_iter().collect();
        for five in [spec.bounding(), spec.effective(), spec.permitted(), spec.inheritable(), spec.ambient()] {
            assert_eq!(five.as_ref(), Some(&all));
        }
        let found = sets(ALL, false, &[], &["NET_ADMIN"], &["NET_ADMIN", "NET_BIND_SERVICE"]).expect("valid");
        assert_eq!(found.ambient, set(&[NetBindService]));
        assert!(!found.held.contains(NetAdmin));
        let none = LinuxCapabilities::from(sets(ALL, false, &["ALL"], &[], &[]).expect("valid"));
        assert_eq!((none.inheritable(), none.ambient()), (&None, &None));
    }

    #[test]
    fn the_daemon_is_the_bound() {
        use Capability::{Chown, Kill, SysAdmin};
        let bound = set(&[Chown, Kill]);
        assert_eq!(sets(bound, false, &[], &[], &[]).expect("default").held, bound);
        assert_eq!(sets(bound, false, &["ALL"], &[], &[]).expect("all").held, bound);
        assert_eq!(sets(bound, true, &[], &[], &["ALL"]).expect("privileged"), Sets { held: bound, ambient: bound });
        assert_eq!(sets(bound, true, &[], &["ALL"], &[]).expect("privileged").held, bound);
        let refused = sets(bound, false, &["SYS_ADMIN"], &[], &[]).expect_err("not there");
        assert_eq!(refused.kind(), Kind::FailedPrecondition);
        assert!(refused.message().contains("CAP_SYS_ADMIN"), "{refused}");
        assert!(sets(set(&[SysAdmin]), false, &["SYS_ADMIN"], &[], &[]).is_ok());
    }

    #[test]
    fn unknown_names_are_refused_everywhere() {
        for (add, drop, ambient) in
            [(&["FOO"][..], &[][..], &[][..]), (&[], &["CAP_"], &[]), (&[], &[], &["CAP_CAP_KILL"])]
        {
            assert_eq!(sets(ALL, true, add, drop, ambient).map_err(|e| e.kind()), Err(Kind::InvalidArgument));
        }
    }
}
