//! Servers and clients: each test starts its own server, on a free port, in a runtime of its own; it is stopped when the
//! test lets go of it, whatever happened, and then its log is judged.

use std::{
    collections::VecDeque,
    fmt,
    future::pending,
    net::SocketAddr,
    panic::resume_unwind,
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use pail::{
    clock::SystemClock,
    limits::Limits,
    pb::{
        self, Reason, bucket_service_client::BucketServiceClient, event::Event, value::Kind, watch_response::Response,
    },
    registry::Registry,
    serve::{Ended, serve},
    server::Options,
};
use tokio::{net::TcpListener, runtime, sync::oneshot, time::timeout};
use tonic::{
    Code, Status, Streaming,
    transport::{Channel, Endpoint},
};
use tonic_types::{ErrorDetails, StatusExt as _};
use tracing::{Dispatch, Level, Subscriber, dispatcher, field::Visit, level_filters::LevelFilter};
use tracing_subscriber::{Layer, layer::Context, layer::SubscriberExt as _};

/// Far longer than anything here takes, on a machine that is busy with something else.
pub(crate) const DEADLINE: Duration = Duration::from_secs(20);

/// Waits, but not for ever.
#[track_caller]
pub(crate) fn soon<T>(future: impl Future<Output = T>) -> impl Future<Output = T> {
    let caller = std::panic::Location::caller();
    async move { timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("what {caller} waits for never came")) }
}

/// Asks again and again, for what has no event to wait for.
#[track_caller]
pub(crate) fn until<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> impl Future<Output = T> {
    soon(async move {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            // Not for luck: a pause between two looks, and what is looked for is required in the end.
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    })
}

/// A running server. Letting go of it stops it, and fails the test where the server panicked or its log holds a WARN or an
/// ERROR that the test did not [announce](Self::announce).
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// What it serves, for a look behind the curtain.
    pub(crate) registry: Registry,
    log: Arc<Log>,
    shutdown: Option<oneshot::Sender<()>>,
    ended: Option<oneshot::Receiver<Ended>>,
    /// Dropped to cut it.
    cut: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// As `pail serve` does by default.
    pub(crate) fn start() -> Self {
        Self::with(Limits::default())
    }

    pub(crate) fn with(limits: Limits) -> Self {
        Self::draining_within(Duration::from_secs(10), limits)
    }

    pub(crate) fn draining_within(drain_timeout: Duration, limits: Limits) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let registry = Registry::start(limits.clone(), Arc::new(SystemClock::default()), "a registry".to_owned());
        let log = Arc::new(Log::default());
        let (shutdown, asked) = oneshot::channel::<()>();
        let (cut, is_cut) = oneshot::channel::<()>();
        let (end, ended) = oneshot::channel();

        let thread = thread::spawn({
            let (registry, log) = (registry.clone(), Dispatch::new(subscriber(&log)));
            move || {
                let each_thread = log.clone();
                let runtime = runtime::Builder::new_multi_thread()
                    .worker_threads(2)
                    .enable_all()
                    .on_thread_start(move || std::mem::forget(dispatcher::set_default(&each_thread)))
                    .build()
                    .unwrap();
                let serving = async {
                    let listener = TcpListener::from_std(listener).unwrap();
                    let shutdown = async {
                        if asked.await.is_err() {
                            pending::<()>().await;
                        }
                    };
                    let ended = tokio::select! {
                        ended = serve(listener, registry, Options { workers: 2, ..Options::new(limits, drain_timeout) }, shutdown) => ended,
                        _ = is_cut => return,
                    };
                    end.send(ended).ok(); // a test need not wait for it
                };
                dispatcher::with_default(&log, || runtime.block_on(serving));
            }
        });
        Self {
            address,
            registry,
            log,
            shutdown: Some(shutdown),
            ended: Some(ended),
            cut: Some(cut),
            thread: Some(thread),
        }
    }

    /// A client with a connection of its own.
    pub(crate) async fn client(&self) -> Client {
        Client::to(self.address).await
    }

    /// A client whose streams take next to nothing before it is read.
    pub(crate) async fn narrow_client(&self) -> Client {
        let endpoint = Endpoint::from_shared(format!("http://{}", self.address)).unwrap();
        Client(soon(endpoint.initial_stream_window_size(1 << 10).connect()).await.unwrap())
    }

    /// Asks it to drain.
    pub(crate) fn shut_down(&mut self) {
        self.shutdown.take().expect("asked once").send(()).expect("it still serves");
    }

    /// Waits until it has returned, and tells why it did.
    pub(crate) async fn ended(&mut self) -> Ended {
        match soon(self.ended.take().expect("asked once")).await {
            Ok(ended) => ended,
            Err(_) => {
                self.join();
                panic!("the server was cut")
            }
        }
    }

    /// Expects lines of WARN or ERROR that hold this text.
    pub(crate) fn announce(&self, text: &'static str) {
        self.log.announced.lock().unwrap().push(text);
    }

    fn join(&mut self) {
        self.cut.take();
        let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) else { return };
        if !thread::panicking() {
            resume_unwind(panic);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.join();
        if thread::panicking() {
            return;
        }
        let announced = self.log.announced.lock().unwrap();
        let lines = self.log.lines.lock().unwrap();
        let surprise = lines.iter().find(|line| !announced.iter().any(|text| line.contains(text)));
        assert!(surprise.is_none(), "the server logged what the test did not announce: {surprise:?}");
    }
}

/// What one server logged as WARN or ERROR, and what its test expects.
#[derive(Default)]
struct Log {
    lines: Mutex<Vec<String>>,
    announced: Mutex<Vec<&'static str>>,
}

fn subscriber(log: &Arc<Log>) -> impl Subscriber + Send + Sync + use<> {
    tracing_subscriber::registry().with(Lines(Arc::clone(log)).with_filter(LevelFilter::WARN))
}

struct Lines(Arc<Log>);

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        struct Text(String);
        impl Visit for Text {
            fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn fmt::Debug) {
                self.0 += &format!(" {field}={value:?}");
            }
        }
        assert!(*event.metadata().level() <= Level::WARN);
        let mut text = Text(event.metadata().level().to_string());
        event.record(&mut text);
        self.0.lines.lock().unwrap().push(text.0);
    }
}

/// A client: one connection, however often it is cloned. A method for each RPC, with what is usual; [`rpc`](Self::rpc) has
/// the rest.
#[derive(Clone)]
pub(crate) struct Client(Channel);

impl Client {
    pub(crate) async fn to(address: SocketAddr) -> Self {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap();
        Self(soon(endpoint.connect()).await.unwrap())
    }

    pub(crate) fn channel(&self) -> Channel {
        self.0.clone()
    }

    /// The generated client.
    pub(crate) fn rpc(&self) -> BucketServiceClient<Channel> {
        BucketServiceClient::new(self.channel())
    }

    pub(crate) async fn create(&self, bucket: &str) -> Result<pb::CreateResponse, Status> {
        self.create_with(pb::CreateRequest { bucket: bucket.into(), ..Default::default() }).await
    }

    pub(crate) async fn create_with(&self, request: pb::CreateRequest) -> Result<pb::CreateResponse, Status> {
        soon(self.rpc().create(request)).await.map(tonic::Response::into_inner)
    }

    /// Creates a bucket that is not there yet, and returns its id.
    pub(crate) async fn created(&self, bucket: &str) -> u64 {
        let answer = self.create(bucket).await.unwrap();
        assert!(answer.created, "{bucket} is there already");
        answer.bucket.unwrap().id
    }

    pub(crate) async fn lookup(&self, bucket: &str) -> Result<pb::Bucket, Status> {
        let answer = soon(self.rpc().lookup(pb::LookupRequest { bucket: bucket.into() })).await?;
        Ok(answer.into_inner().bucket.unwrap())
    }

    pub(crate) async fn list(&self, request: pb::ListRequest) -> Result<pb::ListResponse, Status> {
        soon(self.rpc().list(request)).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn stop(&self, bucket: &str) -> Result<pb::StopResponse, Status> {
        self.stop_with(pb::StopRequest { bucket: bucket.into(), ..Default::default() }).await
    }

    pub(crate) async fn stop_with(&self, request: pb::StopRequest) -> Result<pb::StopResponse, Status> {
        soon(self.rpc().stop(request)).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn put(&self, bucket: &str, key: &str, value: impl Into<Val>) -> Result<pb::PutResponse, Status> {
        self.put_with(put(bucket, key, value)).await
    }

    pub(crate) async fn put_with(&self, request: pb::PutRequest) -> Result<pb::PutResponse, Status> {
        soon(self.rpc().put(request)).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn get(&self, bucket: &str, key: &str) -> Result<pb::GetResponse, Status> {
        self.get_with(get(bucket, key)).await
    }

    pub(crate) async fn get_with(&self, request: pb::GetRequest) -> Result<pb::GetResponse, Status> {
        soon(self.rpc().get(request)).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn delete(&self, bucket: &str, key: &str) -> Result<pb::DeleteResponse, Status> {
        self.delete_with(delete(bucket, key)).await
    }

    pub(crate) async fn delete_with(&self, request: pb::DeleteRequest) -> Result<pb::DeleteResponse, Status> {
        soon(self.rpc().delete(request)).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn add(&self, bucket: &str, key: &str, delta: i64) -> Result<pb::AddResponse, Status> {
        let request = pb::AddRequest { bucket: bucket.into(), key: key.into(), delta, ..Default::default() };
        self.add_with(request).await
    }

    pub(crate) async fn add_with(&self, request: pb::AddRequest) -> Result<pb::AddResponse, Status> {
        soon(self.rpc().add(request)).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn touch(&self, request: pb::TouchRequest) -> Result<pb::TouchResponse, Status> {
        soon(self.rpc().touch(request)).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn transact(&self, request: pb::TransactRequest) -> Result<pb::TransactResponse, Status> {
        soon(self.rpc().transact(request)).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn scan(&self, request: pb::ScanRequest) -> Result<pb::ScanResponse, Status> {
        soon(self.rpc().scan(request)).await.map(tonic::Response::into_inner)
    }

    /// Makes a handler of this bucket panic.
    pub(crate) async fn crash(&self, bucket: &str, message: &str) -> Result<pb::PutResponse, Status> {
        self.put(bucket, &format!("{}{message}", pail::hooks::PANIC), "").await
    }

    pub(crate) async fn watch(&self, request: pb::WatchRequest) -> Result<Watching, Status> {
        let stream = soon(self.rpc().watch(request)).await?.into_inner();
        Ok(Watching { stream, events: VecDeque::new(), revision: 0 })
    }

    /// A watch of these names that has begun, with the monitors' refs in the order asked.
    pub(crate) async fn watch_names(&self, buckets: &[&str]) -> (Watching, Vec<u64>) {
        let mut watching = self.watch(names(buckets)).await.unwrap();
        let monitors = watching.started().await.monitors;
        assert_eq!(monitors.iter().map(|monitor| &*monitor.bucket).collect::<Vec<_>>(), buckets);
        (watching, monitors.iter().map(|monitor| monitor.r#ref).collect())
    }

    /// A watch of this prefix that has begun.
    pub(crate) async fn watch_prefix(&self, text: &str) -> Watching {
        let mut watching = self.watch(prefix(text)).await.unwrap();
        assert_eq!(watching.started().await.monitors, []);
        watching
    }
}

/// A value as a message holds it.
pub(crate) fn value(value: impl Into<Val>) -> Option<pb::Value> {
    Some(pb::Value { kind: Some(value.into().0) })
}

/// A value in the words of Rust.
pub(crate) struct Val(Kind);

impl From<&str> for Val {
    fn from(text: &str) -> Self {
        Self(Kind::Text(text.to_owned()))
    }
}

impl From<Vec<u8>> for Val {
    fn from(data: Vec<u8>) -> Self {
        Self(Kind::Data(data))
    }
}

impl From<i64> for Val {
    fn from(integer: i64) -> Self {
        Self(Kind::Integer(integer))
    }
}

impl From<Kind> for Val {
    fn from(kind: Kind) -> Self {
        Self(kind)
    }
}

/// A time to live, or none of the kind that is allowed.
pub(crate) fn length(seconds: i64, nanos: i32) -> Option<prost_types::Duration> {
    Some(prost_types::Duration { seconds, nanos })
}

/// A short time to live.
pub(crate) fn millis(millis: u16) -> Option<prost_types::Duration> {
    length(i64::from(millis / 1_000), i32::from(millis % 1_000) * 1_000_000)
}

pub(crate) fn put(bucket: &str, key: &str, value: impl Into<Val>) -> pb::PutRequest {
    pb::PutRequest { bucket: bucket.into(), key: key.into(), value: self::value(value), ..Default::default() }
}

pub(crate) fn get(bucket: &str, key: &str) -> pb::GetRequest {
    pb::GetRequest { bucket: bucket.into(), key: key.into(), ..Default::default() }
}

pub(crate) fn delete(bucket: &str, key: &str) -> pb::DeleteRequest {
    pb::DeleteRequest { bucket: bucket.into(), key: key.into(), ..Default::default() }
}

pub(crate) fn scan(bucket: &str) -> pb::ScanRequest {
    pb::ScanRequest { bucket: bucket.into(), ..Default::default() }
}

pub(crate) fn names(buckets: &[&str]) -> pb::WatchRequest {
    pb::WatchRequest { buckets: buckets.iter().map(ToString::to_string).collect(), ..Default::default() }
}

pub(crate) fn incarnations(lives: &[(&str, u64)]) -> pb::WatchRequest {
    let life = |&(bucket, bucket_id): &(&str, u64)| pb::Incarnation { bucket: bucket.into(), bucket_id };
    pb::WatchRequest { incarnations: lives.iter().map(life).collect(), ..Default::default() }
}

pub(crate) fn prefix(text: &str) -> pb::WatchRequest {
    pb::WatchRequest { prefix: Some(text.into()), ..Default::default() }
}

/// An open watch. What it is asked for must come next, and soon.
pub(crate) struct Watching {
    stream: Streaming<pb::WatchResponse>,
    /// Of the last response, not looked at yet.
    events: VecDeque<pb::Event>,
    /// Of the last response.
    pub(crate) revision: u64,
}

impl Watching {
    /// The next response; `None` where the stream has ended with OK.
    pub(crate) async fn response(&mut self) -> Result<Option<Response>, Status> {
        assert!(self.events.is_empty(), "events were not looked at: {:?}", self.events);
        let Some(response) = soon(self.stream.message()).await? else { return Ok(None) };
        self.revision = response.revision;
        Ok(Some(response.response.expect("a response holds something")))
    }

    pub(crate) async fn started(&mut self) -> pb::WatchStarted {
        match self.response().await {
            Ok(Some(Response::Started(started))) => started,
            other => panic!("started comes first, not {other:?}"),
        }
    }

    pub(crate) async fn synced(&mut self) {
        let response = self.response().await;
        assert!(matches!(response, Ok(Some(Response::Synced(_)))), "synced comes next, not {response:?}");
    }

    pub(crate) async fn event(&mut self) -> Event {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event.event.expect("an event is of some kind");
            }
            match self.response().await {
                Ok(Some(Response::Events(events))) => self.events = events.events.into(),
                other => panic!("an event comes next, not {other:?}"),
            }
        }
    }

    pub(crate) async fn down(&mut self) -> pb::DownEvent {
        match self.event().await {
            Event::Down(down) => down,
            other => panic!("a DOWN comes next, not {other:?}"),
        }
    }

    pub(crate) async fn creation(&mut self) -> pb::CreatedEvent {
        match self.event().await {
            Event::Created(created) => created,
            other => panic!("a CREATED comes next, not {other:?}"),
        }
    }

    /// The stream ends, and well.
    pub(crate) async fn ends_with_ok(&mut self) {
        let end = self.response().await;
        assert!(matches!(end, Ok(None)), "the stream ends with OK, not {end:?}");
    }
}

/// A DOWN as a short text: who, and why.
pub(crate) fn why(down: &pb::DownEvent) -> (&str, Reason, &str) {
    (&down.bucket, down.reason(), &down.detail)
}

/// The call was refused, for this reason, and this is what its details say. `facts` are the metadata, all of them.
#[track_caller]
pub(crate) fn refused<T: fmt::Debug>(
    result: Result<T, Status>,
    code: Code,
    reason: &str,
    facts: &[(&str, &str)],
) -> ErrorDetails {
    let status = result.expect_err(reason);
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("an error has an ErrorInfo: {status:?}"));
    assert_eq!((status.code(), &*info.reason, &*info.domain), (code, reason, "pail"), "{status:?}");
    let mut said: Vec<_> = info.metadata.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    said.sort_unstable();
    let mut facts = facts.to_vec();
    facts.sort_unstable();
    assert_eq!(said, facts, "{status:?}");
    assert!(!status.message().is_empty() && !status.message().ends_with('.'), "words for people: {status:?}");
    details
}

/// The stream ends with this error.
pub(crate) async fn ends_refused(watching: &mut Watching, code: Code, reason: &str, facts: &[(&str, &str)]) {
    let end = watching.response().await;
    refused(end, code, reason, facts);
}

/// How long something took.
pub(crate) async fn timed<T>(future: impl Future<Output = T>) -> (T, Duration) {
    let start = Instant::now();
    (future.await, start.elapsed())
}
