//! A server's metrics, as its port for operators tells them.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use http::Uri;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde::Deserialize;
use tokio::time::timeout;

/// What was told at one time.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics(BTreeMap<String, Vec<(Labels, f64)>>);

type Labels = BTreeMap<String, String>;

impl Metrics {
    /// Asks for them; an error is in words.
    pub(super) async fn ask(admin: &Uri, patience: Duration) -> Result<Self, String> {
        Ok(Self::parse(&asked(admin, "metrics", patience).await?))
    }

    pub(super) fn parse(text: &str) -> Self {
        let mut metrics = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((name, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse() else { continue };
            let (name, labels) = name.split_once('{').unwrap_or((name, ""));
            // No label of pail's has a quote or a comma in its value.
            let pairs = labels.trim_end_matches('}').split(',').filter_map(|pair| pair.split_once('='));
            let labels = pairs.map(|(key, value)| (key.to_owned(), value.trim_matches('"').to_owned())).collect();
            metrics.0.entry(name.to_owned()).or_default().push((labels, value));
        }
        metrics
    }

    /// One that has no labels.
    pub(super) fn get(&self, name: &str) -> Option<f64> {
        self.0.get(name)?.iter().find(|(labels, _)| labels.is_empty()).map(|(_, value)| *value)
    }

    /// A label of one that there is one of.
    pub(super) fn label(&self, name: &str, label: &str) -> Option<&str> {
        self.0.get(name)?.first()?.0.get(label).map(String::as_str)
    }

    /// Its sums by the value of a label, where the others are as wanted.
    pub(super) fn by(&self, name: &str, label: &str, wanted: &[(&str, &str)]) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for (labels, value) in self.0.get(name).into_iter().flatten() {
            let is_wanted = wanted.iter().all(|(key, value)| labels.get(*key).is_some_and(|there| there == value));
            if let (true, Some(key)) = (is_wanted, labels.get(label)) {
                *sums.entry(key.clone()).or_default() += value;
            }
        }
        sums
    }

    /// What there is at most, with how much of it there is: the name, that, and the most.
    pub(super) fn limits(&self) -> Vec<(&str, f64, f64)> {
        let of = |name: &'static str, max: &'static str| Some((name, self.get(name)?, self.get(max)?));
        let pairs = self.0.keys().filter_map(|max| {
            let name = max.strip_suffix("_max")?;
            Some((name, self.get(name)?, self.get(max)?))
        });
        pairs.chain(of("process_open_fds", "process_max_fds")).collect()
    }
}

/// Where the slowest watch is read, if that is known; an error is in words.
pub(super) async fn slowest_reader(admin: &Uri, patience: Duration) -> Result<Option<String>, String> {
    let text = asked(admin, "watches.json", patience).await?;
    reader_of_first(&text).map_err(|error| format!("{admin}/watches.json: {error}"))
}

/// Where the first of these watches is read, if it is behind.
fn reader_of_first(text: &str) -> serde_json::Result<Option<String>> {
    let watches: Vec<Watch> = serde_json::from_str(text)?;
    Ok(watches.into_iter().next().filter(|slowest| slowest.behind > 0).and_then(|slowest| slowest.peer))
}

/// One of the slowest watches, as they are told in order.
#[derive(Deserialize)]
struct Watch {
    behind: u64,
    peer: Option<String>,
}

async fn asked(admin: &Uri, page: &str, patience: Duration) -> Result<String, String> {
    timeout(patience, get(admin, page)).await.map_err(|_| format!("{admin} did not answer in {patience:?}"))?
}

async fn get(admin: &Uri, page: &str) -> Result<String, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("{admin}: {error}: is it the port of 'pail serve --admin'?");
    let uri: Uri =
        format!("{}/{page}", admin.to_string().trim_end_matches('/')).parse().map_err(|error| wrong(&error))?;
    let client = Client::builder(TokioExecutor::new()).build::<_, Empty<Bytes>>(HttpConnector::new());
    let response = client.get(uri).await.map_err(|error| wrong(&error))?;
    let body = response.into_body().collect().await.map_err(|error| wrong(&error))?.to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slowest_reader_is_the_first_if_it_is_behind() {
        let read = |text| reader_of_first(text).unwrap();
        let slow = r#"[{"behind":3,"peer":"10.0.0.7:5123"},{"behind":0,"peer":"10.0.0.8:5123"}]"#;
        assert_eq!(read(slow).as_deref(), Some("10.0.0.7:5123"));
        for nobody in ["[]", r#"[{"behind":0,"peer":"10.0.0.7:5123"}]"#, r#"[{"behind":3,"peer":null}]"#] {
            assert_eq!(read(nobody), None, "{nobody}");
        }
        assert!(reader_of_first("<html>").is_err());
    }

    #[test]
    fn metrics_are_read_with_their_labels() {
        let metrics = Metrics::parse(
            "# TYPE a gauge\na 1\na_max 4\ninfo{version=\"1\"} 1\nb_total{m=\"x\",c=\"1\"} 2\nb_total{m=\"x\",c=\"2\"} 3\nb_total{m=\"y\",c=\"1\"} 5\nno number\n",
        );
        assert_eq!((metrics.get("a"), metrics.get("b_total")), (Some(1.0), None));
        assert_eq!(metrics.label("info", "version"), Some("1"));
        assert_eq!(metrics.by("b_total", "m", &[]).into_values().collect::<Vec<_>>(), [5.0, 5.0]);
        assert_eq!(metrics.by("b_total", "m", &[("c", "1")])["x"], 2.0);
        assert_eq!(metrics.limits(), [("a", 1.0, 4.0)]);
    }
}
