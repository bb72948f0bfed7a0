//! pail: named buckets of state over gRPC.

pub mod client;
pub mod limits;
pub mod service;

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
