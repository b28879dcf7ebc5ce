//! Whom we trust and who we are: the system's certificates, those of a `hosts.toml`, client certificates.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::PrivateKeyDer;
use ureq::tls::{parse_pem, Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig};

use super::hosts::HostConfig;
use crate::error::{Context, Error, Result};

/// Where distributions keep the certificates they trust; the first that is there counts.
const BUNDLES: [&str; 6] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
/// The same by way of the environment, as OpenSSL has it.
const BUNDLE: &str = "SSL_CERT_FILE";
const FOLDERS: &str = "SSL_CERT_DIR";

/// How to speak TLS with a host. Reads files.
///
/// # Errors
/// `InvalidArgument` if a file of the host's configuration is not what it should be. Trouble with the system's own
/// certificates is logged: it shows when a server cannot be trusted.
pub fn config_of(host: &HostConfig) -> Result<TlsConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let client = host.clients.first().map(|(certificate, key)| client(&provider, certificate, key.as_deref()));
    let mut trusted = if host.skip_verify { Vec::new() } else { system() };
    for file in &host.ca {
        trusted.extend(certificates(file)?);
    }
    Ok(TlsConfig::builder()
        .root_certs(RootCerts::Specific(Arc::new(trusted)))
        .client_cert(client.transpose()?)
        .disable_verification(host.skip_verify)
        .unversioned_rustls_crypto_provider(provider)
        .build())
}

fn system() -> Vec<Certificate<'static>> {
    let named = env::var_os(BUNDLE).map(PathBuf::from);
    let bundle = named.or_else(|| BUNDLES.iter().map(PathBuf::from).find(|path| path.is_file()));
    let mut files: Vec<PathBuf> = bundle.into_iter().collect();
    for folder in env::var(FOLDERS).unwrap_or_default().split(':').filter(|folder| !folder.is_empty()) {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        files.extend(entries.filter(|path| path.is_file()));
    }
    let mut found = Vec::new();
    for file in files {
        match certificates(&file) {
            Ok(certificates) => found.extend(certificates),
            Err(e) => log::warn!("certificates of the system: {e}"),
        }
    }
    if found.is_empty() {
        log::warn!("there are no certificates of the system: install ca-certificates, or set {BUNDLE}");
    }
    found
}

fn certificates(file: &Path) -> Result<Vec<Certificate<'static>>> {
    let certificate = |item| match item {
        PemItem::Certificate(certificate) => Some(certificate),
        _ => None,
    };
    let found: Vec<_> = items(file)?.into_iter().filter_map(certificate).collect();
    match found.is_empty() {
        true => Err(Error::invalid(format!("{}: holds no certificate in PEM", file.display()))),
        false => Ok(found),
    }
}

fn items(file: &Path) -> Result<Vec<PemItem<'static>>> {
    let read = || {
        let text = fs::read(file)?;
        let broken = |e: ureq::Error| Error::invalid(format!("is no PEM: {e}"));
        parse_pem(&text).map(|item| item.map_err(broken)).collect::<Result<Vec<_>>>()
    };
    read().with_context(|| file.display().to_string())
}

/// A certificate chain and its key. A key that the library cannot use would make it panic, so it is tried here.
fn client(provider: &CryptoProvider, certificate: &Path, key: Option<&Path>) -> Result<ClientCert> {
    let chain = certificates(certificate)?;
    let key_file = key.unwrap_or(certificate);
    let private = |item| match item {
        PemItem::PrivateKey(key) => Some(key),
        _ => None,
    };
    let key = items(key_file)?.into_iter().find_map(private);
    let key: PrivateKey<'static> =
        key.ok_or_else(|| Error::invalid(format!("{}: holds no private key in PEM", key_file.display())))?;
    let unusable = |why: String| Error::invalid(format!("{}: its key cannot be used: {why}", key_file.display()));
    let der = PrivateKeyDer::try_from(key.der().to_vec()).map_err(|why| unusable(why.to_owned()))?;
    provider.key_provider.load_private_key(der).map_err(|why| unusable(why.to_string()))?;
    Ok(ClientCert::new_with_certs(&chain, key))
}
