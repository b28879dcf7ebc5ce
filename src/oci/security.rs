//! What confines a container beyond its namespaces: which profiles a request comes down to.
//!
//! A container must not run with less confinement than its pod asks for: what cannot be applied here is refused.

use cricket_proto::runtime::{security_profile::ProfileType, SecurityProfile};
use oci_spec::runtime::LinuxSeccomp;

use super::container::Input;
use super::{capabilities, seccomp, selinux, Request};
use crate::error::{Error, Kind, Result};

/// What a profile, in its new or in its deprecated form, comes down to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile<'a> {
    /// The request leaves it to us.
    Unset,
    /// None.
    Unconfined,
    /// Ours.
    RuntimeDefault,
    /// One of the node's: a file for seccomp, a name for AppArmor.
    Localhost(&'a str),
}

/// Refuses what cannot be honoured.
pub(super) fn check(request: &Request<'_>) -> Result<()> {
    if request.privileged() && !request.sandbox.linux.security_context.privileged {
        return Err(Error::invalid("a privileged container needs a privileged pod sandbox"));
    }
    seccomp(request)?;
    apparmor(request)?;
    selinux::check(request)
}

/// What filters the container's system calls. `Unset` is no filter, as the kubelet means it, unless the configuration
/// says otherwise; nothing filters a privileged container.
///
/// # Errors
/// `InvalidArgument` for what is no profile; `FailedPrecondition` where the kernel has no filters.
pub fn seccomp<'a>(request: &Request<'a>) -> Result<Profile<'a>> {
    let security = &request.config.linux.security_context;
    let asked = profile("seccomp", security.seccomp.as_ref(), &security.seccomp_profile_path)?;
    if let Profile::Localhost(path) = asked {
        if !path.starts_with('/') || path.contains('\0') {
            return Err(Error::invalid(format!("seccomp: {path:?} is not an absolute path")));
        }
    }
    match asked {
        _ if request.privileged() => Ok(Profile::Unconfined),
        Profile::Unset if !request.handler.seccomp_by_default => Ok(Profile::Unset),
        Profile::Unconfined => Ok(Profile::Unconfined),
        _ if !request.host.seccomp => {
            Err(Error::precondition("seccomp: the kernel of this node has no filters, so only Unconfined can be"))
        }
        Profile::Unset | Profile::RuntimeDefault => Ok(Profile::RuntimeDefault),
        Profile::Localhost(path) => Ok(Profile::Localhost(path)),
    }
}

/// The AppArmor profile. `Unset` is the default one if the node can load it; where AppArmor is off there is none, and
/// naming one is refused.
///
/// # Errors
/// `InvalidArgument` for what is no profile; `FailedPrecondition` for one of the node's where AppArmor is off.
pub fn apparmor<'a>(request: &Request<'a>) -> Result<Profile<'a>> {
    let security = &request.config.linux.security_context;
    let asked = profile("AppArmor", security.apparmor.as_ref(), &security.apparmor_profile)?;
    match asked {
        _ if request.privileged() => Ok(Profile::Unconfined),
        Profile::Localhost(_) if !request.host.apparmor => {
            Err(Error::precondition("AppArmor is not enabled on this host, but the container names a profile"))
        }
        _ if !request.host.apparmor => Ok(Profile::Unconfined),
        asked => Ok(asked),
    }
}

/// The filter in the spec.
pub(super) fn filter(input: &Input<'_>) -> Result<Option<LinuxSeccomp>> {
    let request = &input.request;
    let capabilities = capabilities::of(request)?.held;
    match seccomp(request)? {
        Profile::Unset | Profile::Unconfined => Ok(None),
        Profile::RuntimeDefault => {
            Ok(Some(seccomp::default_profile(request.host.arch)?.filter(capabilities, request.host)))
        }
        Profile::Localhost(path) => {
            let file = input.profiles.seccomp.as_ref();
            let file = file.ok_or_else(|| Error::internal(format!("seccomp profile {path} was not read")))?;
            Ok(Some(file.filter(capabilities, request.host)))
        }
    }
}

/// `field` beats `path`, which is what it was called before.
fn profile<'a>(what: &str, field: Option<&'a SecurityProfile>, path: &'a str) -> Result<Profile<'a>> {
    let Some(field) = field else {
        return match path {
            "" => Ok(Profile::Unset),
            "unconfined" => Ok(Profile::Unconfined),
            "runtime/default" | "docker/default" => Ok(Profile::RuntimeDefault),
            _ => match path.strip_prefix("localhost/").filter(|name| !name.is_empty()) {
                Some(name) => Ok(Profile::Localhost(name)),
                None => Err(Error::invalid(format!("{what}: {path:?} is not a profile"))),
            },
        };
    };
    let kind =
        field.profile_type.enum_value().map_err(|n| Error::invalid(format!("{what}: there is no profile type {n}")))?;
    match (kind, field.localhost_ref.as_str()) {
        (ProfileType::Unconfined, "") => Ok(Profile::Unconfined),
        (ProfileType::RuntimeDefault, "") => Ok(Profile::RuntimeDefault),
        (ProfileType::Localhost, "") => Err(Error::invalid(format!("{what}: a Localhost profile without a name"))),
        // Older clients send the field with the prefix of the deprecated form.
        (ProfileType::Localhost, name) => Ok(Profile::Localhost(name.strip_prefix("localhost/").unwrap_or(name))),
        (_, _) => Err(Error::invalid(format!("{what}: localhost_ref without the profile type Localhost"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::container::tests::Case;
    use cricket_proto::runtime::CDIDevice;
    use protobuf::MessageField;

    fn field(kind: i32, name: &str) -> MessageField<SecurityProfile> {
        let profile_type = protobuf::EnumOrUnknown::from_i32(kind);
        Some(SecurityProfile { profile_type, localhost_ref: name.into(), ..Default::default() }).into()
    }

    const DEFAULT: i32 = ProfileType::RuntimeDefault as i32;
    const UNCONFINED: i32 = ProfileType::Unconfined as i32;
    const LOCALHOST: i32 = ProfileType::Localhost as i32;

    fn kind(case: &Case) -> Result<(), Kind> {
        case.check().map_err(|e| e.kind())
    }

    /// Whether the spec filters system calls.
    fn filters(case: &Case) -> Result<bool, Kind> {
        let spec = case.spec().map_err(|e| e.kind())?;
        Ok(spec.linux().as_ref().expect("linux").seccomp().is_some())
    }

    #[test]
    fn seccomp_profiles() {
        let invalid = Err(Kind::InvalidArgument);
        let cases = [
            (MessageField::none(), "", Ok(false)),
            (MessageField::none(), "unconfined", Ok(false)),
            (MessageField::none(), "runtime/default", Ok(true)),
            (MessageField::none(), "docker/default", Ok(true)),
            (MessageField::none(), "localhost//a.json", Ok(true)),
            (MessageField::none(), "localhost/a.json", invalid),
            (MessageField::none(), "localhost/", invalid),
            (MessageField::none(), "nonsense", invalid),
            (field(UNCONFINED, ""), "runtime/default", Ok(false)),
            (field(DEFAULT, ""), "unconfined", Ok(true)),
            (field(LOCALHOST, "/a.json"), "", Ok(true)),
            (field(LOCALHOST, "localhost//a.json"), "", Ok(true)),
            (field(LOCALHOST, "a.json"), "", invalid),
            (field(LOCALHOST, ""), "", invalid),
            (field(UNCONFINED, "/a.json"), "", invalid),
            (field(9, ""), "", invalid),
        ];
        for (field, path, expected) in cases {
            let mut case = Case::default();
            let file = br#"{"defaultAction": "SCMP_ACT_LOG"}"#;
            case.profiles.seccomp = Some(seccomp::Profile::parse(file, case.host.arch).expect("a profile"));
            case.security().seccomp = field.clone();
            case.security().seccomp_profile_path = path.into();
            assert_eq!(filters(&case), expected, "{field:?} {path}");
            // A kernel without filters has none to offer.
            case.host.seccomp = false;
            let without = if expected == Ok(true) { Err(Kind::FailedPrecondition) } else { expected };
            assert_eq!(filters(&case), without, "without filters: {field:?} {path}");
            // Nothing filters a privileged container, but nonsense stays nonsense.
            case.make_privileged();
            assert_eq!(filters(&case), expected.map(|_| false), "privileged {field:?} {path}");
        }
    }

    #[test]
    fn a_container_that_names_no_profile_gets_what_the_configuration_says() {
        let mut case = Case::default();
        case.handler.seccomp_by_default = true;
        assert_eq!(filters(&case), Ok(true));
        case.security().seccomp = field(UNCONFINED, "");
        assert_eq!(filters(&case), Ok(false));
        case.security().seccomp = MessageField::none();
        case.make_privileged();
        assert_eq!(filters(&case), Ok(false));
    }

    #[test]
    fn the_default_filter_knows_the_final_capabilities() {
        let lets_mount = |case: &Case| {
            let spec = case.spec().expect("valid");
            let filter = spec.linux().as_ref().and_then(|l| l.seccomp().clone()).expect("a filter");
            let rules = filter.syscalls().clone().unwrap_or_default();
            rules.iter().any(|rule| rule.names().iter().any(|name| name == "mount"))
        };
        let mut case = Case::default();
        case.security().seccomp = field(DEFAULT, "");
        assert!(!lets_mount(&case));
        case.security().capabilities.mut_or_insert_default().add_capabilities = vec!["SYS_ADMIN".into()];
        assert!(lets_mount(&case));
        case.security().capabilities.mut_or_insert_default().drop_capabilities = vec!["SYS_ADMIN".into()];
        assert!(!lets_mount(&case));
    }

    fn found(case: &Case) -> Result<Profile<'_>, Kind> {
        case.apparmor().map_err(|e| e.kind())
    }

    #[test]
    fn apparmor_profiles() {
        let cases = [
            (MessageField::none(), Ok(Profile::Unconfined), Ok(Profile::Unset)),
            (field(UNCONFINED, ""), Ok(Profile::Unconfined), Ok(Profile::Unconfined)),
            (field(DEFAULT, ""), Ok(Profile::Unconfined), Ok(Profile::RuntimeDefault)),
            (field(LOCALHOST, "web"), Err(Kind::FailedPrecondition), Ok(Profile::Localhost("web"))),
            (field(LOCALHOST, ""), Err(Kind::InvalidArgument), Err(Kind::InvalidArgument)),
        ];
        for (field, without, with) in cases {
            let mut case = Case::default();
            case.security().apparmor = field.clone();
            assert_eq!(found(&case), without, "{field:?}");
            case.host.apparmor = true;
            assert_eq!(found(&case), with, "{field:?}");
            case.make_privileged();
            assert_eq!(found(&case), with.map(|_| Profile::Unconfined), "{field:?}");
        }
        let mut case = Case::default();
        case.profiles.apparmor = Some("web".into());
        let spec = case.spec().expect("valid");
        assert_eq!(spec.process().as_ref().and_then(|p| p.apparmor_profile().as_deref()), Some("web"));
    }

    #[test]
    fn cdi_devices() {
        let mut case = Case::default();
        case.config.CDI_devices = vec![CDIDevice { name: "acme.com/gpu=0".into(), ..Default::default() }];
        assert_eq!(kind(&case), Ok(()));
        case.config.annotations.insert("cdi.k8s.io/acme".into(), "no name".into());
        assert_eq!(kind(&case), Err(Kind::InvalidArgument));
    }

    #[test]
    fn privileged_only_in_a_privileged_sandbox() {
        let mut case = Case::default();
        case.security().privileged = true;
        assert_eq!(kind(&case), Err(Kind::InvalidArgument));
    }
}
