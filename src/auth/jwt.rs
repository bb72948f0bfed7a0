//! JSON Web Tokens, checked against the keys of a JWKS file (RFC 7517, RFC 7519), with ring's cryptography.
//!
//! Only signatures by a public key are taken: with a shared secret, who can check could also make.

use std::{
    sync::{Arc, Once},
    time::{Duration, SystemTime},
};

use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind, Validation,
    crypto::{CryptoProvider, JwtVerifier, KeyUtils},
    decode, decode_header,
    errors::{ErrorKind, Result as JwtResult},
    jwk::{Jwk, JwkSet, PublicKeyUse},
    signature::{Error as SignatureError, Verifier},
};
use ring::signature::{self as algorithms, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm};
use serde_json::{Map, Value};

use super::Denied;

/// Clocks differ: a token is taken so long before it begins and after it ends.
const LEEWAY: Duration = Duration::from_secs(30);

/// The algorithms that are taken, whatever a token's header says.
const ALGORITHMS: [Algorithm; 9] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// Whose JWTs are taken.
#[derive(Debug)]
pub(super) struct Jwts {
    keys: Vec<(Option<String>, Vec<Algorithm>, DecodingKey)>,
    validation: Validation,
    claim: String,
}

impl Jwts {
    /// Those signed by a key of this set, by this issuer, for this audience; `claim` is who it is about.
    ///
    /// # Errors
    ///
    /// Words that go after the file's name.
    pub(super) fn new(jwks: &[u8], issuer: &str, audience: &str, claim: String) -> Result<Self, String> {
        install_ring();
        let set: JwkSet = serde_json::from_slice(jwks).map_err(|error| format!("is no JWKS: {error}"))?;
        let for_signatures =
            |jwk: &&Jwk| jwk.common.public_key_use.as_ref().is_none_or(|it| *it == PublicKeyUse::Signature);
        let key = |jwk: &Jwk| {
            // Of a kind that is not known here, perhaps: the others are good.
            let key = DecodingKey::from_jwk(jwk).ok()?;
            let declared: Option<Algorithm> = jwk.common.key_algorithm.and_then(|it| it.to_string().parse().ok());
            let fits = |it: &Algorithm| verifier(it, &key).is_ok() && declared.as_ref().is_none_or(|one| one == it);
            let algorithms: Vec<Algorithm> = ALGORITHMS.into_iter().filter(fits).collect();
            (!algorithms.is_empty()).then_some((jwk.common.key_id.clone(), algorithms, key))
        };
        let keys: Vec<_> = set.keys.iter().filter(for_signatures).filter_map(key).collect();
        if keys.is_empty() {
            return Err("has no key that signatures can be checked with: RSA, EC (P-256, P-384) and Ed25519 are known"
                .to_owned());
        }
        let mut validation = Validation::new(Algorithm::RS256);
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud"]);
        validation.leeway = LEEWAY.as_secs();
        validation.validate_nbf = true;
        Ok(Self { keys, validation, claim })
    }

    /// Whom a JWT is about, and until when it is good.
    pub(super) fn check(&self, token: &str) -> Result<(Arc<str>, SystemTime), Denied> {
        let header = decode_header(token).map_err(|_| Denied::Unknown)?;
        let mut denied = Denied::Unknown;
        // A token that names its key is checked with that one alone.
        let named = |kid: &Option<String>| header.kid.is_none() || kid.is_none() || *kid == header.kid;
        for (_, _, key) in
            self.keys.iter().filter(|(kid, algorithms, _)| named(kid) && algorithms.contains(&header.alg))
        {
            let validation = Validation { algorithms: vec![header.alg], ..self.validation.clone() };
            match decode::<Map<String, Value>>(token, key, &validation) {
                Ok(token) => return self.about(&token.claims),
                // Only said of a signature that is good.
                Err(error) if *error.kind() == ErrorKind::ExpiredSignature => denied = Denied::Expired,
                Err(_) => {}
            }
        }
        Err(denied)
    }

    fn about(&self, claims: &Map<String, Value>) -> Result<(Arc<str>, SystemTime), Denied> {
        let subject = claims.get(&self.claim).and_then(Value::as_str).filter(|subject| !subject.is_empty());
        let expires = claims.get("exp").and_then(Value::as_f64).filter(|seconds| (0.0..1e12).contains(seconds));
        let (Some(subject), Some(expires)) = (subject, expires) else { return Err(Denied::Unknown) };
        let until = SystemTime::UNIX_EPOCH + Duration::from_secs_f64(expires) + LEEWAY;
        Ok((format!("jwt:{subject}").into(), until))
    }
}

/// The library takes its cryptography once for the process.
fn install_ring() {
    static PROVIDER: CryptoProvider = CryptoProvider {
        signer_factory: |_, _| Err(ErrorKind::InvalidAlgorithm.into()),
        verifier_factory: verifier,
        key_utils: KeyUtils::new_unimplemented(), // for keys that are made into a JWKS
    };
    static INSTALLED: Once = Once::new();
    // Already there would be fine: it is this one.
    INSTALLED.call_once(|| _ = PROVIDER.install_default());
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> JwtResult<Box<dyn JwtVerifier>> {
    let by: &'static dyn VerificationAlgorithm = match algorithm {
        Algorithm::ES256 => &algorithms::ECDSA_P256_SHA256_FIXED,
        Algorithm::ES384 => &algorithms::ECDSA_P384_SHA384_FIXED,
        Algorithm::EdDSA => &algorithms::ED25519,
        _ => return rsa_verifier(*algorithm, key),
    };
    if key.family() != algorithm.family() {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    let key = UnparsedPublicKey::new(by, key.try_get_as_bytes()?.to_vec());
    let check = move |message: &[u8], signature: &[u8]| key.verify(message, signature).is_ok();
    Ok(Box::new(Ring { algorithm: *algorithm, check }))
}

fn rsa_verifier(algorithm: Algorithm, key: &DecodingKey) -> JwtResult<Box<dyn JwtVerifier>> {
    let by = match algorithm {
        Algorithm::RS256 => &algorithms::RSA_PKCS1_2048_8192_SHA256,
        Algorithm::RS384 => &algorithms::RSA_PKCS1_2048_8192_SHA384,
        Algorithm::RS512 => &algorithms::RSA_PKCS1_2048_8192_SHA512,
        Algorithm::PS256 => &algorithms::RSA_PSS_2048_8192_SHA256,
        Algorithm::PS384 => &algorithms::RSA_PSS_2048_8192_SHA384,
        Algorithm::PS512 => &algorithms::RSA_PSS_2048_8192_SHA512,
        _ => return Err(ErrorKind::InvalidAlgorithm.into()),
    };
    let DecodingKeyKind::RsaModulusExponent { n, e } = key.kind() else {
        return Err(ErrorKind::InvalidKeyFormat.into());
    };
    let key = RsaPublicKeyComponents { n: n.clone(), e: e.clone() };
    let check = move |message: &[u8], signature: &[u8]| key.verify(by, message, signature).is_ok();
    Ok(Box::new(Ring { algorithm, check }))
}

/// A key that ring checks signatures with.
struct Ring<C> {
    algorithm: Algorithm,
    check: C,
}

impl<C: Fn(&[u8], &[u8]) -> bool> Verifier<Vec<u8>> for Ring<C> {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), SignatureError> {
        if (self.check)(message, signature) { Ok(()) } else { Err(SignatureError::new()) }
    }
}

impl<C: Fn(&[u8], &[u8]) -> bool> JwtVerifier for Ring<C> {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
