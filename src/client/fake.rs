//! A server small enough to read at a glance, for the client's tests: maps in memory, and a few names that misbehave.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::net::TcpListener;
use tokio_stream::{Stream, StreamExt as _, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

use super::Options;
use crate::{
    clock::{Clock, ManualClock},
    limits::Limits,
    pb::{
        bucket_service_server::{BucketService, BucketServiceServer},
        link_response as link, watch_response as watch, *,
    },
    registry::Registry,
    server,
    service::{
        status::{Failure, Reason},
        wire,
    },
};

type Answer<T> = Result<Response<T>, Status>;
type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Buckets = BTreeMap<String, (u64, BTreeMap<String, Entry>)>;

#[derive(Default)]
struct Fake(Mutex<Buckets>);

/// Starts one, and says how to reach it.
pub(super) async fn serve() -> Options {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string().parse().unwrap();
    let service = BucketServiceServer::new(Fake::default()).max_decoding_message_size(8 << 20);
    tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpListenerStream::new(listener)));
    Options { addr, ..Options::for_test() }
}

/// Starts the real one, for what a small one can't do. Its clock stands still at 2027-01-15T08:00:00Z.
pub(super) async fn serve_for_real() -> (Options, Arc<ManualClock>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string().parse().unwrap();
    let clock = Arc::new(ManualClock::default());
    let registry = Registry::start(Limits::default(), Arc::clone(&clock) as Arc<dyn Clock>, "r".to_owned());
    let options = server::Options::new(Limits::default(), Duration::ZERO);
    tokio::spawn(crate::serve::serve(listener, registry, options, std::future::pending()));
    (Options { addr, ..Options::for_test() }, clock)
}

impl Fake {
    fn lock(&self) -> MutexGuard<'_, Buckets> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn missing(reason: Reason, name: &str) -> Status {
    let kind = if reason == Reason::KeyNotFound { "key" } else { "bucket" };
    Failure::new(reason, format!("no {kind} {name:?}")).with(kind, name).into()
}

fn bucket(name: &str, (id, entries): &(u64, BTreeMap<String, Entry>)) -> Bucket {
    Bucket { name: name.into(), id: *id, entry_count: entries.len() as u64, ..Bucket::default() }
}

#[tonic::async_trait]
impl BucketService for Fake {
    type PipelineStream = Answers<PipelineResponse>;
    type WatchStream = Answers<wire::WatchResponse>;
    type LinkStream = Answers<LinkResponse>;

    async fn create(&self, request: Request<CreateRequest>) -> Answer<CreateResponse> {
        let name = request.into_inner().bucket;
        if name.is_empty() {
            return Err(Failure::new(Reason::InvalidName, "a name is 1 to 255 bytes").into());
        }
        let mut buckets = self.lock();
        let (created, id) = (!buckets.contains_key(&name), buckets.len() as u64 + 1);
        let it = buckets.entry(name.clone()).or_insert_with(|| (id, BTreeMap::new()));
        Ok(Response::new(CreateResponse { bucket: Some(bucket(&name, it)), created, revision: it.0 }))
    }

    async fn lookup(&self, request: Request<LookupRequest>) -> Answer<LookupResponse> {
        let name = request.into_inner().bucket;
        let buckets = self.lock();
        let it = buckets.get(&name).ok_or_else(|| missing(Reason::BucketNotFound, &name))?;
        Ok(Response::new(LookupResponse { bucket: Some(bucket(&name, it)) }))
    }

    /// Pages of two, so that there are some.
    async fn list(&self, request: Request<ListRequest>) -> Answer<ListResponse> {
        let request = request.into_inner();
        let buckets = self.lock();
        let from = buckets.range(request.page_token.clone()..).filter(|(name, _)| name.starts_with(&request.prefix));
        let mut from = from.map(|(name, it)| bucket(name, it));
        let page = from.by_ref().take(2).collect();
        let next_page_token = from.next().map(|bucket| bucket.name).unwrap_or_default();
        Ok(Response::new(ListResponse { buckets: page, next_page_token, revision: 1 }))
    }

    async fn stop(&self, request: Request<StopRequest>) -> Answer<StopResponse> {
        let name = request.into_inner().bucket;
        let (bucket_id, _) = self.lock().remove(&name).ok_or_else(|| missing(Reason::BucketNotFound, &name))?;
        Ok(Response::new(StopResponse { bucket_id, revision: 2 }))
    }

    async fn put(&self, request: Request<PutRequest>) -> Answer<PutResponse> {
        let PutRequest { bucket, key, value, expected_version, .. } = request.into_inner();
        let mut buckets = self.lock();
        let (bucket_id, entries) = buckets.get_mut(&bucket).ok_or_else(|| missing(Reason::BucketNotFound, &bucket))?;
        let actual = entries.get(&key).map_or(0, |entry| entry.version);
        if expected_version.is_some_and(|expected| expected != actual) {
            let failure = Failure::new(Reason::VersionMismatch, format!("the entry is at version {actual}"));
            return Err(failure.with("actual_version", actual).into());
        }
        let version = actual + 1;
        entries.insert(key.clone(), Entry { key, value, version, expire_time: None });
        Ok(Response::new(PutResponse { version, bucket_id: *bucket_id }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Answer<GetResponse> {
        let GetRequest { bucket, key, .. } = request.into_inner();
        match key.as_str() {
            "hang-up" => return Err(Status::unavailable("as a proxy says it")),
            "sleep" => std::future::pending().await,
            _ => {}
        }
        let buckets = self.lock();
        let (bucket_id, entries) = buckets.get(&bucket).ok_or_else(|| missing(Reason::BucketNotFound, &bucket))?;
        let entry = entries.get(&key).cloned().ok_or_else(|| missing(Reason::KeyNotFound, &key))?;
        Ok(Response::new(GetResponse { entry: Some(entry), bucket_id: *bucket_id }))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Answer<DeleteResponse> {
        let DeleteRequest { bucket, key, .. } = request.into_inner();
        let mut buckets = self.lock();
        let (bucket_id, entries) = buckets.get_mut(&bucket).ok_or_else(|| missing(Reason::BucketNotFound, &bucket))?;
        Ok(Response::new(DeleteResponse { entry: entries.remove(&key), version: 9, bucket_id: *bucket_id }))
    }

    /// One page.
    async fn scan(&self, request: Request<ScanRequest>) -> Answer<ScanResponse> {
        let ScanRequest { bucket, prefix, .. } = request.into_inner();
        let buckets = self.lock();
        let (bucket_id, entries) = buckets.get(&bucket).ok_or_else(|| missing(Reason::BucketNotFound, &bucket))?;
        let entries = entries.values().filter(|entry| entry.key.starts_with(&prefix)).cloned().collect();
        Ok(Response::new(ScanResponse { entries, bucket_id: *bucket_id, ..ScanResponse::default() }))
    }

    /// NOPROC for each name, and the end; for a prefix, one bucket and then the drain.
    async fn watch(&self, request: Request<WatchRequest>) -> Answer<Self::WatchStream> {
        let WatchRequest { buckets, prefix, .. } = request.into_inner();
        let answer = |response| Ok(WatchResponse { revision: 5, response: Some(response) }.into());
        let event = |event| Event { event: Some(event) };
        let started = watch::Response::Started(WatchStarted { registry_id: "r".into(), monitors: Vec::new() });
        let mut answers = vec![answer(started)];
        if let Some(bucket) = prefix {
            let created = CreatedEvent { bucket, bucket_id: 1, initial: true, ..CreatedEvent::default() };
            let events = vec![event(event::Event::Created(created))];
            answers.push(answer(watch::Response::Events(WatchEvents { events })));
            answers.push(answer(watch::Response::Draining(WatchDraining {})));
            answers.push(Err(Failure::new(Reason::Draining, "the server is draining").into()));
        } else {
            let downs = buckets.into_iter().map(|bucket| {
                let reason = crate::pb::Reason::Noproc.into();
                event(event::Event::Down(DownEvent { bucket, reason, ..DownEvent::default() }))
            });
            answers.push(answer(watch::Response::Events(WatchEvents { events: downs.collect() })));
            answers.push(answer(watch::Response::Synced(WatchSynced {})));
        }
        Ok(Response::new(Box::pin(tokio_stream::iter(answers))))
    }

    async fn add(&self, _: Request<AddRequest>) -> Answer<AddResponse> {
        Err(Status::unimplemented(""))
    }

    async fn touch(&self, _: Request<TouchRequest>) -> Answer<TouchResponse> {
        Err(Status::unimplemented(""))
    }

    async fn transact(&self, _: Request<TransactRequest>) -> Answer<TransactResponse> {
        Err(Status::unimplemented(""))
    }

    async fn pipeline(&self, _: Request<Streaming<PipelineRequest>>) -> Answer<Self::PipelineStream> {
        Err(Status::unimplemented(""))
    }

    /// Links to anything. It moves the first stream, and tells on the one that takes over what it was asked: the bucket
    /// ends with that as its detail. "stays" has no second stream.
    async fn link(&self, request: Request<Streaming<LinkRequest>>) -> Answer<Self::LinkStream> {
        let answer = |id, response| Ok(LinkResponse { id, response: Some(response) });
        let mut requests = request.into_inner();
        let (id, LinkBucket { bucket, bucket_id, link_id, .. }) = loop {
            match requests.message().await? {
                Some(LinkRequest { id, request: Some(link_request::Request::Link(link)) }) => break (id, link),
                Some(_) => {}
                None => return Err(Failure::new(Reason::InvalidOption, "nothing to link to").into()),
            }
        };
        let linked = Linked { bucket: bucket.clone(), bucket_id: 7, link_id: 3 };
        let linked = answer(id, link::Response::Linked(linked));
        let then = match link_id {
            None => vec![answer(0, link::Response::Moving(LinkMoving {}))],
            Some(_) if bucket == "stays" => return Err(Failure::new(Reason::Draining, "the server is draining").into()),
            Some(link_id) => {
                let detail = format!("the heir of link {link_id} to bucket {}", bucket_id.unwrap_or_default());
                let reason = crate::pb::Reason::Killed.into();
                vec![answer(0, link::Response::Exit(LinkExit { bucket, bucket_id: 7, reason, detail }))]
            }
        };
        // The first stream stays open, as it does until the server has told of all that has ended.
        let open = tokio_stream::pending();
        Ok(Response::new(Box::pin(tokio_stream::iter([linked]).chain(tokio_stream::iter(then)).chain(open))))
    }
}
