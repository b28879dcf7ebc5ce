//! A folder whose archives are imported: at start those that are there, later those that appear. Nothing polls it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use super::{at, import};
use crate::call::Call;
use crate::error::{Context, Result};
use crate::runtime::Runtime;
use crate::sys::epoll::Epoll;
use crate::sys::eventfd::EventFd;
use crate::sys::inotify::Inotify;

/// Ends of names that archives have; others are left alone, so that files can be written under another name first.
const ENDS: [&str; 6] = [".tar", ".tar.gz", ".tgz", ".tar.zst", ".tzst", ".tar.zstd"];
const STOP: u64 = 0;
const CHANGED: u64 = 1;

/// The thread that watches. [`Folder::stop`] ends it.
pub struct Folder {
    call: Call,
    bell: Arc<EventFd>,
    thread: JoinHandle<()>,
}

impl Folder {
    /// Watches the folder of the configuration; nothing if there is no such folder now. Archives that are there are
    /// imported as soon as containerd answers.
    ///
    /// # Errors
    /// When the kernel cannot watch it.
    pub fn start(rt: Arc<Runtime>) -> Result<Option<Folder>> {
        let Some(dir) = rt.config.image.import_dir.clone().filter(|dir| dir.is_dir()) else { return Ok(None) };
        let watch = || -> std::io::Result<(Inotify, Epoll, Arc<EventFd>)> {
            let (watched, epoll, bell) = (Inotify::watch(&dir)?, Epoll::new()?, Arc::new(EventFd::new()?));
            epoll.add(&watched, CHANGED)?;
            epoll.add(&*bell, STOP)?;
            Ok((watched, epoll, bell))
        };
        let (watched, epoll, bell) = watch().with_context(|| format!("watch {}", dir.display()))?;
        let call = Call::unbounded();
        let own = Watcher { rt, dir, watched, epoll, call: call.clone() };
        let thread = std::thread::Builder::new().name("import".into()).spawn(move || own.run());
        Ok(Some(Folder { call, bell, thread: thread.context("start the import thread")? }))
    }

    /// Ends the thread and waits for it. An import in progress is broken off and leaves nothing.
    pub fn stop(self) {
        self.call.cancel();
        self.bell.signal();
        if self.thread.join().is_err() {
            log::error!("the import thread had panicked");
        }
    }
}

struct Watcher {
    rt: Arc<Runtime>,
    dir: PathBuf,
    watched: Inotify,
    epoll: Epoll,
    call: Call,
}

impl Watcher {
    fn run(&self) {
        if self.rt.await_ready(&self.call).is_err() {
            return;
        }
        self.all();
        let mut ready = Vec::new();
        while self.call.check().is_ok() {
            let looked = self.epoll.wait(&mut ready).and_then(|()| self.watched.changes());
            match looked {
                Ok(changes) if changes.lost => self.all(),
                Ok(changes) => changes.names.iter().for_each(|name| self.one(&self.dir.join(name))),
                Err(e) => return log::error!("{} is not watched any more: {e}", self.dir.display()),
            }
        }
    }

    fn all(&self) {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) => return log::warn!("read {}: {e}", self.dir.display()),
        };
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        files.iter().for_each(|file| self.one(file));
    }

    /// One archive that is broken does not stop the others.
    fn one(&self, file: &Path) {
        if self.call.check().is_err() || !is_archive(file) {
            return;
        }
        match import::import(&at(&self.rt), &self.call, file, &self.rt.config.root, None) {
            Ok(images) => {
                for image in images {
                    log::info!("imported {} {} from {}", image.id, image.references.join(" "), file.display());
                }
            }
            Err(e) => log::warn!("import {}: {e}", file.display()),
        }
    }
}

fn is_archive(file: &Path) -> bool {
    let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    !name.starts_with('.') && ENDS.iter().any(|end| name.ends_with(end)) && file.is_file()
}
