//! A server with an application that does what a test tells it, and a client that can send what no generated client would.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderMap, Request, StatusCode};
use prost::Message;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, oneshot, watch},
    task::JoinHandle,
    time::{Instant, timeout},
};
use tonic::{Response, Status, Streaming, transport::Channel};
use tonic_types::StatusExt as _;

use super::super::{Application, Options, call::draining, serve};
use crate::{
    limits::Limits,
    pb::{
        self,
        bucket_service_client::BucketServiceClient,
        bucket_service_server::{BucketService, BucketServiceServer},
    },
    service::{streams, wire},
};

/// Waits, but not for ever.
pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.expect("it happens soon")
}

pub(super) fn reason(status: &Status) -> String {
    status.get_details_error_info().expect("every error has an ErrorInfo").reason
}

/// What the test and the handlers tell each other.
pub(super) struct Stage {
    /// One permit for each handler that has begun to wait.
    pub(super) entered: Semaphore,
    /// One permit for each that may go on.
    pub(super) leave: Semaphore,
    /// One permit for each that was dropped before its end.
    pub(super) dropped: Semaphore,
    /// Handlers that began.
    pub(super) begun: AtomicUsize,
    /// Handlers that were waiting when the application was drained.
    pub(super) waiting_at_drain: AtomicUsize,
    waiting: AtomicUsize,
    drained: watch::Sender<bool>,
}

impl Stage {
    fn new() -> Arc<Self> {
        Arc::new(Self {
            entered: Semaphore::new(0),
            leave: Semaphore::new(0),
            dropped: Semaphore::new(0),
            begun: AtomicUsize::new(0),
            waiting_at_drain: AtomicUsize::new(usize::MAX),
            waiting: AtomicUsize::new(0),
            drained: watch::Sender::new(false),
        })
    }

    /// A handler's wait: it leaves a trace, whether it ends or is dropped.
    async fn wait(self: &Arc<Self>) {
        struct Waiting(Arc<Stage>, bool);
        impl Drop for Waiting {
            fn drop(&mut self) {
                self.0.waiting.fetch_sub(1, Relaxed);
                if !self.1 {
                    self.0.dropped.add_permits(1);
                }
            }
        }
        self.waiting.fetch_add(1, Relaxed);
        let mut waiting = Waiting(Arc::clone(self), false);
        self.entered.add_permits(1);
        self.leave.acquire().await.unwrap().forget();
        waiting.1 = true;
    }
}

/// One permit, soon.
pub(super) async fn told(semaphore: &Semaphore) {
    soon(semaphore.acquire()).await.unwrap().forget();
}

pub(super) struct App(pub(super) Arc<Stage>);

impl Application for App {
    type Service = BucketServiceServer<Buckets>;

    fn service(&self) -> Self::Service {
        BucketServiceServer::new(Buckets(Arc::clone(&self.0))).max_decoding_message_size(usize::MAX)
    }

    async fn drain(&self, _: Instant) {
        self.0.waiting_at_drain.store(self.0.waiting.load(Relaxed), Relaxed);
        self.0.drained.send_replace(true);
    }
}

/// Does what the name of the bucket says.
pub(super) struct Buckets(Arc<Stage>);

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

macro_rules! unused {
    ($($method:ident($request:ty) -> $response:ty;)*) => { $(
        fn $method<'life, 'future>(
            &'life self,
            _: tonic::Request<$request>,
        ) -> Pin<Box<dyn Future<Output = Result<Response<$response>, Status>> + Send + 'future>>
        where
            'life: 'future,
            Self: 'future,
        {
            Box::pin(async { panic!("not a part of these tests") })
        }
    )* };
}

#[tonic::async_trait]
impl BucketService for Buckets {
    async fn create(&self, request: tonic::Request<pb::CreateRequest>) -> Result<Response<pb::CreateResponse>, Status> {
        self.0.begun.fetch_add(1, Relaxed);
        match request.into_inner().bucket.as_str() {
            "panic" => panic!("on command"),
            "wait" => self.0.wait().await,
            "large" => {
                let bucket = pb::Bucket { name: "x".repeat(1 << 20), ..Default::default() };
                return Ok(Response::new(pb::CreateResponse { bucket: Some(bucket), ..Default::default() }));
            }
            _ => {}
        }
        Ok(Response::new(pb::CreateResponse::default()))
    }

    type WatchStream = Responses<wire::WatchResponse>;

    async fn watch(&self, request: tonic::Request<pb::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        assert!(request.extensions().get::<streams::Connection>().is_some(), "a long stream names its connection");
        let stage = Arc::clone(&self.0);
        let first = stream::iter([Ok(wire::WatchResponse::default())]);
        let rest: Self::WatchStream = match request.into_inner().prefix() {
            "panic" => Box::pin(stream::once(async move {
                stage.wait().await;
                panic!("on command")
            })),
            "wait" => Box::pin(stream::once(async move {
                stage.wait().await;
                Ok(wire::WatchResponse::default())
            })),
            "drain" => Box::pin(stream::once(async move {
                drop(stage.drained.subscribe().wait_for(|drained| *drained).await);
                Err(draining().into())
            })),
            _ => Box::pin(stream::empty()),
        };
        Ok(Response::new(Box::pin(first.chain(rest))))
    }

    type PipelineStream = Responses<pb::PipelineResponse>;

    /// Answers each request with nothing, and a broken one with what broke it.
    async fn pipeline(
        &self,
        request: tonic::Request<Streaming<pb::PipelineRequest>>,
    ) -> Result<Response<Self::PipelineStream>, Status> {
        let requests = request.into_inner();
        Ok(Response::new(Box::pin(requests.map(|request| request.map(|_| pb::PipelineResponse::default())))))
    }

    type LinkStream = Responses<pb::LinkResponse>;

    unused! {
        link(Streaming<pb::LinkRequest>) -> Self::LinkStream;
        lookup(pb::LookupRequest) -> pb::LookupResponse;
        list(pb::ListRequest) -> pb::ListResponse;
        stop(pb::StopRequest) -> pb::StopResponse;
        put(pb::PutRequest) -> pb::PutResponse;
        get(pb::GetRequest) -> pb::GetResponse;
        delete(pb::DeleteRequest) -> pb::DeleteResponse;
        add(pb::AddRequest) -> pb::AddResponse;
        touch(pb::TouchRequest) -> pb::TouchResponse;
        scan(pb::ScanRequest) -> pb::ScanResponse;
        transact(pb::TransactRequest) -> pb::TransactResponse;
    }
}

/// A running server; dropping it cuts it off.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    pub(super) stage: Arc<Stage>,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl Server {
    /// One that takes its time to drain.
    pub(super) async fn start() -> Self {
        Self::with(Limits::default(), Duration::from_secs(60)).await
    }

    pub(super) async fn with(limits: Limits, drain_timeout: Duration) -> Self {
        Self::with_options(Options { workers: 2, ..Options::new(limits, drain_timeout) }).await
    }

    /// One in the time of the test, which may stand still.
    pub(super) async fn here() -> Self {
        let (limits, drain_timeout) = (Limits::default(), Duration::from_secs(60));
        Self::with_options(Options::new(limits, drain_timeout)).await
    }

    async fn with_options(options: Options) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stage = Stage::new();
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(serve(listener, App(Arc::clone(&stage)), options, async { stopped.await.unwrap() }));
        Self { address, stage, stop: Some(stop), serving }
    }

    /// Asks it to drain.
    pub(super) fn stop(&mut self) {
        self.stop.take().unwrap().send(()).unwrap();
    }

    /// Waits until it has returned.
    pub(super) async fn stopped(mut self) {
        soon(&mut self.serving).await.unwrap();
    }

    pub(super) async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap()
    }

    pub(super) async fn client(&self) -> BucketServiceClient<Channel> {
        BucketServiceClient::new(self.channel().await)
    }

    pub(super) async fn raw(&self) -> Raw {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (send, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(async { drop(connection.await) });
        Raw(send)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

pub(super) fn create(bucket: &str) -> pb::CreateRequest {
    pb::CreateRequest { bucket: bucket.to_owned(), ..Default::default() }
}

pub(super) fn watch(prefix: &str) -> pb::WatchRequest {
    pb::WatchRequest { prefix: Some(prefix.to_owned()), ..Default::default() }
}

/// A message as it is sent.
pub(super) fn framed(message: &impl Message) -> Bytes {
    let mut bytes = BytesMut::from(&[0][..]);
    bytes.extend(u32::try_from(message.encoded_len()).unwrap().to_be_bytes());
    message.encode(&mut bytes).unwrap();
    bytes.freeze()
}

/// A client that speaks HTTP/2 and leaves the rest to the test. It keeps no deadlines of its own.
pub(super) struct Raw(h2::client::SendRequest<Bytes>);

pub(super) struct Answer {
    pub(super) http: StatusCode,
    /// Bytes before the trailers.
    pub(super) body: Vec<u8>,
    /// The status, and whether it came without a body.
    pub(super) status: Option<Status>,
    pub(super) trailers_only: bool,
}

impl Raw {
    pub(super) async fn call(&self, path: &str, headers: &[(&str, &str)], body: &[Bytes]) -> Answer {
        let mut request = Request::post(format!("http://server{path}"));
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/grpc");
        }
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut send = soon(self.0.clone().ready()).await.unwrap();
        let (response, mut request) = send.send_request(request.body(()).unwrap(), false).unwrap();
        for chunk in body {
            // The server may have answered already.
            drop(request.send_data(chunk.clone(), false));
        }
        drop(request.send_data(Bytes::new(), true));

        let (head, mut stream) = soon(response).await.unwrap().into_parts();
        let mut body = Vec::new();
        while let Some(chunk) = soon(stream.data()).await {
            let Ok(chunk) = chunk else { break };
            stream.flow_control().release_capacity(chunk.len()).unwrap();
            body.extend(chunk);
        }
        let trailers: Option<HeaderMap> = soon(stream.trailers()).await.unwrap_or_default();
        let trailers_only = trailers.is_none();
        let status = Status::from_header_map(&trailers.unwrap_or(head.headers));
        Answer { http: head.status, body, status, trailers_only }
    }

    /// The status of a call that fails.
    pub(super) async fn failure(&self, path: &str, headers: &[(&str, &str)], body: &[Bytes]) -> Status {
        self.call(path, headers, body).await.status.expect("there is a status")
    }
}
