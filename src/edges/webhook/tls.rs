//! TLS towards endpoints: whom to believe, and who we are.

use std::sync::Arc;

use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

/// The certificates of an endpoint, all in PEM.
#[derive(Clone, Copy, Default)]
pub struct Certificates<'a> {
    /// Who may have signed the endpoint's certificate; instead of whom the machine believes.
    pub ca: Option<&'a str>,
    /// Our own chain, for endpoints that ask for one.
    pub client: Option<&'a str>,
    /// Its key.
    pub client_key: Option<&'a str>,
}

/// Why there can be no TLS with these certificates.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error(
        "this machine has no certificates of authorities to believe: install ca-certificates, or \
         give the endpoint a ca_certificate"
    )]
    NoRoots,
    #[error("ca_certificate: {0}")]
    Ca(String),
    #[error("client_certificate: {0}")]
    Client(String),
    #[error("client_certificate and client_key belong together: one of them is missing")]
    Half,
}

/// Offers HTTP/2 before HTTP/1.1.
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// How TLS is spoken with an endpoint. Touches the disk unless there is a `ca`.
///
/// # Errors
/// When the certificates are none.
pub fn client_config(certificates: Certificates<'_>) -> Result<Arc<ClientConfig>, TlsError> {
    let roots = match certificates.ca {
        Some(pem) => roots_of(pem)?,
        None => roots_of_the_machine()?,
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has the ciphers of TLS 1.2 and 1.3")
        .with_root_certificates(roots);
    let mut config = match (certificates.client, certificates.client_key) {
        (None, None) => builder.with_no_client_auth(),
        (Some(chain), Some(key)) => {
            let wrong = |error: &dyn std::fmt::Display| TlsError::Client(error.to_string());
            let chain = read_certificates(chain).map_err(|error| wrong(&error))?;
            let key =
                PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|error| wrong(&error))?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| wrong(&error))?
        }
        _ => return Err(TlsError::Half),
    };
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    Ok(Arc::new(config))
}

fn read_certificates(pem: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.as_bytes()).collect();
    match read {
        Ok(none) if none.is_empty() => Err("there is no certificate in it".to_owned()),
        Ok(certificates) => Ok(certificates),
        Err(error) => Err(error.to_string()),
    }
}

fn roots_of(pem: &str) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(pem).map_err(TlsError::Ca)? {
        roots
            .add(certificate)
            .map_err(|error| TlsError::Ca(error.to_string()))?;
    }
    Ok(roots)
}

/// Those of the operating system, which renews them; ours would age with the binary.
fn roots_of_the_machine() -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    // Some stores have a certificate that nothing can read; the others are as good without it.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match roots.is_empty() {
        true => Err(TlsError::NoRoots),
        false => Ok(roots),
    }
}
