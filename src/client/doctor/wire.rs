//! Calls as they are on the wire, so that what is missing there can be told.

use std::{fmt, time::Duration};

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    body::Incoming,
    client::conn::http2::{Builder, SendRequest},
};
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::client::{connector::Io, error::wire_name, options::Options};

/// HTTP/2's greeting, with settings that say nothing.
const GREETING: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

const PREFIX_BYTES: usize = 5;

/// What a server says first to HTTP/2's greeting.
#[derive(Debug)]
pub(super) enum First {
    Http2,
    /// Its first line.
    Http1(String),
    Tls,
    Nothing,
    Closed,
    Other(Vec<u8>),
}

pub(super) async fn first_word(mut stream: Box<dyn Io>, patience: Duration) -> Result<First, String> {
    stream.write_all(GREETING).await.map_err(|error| error.to_string())?;
    let mut word = [0; 64];
    let read = match timeout(patience, stream.read(&mut word)).await {
        Err(_) => return Ok(First::Nothing),
        Ok(Err(_) | Ok(0)) => return Ok(First::Closed),
        Ok(Ok(read)) => read,
    };
    Ok(match &word[..read] {
        [_, _, _, 4, ..] => First::Http2,
        // An alert.
        [0x15, 3, ..] => First::Tls,
        word if word.starts_with(b"HTTP/1") => {
            First::Http1(String::from_utf8_lossy(word).lines().next().unwrap_or_default().to_owned())
        }
        word => First::Other(word.iter().take(16).copied().collect()),
    })
}

/// A connection.
pub(super) struct Wire {
    requests: SendRequest<Full<Bytes>>,
    origin: String,
    authorization: Option<String>,
    patience: Duration,
}

/// How a call ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) code: Code,
    /// pail's.
    pub(super) reason: Option<String>,
    pub(super) message: String,
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", wire_name(self.code), self.message)
    }
}

impl From<Status> for Ended {
    fn from(status: Status) -> Self {
        let reason = status.get_details_error_info().map(|info| info.reason);
        Self { code: status.code(), reason, message: status.message().to_owned() }
    }
}

impl Wire {
    pub(super) async fn open(stream: Box<dyn Io>, options: &Options) -> Result<Self, String> {
        let handshake = Builder::new(TokioExecutor::new()).handshake(TokioIo::new(stream));
        let (requests, connection) = handshake.await.map_err(|error| error.to_string())?;
        // It ends with the last request.
        drop(tokio::spawn(connection));
        let authorization = options.authorization().map_err(|error| error.words(options))?;
        Ok(Self { requests, origin: options.origin(), authorization, patience: options.timeout })
    }

    async fn call(&self, path: &str, message: &impl Message) -> Result<Response<Incoming>, String> {
        let mut framed = vec![0; PREFIX_BYTES];
        let length = u32::try_from(message.encoded_len()).unwrap_or_default();
        framed[1..].copy_from_slice(&length.to_be_bytes());
        framed.extend(message.encode_to_vec());
        let mut request = Request::post(format!("{}{path}", self.origin))
            .header(header::CONTENT_TYPE, "application/grpc")
            .header(header::TE, "trailers");
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request.body(Full::from(framed)).map_err(|error| error.to_string())?;
        let response = timeout(self.patience, self.requests.clone().send_request(request)).await;
        let response = response.map_err(|_| format!("no answer to {path} in {:?}", self.patience))?;
        let response = response.map_err(|error| format!("{path} was not answered: {error}"))?;
        is_grpc(&response)?;
        Ok(response)
    }

    /// A call with one answer, and how it ended.
    pub(super) async fn unary<T: Message + Default>(
        &self,
        path: &str,
        message: &impl Message,
    ) -> Result<(Option<T>, Ended), String> {
        let response = self.call(path, message).await?;
        if let Some(status) = Status::from_header_map(response.headers()) {
            return Ok((None, status.into()));
        }
        let body = timeout(self.patience, response.into_body().collect()).await;
        let body = body.map_err(|_| format!("the answer to {path} did not end in {:?}", self.patience))?;
        let body = body.map_err(|error| format!("the answer to {path} was cut off: {error}"))?;
        let Some(status) = body.trailers().and_then(Status::from_header_map) else {
            return Err(format!(
                "the answer to {path} has no grpc-status: something on the way takes trailers away; it has to speak HTTP/2 \
                 on both sides, and to know that this is gRPC"
            ));
        };
        let bytes = body.to_bytes();
        let answer = bytes.get(PREFIX_BYTES..).and_then(|bytes| T::decode(bytes).ok());
        Ok((answer, status.into()))
    }

    /// A call with many answers.
    pub(super) async fn stream(&self, path: &str, message: &impl Message) -> Result<Stream, String> {
        let response = self.call(path, message).await?;
        if let Some(status) = Status::from_header_map(response.headers()) {
            return Err(format!("{path} was answered with {}", Ended::from(status)));
        }
        Ok(Stream { body: response.into_body(), read: BytesMut::new(), trailers: None })
    }
}

/// Whether an answer is one of gRPC's, whatever it says.
fn is_grpc(response: &Response<Incoming>) -> Result<(), String> {
    let text =
        |name| response.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or("nobody that says so");
    let who = text(header::SERVER);
    if response.status() != StatusCode::OK {
        let status = response.status();
        return Err(format!(
            "{who} answered with HTTP {status}: a proxy that does not lead to pail, or no gRPC server"
        ));
    }
    let kind = text(header::CONTENT_TYPE);
    if !kind.starts_with("application/grpc") {
        return Err(format!("{who} answered with {kind:?}, which is not gRPC"));
    }
    Ok(())
}

/// The answers of one call.
pub(super) struct Stream {
    body: Incoming,
    read: BytesMut,
    trailers: Option<HeaderMap>,
}

impl Stream {
    /// The next, if it comes in time; `None` at the end.
    pub(super) async fn next<T: Message + Default>(&mut self, patience: Duration) -> Result<Option<T>, String> {
        loop {
            if let Some(length) = self.read.get(1..PREFIX_BYTES).and_then(|length| length.try_into().ok()) {
                let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
                if self.read.len() - PREFIX_BYTES >= length {
                    self.read.advance(PREFIX_BYTES);
                    let message = T::decode(self.read.split_to(length));
                    return message.map(Some).map_err(|error| format!("what a stream said can't be read: {error}"));
                }
            }
            match timeout(patience, self.body.frame()).await {
                Err(_) => return Err(format!("a stream said nothing for {patience:?}")),
                Ok(None) => return Ok(None),
                Ok(Some(Err(error))) => return Err(format!("a stream was cut off: {error}")),
                Ok(Some(Ok(frame))) => match frame.into_data() {
                    Ok(data) => self.read.extend_from_slice(&data),
                    Err(frame) => self.trailers = frame.into_trailers().ok(),
                },
            }
        }
    }

    /// How it ended.
    pub(super) fn ended(&self) -> String {
        let status = self.trailers.as_ref().and_then(Status::from_header_map);
        status.map_or_else(|| "without a status".to_owned(), |status| Ended::from(status).to_string())
    }
}
