//! What gRPC's C core believes of this machine.

use std::io;
use std::mem;

extern "C" {
    /// Counts the processors once, at its first call, and remembers.
    fn gpr_cpu_num_cores() -> libc::c_uint;
}

/// Lets the C core believe in a single processor: by their number it sizes its pools of threads and its tables, of which
/// a daemon that mostly waits has no use. To be called before anything else of gRPC, while there is one thread. The
/// threads themselves run on all processors.
///
/// Returns how many it believes in: 1, unless it had counted already.
pub fn assume_one_processor() -> io::Result<u32> {
    // musl counts the processors that the calling thread may run on.
    let all = affinity()?;
    let first = (0..libc::CPU_SETSIZE as usize).find(|n| {
        // SAFETY: `n` is below CPU_SETSIZE, the number of bits in the set.
        unsafe { libc::CPU_ISSET(*n, &all) }
    });
    let mut one = none();
    // SAFETY: as above; processor 0 if the kernel named none, which it does not do.
    unsafe { libc::CPU_SET(first.unwrap_or(0), &mut one) };
    set_affinity(&one)?;
    // SAFETY: the function takes nothing, may be called at any time and from any thread, and keeps a number.
    let counted = unsafe { gpr_cpu_num_cores() };
    set_affinity(&all)?;
    Ok(counted)
}

fn none() -> libc::cpu_set_t {
    // SAFETY: a cpu_set_t is an array of integers, for which zero is a value.
    unsafe { mem::zeroed() }
}

/// The processors that the calling thread may run on.
fn affinity() -> io::Result<libc::cpu_set_t> {
    let mut set = none();
    // SAFETY: the kernel writes at most as many bytes as it is told that `set` has.
    super::check(unsafe { libc::sched_getaffinity(0, mem::size_of_val(&set), &mut set) })?;
    Ok(set)
}

fn set_affinity(set: &libc::cpu_set_t) -> io::Result<()> {
    // SAFETY: the kernel reads as many bytes as `set` has.
    super::check(unsafe { libc::sched_setaffinity(0, mem::size_of_val(set), set) }).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_thread_may_run_where_it_could_before() {
        let before = affinity().expect("its own");
        // Another test of this process may have let the C core count before.
        assert!(assume_one_processor().expect("allowed") >= 1);
        // SAFETY: it compares two sets of the same size.
        assert!(unsafe { libc::CPU_EQUAL(&before, &affinity().expect("its own")) });
    }
}
