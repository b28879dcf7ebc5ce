//! `malloc` of the whole process, ours and that of the C core.
//!
//! The C library that zig links has one with a list of free blocks for each processor. Whoever finds the other lists locked
//! takes new pages, although there is enough in them, and with threads that come and go that never ends: a kilobyte a
//! call. Its symbols are weak; these take their place. dlmalloc has one heap, whose neighbours that are free become one, and
//! gives back what is free at its end.

use std::ffi::{c_int, c_void};
use std::ptr::null_mut;

use dlmalloc::Dlmalloc;

use crate::sync::Mutex;

/// What every block is aligned to.
const ALIGNED: usize = 2 * size_of::<usize>();
/// One for all threads: no call here takes long.
static HEAP: Mutex<Dlmalloc> = Mutex::new(Dlmalloc::new());

/// What may stay free at the end of the heap.
const KEPT_BYTES: usize = 128 << 10;

/// Gives back what is free at the end of the heap, after a burst. Does not block.
pub fn give_back() {
    // SAFETY: we hold the heap.
    unsafe { HEAP.lock().trim(KEPT_BYTES) };
}

/// What C's functions set when there is no memory.
fn or_nomem(block: *mut u8) -> *mut c_void {
    if block.is_null() {
        // SAFETY: it is this thread's own.
        unsafe { *libc::__errno_location() = libc::ENOMEM };
    }
    block.cast()
}

/// `malloc` of C.
#[no_mangle]
pub extern "C" fn malloc(size: usize) -> *mut c_void {
    // SAFETY: we hold the heap.
    or_nomem(unsafe { HEAP.lock().c_malloc(size) })
}

/// `calloc` of C.
#[no_mangle]
pub extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        // SAFETY: we hold the heap.
        Some(bytes) => or_nomem(unsafe { HEAP.lock().calloc(bytes, ALIGNED) }),
        None => or_nomem(null_mut()),
    }
}

/// `free` of C.
///
/// # Safety
/// `block` is one of this heap, or null.
#[no_mangle]
pub unsafe extern "C" fn free(block: *mut c_void) {
    if !block.is_null() {
        // SAFETY: it is a block of this heap, as the caller says.
        unsafe { HEAP.lock().c_free(block.cast()) };
    }
}

/// `realloc` of C.
///
/// # Safety
/// As for [`free`].
#[no_mangle]
pub unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    if block.is_null() {
        return malloc(size);
    }
    // SAFETY: it is a block of this heap, as the caller says.
    or_nomem(unsafe { HEAP.lock().c_realloc(block.cast(), size) })
}

/// `reallocarray` of C.
///
/// # Safety
/// As for [`free`].
#[no_mangle]
pub unsafe extern "C" fn reallocarray(block: *mut c_void, count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        // SAFETY: as for us.
        Some(bytes) => unsafe { realloc(block, bytes) },
        None => or_nomem(null_mut()),
    }
}

/// `memalign` of C.
#[no_mangle]
pub extern "C" fn memalign(alignment: usize, size: usize) -> *mut c_void {
    if !alignment.is_power_of_two() {
        return or_nomem(null_mut());
    }
    // SAFETY: we hold the heap, and this is a power of two.
    or_nomem(unsafe { HEAP.lock().c_memalign(alignment, size) })
}

/// `aligned_alloc` of C.
#[no_mangle]
pub extern "C" fn aligned_alloc(alignment: usize, size: usize) -> *mut c_void {
    memalign(alignment, size)
}

/// `posix_memalign` of C.
///
/// # Safety
/// `to` is where a pointer can be written.
#[no_mangle]
pub unsafe extern "C" fn posix_memalign(to: *mut *mut c_void, alignment: usize, size: usize) -> c_int {
    if !alignment.is_power_of_two() || alignment < size_of::<usize>() {
        return libc::EINVAL;
    }
    let block = memalign(alignment, size);
    if block.is_null() {
        return libc::ENOMEM;
    }
    // SAFETY: as the caller says.
    unsafe { *to = block };
    0
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;

    use super::*;

    #[test]
    fn blocks_are_aligned_zeroed_and_keep_what_is_in_them() {
        let mut kept = Vec::new();
        for n in 0..200_usize {
            let bytes = 1 + n * 37;
            let block = calloc(n, 37).cast::<u8>();
            let aligned = memalign(1 << (4 + n % 9), bytes).cast::<u8>();
            assert_eq!(aligned as usize % (1 << (4 + n % 9)), 0);
            // SAFETY: blocks of this size, or longer.
            unsafe {
                assert!((0..n * 37).all(|at| *block.add(at) == 0));
                aligned.write_bytes(n as u8, bytes);
                let grown = realloc(aligned.cast(), bytes * 3).cast::<u8>();
                assert!((0..bytes).all(|at| *grown.add(at) == n as u8));
                kept.push((block, grown));
            }
        }
        for (block, grown) in kept {
            // SAFETY: each once.
            unsafe {
                free(block.cast());
                free(grown.cast());
            }
        }
        // Not by name: the compiler knows these names, and takes for granted that they succeed.
        let [calloc, memalign] = [black_box(calloc as extern "C" fn(_, _) -> _), black_box(memalign)];
        assert!(black_box(calloc(usize::MAX, 2)).is_null() && black_box(memalign(3, 1)).is_null());
    }

    #[test]
    fn it_is_what_everybody_has() {
        let own = malloc as *const () as usize;
        assert_eq!(libc::malloc as *const () as usize, own);
    }
}
