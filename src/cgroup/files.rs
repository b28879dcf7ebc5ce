//! The forms in which the kernel writes numbers.

use std::fs;
use std::path::Path;

/// Above it a limit is none: v1 writes the largest number of pages.
pub const NO_LIMIT: u64 = 1 << 62;

/// A file of a control group; `None` if it cannot be read.
pub fn text(dir: &Path, file: &str) -> Option<String> {
    fs::read_to_string(dir.join(file)).ok()
}

/// A file that holds one number; `None` also for one that holds none, as `max` where there is no limit.
pub fn number(dir: &Path, file: &str) -> Option<u64> {
    text(dir, file)?.trim().parse().ok()
}

/// A limit; 0 where there is none, `None` where it cannot be read.
pub fn limit(dir: &Path, file: &str) -> Option<u64> {
    match text(dir, file)?.trim() {
        "max" | "-1" => Some(0),
        number => number.parse().ok().map(|n| if n < NO_LIMIT { n } else { 0 }),
    }
}

/// The number after `name` at the beginning of a line.
pub fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.trim().parse().ok())
}

#[cfg(test)]
pub mod testing {
    use std::fs;
    use std::path::PathBuf;

    /// A directory with files, until it is dropped.
    pub struct Dir(pub PathBuf);

    impl Dir {
        pub fn new(files: &[(&str, &str)]) -> Dir {
            let path = std::env::temp_dir().join(format!("cricket-cgroup-{}", crate::ids::random_hex().unwrap()));
            fs::create_dir(&path).unwrap();
            for (name, text) in files {
                fs::write(path.join(name), text).unwrap();
            }
            Dir(path)
        }
    }

    impl Drop for Dir {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::testing::Dir;
    use super::*;

    #[test]
    fn a_limit_is_a_number_or_none() {
        let dir = Dir::new(&[
            ("max", "max\n"),
            ("minus", "-1\n"),
            ("huge", "9223372036854771712\n"),
            ("some", "20000\n"),
            ("junk", "many\n"),
        ]);
        let of = |file| limit(&dir.0, file);
        assert_eq!([of("max"), of("minus"), of("huge"), of("some")], [Some(0), Some(0), Some(0), Some(20000)]);
        assert_eq!([of("junk"), of("absent")], [None, None]);
        assert_eq!(number(&dir.0, "max"), None);
        assert_eq!(field("anon_thp 1\nanon 2\n", "anon"), Some(2));
    }
}
