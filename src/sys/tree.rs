//! Directories that somebody else has filled: what they take, and their end, however deep they are.

use std::collections::HashSet;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How deep we go into a tree at once: each level holds two descriptors.
const MAX_DEPTH: usize = 32;
/// Of what the kernel calls blocks.
const BLOCK_BYTES: u64 = 512;
/// How often we begin anew, at most: what is still there then is being filled by somebody.
const MAX_PASSES: usize = 100_000;

/// The paths of what is in `dir`; none if it does not exist.
pub fn entries(dir: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(dir) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        read => read?.map(|entry| Ok(entry?.path())).collect(),
    }
}

/// What a tree takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes on disk.
    pub bytes: u64,
    /// Files, links and directories, `top` among them; one of several names counts once.
    pub inodes: u64,
}

/// Measures `top` and everything below it; links themselves, never what they lead to. What goes while we look is not
/// counted.
///
/// # Errors
/// Also for a tree deeper than some tens of levels: it would use up the open files.
pub fn usage(top: &Path) -> io::Result<Usage> {
    let (mut sum, mut seen) = (Usage::default(), HashSet::new());
    let open = directory(top)?;
    count(&open.metadata()?, &mut sum, &mut seen);
    measure(&open, 0, &mut sum, &mut seen)?;
    Ok(sum)
}

fn measure(dir: &File, depth: usize, sum: &mut Usage, seen: &mut HashSet<(u64, u64)>) -> io::Result<()> {
    for entry in fs::read_dir(place(dir))? {
        let entry = entry?;
        let Some(facts) = unless_gone(entry.metadata())? else { continue };
        count(&facts, sum, seen);
        if facts.is_dir() {
            if depth == MAX_DEPTH {
                return Err(io::Error::other(format!("a tree deeper than {MAX_DEPTH} levels")));
            }
            match directory(&entry.path()) {
                Ok(below) => measure(&below, depth + 1, sum, seen)?,
                // It went, or became something else, while we looked.
                Err(e) if matches!(e.raw_os_error(), Some(libc::ENOENT | libc::ENOTDIR | libc::ELOOP)) => {}
                Err(e) => return Err(e),
            }
        }
    }
    Ok(())
}

fn count(facts: &Metadata, sum: &mut Usage, seen: &mut HashSet<(u64, u64)>) {
    if facts.is_dir() || facts.nlink() < 2 || seen.insert((facts.dev(), facts.ino())) {
        sum.bytes += facts.blocks() * BLOCK_BYTES;
        sum.inodes += 1;
    }
}

fn unless_gone<T>(done: io::Result<T>) -> io::Result<Option<T>> {
    match done {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        done => done.map(Some),
    }
}

/// Removes `top` and everything below it; links themselves, never what they lead to. The names in `top` itself must be
/// our own, those further below may be anybody's: directories that lie too deep are moved up to `top` first, so that
/// neither the stack nor the open files are used up.
pub fn remove(top: &Path) -> io::Result<()> {
    let mut moved = 0;
    for _ in 0..MAX_PASSES {
        let open = directory(top)?;
        clear(&open, &open, 0, &mut moved)?;
        match fs::remove_dir(top) {
            // What was moved up while we read it.
            Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            done => return done,
        }
    }
    Err(io::Error::other(format!("{} is filled faster than it is emptied", top.display())))
}

fn clear(dir: &File, top: &File, depth: usize, moved: &mut u64) -> io::Result<()> {
    for entry in fs::read_dir(place(dir))? {
        let entry = entry?;
        let path = place(dir).join(entry.file_name());
        if !entry.file_type()?.is_dir() {
            fs::remove_file(&path)?;
        } else if depth == MAX_DEPTH {
            *moved += 1;
            fs::rename(&path, place(top).join(format!("moved-up-{moved}")))?;
        } else {
            clear(&directory(&path)?, top, depth + 1, moved)?;
            match fs::remove_dir(&path) {
                // A directory that changes while it is read may hide what is in it until the next pass.
                Err(e) if e.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                done => done?,
            }
        }
    }
    Ok(())
}

fn directory(path: &Path) -> io::Result<File> {
    File::options().read(true).custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW | libc::O_PATH).open(path)
}

/// A name of an open directory, which stays true wherever it is moved to.
pub fn place(dir: &File) -> PathBuf {
    format!("/proc/self/fd/{}", dir.as_raw_fd()).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("cricket-tree-{name}-{}", std::process::id()));
        fs::create_dir(&dir).expect("fresh");
        dir
    }

    #[test]
    fn a_tree_without_an_end_ends() {
        let dir = scratch("deep");
        let top = dir.join("top");
        fs::create_dir(&top).expect("mkdir");
        let mut at = directory(&top).expect("there");
        // Far more than a path, the stack of a thread or a table of open files could hold.
        for _ in 0..20_000 {
            fs::create_dir(place(&at).join("d")).expect("mkdir");
            at = directory(&place(&at).join("d")).expect("there");
        }
        fs::write(place(&at).join("file"), "").expect("write");
        drop(at);
        remove(&top).expect("removed");
        assert!(!top.exists());
        fs::remove_dir(&dir).expect("empty");
    }

    #[test]
    fn what_is_in_a_directory_that_may_not_be_there() {
        let dir = scratch("entries");
        assert_eq!(entries(&dir.join("none")).expect("none"), Vec::<PathBuf>::new());
        fs::write(dir.join("file"), "").expect("write");
        assert_eq!(entries(&dir).expect("read"), [dir.join("file")]);
        assert!(entries(&dir.join("file")).is_err(), "it is no directory");
        fs::remove_dir_all(&dir).expect("ours");
    }

    #[test]
    fn what_a_tree_takes() {
        let dir = scratch("usage");
        fs::create_dir_all(dir.join("top/a/b")).expect("mkdir");
        fs::write(dir.join("other"), vec![1; 1 << 20]).expect("write");
        let empty = usage(&dir.join("top")).expect("measured");
        assert_eq!(empty.inodes, 3);
        fs::write(dir.join("top/a/b/file"), vec![1; 300_000]).expect("write");
        fs::hard_link(dir.join("top/a/b/file"), dir.join("top/a/again")).expect("link");
        symlink(dir.join("other"), dir.join("top/link")).expect("symlink");
        symlink("/", dir.join("top/a/root")).expect("symlink");
        let full = usage(&dir.join("top")).expect("measured");
        assert_eq!(full.inodes, 6, "a file of two names, and two links");
        assert!((300_000..400_000).contains(&(full.bytes - empty.bytes)), "{full:?} {empty:?}");
        let deep = (0..MAX_DEPTH + 2).fold(dir.join("top"), |path, _| path.join("d"));
        fs::create_dir_all(deep).expect("mkdir");
        assert!(usage(&dir.join("top")).is_err());
        assert!(usage(&dir.join("top/link")).is_err() && usage(&dir.join("none")).is_err());
        fs::remove_dir_all(&dir).expect("ours");
    }

    #[test]
    fn links_go_and_what_they_lead_to_stays() {
        let dir = scratch("links");
        fs::create_dir_all(dir.join("top/a/b")).expect("mkdir");
        fs::create_dir_all(dir.join("other")).expect("mkdir");
        fs::write(dir.join("other/file"), "x").expect("write");
        for link in ["top/link", "top/a/link", "top/a/b/link"] {
            symlink(dir.join("other"), dir.join(link)).expect("symlink");
        }
        (0..3000).for_each(|n| fs::write(dir.join(format!("top/a/{n}")), "").expect("write"));
        remove(&dir.join("top")).expect("removed");
        assert!(!dir.join("top").exists() && dir.join("other/file").exists());
        assert_eq!(remove(&dir.join("top")).map_err(|e| e.kind()), Err(io::ErrorKind::NotFound));
        symlink(dir.join("other"), dir.join("top")).expect("symlink");
        assert!(remove(&dir.join("top")).is_err(), "a link is no tree");
        assert!(dir.join("other/file").exists());
        fs::remove_dir_all(&dir).expect("ours");
    }
}
