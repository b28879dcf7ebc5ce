//! The security label of a file.

use std::io;
use std::path::Path;

use super::{c_path, check};

const SELINUX: &std::ffi::CStr = c"security.selinux";

/// The SELinux label of a file, a symbolic link's own; `None` if it has none.
pub fn label(path: &Path) -> io::Result<Option<String>> {
    let path = c_path(path)?;
    // Labels are short; a longer one is none of ours.
    let mut value = [0u8; 1024];
    // SAFETY: path and name are NUL-terminated, pointer and length describe `value`.
    let read = unsafe { libc::lgetxattr(path.as_ptr(), SELINUX.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    match usize::try_from(read) {
        Ok(length) => Ok(Some(String::from_utf8_lossy(&value[..length]).trim_end_matches('\0').to_owned())),
        Err(_) => match io::Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::ENODATA) => Ok(None),
            e => Err(e),
        },
    }
}

/// Gives a file an SELinux label; a symbolic link gets it itself.
pub fn set_label(path: &Path, label: &str) -> io::Result<()> {
    let path = c_path(path)?;
    let value = c_path(Path::new(label))?;
    let bytes = value.as_bytes_with_nul();
    // SAFETY: path and name are NUL-terminated, pointer and length describe `bytes`.
    let done = unsafe { libc::lsetxattr(path.as_ptr(), SELINUX.as_ptr(), bytes.as_ptr().cast(), bytes.len(), 0) };
    check(done).map(drop)
}
