//! A copy of a foreign directory with all that makes its files what they are: owners, modes, times, links, holes,
//! devices, extended attributes.
//!
//! Files are named through open directories, without a link being followed, so nothing outside is read or written.

use std::collections::{HashMap, HashSet};
use std::ffi::CStr;
use std::fs::{self, File, Metadata, Permissions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{lchown, symlink, DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::tree::place;
use super::{inode, xattr};
use crate::error::{Context, Error, Result};

/// No more files and directories than this are copied, all directories of a [`Copier`] together.
const MAX_FILES: usize = 1_000_000;
/// The kernel takes 4096, and a few are ours.
const MAX_PATH_BYTES: usize = 4000;
/// No directory deeper than this: each level holds two descriptors.
const MAX_DEPTH: usize = 100;
/// Whether to go on is asked again after so much of a file.
const PIECE_BYTES: u64 = 16 << 20;
/// Who owns what belongs to an id that a user namespace does not have.
const NOBODY: u32 = 65534;

/// Ids from 0 on in a user namespace are those from `first` on outside.
#[derive(Clone, Copy, Debug)]
pub struct Shift {
    /// What 0 is outside.
    pub first: u32,
    /// How many there are.
    pub length: u32,
}

/// Who owns the copy: the same as the original, or those in a user namespace with these users and groups.
#[derive(Clone, Copy, Debug, Default)]
pub struct Owners(pub Option<(Shift, Shift)>);

/// Copies directories into one. What is one file under two names is one in the copy, also in two of the directories, and
/// what is no data takes no room: the copies are no larger than the originals.
pub struct Copier<'a> {
    into: &'a File,
    owners: Owners,
    go_on: &'a dyn Fn() -> Result<()>,
    /// By device and inode.
    apart: HashSet<(u64, u64)>,
    /// Files with more than one name, and where below `into` their first one is.
    linked: HashMap<(u64, u64), PathBuf>,
    files: usize,
}

impl Shift {
    fn of(self, id: u32) -> u32 {
        let known = if id < self.length { id } else { NOBODY.min(self.length.saturating_sub(1)) };
        self.first.saturating_add(known)
    }
}

impl Owners {
    /// Who owns the copy of what these own.
    pub fn of(&self, uid: u32, gid: u32) -> (u32, u32) {
        self.0.map_or((uid, gid), |(uids, gids)| (uids.of(uid), gids.of(gid)))
    }

    /// An attribute in which ids stand, for the namespace.
    fn attribute(&self, name: &CStr, mut value: Vec<u8>) -> Vec<u8> {
        const CAPABILITY_2: [u8; 4] = 0x0200_0000_u32.to_le_bytes();
        const CAPABILITY_3: u8 = 3;
        const ACL_USER: u8 = 0x02;
        const ACL_GROUP: u8 = 0x08;
        let Some((uids, gids)) = self.0 else { return value };
        if name == c"security.capability" && value.len() == 20 && value[1..4] == CAPABILITY_2[1..] {
            // Of a namespace whose root is its owner: revision 3, with that id at the end.
            value[3] = CAPABILITY_3;
            value.extend(uids.first.to_le_bytes());
        }
        if name.to_bytes().starts_with(b"system.posix_acl_") && value.len() % 8 == 4 {
            for entry in value[4..].chunks_exact_mut(8) {
                let shift = match entry[0] {
                    ACL_USER => uids,
                    ACL_GROUP => gids,
                    _ => continue,
                };
                let id = u32::from_le_bytes([entry[4], entry[5], entry[6], entry[7]]);
                entry[4..].copy_from_slice(&shift.of(id).to_le_bytes());
            }
        }
        value
    }
}

impl<'a> Copier<'a> {
    /// Copies go `into` this directory and belong to `owners`. `go_on` is asked before each file and now and then in a
    /// large one; an error of it ends the work.
    pub fn new(into: &'a File, owners: Owners, go_on: &'a dyn Fn() -> Result<()>) -> Self {
        Copier { into, owners, go_on, apart: HashSet::new(), linked: HashMap::new(), files: 0 }
    }

    /// The content of `directory` is not copied where it is met in another one.
    pub fn keep_apart(&mut self, directory: &File) -> Result<()> {
        let facts = directory.metadata()?;
        self.apart.insert((facts.dev(), facts.ino()));
        Ok(())
    }

    /// Copies the directory `from` as `name`, which must not exist. Blocks for the disk. On failure what was copied stays.
    ///
    /// # Errors
    /// `InvalidArgument` with the path for what cannot be read or goes beyond the bounds; what the file system says that
    /// is written to; what `go_on` says.
    pub fn directory(&mut self, from: &File, name: &str) -> Result<()> {
        let facts = from.metadata().map_err(|e| unreadable(Path::new("."), &e))?;
        self.whole(&place(from).join("."), from, &facts, &mut PathBuf::from(name), 0)
    }

    /// Makes an empty directory `name`, root's and open to be read.
    pub fn empty(&self, name: &str) -> Result<()> {
        let into = self.target(Path::new(name));
        let (uid, gid) = self.owners.of(0, 0);
        let made = fs::DirBuilder::new().mode(0o700).create(&into);
        made.and_then(|()| lchown(&into, Some(uid), Some(gid)))
            .and_then(|()| fs::set_permissions(&into, Permissions::from_mode(0o755)))
            .with_context(|| format!("make {name:?}"))
    }

    /// A directory: `from` is its name, `open` it itself.
    fn whole(&mut self, from: &Path, open: &File, facts: &Metadata, at: &mut PathBuf, depth: usize) -> Result<()> {
        if depth > MAX_DEPTH {
            return Err(Error::invalid(format!("{} is more than {MAX_DEPTH} directories deep", shown(at))));
        }
        let into = self.target(at);
        let made = fs::DirBuilder::new().mode(0o700).create(&into);
        made.with_context(|| format!("make {}", shown(at)))?;
        if depth == 0 || !self.apart.contains(&(facts.dev(), facts.ino())) {
            for entry in fs::read_dir(place(open)).map_err(|e| unreadable(at, &e))? {
                let entry = entry.map_err(|e| unreadable(at, &e))?;
                at.push(entry.file_name());
                self.one(&place(open).join(entry.file_name()), at, depth)?;
                at.pop();
            }
        }
        self.dress(from, &into, facts).with_context(|| format!("copy {}", shown(at)))
    }

    fn one(&mut self, from: &Path, at: &mut PathBuf, depth: usize) -> Result<()> {
        (self.go_on)()?;
        self.files += 1;
        if self.files > MAX_FILES {
            return Err(Error::invalid(format!("more than {MAX_FILES} files, the next is {}", shown(at))));
        }
        if at.as_os_str().len() > MAX_PATH_BYTES {
            return Err(Error::invalid(format!("a path of more than {MAX_PATH_BYTES} bytes: {}", shown(at))));
        }
        let facts = fs::symlink_metadata(from).map_err(|e| unreadable(at, &e))?;
        let kind = facts.file_type();
        if kind.is_dir() {
            let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_PATH;
            let open = File::options().read(true).custom_flags(flags).open(from).map_err(|e| unreadable(at, &e))?;
            return self.whole(from, &open, &facts, at, depth + 1);
        }
        let into = self.target(at);
        if facts.nlink() > 1 {
            let same = (facts.dev(), facts.ino());
            if let Some(first) = self.linked.get(&same) {
                return fs::hard_link(self.target(first), &into).with_context(|| format!("link {}", shown(at)));
            }
            self.linked.insert(same, at.clone());
        }
        if kind.is_symlink() {
            let to = fs::read_link(from).map_err(|e| unreadable(at, &e))?;
            symlink(to, &into).with_context(|| format!("make {}", shown(at)))?;
        } else if kind.is_file() {
            self.content(from, &into, facts.len(), at)?;
        } else {
            let made = inode::make_special(&into, (facts.mode() & !0o7777) | 0o600, facts.rdev());
            made.with_context(|| format!("make {}", shown(at)))?;
        }
        self.dress(from, &into, &facts).with_context(|| format!("copy {}", shown(at)))
    }

    /// The bytes of a file; holes stay holes.
    fn content(&self, from: &Path, into: &Path, length: u64, at: &Path) -> Result<()> {
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY;
        let from = File::options().read(true).custom_flags(flags).open(from).map_err(|e| unreadable(at, &e))?;
        let copy = || -> Result<()> {
            let mut into = File::options().write(true).create_new(true).mode(0o600).open(into)?;
            let mut begin = 0;
            while let Some((data, end)) = inode::next_data(&from, begin)? {
                (&from).seek(SeekFrom::Start(data))?;
                into.seek(SeekFrom::Start(data))?;
                begin = end.min(data + PIECE_BYTES);
                if io::copy(&mut (&from).take(begin - data), &mut into)? < begin - data {
                    return Err(Error::invalid("it ends too early"));
                }
                (self.go_on)()?;
            }
            into.set_len(length)?;
            Ok(())
        };
        copy().with_context(|| format!("copy {}", shown(at)))
    }

    /// Owner, attributes, mode and times, in this order: each of them would be changed by one before.
    fn dress(&self, from: &Path, into: &Path, facts: &Metadata) -> Result<()> {
        let (uid, gid) = self.owners.of(facts.uid(), facts.gid());
        lchown(into, Some(uid), Some(gid)).context("change the owner")?;
        for name in xattr::names(from).context("list its attributes")? {
            // A label is the container's own. What overlayfs notes of its layers is no part of the file.
            if name.as_c_str() == xattr::SELINUX || name.to_bytes().starts_with(b"trusted.overlay.") {
                continue;
            }
            let value = xattr::value(from, &name).with_context(|| format!("read its attribute {name:?}"))?;
            let value = self.owners.attribute(&name, value);
            xattr::set(into, &name, &value).with_context(|| format!("set its attribute {name:?}"))?;
        }
        if !facts.file_type().is_symlink() {
            fs::set_permissions(into, Permissions::from_mode(facts.mode() & 0o7777)).context("change the mode")?;
        }
        let (accessed, changed) = ((facts.atime(), facts.atime_nsec()), (facts.mtime(), facts.mtime_nsec()));
        inode::set_times(into, accessed, changed).context("change the times")
    }

    fn target(&self, at: &Path) -> PathBuf {
        place(self.into).join(at)
    }
}

fn unreadable(at: &Path, e: &io::Error) -> Error {
    Error::invalid(format!("{} cannot be read: {e}", shown(at)))
}

/// A path for a message: from the copied directory on, in quotes, for an image's names can be anything.
fn shown(at: &Path) -> String {
    let below: PathBuf = at.components().skip(1).collect();
    format!("{below:?}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use std::process::Command;

    struct Dir(PathBuf);

    impl Dir {
        fn new(name: &str) -> Dir {
            let dir = std::env::temp_dir().join(format!("cricket-copy-{name}-{}", std::process::id()));
            for sub in ["from", "into"] {
                fs::create_dir_all(dir.join(sub)).expect("mkdir");
            }
            Dir(dir)
        }

        fn original(&self, path: &str) -> PathBuf {
            self.0.join("from").join(path)
        }

        fn copied(&self, path: &str) -> PathBuf {
            self.0.join("into/0").join(path)
        }

        fn copy(&self, owners: Owners) -> Result<()> {
            let (from, into) = (File::open(self.original("."))?, File::open(self.0.join("into"))?);
            Copier::new(&into, owners, &|| Ok(())).directory(&from, "0")
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).expect("ours");
        }
    }

    fn facts(path: &Path) -> (u32, u32, u32, i64, i64, u64) {
        let facts = fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        (facts.mode(), facts.uid(), facts.gid(), facts.mtime(), facts.mtime_nsec(), facts.rdev())
    }

    #[test]
    fn everything_is_as_it_was() {
        let dir = Dir::new("whole");
        fs::create_dir(dir.original("sub")).expect("mkdir");
        fs::write(dir.original("sub/set"), "text").expect("write");
        symlink("/etc/passwd", dir.original("out")).expect("symlink");
        symlink("sub", dir.original("within")).expect("symlink");
        fs::hard_link(dir.original("sub/set"), dir.original("again")).expect("link");
        inode::make_special(&dir.original("pipe"), libc::S_IFIFO | 0o640, 0).expect("mkfifo");
        inode::make_special(&dir.original("null"), libc::S_IFCHR | 0o606, libc::makedev(1, 3)).expect("mknod");
        inode::make_special(&dir.original("socket"), libc::S_IFSOCK | 0o600, 0).expect("mknod");
        let sparse = File::create(dir.original("sparse")).expect("create");
        sparse.set_len(1 << 40).expect("a hole");
        std::os::unix::fs::FileExt::write_all_at(&sparse, b"far", 1 << 30).expect("write");
        for (path, uid, mode) in [("sub", 1000, 0o1750), ("sub/set", 1001, 0o6755), ("null", 5, 0o606)] {
            lchown(dir.original(path), Some(uid), Some(uid + 1)).expect("chown");
            fs::set_permissions(dir.original(path), Permissions::from_mode(mode)).expect("chmod");
        }
        lchown(dir.original("out"), Some(7), Some(8)).expect("chown");
        xattr::set(&dir.original("sub/set"), c"security.capability", &capability(2)).expect("set");
        xattr::set(&dir.original("sub"), c"trusted.mine", b"yes").expect("set");
        xattr::set(&dir.original("sub"), c"trusted.overlay.opaque", b"y").expect("set");
        xattr::set(&dir.original("sub/set"), xattr::SELINUX, b"u:r:t:s0").expect("set");
        let past = "--date=2001-02-03 04:05:06.789";
        for path in ["sub/set", "out", "pipe", "sub", "."] {
            assert!(Command::new("touch")
                .args(["-h", past])
                .arg(dir.original(path))
                .status()
                .expect("touch")
                .success());
        }

        dir.copy(Owners::default()).expect("copied");
        for path in [".", "sub", "sub/set", "out", "within", "again", "pipe", "null", "socket", "sparse"] {
            assert_eq!(facts(&dir.copied(path)), facts(&dir.original(path)), "{path}");
        }
        assert_eq!(fs::read_link(dir.copied("out")).expect("a link"), Path::new("/etc/passwd"));
        assert_eq!(fs::read(dir.copied("sub/set")).expect("there"), b"text");
        let inode = |path: &str| fs::metadata(dir.copied(path)).expect("there").ino();
        assert_eq!(inode("again"), inode("sub/set"), "one file still");
        let sparse = fs::metadata(dir.copied("sparse")).expect("there");
        assert_eq!(sparse.len(), 1 << 40);
        assert!(sparse.blocks() < 100, "{} blocks", sparse.blocks());
        let mut bytes = [0; 3];
        let copied = File::open(dir.copied("sparse")).expect("there");
        std::os::unix::fs::FileExt::read_exact_at(&copied, &mut bytes, 1 << 30).expect("read");
        assert_eq!(&bytes, b"far");
        assert_eq!(xattr::value(&dir.copied("sub"), c"trusted.mine").expect("there"), b"yes");
        let names = |path: &str| xattr::names(&dir.copied(path)).expect("readable");
        assert_eq!(xattr::value(&dir.copied("sub/set"), c"security.capability").expect("there"), capability(2));
        assert!(!names("sub").iter().any(|n| n.as_bytes().starts_with(b"trusted.overlay.")), "{:?}", names("sub"));
        assert_ne!(xattr::label(&dir.copied("sub/set")).expect("readable").as_deref(), Some("u:r:t:s0"));
    }

    /// `cap_net_bind_service=ep`; revision 3 with a root of its own at the end.
    fn capability(revision: u8) -> Vec<u8> {
        let mut value = vec![1, 0, 0, revision, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        if revision == 3 {
            value.extend(100_000_u32.to_le_bytes());
        }
        value
    }

    #[test]
    fn in_a_user_namespace_it_belongs_to_the_same_users() {
        let dir = Dir::new("users");
        fs::write(dir.original("file"), "").expect("write");
        fs::write(dir.original("stranger"), "").expect("write");
        lchown(dir.original("file"), Some(1000), Some(50)).expect("chown");
        lchown(dir.original("stranger"), Some(70_000), Some(0)).expect("chown");
        xattr::set(&dir.original("file"), c"security.capability", &capability(2)).expect("set");
        let entry = |tag: u16, id: u32| {
            [tag.to_le_bytes().to_vec(), 6_u16.to_le_bytes().to_vec(), id.to_le_bytes().to_vec()].concat()
        };
        let none = u32::MAX;
        let list = |user, group| {
            let entries = [(1, none), (2, user), (4, none), (8, group), (0x10, none), (0x20, none)];
            [2_u32.to_le_bytes().to_vec(), entries.map(|(tag, id)| entry(tag, id)).concat()].concat()
        };
        xattr::set(&dir.original("."), c"system.posix_acl_default", &list(33, 34)).expect("set");
        let shift = |first| Shift { first, length: 65536 };
        dir.copy(Owners(Some((shift(100_000), shift(200_000))))).expect("copied");
        let owner = |path: &str| (facts(&dir.copied(path)).1, facts(&dir.copied(path)).2);
        assert_eq!(owner("."), (100_000, 200_000));
        assert_eq!(owner("file"), (101_000, 200_050));
        assert_eq!(owner("stranger"), (165_534, 200_000));
        assert_eq!(xattr::value(&dir.copied("file"), c"security.capability").expect("there"), capability(3));
        let copied = xattr::value(&dir.copied("."), c"system.posix_acl_default").expect("there");
        assert_eq!(copied, list(100_033, 200_034));
    }

    #[test]
    fn one_within_another_stays_empty_there() {
        let dir = Dir::new("apart");
        fs::create_dir_all(dir.original("own/deep")).expect("mkdir");
        fs::write(dir.original("own/file"), "x").expect("write");
        fs::hard_link(dir.original("own/file"), dir.original("file")).expect("link");
        let (from, own) =
            (File::open(dir.original(".")).expect("there"), File::open(dir.original("own")).expect("there"));
        let into = File::open(dir.0.join("into")).expect("there");
        let mut copier = Copier::new(&into, Owners::default(), &|| Ok(()));
        copier.keep_apart(&own).expect("stat");
        copier.directory(&from, "0").expect("copied");
        copier.directory(&own, "1").expect("copied");
        assert_eq!(fs::read_dir(dir.copied("own")).expect("there").count(), 0);
        let inode = |path: &str| fs::metadata(dir.0.join("into").join(path)).expect("there").ino();
        assert!(dir.0.join("into/1/deep").is_dir());
        assert_eq!(inode("0/file"), inode("1/file"), "no byte is copied twice");
    }

    #[test]
    fn it_ends_at_its_bounds_and_when_it_is_told_to() {
        let dir = Dir::new("bounds");
        let mut deep = dir.original(".");
        for _ in 0..=MAX_DEPTH {
            deep.push("d");
        }
        fs::create_dir_all(&deep).expect("mkdir");
        let e = dir.copy(Owners::default()).expect_err("too deep");
        assert_eq!(e.kind(), Kind::InvalidArgument);
        assert!(e.to_string().contains("\"d/d/d/") && e.to_string().contains("directories deep"), "{e}");
        let (from, into) =
            (File::open(dir.original(".")).expect("there"), File::open(dir.0.join("into")).expect("there"));
        let late = || Err(Error::new(Kind::DeadlineExceeded, "too late"));
        let e = Copier::new(&into, Owners::default(), &late).directory(&from, "1").expect_err("too late");
        assert_eq!(e.kind(), Kind::DeadlineExceeded);
    }
}
