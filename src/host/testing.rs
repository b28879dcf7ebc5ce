//! For the tests of this room.

use std::fs;
use std::path::PathBuf;

/// A directory of a test's own, gone when dropped.
pub struct Dir(pub PathBuf);

impl Dir {
    /// An empty one; `name` is the test's.
    pub fn new(name: &str) -> Dir {
        let dir = std::env::temp_dir().join(format!("cricket-host-{name}-{}", std::process::id()));
        fs::create_dir_all(&dir).expect("mkdir");
        Dir(dir)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("our own directory");
    }
}
