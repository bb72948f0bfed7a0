//! TLS: who is trusted, who is let in, and what happens when the files change.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    path::PathBuf,
    time::{Duration, Instant},
};

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use super::binary::{Running, Served, complaint, pail};

/// A folder of certificates and keys.
pub(crate) struct Pki(TempDir);

impl Pki {
    /// With a CA, `ca.pem`.
    pub(crate) fn new() -> Self {
        let pki = Self(tempfile::tempdir().unwrap());
        pki.authority("ca");
        pki.certify("ca", "server", "localhost");
        pki
    }

    pub(crate) fn authority(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        self.write(name, &authority_params(name).self_signed(&key).unwrap().pem(), &key);
    }

    /// A certificate with one name: of a host, or a URI.
    pub(crate) fn certify(&self, authority: &str, file: &str, name: &str) {
        let mut params = CertificateParams::default();
        params.subject_alt_names = vec![match name.contains("://") {
            true => rcgen::SanType::URI(name.try_into().unwrap()),
            false => rcgen::SanType::DnsName(name.try_into().unwrap()),
        }];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let authority_key = KeyPair::from_pem(&fs::read_to_string(self.key(authority)).unwrap()).unwrap();
        let issuer = Issuer::new(authority_params(authority), authority_key);
        let key = KeyPair::generate().unwrap();
        self.write(file, &params.signed_by(&key, &issuer).unwrap().pem(), &key);
    }

    fn write(&self, name: &str, certificate: &str, key: &KeyPair) {
        fs::write(self.key(name), key.serialize_pem()).unwrap();
        fs::write(self.path(name), certificate).unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(format!("{name}.pem"))
    }

    pub(crate) fn key(&self, name: &str) -> PathBuf {
        self.0.path().join(format!("{name}.key"))
    }

    /// A server with the certificate `server`.
    pub(crate) fn serve(&self, more: &[&str]) -> Served {
        let args =
            ["--tls-cert", self.path("server").to_str().unwrap(), "--tls-key", self.key("server").to_str().unwrap()]
                .map(str::to_owned);
        Served::start(&args.iter().map(String::as_str).chain(more.iter().copied()).collect::<Vec<_>>())
    }

    /// The options of a client: whom it trusts, and what it shows.
    pub(crate) fn options(&self, ca: &str, identity: Option<&str>) -> Vec<String> {
        let text = |path: PathBuf| path.to_str().unwrap().to_owned();
        let mut options = vec!["--ca".to_owned(), text(self.path(ca))];
        if let Some(name) = identity {
            options.extend(["--cert".to_owned(), text(self.path(name)), "--key".to_owned(), text(self.key(name))]);
        }
        options
    }
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params
}

/// Runs a client's command against the server as `localhost`, and says how it ended.
pub(crate) fn run(served: &Served, options: &[String], command: &[&str]) -> Result<String, (i32, String)> {
    let address = format!("https://localhost:{}", served.address.port());
    let options = options.iter().map(String::as_str).chain(["--addr", &address]);
    let output = served.command(&options.chain(command.iter().copied()).collect::<Vec<_>>()).output().unwrap();
    if output.status.success() { Ok(String::from_utf8(output.stdout).unwrap()) } else { Err(complaint(&output)) }
}

#[test]
fn everything_goes_over_tls_to_a_server_whose_authority_is_trusted_and_to_no_other() {
    let pki = Pki::new();
    pki.authority("other");
    let served = pki.serve(&[]);
    let trusting = pki.options("ca", None);
    run(&served, &trusting, &["create", "b"]).unwrap();
    let large = "x".repeat(100_000);
    run(&served, &trusting, &["put", "b", "k", &large]).unwrap();
    assert_eq!(run(&served, &trusting, &["get", "b", "k"]).unwrap(), large + "\n");
    assert_eq!(run(&served, &trusting, &["link", "lock", "--", "echo", "held"]).unwrap(), "held\n");
    let bench = ["bench", "--count", "2000", "--connections", "2", "--value-size", "20000", "-o", "json"];
    assert!(run(&served, &trusting, &bench).unwrap().contains("\"errors\":0"));

    let (code, line) = run(&served, &pki.options("other", None), &["lookup", "b"]).unwrap_err();
    assert!(code == 3 && line.contains("invalid peer certificate"), "{line}");
    let (code, line) = run(&served, &["--tls".to_owned()], &["lookup", "b"]).unwrap_err();
    assert!(code == 3 && line.contains("invalid peer certificate") || line.contains("no CAs to trust"), "{line}");
    let plain = format!("http://localhost:{}", served.address.port());
    let (code, line) = complaint(&served.run(&["--addr", &plain, "lookup", "b"]));
    assert!(code == 3, "{line}");
    // Its certificate is for localhost.
    let by_number = ["--ca", pki.path("ca").to_str().unwrap(), "lookup", "b"].map(str::to_owned);
    let (code, line) = complaint(&served.run(&by_number.each_ref().map(String::as_str)));
    assert!(code == 3 && line.contains("certificate not valid for name"), "{line}");
}

#[test]
fn where_clients_need_a_certificate_who_has_none_or_anothers_is_sent_away() {
    let pki = Pki::new();
    pki.authority("other");
    pki.certify("ca", "one", "one.example");
    pki.certify("other", "stranger", "one.example");
    let ca = pki.path("ca").to_str().unwrap().to_owned();
    let served = pki.serve(&["--tls-client-ca", &ca]);
    run(&served, &pki.options("ca", Some("one")), &["create", "b"]).unwrap();
    for identity in [None, Some("stranger")] {
        let (code, line) = run(&served, &pki.options("ca", identity), &["lookup", "b"]).unwrap_err();
        assert!(code == 3, "{line}");
    }

    let served = pki.serve(&["--tls-client-ca", &ca, "--tls-clients", "optional"]);
    run(&served, &pki.options("ca", Some("one")), &["create", "b"]).unwrap();
    run(&served, &pki.options("ca", None), &["lookup", "b"]).unwrap();
    run(&served, &pki.options("ca", Some("stranger")), &["lookup", "b"]).unwrap_err();
}

#[test]
fn what_is_asked_for_and_cannot_be_is_said_before_anything_is_sent() {
    let pki = Pki::new();
    for (options, why) in [
        (&["--cert", "x"][..], "--cert needs its private key"),
        (&["--key", "x"], "--key needs its certificate"),
        (&["--ca", "/there/is/none"], "/there/is/none: can't be read"),
    ] {
        let (code, line) = complaint(&pail(&[options, &["lookup", "b"]].concat()).output().unwrap());
        assert!(code == 2 && line.contains(why), "{line}");
    }
    let cert = pki.path("server").to_str().unwrap().to_owned();
    for (options, why) in [
        (&["--tls-cert", &cert][..], "--tls-key"),
        (&["--tls-cert", &cert, "--tls-key", &cert], "has no private key in it"),
        (&["--cert", &cert], "is an option of clients"),
    ] {
        let (code, line) =
            complaint(&pail(&[&["serve", "--listen", "127.0.0.1:0"], options].concat()).output().unwrap());
        assert!(code == 2 && line.contains(why), "{line}");
    }
}

#[tokio::test]
async fn new_files_are_taken_without_a_signal_and_with_one_and_bad_ones_change_nothing() {
    let pki = Pki::new();
    let (cert, key) = (pki.path("server"), pki.key("server"));
    let mut running = Running::start(pail(&[
        "serve",
        "--listen",
        "127.0.0.1:0",
        "--tls-cert",
        cert.to_str().unwrap(),
        "--tls-key",
        key.to_str().unwrap(),
    ]));
    let line = running.line("listening");
    let port = line.rsplit(':').next().unwrap().trim();
    let address = format!("https://localhost:{port}");
    let lookup = |ca: &str| {
        let ca = pki.path(ca);
        let output = pail(&["--addr", &address, "--ca", ca.to_str().unwrap(), "list"]).output().unwrap();
        output.status.success()
    };
    assert!(lookup("ca"));
    let ca = pki.path("ca").to_str().unwrap().to_owned();
    let mut watch = pail(&["--addr", &address, "--ca", &ca, "-o", "json", "watch", "--prefix", ""]).spawn().unwrap();
    let mut told = BufReader::new(watch.stdout.take().unwrap()).lines().map_while(Result::ok);
    assert!(told.any(|line| line.contains("synced")));

    fs::write(&cert, "no certificate").unwrap();
    running.line("files were not read again: what they said before holds what=\"certificates\"");
    assert!(lookup("ca"));

    pki.authority("next");
    pki.certify("next", "server", "localhost");
    running.line("files were read again what=\"certificates\"");
    assert!(lookup("next") && !lookup("ca"));

    pki.certify("ca", "server", "localhost");
    running.signal("HUP");
    running.line("files were read again what=\"certificates\"");
    assert!(lookup("ca") && !lookup("next"));

    // Who was there before any of this is there still.
    assert!(pail(&["--addr", &address, "--ca", &ca, "create", "b"]).output().unwrap().status.success());
    assert!(told.any(|line| line.contains("created")));
    running.signal("TERM");
    assert_eq!(running.code().await, 0);
    watch.wait().unwrap();
}

#[test]
fn a_handshake_is_bounded_in_time_and_there_are_only_so_many() {
    let pki = Pki::new();
    let served = pki.serve(&["--handshakes-max", "2"]);
    // A record that says it is long, of a handshake.
    let begun: Vec<TcpStream> = (0..2)
        .map(|_| {
            let mut stream = TcpStream::connect(served.address).unwrap();
            stream.write_all(&[22, 3, 1, 1, 0, 1]).unwrap();
            stream
        })
        .collect();
    // Theirs are to be the first; were they not, the next would not wait, and fail below.
    std::thread::sleep(Duration::from_millis(200));
    let start = Instant::now();
    run(&served, &pki.options("ca", None), &["--timeout", "20s", "list"]).unwrap();
    assert!(start.elapsed() > Duration::from_secs(5), "it came through though two others were at it");
    for mut stream in begun {
        stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        assert_eq!(stream.read(&mut [0; 99]).unwrap_or_default(), 0, "a handshake is over after ten seconds");
    }
}
