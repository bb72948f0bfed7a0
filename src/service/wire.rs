//! What a Watch sends, as it is written: an event that was encoded for one watch is not encoded again for the next.
//!
//! The generated server takes this in place of the contract's own message (`build.rs`), and a client can't tell them apart.

use std::sync::Arc;

use bytes::{Buf, BufMut};
use once_cell::race::OnceBox;
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, WireType, encode_key, encode_varint, encoded_len_varint, key_len, uint64},
};

use crate::{bucket::ring::Change, pb, registry};

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
    /// One that many are told, which is encoded once, but for the ref.
    Shared {
        /// The ref that it answers; 0 for a prefix.
        monitor: u64,
        /// What is told.
        fact: Fact,
    },
}

/// What many are told, which keeps its bytes.
#[derive(Clone, Debug)]
pub enum Fact {
    /// A bucket was created, or is down.
    Lifecycle(Arc<registry::Event>),
    /// An entry has changed.
    Change(Arc<Change>),
}

impl Fact {
    /// Its field of an event.
    fn field(&self) -> u32 {
        match self {
            Self::Lifecycle(event) => event.exit().map_or(field::CREATED, |_| field::DOWN),
            Self::Change(change) if change.is_put() => field::PUT,
            Self::Change(_) => field::DELETED,
        }
    }

    fn wire(&self) -> &OnceBox<Box<[u8]>> {
        match self {
            Self::Lifecycle(event) => &event.wire,
            Self::Change(change) => &change.wire,
        }
    }

    /// Its bytes, all but the ref.
    fn rest(&self) -> &[u8] {
        self.wire().get().map_or(&[], |bytes| bytes)
    }
}

/// The numbers of fields, as the proto has them.
mod field {
    /// Of a response.
    pub(super) const REVISION: u32 = 1;
    pub(super) const EVENTS: u32 = 3;
    /// Of the events of a response.
    pub(super) const EVENT: u32 = 1;
    /// Of an event.
    pub(super) const CREATED: u32 = 1;
    pub(super) const DOWN: u32 = 2;
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
    /// A fact as `monitor` is told it. `encode` makes the event without a ref, where nobody has done so before.
    pub(super) fn shared(monitor: u64, fact: Fact, encode: impl FnOnce(&Fact) -> pb::event::Event) -> Self {
        fact.wire().get_or_init(|| {
            let bytes = match encode(&fact) {
                pb::event::Event::Created(event) => event.encode_to_vec(),
                pb::event::Event::Down(event) => event.encode_to_vec(),
                pb::event::Event::Put(event) => event.encode_to_vec(),
                pb::event::Event::Deleted(event) => event.encode_to_vec(),
            };
            Box::new(bytes.into())
        });
        Self::Shared { monitor, fact }
    }

    fn encoded_len(&self) -> usize {
        match self {
            Self::Own(event) => event.encoded_len(),
            Self::Shared { monitor, fact } => sized(fact.field(), number(field::REF, *monitor) + fact.rest().len()),
        }
    }

    fn encode(&self, buffer: &mut impl BufMut) {
        match self {
            Self::Own(event) => event.encode_raw(buffer),
            Self::Shared { monitor, fact } => {
                encode_head(fact.field(), number(field::REF, *monitor) + fact.rest().len(), buffer);
                encode_number(field::REF, *monitor, buffer);
                buffer.put_slice(fact.rest());
            }
        }
    }
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
        clock::Stamp,
        name::{Revision, Version},
        process::{Exit, Reason},
        registry::{Death, EventKind},
        time_to_live::Due,
        value::Value,
    };

    const ID: u64 = 1_764_000_000_000_001;

    /// The contract's message for a fact, to this ref.
    type Told = fn(u64) -> pb::event::Event;

    fn change(kind: ChangeKind) -> Fact {
        let (name, id) = ("bucket".into(), Revision::new(ID).as_id());
        let version = Version(300);
        Fact::Change(Arc::new(Change { name, id, key: "key".into(), version, kind, more: false, wire: OnceBox::new() }))
    }

    fn lifecycle(kind: EventKind) -> Fact {
        let (revision, time, name) = (Revision::new(ID), Stamp::default(), "bucket".into());
        Fact::Lifecycle(Arc::new(registry::Event { revision, time, name, kind, wire: OnceBox::new() }))
    }

    fn created(r#ref: u64) -> pb::event::Event {
        let (bucket, bucket_id, revision) = ("bucket".into(), ID, ID);
        pb::event::Event::Created(pb::CreatedEvent { r#ref, bucket, bucket_id, revision, time: None, initial: false })
    }

    fn down(r#ref: u64) -> pb::event::Event {
        let (bucket, bucket_id, detail) = ("bucket".into(), 1, "enough milk".into());
        let reason = pb::Reason::Killed.into();
        let (version, revision) = (300, ID);
        pb::event::Event::Down(pb::DownEvent {
            r#ref,
            bucket,
            bucket_id,
            reason,
            detail,
            version,
            revision,
            time: None,
            initiator: String::new(),
        })
    }

    fn put(r#ref: u64) -> pb::event::Event {
        let kind = Some(pb::value::Kind::Text("text".into()));
        let entry = pb::Entry { key: "key".into(), value: Some(pb::Value { kind }), version: 300, expire_time: None };
        let bucket = "bucket".into();
        pb::event::Event::Put(pb::PutEvent { r#ref, bucket, bucket_id: ID, entry: Some(entry), initial: false })
    }

    fn deleted(r#ref: u64) -> pb::event::Event {
        let (bucket, bucket_id, key) = ("bucket".into(), ID, "key".into());
        pb::event::Event::Deleted(pb::DeletedEvent { r#ref, bucket, bucket_id, key, version: 300, expired: true })
    }

    #[test]
    fn a_response_is_on_the_wire_what_the_contracts_message_is() {
        let (id, exit) = (Revision::new(1).as_id(), Exit::new(Reason::Killed, "enough milk"));
        let death = Death { id, exit, version: Version(300), created_at: Stamp::default() };
        let facts: [(Fact, Told); 4] = [
            (lifecycle(EventKind::Created), created),
            (lifecycle(EventKind::Down(Box::new(death))), down),
            (change(ChangeKind::Put { value: Value::Text("text".into()), due: Due::NEVER }), put),
            (change(ChangeKind::Expired), deleted),
        ];
        for (revision, monitor) in [(0, 0), (7, 1), (ID, 300), (1, u64::MAX)] {
            let own = |event| pb::Event { event: Some(event) };
            let mut events = vec![Event::Own(own(created(7)))];
            events.extend(facts.iter().map(|(fact, of)| Event::shared(monitor, fact.clone(), |_| of(0))));
            let ours = WatchResponse::Events { revision, events };
            let mut events = vec![own(created(7))];
            events.extend(facts.iter().map(|(_, of)| own(of(monitor))));
            let response = pb::watch_response::Response::Events(pb::WatchEvents { events });
            let theirs = pb::WatchResponse { revision, response: Some(response) };
            assert_eq!(ours.encode_to_vec(), theirs.encode_to_vec());
            assert_eq!(ours.encoded_len(), theirs.encoded_len());
            assert_eq!(WatchResponse::from(theirs.clone()).encode_to_vec(), theirs.encode_to_vec());
        }
    }

    #[test]
    fn a_fact_is_encoded_once_however_many_watch() {
        for fact in [lifecycle(EventKind::Created), change(ChangeKind::Expired)] {
            let mut times = 0;
            for monitor in 0..3 {
                Event::shared(monitor, fact.clone(), |_| {
                    times += 1;
                    put(0)
                });
            }
            assert_eq!(times, 1);
        }
    }
}
