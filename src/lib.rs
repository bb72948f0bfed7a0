//! pail keeps named *buckets* of state and tells, over plain gRPC, when one is gone and why. It is what Erlang's registry,
//! processes, monitors and links are to Erlang, for programs in any language.
//!
//! ```text
//! client    the same binary's other half: commands and a shell
//! server    sockets, calls, health, reflection, drain          knows no bucket
//! service   one handler for each RPC: proto ⇄ core, errors     knows no socket
//! watch     monitors and history → one stream of events
//! registry  names → buckets, lifecycle history, monitors
//! bucket    entries, versions, times to live
//! process   GenServer: call, cast, info; monitors, links       knows no gRPC, no runtime
//! ```
//!
//! Each layer uses those below it and none above; `ARCHITECTURE.md` has the rules. [`serve`] puts them together. Without a
//! socket they do as well:
//!
//! ```
//! use std::sync::Arc;
//! use futures_util::{FutureExt as _, StreamExt as _};
//! use pail::{
//!     bucket::{Begin, Get, Put},
//!     clock::SystemClock,
//!     limits::Limits,
//!     name::{BucketName, Key},
//!     process::{Exit, Reason},
//!     registry::{Registry, Target},
//!     value::Value,
//!     watch::{Initial, Kinds, NoticeKind, Update, Watch},
//! };
//!
//! let limits = Limits::default();
//! let registry = Registry::start(limits.clone(), Arc::new(SystemClock::default()), "example".to_owned());
//! let shopping = Target { name: BucketName::parse("shopping", &limits)?, id: None };
//! let milk = Key::parse("milk", &limits)?;
//!
//! registry.create(shopping.name, Begin { ttl: None, idle_ttl: None })?;
//! registry.ask(shopping, Put { key: milk, value: Value::Integer(1), ttl: None, expected: None })?;
//! assert_eq!(registry.ask(shopping, Get { key: milk })?.1.version.0, 1);
//!
//! let kinds = Kinds { created: true, down: true, entries: None };
//! let watch = Watch::names(registry.clone(), &[shopping], kinds, Initial::Sent)?;
//! registry.stop(shopping, &Exit::new(Reason::Killed, "enough milk"))?;
//! registry.deliver(); // a server does that all the time: see `Registry::run`
//!
//! let told = watch.filter_map(|response| async { response.ok() }).collect::<Vec<_>>().now_or_never();
//! let Update::Events(events) = &told.expect("its one monitor has fired")[2].update else { panic!("no event") };
//! assert!(matches!(&events[0].kind, NoticeKind::Happened(event) if event.exit().unwrap().detail() == "enough milk"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#[cfg(not(panic = "unwind"))]
compile_error!("a panic ends one bucket, not the server: build with `panic = \"unwind\"`");

pub mod admin;
pub mod auth;
pub mod bucket;
pub mod budget;
pub mod client;
pub mod clock;
pub mod config;
pub mod followed;
mod frame;
#[cfg(any(test, feature = "test-hooks"))]
pub mod hooks;
pub mod limits;
pub mod link;
pub mod memory;
pub mod metrics;
pub mod name;
#[allow(dead_code)] // each is used where a harness looks for it
pub mod planted;
pub mod process;
pub mod registry;
pub mod serve;
pub mod server;
pub mod service;
pub mod signals;
mod sync;
pub mod systemd;
pub mod telemetry;
pub mod time_to_live;
pub mod tls;
pub mod traces;
pub mod value;
pub mod watch;

/// What tonic and prost generate from `proto/`: the contract, and gRPC's own health.
#[allow(missing_docs, unreachable_pub, missing_debug_implementations, clippy::all, clippy::pedantic)]
pub mod pb {
    tonic::include_proto!("pail.v1");
    include!(concat!(env!("OUT_DIR"), "/servers/pail.v1.rs"));

    /// Everything in `proto/` with its imports, as reflection serves it.
    pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/pail_descriptor.bin"));

    pub mod health {
        tonic::include_proto!("grpc.health.v1");
        include!(concat!(env!("OUT_DIR"), "/servers/grpc.health.v1.rs"));
    }
}
