//! The name of the running thread, as `ps -L`, `top -H` and a core file show it.

/// Names the calling thread. The kernel keeps the first 15 bytes.
pub fn set_name(name: &str) {
    let mut text = [0u8; 16];
    for (to, from) in text[..15].iter_mut().zip(name.bytes()) {
        *to = from;
    }
    // SAFETY: PR_SET_NAME reads a NUL-terminated string of at most 16 bytes, and the last byte is still zero. It
    // cannot fail with a valid pointer.
    unsafe { libc::prctl(libc::PR_SET_NAME, text.as_ptr()) };
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_long_name_is_cut() {
        super::set_name("UpdateContainerResources");
        let name = std::fs::read_to_string("/proc/thread-self/comm").expect("proc is mounted");
        assert_eq!(name.trim_end(), "UpdateContainer");
    }
}
