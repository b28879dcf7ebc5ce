//! Just enough JSON to find a text in a runtime spec or in a line of a runtime's log.
//!
//! Pure. Nothing is built: the text is walked once, and what is asked for is copied out. Never panics, never recurses.

/// The text at the end of a path of keys, such as `["annotations", "group"]`; `None` if there is none or the document
/// is broken before it.
pub fn text_at(json: &str, path: &[&str]) -> Option<String> {
    let mut at = value_at(json, path)?;
    at.string()
}

/// The document's part at the end of a path of keys, to be looked at further.
pub fn part_at<'a>(json: &'a str, path: &[&str]) -> Option<&'a str> {
    let mut at = value_at(json, path)?;
    let from = at.at;
    at.skip()?;
    json.get(from..at.at)
}

/// The parts of an array.
pub fn elements(json: &str) -> Vec<&str> {
    let (mut walk, mut found) = (Walk { text: json, at: 0 }, Vec::new());
    if walk.next() != Some(b'[') {
        return found;
    }
    while walk.peek().is_some_and(|b| b != b']') {
        let from = walk.at;
        if walk.skip().is_none() {
            break;
        }
        found.push(&json[from..walk.at]);
        if walk.peek() == Some(b',') {
            walk.at += 1;
        }
    }
    found
}

fn value_at<'a>(json: &'a str, path: &[&str]) -> Option<Walk<'a>> {
    let mut walk = Walk { text: json, at: 0 };
    for key in path {
        walk.enter(key)?;
    }
    walk.peek()?;
    Some(walk)
}

/// A position in a document.
struct Walk<'a> {
    text: &'a str,
    at: usize,
}

impl Walk<'_> {
    /// The next byte that is no white space, not taken.
    fn peek(&mut self) -> Option<u8> {
        let bytes = self.text.as_bytes();
        while bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
        bytes.get(self.at).copied()
    }

    fn next(&mut self) -> Option<u8> {
        let byte = self.peek()?;
        self.at += 1;
        Some(byte)
    }

    /// Goes to the value of `key` in the object that begins here.
    fn enter(&mut self, key: &str) -> Option<()> {
        if self.next()? != b'{' {
            return None;
        }
        loop {
            let found = self.string()?;
            if self.next()? != b':' {
                return None;
            }
            if found == key {
                return Some(());
            }
            self.skip()?;
            if self.next()? != b',' {
                return None;
            }
        }
    }

    /// Takes the string that begins here.
    fn string(&mut self) -> Option<String> {
        if self.next()? != b'"' {
            return None;
        }
        let mut value = String::new();
        loop {
            let rest = self.text.get(self.at..)?;
            let plain = rest.find(['"', '\\'])?;
            value.push_str(&rest[..plain]);
            self.at += plain + 1;
            if rest.as_bytes()[plain] == b'"' {
                return Some(value);
            }
            let escape = self.text.as_bytes().get(self.at).copied()?;
            self.at += 1;
            value.push(match escape {
                b'n' => '\n',
                b't' => '\t',
                b'r' => '\r',
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'u' => self.unicode()?,
                b'"' | b'\\' | b'/' => escape as char,
                _ => return None,
            });
        }
    }

    /// The four digits of an escape, or two escapes that are one character together.
    fn unicode(&mut self) -> Option<char> {
        let high = self.digits()?;
        if !(0xd800..0xdc00).contains(&high) {
            return Some(char::from_u32(high).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        if !self.text.get(self.at..)?.starts_with("\\u") {
            return Some(char::REPLACEMENT_CHARACTER);
        }
        let alone = self.at;
        self.at += 2;
        let low = self.digits()?;
        if !(0xdc00..0xe000).contains(&low) {
            // A character of its own.
            self.at = alone;
            return Some(char::REPLACEMENT_CHARACTER);
        }
        char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))
    }

    fn digits(&mut self) -> Option<u32> {
        let digits = self.text.get(self.at..self.at + 4)?;
        self.at += 4;
        // A sign is none.
        digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| u32::from_str_radix(digits, 16).ok())?
    }

    /// Goes behind the value that begins here.
    fn skip(&mut self) -> Option<()> {
        let mut depth = 0usize;
        loop {
            match self.peek()? {
                b'"' => {
                    self.string()?;
                }
                b'{' | b'[' => {
                    depth += 1;
                    self.at += 1;
                    continue;
                }
                b'}' | b']' => {
                    depth = depth.checked_sub(1)?;
                    self.at += 1;
                }
                b',' | b':' if depth > 0 => {
                    self.at += 1;
                    continue;
                }
                _ => {
                    let rest = &self.text.as_bytes()[self.at..];
                    let ends = |b: &u8| b",:]}\"[{".contains(b) || b.is_ascii_whitespace();
                    let length = rest.iter().position(ends).unwrap_or(rest.len());
                    if length == 0 {
                        return None;
                    }
                    self.at += length;
                }
            }
            if depth == 0 {
                return Some(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPEC: &str = r#"{ "ociVersion": "1.1.0", "process": {"args": ["sh", "-c", "echo \"}\""], "n": -1.5e3, "ok": true},
        "linux": {"namespaces": [{"type": "pid"}, {"type":"network","path":"\/run\/netns\/x"}] },
        "annotations": { "a": "", "b\u00e9\ud83d\ude00": "tab\tnew\nline\u0041", "empty": {} } }"#;

    #[test]
    fn texts_are_found_and_unescaped() {
        assert_eq!(text_at(SPEC, &["ociVersion"]).as_deref(), Some("1.1.0"));
        assert_eq!(text_at(SPEC, &["annotations", "a"]).as_deref(), Some(""));
        assert_eq!(text_at(SPEC, &["annotations", "b\u{e9}\u{1f600}"]).as_deref(), Some("tab\tnew\nlineA"));
        for path in [
            &["annotations", "c"][..],
            &["annotations", "empty", "x"],
            &["process", "n"],
            &["process", "args", "x"],
            &["x"],
        ] {
            assert_eq!(text_at(SPEC, path), None, "{path:?}");
        }
        assert_eq!(part_at(SPEC, &["process", "n"]), Some("-1.5e3"));
    }

    #[test]
    fn half_a_pair_is_no_character() {
        let of = |escapes: &str| text_at(&format!("{{\"a\":\"{escapes}\"}}"), &["a"]);
        for (escapes, text) in [
            (r"\ud83d\ude00", "\u{1f600}"),
            (r"\ud83d\ubde0", "\u{fffd}\u{bde0}"),
            (r"\ud83d\ud83d\ude00", "\u{fffd}\u{1f600}"),
            (r"\ud83d.", "\u{fffd}."),
            (r"\ude00", "\u{fffd}"),
        ] {
            assert_eq!(of(escapes).as_deref(), Some(text), "{escapes}");
        }
        assert_eq!(of(r"\u+12a"), None);
    }

    #[test]
    fn arrays_are_taken_apart() {
        let namespaces = elements(part_at(SPEC, &["linux", "namespaces"]).expect("there"));
        assert_eq!(namespaces.len(), 2);
        assert_eq!(text_at(namespaces[1], &["path"]).as_deref(), Some("/run/netns/x"));
        assert!(elements("{}").is_empty() && elements("[]").is_empty() && elements("").is_empty());
        assert_eq!(elements("[1, [2,3], \"x\"]"), ["1", "[2,3]", "\"x\""]);
    }

    #[test]
    fn a_broken_document_is_no_trouble() {
        for n in (0..SPEC.len()).filter(|n| SPEC.is_char_boundary(*n)) {
            text_at(&SPEC[..n], &["annotations", "z"]);
            elements(&SPEC[n..]);
            text_at(&SPEC[n..], &["linux", "namespaces"]);
        }
        let deep = "[".repeat(1 << 20);
        assert_eq!(part_at(&deep, &[]), None);
        assert_eq!(text_at(&format!("{{\"a\":{deep}"), &["b"]), None);
    }
}
