//! Who the first process runs as: what the request and the image say, and who that is by the image's own files.

use cricket_proto::runtime::{ContainerConfig, LinuxContainerSecurityContext, SupplementalGroupsPolicy};

use super::accounts::Accounts;
use super::facts::ImageFacts;
use crate::error::{Error, Result};

/// Ids above this are negative to many a program.
pub(super) const MAX_ID: i64 = i32::MAX as i64;

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

/// A user or a group as somebody wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Name {
    /// Digits: an id, even where something of that name exists.
    Id(u32),
    /// A name, which only the image's files turn into an id.
    Text(String),
}

/// Who was asked for, by whichever of request and image says something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The user.
    pub user: Name,
    /// The primary group; `None` is the user's own, which is 0 for an id that `/etc/passwd` does not know.
    pub group: Option<Name>,
    /// Supplemental groups of the request.
    pub groups: Vec<u32>,
    /// No other supplemental groups than those: the policy Strict. Else `/etc/group` adds its own.
    pub strict: bool,
}

impl Wanted {
    /// Whether the image's files have a say. Only all numbers and the policy Strict leave them none.
    pub fn depends_on_image(&self) -> bool {
        !self.strict || !matches!((&self.user, &self.group), (Name::Id(_), Some(Name::Id(_))))
    }

    /// The user by the image's files.
    ///
    /// # Errors
    /// `InvalidArgument` for a name that they do not know.
    pub fn resolve(&self, accounts: &Accounts) -> Result<User> {
        let account = match &self.user {
            Name::Id(uid) => accounts.with_uid(*uid),
            Name::Text(name) => Some(
                accounts
                    .named(name)
                    .ok_or_else(|| Error::invalid(format!("user {name:?} is not in /etc/passwd of the image")))?,
            ),
        };
        let uid = match self.user {
            Name::Id(uid) => uid,
            Name::Text(_) => account.map_or(0, |a| a.uid),
        };
        let gid = match &self.group {
            None => account.map_or(0, |a| a.gid),
            Some(Name::Id(gid)) => *gid,
            Some(Name::Text(name)) => accounts
                .gid(name)
                .ok_or_else(|| Error::invalid(format!("group {name:?} is not in /etc/group of the image")))?,
        };
        let mut additional_gids = self.groups.clone();
        additional_gids.push(gid);
        if let Some(account) = account.filter(|_| !self.strict) {
            additional_gids.extend(accounts.groups_of(&account.name));
        }
        additional_gids.sort_unstable();
        additional_gids.dedup();
        Ok(User { uid, gid, additional_gids })
    }
}

/// Who is asked for. `run_as_username` beats `run_as_user` beats the image's USER beats root.
///
/// # Errors
/// `InvalidArgument`: a group without a user, an id out of range, an unknown policy.
pub fn wanted(config: &ContainerConfig, image: &ImageFacts) -> Result<Wanted> {
    let security = &config.linux.security_context;
    let policy = security.supplemental_groups_policy.enum_value();
    let policy = policy.map_err(|n| Error::invalid(format!("unknown supplemental groups policy {n}")))?;
    let groups = security.supplemental_groups.iter().map(|g| id(*g)).collect::<Result<Vec<u32>>>()?;
    let (user, group) = names(security, image)?;
    Ok(Wanted { user, group, groups, strict: policy == SupplementalGroupsPolicy::Strict })
}

/// User and group by the first that names a user.
fn names(security: &LinuxContainerSecurityContext, image: &ImageFacts) -> Result<(Name, Option<Name>)> {
    let group = security.run_as_group.as_ref().map(|g| id(g.value)).transpose()?.map(Name::Id);
    let user = security.run_as_user.as_ref().map(|u| id(u.value)).transpose()?.map(Name::Id);
    if !security.run_as_username.is_empty() {
        return Ok((name(&security.run_as_username)?, group));
    }
    match (user, group, image.user.as_str()) {
        (Some(user), group, _) => Ok((user, group)),
        (None, Some(_), _) => Err(Error::invalid("run_as_group is set without run_as_user or run_as_username")),
        (None, None, "") => Ok((Name::Id(0), None)),
        (None, None, of_image) => match of_image.split_once(':') {
            Some((user, "")) => Ok((name(user)?, None)),
            Some((user, group)) => Ok((name(user)?, Some(name(group)?))),
            None => Ok((name(of_image)?, None)),
        },
    }
}

/// A user or a group of a Dockerfile's USER.
fn name(text: &str) -> Result<Name> {
    if text.is_empty() {
        return Err(Error::invalid("the image names a group without a user"));
    }
    if text.contains(':') || text.chars().any(char::is_control) {
        return Err(Error::invalid(format!("{text:?} cannot be the name of a user or group")));
    }
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(Name::Text(text.into()));
    }
    let value = text.parse::<i64>().map_err(|_| out_of_range(text))?;
    id(value).map(Name::Id)
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
    use crate::error::Kind;
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
        Wanted { user: Name::Id(uid), group: gid.map(Name::Id), groups: vec![], strict: false }
    }

    fn named(user: &str, group: Option<&str>) -> Wanted {
        let name = |text| super::name(text).expect("a name");
        Wanted { user: name(user), group: group.map(name), groups: vec![], strict: false }
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
            (None, None, "", "a:b:c"),
            (None, None, "web:staff", ""),
            (None, None, "we\nb", ""),
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

    /// As of a small Debian.
    fn accounts() -> Accounts {
        Accounts::parse(
            b"root:x:0:0::\ndaemon:x:1:1::\nwww-data:x:33:33::\nweb:x:1000:1001::\n1002:x:7:7::\n",
            b"root:x:0:\nadm:x:4:root,web\ndisk:x:6:root\nwww-data:x:33:\nlate:x:20:web\nearly:x:10:web\n",
        )
    }

    fn resolved(wanted: &Wanted) -> (u32, u32, Vec<u32>) {
        let user = wanted.resolve(&accounts()).expect("known");
        (user.uid, user.gid, user.additional_gids)
    }

    #[test]
    fn the_images_files_say_who_it_is() {
        let cases = [
            // Root is a member like any other.
            (numeric(0, None), (0, 0, vec![0, 4, 6])),
            (named("web", None), (1000, 1001, vec![4, 10, 20, 1001])),
            (numeric(1000, None), (1000, 1001, vec![4, 10, 20, 1001])),
            (named("web", Some("disk")), (1000, 6, vec![4, 6, 10, 20])),
            (named("web", Some("77")), (1000, 77, vec![4, 10, 20, 77])),
            (numeric(1000, Some(0)), (1000, 0, vec![0, 4, 10, 20])),
            // An id that nobody has.
            (numeric(1234, None), (1234, 0, vec![0])),
            (named("1234", Some("www-data")), (1234, 33, vec![33])),
            // Digits are an id although a user is called so.
            (named("1002", None), (1002, 0, vec![0])),
        ];
        for (wanted, expected) in cases {
            assert_eq!(resolved(&wanted), expected, "{wanted:?}");
        }
    }

    #[test]
    fn strict_means_the_requests_groups_only() {
        let more = Wanted { groups: vec![30, 10, 30], ..named("web", None) };
        assert_eq!(resolved(&more).2, [4, 10, 20, 30, 1001]);
        let strict = Wanted { strict: true, ..more };
        assert_eq!(resolved(&strict).2, [10, 30, 1001]);
        let none = Wanted { strict: true, ..named("web", None) };
        assert_eq!(resolved(&none).2, [1001], "the primary group is always there");
    }

    #[test]
    fn names_that_the_image_does_not_know() {
        for (wanted, text) in
            [(named("ghost", None), "user \"ghost\""), (named("web", Some("ghosts")), "group \"ghosts\"")]
        {
            let e = wanted.resolve(&accounts()).expect_err("unknown");
            assert_eq!(e.kind(), Kind::InvalidArgument);
            assert!(e.message().contains(text), "{e}");
            assert!(wanted.resolve(&Accounts::default()).is_err());
        }
    }

    #[test]
    fn only_numbers_under_strict_need_no_image() {
        let strict = |wanted| Wanted { strict: true, ..wanted };
        assert!(!strict(numeric(1, Some(2))).depends_on_image());
        for wanted in [numeric(1, Some(2)), strict(numeric(1, None)), strict(named("web", Some("2")))] {
            assert!(wanted.depends_on_image(), "{wanted:?}");
        }
        assert!(strict(named("1", Some("web"))).depends_on_image());
        let user = numeric(1000, None).resolve(&Accounts::default()).expect("a number");
        assert_eq!(user, User { uid: 1000, gid: 0, additional_gids: vec![0] });
    }
}
