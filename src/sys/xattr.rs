//! Extended attributes of a file, a symbolic link's own; among them its security label.

use std::ffi::{CStr, CString};
use std::io;
use std::path::Path;

use super::{c_path, check};

/// The name of the label that SELinux reads.
pub const SELINUX: &CStr = c"security.selinux";
/// The kernel lets no value, and no list of names, be longer.
const MAX_BYTES: usize = 64 << 10;

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

/// The names of its attributes; none where the file system has no attributes.
pub fn names(path: &Path) -> io::Result<Vec<CString>> {
    let path = c_path(path)?;
    // SAFETY: a NUL-terminated path; without a buffer the call only says how long the list is.
    let length = unsafe { libc::llistxattr(path.as_ptr(), std::ptr::null_mut(), 0) };
    let list = match usize::try_from(length) {
        Ok(0) => return Ok(Vec::new()),
        Ok(_) => filled(|into: &mut [u8]| {
            // SAFETY: the path is NUL-terminated, pointer and length describe `into`.
            unsafe { libc::llistxattr(path.as_ptr(), into.as_mut_ptr().cast(), into.len()) }
        })?,
        Err(_) => match io::Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::ENOTSUP) => return Ok(Vec::new()),
            e => return Err(e),
        },
    };
    let names = list.split(|byte| *byte == 0).filter(|name| !name.is_empty());
    names.map(|name| CString::new(name).map_err(io::Error::other)).collect()
}

/// The value of an attribute.
pub fn value(path: &Path, name: &CStr) -> io::Result<Vec<u8>> {
    let path = c_path(path)?;
    filled(|into: &mut [u8]| {
        // SAFETY: path and name are NUL-terminated, pointer and length describe `into`.
        unsafe { libc::lgetxattr(path.as_ptr(), name.as_ptr(), into.as_mut_ptr().cast(), into.len()) }
    })
}

/// Sets an attribute.
pub fn set(path: &Path, name: &CStr, value: &[u8]) -> io::Result<()> {
    let path = c_path(path)?;
    // SAFETY: path and name are NUL-terminated, pointer and length describe `value`.
    let done = unsafe { libc::lsetxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), 0) };
    check(done).map(drop)
}

/// What a call of the kernel puts into a buffer that is large enough for all that it has.
fn filled(call: impl Fn(&mut [u8]) -> libc::ssize_t) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; MAX_BYTES];
    let length = usize::try_from(call(&mut bytes)).map_err(|_| io::Error::last_os_error())?;
    bytes.truncate(length);
    Ok(bytes)
}
