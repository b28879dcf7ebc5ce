//! Image references as users write them, and the one normal form in which cricket stores and compares them.

use std::fmt;

use crate::error::{Error, Result};

/// The registry that is meant when none is named.
const DEFAULT_DOMAIN: &str = "docker.io";
/// Its former name, still found in old manifests.
const LEGACY_DOMAIN: &str = "index.docker.io";
/// Where the default registry keeps images without a user or an organisation.
const OFFICIAL_PREFIX: &str = "library/";
const DEFAULT_TAG: &str = "latest";
/// Longest domain plus path.
const MAX_NAME_BYTES: usize = 255;
const MAX_TAG_BYTES: usize = 128;

/// A normalised image reference: the registry is named, and there is a tag or a digest, never both.
///
/// ```
/// # use cricket::reference::Reference;
/// assert_eq!(Reference::parse("busybox").unwrap().to_string(), "docker.io/library/busybox:latest");
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reference {
    domain: String,
    path: String,
    version: Version,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Version {
    Tag(String),
    Digest(String),
}

impl Reference {
    /// Parses what a user wrote and normalises it as Docker does: no registry is `docker.io`, a single name there is in
    /// `library/`, neither tag nor digest is `:latest`, and beside a digest a tag is dropped.
    ///
    /// # Errors
    /// `InvalidArgument`; the message names the part that is wrong.
    pub fn parse(text: &str) -> Result<Self> {
        Self::parts(text).map_err(|e| e.context(format!("image reference {text:?}")))
    }

    fn parts(text: &str) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::invalid("is empty"));
        }
        if text.len() == 64 && is_lower_hex(text) {
            return Err(Error::invalid("64 hex digits are an image id, not a name"));
        }
        let (named, digest) = match text.split_once('@') {
            Some((named, digest)) => (named, Some(digest)),
            None => (text, None),
        };
        let (domain, rest) = split_domain(named);
        let (path, tag) = match rest.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (rest, None),
        };
        check_domain(domain)?;
        check_path(path)?;
        if let Some(tag) = tag {
            check_tag(tag)?;
        }
        if let Some(digest) = digest {
            check_digest(digest)?;
        }
        let path = match domain == DEFAULT_DOMAIN && !path.contains('/') {
            true => format!("{OFFICIAL_PREFIX}{path}"),
            false => path.to_owned(),
        };
        if domain.len() + 1 + path.len() > MAX_NAME_BYTES {
            return Err(Error::invalid(format!("the name is longer than {MAX_NAME_BYTES} bytes")));
        }
        let version = match digest {
            Some(digest) => Version::Digest(digest.to_owned()),
            None => Version::Tag(tag.unwrap_or(DEFAULT_TAG).to_owned()),
        };
        Ok(Reference { domain: domain.to_owned(), path, version })
    }

    /// The registry's host and port, `docker.io` for the default one.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// The repository within the registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// The tag, unless there is a digest.
    pub fn tag(&self) -> Option<&str> {
        match &self.version {
            Version::Tag(tag) => Some(tag),
            Version::Digest(_) => None,
        }
    }

    /// The digest, `sha256:…`.
    pub fn digest(&self) -> Option<&str> {
        match &self.version {
            Version::Tag(_) => None,
            Version::Digest(digest) => Some(digest),
        }
    }

    /// The same repository at `digest`, as in `repo_digests`.
    ///
    /// # Errors
    /// `InvalidArgument` if `digest` is none.
    pub fn at_digest(&self, digest: &str) -> Result<Self> {
        check_digest(digest)?;
        Ok(Reference { version: Version::Digest(digest.to_owned()), ..self.clone() })
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.version {
            Version::Tag(tag) => write!(f, "{}/{}:{tag}", self.domain, self.path),
            Version::Digest(digest) => write!(f, "{}/{}@{digest}", self.domain, self.path),
        }
    }
}

/// The hex digits of what may be an image id or the beginning of one, with or without `sha256:`. A short one may as
/// well be a name: look for a name first.
pub fn looks_like_id(text: &str) -> Option<&str> {
    let digits = text.strip_prefix("sha256:").unwrap_or(text);
    (!digits.is_empty() && digits.len() <= 64 && is_lower_hex(digits)).then_some(digits)
}

/// Whether this is the full form of an image id, `sha256:` and 64 hex digits.
pub fn is_full_id(text: &str) -> bool {
    text.strip_prefix("sha256:").is_some_and(|digits| digits.len() == 64 && is_lower_hex(digits))
}

/// A first part without dot, port or capital is a user's name on the default registry.
fn split_domain(named: &str) -> (&str, &str) {
    match named.split_once('/') {
        Some((first, rest))
            if first.contains(['.', ':']) || first == "localhost" || first.bytes().any(|b| b.is_ascii_uppercase()) =>
        {
            (if first == LEGACY_DOMAIN { DEFAULT_DOMAIN } else { first }, rest)
        }
        _ => (DEFAULT_DOMAIN, named),
    }
}

fn check_domain(domain: &str) -> Result<()> {
    let (host, port) = match domain.strip_prefix('[') {
        Some(inner) => match inner.split_once(']') {
            Some((address, after)) if is_v6(address) => (None, after),
            _ => return Err(Error::invalid(format!("registry {domain:?} is no IPv6 address in brackets"))),
        },
        None => {
            let end = domain.find(':').unwrap_or(domain.len());
            (Some(&domain[..end]), &domain[end..])
        }
    };
    let host_ok = host.is_none_or(|host| host.split('.').all(is_host_label));
    let port_ok = port.is_empty() || port.strip_prefix(':').is_some_and(|p| !p.is_empty() && is_digits(p));
    match host_ok && port_ok {
        true => Ok(()),
        false => Err(Error::invalid(format!("registry {domain:?} is no host name with an optional port"))),
    }
}

fn check_path(path: &str) -> Result<()> {
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(Error::invalid(format!("repository {path:?} must be lower case")));
    }
    match path.split('/').all(is_path_component) {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "repository {path:?} must be parts of a-z and 0-9, each joined inside by one of . _ __ or dashes"
        ))),
    }
}

fn check_tag(tag: &str) -> Result<()> {
    let body = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-');
    let head = tag.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric() || b == b'_');
    match head && tag.len() <= MAX_TAG_BYTES && tag.bytes().all(body) {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "tag {tag:?} must be 1 to {MAX_TAG_BYTES} of letters, digits, _ . and -, and not begin with . or -"
        ))),
    }
}

fn check_digest(digest: &str) -> Result<()> {
    let (algorithm, digits) = digest.split_once(':').unwrap_or((digest, ""));
    let length = match algorithm {
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return Err(Error::invalid(format!("digest {digest:?} is none of sha256:…, sha384:… and sha512:…"))),
    };
    match digits.len() == length && is_lower_hex(digits) {
        true => Ok(()),
        false => Err(Error::invalid(format!("digest {digest:?} must have {length} lower-case hex digits"))),
    }
}

/// Runs of a-z and 0-9 with a separator between each two.
fn is_path_component(component: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let separator = |s: &str| matches!(s, "." | "_" | "__") || (!s.is_empty() && s.bytes().all(|b| b == b'-'));
    let mut rest = component;
    loop {
        let run = rest.bytes().take_while(|&b| alphanumeric(b)).count();
        if run == 0 {
            return false;
        }
        rest = &rest[run..];
        if rest.is_empty() {
            return true;
        }
        let gap = rest.bytes().take_while(|b| matches!(b, b'.' | b'_' | b'-')).count();
        if !separator(&rest[..gap]) {
            return false;
        }
        rest = &rest[gap..];
    }
}

fn is_host_label(label: &str) -> bool {
    !label.is_empty()
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

fn is_v6(address: &str) -> bool {
    !address.is_empty() && address.bytes().all(|b| b.is_ascii_hexdigit() || b == b':')
}

fn is_digits(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit())
}

fn is_lower_hex(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    const HEX: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

    #[test]
    fn normalises_as_docker_does() {
        for (typed, meant) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36"),
            ("user/app", "docker.io/user/app:latest"),
            ("docker.io/busybox", "docker.io/library/busybox:latest"),
            ("index.docker.io/busybox:1", "docker.io/library/busybox:1"),
            ("localhost/app", "localhost/app:latest"),
            ("localhost:5000", "docker.io/library/localhost:5000"),
            ("localhost:5000/app", "localhost:5000/app:latest"),
            ("registry.k8s.io/pause:3.9", "registry.k8s.io/pause:3.9"),
            ("Registry/app", "Registry/app:latest"),
            ("10.0.0.1:5000/a/b__c/d-e.f:V1_x", "10.0.0.1:5000/a/b__c/d-e.f:V1_x"),
            ("[::1]:5000/app", "[::1]:5000/app:latest"),
            ("a---b", "docker.io/library/a---b:latest"),
        ] {
            assert_eq!(Reference::parse(typed).expect(typed).to_string(), meant, "{typed}");
            assert_eq!(Reference::parse(meant).expect(meant).to_string(), meant, "normal form is stable");
        }
    }

    #[test]
    fn beside_a_digest_the_tag_is_dropped() {
        let both = Reference::parse(&format!("quay.io/a/b:1.0@sha256:{HEX}")).unwrap();
        assert_eq!((both.domain(), both.path(), both.tag()), ("quay.io", "a/b", None));
        assert_eq!(both.digest(), Some(format!("sha256:{HEX}").as_str()));
        assert_eq!(both.to_string(), format!("quay.io/a/b@sha256:{HEX}"));
    }

    #[test]
    fn another_version_of_the_same_repository() {
        let tagged = Reference::parse("busybox:1").unwrap();
        assert_eq!(tagged.tag(), Some("1"));
        let digest = format!("sha256:{HEX}");
        assert_eq!(tagged.at_digest(&digest).unwrap().to_string(), format!("docker.io/library/busybox@{digest}"));
        assert_eq!(tagged.at_digest("sha256:12").unwrap_err().kind(), Kind::InvalidArgument);
    }

    #[test]
    fn malformed_references_are_refused_with_a_reason() {
        let long = "a".repeat(256);
        let long_tag = format!("a:{}", "t".repeat(129));
        let upper_digest = format!("a@sha256:{}", HEX.to_uppercase());
        for (typed, reason) in [
            ("", "empty"),
            (HEX, "image id"),
            ("Busybox", "lower case"),
            ("user/App", "lower case"),
            ("a//b", "must be parts"),
            ("/a", "must be parts"),
            ("a/", "must be parts"),
            ("a_-b", "must be parts"),
            ("a..b", "must be parts"),
            ("-a", "must be parts"),
            ("a-", "must be parts"),
            ("a b", "must be parts"),
            ("ä", "must be parts"),
            ("a___b", "must be parts"),
            ("../../etc/passwd", "no host name"),
            ("a:", "tag"),
            ("a:.b", "tag"),
            ("a:b:c", "tag"),
            ("a:b/c:d/e", "no host name"),
            (&long_tag, "tag"),
            (&long, "longer"),
            ("a@", "digest"),
            ("a@md5:abc", "digest"),
            ("a@sha256:abc", "64"),
            (&upper_digest, "64"),
            ("-host.x/a", "no host name"),
            ("host:/a", "no host name"),
            ("host:x/a", "no host name"),
            ("[::1/a", "IPv6"),
            ("[::1]5000/a", "no host name"),
            ("https://registry.io/a", "no host name"),
        ] {
            let e = Reference::parse(typed).expect_err(typed);
            assert_eq!(e.kind(), Kind::InvalidArgument, "{typed}");
            assert!(e.to_string().contains(reason), "{typed}: {e}");
        }
    }

    #[test]
    fn ids_and_their_beginnings() {
        assert_eq!(looks_like_id(HEX), Some(HEX));
        assert_eq!(looks_like_id(&format!("sha256:{HEX}")), Some(HEX));
        assert_eq!(looks_like_id("9f86"), Some("9f86"));
        assert_eq!(looks_like_id("sha256:9f86"), Some("9f86"));
        for other in ["", "sha256:", "busybox", "9F86", "sha512:9f86", &format!("{HEX}0")] {
            assert_eq!(looks_like_id(other), None, "{other}");
        }
        assert!(is_full_id(&format!("sha256:{HEX}")));
        assert!(!is_full_id(HEX) && !is_full_id("sha256:9f86"));
    }
}
