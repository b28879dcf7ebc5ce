//! Kills a process right after its n-th effect on the world outside: it is traced, and its system calls are counted.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{kill, Signal};
use nix::sys::wait::{waitpid, WaitPidFlag, WaitStatus};
use nix::unistd::Pid;

/// Only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(20);
/// Between two looks when nothing has happened.
const PAUSE: Duration = Duration::from_micros(100);

/// What changes something outside with each call.
const ALWAYS: &[(&str, libc::c_long)] = &[
    ("mkdirat", libc::SYS_mkdirat),
    ("mknodat", libc::SYS_mknodat),
    ("unlinkat", libc::SYS_unlinkat),
    ("renameat", libc::SYS_renameat),
    ("renameat2", libc::SYS_renameat2),
    ("linkat", libc::SYS_linkat),
    ("symlinkat", libc::SYS_symlinkat),
    ("mount", libc::SYS_mount),
    ("move_mount", libc::SYS_move_mount),
    ("umount2", libc::SYS_umount2),
    ("mount_setattr", libc::SYS_mount_setattr),
    ("unshare", libc::SYS_unshare),
    ("setns", libc::SYS_setns),
    ("kill", libc::SYS_kill),
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
    ("fchmod", libc::SYS_fchmod),
    ("fchmodat", libc::SYS_fchmodat),
    ("fchown", libc::SYS_fchown),
    ("fchownat", libc::SYS_fchownat),
    ("ftruncate", libc::SYS_ftruncate),
    ("setxattr", libc::SYS_setxattr),
    #[cfg(target_arch = "x86_64")]
    ("mkdir", libc::SYS_mkdir),
    #[cfg(target_arch = "x86_64")]
    ("mknod", libc::SYS_mknod),
    #[cfg(target_arch = "x86_64")]
    ("unlink", libc::SYS_unlink),
    #[cfg(target_arch = "x86_64")]
    ("rmdir", libc::SYS_rmdir),
    #[cfg(target_arch = "x86_64")]
    ("rename", libc::SYS_rename),
    #[cfg(target_arch = "x86_64")]
    ("link", libc::SYS_link),
    #[cfg(target_arch = "x86_64")]
    ("symlink", libc::SYS_symlink),
    #[cfg(target_arch = "x86_64")]
    ("chmod", libc::SYS_chmod),
    #[cfg(target_arch = "x86_64")]
    ("chown", libc::SYS_chown),
    #[cfg(target_arch = "x86_64")]
    ("fork", libc::SYS_fork),
    #[cfg(target_arch = "x86_64")]
    ("vfork", libc::SYS_vfork),
];

/// What makes a file when it is asked to: which argument says so.
const OPENS: &[(libc::c_long, usize)] = &[
    (libc::SYS_openat, 2),
    #[cfg(target_arch = "x86_64")]
    (libc::SYS_open, 1),
];

/// What writes to its first argument, or writes that out.
const WRITES: &[(&str, libc::c_long)] = &[
    ("write", libc::SYS_write),
    ("writev", libc::SYS_writev),
    ("pwrite64", libc::SYS_pwrite64),
    ("sendmsg", libc::SYS_sendmsg),
    ("sendto", libc::SYS_sendto),
    ("copy_file_range", libc::SYS_copy_file_range),
    ("fsync", libc::SYS_fsync),
];

/// One process whose threads stop at every system call.
pub struct Tracer {
    pid: Pid,
    /// What no effect is: the log of the process.
    log: PathBuf,
    /// Whether a thread is within a call.
    within: HashMap<Pid, bool>,
    effects: Vec<String>,
}

/// How a trace ended.
#[derive(Debug)]
pub enum Traced {
    /// Killed, after this effect.
    Killed(String),
    /// It had no more effects than these before what it was traced for was done.
    Done(Vec<String>),
}

impl Tracer {
    /// Takes hold of every thread of a child of ours. All of the rest is for the thread that calls this.
    pub fn seize(pid: u32, log: PathBuf) -> Tracer {
        let pid = Pid::from_raw(i32::try_from(pid).expect("a pid"));
        let mut tracer = Tracer { pid, log, within: HashMap::new(), effects: Vec::new() };
        for entry in fs::read_dir(format!("/proc/{pid}/task")).expect("its threads").flatten() {
            let thread = entry.file_name().to_string_lossy().parse().map(Pid::from_raw).expect("a number");
            // A thread that has ended since has no effects.
            if ptrace::seize(thread, Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE).is_ok() {
                ptrace::interrupt(thread).ok();
                tracer.within.insert(thread, false);
            }
        }
        tracer
    }

    /// Lets it run until the `n`-th effect or until `done`; it does not live any more afterwards, and is still to be
    /// waited for.
    pub fn kill_at(mut self, n: usize, done: impl Fn() -> bool) -> Traced {
        let begun = Instant::now();
        loop {
            if begun.elapsed() > PATIENCE {
                self.end();
                panic!("it does nothing any more after {:?}", self.effects);
            }
            // The order matters: what was done before that look has been seen.
            let over = done();
            let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD | WaitPidFlag::WNOHANG;
            match waitpid(None, Some(flags)) {
                Ok(WaitStatus::StillAlive) if over => {
                    self.end();
                    return Traced::Done(self.effects);
                }
                Ok(WaitStatus::StillAlive) => sleep(PAUSE),
                Ok(status) => {
                    if let Some(effect) = self.goes_on(status) {
                        if self.effects.len() + 1 == n {
                            self.end();
                            return Traced::Killed(effect);
                        }
                        self.effects.push(effect);
                        if let Some(thread) = status.pid() {
                            resume(thread, None);
                        }
                    }
                }
                Err(e) => panic!("it ended by itself: {e}"),
            }
        }
    }

    /// Kills it and takes leave of every thread but the first, which is its parent's to wait for.
    fn end(&self) {
        kill(self.pid, Signal::SIGKILL).expect("it lives");
        let begun = Instant::now();
        loop {
            let threads = fs::read_dir(format!("/proc/{}/task", self.pid)).into_iter().flatten().flatten();
            let threads =
                threads.filter_map(|entry| entry.file_name().to_string_lossy().parse().ok()).map(Pid::from_raw);
            let others: Vec<Pid> = threads.filter(|thread| *thread != self.pid).collect();
            if others.is_empty() {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "killed, and these threads live: {others:?}");
            for thread in others {
                // One that is gone by now needs nothing.
                waitpid(thread, Some(WaitPidFlag::__WALL | WaitPidFlag::WNOHANG)).ok();
            }
            sleep(PAUSE);
        }
    }

    /// Looks at what a thread has stopped for. It stays so if that was an effect, which is told.
    fn goes_on(&mut self, status: WaitStatus) -> Option<String> {
        match status {
            WaitStatus::PtraceSyscall(thread) => {
                let within = self.within.entry(thread).or_default();
                *within = !*within;
                if !*within {
                    if let Some(effect) = self.effect(thread) {
                        return Some(effect);
                    }
                }
                resume(thread, None);
            }
            WaitStatus::PtraceEvent(thread, ..) => resume(thread, None),
            WaitStatus::Stopped(thread, signal) => resume(thread, Some(signal)),
            // A thread has ended.
            _ => {}
        }
        None
    }

    /// What the call that a thread has just made has changed outside, if it is one that does.
    fn effect(&self, thread: Pid) -> Option<String> {
        let text = fs::read_to_string(format!("/proc/{}/task/{thread}/syscall", self.pid)).ok()?;
        let words: Vec<&str> = text.split_whitespace().collect();
        let number: libc::c_long = words.first()?.parse().ok()?;
        let argument = |at: usize| u64::from_str_radix(words.get(1 + at)?.trim_start_matches("0x"), 16).ok();
        if let Some((name, _)) = ALWAYS.iter().find(|(_, call)| *call == number) {
            return Some((*name).to_owned());
        }
        if let Some((_, at)) = OPENS.iter().find(|(call, _)| *call == number) {
            let makes = argument(*at)? & u64::from(libc::O_CREAT.unsigned_abs()) != 0;
            return makes.then(|| "a file is made".to_owned());
        }
        if number == libc::SYS_clone {
            let starts = argument(0)? & u64::from(libc::CLONE_THREAD.unsigned_abs()) == 0;
            return starts.then(|| "a process is started".to_owned());
        }
        let (name, _) = WRITES.iter().find(|(_, call)| *call == number)?;
        let file = fs::read_link(format!("/proc/{}/fd/{}", self.pid, argument(0)?)).ok()?;
        let kind = file.to_string_lossy();
        // Its log, and what only its own threads or children read.
        let inner = file == self.log || kind.starts_with("anon_inode:") || kind.starts_with("pipe:");
        (!inner).then(|| format!("{name} {kind}"))
    }
}

/// One that is gone by now needs nothing.
fn resume(thread: Pid, signal: Option<Signal>) {
    match ptrace::syscall(thread, signal) {
        Ok(()) | Err(Errno::ESRCH) => {}
        Err(e) => panic!("let thread {thread} run: {e}"),
    }
}
