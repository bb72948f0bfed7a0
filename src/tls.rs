//! TLS: certificates and keys from files, for the server and for the client, and what the two agree on.
//!
//! At least TLS 1.2, by rustls and with its choice of ciphers; HTTP/2 by ALPN, where the other side uses that. The
//! server's files are [followed](crate::followed): connections that are there stay as they are.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use clap::{Args, ValueEnum};
use tokio_rustls::rustls::{
    self, ClientConfig, ConfigBuilder, RootCertStore, ServerConfig, WantsVerifier,
    crypto::{self, CryptoProvider},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::{NoClientAuth, WebPkiClientVerifier, danger::ClientCertVerifier},
};

use crate::{
    auth::Certificate,
    followed::{Followed, read},
};

/// What HTTP/2 is called in ALPN.
const HTTP2: &[u8] = b"h2";

/// Where the server finds what it needs for TLS.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "TLS")]
#[allow(clippy::doc_markdown)] // the docs are the help
pub struct Files {
    /// The server's certificate, and those between it and its CA, in PEM. With it everybody must speak TLS. Read
    /// again when it changes
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

/// The server's side.
#[derive(Debug)]
pub struct Tls {
    /// What a handshake is made with.
    pub config: Arc<ServerConfig>,
    /// When the first of its certificates expires.
    pub expires: Option<SystemTime>,
}

/// What the server's side of a handshake is made with, as the files say; `None` where there is to be no TLS.
///
/// # Errors
///
/// A line for the operator, which names the file.
pub fn server(files: &Files) -> Result<Option<Followed<Tls>>, String> {
    let (Some(cert), Some(key)) = (files.tls_cert.clone(), files.tls_key.clone()) else { return Ok(None) };
    let (client_ca, clients) = (files.tls_client_ca.clone(), files.tls_clients);
    let paths: Vec<PathBuf> = [Some(cert), Some(key), client_ca].into_iter().flatten().collect();
    let of = paths.clone();
    let read_all = move || paths.iter().map(|path| read(path)).collect();
    Followed::new("certificates", read_all, move |contents| server_config(&of, contents, clients)).map(Some)
}

/// From the certificate, the key, and, for mutual TLS, the CAs.
fn server_config(paths: &[PathBuf], contents: &[Vec<u8>], clients: Clients) -> Result<Tls, String> {
    let ([cert, key, more @ ..], [cert_pem, key_pem, more_pem @ ..]) = (paths, contents) else {
        return Err("a certificate and a key are needed".to_owned());
    };
    let verifier = match (more, more_pem) {
        ([path], [pem]) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots(path, pem)?), provider());
            let verifier = match clients {
                Clients::Required => verifier,
                Clients::Optional => verifier.allow_unauthenticated(),
            };
            verifier.build().map_err(|error| format!("{}: {error}", path.display()))?
        }
        _ => Arc::new(NoClientAuth) as Arc<dyn ClientCertVerifier>,
    };
    let chain = certificates(cert, cert_pem)?;
    let expires = chain.iter().filter_map(Certificate::read).map(|certificate| certificate.until()).min();
    let builder = with_versions(ServerConfig::builder_with_provider(provider()))?.with_client_cert_verifier(verifier);
    let mut config = builder
        .with_single_cert(chain, private_key(key, key_pem)?)
        .map_err(|error| format!("{} and {}: {}", cert.display(), key.display(), mismatch(&error)))?;
    config.alpn_protocols = vec![HTTP2.to_vec()];
    Ok(Tls { config: Arc::new(config), expires })
}

/// What the client's side of a handshake is made with: whom it trusts (`None`: whom the system does), and its own
/// certificate and key.
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
    use std::fs;

    use rcgen::{CertifiedKey, generate_simple_self_signed};

    use super::*;

    #[test]
    fn without_a_certificate_there_is_no_tls() {
        assert!(server(&Files::default()).unwrap().is_none());
    }

    #[test]
    fn files_that_are_no_good_are_named_and_no_key_is_quoted() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            Some(path)
        };
        let certified = || generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let CertifiedKey { cert, signing_key } = certified();
        let (cert, key) = (cert.pem(), signing_key.serialize_pem());
        let good = Files { tls_cert: file("cert.pem", &cert), tls_key: file("key.pem", &key), ..Files::default() };
        assert!(server(&good).unwrap().is_some());

        let refused = |files: Files| server(&files).unwrap_err();
        let cert_of = |text| Files { tls_cert: file("wrong.pem", text), ..good.clone() };
        let key_of = |text| Files { tls_key: file("wrong.pem", text), ..good.clone() };
        for text in ["", &key] {
            assert!(refused(cert_of(text)).contains("wrong.pem: has no certificate in it"));
        }
        let ca = Files { tls_client_ca: file("wrong.pem", "nothing"), ..good.clone() };
        assert!(refused(ca).contains("wrong.pem: has no certificate in it"));
        let others = certified().signing_key.serialize_pem();
        assert!(refused(key_of(&others)).ends_with("wrong.pem: the key is not that of the certificate"));
        let cut = refused(key_of(&key[..key.len() / 2]));
        assert!(cut.contains("wrong.pem: has no private key in it") && !cut.contains(&key[40..60]), "{cut}");
        let missing = Files { tls_key: Some(folder.path().join("none")), ..good.clone() };
        assert!(refused(missing).contains("none: can't be read: "));
    }
}
