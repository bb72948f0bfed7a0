//! pail: named buckets of state over gRPC.

#[cfg(not(panic = "unwind"))]
compile_error!("a panic ends one bucket, not the server: build with `panic = \"unwind\"`");

pub mod bucket;
pub mod budget;
pub mod client;
pub mod clock;
pub mod config;
#[cfg(any(test, feature = "test-hooks"))]
pub mod hooks;
pub mod limits;
pub mod link;
pub mod name;
pub mod process;
pub mod registry;
pub mod serve;
pub mod server;
pub mod service;
pub mod signals;
pub mod telemetry;
pub mod time_to_live;
pub mod value;
pub mod watch;

/// What tonic and prost generate from `proto/`.
#[allow(missing_docs, unreachable_pub, missing_debug_implementations, clippy::all, clippy::pedantic)]
pub mod pb {
    tonic::include_proto!("pail.v1");

    /// Everything in `proto/` with its imports, as reflection serves it.
    pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pail_descriptor.bin"));

    pub mod health {
        tonic::include_proto!("grpc.health.v1");
    }
}
