//! Programs that number what they say, and whether their logs have every line once.

use std::fs;
use std::path::Path;

/// What runs in a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// Counts until it is asked to stop, and then ends with 7.
    Counts,
    /// Says so much and ends with this code.
    Ends(i32),
}

/// How many lines one says that ends by itself.
const LINES: usize = 40;
/// The exit code of one that was asked to stop.
pub const POLITE: i32 = 7;

impl Program {
    /// As a shell script. Its last words are how many lines there were.
    pub fn script(self) -> String {
        match self {
            Program::Counts => format!(
                "trap t=1 TERM; i=0; while [ -z $t ]; do i=$((i+1)); echo line $i; [ $((i%20)) != 0 ] || sleep 0.1; \
                 done; echo end $i; exit {POLITE}"
            ),
            Program::Ends(code) => format!(
                "i=0; while [ $i != {LINES} ]; do i=$((i+1)); echo line $i; [ $((i%20)) != 0 ] || sleep 0.1; done; \
                 echo end $i; exit {code}"
            ),
        }
    }
}

/// How a log must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    /// Somewhere: it is still being written, or the container was killed.
    Open,
    /// With the last words.
    LastWords,
    /// Somewhere, even within a line: its writer was killed.
    Torn,
}

/// Whether every line is there once and whole; returns how many there are, or what is wrong.
pub fn check(log: &Path, tail: Tail) -> Result<usize, String> {
    let text = fs::read_to_string(log).map_err(|e| format!("{}: {e}", log.display()))?;
    let whole = text.rfind('\n').map_or(0, |at| at + 1);
    if whole != text.len() && tail == Tail::LastWords {
        return Err(format!("{} ends within a line: {:?}", log.display(), &text[whole..]));
    }
    let mut ended = false;
    for (n, line) in text[..whole].lines().enumerate() {
        let expected = format!("line {}", n + 1);
        let wrong = |what: &str| Err(format!("{}:{} {what}: {line:?}", log.display(), n + 1));
        let mut parts = line.splitn(4, ' ');
        let (stream, tag, said) = (parts.nth(1), parts.next(), parts.next());
        if (stream, tag) != (Some("stdout"), Some("F")) {
            return wrong("is not a whole line of stdout");
        }
        if ended {
            return wrong("comes after the last words");
        }
        ended = said == Some(&*format!("end {n}"));
        if !ended && said != Some(&*expected) {
            return wrong(&format!("is not {expected:?}"));
        }
    }
    if tail == Tail::LastWords && !ended {
        let last = text.lines().last();
        return Err(format!("{} ends without last words: {last:?}", log.display()));
    }
    Ok(text[..whole].lines().count())
}

#[test]
fn a_log_with_a_line_too_few_too_many_or_torn_is_none() {
    let path = std::env::temp_dir().join(format!("cricket-torture-log-{}", std::process::id()));
    let of = |lines: &[&str], tail| {
        let text: String = lines.iter().map(|line| format!("2026-01-01T00:00:00Z stdout F {line}")).collect();
        fs::write(&path, text).expect("write");
        check(&path, tail).is_ok()
    };
    let (one, two, end) = ("line 1\n", "line 2\n", "end 2\n");
    assert!(of(&[one, two, end], Tail::LastWords) && of(&[one, two], Tail::Open) && of(&[], Tail::Open));
    assert!(of(&[one, "li"], Tail::Torn));
    assert!(!of(&[one, two], Tail::LastWords));
    for bad in [vec![two], vec![one, one], vec![one, end], vec![one, two, end, end], vec![one, "lin\n", two]] {
        assert!(!of(&bad, Tail::Torn), "{bad:?}");
    }
    fs::remove_file(path).expect("ours");
}
