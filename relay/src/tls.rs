//! TLS, all of it: who is trusted, and connections to others.

use std::{fmt, io, path::Path, sync::Arc};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

/// A connection to somebody that was checked.
pub type ClientStream = tokio_rustls::client::TlsStream<TcpStream>;

/// Certificates of authorities, out of a file. Two are alike if file and certificates are.
#[derive(Clone, PartialEq, Eq)]
pub struct Authorities {
    file: String,
    certificates: Vec<CertificateDer<'static>>,
}

/// Connects to others over TLS.
#[derive(Clone)]
pub struct Connector(TlsConnector);

impl Authorities {
    /// Reads a file of certificates in PEM.
    ///
    /// # Errors
    /// A text that says what is wrong with it.
    pub fn read(file: &str) -> Result<Self, String> {
        let certificates: Result<Vec<_>, _> = CertificateDer::pem_file_iter(Path::new(file))
            .and_then(Iterator::collect)
            .map_err(|error| format!("cannot read certificates: {error}"));
        let certificates = certificates?;
        if certificates.is_empty() {
            return Err("there is no certificate in it: it has to be PEM".into());
        }
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots
                .add(certificate.clone())
                .map_err(|error| format!("a certificate in it is wrong: {error}"))?;
        }
        Ok(Self { file: file.into(), certificates })
    }

    /// The file.
    pub fn file(&self) -> &str {
        &self.file
    }
}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorities({}, {} certificates)", self.file, self.certificates.len())
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector")
    }
}

impl Connector {
    /// Trusts these authorities, or those that the system trusts.
    pub fn new(authorities: Option<&Authorities>) -> Self {
        let mut roots = RootCertStore::empty();
        match authorities {
            Some(authorities) => roots.add_parsable_certificates(authorities.certificates.iter().cloned()),
            // What can't be read is not trusted; connecting says so.
            None => roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs),
        };
        let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider has the default versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self(TlsConnector::from(Arc::new(config)))
    }

    /// Speaks TLS on a connection to `host`, which has to show a certificate for that.
    ///
    /// # Errors
    /// What is wrong with the certificate or the connection.
    pub async fn connect(&self, host: &str, socket: TcpStream) -> io::Result<ClientStream> {
        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
        self.0.connect(name, socket).await
    }
}
