//! Whether a signal would reach the first process of a container.

use std::fs;

/// Whether the kernel drops `signal` to process `pid` now: it does for the first process of a PID namespace as long as
/// that has no handler for it, as every program has none when it has just been started.
pub fn is_deaf(pid: u32, signal: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status")).is_ok_and(|status| deaf(&status, signal))
}

fn deaf(status: &str, signal: u32) -> bool {
    let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    // Its number in each namespace, from ours down to its own.
    let numbers: Vec<&str> = field("NSpid").unwrap_or_default().split_ascii_whitespace().collect();
    let is_first = numbers.len() > 1 && numbers.last() == Some(&"1");
    let caught = field("SigCgt").and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    let bit = signal.checked_sub(1).and_then(|n| 1u64.checked_shl(n));
    match (caught, bit) {
        (Some(caught), Some(bit)) => is_first && caught & bit == 0,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_process_without_a_handler() {
        let status = |pids: &str, caught: &str| format!("Name:\tx\nNSpid:\t{pids}\nSigIgn:\t0\nSigCgt:\t{caught}\n");
        assert!(deaf(&status("4711\t1", "0000000000000000"), 15));
        assert!(deaf(&status("4711\t1", "0000000000000001"), 15));
        assert!(!deaf(&status("4711\t1", "0000000000004000"), 15));
        assert!(!deaf(&status("4711", "0000000000000000"), 15), "in our namespace");
        assert!(!deaf(&status("4711\t7", "0000000000000000"), 15), "not the first of a shared one");
        assert!(!deaf(&status("4711\t1", "0"), 0) && !deaf(&status("4711\t1", "0"), 65) && !deaf("", 15));
        assert!(deaf(&status("4711\t1", "0"), 64));
    }

    #[test]
    fn a_process_that_is_gone_hears_nothing_and_needs_nothing() {
        assert!(!is_deaf(u32::MAX, 15));
    }
}
