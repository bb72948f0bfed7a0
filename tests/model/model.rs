//! What pail promises, as naively as it can be written: maps, a list of events, and no concurrency at all. It answers with the
//! contract's own messages, so that nothing is lost in translation; an error is its reason.

use std::collections::BTreeMap;

use pail::{
    hooks,
    pb::{
        self, Reason, event::Event, pipeline_op::Op, pipeline_result::Result as Done, transact_check::Condition,
        transact_op::Op as Step, value::Kind,
    },
};
use prost::Message as _;

use crate::watch::{Heard, Watch};

/// Small bounds, so that they are met.
pub(crate) const BUCKETS_MAX: usize = 4;
pub(crate) const ENTRIES_MAX: usize = 3;
pub(crate) const VALUE_BYTES_MAX: usize = 16;
pub(crate) const HISTORY_EVENTS_MAX: usize = 30;
pub(crate) const WATCHES_MAX: usize = 3;

/// The wall clock as a case begins, in microseconds since 1970; and the registry's first revision.
pub(crate) const BEGIN: u64 = 1_800_000_000_000_000;

/// Where a request has this for a page token, it means the last one that was given.
pub(crate) const LAST_TOKEN: &str = "last";

pub(crate) type Answer = Result<Done, &'static str>;

/// One thing that a client, or time, does.
#[derive(Clone, Debug)]
pub(crate) enum Transition {
    Call(Op),
    Pipeline(Vec<pb::PipelineOp>),
    /// So many milliseconds pass; and whether the timer runs, or what is due is left for those who meet it.
    Pass {
        millis: u64,
        timer: bool,
    },
    Watch(pb::WatchRequest),
}

/// What pail must have done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Outcome {
    /// Of a Call one, of a Pipeline one for each op.
    pub(crate) answers: Vec<Answer>,
    /// Of a Watch that was refused.
    pub(crate) refused: Option<&'static str>,
    /// What each open Watch heard, the last one opened last.
    pub(crate) heard: Vec<Heard>,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    value: pb::Value,
    version: u64,
    due: Option<u64>,
}

#[derive(Clone, Debug)]
pub(crate) struct Bucket {
    pub(crate) id: u64,
    pub(crate) version: u64,
    created_at: u64,
    life: Option<u64>,
    idle_ttl: Option<u64>,
    idle: Option<u64>,
    pub(crate) entries: BTreeMap<String, Entry>,
}

#[derive(Clone, Debug)]
pub(crate) struct Model {
    pub(crate) now: u64,
    pub(crate) revision: u64,
    pub(crate) buckets: BTreeMap<String, Bucket>,
    /// Every lifecycle event there ever was.
    pub(crate) log: Vec<Event>,
    /// Every bucket there ever was.
    pub(crate) ids: Vec<u64>,
    /// What a List, or a Scan, goes on with: whose it is, its arguments, the last item, the first page's revision.
    list_token: Option<(String, String, u64)>,
    scan_token: Option<(u64, String, bool, String)>,
    pub(crate) watches: Vec<Watch>,
    /// What has happened in this step.
    news: Vec<Event>,
    pub(crate) outcome: Outcome,
}

impl Default for Model {
    fn default() -> Self {
        Self {
            now: BEGIN,
            revision: BEGIN,
            buckets: BTreeMap::new(),
            log: Vec::new(),
            ids: Vec::new(),
            list_token: None,
            scan_token: None,
            watches: Vec::new(),
            news: Vec::new(),
            outcome: Outcome::default(),
        }
    }
}

impl Entry {
    /// As the contract has it; keys only has no value.
    fn shown(&self, key: &str, with_value: bool) -> pb::Entry {
        let (key, value) = (key.to_owned(), with_value.then(|| self.value.clone()));
        pb::Entry { key, value, version: self.version, expire_time: self.due.map(timestamp) }
    }
}

impl Bucket {
    fn due(&self) -> Option<u64> {
        [self.life, self.idle].into_iter().flatten().min()
    }

    fn shown(&self, name: &str) -> pb::Bucket {
        pb::Bucket {
            name: name.to_owned(),
            id: self.id,
            create_revision: self.id,
            version: self.version,
            entry_count: self.entries.len() as u64,
            byte_size: 0,
            create_time: Some(timestamp(self.created_at)),
            expire_time: self.due().map(timestamp),
            link_count: 0,
        }
    }

    fn version_of(&self, key: &str) -> u64 {
        self.entries.get(key).map_or(0, |entry| entry.version)
    }

    /// The entries under a prefix, as a Watch tells them when it begins.
    pub(crate) fn initial(&self, name: &str, key_prefix: &str, with_values: bool) -> Vec<Event> {
        let entries = self.entries.iter().filter(|(key, _)| key.starts_with(key_prefix));
        let put = |(key, entry): (&String, &Entry)| {
            let (bucket, entry) = (name.to_owned(), Some(entry.shown(key, with_values)));
            Event::Put(pb::PutEvent { r#ref: 0, bucket, bucket_id: self.id, entry, initial: true })
        };
        entries.map(put).collect()
    }

    fn put(&mut self, name: &str, key: &str, value: pb::Value, due: Option<u64>, news: &mut Vec<Event>) -> Checked<()> {
        if !self.entries.contains_key(key) && self.entries.len() >= ENTRIES_MAX {
            return Err("TOO_MANY_ENTRIES");
        }
        self.version += 1;
        let entry = Entry { value, version: self.version, due };
        let (bucket, shown) = (name.to_owned(), Some(entry.shown(key, true)));
        news.push(Event::Put(pb::PutEvent { r#ref: 0, bucket, bucket_id: self.id, entry: shown, initial: false }));
        self.entries.insert(key.to_owned(), entry);
        Ok(())
    }

    fn delete(&mut self, name: &str, key: &str, expired: bool, news: &mut Vec<Event>) -> Option<Entry> {
        let entry = self.entries.remove(key)?;
        self.version += 1;
        let (bucket, key) = (name.to_owned(), key.to_owned());
        let (bucket_id, version) = (self.id, self.version);
        news.push(Event::Deleted(pb::DeletedEvent { r#ref: 0, bucket, bucket_id, key, version, expired }));
        Some(entry)
    }

    fn add(&mut self, name: &str, key: &str, delta: i64, due: Option<u64>, news: &mut Vec<Event>) -> Checked<i64> {
        let (old, kept) = match self.entries.get(key) {
            None => (0, None),
            Some(Entry { value: pb::Value { kind: Some(Kind::Integer(integer)) }, due, .. }) => (*integer, *due),
            Some(_) => return Err("WRONG_TYPE"),
        };
        let sum = old.checked_add(delta).ok_or("INTEGER_OVERFLOW")?;
        self.put(name, key, pb::Value { kind: Some(Kind::Integer(sum)) }, due.or(kept), news)?;
        Ok(sum)
    }

    fn expects(&self, key: &str, expected: Option<u64>) -> Checked<()> {
        if expected.is_none_or(|expected| expected == self.version_of(key)) { Ok(()) } else { Err("VERSION_MISMATCH") }
    }

    fn holds(&self, check: &pb::TransactCheck) -> bool {
        let there = self.entries.get(&check.key);
        match check.condition.as_ref().unwrap() {
            Condition::VersionEquals(version) => self.version_of(&check.key) == *version,
            Condition::Present(present) => there.is_some() == *present,
            // To the bit: a NaN is equal to itself.
            Condition::ValueEquals(value) => {
                there.is_some_and(|there| there.value.encode_to_vec() == value.encode_to_vec())
            }
        }
    }

    fn step(&mut self, name: &str, step: &Step, now: u64, news: &mut Vec<Event>) -> Checked<pb::TransactResult> {
        let entry = match step {
            Step::Put(put) => {
                self.put(name, &put.key, put.value.clone().unwrap(), due(now, put.ttl), news)?;
                self.entries.get(&put.key).map(|entry| entry.shown(&put.key, true))
            }
            Step::Delete(delete) => {
                self.delete(name, &delete.key, false, news).map(|entry| entry.shown(&delete.key, true))
            }
            Step::Add(add) => {
                self.add(name, &add.key, add.delta, due(now, add.ttl), news)?;
                self.entries.get(&add.key).map(|entry| entry.shown(&add.key, true))
            }
            Step::Get(get) => self.entries.get(&get.key).map(|entry| entry.shown(&get.key, true)),
        };
        Ok(pb::TransactResult { entry })
    }
}

type Checked<T> = Result<T, &'static str>;

fn name(text: &str) -> Checked<&str> {
    if text.is_empty() || text.chars().any(char::is_control) { Err("INVALID_NAME") } else { Ok(text) }
}

fn key(text: &str) -> Checked<&str> {
    if text.is_empty() { Err("INVALID_KEY") } else { Ok(text) }
}

fn ttl(ttl: Option<prost_types::Duration>) -> Checked<()> {
    match ttl {
        Some(ttl) if ttl.seconds != 0 || ttl.nanos < 1_000_000 => Err("INVALID_OPTION"),
        _ => Ok(()),
    }
}

fn micros(ttl: prost_types::Duration) -> u64 {
    u64::try_from(ttl.nanos / 1_000).unwrap()
}

fn due(now: u64, ttl: Option<prost_types::Duration>) -> Option<u64> {
    ttl.map(|ttl| now + micros(ttl))
}

fn value(value: Option<&pb::Value>) -> Checked<()> {
    match value.and_then(|value| value.kind.as_ref()) {
        None => Err("INVALID_VALUE"),
        Some(Kind::Text(text)) if text.len() > VALUE_BYTES_MAX => Err("TOO_LARGE"),
        Some(Kind::Data(data)) if data.len() > VALUE_BYTES_MAX => Err("TOO_LARGE"),
        Some(_) => Ok(()),
    }
}

pub(crate) fn timestamp(micros: u64) -> prost_types::Timestamp {
    let (seconds, micros) = (micros / 1_000_000, micros % 1_000_000);
    prost_types::Timestamp { seconds: i64::try_from(seconds).unwrap(), nanos: i32::try_from(micros * 1_000).unwrap() }
}

/// How many items a page has at most.
fn page(size: i32) -> Checked<usize> {
    match size {
        0 => Ok(100),
        _ => usize::try_from(size).map_err(|_| "INVALID_OPTION"),
    }
}

impl Model {
    /// Takes a step, and notes what pail must do.
    pub(crate) fn take(&mut self, transition: &Transition) {
        self.outcome = Outcome::default();
        match transition {
            Transition::Call(op) => {
                let answer = self.answer(op);
                self.outcome.answers.push(answer);
            }
            Transition::Pipeline(ops) => {
                let mut creates = Vec::new();
                for op in ops {
                    let answer = self.pipelined(op, &creates);
                    if let (Some(Op::Create(_)), answer) = (&op.op, &answer) {
                        let made = if let Ok(Done::Create(made)) = answer { made.bucket.as_ref() } else { None };
                        creates.push((op.id, made.map(|bucket| bucket.id)));
                    }
                    self.outcome.answers.push(answer);
                }
            }
            Transition::Pass { millis, timer: false } => self.now += 1_000 * millis,
            Transition::Pass { millis, timer: true } => {
                self.meet_all();
                for _ in 0..*millis {
                    self.now += 1_000;
                    let mut ids: Vec<(u64, String)> =
                        self.buckets.iter().map(|(name, bucket)| (bucket.id, name.clone())).collect();
                    ids.sort();
                    ids.iter().for_each(|(_, name)| _ = self.meet(name));
                }
            }
            Transition::Watch(request) => {
                // A Watch sees to what is due. So that it is known in which order, somebody has done so before.
                self.meet_all();
                self.hear();
                match Watch::open(self, request) {
                    Ok((watch, heard)) => {
                        if self.watches.len() == WATCHES_MAX {
                            self.watches.remove(0);
                            self.outcome.heard.remove(0);
                        }
                        self.watches.push(watch);
                        self.outcome.heard.push(heard);
                    }
                    Err(reason) => self.outcome.refused = Some(reason),
                }
                return;
            }
        }
        self.hear();
    }

    /// What each Watch hears of this step.
    fn hear(&mut self) {
        let news = std::mem::take(&mut self.news);
        self.outcome.heard = self.watches.iter_mut().map(|watch| watch.hear(&news)).collect();
    }

    /// Ends all that is due, in the order of names.
    fn meet_all(&mut self) {
        let names: Vec<String> = self.buckets.keys().cloned().collect();
        names.iter().for_each(|name| _ = self.meet(name));
    }

    fn tell(&mut self, event: Event) {
        self.log.push(event.clone());
        self.news.push(event);
    }

    fn down(&mut self, name: &str, reason: Reason, detail: &str) {
        let Some(bucket) = self.buckets.remove(name) else { return };
        self.revision += 1;
        self.tell(Event::Down(pb::DownEvent {
            r#ref: 0,
            bucket: name.to_owned(),
            bucket_id: bucket.id,
            reason: reason.into(),
            detail: detail.to_owned(),
            version: bucket.version,
            revision: self.revision,
            time: Some(timestamp(self.now)),
            initiator: String::new(),
        }));
    }

    /// Sees to what is due of a bucket; whether it lives.
    fn meet(&mut self, name: &str) -> bool {
        let now = self.now;
        let Some(bucket) = self.buckets.get_mut(name) else { return false };
        if bucket.due().is_some_and(|due| due <= now) {
            self.down(name, Reason::Expired, "");
            return false;
        }
        let mut due: Vec<(u64, String)> =
            bucket.entries.iter().filter_map(|(key, entry)| Some((entry.due?, key.clone()))).collect();
        due.sort();
        for (_, key) in due.iter().filter(|(due, _)| *due <= now) {
            bucket.delete(name, key, true, &mut self.news);
        }
        true
    }

    /// A living bucket that is used; a certain one, where an id is given.
    fn find(&mut self, name: &str, id: Option<u64>) -> Checked<&mut Bucket> {
        let found = self.buckets.get(name).is_some_and(|bucket| id.is_none_or(|id| id == bucket.id));
        if !found || !self.meet(name) {
            return Err("BUCKET_NOT_FOUND");
        }
        let bucket = self.buckets.get_mut(name).unwrap();
        bucket.idle = bucket.idle_ttl.map(|ttl| self.now + ttl);
        Ok(bucket)
    }

    /// Whether this key crashes the bucket, which is seen before anything else.
    fn crash(&mut self, name: &str, id: Option<u64>, key: &str) -> Checked<()> {
        let Some(words) = key.strip_prefix(hooks::PANIC) else { return Ok(()) };
        if self.buckets.get(name).is_some_and(|bucket| id.is_none_or(|id| id == bucket.id)) {
            self.down(name, Reason::Crashed, words);
            return Err("BUCKET_CRASHED");
        }
        Ok(())
    }

    fn pipelined(&mut self, op: &pb::PipelineOp, creates: &[(u64, Option<u64>)]) -> Answer {
        let mut request = op.op.clone().ok_or("INVALID_OPTION")?;
        if let Some(from) = op.bucket_id_from {
            let field = match &mut request {
                Op::Create(_) | Op::Lookup(_) | Op::List(_) => None,
                Op::Stop(request) => Some(&mut request.bucket_id),
                Op::Put(request) => Some(&mut request.bucket_id),
                Op::Get(request) => Some(&mut request.bucket_id),
                Op::Delete(request) => Some(&mut request.bucket_id),
                Op::Add(request) => Some(&mut request.bucket_id),
                Op::Touch(request) => Some(&mut request.bucket_id),
                Op::Scan(request) => Some(&mut request.bucket_id),
                Op::Transact(request) => Some(&mut request.bucket_id),
            };
            let made = creates.iter().rfind(|(id, _)| *id == from).and_then(|(_, made)| *made);
            match (field, made) {
                (Some(field @ None), Some(made)) => *field = Some(made),
                _ => return Err("INVALID_OPTION"),
            }
        }
        self.answer(&request)
    }

    fn answer(&mut self, op: &Op) -> Answer {
        match op {
            Op::Create(request) => self.create(request).map(Done::Create),
            Op::Lookup(request) => {
                let bucket = self.find(name(&request.bucket)?, None)?.shown(&request.bucket);
                Ok(Done::Lookup(pb::LookupResponse { bucket: Some(bucket) }))
            }
            Op::List(request) => self.list(request).map(Done::List),
            Op::Stop(request) => self.stop(request).map(Done::Stop),
            Op::Put(request) => self.put(request).map(Done::Put),
            Op::Get(request) => {
                let (name, key) = (name(&request.bucket)?, key(&request.key)?);
                self.crash(name, request.bucket_id, key)?;
                let bucket = self.find(name, request.bucket_id)?;
                let entry = Some(bucket.entries.get(key).ok_or("KEY_NOT_FOUND")?.shown(key, true));
                Ok(Done::Get(pb::GetResponse { entry, bucket_id: bucket.id }))
            }
            Op::Delete(request) => self.delete(request).map(Done::Delete),
            Op::Add(request) => self.add(request).map(Done::Add),
            Op::Touch(request) => self.touch(request).map(Done::Touch),
            Op::Scan(request) => self.scan(request).map(Done::Scan),
            Op::Transact(request) => self.transact(request).map(Done::Transact),
        }
    }

    fn create(&mut self, request: &pb::CreateRequest) -> Checked<pb::CreateResponse> {
        let name = name(&request.bucket)?;
        ttl(request.ttl)?;
        ttl(request.idle_ttl)?;
        if let Ok(bucket) = self.find(name, None) {
            return Ok(pb::CreateResponse { revision: bucket.id, bucket: Some(bucket.shown(name)), created: false });
        }
        if self.buckets.len() >= BUCKETS_MAX {
            return Err("TOO_MANY_BUCKETS");
        }
        self.revision += 1;
        let (id, now) = (self.revision, self.now);
        let bucket = Bucket {
            id,
            version: 0,
            created_at: now,
            life: due(now, request.ttl),
            idle_ttl: request.idle_ttl.map(micros),
            idle: due(now, request.idle_ttl),
            entries: BTreeMap::new(),
        };
        let shown = bucket.shown(name);
        self.buckets.insert(name.to_owned(), bucket);
        self.ids.push(id);
        let (bucket, time) = (name.to_owned(), Some(timestamp(now)));
        self.tell(Event::Created(pb::CreatedEvent {
            r#ref: 0,
            bucket,
            bucket_id: id,
            revision: id,
            time,
            initial: false,
        }));
        Ok(pb::CreateResponse { bucket: Some(shown), created: true, revision: id })
    }

    fn list(&mut self, request: &pb::ListRequest) -> Checked<pb::ListResponse> {
        let items_max = page(request.page_size)?;
        let token = match &*request.page_token {
            "" => None,
            LAST_TOKEN => self.list_token.clone(),
            _ => return Err("INVALID_PAGE_TOKEN"),
        };
        if token.as_ref().is_some_and(|(prefix, ..)| *prefix != request.prefix) {
            return Err("INVALID_PAGE_TOKEN");
        }
        let (after, revision) = token.map_or((None, self.revision), |(_, after, revision)| (Some(after), revision));
        let comes =
            |name: &&String| name.starts_with(&request.prefix) && after.as_ref().is_none_or(|after| *name > after);
        let mut names: Vec<String> = self.buckets.keys().filter(comes).cloned().collect();
        let more = names.len() > items_max;
        names.truncate(items_max);
        self.list_token = names.last().filter(|_| more).map(|last| (request.prefix.clone(), last.clone(), revision));
        // What is past its time is not there, and its place in the page stays empty.
        names.retain(|name| self.meet(name));
        let buckets = names.iter().map(|name| self.buckets[name].shown(name)).collect();
        let next_page_token = if more { LAST_TOKEN.to_owned() } else { String::new() };
        Ok(pb::ListResponse { buckets, next_page_token, revision })
    }

    fn stop(&mut self, request: &pb::StopRequest) -> Checked<pb::StopResponse> {
        let name = name(&request.bucket)?;
        let reason = match Reason::try_from(request.reason) {
            Ok(Reason::Unspecified | Reason::Normal) => Reason::Normal,
            Ok(reason @ (Reason::Shutdown | Reason::Killed | Reason::Crashed)) => reason,
            _ => return Err("INVALID_OPTION"),
        };
        let lives = self.meet(name);
        let id = self.buckets.get(name).map(|bucket| bucket.id);
        let (true, Some(bucket_id)) = (lives, id.filter(|id| request.bucket_id.is_none_or(|asked| asked == *id)))
        else {
            return Err("BUCKET_NOT_FOUND");
        };
        self.down(name, reason, &request.detail);
        Ok(pb::StopResponse { bucket_id, revision: self.revision })
    }

    fn put(&mut self, request: &pb::PutRequest) -> Checked<pb::PutResponse> {
        let (name, key) = (name(&request.bucket)?, key(&request.key)?);
        value(request.value.as_ref())?;
        ttl(request.ttl)?;
        self.crash(name, request.bucket_id, key)?;
        let due = due(self.now, request.ttl);
        self.change(name, request.bucket_id, |bucket, news| {
            bucket.expects(key, request.expected_version)?;
            bucket.put(name, key, request.value.clone().unwrap(), due, news)?;
            Ok(pb::PutResponse { version: bucket.version, bucket_id: bucket.id })
        })
    }

    /// Changes a bucket, or nothing where `change` fails.
    fn change<T>(
        &mut self,
        name: &str,
        id: Option<u64>,
        change: impl FnOnce(&mut Bucket, &mut Vec<Event>) -> Checked<T>,
    ) -> Checked<T> {
        let (mut bucket, mut news) = (self.find(name, id)?.clone(), Vec::new());
        let done = change(&mut bucket, &mut news)?;
        self.buckets.insert(name.to_owned(), bucket);
        self.news.append(&mut news);
        Ok(done)
    }

    fn delete(&mut self, request: &pb::DeleteRequest) -> Checked<pb::DeleteResponse> {
        let (name, key) = (name(&request.bucket)?, key(&request.key)?);
        self.crash(name, request.bucket_id, key)?;
        self.change(name, request.bucket_id, |bucket, news| {
            bucket.expects(key, request.expected_version)?;
            let entry = bucket.delete(name, key, false, news).map(|entry| entry.shown(key, true));
            Ok(pb::DeleteResponse { entry, version: bucket.version, bucket_id: bucket.id })
        })
    }

    fn add(&mut self, request: &pb::AddRequest) -> Checked<pb::AddResponse> {
        let (name, key) = (name(&request.bucket)?, key(&request.key)?);
        ttl(request.ttl)?;
        self.crash(name, request.bucket_id, key)?;
        let due = due(self.now, request.ttl);
        self.change(name, request.bucket_id, |bucket, news| {
            let value = bucket.add(name, key, request.delta, due, news)?;
            Ok(pb::AddResponse { value, version: bucket.version, bucket_id: bucket.id })
        })
    }

    fn touch(&mut self, request: &pb::TouchRequest) -> Checked<pb::TouchResponse> {
        let name = name(&request.bucket)?;
        if let Some(text) = &request.key {
            key(text)?;
        }
        ttl(request.ttl)?;
        self.crash(name, request.bucket_id, request.key.as_deref().unwrap_or_default())?;
        let due = due(self.now, request.ttl);
        self.change(name, request.bucket_id, |bucket, _| {
            let due = match &request.key {
                None => {
                    bucket.life = due;
                    bucket.due()
                }
                Some(key) => {
                    bucket.entries.get_mut(key).ok_or("KEY_NOT_FOUND")?.due = due;
                    due
                }
            };
            Ok(pb::TouchResponse { expire_time: due.map(timestamp), bucket_id: bucket.id })
        })
    }

    fn scan(&mut self, request: &pb::ScanRequest) -> Checked<pb::ScanResponse> {
        let name = name(&request.bucket)?;
        let token = match &*request.page_token {
            "" => None,
            LAST_TOKEN => self.scan_token.clone(),
            _ => return Err("INVALID_PAGE_TOKEN"),
        };
        let items_max = page(request.page_size)?;
        let bucket = self.find(name, request.bucket_id)?;
        let mut after = None;
        if let Some((id, prefix, keys_only, last)) = token {
            if (id, &*prefix, keys_only) != (bucket.id, &*request.prefix, request.keys_only) {
                return Err("INVALID_PAGE_TOKEN");
            }
            after = Some(last);
        }
        let comes = |(key, _): &(&String, &Entry)| {
            key.starts_with(&request.prefix) && after.as_ref().is_none_or(|after| *key > after)
        };
        let found: Vec<(&String, &Entry)> = bucket.entries.iter().filter(comes).collect();
        let more = found.len() > items_max;
        let shown = |(key, entry): &(&String, &Entry)| entry.shown(key, !request.keys_only);
        let entries: Vec<pb::Entry> = found.iter().take(items_max).map(shown).collect();
        let (version, bucket_id) = (bucket.version, bucket.id);
        self.scan_token = entries.last().filter(|_| more).map(|last| {
            let (prefix, last) = (request.prefix.clone(), last.key.clone());
            (bucket_id, prefix, request.keys_only, last)
        });
        let next_page_token = if more { LAST_TOKEN.to_owned() } else { String::new() };
        Ok(pb::ScanResponse { entries, next_page_token, version, bucket_id })
    }

    fn transact(&mut self, request: &pb::TransactRequest) -> Checked<pb::TransactResponse> {
        let name = name(&request.bucket)?;
        for check in &request.checks {
            key(&check.key)?;
            match &check.condition {
                None => return Err("INVALID_OPTION"),
                Some(Condition::ValueEquals(wanted)) => value(Some(wanted))?,
                Some(_) => {}
            }
        }
        for op in request.success.iter().chain(&request.failure) {
            match op.op.as_ref().ok_or("INVALID_OPTION")? {
                Step::Put(put) => {
                    value(put.value.as_ref())?;
                    key(&put.key)?;
                    ttl(put.ttl)?;
                }
                Step::Add(add) => {
                    key(&add.key)?;
                    ttl(add.ttl)?;
                }
                Step::Delete(delete) => _ = key(&delete.key)?,
                Step::Get(get) => _ = key(&get.key)?,
            }
        }
        let now = self.now;
        self.change(name, request.bucket_id, |bucket, news| {
            let succeeded = request.checks.iter().all(|check| bucket.holds(check));
            let ops = if succeeded { &request.success } else { &request.failure };
            let step = |op: &pb::TransactOp| bucket.step(name, op.op.as_ref().unwrap(), now, news);
            let results = ops.iter().map(step).collect::<Checked<_>>()?;
            Ok(pb::TransactResponse { succeeded, results, version: bucket.version, bucket_id: bucket.id })
        })
    }
}
