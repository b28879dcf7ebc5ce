//! What a registry asks for with a 401: `WWW-Authenticate`, parsed.

use std::collections::BTreeMap;

/// One way in that a registry offers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// Name and password with every request.
    Basic,
    /// A token from somewhere else.
    Bearer {
        /// The token server.
        realm: String,
        /// What the registry calls itself there.
        service: String,
        /// What to ask for; empty if it does not say.
        scope: String,
        /// Why the last token was refused, as `insufficient_scope`.
        error: String,
    },
}

/// The challenges of one header, which may hold several; those that we do not know are left out.
pub fn parse(header: &str) -> Vec<Challenge> {
    let mut found: Vec<(String, BTreeMap<String, String>)> = Vec::new();
    let mut rest = header.trim_start_matches([' ', ',']);
    while !rest.is_empty() {
        let end = rest.find([' ', '=', ',']).unwrap_or(rest.len());
        let (word, after) = rest.split_at(end);
        let after = after.trim_start_matches(' ');
        match (after.strip_prefix('='), found.last_mut()) {
            (Some(after), Some((_, parameters))) if !word.is_empty() => {
                let (value, after) = value(after.trim_start_matches(' '));
                parameters.insert(word.to_ascii_lowercase(), value);
                rest = after;
            }
            (Some(_), _) => return Vec::new(),
            (None, _) => {
                found.push((word.to_ascii_lowercase(), BTreeMap::new()));
                rest = after;
            }
        }
        rest = rest.trim_start_matches([' ', ',']);
    }
    found.into_iter().filter_map(|(scheme, parameters)| known(&scheme, parameters)).collect()
}

fn known(scheme: &str, mut parameters: BTreeMap<String, String>) -> Option<Challenge> {
    let mut take = |key: &str| parameters.remove(key).unwrap_or_default();
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: Some(take("realm")).filter(|realm| !realm.is_empty())?,
            service: take("service"),
            scope: take("scope"),
            error: take("error"),
        }),
        _ => None,
    }
}

/// A value, quoted or not, and what follows it.
fn value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut characters = quoted.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(characters.next().map(|(_, escaped)| escaped)),
            other => value.push(other),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bearer(realm: &str, service: &str, scope: &str, error: &str) -> Challenge {
        let own = str::to_owned;
        Challenge::Bearer { realm: own(realm), service: own(service), scope: own(scope), error: own(error) }
    }

    #[test]
    fn what_registries_send() {
        for (header, expected) in [
            (
                r#"Bearer realm="https://auth.x/t",service="registry.x",scope="repository:a/b:pull,push""#,
                vec![bearer("https://auth.x/t", "registry.x", "repository:a/b:pull,push", "")],
            ),
            (r#"basic realm="R", charset="UTF-8""#, vec![Challenge::Basic]),
            ("Basic", vec![Challenge::Basic]),
            (
                r#"Negotiate, Basic realm="a \" b", Bearer realm=https://x/t , error="insufficient_scope""#,
                vec![Challenge::Basic, bearer("https://x/t", "", "", "insufficient_scope")],
            ),
            ("Digest realm=\"x\"", vec![]),
            ("Bearer service=\"x\"", vec![]),
            ("", vec![]),
            ("realm=\"x\"", vec![]),
            ("Bearer realm=\"never closed", vec![bearer("never closed", "", "", "")]),
        ] {
            assert_eq!(parse(header), expected, "{header}");
        }
    }
}
