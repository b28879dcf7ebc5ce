//! The image's `/etc/passwd` and `/etc/group`: the few columns of them that say who a user is.

/// What the two files say. A file that is not there says nothing; a line that makes no sense is skipped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accounts {
    users: Vec<Account>,
    groups: Vec<Group>,
}

/// A line of `/etc/passwd`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Account {
    pub(super) name: String,
    pub(super) uid: u32,
    pub(super) gid: u32,
}

/// A line of `/etc/group`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

impl Accounts {
    /// From the bytes of the two files; an image may hold any bytes there.
    pub fn parse(passwd: &[u8], group: &[u8]) -> Self {
        let lines = |file: &[u8]| String::from_utf8_lossy(file).lines().map(String::from).collect::<Vec<_>>();
        Accounts {
            users: lines(passwd).iter().filter_map(|line| account(line)).collect(),
            groups: lines(group).iter().filter_map(|line| self::group(line)).collect(),
        }
    }

    /// The first user of this name.
    pub(super) fn named(&self, name: &str) -> Option<&Account> {
        self.users.iter().find(|u| u.name == name)
    }

    /// The first user with this id.
    pub(super) fn with_uid(&self, uid: u32) -> Option<&Account> {
        self.users.iter().find(|u| u.uid == uid)
    }

    /// The id of the first group of this name.
    pub(super) fn gid(&self, name: &str) -> Option<u32> {
        self.groups.iter().find(|g| g.name == name).map(|g| g.gid)
    }

    /// The ids of the groups that list `user` as a member.
    pub(super) fn groups_of<'a>(&'a self, user: &'a str) -> impl Iterator<Item = u32> + 'a {
        self.groups.iter().filter(move |g| g.members.iter().any(|m| m == user)).map(|g| g.gid)
    }
}

/// `name:password:uid:gid:…`
fn account(line: &str) -> Option<Account> {
    let mut columns = line.trim().split(':');
    let name = columns.next().filter(|n| !n.is_empty())?;
    let (uid, gid) = (number(columns.nth(1)?)?, number(columns.next()?)?);
    Some(Account { name: name.into(), uid, gid })
}

/// `name:password:gid:member,member`; the last column may be missing.
fn group(line: &str) -> Option<Group> {
    let mut columns = line.trim().split(':');
    let name = columns.next().filter(|n| !n.is_empty())?;
    let gid = number(columns.nth(1)?)?;
    let members = columns.next().unwrap_or_default().split(',').map(str::trim).filter(|m| !m.is_empty());
    Some(Group { name: name.into(), gid, members: members.map(String::from).collect() })
}

/// Digits only, and no more than what is a user or group anywhere.
fn number(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    plain.then(|| text.parse().ok()).flatten().filter(|id| i64::from(*id) <= super::user::MAX_ID)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_wins_and_nonsense_is_skipped() {
        let accounts = Accounts::parse(
            b"# a comment\n\nroot:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001\nweb:x:5:5::\n:x:1:1\nshort:x:1\n\
              minus:x:-1:0::\nplus:x:+1:0::\nhuge:x:4294967296:0::\nbig:x:2147483648:0::\ntwin:x:1000:7::\n\xff\xfe:x:9:9::\n",
            b"root:x:0:\nwww:x:33:web, other\nwww:x:34:\nbare:x:44\nbad:x:many:web\nothers:x:50000:other,web,\n",
        );
        let web = accounts.named("web").expect("there");
        assert_eq!((web.uid, web.gid), (1000, 1001));
        assert_eq!(accounts.with_uid(1000).map(|u| u.name.as_str()), Some("web"));
        assert_eq!(accounts.with_uid(9).map(|u| u.gid), Some(9), "bytes that are no text do not hide a line");
        for name in ["short", "minus", "plus", "huge", "big", "", "# a comment"] {
            assert!(accounts.named(name).is_none(), "{name}");
        }
        assert_eq!((accounts.gid("www"), accounts.gid("bare"), accounts.gid("bad")), (Some(33), Some(44), None));
        assert_eq!(accounts.groups_of("web").collect::<Vec<_>>(), [33, 50000]);
        assert_eq!(accounts.groups_of("").count(), 0);
    }

    #[test]
    fn no_files_say_nothing() {
        assert_eq!(Accounts::parse(b"", b""), Accounts::default());
    }
}
