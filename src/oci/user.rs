//! Who the first process runs as: what the request and the image say, and what that is when it is all numbers.

use cricket_proto::runtime::{ContainerConfig, LinuxContainerSecurityContext};

use super::facts::ImageFacts;
use crate::error::{Error, Kind, Result};

/// Ids above this are negative to many a program.
const MAX_ID: i64 = i32::MAX as i64;

/// A resolved user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Primary group id.
    pub gid: u32,
    /// All groups, the primary one among them: a process without it could pass an ACL that denies the group
    /// (CVE-2022-36109).
    pub additional_gids: Vec<u32>,
}

/// What was asked for, by whichever of request and image says something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// Only numbers.
    Numeric {
        /// User id.
        uid: u32,
        /// Group id; `None` is the user's primary group, which is 0 for an id that `/etc/passwd` does not know.
        gid: Option<u32>,
        /// Supplemental groups of the request.
        groups: Vec<u32>,
    },
    /// A name, which only the image's `/etc/passwd` or `/etc/group` turns into a number.
    Named {
        /// User name or id.
        user: String,
        /// Group name or id; `None` is the user's primary group.
        group: Option<String>,
        /// Supplemental groups of the request.
        groups: Vec<u32>,
    },
}

impl Wanted {
    /// The user without looking into the image: a group left open is 0, and groups are those of the request.
    ///
    /// # Errors
    /// `Unimplemented` if a name was asked for.
    pub fn by_number(&self) -> Result<User> {
        match self {
            Wanted::Numeric { uid, gid, groups } => {
                let gid = gid.unwrap_or(0);
                let mut additional_gids = groups.clone();
                additional_gids.push(gid);
                additional_gids.sort_unstable();
                additional_gids.dedup();
                Ok(User { uid: *uid, gid, additional_gids })
            }
            Wanted::Named { user, group, .. } => {
                let name = group.as_ref().map_or_else(|| user.clone(), |group| format!("{user}:{group}"));
                Err(Error::new(
                    Kind::Unimplemented,
                    format!("user {name:?}: users and groups by name are not supported yet, give numeric ids"),
                ))
            }
        }
    }
}

/// Who is asked for. `run_as_username` beats `run_as_user` beats the image's USER beats root.
///
/// # Errors
/// `InvalidArgument`: a group without a user, an id out of range, an unknown policy.
pub fn wanted(config: &ContainerConfig, image: &ImageFacts) -> Result<Wanted> {
    let security = &config.linux.security_context;
    if security.supplemental_groups_policy.enum_value().is_err() {
        let policy = security.supplemental_groups_policy.value();
        return Err(Error::invalid(format!("unknown supplemental groups policy {policy}")));
    }
    let groups = security.supplemental_groups.iter().map(|g| id(*g)).collect::<Result<Vec<u32>>>()?;
    let (user, group) = names(security, image)?;
    match (number(&user)?, group.as_deref().map(number).transpose()?) {
        (Some(uid), None) => Ok(Wanted::Numeric { uid, gid: None, groups }),
        (Some(uid), Some(Some(gid))) => Ok(Wanted::Numeric { uid, gid: Some(gid), groups }),
        _ => Ok(Wanted::Named { user, group, groups }),
    }
}

/// User and group as they would stand in a Dockerfile.
fn names(security: &LinuxContainerSecurityContext, image: &ImageFacts) -> Result<(String, Option<String>)> {
    let group = security.run_as_group.as_ref().map(|g| id(g.value)).transpose()?;
    let user = security.run_as_user.as_ref().map(|u| id(u.value)).transpose()?;
    if !security.run_as_username.is_empty() {
        return Ok((security.run_as_username.clone(), group.map(|g| g.to_string())));
    }
    match (user, group) {
        (Some(uid), gid) => Ok((uid.to_string(), gid.map(|g| g.to_string()))),
        (None, Some(gid)) => Err(Error::invalid(format!("run_as_group {gid} is set without run_as_user"))),
        (None, None) if image.user.is_empty() => Ok(("0".into(), None)),
        (None, None) => Ok(match image.user.split_once(':') {
            Some((user, "")) => (user.into(), None),
            Some((user, group)) => (user.into(), Some(group.into())),
            None => (image.user.clone(), None),
        }),
    }
}

/// `None` if it is a name. Digits are a number even where a user of that name exists.
fn number(name: &str) -> Result<Option<u32>> {
    if name.is_empty() {
        return Err(Error::invalid("the image names a group without a user"));
    }
    if !name.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    let value = name.parse::<i64>().map_err(|_| out_of_range(name))?;
    id(value).map(Some)
}

fn id(value: i64) -> Result<u32> {
    match u32::try_from(value) {
        Ok(id) if value <= MAX_ID => Ok(id),
        _ => Err(out_of_range(&value.to_string())),
    }
}

fn out_of_range(value: &str) -> Error {
    Error::invalid(format!("user or group id {value} is not between 0 and {MAX_ID}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use cricket_proto::runtime::Int64Value;
    use protobuf::MessageField;

    fn int(value: Option<i64>) -> MessageField<Int64Value> {
        value.map(|value| Int64Value { value, ..Default::default() }).into()
    }

    fn ask(user: Option<i64>, group: Option<i64>, name: &str, of_image: &str) -> Result<Wanted> {
        let mut config = ContainerConfig::default();
        let security = config.linux.mut_or_insert_default().security_context.mut_or_insert_default();
        security.run_as_user = int(user);
        security.run_as_group = int(group);
        security.run_as_username = name.into();
        wanted(&config, &ImageFacts { user: of_image.into(), ..Default::default() })
    }

    fn numeric(uid: u32, gid: Option<u32>) -> Wanted {
        Wanted::Numeric { uid, gid, groups: vec![] }
    }

    fn named(user: &str, group: Option<&str>) -> Wanted {
        Wanted::Named { user: user.into(), group: group.map(Into::into), groups: vec![] }
    }

    #[test]
    fn who_wins() {
        let cases = [
            (None, None, "", "", numeric(0, None)),
            (None, None, "", "1000", numeric(1000, None)),
            (None, None, "", "1000:50", numeric(1000, Some(50))),
            (None, None, "", "1000:", numeric(1000, None)),
            (None, None, "", "nobody", named("nobody", None)),
            (None, None, "", "1000:staff", named("1000", Some("staff"))),
            (None, None, "", "nobody:50", named("nobody", Some("50"))),
            (Some(7), None, "", "nobody:staff", numeric(7, None)),
            (Some(0), Some(0), "", "nobody", numeric(0, Some(0))),
            (Some(7), Some(8), "", "", numeric(7, Some(8))),
            (Some(7), Some(8), "web", "", named("web", Some("8"))),
            (None, None, "12", "", numeric(12, None)),
            (Some(MAX_ID), None, "", "", numeric(i32::MAX as u32, None)),
        ];
        for (user, group, name, of_image, expected) in cases {
            assert_eq!(
                ask(user, group, name, of_image).expect("valid"),
                expected,
                "{user:?} {group:?} {name} {of_image}"
            );
        }
    }

    #[test]
    fn refused() {
        let cases = [
            (None, Some(8), "", ""),
            (None, Some(8), "", "1000"),
            (Some(-1), None, "", ""),
            (Some(MAX_ID + 1), None, "", ""),
            (Some(1), Some(-1), "", ""),
            (None, None, "", "4294967296"),
            (None, None, "", "99999999999999999999999"),
            (None, None, "", ":50"),
        ];
        for (user, group, name, of_image) in cases {
            let refused = ask(user, group, name, of_image).map_err(|e| e.kind());
            assert_eq!(refused, Err(Kind::InvalidArgument), "{user:?} {group:?} {name:?} {of_image:?}");
        }
    }

    #[test]
    fn unknown_policy_and_negative_group_are_refused() {
        let mut config = ContainerConfig::default();
        let security = config.linux.mut_or_insert_default().security_context.mut_or_insert_default();
        security.supplemental_groups_policy = protobuf::EnumOrUnknown::from_i32(9);
        assert_eq!(wanted(&config, &ImageFacts::default()).map_err(|e| e.kind()), Err(Kind::InvalidArgument));
        let mut config = ContainerConfig::default();
        config.linux.mut_or_insert_default().security_context.mut_or_insert_default().supplemental_groups = vec![-5];
        assert_eq!(wanted(&config, &ImageFacts::default()).map_err(|e| e.kind()), Err(Kind::InvalidArgument));
    }

    #[test]
    fn numbers_need_no_image() {
        let user = Wanted::Numeric { uid: 1, gid: Some(20), groups: vec![30, 10, 30] }.by_number().expect("numbers");
        assert_eq!(user, User { uid: 1, gid: 20, additional_gids: vec![10, 20, 30] });
        let user = numeric(1000, None).by_number().expect("numbers");
        assert_eq!(user, User { uid: 1000, gid: 0, additional_gids: vec![0] });
        assert_eq!(named("web", None).by_number().map_err(|e| e.kind()), Err(Kind::Unimplemented));
    }
}
