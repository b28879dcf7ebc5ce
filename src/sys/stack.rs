//! The stack's pages below the running function: touched once by something deep, and kept by the kernel ever since.

const PAGE: usize = 4096;
/// As deep as anything of ours goes.
const DEPTH: usize = 120 << 10;

/// Gives the pages that lie deeper than the caller back to the kernel. They are made anew when something goes there.
#[inline(never)]
pub fn release() {
    let here = 0u8;
    // A page in between for this function and the one it calls.
    let end = (&raw const here as usize) / PAGE * PAGE - PAGE;
    // SAFETY: below the frames of the running functions of this, the calling thread nothing lives. What of the range is
    // no stack yet the kernel skips.
    unsafe {
        libc::madvise(std::ptr::with_exposed_provenance_mut(end - DEPTH), DEPTH, libc::MADV_DONTNEED);
    }
}
