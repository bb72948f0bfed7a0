//! A bucket: a process that holds entries. Elixir's Agent, with versions.
//!
//! Every change takes the bucket's next version, which becomes the entry's. What a bucket holds is charged to the budget of
//! all buckets before it is allocated, and the charge goes with the bucket. It does not know the registry.

pub mod cost;

use std::{collections::BTreeMap, convert::Infallible, fmt, ops::Bound, sync::Arc, time::Duration};

use crate::{
    budget::{Charge, OverBudget},
    limits::Limits,
    name::{BucketId, Key, Version},
    process::{Call, Context, GenServer},
    value::Value,
};

/// What never changes about a bucket.
#[derive(Debug)]
pub struct Identity {
    /// Its name.
    pub name: Arc<str>,
    /// Its id.
    pub id: BucketId,
    /// When it was created, in wall-clock time since 1970.
    pub created_at: Duration,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "bucket {:?} ({})", self.name, self.id)
    }
}

/// The state of a bucket.
#[derive(Debug)]
pub struct Bucket {
    entries: BTreeMap<Box<str>, Record>,
    version: Version,
    charge: Charge,
}

#[derive(Debug)]
struct Record {
    value: Value,
    version: Version,
}

/// An entry, as it leaves its bucket.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its key.
    pub key: Box<str>,
    /// Its value; `None` where only keys were asked for.
    pub value: Option<Value>,
    /// The version of its last change.
    pub version: Version,
}

/// Why a bucket refused; it is as it was.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Error {
    /// There is no such entry.
    #[error("no such key")]
    KeyNotFound,
    /// The entry is not at the expected version.
    #[error("the entry is at version {actual}")]
    VersionMismatch {
        /// Where it is; 0 for absent.
        actual: Version,
    },
    /// It holds as many entries as it may.
    #[error("a bucket may hold {limit} entries")]
    TooManyEntries {
        /// How many that is.
        limit: usize,
    },
    /// It takes as many bytes as it may.
    #[error("a bucket may take {limit} bytes")]
    BucketFull {
        /// How many that is.
        limit: usize,
    },
    /// All buckets together take as many bytes as they may.
    #[error(transparent)]
    OverBudget(#[from] OverBudget),
}

/// What there is to say of a bucket besides its identity.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Summary {
    /// Its version.
    pub version: Version,
    /// How many entries it holds.
    pub entry_count: usize,
    /// How many bytes it is charged for.
    pub byte_size: usize,
}

impl Bucket {
    /// An empty bucket, for which [`cost::bucket`] was charged.
    #[must_use]
    pub fn new(charge: Charge) -> Self {
        Self { entries: BTreeMap::new(), version: Version::default(), charge }
    }

    /// What there is to say of it.
    #[must_use]
    pub fn summary(&self) -> Summary {
        Summary { version: self.version, entry_count: self.entries.len(), byte_size: self.charge.bytes() }
    }

    /// Gives back all that it was charged for, as its life ends; its memory is freed when it is dropped.
    pub fn release(&mut self) {
        self.charge.release();
    }

    /// Refuses where an entry is not at the version that the caller expects; `None` expects nothing.
    fn expect(&self, key: Key<'_>, expected: Option<Version>) -> Result<(), Error> {
        let Some(expected) = expected else { return Ok(()) };
        let actual = self.entries.get(key.as_str()).map_or(Version::default(), |record| record.version);
        if actual == expected { Ok(()) } else { Err(Error::VersionMismatch { actual }) }
    }

    /// Charges what a new value takes more than the old one does.
    fn reserve(&mut self, key: Key<'_>, value: &Value, limits: &Limits) -> Result<(), Error> {
        let old = self.entries.get(key.as_str());
        if old.is_none() && self.entries.len() >= limits.entries_max {
            return Err(Error::TooManyEntries { limit: limits.entries_max });
        }
        let entries = self.entries.len();
        let (old, place) = match old {
            Some(record) => (cost::value(&record.value), 0),
            None => (0, cost::key(key.as_str()) + cost::map(entries + 1) - cost::map(entries)),
        };
        let new = place + cost::value(value);
        if new <= old {
            self.charge.shrink(old - new);
            return Ok(());
        }
        if self.charge.bytes() + (new - old) > limits.bucket_bytes_max {
            return Err(Error::BucketFull { limit: limits.bucket_bytes_max });
        }
        Ok(self.charge.grow(new - old)?)
    }
}

impl GenServer for Bucket {
    type Identity = Identity;
    type Cast = Infallible;

    fn handle_cast(&mut self, cast: Infallible, _: &mut Context<'_, Self>) {
        match cast {}
    }
}

/// Asks for the [`Summary`].
#[derive(Clone, Copy, Debug)]
pub struct Describe;

impl Call<Describe> for Bucket {
    type Reply = Summary;

    fn handle_call(&mut self, _: Describe, _: &mut Context<'_, Self>) -> Summary {
        self.summary()
    }
}

/// Sets an entry.
#[derive(Debug)]
pub struct Put<'a> {
    /// The key.
    pub key: Key<'a>,
    /// The value.
    pub value: Value,
    /// The version that the entry must have; 0 for absent, `None` for any.
    pub expected: Option<Version>,
    /// The bounds to keep.
    pub limits: &'a Limits,
}

impl Call<Put<'_>> for Bucket {
    type Reply = Result<Version, Error>;

    fn handle_call(&mut self, put: Put<'_>, _: &mut Context<'_, Self>) -> Result<Version, Error> {
        crash_if_asked(put.key);
        self.expect(put.key, put.expected)?;
        self.reserve(put.key, &put.value, put.limits)?;
        self.version = self.version.next();
        let record = Record { value: put.value, version: self.version };
        // An entry that is there keeps its key: to put again allocates nothing.
        match self.entries.get_mut(put.key.as_str()) {
            Some(old) => *old = record,
            None => drop(self.entries.insert(put.key.as_str().into(), record)),
        }
        Ok(self.version)
    }
}

/// Reads an entry.
#[derive(Clone, Copy, Debug)]
pub struct Get<'a> {
    /// The key.
    pub key: Key<'a>,
}

impl Call<Get<'_>> for Bucket {
    type Reply = Result<(Value, Version), Error>;

    fn handle_call(&mut self, get: Get<'_>, _: &mut Context<'_, Self>) -> Result<(Value, Version), Error> {
        crash_if_asked(get.key);
        let record = self.entries.get(get.key.as_str()).ok_or(Error::KeyNotFound)?;
        Ok((record.value.clone(), record.version))
    }
}

/// Removes an entry, if it is there.
#[derive(Clone, Copy, Debug)]
pub struct Delete<'a> {
    /// The key.
    pub key: Key<'a>,
    /// The version that the entry must have; 0 for absent, `None` for any.
    pub expected: Option<Version>,
}

/// What a [`Delete`] did.
#[derive(Debug)]
pub struct Deleted {
    /// The entry that was removed.
    pub entry: Option<Entry>,
    /// The bucket's version now.
    pub version: Version,
}

impl Call<Delete<'_>> for Bucket {
    type Reply = Result<Deleted, Error>;

    fn handle_call(&mut self, delete: Delete<'_>, _: &mut Context<'_, Self>) -> Result<Deleted, Error> {
        crash_if_asked(delete.key);
        self.expect(delete.key, delete.expected)?;
        let before = cost::map(self.entries.len());
        let entry = self.entries.remove_entry(delete.key.as_str()).map(|(key, record)| {
            let place = before - cost::map(self.entries.len());
            self.charge.shrink(place + cost::key(&key) + cost::value(&record.value));
            self.version = self.version.next();
            Entry { key, value: Some(record.value), version: record.version }
        });
        Ok(Deleted { entry, version: self.version })
    }
}

/// Whether a [`Scan`] returns values.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Values {
    /// It does.
    Included,
    /// Keys and versions only.
    LeftOut,
}

/// Reads entries in the order of their keys.
#[derive(Clone, Copy, Debug)]
pub struct Scan<'a> {
    /// Only keys that begin with this.
    pub prefix: &'a str,
    /// Only keys after this one.
    pub after: Option<&'a str>,
    /// How many at most; at least 1.
    pub items_max: usize,
    /// Stop before keys and values exceed this, in bytes; one entry is always returned.
    pub bytes_max: usize,
    /// Whether values are returned.
    pub values: Values,
}

/// A page of entries.
#[derive(Debug)]
pub struct ScanPage {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Whether there are more.
    pub more: bool,
    /// The bucket's version at this page.
    pub version: Version,
}

impl Call<Scan<'_>> for Bucket {
    type Reply = ScanPage;

    fn handle_call(&mut self, scan: Scan<'_>, _: &mut Context<'_, Self>) -> ScanPage {
        let from = match scan.after {
            Some(after) if after >= scan.prefix => Bound::Excluded(after),
            _ => Bound::Included(scan.prefix),
        };
        let mut found = self
            .entries
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(key, _)| key.starts_with(scan.prefix))
            .peekable();
        let mut entries = Vec::new();
        let mut bytes = 0;
        while let Some((key, record)) = found.peek() {
            let value = (scan.values == Values::Included).then_some(&record.value);
            bytes += key.len() + value.map_or(0, Value::heap_bytes) + ENTRY_ENCODED_BYTES;
            if entries.len() >= scan.items_max || (bytes > scan.bytes_max && !entries.is_empty()) {
                break;
            }
            entries.push(Entry { key: (*key).clone(), value: value.cloned(), version: record.version });
            found.next();
        }
        ScanPage { more: found.peek().is_some(), entries, version: self.version }
    }
}

/// More than an encoded entry ever has besides its key and a text or data: tags, lengths, a version, a time.
const ENTRY_ENCODED_BYTES: usize = 80;

/// The tests of what a crash does need one that is real.
fn crash_if_asked(key: Key<'_>) {
    #[cfg(any(test, feature = "test-hooks"))]
    crate::hooks::trip(key.as_str());
    let _ = key;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        budget::Budget,
        process::{Process, Reason},
    };

    fn limits() -> Limits {
        Limits { entries_max: 2, bucket_bytes_max: 2_000, ..Limits::default() }
    }

    fn bucket(budget: &Arc<Budget>) -> Process<Bucket> {
        let id = crate::name::Revision::new(1 << 40).as_id();
        let identity = Identity { name: "b".into(), id, created_at: Duration::ZERO };
        Process::start_as(id.into(), identity, Bucket::new(budget.charge(cost::bucket("b")).unwrap()))
    }

    fn key(text: &str) -> Key<'_> {
        Key::parse(text, &Limits::default()).unwrap()
    }

    fn put(bucket: &Process<Bucket>, at: &str, text: &str, expected: Option<u64>) -> Result<Version, Error> {
        let value = Value::Text(text.into());
        bucket.call(Put { key: key(at), value, expected: expected.map(Version), limits: &limits() }).unwrap()
    }

    fn summary(bucket: &Process<Bucket>) -> (u64, usize, usize) {
        let summary = bucket.call(Describe).unwrap();
        (summary.version.0, summary.entry_count, summary.byte_size)
    }

    #[test]
    fn each_change_takes_the_next_version_also_a_put_of_an_equal_value() {
        let bucket = bucket(&Budget::new(10_000));
        assert_eq!(put(&bucket, "a", "1", None), Ok(Version(1)));
        assert_eq!(put(&bucket, "a", "1", None), Ok(Version(2)));
        assert_eq!(put(&bucket, "b", "1", None), Ok(Version(3)));
        let deleted = bucket.call(Delete { key: key("a"), expected: None }).unwrap().unwrap();
        assert_eq!((deleted.version, deleted.entry.unwrap().version), (Version(4), Version(2)));
        let deleted = bucket.call(Delete { key: key("a"), expected: None }).unwrap().unwrap();
        assert!(deleted.entry.is_none() && deleted.version == Version(4), "what is absent changes nothing");
    }

    #[test]
    fn an_expected_version_is_kept_or_nothing_changes() {
        let bucket = bucket(&Budget::new(10_000));
        let mismatch = |actual| Err(Error::VersionMismatch { actual: Version(actual) });
        assert_eq!(put(&bucket, "a", "1", Some(7)), mismatch(0));
        assert_eq!(put(&bucket, "a", "1", Some(0)), Ok(Version(1)));
        assert_eq!(put(&bucket, "a", "2", Some(0)), mismatch(1));
        assert_eq!(put(&bucket, "a", "2", Some(1)), Ok(Version(2)));
        let delete = |at, version| {
            bucket
                .call(Delete { key: key(at), expected: Some(Version(version)) })
                .unwrap()
                .map(|deleted| deleted.version)
        };
        assert_eq!(delete("a", 1), mismatch(2));
        assert_eq!(delete("absent", 1), mismatch(0));
        assert_eq!(delete("absent", 0), Ok(Version(2)));
        assert_eq!(delete("a", 2), Ok(Version(3)));
    }

    #[test]
    fn a_refused_put_charges_nothing_and_a_death_gives_back_what_was_charged() {
        let entry = |text: &str| cost::key("k") + cost::value(&Value::Text(text.into()));
        let (small, large) = ("x".repeat(100), "x".repeat(2_000));
        let one = cost::bucket("b") + cost::map(1) + entry(&small);
        let limit = cost::bucket("b") + cost::map(2) + 2 * entry(&small);
        let budget = Budget::new(limit);
        let bucket = bucket(&budget);
        put(&bucket, "a", &small, None).unwrap();
        assert_eq!(summary(&bucket), (1, 1, one));

        assert_eq!(put(&bucket, "b", &"x".repeat(200), None), Err(OverBudget { limit }.into()));
        assert_eq!(put(&bucket, "a", &large, None), Err(Error::BucketFull { limit: 2_000 }));
        assert_eq!((summary(&bucket), budget.used()), ((1, 1, one), one));

        put(&bucket, "b", &small, None).unwrap();
        assert_eq!(budget.used(), limit, "to the last byte");
        put(&bucket, "a", "", None).unwrap();
        assert_eq!(put(&bucket, "c", "", None), Err(Error::TooManyEntries { limit: 2 }));
        bucket.call(Delete { key: key("b"), expected: None }).unwrap().unwrap();
        assert_eq!(summary(&bucket), (4, 1, one - cost::value(&Value::Text(small.into()))));
        bucket.call(Delete { key: key("a"), expected: None }).unwrap().unwrap();
        assert_eq!(budget.used(), cost::bucket("b"));

        put(&bucket, "a", "1", None).unwrap();
        bucket.stop(&Reason::Normal.into()).unwrap();
        drop(bucket.take_remains());
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn a_scan_is_ordered_bytewise_by_pages_and_survives_the_deletion_of_its_key() {
        let bucket = bucket(&Budget::new(100_000));
        let many = Limits::default();
        for at in ["b", "a/2", "a/1", "a", "a/10", "é", "Z"] {
            let value = Value::Integer(1);
            bucket.call(Put { key: key(at), value, expected: None, limits: &many }).unwrap().unwrap();
        }
        let scan = |prefix, after, items_max| {
            let scan = Scan { prefix, after, items_max, bytes_max: 1_000, values: Values::Included };
            let page = bucket.call(scan).unwrap();
            (page.entries.into_iter().map(|entry| entry.key.into_string()).collect::<Vec<_>>(), page.more)
        };
        let page = |keys: &[&str], more| (keys.iter().map(ToString::to_string).collect::<Vec<_>>(), more);
        assert_eq!(scan("", None, 10), page(&["Z", "a", "a/1", "a/10", "a/2", "b", "é"], false));
        assert_eq!(scan("a/", None, 2), page(&["a/1", "a/10"], true));
        bucket.call(Delete { key: key("a/10"), expected: None }).unwrap().unwrap();
        assert_eq!(scan("a/", Some("a/10"), 2), page(&["a/2"], false));
        assert_eq!(scan("c", None, 2), page(&[], false));
    }

    #[test]
    fn a_page_ends_before_it_is_too_large_but_has_one_entry() {
        let bucket = bucket(&Budget::new(100_000));
        put(&bucket, "a", &"x".repeat(190), None).unwrap();
        put(&bucket, "b", &"x".repeat(190), None).unwrap();
        let page = |bytes_max, values| {
            let page = bucket.call(Scan { prefix: "", after: None, items_max: 10, bytes_max, values }).unwrap();
            (page.entries.len(), page.more)
        };
        assert_eq!(page(1, Values::Included), (1, true));
        assert_eq!(page(500, Values::Included), (1, true));
        assert_eq!(page(500, Values::LeftOut), (2, false));
        assert_eq!(page(1_000, Values::Included), (2, false));
    }

    #[test]
    fn a_number_comes_back_with_all_its_bits() {
        let bucket = bucket(&Budget::new(10_000));
        let nan = f64::from_bits(0x7ff8_dead_beef_0001);
        let value = Value::Number(nan);
        bucket.call(Put { key: key("nan"), value, expected: None, limits: &limits() }).unwrap().unwrap();
        let (value, _) = bucket.call(Get { key: key("nan") }).unwrap().unwrap();
        assert!(matches!(value, Value::Number(number) if number.to_bits() == nan.to_bits()));
    }
}
