//! What operators see on their port: the admin page, which reads the API by gRPC-Web, and metrics. No build step, and
//! nothing of others'.

use std::{cmp::Reverse, sync::Arc};

use bytes::Bytes;
use serde_json::{Value, json};

use crate::{
    metrics::{self, Metrics},
    registry::{Registry, Watcher},
    server::web::{Page, Pages},
};

/// Watches that are told of, the slowest first.
const WATCHES_MAX: usize = 20;

/// The pages, with these metrics of this registry.
#[must_use]
pub fn pages(registry: Registry, metrics: Metrics) -> Pages {
    Arc::new(move |path| {
        let (kind, body) = match path {
            "/" => ("text/html; charset=utf-8", include_bytes!("admin/index.html").as_slice().into()),
            "/pail.css" => ("text/css; charset=utf-8", include_bytes!("admin/pail.css").as_slice().into()),
            "/pail.js" => ("text/javascript; charset=utf-8", include_bytes!("admin/pail.js").as_slice().into()),
            "/watches.json" => ("application/json", Bytes::from(slowest(&registry))),
            "/metrics" => (metrics::CONTENT_TYPE, Bytes::from(metrics.text())),
            _ => return None,
        };
        Some(Page { kind, body })
    })
}

/// The slowest watches, as JSON: by how many events each is behind, and where its reader is. What they watch is not for
/// everyone who reaches this port.
fn slowest(registry: &Registry) -> String {
    let mut watchers = registry.watchers();
    watchers.sort_unstable_by_key(|watcher| Reverse(watcher.lag));
    let told = watchers.iter().take(WATCHES_MAX);
    told.map(|Watcher { peer, lag }| json!({ "behind": lag, "peer": peer.map(|peer| peer.to_string()) }))
        .collect::<Value>()
        .to_string()
}
