//! The answer to a challenge: name and password, or a token from the server that the registry names.

use serde::Deserialize;

use super::challenge::Challenge;
use super::credentials::Pass;
use super::failure::Failure;
use super::http::{Http, Request, Response};
use super::secret::Secret;
use super::url::Url;
use crate::base64;
use crate::error::{Error, Kind, Result};

/// A token server's answer is small.
const ANSWER_BYTES: u64 = 1 << 20;
const CLIENT_ID: &str = "cricket";

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

/// What to send as `Authorization` before anybody asks.
pub fn unasked(pass: &Pass) -> Option<Secret> {
    match pass {
        Pass::Registry(token) => Some(bearer(token.reveal())),
        _ => None,
    }
}

/// What to send as `Authorization` to whoever answers with these challenges; `None` if we have nothing to show. May ask
/// a token server. `scope` is what we are after, if a challenge does not say.
///
/// # Errors
/// What the token server says.
pub fn answer(
    http: &Http,
    from: &Url,
    challenges: &[Challenge],
    pass: &Pass,
    scope: &str,
) -> Result<Option<Secret>, Failure> {
    // A token says less about us than a password.
    let token = challenges.iter().find_map(|challenge| match challenge {
        Challenge::Bearer { realm, service, scope, .. } => Some((realm, service, scope)),
        Challenge::Basic => None,
    });
    if let Some((realm, service, wanted)) = token {
        let scope = if wanted.is_empty() { scope } else { wanted };
        return fetch(http, from, Asked { realm, service, scope }, pass).map(Some);
    }
    match pass {
        Pass::User { name, password } if challenges.contains(&Challenge::Basic) => Ok(Some(basic(name, password))),
        _ => Ok(None),
    }
}

/// A Bearer challenge.
#[derive(Clone, Copy)]
struct Asked<'a> {
    realm: &'a str,
    service: &'a str,
    scope: &'a str,
}

fn fetch(http: &Http, from: &Url, asked: Asked<'_>, pass: &Pass) -> Result<Secret, Failure> {
    let said = |failure: Failure, realm: &Url| Failure {
        error: failure.error.context(format!("token server {}", realm.authority)),
        ..failure
    };
    let realm = from.join(asked.realm).map_err(|e| Failure::lasting(e.context("its token server")))?;
    if from.secure && !realm.secure {
        let text = format!("its token server {} is not encrypted", realm.authority);
        return Err(Failure::lasting(Error::new(Kind::PermissionDenied, text)));
    }
    match pass {
        Pass::User { name, password } => {
            let parts = [("grant_type", "password"), ("username", name), ("password", password.reveal())];
            let response = post(http, &realm, asked, &parts).map_err(|e| said(e, &realm))?;
            // Not every token server has this form of it.
            let response = match response.status() {
                400 | 401 | 403..=405 => {
                    drop(response);
                    get(http, &realm, asked, Some(basic(name, password))).map_err(|e| said(e, &realm))?
                }
                _ => response,
            };
            token(response).map_err(|e| said(e, &realm))
        }
        Pass::Identity(refresh) => {
            let parts = [("grant_type", "refresh_token"), ("refresh_token", refresh.reveal())];
            post(http, &realm, asked, &parts).and_then(token).map_err(|e| said(e, &realm))
        }
        Pass::Anonymous | Pass::Registry(_) => {
            get(http, &realm, asked, None).and_then(token).map_err(|e| said(e, &realm))
        }
    }
}

fn get(http: &Http, realm: &Url, asked: Asked<'_>, authorization: Option<Secret>) -> Result<Response, Failure> {
    let mut url = realm.clone();
    let joint = if url.path.contains('?') { '&' } else { '?' };
    url.path.push(joint);
    url.path.push_str(&form(&[("service", asked.service), ("scope", asked.scope)]));
    http.send(&url, &Request { authorization, ..Request::default() })
}

fn post(http: &Http, realm: &Url, asked: Asked<'_>, parts: &[(&str, &str)]) -> Result<Response, Failure> {
    let mut all = vec![("service", asked.service), ("scope", asked.scope), ("client_id", CLIENT_ID)];
    all.extend(parts);
    http.send(realm, &Request { method: "POST", form: Some(Secret::new(form(&all))), ..Request::default() })
}

fn token(response: Response) -> Result<Secret, Failure> {
    if response.status() != 200 {
        return Err(response.into_failure());
    }
    let bytes = response.bytes(ANSWER_BYTES)?;
    let no_token = || Failure::lasting(Error::new(Kind::Unknown, "its answer has no token"));
    let answer: Answer = serde_json::from_slice(&bytes).map_err(|_| no_token())?;
    [answer.token, answer.access_token].iter().find(|token| !token.is_empty()).map(|t| bearer(t)).ok_or_else(no_token)
}

fn bearer(token: &str) -> Secret {
    Secret::new(format!("Bearer {token}"))
}

fn basic(name: &str, password: &Secret) -> Secret {
    Secret::new(format!("Basic {}", base64::encode(format!("{name}:{}", password.reveal()).as_bytes())))
}

/// `a=b&c=d`, percent-encoded; empty values are left out.
fn form(parts: &[(&str, &str)]) -> String {
    let mut text = String::new();
    for (key, value) in parts.iter().filter(|(_, value)| !value.is_empty()) {
        if !text.is_empty() {
            text.push('&');
        }
        text.push_str(key);
        text.push('=');
        for byte in value.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => text.push(char::from(byte)),
                other => text.push_str(&format!("%{other:02X}")),
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_encoded() {
        assert_eq!(form(&[("a", "x y&=ä"), ("b", ""), ("c", "a-b.c_d~")]), "a=x%20y%26%3D%C3%A4&c=a-b.c_d~");
        assert_eq!(basic("u", &Secret::new("p")).reveal(), "Basic dTpw");
    }
}
