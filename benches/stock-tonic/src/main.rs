//! A stock tonic server: `tonic::transport::Server` with its defaults, on tokio's default runtime, with pail's contract
//! and handlers that do nothing.
//!
//! ```sh
//! stock-tonic [VALUE_BYTES [SCAN_US]]
//! ```
//!
//! Get answers with one and the same entry, whose value has so many bytes (64 where it isn't said); Put with one and
//! the same version; Scan with nothing, after it has kept a processor busy for so many microseconds (none); Watch says that it has synced and then nothing, for ever. So it is as large on the wire as pail,
//! and what it costs is gRPC alone. Pipeline says that each Create was done, whatever was asked, and List that there is
//! nothing: so that `pail bench` can have its way before and after. It listens on a free port, prints its address, and
//! serves until SIGINT, and then as long as tonic takes to end.

use std::{
    error::Error,
    hint,
    pin::Pin,
    time::{Duration, Instant},
};

use tokio_stream::{Stream, StreamExt as _};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, server::TcpIncoming},
};

use self::pb::{
    CreateResponse, Entry, GetRequest, GetResponse, ListRequest, ListResponse, PipelineRequest, PipelineResponse,
    PipelineResult, PutRequest, PutResponse, ScanRequest, ScanResponse, Value, WatchRequest, WatchResponse,
    WatchSynced,
    bucket_service_server::{BucketService, BucketServiceServer},
    pipeline_result,
    value::Kind,
    watch_response,
};

#[allow(clippy::all, dead_code)] // generated, for more than is compared
mod pb {
    tonic::include_proto!("pail.v1");
}

/// As long on the wire as an id of pail's.
const BUCKET_ID: u64 = 1_764_000_000_000_001;

struct Empty {
    entry: Entry,
    scan: Duration,
}

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl BucketService for Empty {
    type WatchStream = Responses<WatchResponse>;
    type PipelineStream = Responses<PipelineResponse>;

    async fn get(&self, _: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        Ok(Response::new(GetResponse { entry: Some(self.entry.clone()), bucket_id: BUCKET_ID }))
    }

    async fn put(&self, _: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        Ok(Response::new(PutResponse { version: 1, bucket_id: BUCKET_ID }))
    }

    async fn scan(&self, _: Request<ScanRequest>) -> Result<Response<ScanResponse>, Status> {
        let end = Instant::now() + self.scan;
        while Instant::now() < end {
            hint::spin_loop();
        }
        Ok(Response::new(ScanResponse::default()))
    }

    async fn watch(&self, _: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let synced = watch_response::Response::Synced(WatchSynced {});
        let first = WatchResponse { revision: BUCKET_ID, response: Some(synced) };
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(first)).chain(tokio_stream::pending()))))
    }

    async fn pipeline(
        &self,
        requests: Request<Streaming<PipelineRequest>>,
    ) -> Result<Response<Self::PipelineStream>, Status> {
        let done = |id| PipelineResult { id, result: Some(pipeline_result::Result::Create(CreateResponse::default())) };
        let responses = requests.into_inner().map(move |request| {
            Ok(PipelineResponse { results: request?.ops.into_iter().map(|op| done(op.id)).collect() })
        });
        Ok(Response::new(Box::pin(responses)))
    }

    async fn list(&self, _: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        Ok(Response::new(ListResponse::default()))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let value_bytes = arguments.next().map_or(Ok(64), |bytes| bytes.parse())?;
    let scan = Duration::from_micros(arguments.next().map_or(Ok(0), |micros| micros.parse())?);
    let value = Value { kind: Some(Kind::Text("x".repeat(value_bytes))) };
    let entry = Entry { key: format!("key{value_bytes}"), value: Some(value), version: 1, expire_time: None };

    let listener = TcpIncoming::bind(([127, 0, 0, 1], 0).into())?.with_nodelay(Some(true)); // as Server::serve does
    println!("{}", listener.local_addr()?);
    let service = BucketServiceServer::new(Empty { entry, scan });
    let told = async { drop(tokio::signal::ctrl_c().await) };
    Server::builder().add_service(service).serve_with_incoming_shutdown(listener, told).await?;
    Ok(())
}
