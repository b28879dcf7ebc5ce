//! Splits the output of a container into lines of the CRI log format: `<time> <stream> <F|P> <content>\n`.
//!
//! Pure: bytes in, bytes out. A line longer than the limit becomes pieces tagged `P` (partial) of exactly the limit,
//! and a rest tagged `F` (full). Where the input happened to be cut into reads does not show in the result.

use std::io::BufRead;
use std::time::Duration;

use super::timestamp;

/// A batch is handed over for writing once it is this long; it ends with a whole line, which may make it longer.
pub const BATCH: usize = 64 << 10;

/// `<time> <stream> `: what all lines of one read begin with.
pub type Prefix = [u8; timestamp::LENGTH + 8];

/// Which of the two outputs a line came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Standard output; with a terminal everything.
    Stdout = 0,
    /// Standard error.
    Stderr = 1,
}

impl Source {
    /// The name in the log.
    pub fn name(self) -> &'static str {
        match self {
            Source::Stdout => "stdout",
            Source::Stderr => "stderr",
        }
    }

    /// The beginning of lines that were read at `since_epoch`.
    pub fn prefix(self, since_epoch: Duration) -> Prefix {
        let mut prefix = [b' '; timestamp::LENGTH + 8];
        prefix[..timestamp::LENGTH].copy_from_slice(&timestamp::rfc3339(since_epoch));
        prefix[timestamp::LENGTH + 1..][..6].copy_from_slice(self.name().as_bytes());
        prefix
    }
}

#[derive(Clone, Copy)]
enum Tag {
    Full,
    Partial,
}

/// The splitter of one stream: remembers the line that has begun and not ended.
#[derive(Debug)]
pub struct Lines {
    limit: usize,
    /// At most `limit + 1` bytes: one over the limit may be the `\r` of a `\r\n` still to come, which does not count.
    pending: Vec<u8>,
}

impl Lines {
    /// A splitter for lines of at most `limit` bytes of content, at least 1.
    pub fn new(limit: usize) -> Lines {
        Lines { limit: limit.max(1), pending: Vec::new() }
    }

    /// Appends to `batch` what `input` completes, and remembers the rest. Stops early when the batch is full: returns
    /// what of the input is still to be fed, after the caller has written the batch out.
    #[must_use]
    pub fn feed<'a>(&mut self, prefix: &Prefix, mut input: &'a [u8], batch: &mut Vec<u8>) -> &'a [u8] {
        while !input.is_empty() && batch.len() < BATCH {
            // Not further than needed to know that the line is too long, or a long one would be searched many times.
            let window = &input[..input.len().min(self.limit + 2 - self.pending.len())];
            match line_end(window) {
                Some(end) => {
                    let taken = self.end_line(prefix, &window[..end], batch);
                    input = &input[taken..];
                }
                None if self.pending.len() + window.len() < self.limit + 2 => {
                    self.pending.extend_from_slice(window);
                    return &[];
                }
                None => {
                    let taken = self.cut(prefix, window, batch);
                    input = &input[taken..];
                }
            }
        }
        input
    }

    /// The stream has ended, or is given up: appends what is pending to `batch`, as partial lines since no newline
    /// came.
    pub fn end(&mut self, prefix: &Prefix, batch: &mut Vec<u8>) {
        while self.pending.len() > self.limit {
            self.cut(prefix, &[], batch);
        }
        if !self.pending.is_empty() {
            emit(prefix, Tag::Partial, &self.pending, &[], batch);
            self.pending = Vec::new();
        }
    }

    /// The pending bytes and `rest` are a line with its newline; at most one byte too long. Returns how many bytes of
    /// the input are dealt with: the newline is not if the last byte of the line did not fit.
    fn end_line(&mut self, prefix: &Prefix, rest: &[u8], batch: &mut Vec<u8>) -> usize {
        let after_newline = rest.len() + 1;
        let (mut head, mut tail) = (self.pending.as_slice(), rest);
        match (head, tail) {
            (_, [shorter @ .., b'\r']) => tail = shorter,
            ([shorter @ .., b'\r'], []) => head = shorter,
            _ => {}
        }
        if head.len() + tail.len() > self.limit {
            return self.cut(prefix, rest, batch);
        }
        emit(prefix, Tag::Full, head, tail, batch);
        // Gives the memory back: most streams end most reads with a whole line.
        self.pending = Vec::new();
        after_newline
    }

    /// Emits a partial line of exactly the limit, out of the pending bytes and `rest`. Returns how many bytes of
    /// `rest` it took.
    fn cut(&mut self, prefix: &Prefix, rest: &[u8], batch: &mut Vec<u8>) -> usize {
        let head = self.pending.len().min(self.limit);
        let taken = self.limit - head;
        emit(prefix, Tag::Partial, &self.pending[..head], &rest[..taken], batch);
        self.pending.drain(..head);
        taken
    }
}

/// Where the first newline is.
fn line_end(window: &[u8]) -> Option<usize> {
    // The standard library's way to the C library's memchr, several times faster than comparing bytes.
    let upto = { window }.skip_until(b'\n').expect("reading a slice does not fail");
    (upto > 0 && window[upto - 1] == b'\n').then(|| upto - 1)
}

fn emit(prefix: &Prefix, tag: Tag, head: &[u8], tail: &[u8], batch: &mut Vec<u8>) {
    batch.reserve(prefix.len() + 3 + head.len() + tail.len());
    batch.extend_from_slice(prefix);
    batch.extend_from_slice(match tag {
        Tag::Full => b"F ",
        Tag::Partial => b"P ",
    });
    batch.extend_from_slice(head);
    batch.extend_from_slice(tail);
    batch.push(b'\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 5;

    /// Feeds the chunks, ends, and returns what the log shows after the stream's name.
    fn split(limit: usize, chunks: &[&[u8]]) -> Vec<String> {
        let (mut lines, mut batch) = (Lines::new(limit), Vec::new());
        let prefix = Source::Stderr.prefix(Duration::from_secs(0));
        for chunk in chunks {
            assert!(lines.feed(&prefix, chunk, &mut batch).is_empty());
            assert!(lines.pending.len() <= limit + 1, "bounded");
        }
        lines.end(&prefix, &mut batch);
        assert!(lines.pending.is_empty());
        let text = String::from_utf8(batch).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        let line = |l: &str| l.strip_prefix("1970-01-01T00:00:00.000000000Z stderr ").unwrap().to_string();
        text.split_terminator('\n').map(line).collect()
    }

    const TABLE: &[(&str, &[&str])] = &[
        ("", &[]),
        ("\n", &["F "]),
        ("\r\n", &["F "]),
        ("\n\n", &["F ", "F "]),
        ("ab\ncd\n", &["F ab", "F cd"]),
        ("ab", &["P ab"]),
        ("a\r\r\n", &["F a\r"]),
        ("a\rb\n", &["F a\rb"]),
        ("ab\r", &["P ab\r"]),
        ("12345\n", &["F 12345"]),
        ("12345\r\n", &["F 12345"]),
        ("12345", &["P 12345"]),
        ("12345\r", &["P 12345", "P \r"]),
        ("12345\rx\n", &["P 12345", "F \rx"]),
        ("12345\r\r\n", &["P 12345", "F \r"]),
        ("123456\n", &["P 12345", "F 6"]),
        ("123456\r\n", &["P 12345", "F 6"]),
        ("123456", &["P 12345", "P 6"]),
        ("1234567890\n", &["P 12345", "F 67890"]),
        ("1234567890\r\n", &["P 12345", "F 67890"]),
        ("12345678901\n\nx", &["P 12345", "P 67890", "F 1", "F ", "P x"]),
        ("1234\r67\n", &["P 1234\r", "F 67"]),
    ];

    #[test]
    fn every_case_at_every_cut() {
        for (input, expected) in TABLE {
            let input = input.as_bytes();
            assert_eq!(split(LIMIT, &[input]), *expected, "{input:?} at once");
            let bytes: Vec<_> = input.chunks(1).collect();
            assert_eq!(split(LIMIT, &bytes), *expected, "{input:?} byte by byte");
            for first in 0..=input.len() {
                for second in first..=input.len() {
                    let chunks = [&input[..first], &input[first..second], &input[second..]];
                    assert_eq!(split(LIMIT, &chunks), *expected, "{input:?} cut at {first} and {second}");
                }
            }
        }
    }

    /// Small and without state: the same seed, the same numbers.
    fn random(seed: &mut u64) -> usize {
        *seed ^= *seed << 13;
        *seed ^= *seed >> 7;
        *seed ^= *seed << 17;
        (*seed >> 33) as usize
    }

    /// The rules said once more, for whole lines held in memory.
    fn by_the_book(limit: usize, input: &[u8]) -> Vec<String> {
        let mut expected = Vec::new();
        for line in input.split_inclusive(|byte| *byte == b'\n') {
            let content = line.strip_suffix(b"\n").map(|l| l.strip_suffix(b"\r").unwrap_or(l));
            let tag = if content.is_some() { 'F' } else { 'P' };
            let mut rest = content.unwrap_or(line);
            while rest.len() > limit {
                expected.push(format!("P {}", String::from_utf8_lossy(&rest[..limit])));
                rest = &rest[limit..];
            }
            expected.push(format!("{tag} {}", String::from_utf8_lossy(rest)));
        }
        expected
    }

    #[test]
    fn random_input_in_random_reads_follows_the_rules() {
        let seed = &mut 0x9E37_79B9_7F4A_7C15;
        for _ in 0..2000 {
            let limit = 1 + random(seed) % 9;
            let input: Vec<u8> = (0..random(seed) % 60).map(|_| b"\n\n\r\rabcdef"[random(seed) % 10]).collect();
            let (mut chunks, mut rest) = (Vec::new(), input.as_slice());
            while !rest.is_empty() {
                let (chunk, after) = rest.split_at((1 + random(seed) % 12).min(rest.len()));
                chunks.push(chunk);
                rest = after;
            }
            assert_eq!(split(limit, &chunks), by_the_book(limit, &input), "limit {limit}, {chunks:?}");
        }
    }

    #[test]
    fn a_full_batch_is_handed_over_at_a_line_end() {
        let (mut lines, prefix) = (Lines::new(16384), Source::Stdout.prefix(Duration::from_secs(0)));
        let input = vec![b'\n'; 10_000];
        let (mut rest, mut batch, mut count) = (input.as_slice(), Vec::new(), 0);
        while !rest.is_empty() {
            rest = lines.feed(&prefix, rest, &mut batch);
            assert!(batch.ends_with(b" stdout F \n") && batch.len() < BATCH + 64);
            count += batch.split_inclusive(|b| *b == b'\n').count();
            batch.clear();
        }
        assert_eq!(count, 10_000);
    }
}
