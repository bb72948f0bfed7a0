//! What every client command takes: which server, how long to wait for it, and how to print what it says.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use clap::Args;
use http::uri::Authority;
use tokio::net::TcpStream;
use tokio_rustls::rustls::pki_types::ServerName;
use tonic::{
    Request, Status,
    metadata::AsciiMetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Channel, Endpoint},
};

use super::{
    connector::{Connector, Tls},
    error::Error,
    output::Format,
};
use crate::{followed::read, limits::CLIENT_BYTES_MAX, pb::bucket_service_client::BucketServiceClient, tls};

/// A connection's own sign of life, so that a watch notices a peer that vanished without a word.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(15);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);

const PORT_DEFAULT: u16 = 4040;

/// The generated client, over tonic's channel, with the token.
pub(super) type Client = BucketServiceClient<InterceptedService<Channel, Bearer>>;

/// The options of every client command.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Client options")]
pub struct Options {
    /// The server: HOST or HOST:PORT (4040 if it is left out), with or without http:// before it; with https:// it is TLS
    #[arg(long, global = true, env = "PAIL_ADDR", value_name = "ADDRESS", default_value = "http://127.0.0.1:4040")]
    pub addr: Address,

    /// How to print answers and errors: lines for people and pipes, or JSON with the API's field names
    #[arg(long, short, global = true, value_name = "FORMAT", default_value = "text")]
    pub output: Format,

    /// How long to wait for a connection, and for each answer: a whole number of ms, s, m, h or d
    #[arg(long, global = true, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    pub timeout: Duration,

    /// How it is secured.
    #[command(flatten)]
    pub security: Security,
}

/// How the client knows the server, and the server the client.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Client options")]
#[allow(clippy::doc_markdown)] // the docs are the help
pub struct Security {
    /// Speaks TLS, as with https:// before the address, and trusts whom this system does
    #[arg(long, global = true, env = "PAIL_TLS")]
    pub tls: bool,

    /// The CAs that the server's certificate may be of, in PEM, in place of the system's; implies --tls
    #[arg(long, global = true, env = "PAIL_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,

    /// A certificate to show to the server, in PEM, with --key; implies --tls
    #[arg(id = "client-cert", long = "cert", global = true, env = "PAIL_CERT", value_name = "FILE")]
    pub cert: Option<PathBuf>,

    /// The private key of --cert, in PEM
    #[arg(id = "client-key", long = "key", global = true, env = "PAIL_KEY", value_name = "FILE")]
    pub key: Option<PathBuf>,

    /// A file with the token that says who you are: one of 'pail token', or a JWT. PAIL_TOKEN may be the token itself. Whoever
    /// reads the network reads it too, where there is no TLS
    #[arg(long, global = true, env = "PAIL_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// What a client shows with each request: its token, if it has one.
#[derive(Clone, Debug, Default)]
pub(super) struct Bearer(Option<AsciiMetadataValue>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(header) = &self.0 {
            request.metadata_mut().insert("authorization", header.clone());
        }
        Ok(request)
    }
}

impl Options {
    /// Connects, within the timeout.
    pub(super) async fn connect(&self) -> Result<Client, Error> {
        self.connect_by(Connector::dial(self.tls()?)).await
    }

    /// The same, over a stream that is given.
    pub(super) async fn connect_over(&self, stream: TcpStream) -> Result<Client, Error> {
        self.connect_by(Connector::over(stream, self.tls()?)).await
    }

    async fn connect_by(&self, connector: Connector) -> Result<Client, Error> {
        let endpoint = Endpoint::from_shared(self.origin())
            .map_err(|error| Error::unreachable(&error))?
            .connect_timeout(self.timeout)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT);
        let channel = endpoint.connect_with_connector(connector).await;
        let channel = channel.map_err(|error| Error::unreachable(&error))?;
        let bearer = Bearer(self.authorization()?.as_deref().and_then(sensitive));
        Ok(BucketServiceClient::with_interceptor(channel, bearer).max_decoding_message_size(CLIENT_BYTES_MAX))
    }

    /// The header that says who we are, where we say that.
    pub(super) fn authorization(&self) -> Result<Option<String>, Error> {
        let token = match &self.security.token_file {
            Some(path) => {
                let bytes = read(path).map_err(Error::Usage)?;
                let token =
                    String::from_utf8(bytes).map_err(|_| Error::Usage(format!("{}: is no text", path.display())))?;
                Some((path.display().to_string(), token))
            }
            None => std::env::var("PAIL_TOKEN").ok().map(|token| ("PAIL_TOKEN".to_owned(), token)),
        };
        let Some((from, token)) = token else { return Ok(None) };
        let header = format!("Bearer {}", token.trim());
        match sensitive(&header) {
            Some(_) if !token.trim().is_empty() => Ok(Some(header)),
            _ => Err(Error::Usage(format!("{from}: is no token: one line of printable ASCII is needed"))),
        }
    }

    /// The server, as the beginning of a URL.
    pub(super) fn origin(&self) -> String {
        let scheme = if self.is_secure() { "https" } else { "http" };
        format!("{scheme}://{}", self.addr)
    }

    fn is_secure(&self) -> bool {
        let Security { tls, ca, cert, key, token_file: _ } = &self.security;
        *tls || self.addr.is_https || ca.is_some() || cert.is_some() || key.is_some()
    }

    /// What a handshake is made with, where there is to be one.
    pub(super) fn tls(&self) -> Result<Option<Tls>, Error> {
        if !self.is_secure() {
            return Ok(None);
        }
        let Security { ca, cert, key, .. } = &self.security;
        let identity = match (cert.as_deref(), key.as_deref()) {
            (None, None) => None,
            (Some(cert), Some(key)) => Some((cert, key)),
            (Some(_), None) => return Err(Error::Usage("--cert needs its private key: --key".to_owned())),
            (None, Some(_)) => return Err(Error::Usage("--key needs its certificate: --cert".to_owned())),
        };
        let config = tls::client_config(ca.as_deref(), identity).map_err(Error::Usage)?;
        let host = self.addr.host.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        let name = ServerName::try_from(host).map_err(|error| Error::Usage(format!("{}: {error}", self.addr)))?;
        Ok(Some((config, name)))
    }

    /// A unary request, with the timeout as its deadline.
    pub(super) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        request
    }

    #[cfg(test)]
    pub(super) fn for_test() -> Self {
        Self {
            addr: Address { host: Authority::from_static("127.0.0.1:4040"), is_https: false },
            output: Format::Text,
            timeout: Duration::from_secs(5),
            security: Security::default(),
        }
    }
}

/// A header's value that no log shows and no table of a proxy's keeps.
fn sensitive(header: &str) -> Option<AsciiMetadataValue> {
    let mut value = AsciiMetadataValue::try_from(header).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// A host and a port, and whether `https://` stood before them.
#[derive(Clone, Debug)]
pub struct Address {
    host: Authority,
    is_https: bool,
}

impl FromStr for Address {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const ALLOWED: &str = "must be HOST, HOST:PORT, http://HOST:PORT or https://HOST:PORT";
        let (host, is_https) = match text.split_once("://") {
            None => (text, false),
            Some(("http", rest)) => (rest, false),
            Some(("https", rest)) => (rest, true),
            Some(_) => return Err(ALLOWED),
        };
        let host: Authority = host.trim_end_matches('/').parse().map_err(|_| ALLOWED)?;
        let has_port = host.as_str().len() > host.host().len(); // a port of no digits, or out of range, is one too
        match (has_port, host.port_u16()) {
            _ if host.as_str().contains('@') => Err(ALLOWED),
            (true, Some(_)) => Ok(Self { host, is_https }),
            (true, None) => Err(ALLOWED),
            (false, _) => {
                let host = format!("{host}:{PORT_DEFAULT}").parse().map_err(|_| ALLOWED)?;
                Ok(Self { host, is_https })
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.host.fmt(f)
    }
}

/// Parses `500ms`, `5s`, `2m`, `1h` or `7d`, from 1 ms to 10 years.
pub(super) fn duration(text: &str) -> Result<Duration, String> {
    const DURATION_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);
    let (digits, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let unit_ms = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err("must be a whole number with its unit, such as 500ms, 5s, 2m, 1h or 7d".to_owned()),
    };
    let duration = digits.parse::<u64>().ok().and_then(|count| count.checked_mul(unit_ms)).map(Duration::from_millis);
    duration.filter(|it| !it.is_zero() && *it <= DURATION_MAX).ok_or_else(|| "must be 1ms to 10 years".to_owned())
}

/// Parses a time to live, in the same way.
pub(super) fn ttl(text: &str) -> Result<prost_types::Duration, String> {
    duration(text)?.try_into().map_err(|_| "must be 1ms to 10 years".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_needs_neither_scheme_nor_port() {
        let parsed = |text: &str| text.parse().map(|address: Address| address.to_string());
        assert_eq!(parsed("db:1").unwrap(), "db:1");
        assert_eq!(parsed("db").unwrap(), "db:4040");
        assert_eq!(parsed("http://127.0.0.1:4040/").unwrap(), "127.0.0.1:4040");
        assert_eq!(parsed("https://db").unwrap(), "db:4040");
        assert_eq!(parsed("[::1]").unwrap(), "[::1]:4040");
        for wrong in ["", "https://", "ftp://db", "db:x", "db:99999", "db:", "db/path", "a b", "me@db:1"] {
            parsed(wrong).unwrap_err();
        }
    }

    #[test]
    fn a_duration_has_a_unit_and_bounds() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for wrong in ["", "5", "s", "0s", "-1s", "1.5s", "5 s", "99999d", "99999999999999999999s"] {
            duration(wrong).unwrap_err();
        }
    }
}
