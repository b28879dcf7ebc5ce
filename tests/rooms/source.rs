//! A source file as words: comments and literals left out, every word with its line, tests marked.

use std::ops::Range;

/// One word of the source: an identifier or number, or a single character of punctuation. A string literal is `""`.
#[derive(Debug)]
pub struct Word {
    pub text: String,
    pub line: usize,
    /// Inside an item under `#[cfg(test)]`.
    pub test: bool,
}

/// A file, read.
pub struct Source {
    /// Relative to the top of the repository, with `/`.
    pub path: String,
    pub text: String,
    pub words: Vec<Word>,
}

/// A path such as `crate::store::Container`, one for every branch of a use tree.
pub struct Named {
    pub line: usize,
    pub test: bool,
    pub parts: Vec<String>,
}

/// One function with a body.
pub struct Function {
    pub name: String,
    pub line: usize,
    pub lines: usize,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        let mut words = words(text);
        for range in test_items(&words) {
            words[range].iter_mut().for_each(|word| word.test = true);
        }
        Source { path: path.to_owned(), text: text.to_owned(), words }
    }

    /// The files of modules that exist only for tests: `#[cfg(test)] mod x;`.
    pub fn test_files(&self) -> Vec<String> {
        let folder = self.path.trim_end_matches(".rs").trim_end_matches("/mod");
        let mods = (0..self.words.len()).filter(|&at| self.words[at].text == "mod" && self.words[at].test);
        mods.filter(|&at| self.reads(at + 2, ";"))
            .map(|at| format!("{folder}/{}.rs", self.words[at + 1].text))
            .collect()
    }

    /// This file exists only for tests.
    pub fn all_test(&mut self) {
        self.words.iter_mut().for_each(|word| word.test = true);
    }

    /// Whether the words from `at` on are these, separated by spaces.
    pub fn reads(&self, at: usize, wanted: &str) -> bool {
        reads(&self.words, at, wanted)
    }

    /// Every path that begins with `root` (`crate`, `grpcio`), use trees taken apart.
    pub fn paths(&self, root: &str) -> Vec<Named> {
        let mut found = Vec::new();
        for at in 0..self.words.len() {
            let inside = at >= 2 && self.reads(at - 2, ": :") && !(at >= 3 && self.words[at - 3].text == "use");
            if self.words[at].text == root && self.reads(at + 1, ": :") && !inside {
                let mut next = at;
                self.branches(&mut next, &[], &mut found);
            }
        }
        found
    }

    /// Reads one use tree or path at `at`, moves `at` behind it, and adds what it names.
    fn branches(&self, at: &mut usize, before: &[String], found: &mut Vec<Named>) {
        let mut parts = before.to_vec();
        while let Some(word) = self.words.get(*at) {
            if word.text == "{" {
                *at += 1;
                while self.words.get(*at).is_some_and(|word| word.text != "}") {
                    let start = *at;
                    self.branches(at, &parts, found);
                    // `as name`, a comma, or anything this does not know.
                    while self.words.get(*at).is_some_and(|word| !["}", ","].contains(&word.text.as_str())) {
                        *at += 1;
                    }
                    *at += usize::from(self.reads(*at, ","));
                    assert!(*at > start, "{}:{}: no use tree", self.path, word.line);
                }
                *at += 1;
                return;
            }
            parts.push(word.text.clone());
            *at += 1;
            if !self.reads(*at, ": :") {
                break;
            }
            *at += 2;
        }
        if let Some(word) = self.words.get(at.saturating_sub(1)) {
            found.push(Named { line: word.line, test: word.test, parts });
        }
    }

    /// Every function that has a body.
    pub fn functions(&self) -> Vec<Function> {
        let mut found = Vec::new();
        for at in 0..self.words.len() {
            let Some(name) = self.words.get(at + 1).filter(|_| self.words[at].text == "fn") else { continue };
            // A pointer type `fn(…)` has no name.
            if name.text == "(" {
                continue;
            }
            let mut depth = 0;
            let body = (at..self.words.len()).find(|&i| {
                match self.words[i].text.as_str() {
                    "(" | "[" => depth += 1,
                    ")" | "]" => depth -= 1,
                    _ => {}
                }
                depth == 0 && ["{", ";"].contains(&self.words[i].text.as_str())
            });
            if let Some(body) = body.filter(|&i| self.words[i].text == "{") {
                let line = self.words[at].line;
                let lines = self.words[closing(&self.words, body)].line - line + 1;
                found.push(Function { name: name.text.clone(), line, lines });
            }
        }
        found
    }

    /// How many lines there are before the tests.
    pub fn lines_before_tests(&self) -> usize {
        let module = |at: usize| self.reads(at, "# [ cfg ( test ) ] mod tests {");
        let first = (0..self.words.len()).find(|&at| module(at) || self.reads(at, "# [ test ]"));
        first.map_or(self.text.lines().count(), |at| self.words[at].line - 1)
    }

    /// How many modules deep the word at `at` is: 0 is the crate's root.
    pub fn depth(&self, at: usize) -> usize {
        let own = self.path.trim_start_matches("src/").trim_end_matches(".rs").trim_end_matches("/mod");
        let inline = (0..at).filter(|&i| {
            self.words[i].text == "mod" && self.reads(i + 2, "{") && (i + 2..=closing(&self.words, i + 2)).contains(&at)
        });
        own.split('/').count() + inline.count()
    }
}

fn reads(words: &[Word], at: usize, wanted: &str) -> bool {
    wanted.split(' ').enumerate().all(|(i, text)| words.get(at + i).is_some_and(|word| word.text == text))
}

/// Where the brace at `open` is closed.
fn closing(words: &[Word], open: usize) -> usize {
    let mut depth = 0;
    let close = (open..words.len()).find(|&i| {
        match words[i].text.as_str() {
            "{" => depth += 1,
            "}" => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    close.unwrap_or(words.len() - 1)
}

/// The items under `#[cfg(test)]`, attribute to end.
fn test_items(words: &[Word]) -> Vec<Range<usize>> {
    let items = (0..words.len()).filter(|&at| reads(words, at, "# [ cfg ( test ) ]"));
    items
        .map(|at| {
            let end = (at..words.len()).find(|&i| ["{", ";"].contains(&words[i].text.as_str()));
            match end {
                Some(i) if words[i].text == "{" => at..closing(words, i) + 1,
                Some(i) => at..i + 1,
                None => at..words.len(),
            }
        })
        .collect()
}

fn words(text: &str) -> Vec<Word> {
    let chars: Vec<char> = text.chars().collect();
    let (mut words, mut at, mut line) = (Vec::new(), 0, 1);
    while at < chars.len() {
        let (end, kept) = word(&chars, at);
        if let Some(text) = kept {
            words.push(Word { text, line, test: false });
        }
        line += chars[at..end].iter().filter(|c| **c == '\n').count();
        at = end;
    }
    words
}

/// Where what starts at `at` ends, and what is kept of it.
fn word(chars: &[char], at: usize) -> (usize, Option<String>) {
    let peek = |i: usize| chars.get(at + i).copied().unwrap_or(' ');
    let starts = |c: char| c.is_alphabetic() || c == '_';
    match (chars[at], peek(1)) {
        (c, _) if c.is_whitespace() => (at + 1, None),
        ('/', '/') => ((at..chars.len()).find(|&i| chars[i] == '\n').unwrap_or(chars.len()), None),
        ('/', '*') => (block_comment(chars, at), None),
        ('"', _) => (string(chars, at), Some("\"\"".to_owned())),
        // A label or lifetime, unless it is closed after one character.
        ('\'', c) if starts(c) && peek(2) != '\'' => (at + 1, None),
        ('\'', c) => {
            let inside = if c == '\\' { at + 3 } else { at + 2 };
            let end = (inside..chars.len()).find(|&i| chars[i] == '\'').unwrap_or(chars.len() - 1);
            (end + 1, Some("\"\"".to_owned()))
        }
        (c, _) if starts(c) || c.is_ascii_digit() => {
            let end =
                (at..chars.len()).find(|&i| !chars[i].is_alphanumeric() && chars[i] != '_').unwrap_or(chars.len());
            let text: String = chars[at..end].iter().collect();
            let quoted = matches!(text.as_str(), "b" | "c" | "r" | "br" | "cr");
            match chars.get(end) {
                Some('"') if quoted && !text.ends_with('r') => (string(chars, end), Some("\"\"".to_owned())),
                Some('"' | '#') if quoted && raw(chars, end).is_some() => {
                    (raw(chars, end).unwrap_or(end), Some("\"\"".to_owned()))
                }
                Some('\'') if text == "b" => (word(chars, end).0, Some("\"\"".to_owned())),
                _ => (end, Some(text)),
            }
        }
        (c, _) => (at + 1, Some(c.to_string())),
    }
}

/// Comments nest.
fn block_comment(chars: &[char], at: usize) -> usize {
    let (mut depth, mut i) = (0, at);
    while i + 1 < chars.len() {
        match (chars[i], chars[i + 1]) {
            ('/', '*') => (depth, i) = (depth + 1, i + 2),
            ('*', '/') => (depth, i) = (depth - 1, i + 2),
            _ => i += 1,
        }
        if depth == 0 {
            return i;
        }
    }
    chars.len()
}

fn string(chars: &[char], quote: usize) -> usize {
    let mut i = quote + 1;
    while i < chars.len() && chars[i] != '"' {
        i += if chars[i] == '\\' { 2 } else { 1 };
    }
    (i + 1).min(chars.len())
}

/// The end of a raw string whose `r` was before `at`; `None` if it is a raw identifier.
fn raw(chars: &[char], at: usize) -> Option<usize> {
    let hashes = chars[at..].iter().take_while(|c| **c == '#').count();
    let quote = at + hashes;
    if chars.get(quote) != Some(&'"') {
        return None;
    }
    let closes = |i: usize| chars[i] == '"' && (1..=hashes).all(|n| chars.get(i + n) == Some(&'#'));
    let end = (quote + 1..chars.len()).find(|&i| closes(i))?;
    Some(end + 1 + hashes)
}
