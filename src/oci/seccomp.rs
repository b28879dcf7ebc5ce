//! Filters of system calls: profiles with conditions, and what becomes of one for a given container.
//!
//! A profile is either the [default](default_profile) or a file of the node. Files may be plain OCI filters, or hold
//! the conditions that other engines know: `archMap`, and `includes` and `excludes` of a rule.

mod default;

use std::str::FromStr;

use oci_spec::runtime::{
    Arch as SpecArch, Capability, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg as Arg,
    LinuxSeccompArgBuilder, LinuxSeccompFilterFlag as Flag, LinuxSeccompOperator as Operator, LinuxSyscall,
};
use serde::Deserialize;

use super::capabilities::CapSet;
use super::facts::{Arch, HostFacts};
use crate::error::{Error, Kind, Result};

pub use default::default_profile;

/// A filter, some of whose rules hold for some containers only.
#[derive(Clone, Debug, PartialEq)]
pub struct Profile {
    /// For calls that no rule names.
    default: Action,
    default_errno: Option<u32>,
    architectures: Vec<SpecArch>,
    flags: Vec<Flag>,
    listener_path: Option<String>,
    listener_metadata: Option<String>,
    rules: Vec<Rule>,
}

/// What happens to some system calls.
#[derive(Clone, Debug, PartialEq)]
struct Rule {
    names: Names,
    action: Action,
    errno: Option<u32>,
    /// All of them must match.
    args: Vec<Arg>,
    only: Condition,
    unless: Condition,
}

/// Names of system calls.
#[derive(Clone, Debug, PartialEq)]
enum Names {
    /// Of a file.
    Read(Vec<String>),
    /// Of ours, with spaces between them: most rules are written down once, when they are in a filter.
    Listed(&'static str),
}

/// A condition on container and machine; an empty part asks for nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Condition {
    capabilities: CapSet,
    /// As Go calls them: `amd64`.
    architectures: Vec<String>,
    kernel: Option<(u32, u32)>,
}

impl Profile {
    /// Reads a profile of the node. Keys that we do not know are skipped, as comments are.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no profile, and for what no runtime would load.
    pub fn parse(json: &[u8], arch: Arch) -> Result<Profile> {
        let typed: Typed = serde_json::from_slice(json).map_err(|e| Error::invalid(format!("not a profile: {e}")))?;
        let profile = typed.meant(arch)?;
        profile.check()?;
        Ok(profile)
    }

    /// The filter for a container that may hold `capabilities`.
    pub(super) fn filter(&self, capabilities: CapSet, host: &HostFacts) -> LinuxSeccomp {
        let holds = |rule: &&Rule| rule.only.all_hold(capabilities, host) && !rule.unless.any_holds(capabilities, host);
        let some = |all: Vec<LinuxSyscall>| (!all.is_empty()).then_some(all);
        let mut filter = LinuxSeccomp::default();
        filter
            .set_default_action(self.default)
            .set_default_errno_ret(self.default_errno)
            .set_architectures((!self.architectures.is_empty()).then(|| self.architectures.clone()))
            .set_flags((!self.flags.is_empty()).then(|| self.flags.clone()))
            .set_listener_path(self.listener_path.as_ref().map(Into::into))
            .set_listener_metadata(self.listener_metadata.clone())
            .set_syscalls(some(self.rules.iter().filter(holds).map(Rule::syscall).collect()));
        filter
    }

    /// What runc refuses at start is refused here.
    fn check(&self) -> Result<()> {
        let notifies = |action| action == Action::ScmpActNotify;
        if notifies(self.default) {
            return Err(Error::invalid("SCMP_ACT_NOTIFY cannot be the default action"));
        }
        errno_fits(self.default, self.default_errno)?;
        for rule in &self.rules {
            let names = rule.names.all();
            let name = names.first().map(String::as_str).unwrap_or_default();
            if names.is_empty() || names.iter().any(String::is_empty) {
                return Err(Error::invalid("a rule names no system call"));
            }
            if rule.args.iter().any(|a| a.index() > 5) {
                return Err(Error::invalid(format!("rule for {name}: a system call has the arguments 0 to 5")));
            }
            if notifies(rule.action) && (self.listener_path.is_none() || names.iter().any(|n| n == "write")) {
                return Err(Error::invalid(format!(
                    "rule for {name}: SCMP_ACT_NOTIFY needs a listenerPath, and cannot be for write"
                )));
            }
            errno_fits(rule.action, rule.errno)?;
        }
        Ok(())
    }
}

fn errno_fits(action: Action, errno: Option<u32>) -> Result<()> {
    match errno {
        Some(_) if !matches!(action, Action::ScmpActErrno | Action::ScmpActTrace) => {
            Err(Error::invalid("an error number goes only with SCMP_ACT_ERRNO and SCMP_ACT_TRACE"))
        }
        _ => Ok(()),
    }
}

impl Names {
    fn all(&self) -> Vec<String> {
        match self {
            Names::Read(names) => names.clone(),
            Names::Listed(names) => names.split_ascii_whitespace().map(String::from).collect(),
        }
    }
}

impl Rule {
    fn syscall(&self) -> LinuxSyscall {
        let mut call = LinuxSyscall::default();
        call.set_names(self.names.all())
            .set_action(self.action)
            .set_errno_ret(self.errno)
            .set_args((!self.args.is_empty()).then(|| self.args.clone()));
        call
    }
}

impl Condition {
    fn all_hold(&self, capabilities: CapSet, host: &HostFacts) -> bool {
        capabilities.contains_all(self.capabilities)
            && (self.architectures.is_empty() || self.names_arch(host))
            && self.kernel.is_none_or(|least| host.kernel >= least)
    }

    fn any_holds(&self, capabilities: CapSet, host: &HostFacts) -> bool {
        capabilities.contains_any(self.capabilities)
            || self.names_arch(host)
            || self.kernel.is_some_and(|least| host.kernel >= least)
    }

    fn names_arch(&self, host: &HostFacts) -> bool {
        let own = match host.arch {
            Arch::X86_64 => "amd64",
            Arch::Aarch64 => "arm64",
            Arch::Other => return false,
        };
        self.architectures.iter().any(|a| a == own)
    }
}

/// What a program of this machine may be made for, its own architecture first: all of them must be filtered, or a
/// program for another one would do as it likes.
fn architectures(arch: Arch) -> Vec<SpecArch> {
    match arch {
        Arch::X86_64 => vec![SpecArch::ScmpArchX86_64, SpecArch::ScmpArchX86, SpecArch::ScmpArchX32],
        Arch::Aarch64 => vec![SpecArch::ScmpArchAarch64, SpecArch::ScmpArchArm],
        // An empty list is the runtime's own one.
        Arch::Other => Vec::new(),
    }
}

/// A condition on one argument of a system call.
fn arg(index: usize, value: u64, value_two: u64, op: Operator) -> Result<Arg> {
    let built = LinuxSeccompArgBuilder::default().index(index).value(value).value_two(value_two).op(op).build();
    built.map_err(|e| Error::caused(Kind::Internal, "build a seccomp argument", e))
}

/// A profile as it stands in a file.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Typed {
    default_action: Action,
    default_errno_ret: Option<u32>,
    architectures: Option<Vec<SpecArch>>,
    arch_map: Option<Vec<TypedArch>>,
    flags: Option<Vec<Flag>>,
    listener_path: Option<String>,
    listener_metadata: Option<String>,
    syscalls: Option<Vec<TypedRule>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TypedArch {
    architecture: SpecArch,
    sub_architectures: Option<Vec<SpecArch>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TypedRule {
    names: Option<Vec<String>>,
    /// The singular of older files.
    name: Option<String>,
    action: Action,
    errno_ret: Option<u32>,
    args: Option<Vec<TypedArg>>,
    includes: Option<TypedCondition>,
    excludes: Option<TypedCondition>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct TypedArg {
    index: usize,
    value: u64,
    value_two: Option<u64>,
    op: Operator,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct TypedCondition {
    caps: Option<Vec<String>>,
    arches: Option<Vec<String>>,
    min_kernel: Option<String>,
}

impl Typed {
    fn meant(self, arch: Arch) -> Result<Profile> {
        let architectures = match (self.architectures.unwrap_or_default(), self.arch_map.unwrap_or_default()) {
            (listed, map) if map.is_empty() => listed,
            (listed, map) if listed.is_empty() => {
                let native = architectures(arch).first().copied();
                let mapped = map.into_iter().find(|m| Some(m.architecture) == native);
                mapped.map_or_else(Vec::new, |m| {
                    std::iter::once(m.architecture).chain(m.sub_architectures.unwrap_or_default()).collect()
                })
            }
            _ => return Err(Error::invalid("architectures and archMap exclude each other")),
        };
        Ok(Profile {
            default: self.default_action,
            default_errno: self.default_errno_ret,
            architectures,
            flags: self.flags.unwrap_or_default(),
            listener_path: self.listener_path.filter(|p| !p.is_empty()),
            listener_metadata: self.listener_metadata.filter(|m| !m.is_empty()),
            rules: self.syscalls.unwrap_or_default().into_iter().map(TypedRule::meant).collect::<Result<_>>()?,
        })
    }
}

impl TypedRule {
    fn meant(self) -> Result<Rule> {
        let mut names = self.names.unwrap_or_default();
        names.extend(self.name.filter(|n| !n.is_empty()));
        let args = self.args.unwrap_or_default();
        Ok(Rule {
            names: Names::Read(names),
            action: self.action,
            errno: self.errno_ret,
            args: args
                .into_iter()
                .map(|a| arg(a.index, a.value, a.value_two.unwrap_or(0), a.op))
                .collect::<Result<_>>()?,
            only: self.includes.unwrap_or_default().meant()?,
            unless: self.excludes.unwrap_or_default().meant()?,
        })
    }
}

impl TypedCondition {
    fn meant(self) -> Result<Condition> {
        let capability = |name: String| {
            let short = name.strip_prefix("CAP_").unwrap_or(&name);
            Capability::from_str(short).map_err(|_| Error::invalid(format!("there is no capability {name:?}")))
        };
        let kernel = |text: String| {
            kernel_version(&text).ok_or_else(|| Error::invalid(format!("{text:?} is not a version of a kernel")))
        };
        Ok(Condition {
            capabilities: self.caps.unwrap_or_default().into_iter().map(capability).collect::<Result<CapSet>>()?,
            architectures: self.arches.unwrap_or_default(),
            kernel: self.min_kernel.filter(|v| !v.is_empty()).map(kernel).transpose()?,
        })
    }
}

/// The two first numbers of `6.1.0-18-amd64`.
pub fn kernel_version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.trim().split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{json, Value};

    fn host() -> HostFacts {
        HostFacts { arch: Arch::X86_64, kernel: (6, 1), ..Default::default() }
    }

    fn parsed(profile: &Value) -> Result<Profile> {
        Profile::parse(profile.to_string().as_bytes(), Arch::X86_64)
    }

    fn names(filter: &LinuxSeccomp) -> Vec<String> {
        filter.syscalls().iter().flatten().flat_map(|s| s.names().clone()).collect()
    }

    #[test]
    fn a_plain_filter_stays_what_it_is() {
        let plain = json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "defaultErrnoRet": 38,
            "architectures": ["SCMP_ARCH_X86_64"],
            "flags": ["SECCOMP_FILTER_FLAG_LOG"],
            "syscalls": [
                {"names": ["read", "write"], "action": "SCMP_ACT_ALLOW"},
                {"names": ["socket"], "action": "SCMP_ACT_ERRNO", "errnoRet": 97,
                 "args": [{"index": 0, "value": 16, "valueTwo": 0, "op": "SCMP_CMP_EQ"}]},
            ]
        });
        let filter = parsed(&plain).expect("valid").filter(CapSet::default(), &host());
        assert_eq!(serde_json::to_value(filter).expect("JSON"), plain);
    }

    #[test]
    fn conditions_are_kept() {
        let profile = parsed(&json!({
            "defaultAction": "SCMP_ACT_ERRNO",
            "archMap": [
                {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
                {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]},
            ],
            "syscalls": [
                {"name": "always", "action": "SCMP_ACT_ALLOW", "args": null, "comment": "", "includes": {}},
                {"names": ["admin"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["both"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN", "CAP_BPF"]}},
                {"names": ["not-admin"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
                {"names": ["arm"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["arm", "arm64"]}},
                {"names": ["not-arm"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["arm64"]}},
                {"names": ["old"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
                {"names": ["new"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "6.2"}},
            ]
        }))
        .expect("valid");
        let plain = profile.filter(CapSet::default(), &host());
        assert_eq!(names(&plain), ["always", "not-admin", "not-arm", "old"]);
        assert_eq!(plain.architectures(), &Some(vec![SpecArch::ScmpArchX86_64, SpecArch::ScmpArchX86]));
        let admin: CapSet = [Capability::SysAdmin].into_iter().collect();
        assert_eq!(names(&profile.filter(admin, &host())), ["always", "admin", "not-arm", "old"]);
        let arm = HostFacts { arch: Arch::Aarch64, ..host() };
        assert_eq!(names(&profile.filter(CapSet::default(), &arm)), ["always", "not-admin", "arm", "old"]);
    }

    #[test]
    fn what_no_runtime_would_load_is_refused() {
        let rule = |rule: Value| json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
        let cases = [
            json!({}),
            json!([]),
            json!({"defaultAction": "SCMP_ACT_MAYBE"}),
            json!({"defaultAction": "SCMP_ACT_NOTIFY"}),
            json!({"defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 1}),
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_VAX"]}),
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"],
                   "archMap": [{"architecture": "SCMP_ARCH_X86_64"}]}),
            rule(json!({"action": "SCMP_ACT_ALLOW"})),
            rule(json!({"names": [""], "action": "SCMP_ACT_ALLOW"})),
            rule(json!({"names": ["read"], "action": "SCMP_ACT_ALLOW", "errnoRet": 1})),
            rule(json!({"names": ["read"], "action": "SCMP_ACT_NOTIFY"})),
            rule(json!({"names": ["read"], "action": "SCMP_ACT_ERRNO",
                        "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]})),
            rule(json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "includes": {"caps": ["CAP_FLY"]}})),
            rule(json!({"names": ["read"], "action": "SCMP_ACT_ERRNO", "includes": {"minKernel": "new"}})),
        ];
        for profile in cases {
            assert_eq!(parsed(&profile).map_err(|e| e.kind()), Err(Kind::InvalidArgument), "{profile}");
        }
        assert!(Profile::parse(b"{", Arch::X86_64).is_err());
        let listened = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/run/l",
                              "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
        assert!(parsed(&listened).is_ok());
    }

    #[test]
    fn versions_of_kernels() {
        assert_eq!(kernel_version("6.1.0-18-amd64\n"), Some((6, 1)));
        assert_eq!(kernel_version("4.8"), Some((4, 8)));
        assert_eq!(kernel_version("5.10-rc1"), Some((5, 10)));
        assert_eq!((kernel_version(""), kernel_version("6"), kernel_version("x.y")), (None, None, None));
    }
}
