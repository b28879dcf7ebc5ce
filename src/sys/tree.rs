//! The end of a directory that somebody else has filled, however deep it is.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// How deep we go into a tree at once: each level holds two descriptors.
const MAX_DEPTH: usize = 32;
/// How often we begin anew, at most: what is still there then is being filled by somebody.
const MAX_PASSES: usize = 100_000;

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
pub(super) fn place(dir: &File) -> PathBuf {
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
