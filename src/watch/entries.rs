//! Entries: those of a bucket as they are, in chunks, and what changes in the ring.
//!
//! Each change is told once, in a chunk or as an event. A chunk is read first and told later: what changed before it was
//! read is told before it, where it concerns keys that were told already, and is left out where it does not, since the chunk
//! or one after it holds it. So all that needs to be known is how far the keys have been told.

use std::{mem, sync::Arc};

use super::{
    Entries, Error, NoticeKind,
    outbox::{Batch, Happening, Refs},
};
use crate::{
    bucket::{
        Bucket, Entry, Observe, Observed, Scan, Values,
        ring::{Change, Overrun, Position, Scope, Subscription},
    },
    limits::{WATCH_BATCH_BYTES, WATCH_BATCH_EVENTS},
    name::{BucketId, Revision},
    process::Process,
    registry::Registry,
};

/// A reader of changes, and of entries as they are.
#[derive(Debug)]
pub(super) struct Reader {
    pub(super) subscription: Subscription,
    key_prefix: Box<str>,
    values: Values,
}

impl Reader {
    /// From now on; and the revision that is now: the first change of a bucket that is created later will be read.
    pub(super) fn begin(registry: &Registry, scope: Scope, entries: &Entries<'_>) -> Result<(Self, Revision), Error> {
        let (subscription, now) = registry.subscribe(scope)?;
        Ok((Self { subscription, key_prefix: entries.key_prefix.into(), values: entries.values }, now))
    }

    /// Reads changes on, not past `until`. `refs` says whom a change is for, where it may put what comes first into the batch; and
    /// `None` where it is too early for it. What one call has changed is read to its end, and is left for the next batch
    /// where this one has no room for it.
    pub(super) fn read<E: From<Overrun>>(
        &mut self,
        until: Position,
        batch: &mut Batch,
        mut refs: impl FnMut(&Change, &mut Batch) -> Result<Option<Refs>, E>,
    ) -> Result<(), E> {
        let mut begins = true;
        loop {
            let changes = self.subscription.read(until)?;
            let Some(last) = changes.last() else { return Ok(()) };
            let more = last.more;
            for (n, change) in changes.iter().enumerate() {
                let Some(refs) = refs(change, batch)? else { return Ok(()) };
                if begins && change.more && !refs.is_empty() && !batch.has_room_for_call(&changes[n..]) {
                    return Ok(());
                }
                self.subscription.pass();
                let more = change.more;
                begins = !more;
                if !refs.is_empty() && change.key.starts_with(&*self.key_prefix) {
                    batch.push(Happening::change(Arc::clone(change), refs));
                }
                if batch.is_full() && !more {
                    return Ok(());
                }
            }
            // There may be a million more for nobody here: others on this thread come first.
            if !more {
                return Ok(());
            }
        }
    }
}

/// The entries of one bucket, while they are being told.
#[derive(Debug)]
pub(super) struct Telling {
    bucket: Process<Bucket>,
    refs: Refs,
    /// Keys up to this one were told.
    covered: Option<Box<str>>,
    chunk: Option<Chunk>,
}

/// Some entries that were read and are to be told.
#[derive(Debug)]
struct Chunk {
    entries: Vec<Entry>,
    more: bool,
    /// What happened before this comes before it, and what is in the ring from here on after it.
    before: Moment,
}

/// A place in the log, and one in the ring. All changes of buckets that died up to the one are before the other, since a
/// bucket's last change is in the ring before its death is in the log, and `revision` was looked at first.
#[derive(Clone, Copy, Debug)]
pub(super) struct Moment {
    pub(super) revision: Revision,
    pub(super) position: Position,
}

impl Moment {
    /// The log is looked at before this is asked, and the ring is now.
    pub(super) fn now(revision: Revision, reader: Option<&Reader>) -> Self {
        Self { revision, position: reader.map_or(0, |reader| reader.subscription.end()) }
    }
}

impl Telling {
    pub(super) fn new(bucket: Process<Bucket>, refs: Refs) -> Self {
        Self { bucket, refs, covered: None, chunk: None }
    }

    pub(super) fn id(&self) -> BucketId {
        self.bucket.identity().id
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.bucket.identity().name
    }

    /// Whether a change of this key comes on top of what was told.
    pub(super) fn has_told(&self, key: &str) -> bool {
        self.covered.as_deref().is_some_and(|covered| key <= covered)
    }

    /// Reads the next chunk, if there is none, for which there is room in `batch`, and says what is to be told before it; `None`
    /// where the bucket is dead.
    pub(super) fn read(&mut self, registry: &Registry, reader: &Reader, batch: &Batch) -> Option<Moment> {
        if self.chunk.is_none() {
            let revision = registry.revision();
            let observed = self.bucket.call(Observe(Scan {
                prefix: &reader.key_prefix,
                after: self.covered.as_deref(),
                items_max: WATCH_BATCH_EVENTS,
                bytes_max: batch.room(),
                values: reader.values,
            }));
            let Observed { page, position } = observed.ok()?.ok()?;
            let before = Moment { revision, position };
            self.chunk = Some(Chunk { entries: page.entries, more: page.more, before });
        }
        self.chunk.as_ref().map(|chunk| chunk.before)
    }

    /// The chunk has to wait, and maybe for a client that does not read: keeps a little of it. The rest is in the next one.
    pub(super) fn wait(&mut self) {
        let Some(chunk) = &mut self.chunk else { return };
        let mut room = WATCH_BATCH_BYTES / 4;
        let few = chunk.entries.iter().take_while(|entry| {
            let fits = room > 0;
            room = room.saturating_sub(entry.encoded_bytes());
            fits
        });
        let few = few.count();
        if few < chunk.entries.len() {
            chunk.entries.truncate(few);
            chunk.entries.shrink_to_fit();
            chunk.more = true;
        }
    }

    /// Tells the chunk, and whether it was the last.
    pub(super) fn tell(&mut self, batch: &mut Batch) -> bool {
        let Some(Chunk { entries, more, .. }) = mem::take(&mut self.chunk) else { return true };
        self.covered = entries.last().map(|last| last.key.clone()).or(self.covered.take());
        let identity = self.bucket.identity();
        for entry in entries {
            batch.push(Happening {
                refs: self.refs.clone(),
                name: Arc::clone(&identity.name),
                id: Some(identity.id.get()),
                what: NoticeKind::Put { entry, initial: true },
            });
        }
        !more
    }
}
