//! TLS: certificates and keys from files, for the server and for the client, and what the two agree on.
//!
//! At least TLS 1.2, by rustls and with its choice of ciphers; HTTP/2 by ALPN, where the other side uses that. The server's files
//! are read again when they change, and connections that are there stay as they are.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use clap::{Args, ValueEnum};
use parking_lot::RwLock;
use tokio::time::sleep;
use tokio_rustls::rustls::{
    self, ClientConfig, ConfigBuilder, RootCertStore, ServerConfig, WantsVerifier,
    crypto::{self, CryptoProvider},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{NoClientAuth, WebPkiClientVerifier, danger::ClientCertVerifier},
};

/// What HTTP/2 is called in ALPN.
const HTTP2: &[u8] = b"h2";

/// So often the server's files are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);

/// Where the server finds what it needs for TLS.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "TLS")]
#[allow(clippy::doc_markdown)] // the docs are the help
pub struct Files {
    /// The server's certificate, and those between it and its CA, in PEM. With it everybody must speak TLS. Read again when it changes
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub tls_cert: Option<PathBuf>,

    /// The private key of --tls-cert, in PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_key: Option<PathBuf>,

    /// The CAs of clients' certificates, in PEM: mutual TLS
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub tls_client_ca: Option<PathBuf>,

    /// Whether each client must have a certificate, or may
    #[arg(long, value_name = "WHO", value_enum, default_value_t)]
    pub tls_clients: Clients,
}

/// Who needs a certificate, where there are CAs for them.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub enum Clients {
    /// Every client.
    #[default]
    Required,
    /// Who has none is let in without; who has one shows it.
    Optional,
}

/// The bytes of those files.
#[derive(Eq, PartialEq)]
struct Contents {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// What the server's side of a handshake is made with.
pub struct Acceptor {
    cert: PathBuf,
    key: PathBuf,
    client_ca: Option<PathBuf>,
    clients: Clients,
    current: RwLock<Current>,
}

struct Current {
    contents: Contents,
    config: Arc<ServerConfig>,
}

impl Acceptor {
    /// Reads the files; `None` where there is to be no TLS.
    ///
    /// # Errors
    ///
    /// A line for the operator, which names the file.
    pub fn new(files: &Files) -> Result<Option<Self>, String> {
        let (Some(cert), Some(key)) = (files.tls_cert.clone(), files.tls_key.clone()) else { return Ok(None) };
        let (client_ca, clients) = (files.tls_client_ca.clone(), files.tls_clients);
        let contents = read_all(&cert, &key, client_ca.as_deref())?;
        let config = server_config(&contents, [&cert, &key], client_ca.as_deref(), clients)?;
        Ok(Some(Self { cert, key, client_ca, clients, current: RwLock::new(Current { contents, config }) }))
    }

    /// What holds for who connects now.
    pub fn config(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.read().config)
    }

    /// Reads the files again, and takes what is new in them. Whether anything was.
    ///
    /// # Errors
    ///
    /// A line for the operator; then all is as it was.
    pub fn read_again(&self) -> Result<bool, String> {
        let contents = read_all(&self.cert, &self.key, self.client_ca.as_deref())?;
        if contents == self.current.read().contents {
            return Ok(false);
        }
        let config = server_config(&contents, [&self.cert, &self.key], self.client_ca.as_deref(), self.clients)?;
        *self.current.write() = Current { contents, config };
        Ok(true)
    }

    /// Takes what is new in the files as it comes, for ever.
    ///
    /// They are read rather than watched for: what Kubernetes mounts changes by links to folders, which no watch of a file sees.
    pub async fn follow(&self) -> std::convert::Infallible {
        let mut complaint = None;
        loop {
            sleep(LOOK_EVERY).await;
            // A certificate is often there before its key: one complaint, not one every five seconds.
            complaint = self.take_news(complaint.as_deref()).err();
        }
    }

    /// Takes what is new, and says so in the log, but for what was said there `before`.
    ///
    /// # Errors
    ///
    /// The same line as in the log; then all is as it was.
    pub fn take_news(&self, before: Option<&str>) -> Result<(), String> {
        match self.read_again() {
            Ok(false) => {}
            Ok(true) => tracing::info!("the certificates were read again"),
            Err(why) => {
                if before != Some(&why) {
                    tracing::error!(?why, "the certificates were not read again: those from before hold");
                }
                return Err(why);
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Acceptor {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Acceptor").field("cert", &self.cert).field("client_ca", &self.client_ca).finish_non_exhaustive()
    }
}

fn read_all(cert: &Path, key: &Path, client_ca: Option<&Path>) -> Result<Contents, String> {
    Ok(Contents { cert: read(cert)?, key: read(key)?, client_ca: client_ca.map(read).transpose()? })
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("{}: can't be read: {error}", path.display()))
}

fn server_config(
    contents: &Contents,
    [cert, key]: [&PathBuf; 2],
    client_ca: Option<&Path>,
    clients: Clients,
) -> Result<Arc<ServerConfig>, String> {
    let verifier = match (client_ca, &contents.client_ca) {
        (Some(path), Some(pem)) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(path, pem)?), provider());
            let verifier = match clients {
                Clients::Required => verifier,
                Clients::Optional => verifier.allow_unauthenticated(),
            };
            verifier.build().map_err(|error| format!("{}: {error}", path.display()))?
        }
        _ => Arc::new(NoClientAuth) as Arc<dyn ClientCertVerifier>,
    };
    let builder = with_versions(ServerConfig::builder_with_provider(provider()))?;
    let builder = builder.with_client_cert_verifier(verifier);
    let identity = (certificates(cert, &contents.cert)?, private_key(key, &contents.key)?);
    let mut config = builder
        .with_single_cert(identity.0, identity.1)
        .map_err(|error| format!("{} and {}: {}", cert.display(), key.display(), mismatch(&error)))?;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    Ok(Arc::new(config))
}

/// What the client's side of a handshake is made with: whom it trusts (`None`: whom the system does), and its own certificate and key.
///
/// # Errors
///
/// A line for the user, which names the file.
pub fn client_config(ca: Option<&Path>, identity: Option<(&Path, &Path)>) -> Result<Arc<ClientConfig>, String> {
    let roots = match ca {
        Some(path) => roots(path, &read(path)?)?,
        None => system_roots()?,
    };
    let builder = with_versions(ClientConfig::builder_with_provider(provider()))?.with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => builder
            .with_client_auth_cert(certificates(cert, &read(cert)?)?, private_key(key, &read(key)?)?)
            .map_err(|error| format!("{} and {}: {}", cert.display(), key.display(), mismatch(&error)))?,
    };
    config.alpn_protocols = vec![HTTP2.to_vec()];
    Ok(Arc::new(config))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(crypto::ring::default_provider())
}

fn with_versions<S: rustls::ConfigSide>(
    builder: ConfigBuilder<S, rustls::WantsVersions>,
) -> Result<ConfigBuilder<S, WantsVerifier>, String> {
    // Those are 1.2 and 1.3: rustls has no older ones.
    builder.with_safe_default_protocol_versions().map_err(|error| error.to_string())
}

fn system_roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    // One that can't be read is not trusted; the others are.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() { Err("this system has no CAs to trust: name them with --ca".to_owned()) } else { Ok(roots) }
}

fn roots(path: &Path, pem: &[u8]) -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path, pem)? {
        roots.add(certificate).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    Ok(roots)
}

fn certificates(path: &Path, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let all = all.map_err(|error| format!("{}: is no PEM: {error}", path.display()))?;
    if all.is_empty() {
        return Err(format!(
            "{}: has no certificate in it (a section that begins with BEGIN CERTIFICATE)",
            path.display()
        ));
    }
    Ok(all)
}

fn private_key(path: &Path, pem: &[u8]) -> Result<PrivateKeyDer<'static>, String> {
    // Its own words would do but for what they quote, which is a secret.
    PrivateKeyDer::from_pem_slice(pem).map_err(|_| {
        format!(
            "{}: has no private key in it that can be read (PKCS#8, PKCS#1 or SEC1, in PEM, without a password)",
            path.display()
        )
    })
}

fn mismatch(error: &rustls::Error) -> String {
    match error {
        rustls::Error::InconsistentKeys(_) => "the key is not that of the certificate".to_owned(),
        error => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertifiedKey, generate_simple_self_signed};

    use super::*;

    /// A folder with a certificate and its key.
    fn folder() -> (tempfile::TempDir, Files) {
        let folder = tempfile::tempdir().unwrap();
        let files = Files {
            tls_cert: Some(folder.path().join("cert.pem")),
            tls_key: Some(folder.path().join("key.pem")),
            ..Files::default()
        };
        renew(&files);
        (folder, files)
    }

    fn renew(files: &Files) {
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        fs::write(files.tls_cert.as_ref().unwrap(), cert.pem()).unwrap();
        fs::write(files.tls_key.as_ref().unwrap(), signing_key.serialize_pem()).unwrap();
    }

    #[test]
    fn without_a_certificate_there_is_no_tls() {
        assert!(Acceptor::new(&Files::default()).unwrap().is_none());
    }

    #[test]
    fn files_that_are_no_good_are_named_and_no_key_is_quoted() {
        let (folder, files) = folder();
        let key = fs::read_to_string(files.tls_key.as_ref().unwrap()).unwrap();
        let wrong = |name: &str, text: &str| {
            let (_kept, mut files) = (&folder, files.clone());
            let path = folder.path().join("wrong.pem");
            fs::write(&path, text).unwrap();
            match name {
                "cert" => files.tls_cert = Some(path),
                "key" => files.tls_key = Some(path),
                _ => files.tls_client_ca = Some(path),
            }
            Acceptor::new(&files).unwrap_err()
        };
        let other = generate_simple_self_signed(["localhost".to_owned()]).unwrap().signing_key.serialize_pem();
        assert!(wrong("cert", "").contains("wrong.pem: has no certificate in it"));
        assert!(wrong("cert", &key).contains("wrong.pem: has no certificate in it"));
        assert!(wrong("ca", "nothing").contains("wrong.pem: has no certificate in it"));
        assert!(wrong("key", &other).ends_with("wrong.pem: the key is not that of the certificate"));
        let cut = wrong("key", &key[..key.len() / 2]);
        assert!(cut.contains("wrong.pem: has no private key in it") && !cut.contains(&key[40..60]), "{cut}");
        let missing = Files { tls_key: Some(folder.path().join("none")), ..files.clone() };
        assert!(Acceptor::new(&missing).unwrap_err().contains("none: can't be read: "));
    }

    #[test]
    fn what_is_new_is_taken_and_what_is_no_good_changes_nothing() {
        let (_folder, files) = folder();
        let acceptor = Acceptor::new(&files).unwrap().unwrap();
        let first = acceptor.config();
        assert_eq!(acceptor.read_again(), Ok(false));

        fs::write(files.tls_cert.as_ref().unwrap(), "").unwrap();
        let complaint = acceptor.take_news(None);
        assert!(complaint.as_ref().unwrap_err().contains("has no certificate in it"));
        assert_eq!(acceptor.take_news(complaint.as_ref().err().map(String::as_str)), complaint);
        assert!(Arc::ptr_eq(&first, &acceptor.config()));

        renew(&files);
        assert_eq!(acceptor.read_again(), Ok(true));
        assert!(!Arc::ptr_eq(&first, &acceptor.config()));
        assert!(!format!("{acceptor:?}").contains("key"));
    }
}
