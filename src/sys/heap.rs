//! The heap of a shim: compact, and given back to the kernel after a burst.
//!
//! The C library's spreads small blocks over a page for each size, and keeps what it once had. That is right for a busy
//! program; a shim is one of many that sleep. Here blocks lie next to each other, neighbours that are free become one,
//! and whole free pages at the end or inside go back. Free blocks are searched one by one, of which a shim has few.

use std::alloc::{GlobalAlloc, Layout};
use std::cell::UnsafeCell;
use std::ptr::{self, null_mut};
use std::sync::atomic::{AtomicBool, Ordering};

/// What everything is rounded up to: room for a free block's own words.
const UNIT: usize = 16;
const PAGE: usize = 4096;
/// A page of free blocks inside is given back when there are so many together.
const GIVE_BACK: usize = 4 * PAGE;
/// So much address space is reserved, and no memory.
const ARENA: usize = 256 << 20;
/// What is at least so long gets pages of its own.
const LARGE: usize = 128 << 10;

/// An allocator, to be the only one of a process.
pub struct Heap {
    locked: AtomicBool,
    state: UnsafeCell<State>,
}

struct State {
    start: *mut u8,
    /// Below are blocks, above is nothing.
    top: *mut u8,
    /// Above, nothing was touched since it was given back.
    touched: *mut u8,
    /// By address; no two are neighbours, and none ends at `top`.
    free: *mut Free,
}

/// A free block, in its own first bytes.
struct Free {
    size: usize,
    next: *mut Free,
}

// SAFETY: `state` is only touched by whoever set `locked`.
unsafe impl Sync for Heap {}

impl Heap {
    /// Nothing is reserved before the first block.
    pub const fn new() -> Heap {
        let state = State { start: null_mut(), top: null_mut(), touched: null_mut(), free: null_mut() };
        Heap { locked: AtomicBool::new(false), state: UnsafeCell::new(state) }
    }

    fn with<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        // A shim has one thread, so this never turns.
        while self.locked.swap(true, Ordering::Acquire) {
            std::hint::spin_loop();
        }
        // SAFETY: we hold the lock, so there is no other reference.
        let done = work(unsafe { &mut *self.state.get() });
        self.locked.store(false, Ordering::Release);
        done
    }
}

impl Default for Heap {
    fn default() -> Self {
        Heap::new()
    }
}

fn is_large(layout: &Layout) -> bool {
    layout.size() >= LARGE || layout.align() > UNIT
}

fn rounded(size: usize, unit: usize) -> usize {
    size.next_multiple_of(unit).max(unit)
}

// SAFETY: blocks are disjoint, at least as long as asked for, aligned to UNIT or to a page, and stay until they are given
// back; the unit test checks it against a model.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        match is_large(&layout) {
            true if layout.align() > PAGE => null_mut(),
            true => map(rounded(layout.size(), PAGE)),
            false => self.with(|state| state.take(rounded(layout.size(), UNIT))),
        }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if is_large(&layout) {
            // SAFETY: `alloc` mapped exactly these pages for this layout, and the caller is done with them.
            unsafe { libc::munmap(block.cast(), rounded(layout.size(), PAGE)) };
            return;
        }
        self.with(|state| state.give(block, rounded(layout.size(), UNIT)));
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let clean = self.with(|state| state.touched);
        // SAFETY: as for `alloc`.
        let block = unsafe { self.alloc(layout) };
        // Pages of its own, or above everything that was ever touched: zeroes, and not to be touched for nothing.
        if !block.is_null() && !is_large(&layout) && block < clean {
            // SAFETY: a block of that size, which is ours until we return it.
            unsafe { block.write_bytes(0, layout.size()) };
        }
        block
    }
}

/// Fresh pages, or null.
fn map(length: usize) -> *mut u8 {
    let (access, flags) =
        (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE);
    // SAFETY: a new mapping wherever the kernel has room; the result is checked.
    let pages = unsafe { libc::mmap(null_mut(), length, access, flags, -1, 0) };
    if pages == libc::MAP_FAILED {
        return null_mut();
    }
    pages.cast()
}

/// Gives whole pages between the two back; they read as zeroes afterwards.
fn give_back(from: *mut u8, to: *mut u8) {
    let (from, to) = ((from as usize).next_multiple_of(PAGE), to as usize / PAGE * PAGE);
    if from < to {
        // SAFETY: pages of our own arena in which nothing lives.
        unsafe { libc::madvise(ptr::with_exposed_provenance_mut(from), to - from, libc::MADV_DONTNEED) };
    }
}

impl State {
    fn take(&mut self, size: usize) -> *mut u8 {
        let mut link: *mut *mut Free = &raw mut self.free;
        // SAFETY: every link points to the list's head or into a free block of ours; every block in it is free and of
        // the size that it says.
        unsafe {
            while !(*link).is_null() {
                let block = *link;
                let left = (*block).size.wrapping_sub(size);
                if (*block).size == size {
                    *link = (*block).next;
                    return block.cast();
                }
                if (*block).size > size {
                    // From its end, so that the links stay.
                    (*block).size = left;
                    return block.cast::<u8>().add(left);
                }
                link = &raw mut (*block).next;
            }
        }
        self.extend(size)
    }

    fn extend(&mut self, size: usize) -> *mut u8 {
        if self.start.is_null() {
            self.start = map(ARENA);
            (self.top, self.touched) = (self.start, self.start);
        }
        let used = self.top as usize - self.start as usize;
        if self.start.is_null() || size > ARENA - used {
            return null_mut();
        }
        let block = self.top;
        self.top = self.top.wrapping_add(size);
        self.touched = self.touched.max(self.top);
        block
    }

    fn give(&mut self, block: *mut u8, mut size: usize) {
        let mut link: *mut *mut Free = &raw mut self.free;
        let mut before: *mut Free = null_mut();
        // SAFETY: as in `take`; `block` is `size` bytes that nobody uses any more.
        unsafe {
            while !(*link).is_null() && (*link).cast::<u8>() < block {
                before = *link;
                link = &raw mut (*before).next;
            }
            let mut after = *link;
            if !after.is_null() && block.add(size) == after.cast() {
                size += (*after).size;
                after = (*after).next;
            }
            let mut block = block;
            if !before.is_null() && before.cast::<u8>().add((*before).size) == block {
                size += (*before).size;
                block = before.cast();
            }
            let free = block.cast::<Free>();
            if block.add(size) == self.top {
                // The last in the list, if it is in there at all.
                self.cut(free);
                self.top = block;
                if self.touched as usize - self.top as usize >= GIVE_BACK {
                    give_back(self.top, self.touched);
                    self.touched = self.top;
                }
                return;
            }
            if free != before {
                *link = free;
            }
            free.write(Free { size, next: after });
            if size >= GIVE_BACK {
                give_back(block.add(size_of::<Free>()), block.add(size));
            }
        }
    }

    /// Ends the list before this block.
    ///
    /// # Safety
    /// The list must be whole.
    unsafe fn cut(&mut self, block: *mut Free) {
        let mut link: *mut *mut Free = &raw mut self.free;
        // SAFETY: as in `take`.
        unsafe {
            while !(*link).is_null() && *link < block {
                link = &raw mut (**link).next;
            }
            *link = null_mut();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).expect("small")
    }

    fn free_blocks(heap: &Heap) -> Vec<(usize, usize)> {
        heap.with(|state| {
            let (mut found, mut block) = (Vec::new(), state.free);
            while !block.is_null() {
                // SAFETY: a block of the list of a heap that nobody else uses now.
                let Free { size, next } = unsafe { block.read() };
                found.push((block as usize - state.start as usize, size));
                block = next;
            }
            found
        })
    }

    #[test]
    fn blocks_are_disjoint_and_keep_their_bytes_and_nothing_is_left() {
        let heap = Heap::new();
        let mut live: BTreeMap<usize, (usize, u8)> = BTreeMap::new();
        let mut seed = 0x9E37_79B9_7F4A_7C15u64;
        let mut random = |below: usize| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            (seed >> 33) as usize % below
        };
        for turn in 0..20_000 {
            if live.len() < 200 && random(3) > 0 {
                let size = [1, 24, 100, 700, 5000, 200_000][random(6)] + random(16);
                // SAFETY: the size is not zero.
                let block = unsafe { heap.alloc(layout(size)) };
                assert!(!block.is_null() && block as usize % UNIT == 0);
                // SAFETY: the block is `size` bytes long.
                unsafe { block.write_bytes(turn as u8, size) };
                live.insert(block as usize, (size, turn as u8));
                let next = live.range(block as usize + 1..).next();
                assert!(next.is_none_or(|(at, _)| block as usize + size <= *at), "blocks overlap");
            } else if let Some((at, (size, byte))) = live.iter().nth(random(live.len().max(1))).map(|(a, b)| (*a, *b)) {
                live.remove(&at);
                let block: *mut u8 = ptr::with_exposed_provenance_mut(at);
                // SAFETY: a live block of `size` bytes.
                unsafe {
                    assert!(std::slice::from_raw_parts(block, size).iter().all(|b| *b == byte), "bytes changed");
                    heap.dealloc(block, layout(size));
                }
            }
            if turn % 1000 == 0 {
                let free = free_blocks(&heap);
                assert!(free.windows(2).all(|w| w[0].0 + w[0].1 < w[1].0), "in order, and no neighbours: {free:?}");
            }
        }
        for (at, (size, _)) in live {
            // SAFETY: a live block of `size` bytes.
            unsafe { heap.dealloc(ptr::with_exposed_provenance_mut(at), layout(size)) };
        }
        assert!(free_blocks(&heap).is_empty());
        heap.with(|state| {
            assert!(state.top == state.start && state.touched as usize - state.top as usize <= GIVE_BACK);
        });
    }

    #[test]
    fn what_cannot_be_had_is_null() {
        let heap = Heap::new();
        // SAFETY: sizes are not zero.
        unsafe {
            assert!(heap.alloc(Layout::from_size_align(1 << 60, 8).expect("valid")).is_null());
            assert!(heap.alloc(Layout::from_size_align(64, 1 << 20).expect("valid")).is_null());
            let aligned = Layout::from_size_align(64, 256).expect("valid");
            let block = heap.alloc(aligned);
            assert!(block as usize % 256 == 0);
            heap.dealloc(block, aligned);
        }
    }
}
