//! A call that somebody looks at: by the log at debug, or by a trace. Others cost a look at a flag.

use std::sync::Arc;

use http::HeaderMap;
use tonic::Code;
use tracing::{Level, Span, span::Entered};

use crate::traces::{Trace, Traces};

/// The header by which a client names its request; we name those of others.
const REQUEST_ID: &str = "x-request-id";

/// Bytes of a name that is taken.
const REQUEST_ID_BYTES_MAX: usize = 128;

/// What is known of one call.
#[derive(Debug)]
pub(super) struct Observed {
    span: Span,
    trace: Option<Trace>,
}

impl Observed {
    /// `None` where nobody looks.
    pub(super) fn begin(headers: &HeaderMap, path: &str, traces: Option<&Arc<Traces>>) -> Option<Box<Self>> {
        let is_logged = tracing::enabled!(Level::DEBUG);
        if !is_logged && traces.is_none() {
            return None;
        }
        let request_id = request_id(headers);
        let trace = traces.map(|traces| traces.begin(headers, path, &request_id));
        let span = match &trace {
            None => tracing::debug_span!("call", method = path, ?request_id),
            Some(trace) => tracing::debug_span!("call", method = path, ?request_id, trace_id = trace.id()),
        };
        Some(Box::new(Self { span, trace }))
    }

    /// What is logged while this is there is of this call.
    pub(super) fn enter(&self) -> Entered<'_> {
        self.span.enter()
    }

    pub(super) fn ends(&mut self, code: Code) {
        if let Some(trace) = &mut self.trace {
            trace.ends(code);
        }
    }
}

fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok());
    match given.filter(|id| !id.is_empty() && id.len() <= REQUEST_ID_BYTES_MAX) {
        Some(id) => id.to_owned(),
        None => format!("{:016x}", getrandom::u64().unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_has_the_name_that_its_client_gave_it_or_one_of_ours() {
        let named = |id: &str| request_id(&[(REQUEST_ID.parse().unwrap(), id.parse().unwrap())].into_iter().collect());
        assert_eq!(named("r-1"), "r-1");
        for ours in [named(""), named(&"x".repeat(129)), request_id(&HeaderMap::new())] {
            assert!(ours.len() == 16 && ours.chars().all(|char| char.is_ascii_hexdigit()), "{ours}");
        }
    }
}
