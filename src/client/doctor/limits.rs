//! What is nearly full, as the server's metrics tell.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::timeout;

use super::{Looked, note, ok};

/// A part of a limit that is worth a word.
const FULL: f64 = 0.8;

pub(super) async fn full(admin: &Uri, patience: Duration) -> Looked {
    let metrics =
        timeout(patience, metrics(admin)).await.map_err(|_| format!("{admin} did not answer in {patience:?}"))?;
    judge(&metrics?)
}

/// The server's metrics without labels.
pub(in crate::client) async fn metrics(admin: &Uri) -> Result<BTreeMap<String, f64>, String> {
    let uri: Uri = format!("{}/metrics", admin.to_string().trim_end_matches('/'))
        .parse()
        .map_err(|error| format!("--admin {admin}: {error}"))?;
    let client = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(HttpConnector::new());
    let wrong = |error: &dyn std::fmt::Display| format!("{admin}: {error}: is it the port of 'pail serve --admin'?");
    let response = client.get(uri).await.map_err(|error| wrong(&error))?;
    let body = response.into_body().collect().await.map_err(|error| wrong(&error))?.to_bytes();
    let text = String::from_utf8_lossy(&body);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let pairs =
        lines.filter_map(|line| line.split_once(' ').and_then(|(name, value)| Some((name, value.parse().ok()?))));
    Ok(pairs.map(|(name, value)| (name.to_owned(), value)).collect())
}

fn judge(metrics: &BTreeMap<String, f64>) -> Looked {
    let pairs = metrics.iter().filter_map(|(name, max)| {
        let what = name.strip_suffix("_max").or_else(|| name.strip_suffix("max_fds").map(|_| "process_open_fds"))?;
        Some((what, metrics.get(what)? / max))
    });
    let parts: Vec<(&str, f64)> = pairs.filter(|(_, part)| part.is_finite()).collect();
    if parts.is_empty() {
        return Err("there are no metrics of pail's: is it the port of 'pail serve --admin'?".to_owned());
    }
    let full = parts.iter().filter(|(_, part)| *part >= FULL);
    let full: Vec<String> = full.map(|(what, part)| format!("{what} is at {:.0} %", part * 100.0)).collect();
    if full.is_empty() {
        return ok(format!("all {} are below {:.0} %", parts.len(), FULL * 100.0));
    }
    note(format!("{}: raise the limit, or find out who fills it", full.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_nearly_full_is_named() {
        let metrics = |buckets: f64| {
            let pairs = [
                ("pail_buckets", buckets),
                ("pail_buckets_max", 10.0),
                ("process_open_fds", 1.0),
                ("process_max_fds", 4.0),
            ];
            pairs.map(|(name, value)| (name.to_owned(), value)).into_iter().collect()
        };
        assert_eq!(judge(&metrics(1.0)), ok("all 2 are below 80 %"));
        let (verdict, words) = judge(&metrics(9.0)).unwrap();
        assert_eq!(verdict, super::super::Verdict::Note);
        assert!(words.starts_with("pail_buckets is at 90 %"), "{words}");
        judge(&BTreeMap::new()).unwrap_err();
    }
}
