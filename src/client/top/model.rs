//! What is known of the server; nothing of terminals.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use crate::{client::metrics::Metrics, pb};

/// Deaths and rates that are kept.
const DOWNS_MAX: usize = 200;
const RATES_MAX: usize = 240;

const OF_PAIL: (&str, &str) = ("grpc_service", "pail.v1.BucketService");

#[derive(Debug)]
pub(super) struct Model {
    pub(super) server: String,
    pub(super) prefix: String,
    pub(super) now: Metrics,
    before: Option<(Metrics, Instant)>,
    passed: Duration,
    then: Metrics,
    /// Calls a second, the latest last.
    pub(super) rates: VecDeque<u64>,
    pub(super) buckets: Vec<pb::Bucket>,
    next: String,
    /// The tokens of the pages up to this one.
    tokens: Vec<String>,
    /// The latest first.
    pub(super) downs: VecDeque<pb::DownEvent>,
    pub(super) feed: String,
    /// Of a watch that is behind.
    pub(super) slowest_reader: Option<String>,
    pub(super) complaint: Option<String>,
}

/// The calls of a method since the last look.
#[derive(Debug, PartialEq)]
pub(super) struct Method {
    pub(super) name: String,
    pub(super) rate: f64,
    pub(super) in_flight: f64,
    /// The least bounds within which half of them were, and 99 of 100; in seconds.
    pub(super) p50: Option<f64>,
    pub(super) p99: Option<f64>,
}

impl Model {
    pub(super) fn new(server: String, prefix: String) -> Self {
        Self {
            server,
            prefix,
            now: Metrics::default(),
            before: None,
            passed: Duration::ZERO,
            then: Metrics::default(),
            rates: VecDeque::new(),
            buckets: Vec::new(),
            next: String::new(),
            tokens: vec![String::new()],
            downs: VecDeque::new(),
            feed: "not yet".to_owned(),
            slowest_reader: None,
            complaint: None,
        }
    }

    pub(super) fn measured(&mut self, metrics: Result<Metrics, String>, at: Instant) {
        match metrics {
            Err(words) => self.complaint = Some(words),
            Ok(now) => {
                self.complaint = None;
                (self.then, self.passed) = match self.before.take() {
                    Some((then, since)) => (then, at.duration_since(since)),
                    None => (now.clone(), Duration::ZERO),
                };
                self.before = Some((now.clone(), at));
                self.now = now;
                if self.passed > Duration::ZERO {
                    let calls: f64 = self.methods().iter().map(|method| method.rate).sum();
                    // A rate is no more than a picture shows.
                    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
                    self.rates.push_back(calls.round().max(0.0) as u64);
                    self.rates.drain(..self.rates.len().saturating_sub(RATES_MAX));
                }
            }
        }
    }

    /// A second's part of what a counter has counted, by a label.
    fn rate(&self, name: &str, label: &str, wanted: &[(&str, &str)]) -> BTreeMap<String, f64> {
        let then = self.then.by(name, label, wanted);
        let seconds = self.passed.as_secs_f64().max(1e-3);
        let rate = |(key, now): (String, f64)| {
            let before = then.get(&key).copied().unwrap_or_default();
            // One that is less is another server's.
            let more = if now < before { now } else { now - before };
            (key, more / seconds)
        };
        self.now.by(name, label, wanted).into_iter().map(rate).collect()
    }

    /// Those that were called, or are.
    pub(super) fn methods(&self) -> Vec<Method> {
        let rates = self.rate("grpc_server_handled_total", "grpc_method", &[OF_PAIL]);
        let in_flight = self.now.by("pail_calls_in_flight", "grpc_method", &[OF_PAIL]);
        let method = |(name, rate): (String, f64)| {
            let in_flight = in_flight.get(&name).copied().unwrap_or_default();
            let (p50, p99) = self.quantiles(&name);
            Method { name, rate, in_flight, p50, p99 }
        };
        rates.into_iter().map(method).filter(|method| method.rate > 0.0 || method.in_flight > 0.0).collect()
    }

    fn quantiles(&self, method: &str) -> (Option<f64>, Option<f64>) {
        let counts = self.rate("grpc_server_handling_seconds_bucket", "le", &[OF_PAIL, ("grpc_method", method)]);
        let bound = |text: &str| text.trim_start_matches('+').parse().unwrap_or(f64::INFINITY);
        let mut counts: Vec<(f64, f64)> = counts.iter().map(|(text, count)| (bound(text), *count)).collect();
        counts.sort_by(|one, other| one.0.total_cmp(&other.0));
        let all = counts.last().map_or(0.0, |(_, count)| *count);
        let within = |part: f64| counts.iter().find(|(_, count)| *count >= part * all).map(|(bound, _)| *bound);
        if all > 0.0 { (within(0.5), within(0.99)) } else { (None, None) }
    }

    /// Errors a second, by reason; those that there are.
    pub(super) fn errors(&self) -> BTreeMap<String, f64> {
        let mut errors = self.rate("pail_errors_total", "reason", &[]);
        errors.retain(|_, rate| *rate > 0.0);
        errors
    }

    pub(super) fn listed(&mut self, page: pb::ListResponse) {
        self.buckets = page.buckets;
        self.next = page.next_page_token;
    }

    /// The token of the page that is shown.
    pub(super) fn token(&self) -> String {
        self.tokens.last().cloned().unwrap_or_default()
    }

    pub(super) fn page(&self) -> usize {
        self.tokens.len()
    }

    pub(super) fn next_page(&mut self) {
        if !self.next.is_empty() {
            self.tokens.push(self.next.clone());
        }
    }

    pub(super) fn page_before(&mut self) {
        if self.tokens.len() > 1 {
            self.tokens.pop();
        }
    }

    pub(super) fn died(&mut self, downs: Vec<pb::DownEvent>) {
        for down in downs {
            self.downs.push_front(down);
        }
        self.downs.truncate(DOWNS_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many Gets that took up to 1 ms, and so many more that took longer.
    fn metrics(fast: u32, slow: u32) -> Metrics {
        let labels = "grpc_service=\"pail.v1.BucketService\",grpc_method=\"Get\"";
        let all = fast + slow;
        Metrics::parse(&format!(
            "grpc_server_handled_total{{{labels},grpc_code=\"OK\"}} {all}\n\
             grpc_server_handling_seconds_bucket{{le=\"0.001\",{labels}}} {fast}\n\
             grpc_server_handling_seconds_bucket{{le=\"+Inf\",{labels}}} {all}\n"
        ))
    }

    #[test]
    fn rates_and_latencies_are_those_since_the_last_look() {
        let mut model = Model::new("s".to_owned(), String::new());
        let begin = Instant::now();
        model.measured(Ok(metrics(1_000, 0)), begin);
        assert!(model.methods().is_empty(), "one look tells no rate");
        model.measured(Ok(metrics(1_098, 2)), begin + Duration::from_secs(2));
        let [get] = &*model.methods() else { panic!("{:?}", model.methods()) };
        assert_eq!((get.rate, get.p50, get.p99), (50.0, Some(0.001), Some(f64::INFINITY)));
        assert_eq!(model.rates, [50]);
        model.measured(Ok(metrics(10, 0)), begin + Duration::from_secs(3));
        assert_eq!(model.methods()[0].rate, 10.0, "a server that was started again began at 0");
    }

    #[test]
    fn pages_are_turned_as_far_as_there_are_some() {
        let mut model = Model::new("s".to_owned(), String::new());
        model.next_page();
        assert_eq!((model.page(), model.token()), (1, String::new()));
        model.listed(pb::ListResponse { next_page_token: "t".to_owned(), ..Default::default() });
        model.next_page();
        assert_eq!((model.page(), model.token()), (2, "t".to_owned()));
        model.page_before();
        model.page_before();
        assert_eq!(model.page(), 1);
    }
}
