//! Generates from pail's proto the RPCs that are compared, and the two by which `pail bench` prepares and clears what it
//! measures; tonic answers the others with UNIMPLEMENTED.

const PROTO: &str = "../../proto";
const RPCS: [&str; 6] = ["Get", "Put", "Scan", "Watch", "Pipeline", "List"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed={PROTO}");
    let mut files = protox::compile(["pail/v1/pail.proto"], [PROTO])?;
    for service in files.file.iter_mut().flat_map(|file| &mut file.service) {
        service.method.retain(|method| RPCS.contains(&method.name()));
    }
    tonic_prost_build::configure()
        .build_client(false)
        .extern_path(".google.rpc.Status", "::tonic_types::Status")
        .compile_fds(files)?;
    Ok(())
}
