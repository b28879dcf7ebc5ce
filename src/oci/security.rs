//! What confines a container beyond its namespaces. Profiles that cricket cannot apply yet are refused: a container
//! must not run with less confinement than its pod asks for.

use cricket_proto::runtime::{security_profile::ProfileType, LinuxContainerSecurityContext, SecurityProfile};

use super::Request;
use crate::error::{Error, Kind, Result};

/// What a profile, in its new or in its deprecated form, comes down to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Profile {
    Unset,
    Unconfined,
    RuntimeDefault,
    Localhost,
}

/// Refuses what cannot be honoured.
pub(super) fn check(request: &Request<'_>) -> Result<()> {
    let security = &request.config.linux.security_context;
    if request.privileged() && !request.sandbox.linux.security_context.privileged {
        return Err(Error::invalid("a privileged container needs a privileged pod sandbox"));
    }
    seccomp(request, security)?;
    apparmor(request, security)?;
    // On a host without SELinux the options mean nothing, and every runtime lets them pass.
    let labelled = security.selinux_options.as_ref().is_some_and(|o| *o != Default::default());
    if labelled && request.host.selinux && !request.privileged() {
        return Err(unimplemented("SELinux options are not supported yet"));
    }
    Ok(())
}

/// No profile at all means unconfined, as in the kubelet's tests.
fn seccomp(request: &Request<'_>, security: &LinuxContainerSecurityContext) -> Result<()> {
    match profile("seccomp", security.seccomp.as_ref(), &security.seccomp_profile_path)? {
        Profile::Unset | Profile::Unconfined => Ok(()),
        _ if request.privileged() => Ok(()),
        Profile::RuntimeDefault | Profile::Localhost => {
            Err(unimplemented("seccomp profiles are not supported yet: only Unconfined is"))
        }
    }
}

/// No profile at all leaves the choice to the runtime, and cricket has none of its own.
fn apparmor(request: &Request<'_>, security: &LinuxContainerSecurityContext) -> Result<()> {
    let profile = profile("AppArmor", security.apparmor.as_ref(), &security.apparmor_profile)?;
    match profile {
        Profile::Unset | Profile::Unconfined => Ok(()),
        _ if request.privileged() => Ok(()),
        Profile::RuntimeDefault if !request.host.apparmor => Ok(()),
        Profile::Localhost if !request.host.apparmor => {
            Err(Error::precondition("AppArmor is not enabled on this host, but the container names a profile"))
        }
        Profile::RuntimeDefault | Profile::Localhost => {
            Err(unimplemented("AppArmor profiles are not supported yet: only Unconfined is"))
        }
    }
}

/// `field` beats `path`, which is what it was called before.
fn profile(what: &str, field: Option<&SecurityProfile>, path: &str) -> Result<Profile> {
    let Some(field) = field else {
        return match path {
            "" => Ok(Profile::Unset),
            "unconfined" => Ok(Profile::Unconfined),
            "runtime/default" | "docker/default" => Ok(Profile::RuntimeDefault),
            _ if path.strip_prefix("localhost/").is_some_and(|name| !name.is_empty()) => Ok(Profile::Localhost),
            _ => Err(Error::invalid(format!("{what}: {path:?} is not a profile"))),
        };
    };
    let kind =
        field.profile_type.enum_value().map_err(|n| Error::invalid(format!("{what}: there is no profile type {n}")))?;
    match (kind, field.localhost_ref.is_empty()) {
        (ProfileType::Unconfined, true) => Ok(Profile::Unconfined),
        (ProfileType::RuntimeDefault, true) => Ok(Profile::RuntimeDefault),
        (ProfileType::Localhost, false) => Ok(Profile::Localhost),
        (ProfileType::Localhost, true) => Err(Error::invalid(format!("{what}: a Localhost profile without a name"))),
        (_, false) => Err(Error::invalid(format!("{what}: localhost_ref without the profile type Localhost"))),
    }
}

fn unimplemented(what: &str) -> Error {
    Error::new(Kind::Unimplemented, what)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::oci::container::tests::Case;
    use cricket_proto::runtime::{CDIDevice, SELinuxOption};
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

    #[test]
    fn seccomp_profiles() {
        let cases = [
            (MessageField::none(), "", Ok(())),
            (MessageField::none(), "unconfined", Ok(())),
            (MessageField::none(), "runtime/default", Err(Kind::Unimplemented)),
            (MessageField::none(), "docker/default", Err(Kind::Unimplemented)),
            (MessageField::none(), "localhost/a.json", Err(Kind::Unimplemented)),
            (MessageField::none(), "localhost/", Err(Kind::InvalidArgument)),
            (MessageField::none(), "nonsense", Err(Kind::InvalidArgument)),
            (field(UNCONFINED, ""), "runtime/default", Ok(())),
            (field(DEFAULT, ""), "unconfined", Err(Kind::Unimplemented)),
            (field(LOCALHOST, "/a.json"), "", Err(Kind::Unimplemented)),
            (field(LOCALHOST, ""), "", Err(Kind::InvalidArgument)),
            (field(UNCONFINED, "/a.json"), "", Err(Kind::InvalidArgument)),
            (field(9, ""), "", Err(Kind::InvalidArgument)),
        ];
        for (field, path, expected) in cases {
            let mut case = Case::default();
            case.security().seccomp = field.clone();
            case.security().seccomp_profile_path = path.into();
            assert_eq!(kind(&case), expected, "{field:?} {path}");
            // Nothing filters a privileged container, but nonsense stays nonsense.
            case.make_privileged();
            let privileged = if expected == Err(Kind::Unimplemented) { Ok(()) } else { expected };
            assert_eq!(kind(&case), privileged, "privileged {field:?} {path}");
        }
    }

    #[test]
    fn apparmor_profiles() {
        let cases = [
            (MessageField::none(), Ok(()), Ok(())),
            (field(UNCONFINED, ""), Ok(()), Ok(())),
            (field(DEFAULT, ""), Ok(()), Err(Kind::Unimplemented)),
            (field(LOCALHOST, "web"), Err(Kind::FailedPrecondition), Err(Kind::Unimplemented)),
        ];
        for (field, without, with) in cases {
            let mut case = Case::default();
            case.security().apparmor = field.clone();
            assert_eq!(kind(&case), without, "{field:?}");
            case.host.apparmor = true;
            assert_eq!(kind(&case), with, "{field:?}");
            case.make_privileged();
            assert_eq!(kind(&case), Ok(()), "{field:?}");
        }
    }

    #[test]
    fn selinux_options_count_only_where_it_is_on() {
        let mut case = Case::default();
        case.security().selinux_options = Some(SELinuxOption { level: "s0:c1".into(), ..Default::default() }).into();
        assert_eq!(kind(&case), Ok(()));
        case.host.selinux = true;
        assert_eq!(kind(&case), Err(Kind::Unimplemented));
        case.security().selinux_options = Some(SELinuxOption::default()).into();
        assert_eq!(kind(&case), Ok(()));
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
