//! Who pulls: what the kubelet sends with a pull, or a Docker configuration file has for a registry.

use std::collections::BTreeMap;

use cricket_proto::runtime::AuthConfig;
use serde::Deserialize;

use super::secret::Secret;
use crate::base64;
use crate::error::{Error, Result};

/// The names of the default registry: as references have it, as it answers, as Docker's files call it.
const DOCKER_HUB: [&str; 3] = ["docker.io", "registry-1.docker.io", "index.docker.io"];

/// Credentials and the registry they are for. `Debug` shows neither passwords nor tokens.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Credentials {
    /// The only host that may see them; any that the pull is directed to if empty.
    server: String,
    pass: Pass,
}

/// What to show a registry that asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Pass {
    /// Nothing.
    #[default]
    Anonymous,
    /// A user's name and password.
    User {
        /// The name.
        name: String,
        /// The password.
        password: Secret,
    },
    /// A refresh token, to be exchanged for one that opens the registry.
    Identity(Secret),
    /// A token that opens the registry.
    Registry(Secret),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct DockerFile {
    #[serde(default)]
    auths: BTreeMap<String, DockerEntry>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct DockerEntry {
    username: String,
    password: String,
    auth: String,
    #[serde(alias = "identitytoken")]
    identity_token: String,
    #[serde(alias = "registrytoken")]
    registry_token: String,
}

impl Credentials {
    /// What a pull request carries. A user's name wins, then an identity token, then `auth`, then a registry token.
    ///
    /// # Errors
    /// `InvalidArgument` for an `auth` that is not base64 of `name:password`.
    pub fn from_request(auth: &AuthConfig) -> Result<Self> {
        let pass = if !auth.username.is_empty() {
            Pass::User { name: auth.username.clone(), password: Secret::new(&auth.password) }
        } else if !auth.identity_token.is_empty() {
            Pass::Identity(Secret::new(&auth.identity_token))
        } else if !auth.auth.is_empty() {
            user(&auth.auth)?
        } else if !auth.registry_token.is_empty() {
            Pass::Registry(Secret::new(&auth.registry_token))
        } else {
            Pass::Anonymous
        };
        Ok(Credentials { server: host_of(&auth.server_address).to_owned(), pass })
    }

    /// What the text of a Docker configuration file (`{"auths": …}`) has for `registry`; the kubelet reads the same.
    ///
    /// # Errors
    /// `InvalidArgument` for what is no such file.
    pub fn from_docker_file(text: &str, registry: &str) -> Result<Self> {
        let file: DockerFile =
            serde_json::from_str(text).map_err(|e| Error::invalid(format!("a Docker configuration file: {e}")))?;
        let Some((server, entry)) = file.auths.into_iter().find(|(server, _)| same(host_of(server), registry)) else {
            return Ok(Credentials::default());
        };
        Credentials::from_request(&AuthConfig {
            username: entry.username,
            password: entry.password,
            auth: entry.auth,
            identity_token: entry.identity_token,
            registry_token: entry.registry_token,
            server_address: server,
            ..AuthConfig::default()
        })
    }

    /// What `host`, with its port if it has one, may be shown.
    pub fn for_host(&self, host: &str) -> &Pass {
        const NOTHING: &Pass = &Pass::Anonymous;
        match self.server.is_empty() || same(&self.server, host) {
            true => &self.pass,
            false => NOTHING,
        }
    }
}

/// Base64 of `name:password`, padded with zero bytes by some.
fn user(auth: &str) -> Result<Pass> {
    let refused = || Error::invalid("credentials: auth is not base64 of name:password");
    let decoded = base64::decode(auth.trim()).and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(refused)?;
    let (name, password) = decoded.split_once(':').ok_or_else(refused)?;
    Ok(Pass::User { name: name.to_owned(), password: Secret::new(password.trim_matches('\0')) })
}

/// The host and port of a server address, which may be a URL.
fn host_of(server: &str) -> &str {
    let rest = server.split_once("://").map_or(server, |(_, rest)| rest);
    rest.split('/').next().unwrap_or_default()
}

fn same(a: &str, b: &str) -> bool {
    a == b || (DOCKER_HUB.contains(&a) && DOCKER_HUB.contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn auth(text: &str) -> AuthConfig {
        AuthConfig { auth: text.into(), ..AuthConfig::default() }
    }

    fn pass(name: &str, password: &str) -> Pass {
        Pass::User { name: name.into(), password: Secret::new(password) }
    }

    #[test]
    fn the_first_that_is_there_counts() {
        let mut all = AuthConfig {
            username: "u".into(),
            password: "p".into(),
            identity_token: "i".into(),
            registry_token: "r".into(),
            ..auth("YTpi")
        };
        let of = |auth: &AuthConfig| Credentials::from_request(auth).unwrap().pass;
        assert_eq!(of(&all), pass("u", "p"));
        all.username.clear();
        assert_eq!(of(&all), Pass::Identity(Secret::new("i")));
        all.identity_token.clear();
        assert_eq!(of(&all), pass("a", "b"));
        all.auth.clear();
        assert_eq!(of(&all), Pass::Registry(Secret::new("r")));
        all.registry_token.clear();
        assert_eq!(of(&all), Pass::Anonymous);
    }

    #[test]
    fn base64_of_name_and_password() {
        let padded = base64::encode(b"user:pa:ss\0\0");
        assert_eq!(Credentials::from_request(&auth(&padded)).unwrap().pass, pass("user", "pa:ss"));
        for bad in ["?", "YQ==", "/w=="] {
            assert!(Credentials::from_request(&auth(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_their_own_server_sees_them() {
        let of = |server: &str| AuthConfig { username: "u".into(), server_address: server.into(), ..auth("") };
        for (server, host, seen) in [
            ("", "any.io", true),
            ("r.io", "r.io", true),
            ("https://r.io/v2/", "r.io", true),
            ("r.io:5000", "r.io", false),
            ("https://r.io", "evil.io", false),
            ("https://index.docker.io/v1/", "registry-1.docker.io", true),
        ] {
            let credentials = Credentials::from_request(&of(server)).unwrap();
            assert_eq!(*credentials.for_host(host) != Pass::Anonymous, seen, "{server} {host}");
        }
    }

    #[test]
    fn nothing_secret_is_shown() {
        let all = AuthConfig { username: "u".into(), password: "geheim".into(), ..auth("") };
        let shown = format!("{:?}", Credentials::from_request(&all).unwrap());
        assert!(shown.contains("***") && !shown.contains("geheim"), "{shown}");
    }

    #[test]
    fn a_docker_file_has_them_by_registry() {
        let text =
            r#"{"auths":{"https://index.docker.io/v1/":{"auth":"YTpi"},"r.io:5000":{"identitytoken":"t"}},"x":1}"#;
        let of = |registry: &str| Credentials::from_docker_file(text, registry).unwrap();
        assert_eq!(*of("docker.io").for_host("registry-1.docker.io"), pass("a", "b"));
        assert_eq!(*of("r.io:5000").for_host("r.io:5000"), Pass::Identity(Secret::new("t")));
        assert_eq!(of("other.io"), Credentials::default());
        assert!(Credentials::from_docker_file("3", "r.io").is_err());
    }
}
