//! Compiles the protos with protox, so that nobody needs a protoc.

use std::{env, fs, path::PathBuf};

use prost_build as _; // the compiler behind tonic-prost-build; named for its version
use protox::prost::Message as _;

const PROTOS: [&str; 3] = ["pail/v1/pail.proto", "grpc/health/v1/health.proto", "google/rpc/error_details.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(PROTOS, ["proto"])?;

    // Reflection serves this set: every import is in it, or clients say "file not found".
    let set = PathBuf::from(env::var("OUT_DIR")?).join("pail_descriptor.bin");
    fs::write(set, files.encode_to_vec())?;

    let configured = || {
        tonic_prost_build::configure()
            .extern_path(".google.rpc.Status", "::tonic_types::Status")
            .codec_path("crate::service::codec::Codec")
    };
    configured().build_server(false).compile_fds(files.clone())?;

    // The server's half has the same messages, but for one that it writes in its own way.
    let servers = PathBuf::from(env::var("OUT_DIR")?).join("servers");
    fs::create_dir_all(&servers)?;
    configured()
        .build_client(false)
        .extern_path(".pail.v1", "crate::pb")
        .extern_path(".pail.v1.WatchResponse", "crate::service::wire::WatchResponse")
        .extern_path(".grpc.health.v1", "crate::pb::health")
        .out_dir(servers)
        .compile_fds(files)?;
    Ok(())
}
