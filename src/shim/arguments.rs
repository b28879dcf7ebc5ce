//! The command line by which containerd runs a shim: flags of one dash, then a verb.

use std::path::PathBuf;

use crate::error::{Error, Result};

/// What we are to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Say where the shim of this container serves, after starting it if need be.
    Start,
    /// Clean up what a shim that is gone has left.
    Delete,
    /// Say what we are.
    Info,
    /// The same, for people.
    Version,
    /// Serve; only `start` runs this.
    Serve,
}

/// A parsed command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arguments {
    /// What to do.
    pub verb: Verb,
    /// containerd's namespace.
    pub namespace: String,
    /// The container.
    pub id: String,
    /// containerd's socket.
    pub address: String,
    /// The container's directory; only with `delete`.
    pub bundle: Option<PathBuf>,
    /// Say more.
    pub debug: bool,
}

impl Arguments {
    /// Reads the words after the program's name.
    ///
    /// # Errors
    /// `InvalidArgument` for what containerd does not send.
    pub fn read(mut words: impl Iterator<Item = String>) -> Result<Arguments> {
        let (mut verb, mut namespace, mut id, mut address) = (None, String::new(), String::new(), String::new());
        let (mut bundle, mut debug) = (None, false);
        while let Some(word) = words.next() {
            let Some(flag) = word.strip_prefix('-') else {
                verb = Some(match word.as_str() {
                    "start" => Verb::Start,
                    "delete" => Verb::Delete,
                    "serve" => Verb::Serve,
                    _ => return Err(Error::invalid(format!("{word} is not a verb of a shim: start or delete"))),
                });
                continue;
            };
            let flag = flag.strip_prefix('-').unwrap_or(flag);
            let (flag, attached) = flag.split_once('=').map_or((flag, None), |(f, v)| (f, Some(v.to_owned())));
            match flag {
                "info" => verb = verb.or(Some(Verb::Info)),
                "v" | "version" => verb = verb.or(Some(Verb::Version)),
                "debug" => debug = attached.is_none_or(|value| value == "true"),
                "namespace" | "id" | "address" | "bundle" | "publish-binary" | "socket" => {
                    let missing = || Error::invalid(format!("-{flag} needs a value"));
                    let value = attached.or_else(|| words.next()).ok_or_else(missing)?;
                    match flag {
                        "namespace" => namespace = value,
                        "id" => id = value,
                        "address" => address = value,
                        "bundle" => bundle = Some(PathBuf::from(value)),
                        // Events go over ttrpc, and the socket is our choice.
                        _ => {}
                    }
                }
                _ => return Err(Error::invalid(format!("-{flag} is not a flag of a shim"))),
            }
        }
        let usage = "a shim is run by containerd: -namespace N -id ID -address SOCKET start|delete";
        let verb = verb.ok_or_else(|| Error::invalid(usage))?;
        let words = [&namespace, &id, &address];
        if !matches!(verb, Verb::Info | Verb::Version) && words.iter().any(|word| word.is_empty()) {
            return Err(Error::invalid(usage));
        }
        Ok(Arguments { verb, namespace, id, address, bundle, debug })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Arguments> {
        Arguments::read(line.split_whitespace().map(str::to_owned))
    }

    #[test]
    fn what_containerd_sends() {
        let start =
            read("-namespace n -address /a -publish-binary /usr/bin/containerd -id i -debug start").expect("start");
        assert_eq!((start.verb, start.namespace.as_str(), start.debug), (Verb::Start, "n", true));
        let delete = read("-namespace n -address /a -publish-binary /p -id i -bundle /b delete").expect("delete");
        assert_eq!((delete.verb, delete.bundle), (Verb::Delete, Some("/b".into())));
        assert_eq!(read("-info").expect("info").verb, Verb::Info);
        assert_eq!(read("-v").expect("version").verb, Verb::Version);
        assert_eq!(read("--namespace=n --id=i --address=/a start").expect("long").id, "i");
    }

    #[test]
    fn what_it_does_not_send() {
        for line in
            ["", "-id i start", "-namespace n -address /a start", "-id", "-x", "stop", "-id i -address a -namespace n"]
        {
            assert!(read(line).is_err(), "{line}");
        }
    }
}
