//! What a Watch sends, as it is written: an event that was encoded for one watch is not encoded again for the next.
//!
//! The generated server takes this in place of the contract's own message (`build.rs`), and a client can't tell them apart.

use std::sync::Arc;

use bytes::{Buf, BufMut};
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType, encode_key, encode_varint, encoded_len_varint, key_len, uint64},
};

use crate::{bucket::ring::Change, pb};

/// A [`pb::WatchResponse`] on its way out.
#[derive(Clone, Debug)]
pub enum WatchResponse {
    /// One that is for this watch alone.
    Own(pb::WatchResponse),
    /// One with events.
    Events {
        /// Its revision.
        revision: u64,
        /// Its events.
        events: Vec<Event>,
    },
}

/// A [`pb::Event`].
#[derive(Clone, Debug)]
pub enum Event {
    /// One that is encoded for this watch.
    Own(pb::Event),
    /// A change of an entry, which is encoded once, but for the ref.
    Change {
        /// The ref that it answers; 0 for a prefix.
        monitor: u64,
        /// The change, which knows its bytes.
        change: Arc<Change>,
    },
}

/// The numbers of fields, as the proto has them.
mod field {
    /// Of a response.
    pub(super) const REVISION: u32 = 1;
    pub(super) const EVENTS: u32 = 3;
    /// Of the events of a response.
    pub(super) const EVENT: u32 = 1;
    /// Of an event.
    pub(super) const PUT: u32 = 3;
    pub(super) const DELETED: u32 = 4;
    /// Of what happened, whatever it was, and before all others.
    pub(super) const REF: u32 = 1;
}

/// A field that holds so many bytes.
fn sized(field: u32, length: usize) -> usize {
    key_len(field) + encoded_len_varint(length as u64) + length
}

fn encode_head(field: u32, length: usize, buffer: &mut impl BufMut) {
    encode_key(field, WireType::LengthDelimited, buffer);
    encode_varint(length as u64, buffer);
}

/// A number, which is left out where it is 0.
fn number(field: u32, number: u64) -> usize {
    if number == 0 { 0 } else { uint64::encoded_len(field, &number) }
}

fn encode_number(field: u32, number: u64, buffer: &mut impl BufMut) {
    if number != 0 {
        uint64::encode(field, &number, buffer);
    }
}

impl Event {
    /// A change as `monitor` is told it. `encode` makes the event without a ref, where nobody has done so before.
    pub(super) fn change(monitor: u64, change: Arc<Change>, encode: impl FnOnce(&Change) -> pb::event::Event) -> Self {
        change.wire.get_or_init(|| {
            match encode(&change) {
                pb::event::Event::Created(event) => event.encode_to_vec(),
                pb::event::Event::Down(event) => event.encode_to_vec(),
                pb::event::Event::Put(event) => event.encode_to_vec(),
                pb::event::Event::Deleted(event) => event.encode_to_vec(),
            }
            .into()
        });
        Self::Change { monitor, change }
    }

    fn encoded_len(&self) -> usize {
        match self {
            Self::Own(event) => event.encoded_len(),
            Self::Change { monitor, change } => sized(field::PUT, number(field::REF, *monitor) + rest(change).len()),
        }
    }

    fn encode(&self, buffer: &mut impl BufMut) {
        match self {
            Self::Own(event) => event.encode_raw(buffer),
            Self::Change { monitor, change } => {
                let field = if change.is_put() { field::PUT } else { field::DELETED };
                encode_head(field, number(field::REF, *monitor) + rest(change).len(), buffer);
                encode_number(field::REF, *monitor, buffer);
                buffer.put_slice(rest(change));
            }
        }
    }
}

/// The bytes of a change, all but the ref.
fn rest(change: &Change) -> &[u8] {
    change.wire.get().map_or(&[], |bytes| bytes)
}

impl From<pb::WatchResponse> for WatchResponse {
    fn from(response: pb::WatchResponse) -> Self {
        Self::Own(response)
    }
}

impl Default for WatchResponse {
    fn default() -> Self {
        Self::Own(pb::WatchResponse::default())
    }
}

impl Message for WatchResponse {
    fn encode_raw(&self, buffer: &mut impl BufMut) {
        match self {
            Self::Own(response) => response.encode_raw(buffer),
            Self::Events { revision, events } => {
                encode_number(field::REVISION, *revision, buffer);
                let length = events.iter().map(|event| sized(field::EVENT, event.encoded_len())).sum();
                encode_head(field::EVENTS, length, buffer);
                for event in events {
                    encode_head(field::EVENT, event.encoded_len(), buffer);
                    event.encode(buffer);
                }
            }
        }
    }

    fn encoded_len(&self) -> usize {
        match self {
            Self::Own(response) => response.encoded_len(),
            Self::Events { revision, events } => {
                let length = events.iter().map(|event| sized(field::EVENT, event.encoded_len())).sum();
                number(field::REVISION, *revision) + sized(field::EVENTS, length)
            }
        }
    }

    /// Nobody decodes a response here; it must be possible because a message is one both ways.
    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buffer: &mut impl Buf,
        context: DecodeContext,
    ) -> Result<(), DecodeError> {
        if let Self::Events { .. } = self {
            self.clear();
        }
        match self {
            Self::Own(response) => response.merge_field(tag, wire_type, buffer, context),
            Self::Events { .. } => Ok(()),
        }
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        bucket::ring::ChangeKind,
        name::{Revision, Version},
        time_to_live::Due,
        value::Value,
    };

    fn change(kind: ChangeKind) -> Arc<Change> {
        let (name, id) = ("bucket".into(), Revision::new(1_764_000_000_000_001).as_id());
        let version = Version(300);
        Arc::new(Change { name, id, key: "key".into(), version, kind, more: false, wire: Default::default() })
    }

    /// The contract's message for the same.
    fn put(r#ref: u64) -> pb::event::Event {
        let kind = Some(pb::value::Kind::Text("text".into()));
        let entry = pb::Entry { key: "key".into(), value: Some(pb::Value { kind }), version: 300, expire_time: None };
        let bucket_id = 1_764_000_000_000_001;
        let bucket = "bucket".into();
        pb::event::Event::Put(pb::PutEvent { r#ref, bucket, bucket_id, entry: Some(entry), initial: false })
    }

    fn deleted(r#ref: u64) -> pb::event::Event {
        let (bucket, bucket_id, key) = ("bucket".into(), 1_764_000_000_000_001, "key".into());
        pb::event::Event::Deleted(pb::DeletedEvent { r#ref, bucket, bucket_id, key, version: 300, expired: true })
    }

    #[test]
    fn a_response_is_on_the_wire_what_the_contracts_message_is() {
        let created = pb::event::Event::Created(pb::CreatedEvent { bucket: "b".into(), ..Default::default() });
        let put_change = change(ChangeKind::Put { value: Value::Text("text".into()), due: Due::NEVER });
        let deletion = change(ChangeKind::Expired);
        for (revision, monitor) in [(0, 0), (7, 1), (1_764_000_000_000_001, 300), (1, u64::MAX)] {
            let own = |event| pb::Event { event: Some(event) };
            let events = vec![
                Event::change(monitor, Arc::clone(&put_change), |_| put(0)),
                Event::Own(own(created.clone())),
                Event::change(monitor, Arc::clone(&deletion), |_| deleted(0)),
            ];
            let ours = WatchResponse::Events { revision, events };
            let events = vec![own(put(monitor)), own(created.clone()), own(deleted(monitor))];
            let response = pb::watch_response::Response::Events(pb::WatchEvents { events });
            let theirs = pb::WatchResponse { revision, response: Some(response) };
            assert_eq!(ours.encode_to_vec(), theirs.encode_to_vec());
            assert_eq!(ours.encoded_len(), theirs.encoded_len());
            assert_eq!(WatchResponse::from(theirs.clone()).encode_to_vec(), theirs.encode_to_vec());
        }
    }

    #[test]
    fn a_change_is_encoded_once_however_many_watch() {
        let change = change(ChangeKind::Put { value: Value::Text("text".into()), due: Due::NEVER });
        let mut times = 0;
        for monitor in 0..3 {
            Event::change(monitor, Arc::clone(&change), |_| {
                times += 1;
                put(0)
            });
        }
        assert_eq!(times, 1);
    }
}
