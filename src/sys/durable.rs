//! Onto the disk, whoever wrote it.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;

use super::check;

/// Writes out all of the file system that `path` is on. Blocks until the disk has it, with what others wrote there before.
pub fn sync_filesystem(path: &Path) -> io::Result<()> {
    let file = File::open(path)?;
    // SAFETY: `file` owns the descriptor for the whole call.
    check(unsafe { libc::syncfs(file.as_raw_fd()) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_or_an_error() {
        sync_filesystem(&std::env::temp_dir()).expect("synced");
        assert_eq!(sync_filesystem(Path::new("/nonexistent")).map_err(|e| e.kind()), Err(io::ErrorKind::NotFound));
    }
}
