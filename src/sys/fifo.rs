//! Named pipes: making them, opening the reading end without waiting for a writer, and their size.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use crate::error::{Context, Error, Kind, Result};

/// Makes a FIFO that only its owner may open (0700). `AlreadyExists` when something is at `path`.
pub fn make(path: &Path) -> Result<()> {
    let name = CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::invalid(format!("make fifo {}: the path contains a NUL", path.display())))?;
    // SAFETY: `name` is a NUL-terminated string that outlives the call.
    if unsafe { libc::mkfifo(name.as_ptr(), 0o700) } == 0 {
        return Ok(());
    }
    let failure = std::io::Error::last_os_error();
    let kind = match failure.kind() {
        std::io::ErrorKind::AlreadyExists => Kind::AlreadyExists,
        _ => Kind::Unknown,
    };
    Err(Error::caused(kind, format!("make fifo {}", path.display()), failure))
}

/// Opens the reading end; never blocks, and reads never block either. What is not a FIFO is `InvalidArgument`.
///
/// The kernel tells two kinds of "no writer" apart, though `read` returns 0 for both: poll and epoll report nothing
/// until the first writer has opened, and a hang-up once the last one has closed. A writer that came and went
/// before this call leaves no trace.
pub fn open_reader(path: &Path) -> Result<File> {
    let doing = || format!("open fifo {}", path.display());
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_NOFOLLOW)
        .open(path)
        .with_context(doing)?;
    if !file.metadata().with_context(doing)?.file_type().is_fifo() {
        return Err(Error::invalid("it is not a fifo").context(doing()));
    }
    Ok(file)
}

/// Opens the writing end; never blocks, and writes never block either. `None` when nobody reads.
pub fn open_writer(path: &Path) -> Result<Option<File>> {
    let doing = || format!("open fifo {}", path.display());
    let flags = libc::O_NONBLOCK | libc::O_NOFOLLOW;
    match OpenOptions::new().write(true).custom_flags(flags).open(path) {
        Ok(file) if file.metadata().with_context(doing)?.file_type().is_fifo() => Ok(Some(file)),
        Ok(_) => Err(Error::invalid("it is not a fifo").context(doing())),
        Err(e) if e.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        Err(e) => Err(e).with_context(doing),
    }
}

/// As [`open_writer`], but blocks until somebody reads, at most for `patience`: a shim may answer before it has opened
/// the reading end.
pub fn await_reader(path: &Path, patience: Duration) -> Result<Option<File>> {
    if let Some(file) = open_writer(path)? {
        return Ok(Some(file));
    }
    let doing = || format!("wait for a reader of fifo {}", path.display());
    let (own, (tell, told)) = (path.to_path_buf(), mpsc::channel());
    let open = move || OpenOptions::new().write(true).custom_flags(libc::O_NOFOLLOW).open(own);
    // Nobody listens any more if we gave up.
    let wait = move || tell.send(open()).unwrap_or(());
    std::thread::Builder::new().name("fifo".into()).spawn(wait).with_context(doing)?;
    match told.recv_timeout(patience) {
        Ok(opened) => {
            // While it is open, the reader is there for a second one, which does not block.
            let _held = opened.with_context(doing)?;
            open_writer(path)
        }
        // A reader of our own lets the thread end.
        Err(_) => open_reader(path).map(|_| None),
    }
}

/// Sets how many bytes the pipe holds before its writers block; the kernel rounds up to a power of two pages. Memory
/// is taken only while bytes wait in it.
pub fn resize(fifo: &File, bytes: i32) -> std::io::Result<()> {
    // SAFETY: takes no pointers, and `fifo` is open for the length of the call.
    if unsafe { libc::fcntl(fifo.as_raw_fd(), libc::F_SETPIPE_SZ, bytes) } < 0 {
        return Err(std::io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::sys::epoll::Epoll;
    use crate::sys::eventfd::EventFd;

    fn scratch(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("cricket-fifo-{}-{name}", std::process::id()));
        std::fs::remove_file(&path).ok();
        path
    }

    #[test]
    fn a_fifo_is_private_and_made_once() {
        let path = scratch("made");
        make(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o7077, 0);
        assert_eq!(make(&path).unwrap_err().kind(), Kind::AlreadyExists);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(make(Path::new("/nul\0")).unwrap_err().kind(), Kind::InvalidArgument);
        assert_eq!(make(Path::new("/proc/no/such/dir")).unwrap_err().kind(), Kind::Unknown);
    }

    #[test]
    fn only_fifos_are_opened() {
        assert_eq!(open_reader(Path::new("/proc/self/stat")).unwrap_err().kind(), Kind::InvalidArgument);
        assert_eq!(open_reader(&scratch("missing")).unwrap_err().kind(), Kind::Unknown);
    }

    /// What the relay of container output stands on: see [`open_reader`].
    #[test]
    fn epoll_hangs_up_only_after_a_writer_was_there() {
        let path = scratch("hangup");
        make(&path).unwrap();
        let mut reader = open_reader(&path).unwrap();
        let (epoll, probe) = (Epoll::new().unwrap(), EventFd::new().unwrap());
        epoll.add(&reader, 1).unwrap();
        epoll.add(&probe, 2).unwrap();
        probe.signal();
        let mut ready = Vec::new();
        let mut wait = || {
            epoll.wait(&mut ready).unwrap();
            ready.sort_unstable();
            ready.clone()
        };
        assert_eq!(reader.read(&mut [0; 1]).unwrap(), 0, "no writer yet reads like an end");
        assert_eq!(wait(), [2], "but is not reported");
        let mut writer = OpenOptions::new().write(true).open(&path).unwrap();
        assert_eq!(reader.read(&mut [0; 1]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        assert_eq!(wait(), [2]);
        writer.write_all(b"x").unwrap();
        assert_eq!(wait(), [1, 2]);
        assert_eq!(reader.read(&mut [0; 9]).unwrap(), 1);
        assert_eq!(wait(), [2]);
        drop(writer);
        assert_eq!(wait(), [1, 2]);
        assert_eq!(wait(), [1, 2], "level-triggered: reported until removed");
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_writer_needs_a_reader() {
        let path = scratch("writer");
        make(&path).unwrap();
        assert!(open_writer(&path).unwrap().is_none());
        let _reader = open_reader(&path).unwrap();
        let mut writer = open_writer(&path).unwrap().expect("somebody reads");
        assert_eq!(writer.write(&vec![0; 1 << 20]).unwrap(), 64 << 10, "it does not block");
        std::fs::remove_file(&path).unwrap();
        assert_eq!(open_writer(Path::new("/dev/null")).unwrap_err().kind(), Kind::InvalidArgument);
    }

    #[test]
    fn a_reader_that_comes_later_is_waited_for() {
        let path = scratch("later");
        make(&path).unwrap();
        assert!(await_reader(&path, Duration::ZERO).unwrap().is_none());
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| await_reader(&path, Duration::from_secs(60)).unwrap().expect("a reader"));
            let mut reader = std::fs::File::open(&path).unwrap();
            writer.join().unwrap().write_all(b"x").unwrap();
            assert_eq!(reader.read(&mut [0; 9]).unwrap(), 1);
        });
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_larger_pipe_takes_more_before_it_blocks() {
        let path = scratch("resized");
        make(&path).unwrap();
        let reader = open_reader(&path).unwrap();
        resize(&reader, 256 << 10).unwrap();
        let mut writer = OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&path).unwrap();
        assert_eq!(writer.write(&vec![0; 1 << 20]).unwrap(), 256 << 10);
        std::fs::remove_file(&path).unwrap();
    }
}
