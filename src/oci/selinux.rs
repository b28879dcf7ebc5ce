//! SELinux: the labels of a container's processes and files.

use std::fmt;

use cricket_proto::runtime::SELinuxOption;

use super::Request;
use crate::error::{Error, Result};
use crate::ids::SandboxId;

/// Categories that policies for containers have.
const CATEGORIES: u32 = 1024;

/// `user:role:type:level`
#[derive(Clone, Debug, PartialEq, Eq)]
struct Context {
    user: String,
    role: String,
    kind: String,
    level: String,
}

/// What the node's policy says of containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    process: Context,
    file: Context,
}

/// The labels of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Labels {
    /// Of its processes; `None` for a privileged container, which is not confined.
    pub process: Option<String>,
    /// Of its files, and of the volumes that are relabelled for it.
    pub mount: String,
}

impl Policy {
    /// From `lxc_contexts`: lines of `process = "user:role:type:level"` and `file = "…"`, among others.
    pub fn parse(lxc_contexts: &str) -> Option<Policy> {
        let value = |key: &str| {
            let mut pairs = lxc_contexts.lines().filter_map(|line| line.split_once('='));
            let (_, value) = pairs.find(|(k, _)| k.trim() == key)?;
            Context::parse(value.trim().trim_matches('"'))
        };
        Some(Policy { process: value("process")?, file: value("file")? })
    }
}

impl Context {
    fn parse(text: &str) -> Option<Context> {
        let mut parts = text.splitn(4, ':').map(str::to_owned);
        let (user, role, kind) = (parts.next()?, parts.next()?, parts.next()?);
        Some(Context { user, role, kind, level: parts.next().unwrap_or_else(|| "s0".into()) })
    }
}

impl fmt::Display for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}:{}", self.user, self.role, self.kind, self.level)
    }
}

/// What the request says of labels: the container's options, or those of its pod.
fn asked<'a>(request: &Request<'a>) -> Option<&'a SELinuxOption> {
    let own = request.config.linux.security_context.selinux_options.as_ref();
    let of_pod = request.sandbox.linux.security_context.selinux_options.as_ref();
    let says = |options: &&SELinuxOption| **options != SELinuxOption::default();
    own.filter(says).or(of_pod.filter(says))
}

/// Refuses options that are no labels, and options that would be left out although SELinux is on.
///
/// # Errors
/// `InvalidArgument`; `FailedPrecondition` where the configuration keeps labels off.
pub(super) fn check(request: &Request<'_>) -> Result<()> {
    let Some(options) = asked(request) else { return Ok(()) };
    for (what, word) in [("user", &options.user), ("role", &options.role), ("type", &options.type_)] {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if !word.chars().all(plain) {
            return Err(Error::invalid(format!("SELinux {what} {word:?} is none")));
        }
    }
    if !options.level.is_empty() && !is_level(&options.level) {
        return Err(Error::invalid(format!("SELinux level {:?} is none: it looks like s0:c1,c2", options.level)));
    }
    // On a host without SELinux the options mean nothing, and every runtime lets them pass.
    if request.host.selinux && !request.handler.selinux && !request.privileged() {
        return Err(Error::precondition("SELinux options need enable_selinux = true in cricket's configuration"));
    }
    Ok(())
}

/// The labels by the policy and the request. Containers of a pod share a level of their own, made from the pod's id,
/// unless one is asked for.
pub fn labels(request: &Request<'_>, policy: &Policy, sandbox: &SandboxId) -> Labels {
    let (mut process, mut file) = (policy.process.clone(), policy.file.clone());
    let none = SELinuxOption::default();
    let options = asked(request).unwrap_or(&none);
    let or = |asked: &String, other: &String| if asked.is_empty() { other.clone() } else { asked.clone() };
    process.user = or(&options.user, &process.user);
    file.user = or(&options.user, &file.user);
    process.role = or(&options.role, &process.role);
    process.kind = or(&options.type_, &process.kind);
    process.level = or(&options.level, &level_of(sandbox));
    file.level.clone_from(&process.level);
    let process = (!request.privileged()).then(|| process.to_string());
    Labels { process, mount: file.to_string() }
}

/// Two categories by the pod's id. Among half a million pairs two pods of a node hardly meet.
fn level_of(sandbox: &SandboxId) -> String {
    let digits = |from: usize| {
        let part = sandbox.as_str().get(from..from + 8).unwrap_or_default();
        u32::from_str_radix(part, 16).unwrap_or(from as u32) % CATEGORIES
    };
    let (first, mut second) = (digits(0), digits(8));
    if first == second {
        second = (second + 1) % CATEGORIES;
    }
    format!("s0:c{},c{}", first.min(second), first.max(second))
}

/// `s0`, `s0-s1`, `s0:c1`, `s0:c1,c2.c5`, `s0:c1-s0:c1,c2`.
fn is_level(text: &str) -> bool {
    let numbered = |text: &str, letter: char, limit: u32| {
        let digits = text.strip_prefix(letter).filter(|d| !d.is_empty() && d.bytes().all(|b| b.is_ascii_digit()));
        digits.and_then(|d| d.parse::<u32>().ok()).is_some_and(|n| n < limit)
    };
    let one = |level: &str| {
        let (sensitivity, categories) = match level.split_once(':') {
            Some((sensitivity, categories)) => (sensitivity, Some(categories)),
            None => (level, None),
        };
        let listed = |list: &str| list.split([',', '.']).all(|c| numbered(c, 'c', CATEGORIES));
        numbered(sensitivity, 's', 16) && categories.is_none_or(listed)
    };
    match text.split_once('-') {
        Some((low, high)) => one(low) && one(high),
        None => one(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::oci::container::tests::Case;

    const CONTEXTS: &str = "process = \"system_u:system_r:container_t:s0\"\ncontent = \"x\"\n\
                            file = \"system_u:object_r:container_file_t:s0\"\nro_file=\"y\"\n";

    fn options(user: &str, role: &str, kind: &str, level: &str) -> SELinuxOption {
        let [user, role, type_, level] = [user, role, kind, level].map(String::from);
        SELinuxOption { user, role, type_, level, ..Default::default() }
    }

    fn labelled(case: &Case) -> (Option<String>, String) {
        let policy = Policy::parse(CONTEXTS).expect("a policy");
        let found = labels(&case.request(), &policy, &SandboxId::from_record("0000000100000002".repeat(4)));
        (found.process, found.mount)
    }

    fn pair(process: &str, mount: &str) -> (Option<String>, String) {
        (Some(process.into()), mount.into())
    }

    #[test]
    fn a_pods_own_level_unless_one_is_asked_for() {
        let mut case = Case::default();
        let own = pair("system_u:system_r:container_t:s0:c1,c2", "system_u:object_r:container_file_t:s0:c1,c2");
        assert_eq!(labelled(&case), own);
        let of_pod = case.sandbox.linux.mut_or_insert_default().security_context.mut_or_insert_default();
        of_pod.selinux_options = Some(options("", "", "", "s0:c7,c8")).into();
        let pods = pair("system_u:system_r:container_t:s0:c7,c8", "system_u:object_r:container_file_t:s0:c7,c8");
        assert_eq!(labelled(&case), pods);
        case.security().selinux_options = Some(options("u", "r", "spc_t", "")).into();
        assert_eq!(labelled(&case), pair("u:r:spc_t:s0:c1,c2", "u:object_r:container_file_t:s0:c1,c2"));
        case.make_privileged();
        assert_eq!(labelled(&case).0, None);
    }

    #[test]
    fn levels() {
        for level in ["s0", "s15", "s0:c0", "s0:c1,c1023", "s0:c0.c1023", "s0-s3", "s0:c1-s0:c1,c2", "s0-s0:c0.c9"] {
            assert!(is_level(level), "{level}");
        }
        for level in ["", "s", "0", "s16", "s0:", "s0:c1024", "s0:c1,", "s0:1", "s0:c1:c2", "s0-", "s0 ", "S0"] {
            assert!(!is_level(level), "{level}");
        }
    }

    #[test]
    fn two_equal_categories_become_two() {
        let twice = SandboxId::from_record(format!("{:08x}{:08x}", 1023, 1023));
        assert_eq!(level_of(&twice), "s0:c0,c1023");
        assert!(is_level(&level_of(&SandboxId::from_record("short"))));
    }

    #[test]
    fn options_count_where_it_is_on() {
        let kind = |case: &Case| case.check().map_err(|e| e.kind());
        let mut case = Case::default();
        case.security().selinux_options = Some(options("", "", "", "s0:c1")).into();
        assert_eq!(kind(&case), Ok(()), "no SELinux, no labels");
        case.host.selinux = true;
        assert_eq!(kind(&case), Err(Kind::FailedPrecondition));
        case.handler.selinux = true;
        assert_eq!(kind(&case), Ok(()));
        for bad in [options("", "", "a:b", ""), options("é", "", "", ""), options("", "", "", "c1")] {
            case.security().selinux_options = Some(bad).into();
            assert_eq!(kind(&case), Err(Kind::InvalidArgument));
        }
        case.security().selinux_options = Some(SELinuxOption::default()).into();
        case.handler.selinux = false;
        assert_eq!(kind(&case), Ok(()));
    }

    #[test]
    fn a_policy_without_containers() {
        assert_eq!(Policy::parse("content = \"a:b:c\"\n"), None);
        assert_eq!(Policy::parse("process = \"a\"\nfile = \"b\"\n"), None);
    }
}
