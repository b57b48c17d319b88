//! TLS in front of somebody who speaks without it, by an authority that is made for one test.

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{ServerConfig, crypto::ring, pki_types::PrivateKeyDer},
};

/// Signs certificates, and has its own in a file.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    dir: TempDir,
}

/// A listener that speaks TLS and passes on what is said.
pub struct Front {
    pub port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Authority {
    pub fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        std::fs::write(dir.path().join("authority.pem"), certificate.pem()).unwrap();
        Self { issuer: Issuer::new(params, key), dir }
    }

    /// The file with its certificate.
    pub fn file(&self) -> PathBuf {
        self.dir.path().join("authority.pem")
    }

    /// Listens on this machine with a certificate for a name, in front of an address as in
    /// `http://127.0.0.1:80`.
    pub async fn front(&self, name: &str, to: &str) -> Front {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::<Mutex<Vec<String>>>::default();
        let (to, names) = (to.strip_prefix("http://").unwrap().to_owned(), Arc::clone(&asked));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, to, names) = (acceptor.clone(), to.clone(), Arc::clone(&names));
                tokio::spawn(async move {
                    // Whoever does not believe this certificate goes away here.
                    let Ok(mut outer) = acceptor.accept(stream).await else {
                        return;
                    };
                    let name = outer.get_ref().1.server_name().unwrap_or_default().to_owned();
                    names.lock().unwrap().push(name);
                    let mut inner = TcpStream::connect(to).await.unwrap();
                    drop(tokio::io::copy_bidirectional(&mut outer, &mut inner).await);
                });
            }
        });
        Front { port, asked }
    }
}

impl Front {
    /// Its address under a name of this machine.
    pub fn at(&self, host: &str) -> String {
        format!("https://{host}:{}", self.port)
    }

    /// The names that connections were made for, of those that were made.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}
