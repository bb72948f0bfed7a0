//! What the certificate of a connection says of its client. That it is genuine the handshake has seen to.

use std::{sync::Arc, time::SystemTime};

use tokio_rustls::rustls::pki_types::CertificateDer;
use x509_cert::{
    Certificate as X509,
    der::Decode as _,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

use super::{Digest, hash};

/// A client's certificate, as far as it matters.
#[derive(Debug)]
pub struct Certificate {
    hash: Digest,
    identities: Vec<Arc<str>>,
    until: SystemTime,
}

impl Certificate {
    /// Reads it; `None` where it can't be.
    #[must_use]
    pub fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let certificate = X509::from_der(der).ok()?;
        let certificate = certificate.tbs_certificate();
        let until = certificate.validity().not_after.to_system_time();
        let names = certificate.get_extension::<SubjectAltName>().ok()?;
        let names = names.map(|(_, names)| names.0).unwrap_or_default();
        let uris = names.iter().filter_map(|name| match name {
            GeneralName::UniformResourceIdentifier(uri) => Some(uri.as_str().into()),
            _ => None,
        });
        let hosts = names.iter().filter_map(|name| match name {
            GeneralName::DnsName(host) => Some(format!("dns:{}", host.as_str().to_ascii_lowercase()).into()),
            _ => None,
        });
        let identities = uris.chain(hosts).filter(|name: &Arc<str>| !is_anothers(name)).collect();
        Some(Self { hash: hash(der), identities, until })
    }

    pub(super) fn hash(&self) -> Digest {
        self.hash
    }

    /// What it may be called: its URIs, and then its hosts.
    pub(super) fn identities(&self) -> &[Arc<str>] {
        &self.identities
    }

    /// When it expires.
    #[must_use]
    pub fn until(&self) -> SystemTime {
        self.until
    }
}

/// A URI may be any text before its colon: none may pass for another kind of credential.
fn is_anothers(name: &str) -> bool {
    let kinds = ["token:", "jwt:"];
    name == super::ANONYMOUS || kinds.iter().any(|kind| name.starts_with(kind))
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair, SanType};

    use super::*;

    #[test]
    fn a_certificate_is_known_by_its_uris_and_its_hosts_and_by_nothing_that_is_another_kind() {
        let mut params = CertificateParams::default();
        let uri = |uri: &str| SanType::URI(uri.try_into().unwrap());
        params.subject_alt_names = vec![
            SanType::DnsName("Billing.example.org".try_into().unwrap()),
            uri("token:root"),
            uri("spiffe://example.org/billing"),
        ];
        params.not_after = rcgen::date_time_ymd(2027, 1, 1);
        let der = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let certificate = Certificate::read(der.der()).unwrap();
        let identities: Vec<&str> = certificate.identities().iter().map(|name| &**name).collect();
        assert_eq!(identities, ["spiffe://example.org/billing", "dns:billing.example.org"]);
        let until = certificate.until().duration_since(SystemTime::UNIX_EPOCH).unwrap();
        assert_eq!(until.as_secs(), 1_798_761_600);
        assert!(Certificate::read(&CertificateDer::from(&b"no certificate"[..])).is_none());
    }
}
