//! Pipelines over a real socket, and what only a driver of the stream itself can see.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{FutureExt as _, StreamExt as _, stream};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    task::JoinHandle,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, transport::Channel};
use tonic_types::{ErrorDetails, StatusExt as _};

use super::*;
use crate::{
    auth::Caller,
    clock::SystemClock,
    limits::Limits,
    pb::bucket_service_client::BucketServiceClient,
    registry::Registry,
    serve::{Ended, serve},
    server::Options,
};

type Client = BucketServiceClient<Channel>;

/// Waits, but not for ever.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), future).await.expect("it happens soon")
}

struct Server {
    registry: Registry,
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    task: JoinHandle<Ended>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let registry = registry();
        let options = Options::new(Limits::default(), Duration::from_secs(10));
        let (stop, stopped) = oneshot::channel();
        let task = tokio::spawn(serve(listener, registry.clone(), options, async { drop(stopped.await) }));
        Self { registry, address, stop: Some(stop), task }
    }

    async fn client(&self) -> Client {
        let client = soon(Client::connect(format!("http://{}", self.address))).await.unwrap();
        client.max_decoding_message_size(4 << 20)
    }

    /// A Pipeline whose requests the test sends one by one.
    async fn open(&self) -> (mpsc::Sender<pb::PipelineRequest>, Streaming<pb::PipelineResponse>) {
        let (requests, receiver) = mpsc::channel(1);
        let responses = soon(self.client().await.pipeline(ReceiverStream::new(receiver))).await.unwrap();
        (requests, responses.into_inner())
    }

    /// Sends all of it and half-closes; the responses, and the end.
    async fn pipeline(&self, requests: Vec<pb::PipelineRequest>) -> (Vec<pb::PipelineResponse>, Result<(), Status>) {
        let responses = soon(self.client().await.pipeline(stream::iter(requests))).await.unwrap();
        read(responses.into_inner()).await
    }

    /// All ops in one message, and a result for each.
    async fn results(&self, ops: Vec<pb::PipelineOp>) -> Vec<pb::PipelineResult> {
        let (responses, end) = self.pipeline(vec![pb::PipelineRequest { ops }]).await;
        end.unwrap();
        flat(responses)
    }

    fn version(&self, bucket: &str) -> u64 {
        let name = crate::name::BucketName::parse(bucket, self.registry.limits()).unwrap();
        self.registry.lookup(name).unwrap().summary.version.0
    }
}

fn registry() -> Registry {
    Registry::start(Limits::default(), Arc::new(SystemClock::default()), "r".to_owned())
}

async fn read(mut responses: Streaming<pb::PipelineResponse>) -> (Vec<pb::PipelineResponse>, Result<(), Status>) {
    let mut read = Vec::new();
    loop {
        match soon(responses.message()).await {
            Ok(Some(response)) => read.push(response),
            Ok(None) => return (read, Ok(())),
            Err(status) => return (read, Err(status)),
        }
    }
}

fn flat(responses: Vec<pb::PipelineResponse>) -> Vec<pb::PipelineResult> {
    responses.into_iter().flat_map(|response| response.results).collect()
}

fn op(id: u64, op: Op) -> pb::PipelineOp {
    pb::PipelineOp { id, bucket_id_from: None, op: Some(op) }
}

fn from(from: u64, op: pb::PipelineOp) -> pb::PipelineOp {
    pb::PipelineOp { bucket_id_from: Some(from), ..op }
}

fn create(id: u64, bucket: &str) -> pb::PipelineOp {
    op(id, Op::Create(pb::CreateRequest { bucket: bucket.to_owned(), ..Default::default() }))
}

fn stop(id: u64, bucket: &str) -> pb::PipelineOp {
    op(id, Op::Stop(pb::StopRequest { bucket: bucket.to_owned(), ..Default::default() }))
}

fn put_data(id: u64, bucket: &str, key: &str, bytes: usize) -> pb::PipelineOp {
    let value = Some(pb::Value { kind: Some(pb::value::Kind::Data(vec![7; bytes])) });
    let (bucket, key) = (bucket.to_owned(), key.to_owned());
    op(id, Op::Put(pb::PutRequest { bucket, key, value, ..Default::default() }))
}

fn put(id: u64, bucket: &str, key: &str) -> pb::PipelineOp {
    put_data(id, bucket, key, 1)
}

fn get(id: u64, bucket: &str, key: &str) -> pb::PipelineOp {
    op(id, Op::Get(pb::GetRequest { bucket: bucket.to_owned(), key: key.to_owned(), bucket_id: None }))
}

fn lookup(id: u64, bucket: &str) -> pb::PipelineOp {
    op(id, Op::Lookup(pb::LookupRequest { bucket: bucket.to_owned() }))
}

fn ids(results: &[pb::PipelineResult]) -> Vec<u64> {
    results.iter().map(|result| result.id).collect()
}

/// The code and reason of a result; `None` for an answer.
fn error(result: &pb::PipelineResult) -> Option<(Code, String)> {
    let Some(Answer::Error(error)) = &result.result else { return None };
    Some((error.code.into(), status(error).get_details_error_info().unwrap().reason))
}

/// The status that a call of its own would have ended with.
fn status(error: &tonic_types::Status) -> Status {
    Status::with_details(error.code.into(), error.message.clone(), error.encode_to_vec().into())
}

fn reason(status: &Status) -> String {
    status.get_details_error_info().unwrap().reason
}

fn refused(result: &pb::PipelineResult, code: Code, reason: &str) {
    assert_eq!(error(result), Some((code, reason.to_owned())), "{result:?}");
}

#[tokio::test]
async fn ops_are_run_and_answered_in_order_and_ids_may_repeat() {
    let server = Server::start().await;
    let results = server
        .results(vec![
            create(7, "b"),
            put(7, "b", "k"),
            put(0, "b", "k"),
            get(u64::MAX, "b", "k"),
            stop(7, "b"),
            lookup(1, "b"),
        ])
        .await;

    assert_eq!(ids(&results), [7, 7, 0, u64::MAX, 7, 1]);
    assert!(matches!(&results[0].result, Some(Answer::Create(response)) if response.created));
    assert!(matches!(&results[1].result, Some(Answer::Put(response)) if response.version == 1));
    assert!(matches!(&results[3].result, Some(Answer::Get(response)) if response.entry.as_ref().unwrap().version == 2));
    assert!(matches!(&results[4].result, Some(Answer::Stop(_))));
    refused(&results[5], Code::NotFound, "BUCKET_NOT_FOUND");
}

#[tokio::test]
async fn every_kind_of_op_has_the_answer_of_its_call() {
    let server = Server::start().await;
    let bucket = || "b".to_owned();
    let key = || "n".to_owned();
    let hour = prost_types::Duration { seconds: 3_600, nanos: 0 };
    let results = server
        .results(vec![
            create(1, "b"),
            op(2, Op::Add(pb::AddRequest { bucket: bucket(), key: key(), delta: 3, ..Default::default() })),
            op(
                3,
                Op::Touch(pb::TouchRequest {
                    bucket: bucket(),
                    key: Some(key()),
                    ttl: Some(hour),
                    ..Default::default()
                }),
            ),
            op(4, Op::Scan(pb::ScanRequest { bucket: bucket(), ..Default::default() })),
            op(5, Op::Transact(pb::TransactRequest { bucket: bucket(), ..Default::default() })),
            op(6, Op::List(pb::ListRequest::default())),
            op(7, Op::Delete(pb::DeleteRequest { bucket: bucket(), key: key(), ..Default::default() })),
            lookup(8, "b"),
        ])
        .await;

    assert_eq!(ids(&results), [1, 2, 3, 4, 5, 6, 7, 8]);
    assert!(matches!(&results[1].result, Some(Answer::Add(response)) if response.value == 3));
    assert!(matches!(&results[2].result, Some(Answer::Touch(response)) if response.expire_time.is_some()));
    assert!(matches!(&results[3].result, Some(Answer::Scan(response)) if response.entries.len() == 1));
    assert!(matches!(&results[4].result, Some(Answer::Transact(response)) if response.succeeded));
    assert!(matches!(&results[5].result, Some(Answer::List(response)) if response.buckets.len() == 1));
    assert!(matches!(&results[6].result, Some(Answer::Delete(response)) if response.entry.is_some()));
    assert!(matches!(&results[7].result, Some(Answer::Lookup(_))));
}

#[tokio::test]
async fn a_failed_op_has_the_status_of_its_call_in_its_place_and_stops_nothing() {
    let server = Server::start().await;
    let unset = pb::PipelineOp { id: 3, ..Default::default() };
    let crash = format!("{}boom", crate::hooks::PANIC);
    let ops = vec![
        get(1, "absent", "k"),
        create(2, "b"),
        unset,
        get(4, "b", "k"),
        put(5, "b", &crash),
        lookup(6, "b"),
        create(7, "b"),
    ];
    let results = server.results(ops).await;

    assert_eq!(ids(&results), [1, 2, 3, 4, 5, 6, 7]);
    refused(&results[0], Code::NotFound, "BUCKET_NOT_FOUND");
    refused(&results[2], Code::InvalidArgument, "INVALID_OPTION");
    refused(&results[3], Code::NotFound, "KEY_NOT_FOUND");
    refused(&results[4], Code::Aborted, "BUCKET_CRASHED");
    refused(&results[5], Code::NotFound, "BUCKET_NOT_FOUND");
    assert!(matches!(&results[6].result, Some(Answer::Create(response)) if response.created));

    let request = pb::GetRequest { bucket: "absent".to_owned(), key: "k".to_owned(), bucket_id: None };
    let call = soon(server.client().await.get(request)).await.unwrap_err();
    let Some(Answer::Error(inline)) = &results[0].result else { panic!("an error") };
    let facts = |details: ErrorDetails| {
        let info = details.error_info().cloned().unwrap();
        let metadata: BTreeMap<_, _> = info.metadata.into_iter().collect();
        format!("{} {} {metadata:?} {:?}", info.reason, info.domain, details.resource_info())
    };
    assert_eq!((call.code(), call.message()), (Code::from(inline.code), &*inline.message));
    assert_eq!(facts(call.get_error_details()), facts(status(inline).get_error_details()));
}

#[tokio::test]
async fn a_time_to_live_out_of_all_ranges_fails_in_its_place() {
    let server = Server::start().await;
    let ttl = Some(prost_types::Duration { seconds: i64::MIN, nanos: i32::MIN });
    let absurd = op(1, Op::Create(pb::CreateRequest { bucket: "a".to_owned(), ttl, idle_ttl: None }));
    let results = server.results(vec![absurd, create(2, "a")]).await;
    refused(&results[0], Code::InvalidArgument, "INVALID_OPTION");
    assert_eq!(error(&results[1]), None);
}

#[tokio::test]
async fn bucket_id_from_means_the_bucket_of_the_last_create_with_that_id() {
    let server = Server::start().await;
    let with_both = {
        let mut both = from(1, get(9, "a", "k"));
        *bucket_id(both.op.as_mut().unwrap()).unwrap() = Some(1);
        both
    };
    let results = server
        .results(vec![
            create(1, "a"),
            from(1, put(2, "a", "k")),
            stop(3, "a"),
            create(4, "a"),
            from(1, put(5, "a", "k")), // a namesake
            create(1, "a"),
            from(1, put(6, "a", "k")), // the last one with this id
            from(99, get(7, "a", "k")),
            from(1, lookup(8, "a")),
            with_both,
            create(10, ""),
            from(10, get(11, "a", "k")), // of a failed one
            from(1, create(1, "c")),
            from(1, get(12, "a", "k")),
        ])
        .await;

    let errors: Vec<_> = results.iter().map(|result| error(result).map(|(_, reason)| reason)).collect();
    let option = Some("INVALID_OPTION");
    assert_eq!(
        errors.iter().map(Option::as_deref).collect::<Vec<_>>(),
        [
            None,
            None,
            None,
            None,
            Some("BUCKET_NOT_FOUND"),
            None,
            None,
            option,
            option,
            option,
            Some("INVALID_NAME"),
            option,
            option,
            option
        ]
    );
}

#[tokio::test]
async fn bucket_id_from_refers_to_an_earlier_message_too() {
    let server = Server::start().await;
    let (requests, mut responses) = server.open().await;
    soon(requests.send(pb::PipelineRequest { ops: vec![create(1, "a")] })).await.unwrap();
    assert_eq!(ids(&soon(responses.message()).await.unwrap().unwrap().results), [1]);
    soon(requests.send(pb::PipelineRequest { ops: vec![from(1, put(2, "a", "k"))] })).await.unwrap();
    assert_eq!(error(&soon(responses.message()).await.unwrap().unwrap().results[0]), None);
}

#[test]
fn the_oldest_creates_are_forgotten_past_the_bound() {
    let mut creates = Creates::default();
    let bucket = Some(pb::Bucket { id: 5, ..Default::default() });
    let created = Answer::Create(pb::CreateResponse { bucket, ..Default::default() });
    for id in 0..=PIPELINE_CREATES_MAX {
        creates.note(u64::try_from(id).unwrap(), &created);
    }
    let mut op = get(0, "b", "k").op.unwrap();
    assert_eq!(creates.address(&mut op, 0).unwrap_err().reason(), Reason::InvalidOption);
    assert!(creates.address(&mut op, 1).is_ok());
    assert_eq!(bucket_id(&mut op), Some(&mut Some(5)));
}

#[tokio::test]
async fn a_message_with_too_many_ops_ends_the_stream_before_any_of_them_runs() {
    let server = Server::start().await;
    let puts = |count: usize| pb::PipelineRequest { ops: (0..count).map(|_| put(0, "b", "k")).collect() };
    let first = pb::PipelineRequest { ops: vec![create(1, "b")] };
    let (responses, end) = server.pipeline(vec![first, puts(OPS_MAX), puts(OPS_MAX + 1), puts(1)]).await;

    assert_eq!(flat(responses).len(), 1 + OPS_MAX, "what ran is answered");
    let end = end.unwrap_err();
    assert_eq!((end.code(), &*reason(&end)), (Code::InvalidArgument, "TOO_LARGE"));
    let metadata = end.get_details_error_info().unwrap().metadata;
    assert_eq!((&*metadata["limit"], &*metadata["actual"]), ("1024", "1025"));
    assert_eq!(server.version("b"), 1_024);
}

#[tokio::test]
async fn operations_within_transactions_count_too() {
    let server = Server::start().await;
    let transact = |count: usize| {
        let get = pb::TransactGet { key: "k".to_owned() };
        let get = pb::TransactOp { op: Some(pb::transact_op::Op::Get(get)) };
        let success = vec![get; count];
        op(0, Op::Transact(pb::TransactRequest { bucket: "b".to_owned(), success, ..Default::default() }))
    };
    let full = |count: usize| pb::PipelineRequest { ops: vec![transact(OPS_MAX - 1); count] };
    let first = pb::PipelineRequest { ops: vec![create(1, "b")] };
    let (responses, end) = server.pipeline(vec![first, full(16), full(17)]).await;

    assert_eq!(flat(responses).len(), 1 + 16);
    let end = end.unwrap_err();
    assert_eq!((end.code(), &*reason(&end)), (Code::InvalidArgument, "TOO_LARGE"));
}

#[tokio::test]
async fn ten_thousand_ops_are_all_answered_in_order_though_half_closed_and_packed() {
    let server = Server::start().await;
    server.results(vec![create(0, "b")]).await;
    let message = |chunk: u64| pb::PipelineRequest {
        ops: (chunk * 100..(chunk + 1) * 100).map(|id| put(id, "b", "k")).collect(),
    };
    let (responses, end) = server.pipeline((0..100).map(message).collect()).await;

    end.unwrap();
    assert!(responses.len() <= 200, "{} responses to 100 requests", responses.len());
    let results = flat(responses);
    assert_eq!(ids(&results), (0..10_000).collect::<Vec<_>>());
    assert!(results.iter().all(|result| error(result).is_none()));
    assert_eq!(server.version("b"), 10_000);
}

#[tokio::test]
async fn answers_larger_than_a_message_are_split_between_results() {
    let server = Server::start().await;
    let put = |id| put_data(id, "b", &format!("k{id}"), 900 << 10);
    server.results(vec![create(0, "b"), put(1), put(2), put(3), put(4)]).await;
    let scan = |id| op(id, Op::Scan(pb::ScanRequest { bucket: "b".to_owned(), ..Default::default() }));
    // 36 MB in all. The client refuses a message of more than 4 MiB.
    let (responses, end) = server.pipeline(vec![pb::PipelineRequest { ops: (0..10).map(scan).collect() }]).await;

    end.unwrap();
    assert!(responses.iter().all(|response| response.encoded_len() <= 4 << 20));
    let results = flat(responses);
    assert_eq!(ids(&results), (0..10).collect::<Vec<_>>());
    let entries =
        |result: &pb::PipelineResult| matches!(&result.result, Some(Answer::Scan(scan)) if scan.entries.len() == 4);
    assert!(results.iter().all(entries));
}

/// Leaves a trace in the bucket's version, and an answer of 64 KiB.
fn traced(id: u64) -> pb::PipelineRequest {
    pb::PipelineRequest { ops: vec![put(id, "b", "k"), get(id, "b", "large")] }
}

/// Waits until the windows are full: the same version at two looks, some time apart. And which it is.
async fn standstill(server: &Server) -> u64 {
    let mut before = 0;
    soon(async {
        loop {
            sleep(Duration::from_millis(300)).await;
            let version = server.version("b");
            if version > 1 && version == before {
                return version;
            }
            before = version;
        }
    })
    .await
}

#[tokio::test]
async fn a_client_that_sends_without_reading_is_held_back() {
    let server = Server::start().await;
    server.results(vec![create(0, "b"), put_data(0, "b", "large", 64 << 10)]).await;
    let (requests, responses) = server.open().await;
    let total: u64 = 40_000;
    let sender = tokio::spawn(async move {
        for id in 0..total {
            requests.send(traced(id)).await.unwrap();
        }
    });

    let stalled = standstill(&server).await;
    assert!(!sender.is_finished(), "the client is held back");
    // What the client's window takes (2 MiB), and a few in the server's buffer and in hand: 34 when this was written.
    assert!(stalled < 64, "{stalled} answers of 64 KiB while nobody reads");

    drop(responses);
    sender.abort();
}

#[tokio::test]
async fn what_was_held_back_is_all_answered_once_the_client_reads() {
    let server = Server::start().await;
    server.results(vec![create(0, "b"), put_data(0, "b", "large", 64 << 10)]).await;
    let (requests, responses) = server.open().await;
    let sender = tokio::spawn(async move {
        for id in 0..2_000 {
            requests.send(traced(id)).await.unwrap();
        }
    });
    assert!(standstill(&server).await < 2_000, "some are held back");
    let (responses, end) = read(responses).await;
    end.unwrap();
    soon(sender).await.unwrap();
    assert_eq!(ids(&flat(responses)), (0..2_000).flat_map(|id| [id, id]).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_pipeline_is_told_of_the_drain() {
    let mut server = Server::start().await;
    let (requests, mut responses) = server.open().await;
    soon(requests.send(pb::PipelineRequest { ops: vec![create(1, "a")] })).await.unwrap();
    assert!(soon(responses.message()).await.unwrap().is_some());
    // Quiet: nobody sends, nobody half-closes.
    server.stop.take().unwrap().send(()).unwrap();

    let end = soon(responses.message()).await.unwrap_err();
    assert_eq!((end.code(), &*reason(&end)), (Code::Unavailable, "DRAINING"));
    assert_eq!(timeout(Duration::from_secs(5), server.task).await.unwrap().unwrap(), Ended::Asked);
}

#[tokio::test]
async fn a_pipeline_is_a_long_stream() {
    let buckets = Buckets { streams: super::super::LongStreams::new(1, 1), ..Buckets::new(registry()) };
    let permit = buckets.streams.admit(&http::Extensions::new()).unwrap();
    let pipeline = PipelineStream::new(buckets.clone(), stream::empty(), standing(&buckets), permit);
    assert!(buckets.streams.admit(&http::Extensions::new()).is_err());
    drop(pipeline);
    assert!(buckets.streams.admit(&http::Extensions::new()).is_ok());
}

fn standing(buckets: &Buckets) -> Standing {
    buckets.standing(&http::Extensions::new(), Kind::Working).unwrap()
}

/// A stream over these requests, without a socket.
fn driven(
    buckets: &Buckets,
    requests: impl Stream<Item = Result<pb::PipelineRequest, Status>> + Unpin,
) -> PipelineStream<impl Stream<Item = Result<pb::PipelineRequest, Status>> + Unpin> {
    PipelineStream::new(
        buckets.clone(),
        requests,
        standing(buckets),
        buckets.streams.admit(&http::Extensions::new()).unwrap(),
    )
}

/// The next response; between slices it goes on at once.
fn next<S: Stream + Unpin>(pipeline: &mut S) -> Option<S::Item> {
    (0..1_000).find_map(|_| pipeline.next().now_or_never()).expect("the requests are there")
}

#[test]
fn many_ops_leave_others_their_turn() {
    let buckets = Buckets::new(registry());
    let ops: Vec<_> = (0..1_024).map(|id| get(id, "absent", "k")).collect();
    let empty = (0..10_000).map(|_| Ok(pb::PipelineRequest::default()));
    let requests = stream::iter([Ok(pb::PipelineRequest { ops })].into_iter().chain(empty));
    let mut pipeline = driven(&buckets, requests);

    let (mut turns, mut answers) = (0, 0);
    loop {
        match pipeline.next().now_or_never() {
            None => turns += 1,
            Some(Some(response)) => answers += response.unwrap().results.len(),
            Some(None) => break,
        }
    }
    assert_eq!(answers, 1_024);
    assert!(turns >= 11_000 / PIPELINE_SLICE, "{turns} turns");
}

#[test]
fn no_further_op_runs_while_a_response_waits() {
    let buckets = Buckets::new(registry());
    let large = |id| pb::PipelineRequest { ops: vec![put(id, "b", "k"), get(id, "b", "large")] };
    let first = pb::PipelineRequest { ops: vec![create(0, "b"), put_data(0, "b", "large", 40 << 10)] };
    let requests = stream::iter([first].into_iter().chain((1..100).map(large)).map(Ok));
    let mut pipeline = driven(&buckets, requests);
    let version = || {
        let request = pb::LookupRequest { bucket: "b".to_owned() };
        buckets.lookup_bucket(&Caller::anyone(), &request).unwrap().bucket.unwrap().version
    };

    let mut answered = 0;
    while let Some(response) = next(&mut pipeline) {
        answered += response.unwrap().results.len();
        // The one answer in hand is that of the last get.
        assert!(version() <= answered as u64 / 2 + 2, "{} puts for {answered} answers", version());
    }
    assert_eq!(answered, 200);
}

#[test]
fn an_error_of_the_request_stream_ends_it_after_the_answers() {
    let buckets = Buckets::new(registry());
    let requests = stream::iter([
        Ok(pb::PipelineRequest { ops: vec![create(1, "b")] }),
        Err(Failure::new(Reason::InvalidMessage, "broken").into()),
    ]);
    let mut pipeline = driven(&buckets, requests);
    assert_eq!(ids(&next(&mut pipeline).unwrap().unwrap().results), [1]);
    assert_eq!(reason(&next(&mut pipeline).unwrap().unwrap_err()), "INVALID_MESSAGE");
    assert!(next(&mut pipeline).is_none());
}

#[test]
fn in_a_drain_the_message_at_hand_is_answered_and_the_next_is_not_run() {
    let buckets = Buckets::new(registry());
    let message = |id, name: &str| Ok(pb::PipelineRequest { ops: vec![create(id, name)] });
    let large =
        Ok(pb::PipelineRequest { ops: vec![put_data(0, "a", "k", 64 << 10), get(2, "a", "k"), get(3, "a", "k")] });
    let mut pipeline = driven(&buckets, stream::iter([message(1, "a"), large, message(4, "b")]));
    let first = next(&mut pipeline).unwrap().unwrap();
    buckets.registry.drain();

    let mut answered = ids(&first.results);
    let end = loop {
        match next(&mut pipeline).unwrap() {
            Ok(response) => answered.extend(ids(&response.results)),
            Err(status) => break status,
        }
    };
    assert_eq!(answered, [1, 0, 2, 3]);
    assert_eq!(reason(&end), "DRAINING");
    assert!(buckets.lookup_bucket(&Caller::anyone(), &pb::LookupRequest { bucket: "b".to_owned() }).is_err());

    let mut done = driven(&buckets, stream::iter([]));
    assert!(next(&mut done).is_none(), "a client that has sent its last has its OK");
}
