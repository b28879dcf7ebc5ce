//! The certificate that the streaming server shows, if it has one.

use std::path::Path;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{Error as PemError, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::ServerConfig;

use crate::config::Certificate;
use crate::error::{Error, Result};

/// How to speak TLS with this certificate. Reads its files.
///
/// # Errors
/// `InvalidArgument` with the file that is not what it should be.
pub fn config_of(certificate: &Certificate) -> Result<Arc<ServerConfig>> {
    let of = |file: &Path, why: String| Error::invalid(format!("streaming: {}: {why}", file.display()));
    let chain =
        CertificateDer::pem_file_iter(&certificate.chain).and_then(Iterator::collect::<Result<Vec<_>, PemError>>);
    let chain = chain.map_err(|e| of(&certificate.chain, e.to_string()))?;
    if chain.is_empty() {
        return Err(of(&certificate.chain, "holds no certificate in PEM".into()));
    }
    let key = PrivateKeyDer::from_pem_file(&certificate.key).map_err(|e| of(&certificate.key, e.to_string()))?;
    let unusable = |e: rustls::Error| of(&certificate.key, format!("its key cannot be used: {e}"));
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(unusable)?;
    // Every session is a connection of its own: nothing is resumed.
    config.send_tls13_tickets = 0;
    config.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}
