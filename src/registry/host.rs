//! One server of a pull: its connections, and what opens it for us.

use std::time::Duration;

use super::challenge;
use super::credentials::Pass;
use super::failure::Failure;
use super::hosts::HostConfig;
use super::http::{Http, Patience, Request, Response};
use super::proxy::Proxies;
use super::secret::Secret;
use super::{tls, token};
use crate::error::{Context, Result};
use crate::sync::Mutex;

/// Challenges in a row before we believe that we have nothing that opens it.
const ROUNDS: usize = 2;

/// A server and our standing with it.
pub(super) struct Host {
    pub(super) config: HostConfig,
    http: Http,
    pass: Pass,
    /// What to ask a token server for, if the registry does not say.
    scope: String,
    /// `?ns=…` for a mirror, which serves several registries; else "".
    query: String,
    authorization: Mutex<Option<Secret>>,
}

impl Host {
    /// A server as configured, for images of `repository` in `registry`. Reads certificates.
    pub(super) fn new(
        config: HostConfig,
        (registry, repository): (&str, &str),
        pass: &Pass,
        read: Duration,
    ) -> Result<Self> {
        let tls = tls::config_of(&config).with_context(|| format!("host {}", config.base.authority))?;
        let http = Http::new(tls, Proxies::from_env(), Patience { connect: config.dial_timeout, read });
        let at_home = config.base.authority == registry.to_ascii_lowercase()
            || (registry == "docker.io" && config.base.authority == "registry-1.docker.io");
        Ok(Host {
            http,
            scope: format!("repository:{repository}:pull"),
            query: if at_home { String::new() } else { format!("?ns={registry}") },
            authorization: Mutex::new(token::unasked(pass)),
            pass: pass.clone(),
            config,
        })
    }

    /// Its name for messages.
    pub(super) fn name(&self) -> &str {
        &self.config.base.authority
    }

    /// Breaks off every request. Does not block.
    pub(super) fn shutdown(&self) {
        self.http.shutdown();
    }

    /// Asks for `path` below the API's root, answering challenges. Any status but a 401 is an answer.
    pub(super) fn ask(
        &self,
        path: &str,
        method: &'static str,
        headers: &[(&str, String)],
    ) -> Result<Response, Failure> {
        let mut url = self.config.base.clone();
        url.path = format!("{}/{path}{}", url.path, self.query);
        let mut round = 0;
        loop {
            let authorization = self.authorization.lock().clone();
            let response = self.http.send(
                &url,
                &Request {
                    method,
                    headers: headers.to_vec(),
                    own_headers: &self.config.headers,
                    authorization: authorization.clone(),
                    form: None,
                },
            )?;
            if response.status() != 401 || round == ROUNDS {
                return match response.status() {
                    401 => Err(response.into_failure()),
                    _ => Ok(response),
                };
            }
            round += 1;
            let challenges: Vec<_> = response.headers("www-authenticate").flat_map(challenge::parse).collect();
            match token::answer(&self.http, &url, &challenges, &self.pass, &self.scope)? {
                // The same again would be refused again.
                answer if answer.is_none() || answer == authorization => return Err(response.into_failure()),
                answer => *self.authorization.lock() = answer,
            }
        }
    }
}
