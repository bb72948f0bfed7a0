//! The contract over the core: one handler for each RPC, and each only checks, converts, calls the core and converts.
//!
//! It knows no socket. Every error of the core becomes a [`Failure`] here, and every [`Failure`] a status.

mod access;
pub mod allowance;
pub mod codec;
mod convert;
mod entries;
mod lifecycle;
mod link;
mod page;
mod pipeline;
pub mod status;
pub mod streams;
mod transact;
mod watch;
pub mod wire;

use std::sync::Arc;

use tonic::{Request, Response, Status, Streaming, async_trait};

pub use self::{link::LinkStream, pipeline::PipelineStream, watch::WatchStream};
use self::{
    link::Links,
    status::{Failure, Reason, quoted},
    streams::LongStreams,
};
use crate::{
    auth::Auth,
    name::{Invalid, Key},
    pb::{self, bucket_service_server::BucketService},
    registry::Registry,
    time_to_live::Due,
};

/// The service, over a registry.
#[derive(Clone, Debug)]
pub struct Buckets {
    registry: Registry,
    streams: LongStreams,
    links: Arc<Links>,
    /// Who may do what; `None` where anyone may do anything.
    auth: Option<Arc<Auth>>,
}

impl Buckets {
    /// Serves what is in `registry`, within its limits.
    #[must_use]
    pub fn new(registry: Registry) -> Self {
        let limits = registry.limits();
        let streams = LongStreams::new(limits.long_streams_max, limits.long_streams_total_max);
        Self { registry, streams, links: Arc::default(), auth: None }
    }

    /// Serves only whom these rules let, who are [identified](Auth::identify) before: a request of theirs has its
    /// [`Caller`](crate::auth::Caller) in its extensions.
    #[must_use]
    pub fn guarded_by(self, auth: Option<Arc<Auth>>) -> Self {
        Self { auth, ..self }
    }

    fn expire_time(&self, due: Due) -> Option<prost_types::Timestamp> {
        self.registry.wall(due).map(convert::timestamp)
    }

    fn key<'a>(&self, text: &'a str) -> Result<Key<'a>, Failure> {
        Key::parse(text, self.registry.limits()).map_err(|why| invalid(Reason::InvalidKey, "key", text, why))
    }

    /// What the items of a page may take: a message, less the token and the rest of it.
    fn page_bytes_max(&self) -> usize {
        let limits = self.registry.limits();
        limits.message_bytes_max.saturating_sub(4 * limits.key_bytes_max.max(limits.name_bytes_max) + 1_024)
    }
}

fn invalid(reason: Reason, field: &str, text: &str, why: Invalid) -> Failure {
    let failure = Failure::new(reason, format!("the {field} {} is refused: {why}", quoted(text))).field(field);
    match why {
        Invalid::Empty { max } => failure.limit(max, 0),
        Invalid::TooLong { max, actual } => failure.limit(max, actual),
        Invalid::Control { .. } => failure,
    }
}

fn answer<T>(answer: Result<T, Failure>) -> Result<Response<T>, Status> {
    Ok(Response::new(answer?))
}

#[async_trait]
impl BucketService for Buckets {
    type PipelineStream = PipelineStream;
    type WatchStream = WatchStream;
    type LinkStream = LinkStream<Streaming<pb::LinkRequest>>;

    async fn create(&self, request: Request<pb::CreateRequest>) -> Result<Response<pb::CreateResponse>, Status> {
        let caller = self.caller(request.extensions())?;
        answer(self.create_bucket(&caller, request.get_ref()))
    }

    async fn lookup(&self, request: Request<pb::LookupRequest>) -> Result<Response<pb::LookupResponse>, Status> {
        let caller = self.caller(request.extensions())?;
        answer(self.lookup_bucket(&caller, request.get_ref()))
    }

    async fn list(&self, request: Request<pb::ListRequest>) -> Result<Response<pb::ListResponse>, Status> {
        let caller = self.caller(request.extensions())?;
        answer(self.list_buckets(&caller, request.get_ref()))
    }

    async fn stop(&self, request: Request<pb::StopRequest>) -> Result<Response<pb::StopResponse>, Status> {
        let caller = self.caller(request.extensions())?;
        answer(self.stop_bucket(&caller, request.get_ref()))
    }

    async fn put(&self, request: Request<pb::PutRequest>) -> Result<Response<pb::PutResponse>, Status> {
        let caller = self.caller(request.extensions())?;
        answer(self.put_entry(&caller, request.into_inner()))
    }

    async fn get(&self, request: Request<pb::GetRequest>) -> Result<Response<pb::GetResponse>, Status> {
        let caller = self.caller(request.extensions())?;
        answer(self.get_entry(&caller, request.into_inner()))
    }

    async fn delete(&self, request: Request<pb::DeleteRequest>) -> Result<Response<pb::DeleteResponse>, Status> {
        let caller = self.caller(request.extensions())?;
        answer(self.delete_entry(&caller, request.get_ref()))
    }

    async fn add(&self, request: Request<pb::AddRequest>) -> Result<Response<pb::AddResponse>, Status> {
        let caller = self.caller(request.extensions())?;
        answer(self.add_to_entry(&caller, request.get_ref()))
    }

    async fn touch(&self, request: Request<pb::TouchRequest>) -> Result<Response<pb::TouchResponse>, Status> {
        let caller = self.caller(request.extensions())?;
        answer(self.touch_entry(&caller, request.get_ref()))
    }

    async fn scan(&self, request: Request<pb::ScanRequest>) -> Result<Response<pb::ScanResponse>, Status> {
        let caller = self.caller(request.extensions())?;
        answer(self.scan_entries(&caller, request.get_ref()))
    }

    async fn transact(&self, request: Request<pb::TransactRequest>) -> Result<Response<pb::TransactResponse>, Status> {
        let caller = self.caller(request.extensions())?;
        answer(self.transact_entries(&caller, request.get_ref()))
    }

    async fn pipeline(
        &self,
        request: Request<Streaming<pb::PipelineRequest>>,
    ) -> Result<Response<PipelineStream>, Status> {
        answer(self.pipeline_ops(request))
    }

    async fn watch(&self, request: Request<pb::WatchRequest>) -> Result<Response<WatchStream>, Status> {
        answer(self.watch_buckets(request.get_ref(), request.extensions()))
    }

    async fn link(&self, request: Request<Streaming<pb::LinkRequest>>) -> Result<Response<Self::LinkStream>, Status> {
        let (_, extensions, requests) = request.into_parts();
        answer(self.link_buckets(requests, &extensions))
    }
}
