//! Addresses of servers, as far as a registry client needs them.

use std::fmt;

use crate::error::{Error, Result};

/// An `http` or `https` URL without user and fragment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// Whether it is `https`.
    pub secure: bool,
    /// Host and, if it is given, port.
    pub authority: String,
    /// Path and query, with the first slash; "" for none.
    pub path: String,
}

impl Url {
    /// Parses an absolute URL.
    ///
    /// # Errors
    /// `InvalidArgument` for other schemes, and for URLs with a user: they end up in logs.
    pub fn parse(text: &str) -> Result<Self> {
        let refused = |why: &str| Error::invalid(format!("URL {:?}: {why}", shown(text)));
        let (scheme, rest) = text.split_once("://").ok_or_else(|| refused("has no scheme"))?;
        let secure = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return Err(refused("is neither http nor https")),
        };
        let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let path = path.split('#').next().unwrap_or_default();
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b':' | b'[' | b']');
        if authority.is_empty() || authority.starts_with(':') || !authority.bytes().all(plain) {
            return Err(refused("has no host, or more than host and port"));
        }
        if !path.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(refused("its path is not plain ASCII"));
        }
        let slash = if path.starts_with('?') { "/" } else { "" };
        Ok(Url { secure, authority: authority.to_ascii_lowercase(), path: format!("{slash}{path}") })
    }

    /// What a `Location` header or a token server's address means as seen from here.
    ///
    /// # Errors
    /// As [`Url::parse`].
    pub fn join(&self, location: &str) -> Result<Self> {
        let scheme = if self.secure { "https:" } else { "http:" };
        if location.contains("://") && !location.starts_with(['/', '?']) {
            Url::parse(location)
        } else if location.starts_with("//") {
            Url::parse(&format!("{scheme}{location}"))
        } else if location.starts_with('/') {
            Url::parse(&format!("{scheme}//{}{location}", self.authority))
        } else {
            let path = self.path.split('?').next().unwrap_or_default();
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            Url::parse(&format!("{scheme}//{}{folder}/{location}", self.authority))
        }
    }

    /// Whether both are the same server, spoken to in the same way.
    pub fn same_origin(&self, other: &Url) -> bool {
        self.secure == other.secure && self.host() == other.host() && self.port() == other.port()
    }

    /// The host without the port.
    pub fn host(&self) -> &str {
        match self.authority.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => host,
            _ => &self.authority,
        }
    }

    /// The port, given or usual.
    pub fn port(&self) -> u16 {
        let usual = if self.secure { 443 } else { 80 };
        let given = self.authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        given.unwrap_or(usual)
    }
}

impl fmt::Display for Url {
    /// For the wire. For people leave out the query: it may hold a signature.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.secure { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.path)
    }
}

/// A URL that cannot be parsed, without what may be secret in it.
fn shown(text: &str) -> &str {
    let text = text.split('?').next().unwrap_or_default();
    text.rsplit_once('@').map_or(text, |(_, rest)| rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_location_leads() {
        let from = Url::parse("https://R.io:5000/v2/a/blobs/x?ns=y").unwrap();
        for (location, to) in [
            ("https://cdn.io/x?sig=1", "https://cdn.io/x?sig=1"),
            ("http://cdn.io", "http://cdn.io"),
            ("//cdn.io/x", "https://cdn.io/x"),
            ("/other?u=https://z", "https://r.io:5000/other?u=https://z"),
            ("y", "https://r.io:5000/v2/a/blobs/y"),
        ] {
            assert_eq!(from.join(location).unwrap().to_string(), to);
        }
        for bad in ["ftp://x/", "https://user:pw@x/", "https:///x", "https://x/a b", "https://x\r\n/", "/ä"] {
            let e = from.join(bad).expect_err(bad);
            assert!(!e.to_string().contains("pw"), "{e}");
        }
    }

    #[test]
    fn origins() {
        let url = |text: &str| Url::parse(text).unwrap();
        assert!(url("https://a/x").same_origin(&url("https://A:443/y")));
        assert!(!url("https://a/x").same_origin(&url("http://a:443/x")));
        assert!(!url("https://a/x").same_origin(&url("https://a:444/x")));
        assert_eq!((url("http://[::1]/x").host(), url("http://[::1]/x").port()), ("[::1]", 80));
        assert_eq!((url("http://[::1]:5/x").host(), url("http://[::1]:5/x").port()), ("[::1]", 5));
    }
}
