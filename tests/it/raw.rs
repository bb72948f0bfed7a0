//! A client that speaks HTTP/2 and leaves the rest to the test: it sends what no generated client would, stops in the midst
//! of a message, does not read, and keeps no deadlines of its own.

use std::net::SocketAddr;

use bytes::{Buf as _, Bytes, BytesMut};
use h2::{
    RecvStream, SendStream,
    client::{Builder, ResponseFuture, SendRequest},
};
use http::{HeaderMap, Request};
use prost::Message;
use tokio::{net::TcpStream, task::JoinHandle};
use tonic::Status;

use super::support::{Server, soon};

pub(crate) struct Raw {
    /// Its own.
    pub(crate) address: SocketAddr,
    send: SendRequest<Bytes>,
    connection: JoinHandle<()>,
}

/// A call whose request may not be over.
pub(crate) struct RawCall {
    request: SendStream<Bytes>,
    response: ResponseFuture,
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) messages: Vec<Bytes>,
    pub(crate) status: Status,
}

impl Raw {
    pub(crate) async fn connect(server: &Server) -> Self {
        Self::with_window(server, 1 << 20).await
    }

    /// One whose streams take so many bytes before they are read.
    pub(crate) async fn with_window(server: &Server, bytes: u32) -> Self {
        Self::to(server.address, bytes).await
    }

    pub(crate) async fn to(address: SocketAddr, window_bytes: u32) -> Self {
        let stream = soon(TcpStream::connect(address)).await.unwrap();
        let address = stream.local_addr().unwrap();
        let (send, connection) =
            soon(Builder::new().initial_window_size(window_bytes).handshake(stream)).await.unwrap();
        let connection = tokio::spawn(async { drop(connection.await) });
        Self { address, send, connection }
    }

    /// Closes the socket without a word.
    pub(crate) fn cut(&self) {
        self.connection.abort();
    }

    /// Sends the headers of a call of pail's service.
    pub(crate) async fn begin(&self, method: &str, headers: &[(&str, &str)]) -> RawCall {
        let mut request = Request::post(format!("http://server/pail.v1.BucketService/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut send = soon(self.send.clone().ready()).await.unwrap();
        let (response, request) = send.send_request(request.body(()).unwrap(), false).unwrap();
        RawCall { request, response }
    }

    /// Calls with a body of these bytes.
    pub(crate) async fn call(&self, method: &str, headers: &[(&str, &str)], body: impl Into<Bytes>) -> Answer {
        let mut call = self.begin(method, headers).await;
        call.send(body);
        call.end();
        call.answer().await
    }
}

impl RawCall {
    pub(crate) fn send(&mut self, bytes: impl Into<Bytes>) {
        // The server may have answered already.
        drop(self.request.send_data(bytes.into(), false));
    }

    pub(crate) fn end(&mut self) {
        drop(self.request.send_data(Bytes::new(), true));
    }

    /// The answer's head, which is there when the handler has returned; the body is not read.
    pub(crate) async fn unread(self) -> Unread {
        Unread::new(soon(self.response).await.unwrap(), self.request)
    }

    /// The answer of the one of two calls that is answered first, and the other call.
    pub(crate) async fn first_answer_of(mut self, mut other: Self) -> (Answer, Self) {
        let first = async {
            tokio::select! {
                response = &mut self.response => (response, self.request, other),
                response = &mut other.response => (response, other.request, self),
            }
        };
        let (response, body, other) = soon(first).await;
        (Unread::new(response.unwrap(), body).read().await, other)
    }

    /// Whether the call ends without an answer.
    pub(crate) async fn cut_off(self) -> bool {
        soon(self.response).await.is_err()
    }

    pub(crate) async fn answer(self) -> Answer {
        self.unread().await.read().await
    }
}

/// An answer that nobody reads yet. Dropping it resets the stream, unless both sides have ended.
pub(crate) struct Unread {
    headers: HeaderMap,
    body: RecvStream,
    /// Of it, what is not yet a whole message.
    bytes: BytesMut,
    request: SendStream<Bytes>,
}

impl Unread {
    fn new(response: http::Response<RecvStream>, request: SendStream<Bytes>) -> Self {
        let (head, body) = response.into_parts();
        Self { headers: head.headers, body, bytes: BytesMut::new(), request }
    }

    /// Goes on with the request.
    pub(crate) fn send(&mut self, bytes: impl Into<Bytes>) {
        // The server may have ended the stream already.
        drop(self.request.send_data(bytes.into(), false));
    }

    /// Ends the request.
    pub(crate) fn end(&mut self) {
        drop(self.request.send_data(Bytes::new(), true));
    }

    /// Reads the next message; `None` at the end.
    pub(crate) async fn message(&mut self) -> Option<Bytes> {
        loop {
            if let Some((head, rest)) = self.bytes.split_at_checked(5)
                && let length = usize::try_from((&head[1..]).get_u32()).unwrap()
                && rest.len() >= length
            {
                assert_eq!(head[0], 0, "not compressed");
                self.bytes.advance(5);
                return Some(self.bytes.split_to(length).freeze());
            }
            let Some(chunk) = soon(self.body.data()).await else {
                assert!(self.bytes.is_empty(), "the last message is whole");
                return None;
            };
            let chunk = chunk.expect("the stream ends with trailers");
            self.body.flow_control().release_capacity(chunk.len()).unwrap();
            self.bytes.extend(chunk);
        }
    }

    /// Reads it to its end.
    pub(crate) async fn read(mut self) -> Answer {
        let mut messages = Vec::new();
        while let Some(message) = self.message().await {
            messages.push(message);
        }
        let trailers = soon(self.body.trailers()).await.unwrap().unwrap_or(self.headers);
        Answer { messages, status: Status::from_header_map(&trailers).expect("an answer has a status") }
    }
}

impl Answer {
    /// The answer of a unary call.
    pub(crate) fn into_result(self) -> Result<Vec<Bytes>, Status> {
        if self.status.code() == tonic::Code::Ok { Ok(self.messages) } else { Err(self.status) }
    }
}

/// A message as it is sent.
pub(crate) fn framed(message: &impl Message) -> Bytes {
    let bytes = message.encode_to_vec();
    let mut framed = vec![0];
    framed.extend(u32::try_from(bytes.len()).unwrap().to_be_bytes());
    framed.extend(bytes);
    framed.into()
}
