//! Log lines on stderr: for journald if it reads them, for people otherwise.

use std::fmt;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use log::{Level, LevelFilter};

/// Sends the log to stderr. Once per process.
pub(super) fn start(level: LevelFilter) {
    let journald = journald_reads_stderr();
    env_logger::Builder::new()
        .filter_level(level)
        // They would show addresses and headers, which may hold secrets.
        .filter_module("ureq", level.min(LevelFilter::Warn))
        .filter_module("ureq_proto", level.min(LevelFilter::Warn))
        .filter_module("rustls", level.min(LevelFilter::Warn))
        .format(move |line, record| match journald {
            true => writeln!(line, "<{}>{}", priority(record.level()), record.args()),
            false => writeln!(line, "{} {:5} {}", TimeOfDay::now(), record.level(), record.args()),
        })
        .init();
}

/// systemd puts device and inode of the stream to journald into `JOURNAL_STREAM`; processes that were given another
/// stderr inherit the variable all the same.
fn journald_reads_stderr() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    fs::metadata("/proc/self/fd/2").is_ok_and(|meta| stream == format!("{}:{}", meta.dev(), meta.ino()))
}

/// syslog's number, which journald takes off the line.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// UTC, without the date: whoever wants that runs under journald.
struct TimeOfDay(Duration);

impl TimeOfDay {
    fn now() -> TimeOfDay {
        // A clock before 1970 shows as midnight.
        TimeOfDay(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default())
    }
}

impl fmt::Display for TimeOfDay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, millis) = (self.0.as_secs(), self.0.subsec_millis());
        write!(f, "{:02}:{:02}:{:02}.{millis:03}", seconds / 3600 % 24, seconds / 60 % 60, seconds % 60)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_of_day_in_utc() {
        let time = Duration::from_millis(1_700_000_000_007);
        assert_eq!(TimeOfDay(time).to_string(), "22:13:20.007");
    }
}
