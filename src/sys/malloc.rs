//! `malloc` of the whole process, ours and that of the C core.
//!
//! The C library that zig links has one with a list of free blocks for each processor. Whoever finds the other lists locked
//! takes new pages, although there is enough in them, and with threads that come and go that never ends: a kilobyte a
//! call. Its symbols are weak; these take their place. dlmalloc has one heap, whose neighbours that are free become one, and
//! gives back what is free at its end. What is in its middle it keeps, so that which matters there, the buffers of a
//! hundred sessions, does not go there: a long block has pages of its own, which are gone with it. All but a few, that is:
//! each call of gRPC takes such a block and is over in no time, and so is each message of a layer. To take pages away from a
//! process is to interrupt every processor that runs it, and to give it new ones is to clear them.
//!
//! Under cargo-fuzz the process has the one of the sanitizer.

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

/// Gives back what is free at the end of the heap, and the spare pages, after a burst. Does not block.
pub fn give_back() {
    // SAFETY: we hold the heap.
    unsafe { HEAP.lock().trim(KEPT_BYTES) };
    let spare = std::mem::replace(&mut *SPARE.lock(), Spare::new());
    spare.0.iter().for_each(|pages| unmap(*pages));
}

/// What is at least so long has pages of its own: a mapping and its faults cost less than filling them.
const LONG: usize = 16 << 10;
const PAGE: usize = 4096;
/// Of the word before a block, in which the heap has the length and these: it, or the block before it, is used. A block of
/// the heap has at least the first. Neither is what dlmalloc of old means by a mapped one; ours is that, with the length of
/// the mapping, which begins [`ALIGNED`] bytes before the block.
const USED: usize = 3;
/// All bits of that word that are not of the length.
const FLAGS: usize = ALIGNED / 2 - 1;

/// Pages of blocks that are gone, for those that come next.
static SPARE: Mutex<Spare> = Mutex::new(Spare::new());
/// How many calls are under way at once, mostly.
const SPARE_COUNT: usize = 8;
/// What a call needs is less, and so is a message of a layer; longer ones are kept for nobody.
const SPARE_BYTES: usize = 520 << 10;

/// Where a mapping begins, 0 for none, and its length.
type Pages = (usize, usize);

/// The last mappings that were freed, in that order, unless somebody took them.
struct Spare([Pages; SPARE_COUNT]);

impl Spare {
    const fn new() -> Spare {
        Spare([(0, 0); SPARE_COUNT])
    }

    /// One of just this length, if there is one.
    fn take(&mut self, length: usize) -> Option<usize> {
        let (start, _) = std::mem::take(self.0.iter_mut().rev().find(|pages| pages.1 == length)?);
        Some(start)
    }

    /// Keeps these; returns what has to go for them.
    fn put(&mut self, pages: Pages) -> Pages {
        let place = self.0.iter().position(|kept| kept.0 == 0).unwrap_or(0);
        let gone = std::mem::replace(&mut self.0[place], pages);
        self.0[place..].rotate_left(1);
        gone
    }
}

/// Takes away pages that nobody uses any more.
fn unmap((start, length): Pages) {
    if start != 0 {
        // SAFETY: they were the block's that was freed, and only its.
        unsafe { libc::munmap(start as *mut c_void, length) };
    }
}

/// The length of the mapping that is all this block's, if it has one.
///
/// # Safety
/// `block` is one of this heap.
unsafe fn mapped(block: *mut c_void) -> Option<usize> {
    // SAFETY: before each block is such a word.
    let word = unsafe { *block.cast::<usize>().sub(1) };
    (word & USED == 0).then_some(word)
}

/// The length of a mapping for a block of so many bytes.
fn to_map(size: usize) -> Option<usize> {
    size.checked_add(ALIGNED)?.checked_next_multiple_of(PAGE)
}

/// The block in a mapping of this length.
///
/// # Safety
/// `pages` is what `mmap` or `mremap` returned for it.
unsafe fn in_pages(pages: *mut c_void, length: usize) -> *mut c_void {
    if pages == libc::MAP_FAILED {
        return null_mut();
    }
    // SAFETY: the mapping is longer than this.
    unsafe {
        let block = pages.byte_add(ALIGNED);
        block.cast::<usize>().sub(1).write(length);
        block
    }
}

/// A block with pages of its own; all zeroes, if it has to be `clear`.
fn map(size: usize, clear: bool) -> *mut c_void {
    let Some(length) = to_map(size) else { return null_mut() };
    if length <= SPARE_BYTES {
        let spare = SPARE.lock().take(length);
        if let Some(pages) = spare {
            // SAFETY: a mapping of this length, which is nobody's.
            return unsafe {
                let block = in_pages(pages as *mut c_void, length);
                if clear {
                    block.write_bytes(0, size);
                }
                block
            };
        }
    }
    let (access, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    // SAFETY: a new mapping, wherever there is room.
    unsafe { in_pages(libc::mmap(null_mut(), length, access, flags, -1, 0), length) }
}

/// What C's functions set when there is no memory.
fn or_nomem(block: *mut c_void) -> *mut c_void {
    if block.is_null() {
        // SAFETY: it is this thread's own.
        unsafe { *libc::__errno_location() = libc::ENOMEM };
    }
    block
}

/// `malloc` of C.
#[cfg_attr(not(fuzzing), no_mangle)]
pub extern "C" fn malloc(size: usize) -> *mut c_void {
    or_nomem(match size {
        LONG.. => map(size, false),
        // SAFETY: we hold the heap.
        _ => unsafe { HEAP.lock().c_malloc(size) }.cast(),
    })
}

/// `calloc` of C.
#[cfg_attr(not(fuzzing), no_mangle)]
pub extern "C" fn calloc(count: usize, size: usize) -> *mut c_void {
    or_nomem(match count.checked_mul(size) {
        Some(bytes @ LONG..) => map(bytes, true),
        // SAFETY: we hold the heap.
        Some(bytes) => unsafe { HEAP.lock().calloc(bytes, ALIGNED) }.cast(),
        None => null_mut(),
    })
}

/// `free` of C.
///
/// # Safety
/// `block` is one of this heap, or null.
#[cfg_attr(not(fuzzing), no_mangle)]
pub unsafe extern "C" fn free(block: *mut c_void) {
    if block.is_null() {
        return;
    }
    // SAFETY: it is a block of this heap, as the caller says, and so are the pages that are only its.
    unsafe {
        match mapped(block) {
            Some(length) => {
                let pages = (block.byte_sub(ALIGNED) as usize, length);
                unmap(if length <= SPARE_BYTES { SPARE.lock().put(pages) } else { pages });
            }
            None => HEAP.lock().c_free(block.cast()),
        }
    }
}

/// `realloc` of C.
///
/// # Safety
/// As for [`free`].
#[cfg_attr(not(fuzzing), no_mangle)]
pub unsafe extern "C" fn realloc(block: *mut c_void, size: usize) -> *mut c_void {
    if block.is_null() {
        return malloc(size);
    }
    // SAFETY: it is a block of this heap, as the caller says; what is copied is no longer than either.
    unsafe {
        match (mapped(block), size) {
            (Some(length), LONG..) => or_nomem(match to_map(size) {
                Some(wanted) => {
                    let pages = block.byte_sub(ALIGNED);
                    in_pages(libc::mremap(pages, length, wanted, libc::MREMAP_MAYMOVE), wanted)
                }
                None => null_mut(),
            }),
            (None, ..LONG) => or_nomem(HEAP.lock().c_realloc(block.cast(), size).cast()),
            (was, _) => {
                let new = malloc(size);
                if !new.is_null() {
                    // A block of the heap ends with the word before the next one; one with pages becomes shorter here.
                    let held = || (*block.cast::<usize>().sub(1) & !FLAGS) - size_of::<usize>();
                    let kept = was.map_or_else(held, |_| size);
                    std::ptr::copy_nonoverlapping(block.cast::<u8>(), new.cast(), kept.min(size));
                    free(block);
                }
                new
            }
        }
    }
}

/// `reallocarray` of C.
///
/// # Safety
/// As for [`free`].
#[cfg_attr(not(fuzzing), no_mangle)]
pub unsafe extern "C" fn reallocarray(block: *mut c_void, count: usize, size: usize) -> *mut c_void {
    match count.checked_mul(size) {
        // SAFETY: as for us.
        Some(bytes) => unsafe { realloc(block, bytes) },
        None => or_nomem(null_mut()),
    }
}

/// `memalign` of C.
#[cfg_attr(not(fuzzing), no_mangle)]
pub extern "C" fn memalign(alignment: usize, size: usize) -> *mut c_void {
    if !alignment.is_power_of_two() {
        return or_nomem(null_mut());
    }
    // SAFETY: we hold the heap, and this is a power of two.
    or_nomem(unsafe { HEAP.lock().c_memalign(alignment, size) }.cast())
}

/// `aligned_alloc` of C.
#[cfg_attr(not(fuzzing), no_mangle)]
pub extern "C" fn aligned_alloc(alignment: usize, size: usize) -> *mut c_void {
    memalign(alignment, size)
}

/// `posix_memalign` of C.
///
/// # Safety
/// `to` is where a pointer can be written.
#[cfg_attr(not(fuzzing), no_mangle)]
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

    /// Each length is made a shorter and a longer one: in the heap, in its pages, and from one into the other.
    #[test]
    fn blocks_are_aligned_zeroed_and_keep_what_is_in_them() {
        let mut kept = Vec::new();
        let lengths =
            (0..200).map(|n| 1 + n * 37).chain((1..30).flat_map(|n| [n * LONG / 8 - 17, n * PAGE - ALIGNED, n * PAGE]));
        for (n, bytes) in lengths.enumerate() {
            let of = n % 9;
            let block = calloc(of, bytes).cast::<u8>();
            let alignment = 1 << (4 + n % 9);
            let aligned = memalign(alignment, bytes).cast::<u8>();
            let plain = malloc(bytes).cast::<u8>();
            assert!(
                aligned as usize % alignment == 0 && plain as usize % ALIGNED == 0 && block as usize % ALIGNED == 0
            );
            // SAFETY: blocks of this length, or longer.
            unsafe {
                assert!((0..of * bytes).all(|at| *block.add(at) == 0));
                block.write_bytes(n as u8, of * bytes);
                for block in [aligned, plain] {
                    block.write_bytes(n as u8, bytes);
                    let grown = realloc(block.cast(), bytes * 3).cast::<u8>();
                    assert!((0..bytes).all(|at| *grown.add(at) == n as u8), "{bytes} bytes made three times as long");
                    grown.write_bytes(n as u8, bytes * 3);
                    let cut = realloc(grown.cast(), bytes.div_ceil(2)).cast::<u8>();
                    assert!(
                        (0..bytes.div_ceil(2)).all(|at| *cut.add(at) == n as u8),
                        "{bytes} bytes made half as long"
                    );
                    kept.push((cut, bytes.div_ceil(2), n as u8));
                }
                if n % 7 == 0 {
                    kept.push((block, of * bytes, n as u8));
                } else {
                    free(block.cast());
                }
            }
        }
        for (block, bytes, byte) in kept {
            // SAFETY: each of this length, once.
            unsafe {
                assert!((0..bytes).all(|at| *block.add(at) == byte));
                free(block.cast());
            }
        }
        // Not by name: the compiler knows these names, and takes for granted that they succeed.
        let [calloc, memalign] = [black_box(calloc as extern "C" fn(_, _) -> _), black_box(memalign)];
        assert!(black_box(calloc(usize::MAX, 2)).is_null() && black_box(memalign(3, 1)).is_null());
        let malloc: extern "C" fn(usize) -> *mut c_void = black_box(malloc);
        assert!([usize::MAX, usize::MAX - PAGE, usize::MAX / 2].into_iter().all(|bytes| malloc(bytes).is_null()));
    }

    /// 64 MB in all, with something small between that stays.
    #[test]
    fn what_was_long_is_given_back_although_its_neighbours_stay() {
        let own = || {
            let status = std::fs::read_to_string("/proc/self/status").expect("of this process");
            let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("in there");
            line.trim().trim_end_matches(" kB").parse::<u64>().expect("kB")
        };
        let before = own();
        let (long, short): (Vec<_>, Vec<_>) = (0..2000).map(|_| (vec![1_u8; 2 * LONG], Box::new([1_u8; 64]))).unzip();
        let full = own();
        drop(black_box(long));
        let after = own();
        assert!(full > before + 32_000 && after < before + 16_000, "{before}, {full}, {after} kB");
        drop(black_box(short));
    }

    #[test]
    fn the_last_pages_are_the_first_to_be_used_again_and_the_first_to_go_are_the_oldest() {
        let mut spare = Spare::new();
        for n in 1..=SPARE_COUNT {
            assert_eq!(spare.put((n, n % 2)), (0, 0));
        }
        assert_eq!(spare.put((9, 1)), (1, 1));
        assert_eq!(spare.put((10, 0)), (2, 0));
        assert_eq!([0, 1, 1, 2].map(|length| spare.take(length)), [Some(10), Some(9), Some(7), None]);
        let gone: Vec<Pages> = (11..=14).map(|n| spare.put((n, 1))).collect();
        assert_eq!(gone, [(0, 0), (0, 0), (0, 0), (3, 1)]);
    }

    #[test]
    fn it_is_what_everybody_has() {
        let own = malloc as *const () as usize;
        assert_eq!(libc::malloc as *const () as usize, own);
    }
}
