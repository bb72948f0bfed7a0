//! Who is let in by which file, and what they may do then.

use std::{fs, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use http::HeaderValue;
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _},
};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// A folder with a file of rules.
struct Rules(TempDir);

impl Rules {
    fn new(text: &str) -> Self {
        let rules = Self(tempfile::tempdir().unwrap());
        rules.write("auth.toml", text);
        rules
    }

    fn write(&self, file: &str, text: &str) {
        fs::write(self.0.path().join(file), text).unwrap();
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("auth.toml")
    }

    fn auth(&self) -> Arc<Auth> {
        Arc::new(Auth::new(&self.path()).unwrap())
    }
}

fn hex(token: &str) -> String {
    hash(token.as_bytes()).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bearer(token: &str) -> HeaderMap {
    let header = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
    [(AUTHORIZATION, header)].into_iter().collect()
}

fn identity(auth: &Auth, token: &str) -> Result<String, Denied> {
    auth.identify(&bearer(token), None).map(|caller| caller.identity().unwrap().to_string())
}

const CI: &str = r#"
    [[rule]]
    who = ["token:ci"]
    may = ["read", "watch"]
    names = ["ci/"]
"#;

fn with_token(token: &str) -> String {
    format!("[[token]]\nidentity = \"ci\"\nsha256 = \"{}\"\n{CI}", hex(token))
}

#[test]
fn a_token_is_known_by_its_hash_and_nobody_comes_without() {
    let auth = Rules::new(&with_token("secret")).auth();
    let caller = auth.identify(&bearer("secret"), None).unwrap();
    assert_eq!(&**caller.identity().unwrap(), "token:ci");
    assert!(caller.may(Verb::Read.into(), "ci/x") && !caller.may(Verb::Write.into(), "ci/x"));
    assert!(!caller.may(Verb::Read.into(), "other"));

    assert_eq!(identity(&auth, "wrong"), Err(Denied::Unknown));
    assert_eq!(auth.identify(&HeaderMap::new(), None).unwrap_err(), Denied::Missing);
    let basic = [(AUTHORIZATION, HeaderValue::from_static("Basic c2VjcmV0"))].into_iter().collect();
    assert_eq!(auth.identify(&basic, None).unwrap_err(), Denied::Unknown);
    assert!(!format!("{auth:?} {caller:?}").contains("secret"), "no secret is shown");
}

#[test]
fn who_shows_nothing_is_let_in_where_a_rule_says_so_and_a_star_does_not() {
    let star = "[[rule]]\nwho = [\"*\"]\nmay = [\"admin\"]\nnames = [\"\"]\n";
    assert_eq!(Rules::new(star).auth().identify(&HeaderMap::new(), None).unwrap_err(), Denied::Missing);
    let anonymous = "[[rule]]\nwho = [\"anonymous\"]\nmay = [\"read\"]\nnames = [\"public/\"]\n";
    let auth = Rules::new(&format!("{star}{anonymous}")).auth();
    let caller = auth.identify(&HeaderMap::new(), None).unwrap();
    assert!(caller.may(Verb::Read.into(), "public/x") && !caller.may(Verb::Read.into(), "x"));
    // A credential that is no good is no way to be nobody.
    assert_eq!(identity(&auth, "wrong"), Err(Denied::Unknown));
}

#[test]
fn a_token_that_has_expired_is_said_to_have() {
    let expired = with_token("secret").replace(CI, &format!("expires = 2020-01-01T00:00:00Z\n{CI}"));
    assert_eq!(identity(&Rules::new(&expired).auth(), "secret"), Err(Denied::Expired));
}

#[test]
fn a_file_that_is_no_good_is_refused_with_the_place_and_what_is_allowed() {
    for (text, why) in [
        ("[[rule]]\nwho = [\"ci\"]\nmay = []\nnames = []", "line 2: \"ci\" is nobody: token:…, jwt:…, dns:…, a URI"),
        ("[[rule]]\nwho = [\"token:*-*\"]\nmay = []\nnames = []", "has more than one *"),
        ("[[rule]]\nwho = []\nmay = [\"fly\"]\nnames = []", "line 3: unknown variant `fly`, expected one of `read`"),
        ("[[rule]]\nwho = []\nmay = []\nname = []", "line 4: unknown field `name`"),
        ("[[token]]\nidentity = \"ci\"\nsha256 = \"ab\"", "sha256 of the token \"ci\" is no hash: 64 digits"),
        ("[[token]]\nidentity = \"ci\"", "missing field `sha256`"),
        ("[jwt]\njwks = \"none\"\nissuer = \"\"\naudience = \"\"", "none: can't be read"),
        ("= 1", "line 1: "),
    ] {
        let rules = Rules::new(text);
        let line = Auth::new(&rules.path()).unwrap_err();
        assert!(line.starts_with(rules.0.path().to_str().unwrap()) && line.contains(why), "{line}");
        assert!(!line.contains('\n'), "{line}");
    }
    let time = with_token("t").replace(CI, "expires = 07:30:00\n");
    assert!(Auth::new(&Rules::new(&time).path()).unwrap_err().contains("a date is needed"));
    let twice = format!("{}{}", with_token("t").replace(CI, ""), with_token("t"));
    assert!(Auth::new(&Rules::new(&twice).path()).unwrap_err().contains("two tokens have the hash"));
}

/// Somebody who makes JWTs.
struct Issuer {
    ed: Ed25519KeyPair,
    ec: EcdsaKeyPair,
}

impl Issuer {
    fn new() -> Self {
        let random = SystemRandom::new();
        let ed = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let ec = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &random).unwrap();
        Self {
            ed: Ed25519KeyPair::from_pkcs8(ed.as_ref()).unwrap(),
            ec: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, ec.as_ref(), &random).unwrap(),
        }
    }

    fn jwks(&self) -> String {
        let point = self.ec.public_key().as_ref();
        json!({ "keys": [
            { "kty": "OKP", "crv": "Ed25519", "kid": "ed", "x": encoded(self.ed.public_key().as_ref()) },
            { "kty": "EC", "crv": "P-256", "kid": "ec", "x": encoded(&point[1..33]), "y": encoded(&point[33..]) },
            { "kty": "EC", "crv": "P-256", "kid": "no key", "x": "", "y": "" },
        ] })
        .to_string()
    }

    fn signed(&self, header: &Value, claims: &Value) -> String {
        let message = format!("{}.{}", encoded(header.to_string().as_bytes()), encoded(claims.to_string().as_bytes()));
        let signature = match header["alg"].as_str().unwrap() {
            "ES256" => self.ec.sign(&SystemRandom::new(), message.as_bytes()).unwrap().as_ref().to_vec(),
            _ => self.ed.sign(message.as_bytes()).as_ref().to_vec(),
        };
        format!("{message}.{}", encoded(&signature))
    }
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

const JWT: &str = r#"
    [jwt]
    jwks = "keys.json"
    issuer = "https://login.example.org"
    audience = "pail"
"#;

#[test]
fn a_jwt_is_taken_from_the_issuer_for_pail_in_its_time_and_with_its_signature_alone() {
    let issuer = Issuer::new();
    let rules = Rules::new("");
    rules.write("auth.toml", JWT);
    rules.write("keys.json", &issuer.jwks());
    let auth = rules.auth();
    let claims = json!({ "iss": "https://login.example.org", "aud": "pail", "sub": "alice", "exp": now() + 60 });
    let with = |name: &str, value: Value| {
        let mut claims = claims.clone();
        claims[name] = value;
        claims
    };
    let ed = json!({ "alg": "EdDSA", "kid": "ed" });
    let shown = |header: &Value, claims: &Value| identity(&auth, &issuer.signed(header, claims));

    let alice = Ok("jwt:alice".to_owned());
    assert_eq!(shown(&ed, &claims), alice);
    assert_eq!(shown(&json!({ "alg": "ES256", "kid": "ec" }), &claims), alice);
    assert_eq!(shown(&json!({ "alg": "ES256" }), &claims), alice);
    assert_eq!(shown(&ed, &with("aud", json!(["other", "pail"]))), alice);

    for (header, claims) in [
        (&ed, with("iss", json!("https://evil.example.org"))),
        (&ed, with("aud", json!("another"))),
        (&ed, with("aud", Value::Null)),
        (&ed, with("exp", Value::Null)),
        (&ed, with("sub", json!(""))),
        (&ed, with("nbf", json!(now() + 600))),
        (&json!({ "alg": "EdDSA", "kid": "ec" }), claims.clone()),
        (&json!({ "alg": "EdDSA", "kid": "of nobody" }), claims.clone()),
        (&json!({ "alg": "none" }), claims.clone()),
        (&json!({ "alg": "HS256", "kid": "ed" }), claims.clone()),
    ] {
        assert_eq!(shown(header, &claims), Err(Denied::Unknown), "{header} {claims}");
    }
    assert_eq!(shown(&ed, &with("exp", json!(now() - 60))), Err(Denied::Expired));
    let stranger = Issuer::new();
    assert_eq!(identity(&auth, &stranger.signed(&ed, &claims)), Err(Denied::Unknown));
    assert_eq!(identity(&auth, &stranger.signed(&ed, &with("exp", json!(now() - 60)))), Err(Denied::Unknown));
    let mut cut = issuer.signed(&ed, &claims);
    cut.truncate(cut.len() - 4);
    assert_eq!(identity(&auth, &cut), Err(Denied::Unknown));
}

#[test]
fn a_key_set_without_a_key_for_signatures_is_refused() {
    let rules = Rules::new(JWT);
    for (keys, why) in [
        ("{}", "is no JWKS"),
        (r#"{"keys":[]}"#, "has no key that signatures can be checked with"),
        (r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#, "has no key that signatures can be checked with"),
    ] {
        rules.write("keys.json", keys);
        let line = Auth::new(&rules.path()).unwrap_err();
        assert!(line.contains("keys.json: ") && line.contains(why), "{line}");
    }
}

#[tokio::test]
async fn a_stream_is_over_when_its_credential_is_taken_back_or_may_do_something_else_and_not_before() {
    let rules = Rules::new(&with_token("secret"));
    let auth = rules.auth();
    let caller = auth.identify(&bearer("secret"), None).unwrap();
    let changed_to = |text: String| {
        rules.write("auth.toml", &text);
        auth.files().read_again().unwrap();
    };
    let mut over = Box::pin(Arc::clone(&auth).over(caller.clone()));
    let mut is_over = async || {
        // Long enough for what is ready, and nothing else is asked.
        tokio::time::timeout(Duration::from_millis(20), &mut over).await.ok()
    };
    assert_eq!(is_over().await, None);
    changed_to(format!("# nothing that is about it\n{}", with_token("secret")));
    assert_eq!(is_over().await, None);
    changed_to(with_token("secret").replace("\"watch\"", "\"write\""));
    assert_eq!(is_over().await, Some(Denied::Changed));

    let caller = auth.identify(&bearer("secret"), None).unwrap();
    assert!(caller.may(Verb::Write.into(), "ci/x"), "who comes now comes by the new rules");
    changed_to(with_token("another"));
    assert_eq!(Arc::clone(&auth).over(caller).await, Denied::Unknown);
    assert_eq!(identity(&auth, "secret"), Err(Denied::Unknown));
}

#[tokio::test]
async fn a_stream_is_over_when_its_credential_expires() {
    let soon = prost_types::Timestamp { seconds: i64::try_from(now()).unwrap() + 2, nanos: 0 };
    let auth = Rules::new(&with_token("secret").replace(CI, &format!("expires = {soon}\n{CI}"))).auth();
    let caller = auth.identify(&bearer("secret"), None).unwrap();
    assert_eq!(auth.over(caller).await, Denied::Expired);
}

#[test]
fn a_quota_is_of_each_identity_and_the_first_that_fits() {
    let quotas = "[[quota]]\nwho = [\"token:ci\"]\nbuckets = 2\n[[quota]]\nwho = [\"*\"]\nbuckets = 1\n";
    let text = format!("{}{quotas}", with_token("secret"));
    let rules = Rules::new(&format!("[[token]]\nidentity = \"other\"\nsha256 = \"{}\"\n{text}", hex("other")));
    let auth = rules.auth();
    let owner = |token: &str| Arc::clone(auth.identify(&bearer(token), None).unwrap().owner().unwrap());
    let (ci, other) = (owner("secret"), owner("other"));
    (0..2).for_each(|_| ci.buckets.take(1).unwrap());
    assert_eq!(ci.buckets.take(1).unwrap_err().limit, 2);
    other.buckets.take(1).unwrap();
    assert_eq!(other.buckets.take(1).unwrap_err().limit, 1);
    assert!(Arc::ptr_eq(&ci, &owner("secret")));

    rules.write("auth.toml", &text.replace("buckets = 2", "buckets = 3"));
    auth.files().read_again().unwrap();
    assert!(Arc::ptr_eq(&ci, &owner("secret")), "what it has is still counted");
    ci.buckets.take(1).unwrap();
}
