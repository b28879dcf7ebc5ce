//! The log file of one container: opened for appending, written in whole lines, losing lines rather than stopping.

use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::error::{Error, Kind, Result};

/// Opens the log at `path` for appending, and makes it (0640) if there is none; its directory is the kubelet's to make.
///
/// A symbolic link is refused: a pod that may write below the log directory could aim our root's pen at any file.
pub fn open(path: &Path) -> Result<File> {
    let failed = |kind, why: String| Error::new(kind, format!("open container log {}: {why}", path.display()));
    OpenOptions::new()
        .append(true)
        .create(true)
        .mode(0o640)
        // Non-blocking, so that a FIFO somebody put there cannot hold us up; it changes nothing for a file.
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOCTTY)
        .open(path)
        .map_err(|e| match e.raw_os_error() {
            Some(libc::ENOENT) => failed(
                Kind::FailedPrecondition,
                "its directory does not exist; the client makes it before the container".into(),
            ),
            Some(libc::ELOOP) => failed(Kind::InvalidArgument, "it is a symbolic link; remove it".into()),
            _ => failed(Kind::Unknown, e.to_string()),
        })
}

/// An open log and what has become of the writes to it.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    file: File,
    /// Bytes not written since writing began to fail; 0 while it works.
    lost: u64,
}

impl LogFile {
    /// `file` is what [`open`] gave for `path`.
    pub fn new(path: PathBuf, file: File) -> LogFile {
        LogFile { path, file, lost: 0 }
    }

    /// Where the log is, for opening it again.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes to `file` from now on and closes the old one.
    pub fn switch(&mut self, file: File) {
        self.file = file;
    }

    /// Appends whole lines with one write. If that fails (full disk), the lines are lost, no half line stays behind,
    /// and one warning names `key`; the next is due when writing works again.
    pub fn append(&mut self, key: &str, lines: &[u8]) {
        if lines.is_empty() {
            return;
        }
        let path = self.path.display();
        match write_lines(&self.file, lines) {
            Ok(()) if self.lost > 0 => {
                log::warn!("{key}: container log {path} can be written again; {} bytes are lost", self.lost);
                self.lost = 0;
            }
            Ok(()) => {}
            Err((lost, e)) => {
                if self.lost == 0 {
                    log::warn!("{key}: write container log {path}: {e}; its output is dropped until that works again");
                }
                self.lost += lost as u64;
            }
        }
    }
}

/// Writes all lines, or tells how many bytes were lost.
fn write_lines(file: &File, lines: &[u8]) -> Result<(), (usize, io::Error)> {
    let mut written = 0;
    while written < lines.len() {
        match { file }.write(&lines[written..]) {
            Ok(n) if n > 0 => written += n,
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            stopped => {
                let e = stopped.err().unwrap_or_else(|| ErrorKind::WriteZero.into());
                let whole = written - torn(&lines[..written]);
                if let Err(e) = take_back(file, written - whole) {
                    log::warn!("cut a torn line off a container log: {e}");
                }
                return Err((lines.len() - whole, e));
            }
        }
    }
    Ok(())
}

/// How many bytes at the end of `written` are the beginning of a line without its end.
fn torn(written: &[u8]) -> usize {
    written.iter().rev().take_while(|byte| **byte != b'\n').count()
}

/// Shortens the file by its last `bytes`, which only we have written.
fn take_back(file: &File, bytes: usize) -> io::Result<()> {
    if bytes == 0 {
        return Ok(());
    }
    file.set_len(file.metadata()?.len().saturating_sub(bytes as u64))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{symlink, PermissionsExt};

    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("cricket-log-{}-{name}", std::process::id()));
        std::fs::remove_dir_all(&dir).ok();
        std::fs::create_dir(&dir).unwrap();
        dir
    }

    #[test]
    fn appends_to_what_is_there() {
        let dir = scratch("append");
        let path = dir.join("0.log");
        LogFile::new(path.clone(), open(&path).unwrap()).append("k", b"one\n");
        let mut log = LogFile::new(path.clone(), open(&path).unwrap());
        log.append("k", b"two\n");
        log.append("k", b"three\n");
        assert_eq!(std::fs::read(&path).unwrap(), b"one\ntwo\nthree\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o137, 0, "0640 less the umask");
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn what_cannot_be_a_log_is_refused_and_nothing_is_made() {
        let dir = scratch("refuse");
        let kind = |path: &Path| open(path).unwrap_err().kind();
        assert_eq!(kind(&dir.join("missing/0.log")), Kind::FailedPrecondition);
        symlink(dir.join("target"), dir.join("0.log")).unwrap();
        assert_eq!(kind(&dir.join("0.log")), Kind::InvalidArgument);
        assert_eq!(kind(&dir), Kind::Unknown);
        assert_eq!(std::fs::read_dir(&dir).unwrap().count(), 1);
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn a_full_disk_loses_lines_and_is_over_when_it_is_over() {
        let dir = scratch("full");
        let path = dir.join("0.log");
        let mut log = LogFile::new("/dev/full".into(), open(Path::new("/dev/full")).unwrap());
        log.append("k", b"one\n");
        log.append("k", b"two\n");
        assert_eq!(log.lost, 8);
        log.switch(open(&path).unwrap());
        log.append("k", b"three\n");
        assert_eq!((log.lost, std::fs::read(&path).unwrap().as_slice()), (0, b"three\n".as_slice()));
        std::fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn half_a_line_is_taken_back() {
        for (written, expected) in [(&b""[..], 0), (b"a\n", 0), (b"a\nbc", 2), (b"abc", 3)] {
            assert_eq!(torn(written), expected);
        }
        let dir = scratch("torn");
        let path = dir.join("0.log");
        std::fs::write(&path, "whole\nha").unwrap();
        let file = open(&path).unwrap();
        take_back(&file, 2).unwrap();
        write_lines(&file, b"next\n").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"whole\nnext\n");
        std::fs::remove_dir_all(dir).unwrap();
    }
}
