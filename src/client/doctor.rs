//! `pail doctor`: what is wrong between here and the server, in words, from the bottom up.

mod limits;
mod wire;

use std::{
    fmt,
    net::SocketAddr,
    time::{Duration, Instant, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use clap::Args;
use http::Uri;
use serde_json::{Value, json};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tonic::Code;

use self::wire::{Ended, First, Wire};
use super::{
    connector::Io,
    error::{EXIT_REFUSED, Error, root_cause, wire_name},
    metrics::Metrics,
    options::{Options, duration},
    output::{Format, Output, one_line},
};
use crate::{
    auth::Certificate,
    pb::{self, event::Event, health::health_check_response::ServingStatus, watch_response::Response},
};

/// Clocks that differ by more are worth a word: what a client takes for the end of a ttl is not the server's.
const CLOCK_MAX: Duration = Duration::from_secs(2);

/// A certificate that is good for less is worth a word.
const CERTIFICATE_MIN: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// A heartbeat comes every second where it is asked for; more than so late, something holds it back.
const HEARTBEAT_LATE: Duration = Duration::from_secs(4);

/// Says in words what is wrong between here and the server
///
/// It looks at the name, the connection, TLS, the protocol, who you are, the clocks, and streams: whether something
/// on the way holds them back or cuts them when they are quiet, as proxies do. It changes nothing. With --admin it
/// also looks at what is nearly full.
#[derive(Args, Clone, Debug)]
#[command(after_help = "\
Examples:
  pail doctor
  pail doctor --addr https://pail.example --ca ca.pem --token-file me.token
  pail doctor --quiet 5m                      does a proxy cut streams that say nothing for so long?
  pail doctor --admin http://127.0.0.1:4041   what is nearly full?

Exit codes:
  0  nothing is wrong; what is worth a word is said
  1  something is, and what follows was not looked at")]
pub struct Doctor {
    /// How long a stream is to be quiet, and not to be cut
    #[arg(long, value_name = "DURATION", default_value = "3s", value_parser = duration)]
    quiet: Duration,

    /// The beginning of names that it may ask for; there need be no such bucket
    #[arg(long, value_name = "PREFIX", default_value = "pail-doctor/")]
    prefix: String,

    /// The server's port for operators, as http://HOST:PORT
    #[arg(long, value_name = "URL")]
    admin: Option<Uri>,
}

/// What was found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Verdict {
    Ok,
    /// Nothing is wrong yet.
    Note,
    Wrong,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Wrong => "WRONG",
        })
    }
}

/// One thing that was looked at; an error is what is wrong with it, and what to do.
type Looked = Result<(Verdict, String), String>;

fn ok(words: impl Into<String>) -> Looked {
    Ok((Verdict::Ok, words.into()))
}

fn note(words: impl Into<String>) -> Looked {
    Ok((Verdict::Note, words.into()))
}

/// Who prints what is found.
struct Findings<'a, 'b> {
    out: &'a mut Output<'b>,
}

impl Findings<'_, '_> {
    /// Prints it; an error where it is wrong.
    fn tell(&mut self, check: &str, looked: Looked) -> Result<(), Error> {
        let (verdict, words) = looked.unwrap_or_else(|words| (Verdict::Wrong, words));
        let words = one_line(&words);
        match self.out.format {
            Format::Text => writeln!(self.out.to, "{verdict:<5}  {check}: {words}")?,
            Format::Json => {
                let verdict = verdict.to_string().to_lowercase();
                writeln!(self.out.to, "{}", json!({ "check": check, "verdict": verdict, "words": words }))?;
            }
        }
        self.out.to.flush()?;
        if verdict == Verdict::Wrong {
            let words = format!("the {check} is wrong, and what follows was not looked at");
            return Err(Error::Aborted { words, exit_code: EXIT_REFUSED });
        }
        Ok(())
    }
}

impl Doctor {
    pub(super) async fn run(self, options: &Options, out: &mut Output<'_>) -> Result<(), Error> {
        let mut findings = Findings { out };
        let (addresses, looked) = resolved(options).await;
        findings.tell("name", looked)?;
        findings.tell("connection", connected(&addresses, options).await)?;
        findings.tell("tls", secured(&addresses, options).await)?;
        findings.tell("protocol", spoken(&addresses, options).await)?;

        let io = open(&addresses, options).await.map_err(|words| Error::Unreachable(words.clone()))?;
        let wire = Wire::open(io, options).await.map_err(Error::Unreachable)?;
        findings.tell("health", healthy(&wire).await)?;
        let (may_watch, looked) = self.known(&wire, options).await;
        findings.tell("credential", looked)?;
        if may_watch {
            findings.tell("streams", self.streams(&wire).await)?;
            findings.tell("quiet streams", self.quiet(&wire).await)?;
            findings.tell("clock", self.clock(&wire).await)?;
        }
        if let Some(admin) = &self.admin {
            findings.tell(
                "limits",
                Metrics::ask(admin, options.timeout).await.and_then(|metrics| limits::judge(&metrics)),
            )?;
        }
        Ok(())
    }

    /// Whether the server knows who we are, and whether there is more to ask.
    async fn known(&self, wire: &Wire, options: &Options) -> (bool, Looked) {
        let bucket = format!("{}{:016x}", self.prefix, getrandom::u64().unwrap_or_default());
        let answer =
            wire.unary::<pb::LookupResponse>("/pail.v1.BucketService/Lookup", &pb::LookupRequest { bucket }).await;
        let Ended { code, reason, message, .. } = match answer {
            Ok((_, ended)) => ended,
            Err(words) => return (false, Err(words)),
        };
        let expired = options.authorization().ok().flatten().and_then(|header| expired(&header));
        let shown = if options.authorization().is_ok_and(|header| header.is_some()) { "the token" } else { "no token" };
        match (code, reason.as_deref()) {
            (Code::NotFound, Some("BUCKET_NOT_FOUND")) => (true, ok(format!("{shown} was shown, and that is enough"))),
            (Code::PermissionDenied, Some(_)) => {
                let words = format!(
                    "{message}: name a prefix that you may read and watch with --prefix; streams were not looked at"
                );
                (false, note(words))
            }
            (Code::Unauthenticated, Some(_)) => {
                let why = expired.map(|ago| format!(" (it expired {ago:?} ago)")).unwrap_or_default();
                let todo = "see --token-file, PAIL_TOKEN, or --cert and --key";
                (false, Err(format!("{shown} was shown, and {message}{why}: {todo}")))
            }
            (Code::Unimplemented, _) => (false, Err("this is a gRPC server, and no pail".to_owned())),
            (code, reason) => {
                let reason = reason.unwrap_or("no reason");
                (false, Err(format!("a question was answered with {} ({reason}): {message}", wire_name(code))))
            }
        }
    }

    fn watch(&self) -> pb::WatchRequest {
        let bucket = format!("{}{:016x}", self.prefix, getrandom::u64().unwrap_or_default());
        pb::WatchRequest { prefix: Some(bucket), heartbeat: Some(seconds(1)), ..Default::default() }
    }

    /// The server tells the time with a bucket that is not there.
    async fn clock(&self, wire: &Wire) -> Looked {
        let bucket = self.watch().prefix.unwrap_or_default();
        let request = pb::WatchRequest { buckets: vec![bucket], ..Default::default() };
        let before = SystemTime::now();
        let mut stream = wire.stream("/pail.v1.BucketService/Watch", &request).await?;
        let time = loop {
            let Some(message) = stream.next::<pb::WatchResponse>(HEARTBEAT_LATE).await? else {
                return note("no bucket that is not there was told of: it was not looked at");
            };
            let Some(Response::Events(pb::WatchEvents { events })) = message.response else { continue };
            let down = events.into_iter().find_map(|event| match event.event {
                Some(Event::Down(down)) => down.time,
                _ => None,
            });
            if let Some(time) = down {
                break time;
            }
        };
        let after = SystemTime::now();
        let Ok(server) = SystemTime::try_from(time) else { return note("the server's clock is not to be told") };
        let ahead = server.duration_since(after).unwrap_or_default();
        let behind = before.duration_since(server).unwrap_or_default();
        match ahead.max(behind) {
            apart if apart <= CLOCK_MAX => ok("the server's is the same as here"),
            apart => {
                let which = if ahead > behind { "ahead of" } else { "behind" };
                note(format!(
                    "the server's is {apart:.0?} {which} this one: times to live count by the server's; tokens are judged by it too"
                ))
            }
        }
    }

    /// Something on the way may keep what a stream says until it ends.
    async fn streams(&self, wire: &Wire) -> Looked {
        let held = "something on the way keeps what a stream says: turn buffering off there (nginx: grpc_pass, not proxy_pass)";
        let begin = Instant::now();
        let mut stream = wire.stream("/pail.v1.BucketService/Watch", &self.watch()).await?;
        loop {
            match stream.next::<pb::WatchResponse>(HEARTBEAT_LATE).await {
                Ok(Some(pb::WatchResponse { response: Some(Response::Heartbeat(_)), .. })) => break,
                Ok(Some(_)) => {}
                Ok(None) => return Err(format!("a watch ended by itself: {}", stream.ended())),
                Err(_) if begin.elapsed() >= HEARTBEAT_LATE => {
                    return Err(format!("no heartbeat came in {HEARTBEAT_LATE:?}, one a second was asked for: {held}"));
                }
                Err(words) => return Err(words),
            }
        }
        ok(format!("a watch's first heartbeat came after {:.1?}", begin.elapsed()))
    }

    /// Something on the way may cut what says nothing.
    async fn quiet(&self, wire: &Wire) -> Looked {
        let Self { quiet, .. } = *self;
        let heartbeat = seconds(i64::try_from(quiet.as_secs()).unwrap_or(i64::MAX).saturating_add(3_600).min(86_400));
        let request = pb::WatchRequest { heartbeat: Some(heartbeat), ..self.watch() };
        let mut stream = wire.stream("/pail.v1.BucketService/Watch", &request).await?;
        let begin = Instant::now();
        loop {
            let left = quiet.saturating_sub(begin.elapsed());
            match stream.next::<pb::WatchResponse>(left).await {
                Ok(Some(_)) => {}
                Ok(None) | Err(_) if begin.elapsed() < quiet => {
                    let after = begin.elapsed();
                    let todo =
                        "raise its idle timeout, or ask for a heartbeat that is shorter (WatchRequest.heartbeat)";
                    return Err(format!("something on the way cut a stream that was quiet for {after:.1?}: {todo}"));
                }
                Ok(None) | Err(_) => return ok(format!("one lives after {quiet:?} of silence; --quiet looks longer")),
            }
        }
    }
}

fn seconds(seconds: i64) -> prost_types::Duration {
    prost_types::Duration { seconds, nanos: 0 }
}

/// How long ago a JWT has expired, as far as it says so itself.
fn expired(header: &str) -> Option<Duration> {
    let claims = URL_SAFE_NO_PAD.decode(header.split('.').nth(1)?).ok()?;
    let expires = serde_json::from_slice::<Value>(&claims).ok()?.get("exp")?.as_u64()?;
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + Duration::from_secs(expires)).ok()
}

async fn resolved(options: &Options) -> (Vec<SocketAddr>, Looked) {
    let begin = Instant::now();
    let name = options.addr.to_string();
    match timeout(options.timeout, lookup_host(&name)).await {
        Err(_) => {
            (Vec::new(), Err(format!("{name} was not resolved in {:?}: is the name server there?", options.timeout)))
        }
        Ok(Err(error)) => (Vec::new(), Err(format!("{name}: {}: is it spelt right?", root_cause(&error)))),
        Ok(Ok(addresses)) => {
            let addresses: Vec<SocketAddr> = addresses.collect();
            if addresses.is_empty() {
                return (addresses, Err(format!("{name} stands for no address")));
            }
            let listed: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            let words = format!("{name} is {} ({:.1?})", listed.join(", "), begin.elapsed());
            (addresses, ok(words))
        }
    }
}

async fn connected(addresses: &[SocketAddr], options: &Options) -> Looked {
    let (mut there, mut wrong) = (Vec::new(), Vec::new());
    for address in addresses {
        let begin = Instant::now();
        match timeout(options.timeout, TcpStream::connect(address)).await {
            Ok(Ok(_)) => there.push(format!("{address} in {:.1?}", begin.elapsed())),
            Ok(Err(error)) => wrong.push(format!("{address}: {}", root_cause(&error))),
            Err(_) => {
                wrong.push(format!("{address}: no answer in {:?}, as where a firewall drops it", options.timeout));
            }
        }
    }
    match (there.is_empty(), wrong.is_empty()) {
        (true, _) => Err(format!(
            "{}: is 'pail serve' running there, with --listen on an address that is reached?",
            wrong.join("; ")
        )),
        (false, false) => {
            note(format!("{}; but {}: clients that try it first wait", there.join(", "), wrong.join("; ")))
        }
        (false, true) => ok(there.join(", ")),
    }
}

async fn tcp(addresses: &[SocketAddr], options: &Options) -> Result<TcpStream, String> {
    let stream = timeout(options.timeout, TcpStream::connect(addresses)).await;
    let stream = stream.map_err(|_| format!("no connection in {:?}", options.timeout))?;
    let stream = stream.map_err(|error| root_cause(&error))?;
    stream.set_nodelay(true).map_err(|error| root_cause(&error))?;
    Ok(stream)
}

async fn tls(addresses: &[SocketAddr], options: &Options) -> Result<Option<TlsStream<TcpStream>>, String> {
    let tls = options.tls().map_err(|error| error.words(options))?;
    let Some((config, name)) = tls else { return Ok(None) };
    let stream = tcp(addresses, options).await?;
    let handshake = timeout(options.timeout, TlsConnector::from(config).connect(name, stream)).await;
    let handshake = handshake.map_err(|_| format!("no handshake in {:?}", options.timeout))?;
    handshake.map(Some).map_err(|error| root_cause(&error))
}

async fn open(addresses: &[SocketAddr], options: &Options) -> Result<Box<dyn Io>, String> {
    Ok(match tls(addresses, options).await? {
        Some(stream) => Box::new(stream),
        None => Box::new(tcp(addresses, options).await?),
    })
}

async fn secured(addresses: &[SocketAddr], options: &Options) -> Looked {
    let stream = tls(addresses, options).await.map_err(|error| {
        let todo = match &*error {
            error if error.contains("unknownissuer") => "its authority is not trusted here: name it with --ca",
            error if error.contains("not valid for name") => "ask for it by a name that is in its certificate",
            error if error.contains("expired") => "renew its certificate, or set the clock here right",
            error if error.contains("corrupt") || error.contains("invalid content") => {
                "it speaks no TLS here: use http://, or its other port"
            }
            error if error.contains("certificaterequired") => "it wants a certificate of yours: --cert and --key",
            error if error.contains("eof") || error.contains("reset") => {
                "it closed the connection: perhaps it speaks no TLS here (use http://), or wants a certificate of yours"
            }
            _ => "see what is listening there",
        };
        format!("the handshake failed: {error}: {todo}")
    })?;
    let Some(stream) = stream else {
        return ok("not asked for; whoever is on the way can read everything");
    };
    let session = stream.get_ref().1;
    let version = session.protocol_version().map(|version| format!("{version:?}")).unwrap_or_default();
    let certificate = session.peer_certificates().and_then(|chain| chain.first()).and_then(Certificate::read);
    let left = certificate.and_then(|certificate| certificate.until().duration_since(SystemTime::now()).ok());
    let days = |left: Duration| left.as_secs() / 86_400;
    match (session.alpn_protocol(), left) {
        (Some(b"h2"), Some(left)) if left < CERTIFICATE_MIN => {
            note(format!("{version}; its certificate is good for {} days more: renew it", days(left)))
        }
        (Some(b"h2"), Some(left)) => ok(format!("{version}, HTTP/2; its certificate is good for {} days", days(left))),
        (Some(b"h2"), None) => ok(format!("{version}, HTTP/2")),
        _ => note(format!(
            "{version}, but no HTTP/2 by ALPN: many clients refuse that; a proxy in front may have to be told"
        )),
    }
}

async fn spoken(addresses: &[SocketAddr], options: &Options) -> Looked {
    let stream = open(addresses, options).await?;
    match wire::first_word(stream, options.timeout).await? {
        First::Http2 => ok("HTTP/2"),
        First::Http1(line) => {
            Err(format!("it answers in HTTP/1 ({line}): a web server, or a proxy that is not told that this is gRPC"))
        }
        First::Tls => Err("it speaks TLS here: use https://, or --tls".to_owned()),
        First::Nothing => {
            Err(format!("it says nothing to HTTP/2's greeting for {:?}: what listens there?", options.timeout))
        }
        First::Closed => {
            Err("it closes the connection at HTTP/2's greeting: what listens there? (TLS does that too: try https://)"
                .to_owned())
        }
        First::Other(bytes) => Err(format!("it answers HTTP/2's greeting with {bytes:02x?}: what listens there?")),
    }
}

async fn healthy(wire: &Wire) -> Looked {
    let (answer, ended) =
        wire.unary("/grpc.health.v1.Health/Check", &pb::health::HealthCheckRequest::default()).await?;
    match (ended.code, answer.map(|answer: pb::health::HealthCheckResponse| answer.status())) {
        (Code::Ok, Some(ServingStatus::Serving)) => ok("it serves"),
        (Code::Ok, Some(ServingStatus::NotServing)) => note("it drains: it is about to end"),
        (Code::Unimplemented, _) => note("it has no health service: this is no pail, or a proxy hides it"),
        _ => Err(format!("a question was answered with {ended}")),
    }
}
