//! Patterns for names of annotations, as Go's `path.Match` reads them: `*` and `?` stop at a slash, `[a-z]`, `\` quotes.

/// One element of a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Element {
    /// Any characters but a slash, maybe none.
    Any,
    /// One character but a slash.
    One,
    /// One of these ranges, or none of them; never a slash.
    Class { negated: bool, ranges: Vec<(char, char)> },
    /// This character.
    Plain(char),
}

/// Whether `pattern` is one.
pub fn is_valid(pattern: &str) -> bool {
    parse(pattern).is_some()
}

/// Whether the whole of `text` fits `pattern`. What is no pattern fits nothing.
pub fn matches(pattern: &str, text: &str) -> bool {
    let Some(pattern) = parse(pattern) else { return false };
    let text: Vec<char> = text.chars().collect();
    let (mut at, mut seen) = (0, 0);
    // Where the last `*` is, and how far it reaches by now. Growing only the last one is enough: an earlier one that
    // took more would leave less for it.
    let mut star: Option<(usize, usize)> = None;
    while seen < text.len() {
        match pattern.get(at) {
            Some(Element::Any) => {
                star = Some((at, seen));
                at += 1;
                continue;
            }
            Some(element) if element.fits(text[seen]) => {
                (at, seen) = (at + 1, seen + 1);
                continue;
            }
            _ => {}
        }
        match star {
            Some((of, reach)) if text[reach] != '/' => {
                star = Some((of, reach + 1));
                (at, seen) = (of + 1, reach + 1);
            }
            _ => return false,
        }
    }
    pattern[at..].iter().all(|element| *element == Element::Any)
}

impl Element {
    fn fits(&self, c: char) -> bool {
        match self {
            Element::Any => false,
            Element::One => c != '/',
            Element::Class { negated, ranges } => {
                c != '/' && *negated != ranges.iter().any(|(low, high)| (*low..=*high).contains(&c))
            }
            Element::Plain(own) => c == *own,
        }
    }
}

fn parse(pattern: &str) -> Option<Vec<Element>> {
    let mut rest = pattern.chars();
    let mut all = Vec::new();
    while let Some(c) = rest.next() {
        all.push(match c {
            '*' => Element::Any,
            '?' => Element::One,
            '[' => class(&mut rest)?,
            '\\' => Element::Plain(rest.next()?),
            plain => Element::Plain(plain),
        });
    }
    Some(all)
}

/// What follows `[`, up to and with `]`.
fn class(rest: &mut std::str::Chars<'_>) -> Option<Element> {
    let negated = rest.as_str().starts_with('^');
    if negated {
        rest.next();
    }
    let mut ranges = Vec::new();
    loop {
        let low = match rest.next()? {
            ']' if !ranges.is_empty() => return Some(Element::Class { negated, ranges }),
            ']' | '-' => return None,
            '\\' => rest.next()?,
            plain => plain,
        };
        let mut high = low;
        if rest.as_str().starts_with('-') {
            rest.next();
            high = match rest.next()? {
                ']' | '-' => return None,
                '\\' => rest.next()?,
                plain => plain,
            };
        }
        if low > high {
            return None;
        }
        ranges.push((low, high));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fits() {
        for (pattern, text) in [
            ("io.katacontainers.*", "io.katacontainers.config"),
            ("*", ""),
            ("*", "plain"),
            ("a*b*c", "aXbYbZc"),
            ("*/*", "group/name"),
            ("a?c", "abc"),
            ("[a-c]x", "bx"),
            ("[^a-c]x", "dx"),
            ("[\\]]", "]"),
            ("\\*", "*"),
            ("exact", "exact"),
            ("a**", "a"),
            ("*é", "xé"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn does_not_fit() {
        for (pattern, text) in [
            ("*", "a/b"),
            ("a*", "a/b"),
            ("?", "/"),
            ("[^a]", "/"),
            ("exact", "exactly"),
            ("exact", "exac"),
            ("", "x"),
            ("a?c", "ac"),
            ("[a-c]", "d"),
            ("\\*", "x"),
            ("*a*b", "a/b"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }

    #[test]
    fn what_is_no_pattern() {
        for pattern in ["[", "[]", "[a", "[a-", "[a-]", "[z-a]", "[-a]", "\\", "[\\"] {
            assert!(!is_valid(pattern) && !matches(pattern, pattern), "{pattern}");
        }
        assert!(is_valid("a*[b-d]?\\["));
    }

    #[test]
    fn many_stars_take_no_time() {
        let pattern = "*a".repeat(200);
        assert!(!matches(&pattern, &"a".repeat(199)));
        assert!(!matches(&pattern, &format!("{}b", "a".repeat(5000))));
    }
}
