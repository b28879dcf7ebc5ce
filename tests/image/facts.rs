//! What there is to know of all files below a directory.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use cricket::sys::xattr;

/// What there is to know of a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Facts {
    pub kind: char,
    mode: u32,
    owner: (u32, u32),
    device: u64,
    names: u64,
    content: Vec<u8>,
    attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    times: [(i64, i64); 2],
}

/// All below a directory. Its own times, and those of the directories in `undated`, are those of whoever unpacked it.
pub fn facts(top: &Path, undated: &[&str]) -> BTreeMap<PathBuf, Facts> {
    // All times first: the content of a file may be read under another name.
    let mut found = Vec::new();
    let mut left = vec![top.to_owned()];
    while let Some(path) = left.pop() {
        let facts = path.symlink_metadata().expect("it was listed");
        if facts.is_dir() {
            left.extend(fs::read_dir(&path).expect("a directory").map(|entry| entry.expect("readable").path()));
        }
        found.push((path, facts));
    }
    let mut all = BTreeMap::new();
    for (path, found) in found {
        let kind = found.file_type();
        let below = path.strip_prefix(top).expect("below it").to_owned();
        // Nor do whiteouts have times of the layer.
        let is_whiteout = kind.is_char_device() && found.rdev() == 0;
        let dated = path != top && !is_whiteout && !undated.iter().any(|undated| below == Path::new(undated));
        let times = [(found.atime(), found.atime_nsec()), (found.mtime(), found.mtime_nsec())];
        let names = xattr::names(&path).expect("attributes");
        let attribute = |name: std::ffi::CString| {
            let value = xattr::value(&path, &name).expect("its value");
            (name.into_bytes(), value)
        };
        let facts = Facts {
            mode: found.permissions().mode(),
            owner: (found.uid(), found.gid()),
            device: found.rdev(),
            names: if kind.is_dir() { 0 } else { found.nlink() },
            attributes: names.into_iter().map(attribute).collect(),
            times: match dated {
                // Who followed a link, or counted what is in a directory, has read it.
                true if kind.is_symlink() || kind.is_dir() => [(0, 0), times[1]],
                true => times,
                false => Default::default(),
            },
            content: match kind {
                kind if kind.is_file() => fs::read(&path).expect("readable"),
                kind if kind.is_symlink() => fs::read_link(&path).expect("a link").as_os_str().as_bytes().to_vec(),
                _ => Vec::new(),
            },
            kind: match kind {
                kind if kind.is_dir() => 'd',
                kind if kind.is_symlink() => 'l',
                kind if kind.is_fifo() => 'p',
                kind if kind.is_char_device() => 'c',
                kind if kind.is_block_device() => 'b',
                _ => 'f',
            },
        };
        all.insert(below, facts);
    }
    all
}
