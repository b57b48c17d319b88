//! Whose certificates are believed when this process connects to somebody over TLS.
//!
//! One configuration for everything that goes out: other services, agents' URLs, the command line, the
//! agent side. The authorities that browsers believe are built in, so that no file of the system is
//! needed; a file with further ones can be named. Nothing can be told to connect unchecked.

use rustls::{
    CertificateError, ClientConfig, RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

/// The largest file of certificates, in bytes.
const FILE_BYTES_MAX: u64 = 8 << 20;

/// The file of certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// It cannot be read.
    #[error("cannot read the certificates in {path}: {source}")]
    Unreadable {
        /// Where it is.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// There is nothing in it, or nothing that makes sense.
    #[error(
        "{path} has no usable certificate ({why}); it has to hold certificates in PEM, which begin with \
         -----BEGIN CERTIFICATE-----"
    )]
    Unusable {
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// The cryptography that is built in does not do what it should.
    #[error("TLS cannot be set up: {0}")]
    Setup(#[from] rustls::Error),
}

/// Whom this process believes.
#[derive(Clone, Debug)]
pub struct Trust(Arc<ClientConfig>);

impl Trust {
    /// The authorities that are built in, and those in a file.
    pub fn new(file: Option<&Path>) -> Result<Self, TrustError> {
        let mut roots = RootCertStore::empty();
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
        if let Some(path) = file {
            add(&mut roots, path)?;
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }

    /// A client for HTTP. It uses no proxy and follows no redirect: a token is for one address only.
    pub fn http(&self) -> reqwest::ClientBuilder {
        reqwest::Client::builder()
            .use_preconfigured_tls(ClientConfig::clone(&self.0))
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
    }

    /// What opens a WebSocket to a `wss` address with.
    pub fn connector(&self) -> tokio_tungstenite::Connector {
        tokio_tungstenite::Connector::Rustls(Arc::clone(&self.0))
    }
}

fn add(roots: &mut RootCertStore, path: &Path) -> Result<(), TrustError> {
    let unreadable = |source| TrustError::Unreadable { path: path.into(), source };
    let unusable = |why: String| TrustError::Unusable { path: path.into(), why };
    let mut text = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    io::Read::read_to_end(&mut io::Read::take(file, FILE_BYTES_MAX + 1), &mut text)
        .map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(unusable(format!("it has more than {FILE_BYTES_MAX} bytes")));
    }
    let mut found = 0;
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| unusable(error.to_string()))?;
        roots.add(certificate).map_err(|error| unusable(error.to_string()))?;
        found += 1;
    }
    if found == 0 { Err(unusable("there is none".into())) } else { Ok(()) }
}

/// Why somebody was not believed, and what to do about it. It names no address.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mistrust {
    /// Nobody who is believed has signed it.
    #[error(
        "its certificate is not signed by an authority that is trusted here; if it is one of your own, \
         name the file with the authority's certificate: --ca FILE, or ACTA_CA"
    )]
    Authority,
    /// It is somebody else's.
    #[error(
        "its certificate is for another host name; use the name that the certificate is for, or have one \
         made for this name"
    )]
    Name,
    /// It is out of date.
    #[error(
        "its certificate is not valid at this time; renew it, or set the clock of this machine"
    )]
    Time,
    /// Something else is wrong with it.
    #[error("its certificate is not accepted: {0}")]
    Certificate(String),
    /// Whoever is there speaks something else.
    #[error("it does not speak TLS there; is its address one with http:// ?")]
    NoTls,
    /// The two sides did not come to terms.
    #[error("the TLS handshake failed: {0}")]
    Handshake(String),
}

impl Mistrust {
    /// Finds it in an error of a connection, if it is the reason.
    pub fn of(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref::<rustls::Error>() {
                return Some(Self::explained(found));
            }
            // What an I/O error was made from is not among its sources.
            let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
            next = match inner {
                Some(inner) => Some(inner),
                None => error.source(),
            };
        }
        None
    }

    fn explained(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(wrong) => match wrong {
                CertificateError::UnknownIssuer => Self::Authority,
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => Self::Name,
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Self::Time,
                other => Self::Certificate(other.to_string()),
            },
            rustls::Error::InvalidMessage(_) => Self::NoTls,
            other => Self::Handshake(other.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_no_list_of_certificates_is_refused_with_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        let said = || Trust::new(Some(&path)).unwrap_err().to_string();
        assert!(said().contains("cannot read") && said().contains("ca.pem"), "{}", said());
        for text in [
            "",
            "hello",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\n!!!!\n-----END CERTIFICATE-----\n",
            "-----BEGIN CERTIFICATE-----\nAAAA\n",
        ] {
            std::fs::write(&path, text).unwrap();
            assert!(said().contains("BEGIN CERTIFICATE") && said().contains("ca.pem"), "{text}");
        }
        assert!(Trust::new(None).is_ok());
    }

    #[test]
    fn the_reason_is_found_wherever_it_hides() {
        let wrong = |error| rustls::Error::InvalidCertificate(error);
        let hidden = |error: rustls::Error| {
            let inner = io::Error::new(io::ErrorKind::InvalidData, error);
            io::Error::other(io::Error::other(inner))
        };
        for (error, expected) in [
            (wrong(CertificateError::UnknownIssuer), Mistrust::Authority),
            (wrong(CertificateError::NotValidForName), Mistrust::Name),
            (wrong(CertificateError::Expired), Mistrust::Time),
        ] {
            assert_eq!(Mistrust::of(&error), Some(expected.clone()));
            assert_eq!(Mistrust::of(&hidden(error)), Some(expected));
        }
        let plain = rustls::Error::InvalidMessage(rustls::InvalidMessage::InvalidContentType);
        assert_eq!(Mistrust::of(&hidden(plain)), Some(Mistrust::NoTls));
        assert_eq!(Mistrust::of(&io::Error::other("broken")), None);
        assert!(Mistrust::Authority.to_string().contains("--ca"));
    }
}
