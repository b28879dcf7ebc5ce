//! What a runtime waits for when it puts a process into its control groups, begun before it gets there.
//!
//! A process that is being moved must not fork. Since Linux 6.0 the lock for that is made for those who fork: who takes it
//! waits until every processor has been through its scheduler, two to four ticks, which may be a quarter of the time that it
//! takes to start a container. For about as long after that it is to be had at once.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::Groups;

/// Only touched pages cost memory.
const STACK_BYTES: usize = 32 << 10;
/// One is at it: that is good for all.
static UNDER_WAY: AtomicBool = AtomicBool::new(false);

/// Lets the kernel prepare for a process that will soon be moved. Does not block: a thread does, for milliseconds, and there
/// is never more than one. Without it everything goes as well, only later.
pub fn expect_move() {
    if UNDER_WAY.swap(true, Ordering::AcqRel) {
        return;
    }
    let moving = || {
        if let Err(e) = stay() {
            log::debug!("prepare for a process that is moved into control groups: {e}");
        }
        UNDER_WAY.store(false, Ordering::Release);
    };
    let begun = thread::Builder::new().name("move".into()).stack_size(STACK_BYTES).spawn(moving);
    if let Err(e) = begun {
        UNDER_WAY.store(false, Ordering::Release);
        log::debug!("start a thread that moves: {e}");
    }
}

/// Moves this process to where it is. Whichever hierarchy that is of, the lock is the same. Twice: the second time costs
/// nothing, and as long as the lock is not left alone it stays with those who move.
fn stay() -> io::Result<()> {
    let own = Groups::of(std::process::id()).and_then(directory).ok_or(io::ErrorKind::NotFound)?;
    let file = own.join("cgroup.procs");
    fs::write(&file, "0")?;
    fs::write(&file, "0")
}

fn directory(groups: Groups) -> Option<PathBuf> {
    match groups {
        Groups::V1(all) => all.memory.or(all.pids).or(all.cpuacct),
        Groups::V2(path) => Some(path),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn who_stays_is_where_he_was() {
        let before = fs::read_to_string("/proc/self/cgroup").unwrap();
        stay().unwrap();
        for _ in 0..10 {
            expect_move();
        }
        let begun = Instant::now();
        while UNDER_WAY.load(Ordering::Acquire) {
            assert!(begun.elapsed() < Duration::from_secs(60), "it never ended");
            thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(fs::read_to_string("/proc/self/cgroup").unwrap(), before);
    }
}
