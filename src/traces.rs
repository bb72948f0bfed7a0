//! Spans of calls, sent to a collector by OTLP: a client's trace (W3C's traceparent) goes on here, and others begin.
//!
//! A call whose client has decided is traced or not as that says; of the others, a part. Spans are sent by a thread
//! of their own, in batches; what there is no room for is dropped.

use std::{fmt, time::Duration};

use http::{HeaderMap, Uri};
use opentelemetry::{
    Context, KeyValue,
    propagation::{Extractor, TextMapPropagator as _},
    trace::{Span as _, SpanKind, Status, Tracer as _, TracerProvider as _},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    propagation::TraceContextPropagator,
    trace::{Sampler, SdkTracer, SdkTracerProvider, Span},
};
use tonic::Code;

/// The collector has so long to take a batch, and what is left at the end.
const PATIENCE: Duration = Duration::from_secs(1);

/// What makes spans.
#[derive(Debug)]
pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    propagator: TraceContextPropagator,
}

impl Traces {
    /// To this collector, from a runtime that lives as long. Of the calls whose clients have not decided, `sample`
    /// are traced: 0 is none, 1 is all.
    ///
    /// # Errors
    ///
    /// A line for the operator.
    pub fn new(collector: &Uri, sample: f64, instance: &str) -> Result<Self, String> {
        let exporter = SpanExporter::builder().with_tonic().with_endpoint(collector.to_string()).with_timeout(PATIENCE);
        let exporter = exporter.build().map_err(|error| format!("--otlp {collector}: {error}"))?;
        let resource = Resource::builder().with_service_name("pail").with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", instance.to_owned()),
        ]);
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(sample))))
            .with_resource(resource.build())
            .build();
        let tracer = provider.tracer("pail");
        Ok(Self { provider, tracer, propagator: TraceContextPropagator::new() })
    }

    /// Begins the span of a call; it ends when it is dropped.
    #[must_use]
    pub fn begin(&self, headers: &HeaderMap, path: &str, request_id: &str) -> Trace {
        let parent = self.propagator.extract_with_context(&Context::new(), &Headers(headers));
        let name = path.trim_start_matches('/');
        let (service, method) = name.split_once('/').unwrap_or_default();
        let span = self.tracer.span_builder(name.to_owned()).with_kind(SpanKind::Server).with_attributes([
            KeyValue::new("rpc.system", "grpc"),
            KeyValue::new("rpc.service", service.to_owned()),
            KeyValue::new("rpc.method", method.to_owned()),
            KeyValue::new("pail.request_id", request_id.to_owned()),
        ]);
        Trace(span.start_with_context(&self.tracer, &parent))
    }

    /// Sends what is left, if the collector takes it in time. It blocks.
    pub fn end(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(PATIENCE) {
            tracing::warn!(%error, "the last spans were not sent");
        }
    }
}

/// The span of one call.
pub struct Trace(Span);

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.span_context().trace_id().fmt(f)
    }
}

impl Trace {
    /// Which trace it is of.
    #[must_use]
    pub fn id(&self) -> String {
        self.0.span_context().trace_id().to_string()
    }

    /// How the call ends. An error is what is not the client's doing, as the conventions have it.
    pub fn ends(&mut self, code: Code) {
        self.0.set_attribute(KeyValue::new("rpc.grpc.status_code", i64::from(i32::from(code))));
        let is_ours = matches!(
            code,
            Code::Unknown
                | Code::DeadlineExceeded
                | Code::Unimplemented
                | Code::Internal
                | Code::Unavailable
                | Code::DataLoss
        );
        if is_ours {
            self.0.set_status(Status::error(""));
        }
    }
}

/// A request's headers, for who looks for a trace in them.
struct Headers<'a>(&'a HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}
