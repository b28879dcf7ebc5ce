//! The YAML that device specifications are written in, as JSON values: block and flow collections, plain and quoted
//! scalars, comments. Anchors, aliases, tags, block scalars and several documents are refused, never misread.

use serde_json::{Map, Number, Value};

use crate::error::{Error, Result};

/// Collections within collections.
const MAX_DEPTH: usize = 32;

/// Reads one document. JSON is YAML too, except for control characters that it escapes.
///
/// # Errors
/// `InvalidArgument` with the number of the line.
pub fn parse(text: &str) -> Result<Value> {
    let mut lines = Vec::new();
    for (n, raw) in text.lines().enumerate() {
        let line = Line::of(n + 1, raw)?;
        match line.text {
            "" => {}
            "---" if lines.is_empty() => {}
            "..." => break,
            "---" => return Err(line.bad("a second document")),
            _ => lines.push(line),
        }
    }
    let mut parser = Parser { lines, at: 0 };
    let value = match parser.peek() {
        None => Value::Null,
        Some(first) => parser.block(first.indent, 0)?,
    };
    match parser.peek() {
        None => Ok(value),
        Some(line) => Err(line.bad("what is written here does not belong to what is above")),
    }
}

/// A line without indentation, comment and white space at its end.
#[derive(Clone, Copy, Debug)]
struct Line<'a> {
    number: usize,
    indent: usize,
    text: &'a str,
}

impl<'a> Line<'a> {
    fn of(number: usize, raw: &'a str) -> Result<Line<'a>> {
        let text = raw.trim_start_matches(' ');
        let line = Line { number, indent: raw.len() - text.len(), text: strip_comment(text).trim_end() };
        match text.starts_with('\t') && !line.text.trim().is_empty() {
            true => Err(line.bad("a tab in the indentation")),
            false => Ok(Line { text: line.text.trim(), ..line }),
        }
    }

    fn bad(&self, why: &str) -> Error {
        Error::invalid(format!("line {}: {why}", self.number))
    }
}

/// Cuts a comment off: `#` at the beginning or after white space, outside of quotes.
fn strip_comment(text: &str) -> &str {
    let mut quote = None;
    let mut before = ' ';
    for (at, c) in text.char_indices() {
        match quote {
            Some('"') if before == '\\' && c == '"' => {}
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '#' && before.is_whitespace() => return &text[..at],
            // A quote opens only where a scalar begins.
            None if matches!(c, '"' | '\'') && matches!(before, ' ' | '[' | '{' | ',' | ':') => quote = Some(c),
            None => {}
        }
        // An escaped backslash escapes nothing.
        before = if before == '\\' && c == '\\' { ' ' } else { c };
    }
    text
}

struct Parser<'a> {
    lines: Vec<Line<'a>>,
    at: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self) -> Option<Line<'a>> {
        self.lines.get(self.at).copied()
    }

    /// The collection or scalar that begins at the current line, which is indented by `indent`.
    fn block(&mut self, indent: usize, depth: usize) -> Result<Value> {
        let Some(line) = self.peek() else { return Ok(Value::Null) };
        if depth > MAX_DEPTH {
            return Err(line.bad("nested too deep"));
        }
        if is_item(line.text) {
            return self.sequence(indent, depth);
        }
        match split_key(&line)? {
            Some(_) => self.mapping(indent, depth),
            None => {
                self.at += 1;
                self.flow(line, line.text)
            }
        }
    }

    fn sequence(&mut self, indent: usize, depth: usize) -> Result<Value> {
        let mut all = Vec::new();
        while let Some(line) = self.peek().filter(|l| l.indent == indent && is_item(l.text)) {
            let rest = line.text[1..].trim_start();
            if rest.is_empty() {
                self.at += 1;
                all.push(self.below(indent, depth)?);
                continue;
            }
            // What follows the dash is a block of its own, as deep as it stands in the line.
            let inner = indent + line.text.len() - rest.len();
            self.lines[self.at] = Line { indent: inner, text: rest, ..line };
            all.push(self.block(inner, depth + 1)?);
        }
        Ok(Value::Array(all))
    }

    fn mapping(&mut self, indent: usize, depth: usize) -> Result<Value> {
        let mut all = Map::new();
        while let Some(line) = self.peek().filter(|l| l.indent == indent && !is_item(l.text)) {
            let (key, rest) = split_key(&line)?.ok_or_else(|| line.bad("a key and a colon are expected"))?;
            self.at += 1;
            let value = match rest {
                // A list may stand as far left as the key it belongs to.
                "" if self.peek().is_some_and(|l| l.indent == indent && is_item(l.text)) => {
                    self.sequence(indent, depth + 1)?
                }
                "" => self.below(indent, depth)?,
                rest => self.flow(line, rest)?,
            };
            if all.insert(key.clone(), value).is_some() {
                return Err(line.bad(&format!("the key {key:?} is there twice")));
            }
        }
        Ok(Value::Object(all))
    }

    /// The block under a key or a dash; null if there is none.
    fn below(&mut self, indent: usize, depth: usize) -> Result<Value> {
        match self.peek() {
            Some(next) if next.indent > indent => self.block(next.indent, depth + 1),
            _ => Ok(Value::Null),
        }
    }

    /// A value that begins in `line` with `text`; a flow collection may go on in the lines that follow.
    fn flow(&mut self, line: Line<'a>, text: &str) -> Result<Value> {
        let mut whole = text.to_owned();
        loop {
            let mut flow = Flow { line, rest: &whole };
            match flow.value(0) {
                Ok(Some(value)) if flow.rest.trim().is_empty() => return Ok(value),
                Ok(Some(_)) => return Err(line.bad("something follows a value")),
                Ok(None) => {}
                Err(e) => return Err(e),
            }
            let next = self.peek().ok_or_else(|| line.bad("it has no end"))?;
            self.at += 1;
            whole = format!("{whole} {}", next.text);
        }
    }
}

fn is_item(text: &str) -> bool {
    text == "-" || text.starts_with("- ")
}

/// The key of a line and what follows its colon; `None` if the line is no entry of a mapping.
fn split_key<'a>(line: &Line<'a>) -> Result<Option<(String, &'a str)>> {
    let text = line.text;
    if text.starts_with(['[', '{']) {
        return Ok(None);
    }
    if text.starts_with(['"', '\'']) {
        let mut flow = Flow { line: *line, rest: text };
        let key = flow.quoted()?.ok_or_else(|| line.bad("a quote has no end"))?;
        let rest = text[text.len() - flow.rest.len()..].trim_start();
        return Ok(rest.strip_prefix(':').map(|rest| (key, rest.trim())));
    }
    let end = text.find(": ").or_else(|| text.ends_with(':').then(|| text.len() - 1));
    let Some(end) = end else { return Ok(None) };
    let key = &text[..end];
    if key.starts_with(['?', '&', '*', '!', '|', '>', '%', '@', '`']) {
        return Err(line.bad(&format!("{key:?} is no plain key")));
    }
    Ok(Some((key.trim().to_owned(), text[end + 1..].trim())))
}

/// A value within a line, or several joined.
struct Flow<'t, 'l> {
    line: Line<'l>,
    rest: &'t str,
}

impl Flow<'_, '_> {
    /// `None` if the text ends too early.
    fn value(&mut self, depth: usize) -> Result<Option<Value>> {
        self.rest = self.rest.trim_start();
        if depth > MAX_DEPTH {
            return Err(self.line.bad("nested too deep"));
        }
        match self.rest.chars().next() {
            None => Ok(None),
            Some('[') => self.list(depth),
            Some('{') => self.map(depth),
            Some('"' | '\'') => Ok(self.quoted()?.map(Value::String)),
            Some(c @ ('&' | '*' | '!' | '|' | '>' | '%' | '@' | '`')) => {
                Err(self.line.bad(&format!("values that begin with {c} are not supported")))
            }
            Some(_) => Ok(Some(self.plain(depth > 0))),
        }
    }

    fn list(&mut self, depth: usize) -> Result<Option<Value>> {
        let mut all = Vec::new();
        self.rest = self.rest[1..].trim_start();
        loop {
            if let Some(rest) = self.rest.strip_prefix(']') {
                self.rest = rest;
                return Ok(Some(Value::Array(all)));
            }
            let Some(value) = self.value(depth + 1)? else { return Ok(None) };
            all.push(value);
            if !self.separator(']')? {
                return Ok(None);
            }
        }
    }

    fn map(&mut self, depth: usize) -> Result<Option<Value>> {
        let mut all = Map::new();
        self.rest = self.rest[1..].trim_start();
        loop {
            if let Some(rest) = self.rest.strip_prefix('}') {
                self.rest = rest;
                return Ok(Some(Value::Object(all)));
            }
            let key = match self.rest.chars().next() {
                None => return Ok(None),
                Some('"' | '\'') => match self.quoted()? {
                    Some(key) => key,
                    None => return Ok(None),
                },
                Some(_) => {
                    let end = self.rest.find(':').ok_or_else(|| self.line.bad("a key without a colon"))?;
                    let (key, rest) = self.rest.split_at(end);
                    self.rest = rest;
                    key.trim().to_owned()
                }
            };
            let rest = self.rest.trim_start().strip_prefix(':');
            self.rest = rest.ok_or_else(|| self.line.bad("a key without a colon"))?;
            let Some(value) = self.value(depth + 1)? else { return Ok(None) };
            all.insert(key, value);
            if !self.separator('}')? {
                return Ok(None);
            }
        }
    }

    /// Past a comma, or to the end of the collection; `false` if the text ends too early.
    fn separator(&mut self, end: char) -> Result<bool> {
        self.rest = self.rest.trim_start();
        match self.rest.chars().next() {
            None => Ok(false),
            Some(',') => {
                self.rest = self.rest[1..].trim_start();
                Ok(true)
            }
            Some(c) if c == end => Ok(true),
            Some(c) => Err(self.line.bad(&format!("{c} where a comma or {end} is expected"))),
        }
    }

    /// A quoted scalar, its end on the same line; `None` if the text ends too early.
    fn quoted(&mut self) -> Result<Option<String>> {
        let mut made = String::new();
        let mut chars = self.rest.char_indices();
        let quote = chars.next().map(|(_, c)| c);
        while let Some((at, c)) = chars.next() {
            if c == '\\' && quote == Some('"') {
                let Some((_, escaped)) = chars.next() else { return Ok(None) };
                made.push(match escaped {
                    'n' => '\n',
                    't' => '\t',
                    '"' | '\\' | '/' => escaped,
                    _ => return Err(self.line.bad(&format!("\\{escaped} is not supported"))),
                });
            } else if Some(c) == quote {
                let rest = &self.rest[at + 1..];
                if c == '\'' && rest.starts_with('\'') {
                    made.push('\'');
                    chars.next();
                    continue;
                }
                self.rest = rest;
                return Ok(Some(made));
            } else {
                made.push(c);
            }
        }
        Ok(None)
    }

    fn plain(&mut self, inside: bool) -> Value {
        let end = if inside { self.rest.find([',', ']', '}']) } else { None };
        let (text, rest) = self.rest.split_at(end.unwrap_or(self.rest.len()));
        self.rest = rest;
        scalar(text.trim())
    }
}

/// What a plain scalar means, with octal numbers as other readers of these files have them.
fn scalar(text: &str) -> Value {
    let digits = |radix: u32, text: &str| i64::from_str_radix(text, radix).ok().map(|n| Value::Number(n.into()));
    let octal = text.strip_prefix("0o").or_else(|| text.strip_prefix('0').filter(|rest| !rest.is_empty()));
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "true" | "True" | "TRUE" => return Value::Bool(true),
        "false" | "False" | "FALSE" => return Value::Bool(false),
        _ => {}
    }
    let number = text.strip_prefix("0x").and_then(|hex| digits(16, hex)).or_else(|| octal.and_then(|o| digits(8, o)));
    let number = number.or_else(|| digits(10, text).filter(|_| !text.starts_with('+')));
    let fraction = || {
        let numeric = text.contains('.') && text.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'-'));
        text.parse().ok().filter(|_| numeric).and_then(Number::from_f64).map(Value::Number)
    };
    number.or_else(fraction).unwrap_or_else(|| Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_specification_as_tools_write_it() {
        let text = r#"---
# made by a tool
cdiVersion: 0.5.0
kind: acme.com/gpu
containerEdits:
  env:
  - ACME=all # all of them
  - "QUOTED=a # b"
  hooks:
  - hookName: createContainer
    path: /usr/bin/acme-hook
    args: [acme-hook, "--flag", 'it''s']
    timeout: 5
devices:
- name: "0"
  containerEdits:
    deviceNodes:
    - path: /dev/acme0
      fileMode: 0660
      permissions: rw
    - {path: /dev/acmectl, type: c, major: 195, minor: 255}
-
  name: gpu1
  annotations: {}
  containerEdits:
    mounts:
      - hostPath: /usr/lib/acme.so
        containerPath: /usr/lib/acme.so
        options: [ro,
          bind]
"#;
        let expected = json!({
            "cdiVersion": "0.5.0",
            "kind": "acme.com/gpu",
            "containerEdits": {
                "env": ["ACME=all", "QUOTED=a # b"],
                "hooks": [{
                    "hookName": "createContainer", "path": "/usr/bin/acme-hook",
                    "args": ["acme-hook", "--flag", "it's"], "timeout": 5,
                }],
            },
            "devices": [
                {"name": "0", "containerEdits": {"deviceNodes": [
                    {"path": "/dev/acme0", "fileMode": 0o660, "permissions": "rw"},
                    {"path": "/dev/acmectl", "type": "c", "major": 195, "minor": 255},
                ]}},
                {"name": "gpu1", "annotations": {}, "containerEdits": {"mounts": [{
                    "hostPath": "/usr/lib/acme.so", "containerPath": "/usr/lib/acme.so", "options": ["ro", "bind"],
                }]}},
            ],
        });
        assert_eq!(parse(text).expect("valid"), expected);
    }

    #[test]
    fn json_is_yaml() {
        let value = json!({"a": [1, {"b": "c: d"}, null, true], "e": {}, "f": "x\ny", "g": -1.5, "h": []});
        for text in [value.to_string(), serde_json::to_string_pretty(&value).expect("JSON")] {
            assert_eq!(parse(&text).expect("valid"), value, "{text}");
        }
    }

    #[test]
    fn scalars() {
        let cases = [
            ("1", json!(1)),
            ("-7", json!(-7)),
            ("0660", json!(0o660)),
            ("0o17", json!(15)),
            ("0x1f", json!(31)),
            ("0", json!(0)),
            ("1.5", json!(1.5)),
            ("0.5.0", json!("0.5.0")),
            ("089", json!(89)),
            ("~", Value::Null),
            ("yes", json!("yes")),
            ("a:b#c", json!("a:b#c")),
            ("'1'", json!("1")),
            ("c", json!("c")),
            ("acme.com/gpu=0", json!("acme.com/gpu=0")),
        ];
        for (text, expected) in cases {
            assert_eq!(parse(&format!("k: {text}")).expect(text), json!({"k": expected}), "{text}");
        }
        assert_eq!(parse("").expect("empty"), Value::Null);
        assert_eq!(parse("# only this\n").expect("empty"), Value::Null);
    }

    #[test]
    fn what_is_not_understood_is_refused_with_its_line() {
        let cases = [
            ("a: &x 1", "line 1"),
            ("a: 1\nb: *x", "line 2"),
            ("a: |\n  text", "line 1"),
            ("a: !!str 1", "line 1"),
            ("a: 1\n---\nb: 2", "line 2"),
            ("a: 1\n  b: 2", "line 2"),
            ("a: [1", "line 1"),
            ("a: \"x", "line 1"),
            ("a: 1\na: 2", "twice"),
            ("a:\n\tb: 1", "tab"),
            ("- 1\nb: 2", "line 2"),
            ("a: [1] 2", "line 1"),
            ("a: {b}", "colon"),
            ("a: \"\\x41\"", "\\x"),
            ("? a\n: b", "line 2"),
        ];
        for (text, expected) in cases {
            let e = parse(text).expect_err(text).to_string();
            assert!(e.contains(expected), "{text:?}: {e}");
        }
        let deep = "- ".repeat(100);
        assert!(parse(&format!("{deep}x")).expect_err("deep").to_string().contains("too deep"));
        assert!(parse(&"[".repeat(100)).is_err());
    }

    #[test]
    fn no_text_makes_it_panic() {
        // A fixed walk over short texts of the characters that mean something.
        let alphabet = ['a', ':', ' ', '-', '\n', '[', ']', '{', '}', '"', '\'', '#', ',', '\\', '0', 'é'];
        let mut state = 1u64;
        for _ in 0..20_000 {
            let mut text = String::new();
            for _ in 0..12 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                text.push(alphabet[(state >> 60) as usize]);
            }
            parse(&text).ok();
        }
    }
}
