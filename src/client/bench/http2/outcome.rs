//! What the fields of an answer say of how the call went.

use http::{HeaderMap, HeaderName, HeaderValue};
use tonic::Status;

/// What the fields of an answer say.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) is_ok: bool,
    /// It is an answer of HTTP's, not of gRPC's.
    pub(super) is_refused: bool,
    /// What gRPC says of a failure.
    fields: HeaderMap,
    http: Option<String>,
}

impl Outcome {
    /// One more field.
    pub(super) fn field(&mut self, name: &[u8], value: &[u8]) {
        match name {
            b"grpc-status" if value == b"0" => self.is_ok = true,
            b"grpc-status" | b"grpc-message" | b"grpc-status-details-bin" => {
                let name = HeaderName::from_bytes(name).ok();
                if let (Some(name), Ok(value)) = (name, HeaderValue::from_bytes(value)) {
                    self.fields.insert(name, value);
                }
            }
            b":status" if value != b"200" => {
                self.is_refused = true;
                self.http = Some(String::from_utf8_lossy(value).into_owned());
            }
            _ => {}
        }
    }

    /// Of a call that did not go well.
    pub(super) fn status(&self) -> Status {
        let without = || match &self.http {
            Some(status) => Status::unknown(format!("HTTP {status}")),
            None => Status::unknown("the stream ended without a status"),
        };
        Status::from_header_map(&self.fields).unwrap_or_else(without)
    }
}
