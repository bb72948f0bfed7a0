//! The API's messages as JSON: the proto's field names, every field present, null for what is unset.
//!
//! Ids, versions, revisions and counts are numbers: they stay below 2^53. An integer *value* is a string, as in
//! protobuf's own JSON, because it need not. Times are RFC 3339; enum values go without their prefix.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use prost_types::Timestamp;
use serde_json::{Value as Json, json};

use crate::pb::{
    AddResponse, Bucket, CreateResponse, CreatedEvent, DeleteResponse, DeletedEvent, DownEvent, Entry, GetResponse,
    LookupResponse, Monitor, PutEvent, PutResponse, Reason, StopResponse, TouchResponse, TransactResponse,
    TransactResult, Value, WatchStarted, event::Event, value::Kind,
};

/// A message that can be shown as JSON.
pub(super) trait ToJson {
    /// The JSON.
    fn to_json(&self) -> Json;
}

impl ToJson for Json {
    fn to_json(&self) -> Json {
        self.clone()
    }
}

impl<T: ToJson> ToJson for Option<T> {
    fn to_json(&self) -> Json {
        self.as_ref().map_or(Json::Null, T::to_json)
    }
}

impl<T: ToJson> ToJson for Vec<T> {
    fn to_json(&self) -> Json {
        self.iter().map(T::to_json).collect()
    }
}

impl ToJson for Timestamp {
    fn to_json(&self) -> Json {
        self.to_string().into()
    }
}

impl ToJson for Value {
    fn to_json(&self) -> Json {
        match &self.kind {
            None => Json::Null,
            Some(Kind::Text(text)) => json!({ "text": text }),
            Some(Kind::Data(data)) => json!({ "data": BASE64_STANDARD.encode(data) }),
            Some(Kind::Integer(integer)) => json!({ "integer": integer.to_string() }),
            Some(Kind::Number(number)) => json!({ "number": number_json(*number) }),
            Some(Kind::Flag(flag)) => json!({ "flag": flag }),
        }
    }
}

/// JSON has no word for these three; protobuf's JSON writes them as strings.
fn number_json(number: f64) -> Json {
    match number {
        f64::INFINITY => "Infinity".into(),
        f64::NEG_INFINITY => "-Infinity".into(),
        _ if number.is_nan() => "NaN".into(),
        _ => number.into(),
    }
}

/// The value of an integer entry, and not a count: see above.
impl ToJson for i64 {
    fn to_json(&self) -> Json {
        self.to_string().into()
    }
}

/// A message whose fields are shown under their own names.
macro_rules! to_json {
    ($($message:ident { $($field:ident),* })*) => {$(
        impl ToJson for $message {
            fn to_json(&self) -> Json {
                // A field that is a word of Rust's is named without the mark that makes it a name there.
                json!({ $((stringify!($field).trim_start_matches("r#")): self.$field.to_json()),* })
            }
        }
    )*};
}

/// A scalar, which JSON has too.
macro_rules! scalars {
    ($($scalar:ty),*) => {$(
        impl ToJson for $scalar {
            fn to_json(&self) -> Json {
                json!(self)
            }
        }
    )*};
}

scalars!(bool, u64, String);

to_json! {
    Bucket { name, id, create_revision, version, entry_count, byte_size, create_time, expire_time, link_count }
    Entry { key, value, version, expire_time }
    CreateResponse { bucket, created, revision }
    LookupResponse { bucket }
    StopResponse { bucket_id, revision }
    PutResponse { version, bucket_id }
    GetResponse { entry, bucket_id }
    DeleteResponse { entry, version, bucket_id }
    AddResponse { value, version, bucket_id }
    TouchResponse { expire_time, bucket_id }
    TransactResponse { succeeded, results, version, bucket_id }
    TransactResult { entry }
    WatchStarted { registry_id, monitors }
    Monitor { r#ref, bucket, bucket_id }
    CreatedEvent { r#ref, bucket, bucket_id, revision, time, initial }
    PutEvent { r#ref, bucket, bucket_id, entry, initial }
    DeletedEvent { r#ref, bucket, bucket_id, key, version, expired }
}

impl ToJson for DownEvent {
    fn to_json(&self) -> Json {
        json!({
            "ref": self.r#ref, "bucket": self.bucket, "bucket_id": self.bucket_id, "reason": reason_name(self.reason()),
            "detail": self.detail, "version": self.version, "revision": self.revision, "time": self.time.to_json(),
        })
    }
}

impl ToJson for Event {
    fn to_json(&self) -> Json {
        match self {
            Self::Created(created) => json!({ "created": created.to_json() }),
            Self::Down(down) => json!({ "down": down.to_json() }),
            Self::Put(put) => json!({ "put": put.to_json() }),
            Self::Deleted(deleted) => json!({ "deleted": deleted.to_json() }),
        }
    }
}

/// The reason as people say it: `NORMAL`. One that this client does not know yet is `UNSPECIFIED`.
pub(super) fn reason_name(reason: Reason) -> &'static str {
    let name = reason.as_str_name();
    name.strip_prefix("REASON_").unwrap_or(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_named_by_its_kind_and_loses_nothing() {
        let shown = |kind| Value { kind: Some(kind) }.to_json().to_string();
        assert_eq!(shown(Kind::Text("1".into())), r#"{"text":"1"}"#);
        assert_eq!(shown(Kind::Data(vec![0, 255])), r#"{"data":"AP8="}"#);
        assert_eq!(shown(Kind::Integer(i64::MIN)), r#"{"integer":"-9223372036854775808"}"#);
        assert_eq!(shown(Kind::Number(1.5)), r#"{"number":1.5}"#);
        assert_eq!(shown(Kind::Number(f64::NAN)), r#"{"number":"NaN"}"#);
        assert_eq!(shown(Kind::Number(f64::NEG_INFINITY)), r#"{"number":"-Infinity"}"#);
        assert_eq!(shown(Kind::Flag(true)), r#"{"flag":true}"#);
    }

    #[test]
    fn fields_have_the_names_of_the_proto() {
        let down = DownEvent {
            r#ref: 7,
            bucket: "b".into(),
            reason: Reason::Killed.into(),
            time: Some(Timestamp { seconds: 1_764_000_000, nanos: 500_000_000 }),
            ..DownEvent::default()
        };
        assert_eq!(
            Event::Down(down).to_json(),
            json!({"down": {
                "ref": 7, "bucket": "b", "bucket_id": 0, "reason": "KILLED", "detail": "", "version": 0, "revision": 0,
                "time": "2025-11-24T16:00:00.500Z",
            }})
        );
        let monitor = Monitor { r#ref: 7, bucket: "b".into(), bucket_id: 1 };
        assert_eq!(monitor.to_json(), json!({"ref": 7, "bucket": "b", "bucket_id": 1}));
    }
}
