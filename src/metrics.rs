//! What an operator's Prometheus asks for: what the registry and the server hold and have done, in the text form of
//! `OpenMetrics`.
//!
//! The names of calls are those of go-grpc-prometheus, which dashboards know; the process's are those of every
//! exporter. No label has a value of a client's.

use std::{
    fmt, fs,
    sync::Arc,
    time::{Duration, SystemTime},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeGaugeValue, EncodeLabelSet, text},
    metrics::MetricType,
    registry::Registry as Exposition,
};
use tonic::Code;

use crate::{
    followed::Followed,
    memory,
    registry::{Figures, Registry},
    server::meter::{Calls, Meter, Reading},
    service::{status, streams},
    tls::Tls,
};

/// What [`Metrics::text`] is.
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All that there is to ask.
#[derive(Debug)]
pub struct Metrics(Exposition);

impl Metrics {
    /// Those of a registry and of the server over it.
    #[must_use]
    pub fn new(registry: Registry, meter: Arc<Meter>, tls: Option<Arc<Followed<Tls>>>) -> Self {
        let mut exposition = Exposition::default();
        exposition.register_collector(Box::new(Sources { registry, meter, tls, started: SystemTime::now() }));
        Self(exposition)
    }

    /// As they are now.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // To write into memory does not fail.
        text::encode(&mut text, &self.0).unwrap_or_default();
        text
    }
}

struct Sources {
    registry: Registry,
    meter: Arc<Meter>,
    tls: Option<Arc<Followed<Tls>>>,
    started: SystemTime,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sources")
    }
}

impl Collector for Sources {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page(encoder);
        page.info("pail_build", "Which pail this is", &[("version", env!("CARGO_PKG_VERSION"))])?;
        self.registry(&mut page)?;
        let reading = self.meter.read();
        self.server(&mut page, &reading)?;
        calls(&mut page, &reading.calls)?;
        let said = status::Reason::ALL.map(|reason| ([("reason", reason.name())], reason.count()));
        page.counters("pail_errors", "Errors that clients were told, by reason, those within a Pipeline too", said)?;
        process(&mut page, self.started)
    }
}

impl Sources {
    fn registry(&self, page: &mut Page<'_>) -> fmt::Result {
        let limits = self.registry.limits();
        let Figures { buckets, entries, charged_bytes, watchers, lag, monitors, ring_bytes, log } =
            self.registry.figures();
        page.gauge("pail_buckets", "Living buckets", buckets)?;
        page.gauge("pail_buckets_max", "Buckets that may live: buckets-max", limits.buckets_max)?;
        page.gauge("pail_entries", "Entries of all buckets", entries)?;
        page.gauge("pail_charged_bytes", "Bytes that buckets are charged for", charged_bytes)?;
        page.gauge(
            "pail_charged_bytes_max",
            "Bytes they may be charged for: memory-bytes-max",
            limits.memory_bytes_max,
        )?;
        page.gauge("pail_resident_bytes", "Bytes that the process has in memory", memory::resident())?;
        page.gauge(
            "pail_resident_bytes_max",
            "Those that it may have while more is put: resident-bytes-max",
            limits.resident_bytes_max,
        )?;
        page.gauge("pail_allocator_bytes", "Bytes that the allocator has ready, in use or not", memory::allocator())?;
        page.counters("pail_buckets_created", "Buckets that were created", [(NO_LABELS, log.created)])?;
        let down = log.down.map(|(reason, count)| (reason.to_string(), count));
        let down = down.iter().map(|(reason, count)| ([("reason", reason.as_str())], *count));
        page.counters("pail_buckets_down", "Buckets that are down, by reason", down)?;
        page.gauge("pail_watchers", "Watches of lifecycle events", watchers)?;
        page.gauge("pail_watch_lag_events", "By how many revisions the slowest watch is behind", lag)?;
        page.gauge("pail_monitors", "Monitors that wait for a death", monitors)?;
        page.gauge("pail_history_events", "Lifecycle events that are kept", log.kept)?;
        page.gauge("pail_history_events_max", "Those that may be: history-events-max", limits.history_events_max)?;
        page.gauge("pail_history_bytes", "Bytes of the lifecycle events that are kept", log.kept_bytes)?;
        page.gauge("pail_history_bytes_max", "Those that may be: history-bytes-max", limits.history_bytes_max)?;
        page.gauge("pail_ring_bytes", "Bytes of changes that are kept for watches of entries", ring_bytes)?;
        page.gauge("pail_ring_bytes_max", "Those that may be: ring-bytes-max", limits.ring_bytes_max)
    }

    fn server(&self, page: &mut Page<'_>, reading: &Reading) -> fmt::Result {
        let limits = self.registry.limits();
        let streams = reading.calls.iter().filter(|calls| is_counted_stream(&calls.path)).map(Calls::in_flight);
        page.gauge("pail_connections", "Connections that are open", reading.connections)?;
        page.gauge("pail_connections_max", "Those that may be: connections-max", limits.connections_max)?;
        page.counters("pail_connections_accepted", "Connections that there were", [(NO_LABELS, reading.accepted)])?;
        let ended = reading.ended.map(|(cause, count)| ([("cause", cause)], count));
        page.counters("pail_connections_ended", "Connections that have ended, by cause", ended)?;
        page.gauge("pail_long_streams", "Watch, Link and Pipeline streams", streams.sum::<u64>())?;
        page.gauge(
            "pail_long_streams_max",
            "Those that may be: long-streams-total-max",
            limits.long_streams_total_max,
        )?;
        page.gauge("pail_undecoded_bytes", "Bytes of requests that are not whole", reading.undecoded_bytes)?;
        page.gauge("pail_undecoded_bytes_max", "Those that may be: undecoded-bytes-max", limits.undecoded_bytes_max)?;
        page.gauge("pail_untaken_bytes", "Bytes of large answers that clients have not taken", reading.untaken_bytes)?;
        page.gauge("pail_untaken_bytes_max", "Those that may be: untaken-bytes-max", limits.untaken_bytes_max)?;
        page.gauge("pail_draining", "Whether the server drains", u64::from(self.registry.is_draining()))?;
        if let Some(expires) = self.tls.as_ref().and_then(|tls| tls.get().expires) {
            let help = "When the first of the server's certificates expires, since 1970";
            page.gauge("pail_tls_certificate_expires_seconds", help, since_1970(expires))?;
        }
        Ok(())
    }
}

/// Whether it is one of those that there may be so many of.
fn is_counted_stream(path: &str) -> bool {
    streams::is_long(path) && path.starts_with("/pail.")
}

const NO_LABELS: [(&str, &str); 0] = [];

fn calls(page: &mut Page<'_>, calls: &[Calls]) -> fmt::Result {
    let labels = |calls: &Calls| {
        let (service, method) = calls.path.trim_start_matches('/').split_once('/').unwrap_or_default();
        let kind = match (streams::is_long(&calls.path), streams::takes_many(&calls.path)) {
            (false, _) => "unary",
            (true, false) => "server_stream",
            (true, true) => "bidi_stream",
        };
        [("grpc_type", kind.to_owned()), ("grpc_service", service.to_owned()), ("grpc_method", method.to_owned())]
    };
    let started = calls.iter().map(|calls| (labels(calls), calls.started));
    page.counters("grpc_server_started", "Calls that began", started)?;
    let handled = calls.iter().flat_map(|calls| {
        let codes = calls.handled.iter().zip(0..).filter(|(count, code)| **count > 0 || *code == 0);
        codes.map(|(count, code)| {
            let [kind, service, method] = labels(calls);
            ([kind, service, method, ("grpc_code", code_name(code.into()))], *count)
        })
    });
    page.counters("grpc_server_handled", "Calls that ended, by code", handled)?;
    let mut in_flight = page.0.encode_descriptor("pail_calls_in_flight", "Calls under way", None, MetricType::Gauge)?;
    for calls in calls {
        in_flight.encode_family(&labels(calls))?.encode_gauge(&calls.in_flight())?;
    }
    let help = "From a call's headers to the end of its answer; of calls that are no long streams";
    let mut latencies = page.0.encode_descriptor("grpc_server_handling_seconds", help, None, MetricType::Histogram)?;
    for calls in calls.iter().filter(|calls| !calls.latencies.is_empty()) {
        let count = calls.latencies.iter().map(|(_, count)| count).sum();
        let labels = labels(calls);
        let mut of = latencies.encode_family(&labels)?;
        of.encode_histogram::<[(&str, &str); 0]>(calls.latency, count, &calls.latencies, None)?;
    }
    Ok(())
}

/// A code as Go has it, and with it everybody's dashboards.
fn code_name(code: Code) -> String {
    match code {
        Code::Ok => "OK".to_owned(),
        Code::Cancelled => "Canceled".to_owned(),
        code => format!("{code:?}"),
    }
}

/// What Linux says of this process. What it does not say is left out.
fn process(page: &mut Page<'_>, started: SystemTime) -> fmt::Result {
    page.gauge("process_start_time_seconds", "When the process began, since 1970", since_1970(started))?;
    let usage = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let cpu = Duration::new(usage.tv_sec.try_into().unwrap_or_default(), usage.tv_nsec.try_into().unwrap_or_default());
    let help = "Processor time, in seconds";
    let mut seconds = page.0.encode_descriptor("process_cpu_seconds", help, None, MetricType::Counter)?;
    seconds.encode_counter::<[(&str, &str); 0], _, f64>(&cpu.as_secs_f64(), None)?;

    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let number = |key: &str| -> Option<u64> {
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?;
        line.split_whitespace().next()?.parse().ok()
    };
    for (name, help, key) in [
        ("process_resident_memory_bytes", "Memory that is there", "VmRSS"),
        ("process_resident_memory_peak_bytes", "The most that was", "VmHWM"),
        ("process_anonymous_memory_bytes", "That of the allocator and of stacks, that is, not of files", "RssAnon"),
        ("process_virtual_memory_bytes", "Memory that is asked for", "VmSize"),
    ] {
        if let Some(kib) = number(key) {
            page.gauge(name, help, kib << 10)?;
        }
    }
    if let Some(threads) = number("Threads") {
        page.gauge("process_threads", "Threads", threads)?;
    }
    if let Ok(descriptors) = fs::read_dir("/proc/self/fd") {
        page.gauge("process_open_fds", "Descriptors", descriptors.count())?;
    }
    if let Some(max) = rustix::process::getrlimit(rustix::process::Resource::Nofile).current {
        page.gauge("process_max_fds", "Descriptors that there may be", max)?;
    }
    Ok(())
}

fn since_1970(time: SystemTime) -> f64 {
    time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// What is written to.
struct Page<'a>(DescriptorEncoder<'a>);

impl Page<'_> {
    fn gauge(&mut self, name: &str, help: &str, value: impl Gauge) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Gauge)?;
        metric.encode_gauge(&value.value())
    }

    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        counts: impl IntoIterator<Item = (L, u64)>,
    ) -> fmt::Result {
        let mut metric = self.0.encode_descriptor(name, help, None, MetricType::Counter)?;
        for (labels, count) in counts {
            metric.encode_family(&labels)?.encode_counter::<[(&str, &str); 0], _, f64>(&count, None)?;
        }
        Ok(())
    }

    fn info(&mut self, name: &str, help: &str, labels: &impl EncodeLabelSet) -> fmt::Result {
        self.0.encode_descriptor(name, help, None, MetricType::Info)?.encode_info(labels)
    }
}

/// What a gauge may show.
trait Gauge {
    type Value: EncodeGaugeValue;

    fn value(self) -> Self::Value;
}

impl Gauge for usize {
    type Value = u64;

    fn value(self) -> u64 {
        self as u64
    }
}

impl Gauge for u64 {
    type Value = Self;

    fn value(self) -> Self {
        self
    }
}

impl Gauge for f64 {
    type Value = Self;

    fn value(self) -> Self {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::SystemClock, limits::Limits};

    #[test]
    fn all_is_written_as_openmetrics_has_it() {
        let registry = Registry::start(Limits::default(), Arc::new(SystemClock::default()), "r".to_owned());
        let meter = Arc::<Meter>::default();
        let metrics = Metrics::new(registry, meter, None);
        let text = metrics.text();
        for line in [
            "# TYPE pail_buckets gauge",
            "pail_buckets 0",
            "# TYPE pail_buckets_created counter",
            "pail_buckets_created_total 0",
            "pail_buckets_down_total{reason=\"NOCONNECTION\"} 0",
            "pail_build_info{version=\"0.1.0\"} 1",
        ] {
            assert!(text.lines().any(|there| there == line), "{line} is missing:\n{text}");
        }
        assert!(text.ends_with("# EOF\n"));
    }
}
