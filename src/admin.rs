//! What operators see on their port: the admin page, which reads the API by gRPC-Web, and metrics. No build step, and
//! nothing of others'.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    metrics::{self, Metrics},
    registry::Registry,
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

/// By how many events the slowest watches are behind, as JSON. They have no names.
fn slowest(registry: &Registry) -> String {
    let mut lags = registry.lags();
    lags.sort_unstable_by(|one, other| other.cmp(one));
    lags.truncate(WATCHES_MAX);
    serde_json::Value::from(lags).to_string()
}
