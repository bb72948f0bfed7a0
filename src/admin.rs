//! What operators see on their port: the admin page, which reads the API by gRPC-Web, and metrics. No build step, and nothing of others'.

use std::sync::Arc;

use bytes::Bytes;

use crate::{
    metrics::{self, Metrics},
    server::web::{Page, Pages},
};

/// The pages, with these metrics.
#[must_use]
pub fn pages(metrics: Metrics) -> Pages {
    Arc::new(move |path| {
        let (kind, body) = match path {
            "/" => ("text/html; charset=utf-8", include_bytes!("admin/index.html").as_slice().into()),
            "/pail.css" => ("text/css; charset=utf-8", include_bytes!("admin/pail.css").as_slice().into()),
            "/pail.js" => ("text/javascript; charset=utf-8", include_bytes!("admin/pail.js").as_slice().into()),
            "/metrics" => (metrics::CONTENT_TYPE, Bytes::from(metrics.text())),
            _ => return None,
        };
        Some(Page { kind, body })
    })
}
