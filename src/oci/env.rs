//! The environment of a container's first process: defaults, the image's, the request's, later ones in place.

use cricket_proto::runtime::KeyValue;

use crate::error::{Error, Result};

/// What a process finds when nobody says otherwise.
pub const PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// What a program behind a pseudo-terminal expects.
pub const TERM: &str = "TERM=xterm";

/// Refuses what no process could be given.
pub fn check(envs: &[KeyValue]) -> Result<()> {
    for env in envs {
        if env.key.is_empty() || env.key.contains(['=', '\0']) {
            return Err(Error::invalid(format!("environment: {:?} cannot name a variable", env.key)));
        }
        if env.value.contains(&0) {
            return Err(Error::invalid(format!("environment: the value of {} holds a NUL byte", env.key)));
        }
    }
    Ok(())
}

/// The variables in order; none occurs twice.
pub fn merge(hostname: &str, tty: bool, image: &[String], envs: &[KeyValue]) -> Vec<String> {
    let mut all = vec![PATH.to_string(), format!("HOSTNAME={hostname}")];
    if tty {
        all.push(TERM.to_string());
    }
    for entry in image {
        set(&mut all, entry.clone());
    }
    for env in envs {
        // The spec is JSON and JSON is UTF-8; the kubelet wants a pod with other bytes to start all the same.
        set(&mut all, format!("{}={}", env.key, String::from_utf8_lossy(&env.value)));
    }
    all
}

/// Puts `entry` where its key stands already, else at the end. An entry without `=` removes its key, as image
/// builders mean it. One without a name is no variable.
pub fn set(all: &mut Vec<String>, entry: String) {
    let key = key_of(&entry);
    if key.is_empty() {
        return;
    }
    // A pod of a large namespace has hundreds: no entry is searched for its `=`.
    let at = all.iter().position(|e| e.strip_prefix(key).is_some_and(|rest| rest.is_empty() || rest.starts_with('=')));
    match (at, entry.contains('=')) {
        (Some(at), true) => all[at] = entry,
        (None, true) => all.push(entry),
        (Some(at), false) => drop(all.remove(at)),
        (None, false) => {}
    }
}

fn key_of(entry: &str) -> &str {
    entry.split_once('=').map_or(entry, |(key, _)| key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn pair(key: &str, value: &[u8]) -> KeyValue {
        KeyValue { key: key.into(), value: value.into(), ..Default::default() }
    }

    #[test]
    fn later_wins_in_place() {
        type Case<'a> = (bool, &'a [&'a str], &'a [(&'a str, &'a str)], &'a [&'a str]);
        let cases: &[Case] = &[
            (false, &[], &[], &[PATH, "HOSTNAME=web"]),
            (true, &[], &[], &[PATH, "HOSTNAME=web", TERM]),
            (false, &["PATH=/bin", "A=1"], &[("A", "2"), ("B", "3")], &["PATH=/bin", "HOSTNAME=web", "A=2", "B=3"]),
            (true, &["TERM=dumb"], &[("HOSTNAME", "mine")], &[PATH, "HOSTNAME=mine", "TERM=dumb"]),
            // The first `=` ends the key, every other one is value.
            (false, &["A=x=y"], &[("A", "=b==c=")], &[PATH, "HOSTNAME=web", "A==b==c="]),
            (false, &["A="], &[("AB", "")], &[PATH, "HOSTNAME=web", "A=", "AB="]),
            (false, &["PATH", "NOTHING"], &[], &["HOSTNAME=web"]),
            (false, &["=nameless", ""], &[], &[PATH, "HOSTNAME=web"]),
            (false, &[], &[("A", "1"), ("B", "2"), ("A", "3")], &[PATH, "HOSTNAME=web", "A=3", "B=2"]),
        ];
        for (tty, image, envs, expected) in cases {
            let image: Vec<String> = image.iter().map(|s| s.to_string()).collect();
            let envs: Vec<KeyValue> = envs.iter().map(|(k, v)| pair(k, v.as_bytes())).collect();
            assert_eq!(merge("web", *tty, &image, &envs), *expected, "{image:?} {envs:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_become_replacement_characters() {
        assert_eq!(merge("h", false, &[], &[pair("A", b"x\xffy")])[2], "A=x\u{fffd}y");
    }

    #[test]
    fn refused() {
        for bad in [pair("", b"x"), pair("A=B", b"x"), pair("A\0", b"x"), pair("A", b"x\0y")] {
            assert_eq!(check(std::slice::from_ref(&bad)).map_err(|e| e.kind()), Err(Kind::InvalidArgument), "{bad:?}");
        }
        assert!(check(&[pair("A-b.C", b"\xff")]).is_ok());
    }
}
