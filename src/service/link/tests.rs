//! What a Link promises, over real sockets.

use std::{net::SocketAddr, time::Duration};

use futures_util::{StreamExt as _, stream};
use prost::Message as _;
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::timeout,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming, transport::Channel};
use tonic_types::StatusExt as _;

use super::*;
use crate::{
    auth::Caller,
    clock::SystemClock,
    hooks,
    limits::Limits,
    pb::{
        Reason as Why, bucket_service_client::BucketServiceClient, event::Event, watch_response::Response as Watched,
    },
    registry::Registry,
    serve::serve,
    server::Options,
};

/// Waits, but not for ever.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(20), future).await.expect("it happens soon")
}

struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    serving: JoinHandle<()>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let limits = Limits::default();
        let registry = Registry::start(limits.clone(), Arc::new(SystemClock::default()), "test".to_owned());
        let options = Options::new(limits, Duration::from_secs(8));
        let (stop, stopped) = oneshot::channel();
        let serving = tokio::spawn(async move {
            serve(listener, registry, options, async { drop(stopped.await) }).await;
        });
        Self { address, stop: Some(stop), serving }
    }

    async fn client(&self) -> BucketServiceClient<Channel> {
        let channel = Channel::from_shared(format!("http://{}", self.address)).unwrap().connect().await.unwrap();
        BucketServiceClient::new(channel)
    }

    async fn link(&self) -> Client {
        Client::open(self.client().await).await
    }

    /// A watch of everything.
    async fn watch(&self) -> Watcher {
        let request = pb::WatchRequest { prefix: Some(String::new()), skip_initial: true, ..Default::default() };
        let mut watcher = Watcher(self.client().await.watch(request).await.unwrap().into_inner());
        while !matches!(watcher.next().await, Watched::Synced(_)) {}
        watcher
    }

    async fn lives(&self, bucket: &str) -> bool {
        let request = pb::LookupRequest { bucket: bucket.to_owned() };
        soon(self.client().await.lookup(request)).await.is_ok()
    }

    /// How many links a bucket has.
    async fn links(&self, bucket: &str) -> u64 {
        let request = pb::LookupRequest { bucket: bucket.to_owned() };
        soon(self.client().await.lookup(request)).await.unwrap().into_inner().bucket.unwrap().link_count
    }

    async fn stop_bucket(&self, bucket: &str, why: Why) {
        let request = pb::StopRequest { bucket: bucket.to_owned(), reason: why.into(), ..Default::default() };
        soon(self.client().await.stop(request)).await.unwrap();
    }

    async fn crash(&self, bucket: &str) {
        let request =
            pb::GetRequest { bucket: bucket.to_owned(), key: format!("{}boom", hooks::PANIC), ..Default::default() };
        assert_eq!(soon(self.client().await.get(request)).await.unwrap_err().code(), Code::Aborted);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

struct Watcher(Streaming<pb::WatchResponse>);

impl Watcher {
    async fn next(&mut self) -> Watched {
        soon(self.0.message()).await.unwrap().unwrap().response.unwrap()
    }

    /// The next so many deaths, in the order of names.
    async fn downs(&mut self, count: usize) -> Vec<(String, Why)> {
        let mut downs = Vec::new();
        while downs.len() < count {
            let Watched::Events(events) = self.next().await else { continue };
            for event in events.events {
                if let Some(Event::Down(down)) = event.event {
                    downs.push((down.bucket.clone(), down.reason()));
                }
            }
        }
        downs.sort_by(|one, other| one.0.cmp(&other.0));
        downs
    }
}

/// A Link, from the client's side.
struct Client {
    requests: mpsc::Sender<pb::LinkRequest>,
    responses: Streaming<pb::LinkResponse>,
    id: u64,
}

impl Client {
    async fn open(mut client: BucketServiceClient<Channel>) -> Self {
        let (requests, receiver) = mpsc::channel(2_000);
        let responses = soon(client.link(ReceiverStream::new(receiver))).await.unwrap().into_inner();
        Self { requests, responses, id: 0 }
    }

    async fn send(&mut self, request: Request) {
        self.id += 1;
        self.requests.send(pb::LinkRequest { id: self.id, request: Some(request) }).await.unwrap();
    }

    async fn hello(&mut self, trap_exit: bool, lease: Option<u64>) {
        let lease = lease.map(|seconds| prost_types::Duration { seconds: seconds.try_into().unwrap(), nanos: 0 });
        self.send(Request::Hello(pb::LinkHello { trap_exit, lease })).await;
    }

    /// What comes next; `None` for OK.
    async fn next(&mut self) -> Result<Option<(u64, Response)>, Status> {
        let response = soon(self.responses.message()).await?;
        Ok(response.map(|response| (response.id, response.response.unwrap())))
    }

    /// The answer to `request`.
    async fn ask(&mut self, request: Request) -> Response {
        self.send(request).await;
        let (id, response) = self.next().await.unwrap().unwrap();
        assert_eq!(id, self.id, "{response:?}");
        response
    }

    async fn try_link(&mut self, bucket: &str, mode: LinkMode) -> Result<pb::Linked, tonic_types::Status> {
        match self.ask(link(bucket, mode)).await {
            Response::Linked(linked) => Ok(linked),
            Response::Error(status) => Err(status),
            other => panic!("{other:?}"),
        }
    }

    async fn link(&mut self, bucket: &str) -> pb::Linked {
        self.try_link(bucket, LinkMode::CreateIfAbsent).await.unwrap()
    }

    async fn exit(&mut self) -> (String, Why) {
        match self.next().await.unwrap().unwrap() {
            (0, Response::Exit(exit)) => (exit.bucket.clone(), exit.reason()),
            other => panic!("{other:?}"),
        }
    }

    async fn end(&mut self) -> Status {
        self.next().await.expect_err("the stream ends with a status")
    }

    /// Half-closes, and reads what is left.
    async fn good_bye(self) -> Vec<Result<pb::LinkResponse, Status>> {
        drop(self.requests);
        soon(self.responses.collect()).await
    }
}

fn link(bucket: &str, mode: LinkMode) -> Request {
    Request::Link(pb::LinkBucket { bucket: bucket.to_owned(), mode: mode.into(), ..Default::default() })
}

fn unlink(bucket: &str) -> Request {
    Request::Unlink(pb::UnlinkBucket { bucket: bucket.to_owned(), bucket_id: None })
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().expect("every error has an ErrorInfo").reason
}

/// The reason and the facts of a request's error.
fn info(status: &tonic_types::Status) -> (String, HashMap<String, String>) {
    let code = Code::from_i32(status.code);
    let info = Status::with_details(code, &status.message, status.encode_to_vec().into());
    let info = info.get_details_error_info().unwrap();
    (info.reason, info.metadata)
}

fn pair(bucket: &str, why: Why) -> (String, Why) {
    (bucket.to_owned(), why)
}

#[tokio::test]
async fn of_two_contenders_one_takes_the_lock_and_its_end_frees_it() {
    let server = Server::start().await;
    let (mut one, mut two) = (server.link().await, server.link().await);
    let held = one.try_link("lock", LinkMode::MustCreate).await.unwrap();
    assert!(held.link_id != 0);

    let refused = two.try_link("lock", LinkMode::MustCreate).await.unwrap_err();
    assert_eq!(refused.code, i32::from(Code::AlreadyExists));
    let (reason, facts) = info(&refused);
    assert_eq!((reason.as_str(), &*facts["bucket"]), ("BUCKET_EXISTS", "lock"));
    assert_eq!(facts["bucket_id"], held.bucket_id.to_string());

    let mut watcher = server.watch().await;
    drop(one);
    assert_eq!(watcher.downs(1).await, [pair("lock", Why::Noconnection)]);
    let taken = two.try_link("lock", LinkMode::MustCreate).await.unwrap();
    assert!(taken.bucket_id > held.bucket_id);
}

#[tokio::test]
async fn the_modes_and_linking_twice() {
    let server = Server::start().await;
    let mut client = server.link().await;
    let absent = client.try_link("b", LinkMode::Unspecified).await.unwrap_err();
    assert_eq!(info(&absent).0, "BUCKET_NOT_FOUND");
    let linked = client.link("b").await;
    assert_eq!(client.try_link("b", LinkMode::MustExist).await, Ok(linked.clone()));
    assert_eq!(client.link("b").await, linked);
    assert_eq!(info(&client.try_link("", LinkMode::MustExist).await.unwrap_err()).0, "INVALID_NAME");
}

#[tokio::test]
async fn a_bucket_tells_how_many_are_linked_to_it() {
    let server = Server::start().await;
    let (mut one, mut other) = (server.link().await, server.link().await);
    one.link("b").await;
    assert_eq!(server.links("b").await, 1);
    one.link("b").await;
    other.link("b").await;
    assert_eq!(server.links("b").await, 2, "twice is once");
    assert!(matches!(other.ask(unlink("b")).await, Response::Unlinked(_)));
    assert_eq!(server.links("b").await, 1);
    assert_eq!(one.good_bye().await.len(), 0);
    assert_eq!(server.links("b").await, 0);
}

#[tokio::test]
async fn a_stream_that_is_dropped_takes_all_its_buckets_at_once() {
    let server = Server::start().await;
    let mut watcher = server.watch().await;
    let mut client = server.link().await;
    for bucket in ["a", "b", "c"] {
        client.link(bucket).await;
    }
    drop(client);
    let expected = ["a", "b", "c"].map(|bucket| pair(bucket, Why::Noconnection));
    assert_eq!(watcher.downs(3).await, expected);
}

#[tokio::test]
async fn a_connection_that_is_cut_takes_its_buckets() {
    let server = Server::start().await;
    let mut watcher = server.watch().await;
    // A proxy whose cables we hold.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (proxy, upstream) = (listener.local_addr().unwrap(), server.address);
    let cables = tokio::spawn(async move {
        let (mut down, _) = listener.accept().await.unwrap();
        let mut up = tokio::net::TcpStream::connect(upstream).await.unwrap();
        drop(tokio::io::copy_bidirectional(&mut down, &mut up).await);
    });
    let channel = Channel::from_shared(format!("http://{proxy}")).unwrap().connect().await.unwrap();
    let mut client = Client::open(BucketServiceClient::new(channel)).await;
    client.link("b").await;
    cables.abort();
    assert_eq!(watcher.downs(1).await, [pair("b", Why::Noconnection)]);
}

#[tokio::test]
async fn a_passed_deadline_is_an_abnormal_end() {
    let server = Server::start().await;
    let mut watcher = server.watch().await;
    let (requests, receiver) = mpsc::channel(1);
    let mut request = tonic::Request::new(ReceiverStream::new(receiver));
    request.set_timeout(Duration::from_millis(300));
    let id = 1;
    requests.send(pb::LinkRequest { id, request: Some(link("b", LinkMode::MustCreate)) }).await.unwrap();
    let mut responses = soon(server.client().await.link(request)).await.unwrap().into_inner();
    assert!(soon(responses.message()).await.is_ok());
    assert_eq!(watcher.downs(1).await, [pair("b", Why::Noconnection)]);
}

#[tokio::test]
async fn a_half_close_is_a_good_bye_and_what_was_asked_is_answered() {
    let server = Server::start().await;
    let mut client = server.link().await;
    for bucket in ["a", "b"] {
        client.send(link(bucket, LinkMode::CreateIfAbsent)).await;
    }
    let left = client.good_bye().await;
    let ids: Vec<u64> = left.into_iter().map(|response| response.unwrap().id).collect();
    assert_eq!(ids, [1, 2], "and then OK");
    assert!(server.lives("a").await && server.lives("b").await);
}

#[tokio::test]
async fn a_normal_end_sends_exit_and_the_stream_goes_on() {
    let server = Server::start().await;
    let mut client = server.link().await;
    client.link("a").await;
    client.link("b").await;
    server.stop_bucket("a", Why::Normal).await;
    assert_eq!(client.exit().await, pair("a", Why::Normal));
    assert!(matches!(client.ask(Request::Ping(pb::LinkPing {})).await, Response::Pong(_)));
    assert!(server.lives("b").await);
}

#[tokio::test]
async fn an_abnormal_end_sends_exit_then_aborts_and_the_others_go_with_linked() {
    let server = Server::start().await;
    let mut watcher = server.watch().await;
    let mut client = server.link().await;
    for bucket in ["a", "b", "c"] {
        client.link(bucket).await;
    }
    server.crash("a").await;
    assert_eq!(client.exit().await, pair("a", Why::Crashed));
    let end = client.end().await;
    assert_eq!((end.code(), reason(&end).as_str()), (Code::Aborted, "LINKED_EXIT"));
    assert_eq!(end.get_details_error_info().unwrap().metadata["bucket"], "a");
    assert!(!server.lives("b").await && !server.lives("c").await, "they went before the status came");
    let expected = [pair("a", Why::Crashed), pair("b", Why::Linked), pair("c", Why::Linked)];
    assert_eq!(watcher.downs(3).await, expected);
}

#[tokio::test]
async fn trap_exit_protects_from_every_reason() {
    let server = Server::start().await;
    let mut client = server.link().await;
    client.hello(true, None).await;
    for bucket in ["a", "b", "c"] {
        client.link(bucket).await;
    }
    server.crash("a").await;
    assert_eq!(client.exit().await, pair("a", Why::Crashed));
    server.stop_bucket("b", Why::Killed).await;
    assert_eq!(client.exit().await, pair("b", Why::Killed));
    assert!(matches!(client.ask(Request::Ping(pb::LinkPing {})).await, Response::Pong(_)));
    assert!(server.lives("c").await);
}

#[tokio::test]
async fn of_two_clients_of_one_bucket_the_other_is_told_noconnection() {
    let server = Server::start().await;
    let (mut one, mut two) = (server.link().await, server.link().await);
    assert_eq!(one.link("shared").await.bucket_id, two.link("shared").await.bucket_id);
    drop(one);
    assert_eq!(two.exit().await, pair("shared", Why::Noconnection));
    assert_eq!(reason(&two.end().await), "LINKED_EXIT");
}

#[tokio::test]
async fn an_unlink_unties() {
    let server = Server::start().await;
    let mut client = server.link().await;
    client.link("a").await;
    assert!(matches!(client.ask(unlink("a")).await, Response::Unlinked(_)));
    assert!(matches!(client.ask(unlink("a")).await, Response::Unlinked(_)), "none to take away is no error");
    server.stop_bucket("a", Why::Killed).await;
    assert!(matches!(client.ask(Request::Ping(pb::LinkPing {})).await, Response::Pong(_)), "no exit comes");
    client.link("b").await;
    client.ask(unlink("b")).await;
    drop(client);
    assert!(server.lives("b").await);
}

#[tokio::test]
async fn silence_for_longer_than_the_lease_is_an_abnormal_end_and_a_ping_renews_it() {
    let server = Server::start().await;
    let mut watcher = server.watch().await;
    let mut client = server.link().await;
    client.hello(false, Some(1)).await;
    client.link("b").await;
    let start = Instant::now();
    while start.elapsed() < Duration::from_millis(1_500) {
        assert!(matches!(client.ask(Request::Ping(pb::LinkPing {})).await, Response::Pong(_)));
        sleep(Duration::from_millis(100)).await;
    }
    let silent = Instant::now();
    let end = client.end().await;
    assert!(silent.elapsed() > Duration::from_millis(800));
    assert_eq!((end.code(), reason(&end).as_str()), (Code::Aborted, "LINKED_EXIT"));
    assert!(end.message().contains("lease of 1s"), "{end}");
    assert_eq!(watcher.downs(1).await, [pair("b", Why::Noconnection)]);
}

#[tokio::test]
async fn what_is_wrong_is_answered_and_the_stream_goes_on() {
    let server = Server::start().await;
    let mut client = server.link().await;
    let lease = Some(prost_types::Duration { seconds: 0, nanos: 1 });
    let bucket = || "b".to_owned();
    let wrong = [
        Request::Hello(pb::LinkHello { trap_exit: false, lease }),
        Request::Hello(pb::LinkHello::default()),
        link("b", LinkMode::MustExist),
        Request::Link(pb::LinkBucket { bucket: bucket(), mode: 9, ..Default::default() }),
        Request::Link(pb::LinkBucket { bucket: bucket(), ttl: lease, mode: 2, ..Default::default() }),
        Request::Link(pb::LinkBucket { bucket: bucket(), bucket_id: Some(1), mode: 3, ..Default::default() }),
        Request::Link(pb::LinkBucket { bucket: bucket(), link_id: Some(1), mode: 2, ..Default::default() }),
        Request::Link(pb::LinkBucket { bucket: bucket(), link_id: Some(1), ..Default::default() }),
        unlink(""),
    ];
    let mut reasons = Vec::new();
    for request in wrong {
        let Response::Error(status) = client.ask(request).await else { panic!("it is refused") };
        reasons.push(info(&status).0);
    }
    let option = "INVALID_OPTION";
    let absent = "BUCKET_NOT_FOUND";
    assert_eq!(reasons, [option, option, absent, option, option, option, option, absent, "INVALID_NAME"]);

    client.requests.send(pb::LinkRequest { id: 99, request: None }).await.unwrap();
    let Some((99, Response::Error(status))) = client.next().await.unwrap() else { panic!("it is refused") };
    assert_eq!(info(&status).0, option);
    client.link("b").await;
}

#[tokio::test]
async fn a_thousand_links_and_not_one_more() {
    let server = Server::start().await;
    let mut watcher = server.watch().await;
    let mut client = server.link().await;
    for number in 0..1_000 {
        client.send(link(&format!("b{number}"), LinkMode::MustCreate)).await;
    }
    for id in 1..=1_000 {
        let (answered, response) = client.next().await.unwrap().unwrap();
        assert!(answered == id && matches!(response, Response::Linked(_)), "{response:?}");
    }
    let (reason, facts) = info(&client.try_link("more", LinkMode::MustCreate).await.unwrap_err());
    assert_eq!((reason.as_str(), &*facts["limit"]), ("TOO_LARGE", "1000"));
    drop(client);
    let downs = watcher.downs(1_000).await;
    assert!(downs.iter().all(|(_, why)| *why == Why::Noconnection));
}

#[tokio::test]
async fn a_drain_says_moving_and_ends_with_draining() {
    let mut server = Server::start().await;
    let mut watcher = server.watch().await;
    let mut client = server.link().await;
    for bucket in ["a", "b"] {
        client.link(bucket).await;
    }
    server.stop.take().unwrap().send(()).unwrap();
    assert!(matches!(client.next().await, Ok(Some((0, Response::Moving(_))))));
    let end = loop {
        match client.next().await {
            Ok(Some((0, Response::Exit(exit)))) => assert_eq!(exit.reason(), Why::Shutdown),
            Ok(other) => panic!("{other:?}"),
            Err(end) => break end,
        }
    };
    assert_eq!((end.code(), reason(&end).as_str()), (Code::Unavailable, "DRAINING"));
    assert_eq!(watcher.downs(2).await, [pair("a", Why::Shutdown), pair("b", Why::Shutdown)]);
    soon(&mut server.serving).await.unwrap();
}

/// Without sockets: a service whose streams end while it goes on, as one with a maximal age for streams would.
mod without_sockets {
    use super::*;

    fn buckets() -> Buckets {
        within(Limits::default())
    }

    fn within(limits: Limits) -> Buckets {
        Buckets::new(Registry::start(limits, Arc::new(SystemClock::default()), "test".to_owned()))
    }

    type Requests = Pin<Box<dyn Stream<Item = Result<pb::LinkRequest, Status>> + Send>>;

    fn open(buckets: &Buckets, requests: impl IntoIterator<Item = Request>) -> LinkStream<Requests> {
        let requests: Vec<_> = requests
            .into_iter()
            .enumerate()
            .map(|(id, request)| Ok(pb::LinkRequest { id: id as u64, request: Some(request) }))
            .collect();
        let requests: Requests = Box::pin(stream::iter(requests).chain(stream::pending()));
        buckets.link_buckets(requests, &Extensions::new()).unwrap()
    }

    async fn next(stream: &mut LinkStream<Requests>) -> Response {
        stream.next().await.unwrap().unwrap().response.unwrap()
    }

    fn lives(buckets: &Buckets, bucket: &str) -> bool {
        buckets.registry.lookup(buckets.name(&Caller::anyone(), Verb::Read, bucket).unwrap()).is_ok()
    }

    #[tokio::test(start_paused = true)]
    async fn the_links_of_a_stream_that_the_server_ended_are_taken_over_or_go() {
        let buckets = buckets();
        let hello = Request::Hello(pb::LinkHello {
            lease: Some(prost_types::Duration { seconds: 5, nanos: 0 }),
            ..Default::default()
        });
        let mut first = open(&buckets, [hello, link("a", LinkMode::MustCreate), link("b", LinkMode::MustCreate)]);
        let Response::Linked(a) = next(&mut first).await else { panic!("linked") };
        let Response::Linked(_) = next(&mut first).await else { panic!("linked") };
        buckets.links.drain.send_replace(true);
        assert!(matches!(next(&mut first).await, Response::Moving(_)));
        assert_eq!(reason(&first.next().await.unwrap().unwrap_err()), "DRAINING");
        assert!(first.next().await.is_none());
        drop(first);
        buckets.links.drain.send_replace(false);

        sleep(Duration::from_secs(4)).await;
        assert!(lives(&buckets, "a") && lives(&buckets, "b"));
        let take = |bucket: &str| {
            Request::Link(pb::LinkBucket { bucket: bucket.into(), link_id: Some(a.link_id), ..Default::default() })
        };
        let mut second = open(&buckets, [take("b"), take("a"), take("a")]);
        assert!(matches!(next(&mut second).await, Response::Error(_)), "it is not b's");
        let Response::Linked(taken) = next(&mut second).await else { panic!("linked") };
        assert_eq!(taken.bucket_id, a.bucket_id);
        assert!(matches!(next(&mut second).await, Response::Error(_)), "it was taken over");

        sleep(Duration::from_secs(2)).await;
        assert!(lives(&buckets, "a") && !lives(&buckets, "b"));
        assert_eq!(buckets.links.kept.lock().len(), 0);
        drop(second);
        assert!(!lives(&buckets, "a"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_quiet_link_sends_a_heartbeat_every_15_s_or_as_often_as_the_server_was_told() {
        for link_heartbeat in [Duration::from_secs(15), Duration::from_secs(1)] {
            let buckets = within(Limits { link_heartbeat, ..Limits::default() });
            let mut stream = open(&buckets, [Request::Ping(pb::LinkPing {})]);
            next(&mut stream).await;
            for _ in 0..3 {
                let start = Instant::now();
                assert!(matches!(next(&mut stream).await, Response::Heartbeat(_)));
                assert_eq!(start.elapsed(), link_heartbeat);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_lease_runs_out_though_nobody_polls_the_stream() {
        let buckets = buckets();
        let hello = Request::Hello(pb::LinkHello {
            lease: Some(prost_types::Duration { seconds: 1, nanos: 0 }),
            ..Default::default()
        });
        let mut stream = open(&buckets, [hello, link("b", LinkMode::MustCreate)]);
        next(&mut stream).await;
        assert!(lives(&buckets, "b"));
        sleep(Duration::from_millis(1_001)).await;
        assert!(!lives(&buckets, "b"));
        assert_eq!(reason(&stream.next().await.unwrap().unwrap_err()), "LINKED_EXIT");
    }

    #[tokio::test]
    async fn requests_that_break_off_and_a_panic_are_no_good_bye() {
        let buckets = buckets();
        let request = pb::LinkRequest { id: 1, request: Some(link("b", LinkMode::MustCreate)) };
        let broken = Err(Failure::new(Reason::InvalidMessage, "cut off").into());
        let requests: Requests = Box::pin(stream::iter([Ok(request.clone()), broken]));
        let mut stream = buckets.link_buckets(requests, &Extensions::new()).unwrap();
        next(&mut stream).await;
        assert!(lives(&buckets, "b"));
        assert_eq!(reason(&stream.next().await.unwrap().unwrap_err()), "INVALID_MESSAGE");
        assert!(!lives(&buckets, "b"), "though the stream is still there");

        let panics = stream::poll_fn(|_| panic!("on command"));
        let requests: Requests = Box::pin(stream::iter([Ok(request)]).chain(panics));
        let mut stream = buckets.link_buckets(requests, &Extensions::new()).unwrap();
        next(&mut stream).await;
        assert!(lives(&buckets, "b"));
        let polled = tokio::spawn(async move { stream.next().await });
        assert!(polled.await.unwrap_err().is_panic());
        assert!(!lives(&buckets, "b"));
    }
}
