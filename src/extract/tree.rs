//! Entries of a layer onto a directory, in the way of containerd's own differ for overlay snapshots.
//!
//! The directory is the root of who works here (see [`confine`](crate::sys::confine)): whatever a name or a link says, it
//! leads to nothing else. What a layer seldom has, and two programs might understand in two ways, is refused: containerd
//! unpacks it then.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, BufRead};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{lchown, symlink, DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::header::Moment;
use super::node::{describe, set_times, special};
use super::stream::{Entry, Make, Stream};
use crate::error::{Context, Error, Result};

/// What begins so says that something of a lower layer is gone.
const WHITEOUT: &[u8] = b".wh.";
/// Behind [`WHITEOUT`]: all of a directory is.
const OPAQUE: &[u8] = b".wh..opq";
/// The permissions of a directory that the layer has files in and does not speak of.
const IMPLIED_MODE: u32 = 0o755;
/// No more of these are told to the daemon, which looks for each in the layers below.
const MAX_TOLD: usize = 10_000;
/// Longer names are too long for one of two programs, which put another directory before them.
const MAX_PATH_BYTES: usize = 3500;

/// What will be below the directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Onto {
    /// Nothing: what the layer takes away was never there.
    Nothing,
    /// Other layers of an overlay.
    Layers,
}

/// What is left to do for who sees the layers below.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Directories that are there only for what is in them, parents first.
    pub implied: Vec<PathBuf>,
    /// Directories that hide what is below them.
    pub opaque: Vec<PathBuf>,
    /// Directories that lower layers must have: else what is taken away in them would be seen there.
    pub hiding: Vec<PathBuf>,
}

/// The directory, as far as it has been filled.
pub struct Tree {
    onto: Onto,
    /// Directories that are there only for what is in them, on other layers.
    implied: Vec<PathBuf>,
    /// And the inodes of all such.
    inodes: HashSet<u64>,
    /// Directories that hide what lower layers have in them.
    opaque: Vec<PathBuf>,
    /// Directories in which something is taken away that lower layers may have.
    hiding: Vec<PathBuf>,
    /// Their times are set last: what is made in them changes those.
    directories: Vec<(PathBuf, Moment, Moment)>,
    /// Directories that were seen to be there, until something is taken away.
    known: HashSet<PathBuf>,
    /// An earlier layer has been here.
    is_later: bool,
    /// A directory was given attributes.
    is_attributed: bool,
}

impl Tree {
    /// Nothing is in it yet. It is the root directory of the calling thread, and the umask is 0.
    pub fn new(onto: Onto) -> Self {
        Tree {
            onto,
            implied: Vec::new(),
            inodes: HashSet::new(),
            opaque: Vec::new(),
            hiding: Vec::new(),
            directories: Vec::new(),
            known: HashSet::new(),
            is_later: false,
            is_attributed: false,
        }
    }

    /// What follows is of another layer, on top of those that are here.
    ///
    /// # Errors
    /// `InvalidArgument` if the two cannot share a directory.
    pub fn next_layer(&mut self) -> Result<()> {
        self.set_directory_times()?;
        // The later layer's directory would keep those, and what is made in it might inherit from them.
        refuse_if(self.is_attributed, "a layer on one whose directories have attributes")?;
        self.is_later = true;
        Ok(())
    }

    /// Makes what an entry says. Its bytes are next in `body`.
    ///
    /// # Errors
    /// `InvalidArgument` for what is left to containerd; what the kernel says.
    pub fn add<R: BufRead>(&mut self, entry: &Entry, body: &mut Stream<R>) -> Result<()> {
        self.make(entry, body).with_context(|| format!("entry {:?}", String::from_utf8_lossy(&entry.path)))
    }

    /// Sets what had to wait. Says what only the daemon can do, who sees the layers below.
    pub fn finish(mut self) -> Result<Left> {
        self.set_directory_times()?;
        // Of one layer all that is in it is as it is with containerd.
        let hiding = if self.is_later { self.hiding } else { Vec::new() };
        let hidden = |directory: &PathBuf| self.opaque.iter().any(|opaque| directory.starts_with(opaque));
        refuse_if(hiding.iter().any(hidden), "something is taken away where nothing of lower layers is seen")?;
        refuse_if(hiding.len() == MAX_TOLD, "too much is taken away")?;
        Ok(Left { implied: self.implied, opaque: self.opaque, hiding })
    }

    fn set_directory_times(&mut self) -> Result<()> {
        self.known.clear();
        for (path, read, changed) in &std::mem::take(&mut self.directories) {
            self.enter(path.parent().unwrap_or(Path::new("")), false)?;
            let still = path.symlink_metadata().with_context(|| format!("look at {}", path.display()))?;
            if still.is_symlink() {
                return Err(Error::invalid(format!("{} was a directory, and is a link", path.display())));
            }
            set_times(path, *read, *changed).with_context(|| format!("set the times of {}", path.display()))?;
        }
        Ok(())
    }

    fn make<R: BufRead>(&mut self, entry: &Entry, body: &mut Stream<R>) -> Result<()> {
        let path = relative(&entry.path)?;
        // The directory itself belongs to the snapshot.
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(()) };
        self.enter(parent, true)?;
        if let Some(hidden) = name.as_bytes().strip_prefix(WHITEOUT) {
            return self.hide(parent, hidden, entry);
        }
        let there = match path.symlink_metadata() {
            Ok(found) if found.is_dir() && entry.make == Make::Directory => {
                self.refuse_implied(found.ino())?;
                true
            }
            Ok(found) => {
                // It would show what the file in its place has hidden.
                let shows = self.is_later && entry.make == Make::Directory;
                refuse_if(shows, "a directory in the place of a file of an earlier layer")?;
                if found.is_dir() {
                    self.forget()?;
                    fs::remove_dir_all(&path).context("replace it")?;
                } else {
                    fs::remove_file(&path).context("replace it")?;
                }
                false
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => false,
            Err(e) => return Err(e).context("look at it"),
        };
        match entry.make {
            Make::Directory if there => {}
            Make::Directory => DirBuilder::new().mode(0o700).create(&path).context("make it")?,
            Make::File => {
                let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path);
                body.copy(&mut file.context("make it")?)?;
            }
            Make::HardLink => self.link(&entry.link, &path)?,
            Make::Symlink => symlink(OsStr::from_bytes(&entry.link), &path).context("make it")?,
            Make::Fifo => special(&path, libc::S_IFIFO, (0, 0))?,
            Make::CharDevice(major, minor) => special(&path, libc::S_IFCHR, (major, minor))?,
            Make::BlockDevice(major, minor) => special(&path, libc::S_IFBLK, (major, minor))?,
        }
        describe(&path, entry)?;
        if entry.make == Make::Directory {
            self.is_attributed |= !entry.xattrs.is_empty();
            self.directories.push((path, entry.read, entry.changed));
        }
        Ok(())
    }

    fn link(&mut self, name: &[u8], path: &Path) -> Result<()> {
        // What it leads to may be of an earlier layer, and then containerd does not take it.
        refuse_if(self.is_later, "a link in a layer on others")?;
        let to = relative(name)?;
        // With these, what a link leads to may be meant.
        if name.ends_with(b"/") || name.ends_with(b"/.") || to.as_os_str().is_empty() {
            return Err(Error::invalid("a link to what may be another link's target"));
        }
        self.enter(to.parent().unwrap_or(Path::new("")), false)?;
        fs::hard_link(to, path).context("link it")
    }

    /// Makes sure that `path` leads to a directory, and through directories alone. Those that are missing are made, if the
    /// layer may imply them.
    fn enter(&mut self, path: &Path, imply: bool) -> Result<()> {
        let mut unknown: Vec<&Path> = Vec::new();
        for directory in path.ancestors().filter(|directory| !directory.as_os_str().is_empty()) {
            if self.known.contains(directory) {
                break;
            }
            unknown.push(directory);
        }
        for directory in unknown.into_iter().rev() {
            match directory.symlink_metadata() {
                Ok(found) if found.is_dir() => {}
                Ok(_) => return Err(Error::invalid("it is reached through what is no directory")),
                Err(e) if e.kind() == io::ErrorKind::NotFound && imply => self.imply(directory)?,
                Err(e) => return Err(e).context("look at its directory"),
            }
            self.known.insert(directory.to_owned());
        }
        Ok(())
    }

    /// Makes a directory that the layer does not speak of.
    fn imply(&mut self, directory: &Path) -> Result<()> {
        DirBuilder::new().mode(0o700).create(directory).context("make its directory")?;
        // Whatever bits it has from the one that it is in.
        let mode = Permissions::from_mode(IMPLIED_MODE);
        fs::set_permissions(directory, mode).context("set the permissions of its directory")?;
        self.inodes.insert(directory.symlink_metadata().context("look at its directory")?.ino());
        match self.onto {
            Onto::Layers => tell(&mut self.implied, directory),
            Onto::Nothing => Ok(()),
        }
    }

    /// For when the layer speaks of a directory: of one that it has implied before, on other layers,
    /// containerd would have made what those say of it.
    fn refuse_implied(&self, inode: u64) -> Result<()> {
        match self.onto == Onto::Layers && self.inodes.contains(&inode) {
            true => Err(Error::invalid("a directory is spoken of after what is in it")),
            false => Ok(()),
        }
    }

    /// That directories go. What was noted of others by their names and numbers might be of something else from then on.
    fn forget(&mut self) -> Result<()> {
        self.known.clear();
        match self.onto == Onto::Layers && !(self.implied.is_empty() && self.opaque.is_empty()) {
            true => Err(Error::invalid("a directory is replaced")),
            false => Ok(()),
        }
    }

    /// Takes away what lower layers have.
    fn hide(&mut self, directory: &Path, hidden: &[u8], entry: &Entry) -> Result<()> {
        match (hidden, self.onto) {
            (OPAQUE, _) if self.is_later => {
                Err(Error::invalid("a directory that hides what earlier layers have in it"))
            }
            (OPAQUE, Onto::Layers) if directory.as_os_str().is_empty() => {
                Err(Error::invalid("a layer that hides all others"))
            }
            (OPAQUE, Onto::Layers) => {
                self.refuse_implied(directory.symlink_metadata().context("look at its directory")?.ino())?;
                tell(&mut self.opaque, directory)
            }
            // There is nothing yet but what it has itself.
            (OPAQUE, Onto::Nothing) if self.inodes.is_empty() => Ok(()),
            (b"" | b"." | b"..", _) => Err(Error::invalid("a whiteout of nothing")),
            (hidden, _) if hidden.starts_with(WHITEOUT) => Err(Error::invalid("a whiteout that is none")),
            (_, Onto::Nothing) if self.is_later => Err(Error::invalid("a whiteout of what no earlier layer has")),
            (hidden, onto) => {
                let path = directory.join(OsStr::from_bytes(hidden));
                match path.symlink_metadata() {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                    Err(e) => return Err(e).context("look at what is gone"),
                    Ok(_) => return Err(Error::invalid("a whiteout of what the same layer has")),
                }
                if onto == Onto::Layers {
                    // The uppermost directory all layers have.
                    let known =
                        directory.as_os_str().is_empty() || self.hiding.last().is_some_and(|last| last == directory);
                    if !known && self.hiding.len() < MAX_TOLD {
                        self.hiding.push(directory.to_owned());
                    }
                    special(&path, libc::S_IFCHR, (0, 0))?;
                    lchown(&path, Some(entry.uid), Some(entry.gid)).context("give it its owner")?;
                }
                Ok(())
            }
        }
    }
}

/// Leaves it to containerd.
fn refuse_if(odd: bool, what: &str) -> Result<()> {
    if odd {
        return Err(Error::invalid(what));
    }
    Ok(())
}

/// Notes a directory for the daemon.
fn tell(told: &mut Vec<PathBuf>, directory: &Path) -> Result<()> {
    if told.len() >= MAX_TOLD {
        return Err(Error::invalid(format!("more than {MAX_TOLD} directories that are in lower layers")));
    }
    told.push(directory.to_owned());
    Ok(())
}

/// A name without what leads nowhere, relative to the directory. What leads upwards is refused.
fn relative(name: &[u8]) -> Result<PathBuf> {
    if name.len() > MAX_PATH_BYTES {
        return Err(Error::invalid(format!("a name of {} bytes", name.len())));
    }
    let mut path = PathBuf::new();
    for part in name.split(|&b| b == b'/') {
        match part {
            b"" | b"." => {}
            b".." => return Err(Error::invalid("a name that leads upwards")),
            part => path.push(OsStr::from_bytes(part)),
        }
    }
    Ok(path)
}
