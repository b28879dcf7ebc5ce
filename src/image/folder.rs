//! A folder whose archives are imported: at start those that are there, later those that appear. Nothing polls it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;

use super::at;
use super::import::{import, Imported};
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
        let call = Call::unbounded();
        let watcher = Watcher::new(dir, &call)?;
        let bell = watcher.bell.clone();
        let own = call.clone();
        let run = move || {
            if rt.await_ready(&own).is_ok() {
                watcher.run(&|file| import(&at(&rt), &own, file, &rt.config.root, None));
            }
        };
        let thread = std::thread::Builder::new().name("import".into()).spawn(run);
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

/// Imports an archive.
type Import<'a> = dyn Fn(&Path) -> Result<Vec<Imported>> + 'a;

struct Watcher {
    dir: PathBuf,
    watched: Inotify,
    epoll: Epoll,
    /// Wakes it, so that it sees that its call is over.
    bell: Arc<EventFd>,
    call: Call,
}

impl Watcher {
    /// Remembers from now on what happens in `dir`.
    fn new(dir: PathBuf, call: &Call) -> Result<Watcher> {
        let watch = || -> std::io::Result<(Inotify, Epoll, EventFd)> {
            let (watched, epoll, bell) = (Inotify::watch(&dir)?, Epoll::new()?, EventFd::new()?);
            epoll.add(&watched, CHANGED)?;
            epoll.add(&bell, STOP)?;
            Ok((watched, epoll, bell))
        };
        let (watched, epoll, bell) = watch().with_context(|| format!("watch {}", dir.display()))?;
        Ok(Watcher { dir, watched, epoll, bell: Arc::new(bell), call: call.clone() })
    }

    /// Each archive that is there, then each that appears, until the call is over.
    fn run(&self, import: &Import<'_>) {
        // What has happened so far is found there; it need not be imported twice. If it cannot be read now, it is below.
        self.watched.changes().ok();
        self.all(import);
        let mut ready = Vec::new();
        while self.call.check().is_ok() {
            let looked = self.epoll.wait(&mut ready).and_then(|()| self.watched.changes());
            match looked {
                Ok(changes) if changes.lost => self.all(import),
                Ok(changes) => changes.names.iter().for_each(|name| self.one(&self.dir.join(name), import)),
                Err(e) => return log::error!("{} is not watched any more: {e}", self.dir.display()),
            }
        }
    }

    fn all(&self, import: &Import<'_>) {
        let entries = match fs::read_dir(&self.dir) {
            Ok(entries) => entries,
            Err(e) => return log::warn!("read {}: {e}", self.dir.display()),
        };
        let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
        files.sort();
        files.iter().for_each(|file| self.one(file, import));
    }

    /// One archive that is broken does not stop the others. It is tried again when it is written again, not before.
    fn one(&self, file: &Path, import: &Import<'_>) {
        if self.call.check().is_err() || !is_archive(file) {
            return;
        }
        match import(file) {
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::time::{Duration, Instant};

    use log::{LevelFilter, Log, Metadata, Record};

    use super::super::testing::*;
    use super::*;
    use crate::sync::Mutex;

    /// Keeps what is worth a warning; each test looks for the names of its own files.
    struct Warnings(Mutex<Vec<String>>);

    static WARNINGS: Warnings = Warnings(Mutex::new(Vec::new()));

    impl Log for Warnings {
        fn enabled(&self, _: &Metadata<'_>) -> bool {
            true
        }

        fn log(&self, record: &Record<'_>) {
            self.0.lock().push(record.args().to_string());
        }

        fn flush(&self) {}
    }

    /// A node with a folder that is watched.
    struct World {
        node: Node,
        dir: TempDir,
        /// What was tried, in this order.
        tried: Mutex<Vec<String>>,
        call: Call,
    }

    impl World {
        fn new() -> World {
            // Another test may have been first.
            log::set_logger(&WARNINGS).ok();
            log::set_max_level(LevelFilter::Warn);
            World { node: Node::new(), dir: TempDir::new(), tried: Mutex::default(), call: Call::unbounded() }
        }

        /// Watches while `act` acts, from the moment that what is there is known: `0.tar` comes before all others.
        fn watch(&self, act: impl FnOnce()) {
            self.dir.file("0.tar", &archive("zero"));
            let watcher = Watcher::new(self.dir.0.clone(), &self.call).unwrap();
            std::thread::scope(|scope| {
                let watching = scope.spawn(|| {
                    watcher.run(&|file| {
                        self.tried.lock().push(file.file_name().unwrap().to_str().unwrap().to_owned());
                        import(&self.node.images(), &self.call, file, &self.node.dir.0, None)
                    });
                });
                let end = End(&self.call, &watcher.bell);
                self.until_there("zero");
                act();
                drop(end);
                watching.join().unwrap();
            });
        }

        fn until_there(&self, name: &str) {
            let begun = Instant::now();
            while self.node.store.get(name).is_err() {
                assert!(begun.elapsed() < Duration::from_secs(60), "{name}: {:?}", self.tried.lock());
                std::thread::sleep(Duration::from_millis(1));
            }
        }

        /// Puts an archive into the folder as one that is whole, and waits until it is imported: by then everything that
        /// happened before has been seen.
        fn add(&self, name: &str) {
            let whole = self.node.dir.file(&format!("{name}.tar"), &archive(name));
            fs::rename(whole, self.dir.0.join(format!("{name}.tar"))).unwrap();
            self.until_there(name);
        }

        fn warnings(&self) -> Vec<String> {
            let here = self.dir.0.to_str().unwrap();
            WARNINGS.0.lock().iter().filter(|line| line.contains(here)).cloned().collect()
        }
    }

    /// Ends a watcher, also when the test fails: its thread is waited for.
    struct End<'a>(&'a Call, &'a EventFd);

    impl Drop for End<'_> {
        fn drop(&mut self) {
            self.0.cancel();
            self.1.signal();
        }
    }

    fn archive(name: &str) -> Vec<u8> {
        tar(&layout(&[(&Sample { env: "A=x", ..Sample::new() }, name)]))
    }

    #[test]
    fn what_is_there_and_what_appears_is_imported() {
        let world = World::new();
        world.dir.file("there.tar", &archive("there"));
        world.dir.file("zipped.tar.gz", &gzip(&archive("zipped")));
        for other in [".hidden.tar", "note.txt", "part.tar.tmp"] {
            world.dir.file(other, &archive("other"));
        }
        fs::create_dir(world.dir.0.join("folder.tar")).unwrap();
        world.watch(|| {
            world.until_there("zipped");
            world.add("moved");
            world.dir.file("written.tar", &archive("written"));
            world.until_there("written");
        });
        assert_eq!(*world.tried.lock(), ["0.tar", "there.tar", "zipped.tar.gz", "moved.tar", "written.tar"]);
        assert!(world.node.store.get("there").is_ok() && world.node.store.get("other").is_err());
        assert_eq!(world.warnings(), [""; 0]);
    }

    #[test]
    fn what_is_half_written_is_left_alone_until_it_is_whole() {
        let world = World::new();
        let bytes = archive("slow");
        world.watch(|| {
            world.add("first");
            let mut file = File::create(world.dir.0.join("slow.tar")).unwrap();
            file.write_all(&bytes[..bytes.len() / 2]).unwrap();
            file.sync_all().unwrap();
            world.add("second");
            file.write_all(&bytes[bytes.len() / 2..]).unwrap();
            world.add("third");
            assert_eq!(*world.tried.lock(), ["0.tar", "first.tar", "second.tar", "third.tar"]);
            drop(file);
            world.until_there("slow");
        });
        assert_eq!(world.warnings(), [""; 0]);
    }

    #[test]
    fn what_is_damaged_is_named_in_the_log_and_not_tried_again_until_it_is_written_again() {
        let world = World::new();
        world.dir.file("a.tar", &archive("mended")[..3000]);
        world.watch(|| {
            world.add("b");
            world.dir.file("c.tar", b"no archive at all");
            world.add("d");
            world.add("e");
            assert_eq!(*world.tried.lock(), ["0.tar", "a.tar", "b.tar", "c.tar", "d.tar", "e.tar"]);
            let warnings = world.warnings();
            let of = |name: &str| warnings.iter().filter(|line| line.contains(&format!("/{name}: "))).count();
            assert_eq!((of("a.tar"), of("c.tar"), warnings.len()), (1, 1, 2), "{warnings:#?}");
            world.dir.file("a.tar", &archive("mended"));
            world.until_there("mended");
        });
        assert_eq!(world.warnings().len(), 2);
    }
}
