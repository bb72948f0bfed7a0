//! The state of a bucket, and the few ways in which it changes.
//!
//! Every change of an entry is an [`exchange`](Bucket::exchange) of what is kept under one key, which keeps the charge true.
//! What a change frees is given back when the whole call has succeeded: so what must be put back after a failure always
//! has its room.

use std::{
    cmp::Ordering::{Equal, Greater, Less},
    collections::BTreeMap,
    ops::Bound,
    sync::Arc,
};

use once_cell::race::OnceBox;

use super::{
    Change, ChangeKind, Entry, Env, Error, Identity, Position, Scan, ScanPage, Summary, Values, cost, times::Times,
};
use crate::{
    budget::Owner,
    name::{BucketId, Key, Version, page_begin},
    planted::{Bug, strikes},
    process::{Context, Reason},
    sync::Ordering::Relaxed,
    time_to_live::{Due, Ttl},
    value::Value,
};

/// The state of a bucket.
#[derive(Debug)]
pub struct Bucket {
    env: Arc<Env>,
    /// Whose quota it is charged to as well, until it is released.
    owner: Option<Arc<Owner>>,
    entries: BTreeMap<Box<str>, Kept>,
    /// Boxed, and only there once something has a time to live: most buckets have none.
    times: Option<Box<Times>>,
    version: Version,
    /// What of the budget it has; given back when it is dropped.
    charged: usize,
    /// Part of that which is given back at the end of the call.
    freed: usize,
    /// Boxed, and only there in a call that changes something that is watched.
    record: Option<Box<Record>>,
}

/// What the call at hand has changed, for those who watch.
#[derive(Debug)]
struct Record {
    name: Arc<str>,
    id: BucketId,
    changes: Vec<Change>,
}

#[derive(Debug)]
struct Kept {
    value: Value,
    version: Version,
    /// What was there before; for [`Bug::StaleRead`].
    #[cfg(feature = "planted-bugs")]
    before: Option<(Value, Version)>,
}

/// All that is kept under one key.
#[derive(Clone, Debug)]
pub struct Slot {
    /// The value.
    pub value: Value,
    /// The version of its last change.
    pub version: Version,
    /// When it falls due.
    pub due: Due,
}

impl Bucket {
    /// An empty bucket of this name, of which one of `owner`'s buckets is taken.
    ///
    /// # Errors
    /// [`Error::OverBudget`] or [`Error::OverQuota`], where there is no memory for it.
    pub fn new(name: &str, env: &Arc<Env>, owner: Option<Arc<Owner>>) -> Result<Self, Error> {
        let (entries, version) = (BTreeMap::new(), Version::default());
        let mut bucket =
            Self { env: Arc::clone(env), owner, entries, times: None, version, charged: 0, freed: 0, record: None };
        env.budget.admit(cost::bucket(name))?;
        bucket.charge(cost::bucket(name))?;
        Ok(bucket)
    }

    fn charge(&mut self, bytes: usize) -> Result<(), Error> {
        if let Some(owner) = &self.owner {
            owner.bytes.take(bytes)?;
        }
        if let Err(over) = self.env.budget.reserve(bytes) {
            if let Some(owner) = &self.owner {
                owner.bytes.give_back(bytes);
            }
            return Err(over.into());
        }
        self.charged += bytes;
        Ok(())
    }

    fn discharge(&mut self, bytes: usize) {
        self.charged -= bytes;
        self.env.budget.give_back(bytes);
        if let Some(owner) = &self.owner {
            owner.bytes.give_back(bytes);
        }
    }

    /// What there is to say of it.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary {
            version: self.version,
            entry_count: self.entries.len(),
            byte_size: self.charged - self.freed,
            due: self.times.as_ref().map_or(Due::NEVER, |times| times.bucket()),
        }
    }

    /// Gives back all that it was charged for, as its life ends, and says how much; its memory is freed when it is dropped.
    pub fn release(&mut self) -> usize {
        let bytes = self.charged;
        // What has no charge was released before, or is not there yet.
        if bytes > 0 {
            self.discharge(bytes);
            self.env.entries.fetch_sub(self.entries.len(), Relaxed);
        }
        if let Some(owner) = self.owner.take() {
            owner.buckets.give_back(1);
        }
        bytes
    }

    /// Sees to what is due, and then looks.
    pub(super) fn look<R>(&mut self, me: &mut Context<'_, Self>, look: impl FnOnce(&Self) -> R) -> Result<R, Error> {
        self.expire(me)?;
        let result = look(self);
        self.settle(me);
        Ok(result)
    }

    /// Sees to what is due, and then does what a client asked for: a use of the bucket, also where it is refused.
    pub(super) fn used<R>(
        &mut self,
        me: &mut Context<'_, Self>,
        work: impl FnOnce(&mut Self) -> Result<R, Error>,
    ) -> Result<R, Error> {
        self.expire(me)?;
        if let Some(times) = &mut self.times
            && times.idle_ttl.is_some()
            && times.holders == 0
        {
            times.idle = self.env.timeline.due(times.idle_ttl);
        }
        let result = work(self);
        self.settle(me);
        result
    }

    /// The same, where what is done may change entries.
    pub(super) fn change<R>(
        &mut self,
        me: &mut Context<'_, Self>,
        work: impl FnOnce(&mut Self) -> Result<R, Error>,
    ) -> Result<R, Error> {
        self.record(me);
        self.used(me, work)
    }

    /// Keeps a record of what this call changes, if anyone watches the bucket.
    fn record(&mut self, me: &Context<'_, Self>) {
        let Identity { name, id, .. } = me.process().identity();
        if self.record.is_none() && self.env.ring.wants(name) {
            self.record = Some(Box::new(Record { name: Arc::clone(name), id: *id, changes: Vec::new() }));
        }
    }

    /// Ends what is past its time: the bucket, or entries of it.
    fn expire(&mut self, me: &mut Context<'_, Self>) -> Result<(), Error> {
        let Some(times) = &self.times else { return Ok(()) };
        if times.first() == Due::NEVER {
            return Ok(());
        }
        let now = self.env.timeline.now();
        if times.bucket() <= now {
            me.stop(Reason::Expired.into());
            return Err(Error::Expired);
        }
        if times.first() <= now {
            self.record(me);
        }
        while let Some(key) = self.times.as_ref().and_then(|times| times.expired(now)) {
            self.version = self.version.next();
            // To take something out needs no room.
            self.exchange(&key, None)?;
            self.note(&key, || ChangeKind::Expired);
        }
        Ok(())
    }

    /// Notes a change that has just taken the bucket's version.
    fn note(&mut self, key: &str, kind: impl FnOnce() -> ChangeKind) {
        let Some(record) = &mut self.record else { return };
        let (name, key) = (Arc::clone(&record.name), key.into());
        record.changes.push(Change {
            name,
            id: record.id,
            key,
            version: self.version,
            kind: kind(),
            more: false,
            wire: OnceBox::new(),
        });
    }

    /// Tells those who watch, gives back what was freed, and has the alarm go off no later than what is due first.
    fn settle(&mut self, me: &Context<'_, Self>) {
        if let Some(record) = self.record.take() {
            self.env.ring.append(record.changes);
        }
        let freed = std::mem::take(&mut self.freed);
        self.discharge(freed);
        let Some(times) = &mut self.times else { return };
        let first = times.first();
        if first < times.alarm {
            let id = me.process().identity().id;
            self.env.alarms.set(id, times.alarm, first, || me.process().downgrade());
            (times.alarm, times.alarm_id) = (first, Some(id));
        }
    }

    /// How far the ring is.
    pub(super) fn position(&self) -> Position {
        self.env.ring.end()
    }

    /// Begins the bucket's own times to live.
    pub(super) fn live(&mut self, me: &Context<'_, Self>, ttl: Option<Ttl>, idle_ttl: Option<Ttl>) {
        let (life, idle) = (self.env.timeline.due(ttl), self.env.timeline.due(idle_ttl));
        let times = self.times.get_or_insert_default();
        (times.life, times.idle, times.idle_ttl) = (life, idle, idle_ttl);
        self.settle(me);
    }

    /// Lets the idle time stand still until as many have released the bucket as hold it.
    pub(super) fn hold(&mut self) {
        // Only a bucket with an idle time needs to know; it has had it from the start.
        if let Some(times) = &mut self.times
            && times.idle_ttl.is_some()
        {
            times.holders += 1;
            times.idle = Due::NEVER;
        }
    }

    /// Begins the idle time anew, if nobody holds the bucket any more.
    pub(super) fn unhold(&mut self) {
        if let Some(times) = &mut self.times
            && times.idle_ttl.is_some()
        {
            times.holders = times.holders.saturating_sub(1);
            if times.holders == 0 {
                times.idle = self.env.timeline.due(times.idle_ttl);
            }
        }
    }

    pub(super) fn alarm_went_off(&mut self) {
        if let Some(times) = &mut self.times {
            times.alarm = Due::NEVER;
        }
    }

    pub(super) fn cancel_alarm(&mut self) {
        if let Some(times) = &mut self.times
            && let Some(id) = times.alarm_id
        {
            let alarm = std::mem::replace(&mut times.alarm, Due::NEVER);
            self.env.alarms.set(id, alarm, Due::NEVER, || unreachable!("no alarm is set"));
        }
    }

    /// When something falls due that is given so long from now.
    pub(super) fn due(&self, ttl: Option<Ttl>) -> Due {
        self.env.timeline.due(ttl)
    }

    /// Refuses where an entry is not at the version that the caller expects; `None` expects nothing.
    pub(super) fn expect(&self, key: Key<'_>, expected: Option<Version>) -> Result<(), Error> {
        let Some(expected) = expected else { return Ok(()) };
        let actual = self.version_of(key);
        if actual == expected { Ok(()) } else { Err(Error::VersionMismatch { actual }) }
    }

    /// An entry's version; 0 for absent.
    pub(super) fn version_of(&self, key: Key<'_>) -> Version {
        self.entries.get(key.as_str()).map_or(Version::default(), |kept| kept.version)
    }

    /// An entry's value.
    pub(super) fn value_of(&self, key: Key<'_>) -> Option<&Value> {
        self.entries.get(key.as_str()).map(|kept| &kept.value)
    }

    pub(super) fn get(&self, key: Key<'_>) -> Option<Slot> {
        let kept = self.entries.get(key.as_str())?;
        let (value, version) = (&kept.value, &kept.version);
        #[cfg(feature = "planted-bugs")]
        let (value, version) = match &kept.before {
            Some((value, version)) if strikes(Bug::StaleRead) => (value, version),
            _ => (value, version),
        };
        Some(Slot { value: value.clone(), version: *version, due: self.due_of(key.as_str()) })
    }

    pub(super) fn put(&mut self, key: Key<'_>, value: Value, due: Due) -> Result<Version, Error> {
        let next = self.version.next();
        if strikes(Bug::LostPut) {
            self.version = next;
            return Ok(next);
        }
        if strikes(Bug::LostMemory) {
            std::hint::black_box(vec![1_u8; 64 << 10].leak());
        }
        let version = if strikes(Bug::ReorderedVersions) { next.next() } else { next };
        // Those who watch have a copy of their own.
        let copy = self.record.is_some().then(|| value.clone());
        // Also in the place of something as large: an allocator may have no use for what that leaves.
        self.env.budget.admit(cost::key(key.as_str()) + cost::value(&value))?;
        self.exchange(key.as_str(), Some(Slot { value, version, due }))?;
        self.version = next;
        if let Some(value) = copy {
            self.note(key.as_str(), || ChangeKind::Put { value, due });
        }
        Ok(version)
    }

    pub(super) fn delete(&mut self, key: Key<'_>) -> Result<Option<Entry>, Error> {
        let Some(slot) = self.exchange(key.as_str(), None)? else { return Ok(None) };
        self.version = self.version.next();
        self.note(key.as_str(), || ChangeKind::Deleted);
        Ok(Some(Entry::new(key, slot)))
    }

    pub(super) fn add(&mut self, key: Key<'_>, delta: i64, ttl: Option<Ttl>) -> Result<(i64, Version), Error> {
        let old = match self.value_of(key) {
            None => 0,
            Some(Value::Integer(integer)) => *integer,
            Some(_) => return Err(Error::WrongType),
        };
        let sum = old.checked_add(delta).ok_or(Error::IntegerOverflow)?;
        let due = if ttl.is_some() { self.due(ttl) } else { self.due_of(key.as_str()) };
        Ok((sum, self.put(key, Value::Integer(sum), due)?))
    }

    /// Sets when an entry falls due, and nothing else of it.
    pub(super) fn touch(&mut self, key: Key<'_>, ttl: Option<Ttl>) -> Result<Due, Error> {
        if self.value_of(key).is_none() {
            return Err(Error::KeyNotFound);
        }
        let (key, due) = (key.as_str(), self.due(ttl));
        self.charge_for(cost_of_due(key, self.due_of(key)), cost_of_due(key, due))?;
        self.times.get_or_insert_default().set(key, due);
        Ok(due)
    }

    /// Sets when the bucket falls due.
    pub(super) fn touch_self(&mut self, ttl: Option<Ttl>) -> Due {
        let due = self.due(ttl);
        let times = self.times.get_or_insert_default();
        times.life = due;
        times.bucket()
    }

    fn due_of(&self, key: &str) -> Due {
        self.times.as_ref().map_or(Due::NEVER, |times| times.entry(key))
    }

    pub(super) fn scan(&self, scan: Scan<'_>) -> ScanPage {
        let mut found = self
            .entries
            .range::<str, _>((page_begin(scan.prefix, scan.after), Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(scan.prefix))
            .peekable();
        let mut entries = Vec::new();
        let mut bytes = 0;
        while let Some((key, kept)) = found.peek() {
            let value = (scan.values == Values::Included).then_some(&kept.value);
            bytes += key.len() + value.map_or(0, Value::heap_bytes) + ENTRY_ENCODED_BYTES;
            if entries.len() >= scan.items_max || (bytes > scan.bytes_max && !entries.is_empty()) {
                break;
            }
            let (key, value) = ((*key).clone(), value.cloned());
            entries.push(Entry { due: self.due_of(&key), key, value, version: kept.version });
            found.next();
        }
        ScanPage { more: found.peek().is_some(), entries, version: self.version }
    }

    /// Puts `new` in the place of what is kept under `key`, and returns that. Where there is no room for it, nothing has
    /// changed.
    pub(super) fn exchange(&mut self, key: &str, new: Option<Slot>) -> Result<Option<Slot>, Error> {
        let entries = self.entries.len();
        let old = self.entries.get(key);
        let old_due = self.due_of(key);
        if old.is_none() && new.is_some() && entries >= self.env.limits.entries_max {
            return Err(Error::TooManyEntries { limit: self.env.limits.entries_max });
        }
        let place = |there: bool, entries| if there { cost::key(key) + cost::map(entries) } else { cost::map(entries) };
        let after = entries + usize::from(new.is_some()) - usize::from(old.is_some());
        let had =
            place(old.is_some(), entries) + old.map_or(0, |kept| cost::value(&kept.value) + cost_of_due(key, old_due));
        let has = place(new.is_some(), after)
            + new.as_ref().map_or(0, |slot| cost::value(&slot.value) + cost_of_due(key, slot.due));
        self.charge_for(had, has)?;

        match after.cmp(&entries) {
            Equal => {}
            Greater => _ = self.env.entries.fetch_add(1, Relaxed),
            Less => _ = self.env.entries.fetch_sub(1, Relaxed),
        }
        let new_due = new.as_ref().map_or(Due::NEVER, |slot| slot.due);
        if old_due != new_due {
            self.times.get_or_insert_default().set(key, new_due);
        }
        let old = match new {
            None => self.entries.remove(key),
            Some(Slot { value, version, .. }) => {
                let kept = Kept {
                    value,
                    version,
                    #[cfg(feature = "planted-bugs")]
                    before: self.entries.get(key).map(|kept| (kept.value.clone(), kept.version)),
                };
                // An entry that is there keeps its key: to put again allocates nothing.
                match self.entries.get_mut(key) {
                    Some(there) => Some(std::mem::replace(there, kept)),
                    None => self.entries.insert(key.into(), kept),
                }
            }
        };
        Ok(old.map(|Kept { value, version, .. }| Slot { value, version, due: old_due }))
    }

    /// Charges for what takes `has` bytes and took `had`. What is freed is kept until the call is over.
    fn charge_for(&mut self, had: usize, has: usize) -> Result<(), Error> {
        if has <= had {
            self.freed += had - has;
            return Ok(());
        }
        let more = (has - had).saturating_sub(self.freed);
        if self.charged + more > self.env.limits.bucket_bytes_max {
            return Err(Error::BucketFull { limit: self.env.limits.bucket_bytes_max });
        }
        self.charge(more)?;
        self.freed = self.freed.saturating_sub(has - had);
        Ok(())
    }

    /// Sets the version back, after everything else was put back: nothing has happened since.
    pub(super) fn rewind(&mut self, version: Version) {
        self.version = version;
        if let Some(record) = &mut self.record {
            record.changes.retain(|change| change.version <= version);
        }
    }
}

impl Drop for Bucket {
    fn drop(&mut self) {
        self.release();
    }
}

fn cost_of_due(key: &str, due: Due) -> usize {
    if due == Due::NEVER { 0 } else { cost::due(key) }
}

/// More than an encoded entry ever has besides its key and a text or data: tags, lengths, a version, a time.
pub(super) const ENTRY_ENCODED_BYTES: usize = 80;
