//! An import in batches: of each it is known that it is done before the next is sent, so that there is always a line to go on
//! from.

use std::{
    mem,
    sync::atomic::{AtomicU64, Ordering},
    time::SystemTime,
};

use prost_types::{Duration, Timestamp};
use tonic::{Code, Status};

use crate::{
    client::{
        dump::{Bucket, Entry, Line},
        error::{AtLine, Error},
        pipeline::Pipeline,
        progress::Summary,
    },
    limits::{IMPORT_BATCH_BYTES, OPS_MAX, TTL_MAX, TTL_MIN},
    pb::{CreateRequest, LookupRequest, PutRequest, pipeline_op::Op, pipeline_result::Result as Answer},
};

pub(super) struct Importer<'a> {
    pipeline: Pipeline,
    merge: bool,
    from_line: u64,
    /// For others to see: what stands before this line is imported.
    place: &'a AtomicU64,
    /// The line after the last of the batch.
    next: u64,
    batch: Batch,
    pub(super) summary: Summary,
}

/// Lines that are sent together.
#[derive(Default)]
struct Batch {
    buckets: Vec<Target>,
    puts: Vec<Put>,
    bytes: u64,
}

struct Target {
    line: u64,
    bucket: Bucket,
    state: State,
}

/// What is known of a bucket at the server.
#[derive(Clone, Copy, Debug)]
enum State {
    /// It is to be created.
    New,
    /// An earlier import has created it.
    Begun,
    Id(u64),
    /// Its time is over.
    Over,
}

struct Put {
    line: u64,
    /// Its bucket's place in the batch.
    bucket: usize,
    entry: Entry,
}

/// What became of a message of requests: all was done, or one was refused; or, by the error around it, nobody knows.
type Outcome = Result<Result<(), Refused>, Error>;

/// The server did not do what a line asks for.
struct Refused {
    line: u64,
    why: Error,
}

impl<'a> Importer<'a> {
    pub(super) fn new(pipeline: Pipeline, merge: bool, from_line: u64, place: &'a AtomicU64) -> Self {
        let summary = Summary { done: "imported", skipped_because: "whose time was over", ..Summary::default() };
        Self { pipeline, merge, from_line, place, next: from_line, batch: Batch::default(), summary }
    }

    /// Takes a line into the batch, and sends the batch when it is full.
    pub(super) async fn take(&mut self, line: u64, what: Line, bytes: u64) -> Result<(), Error> {
        if line < self.from_line {
            match what {
                Line::Bucket(bucket) => self.batch.buckets = vec![Target { line, bucket, state: State::Begun }],
                Line::Gone(_) => self.batch.buckets.clear(),
                Line::Header(_) | Line::Entry(_) | Line::End(_) => {}
            }
            return Ok(());
        }
        let Batch { buckets, puts, bytes: batch_bytes } = &self.batch;
        if buckets.len().max(puts.len()) >= OPS_MAX || batch_bytes + bytes > IMPORT_BATCH_BYTES as u64 {
            self.flush().await?;
        }
        match what {
            Line::Bucket(bucket) => self.batch.buckets.push(Target { line, bucket, state: State::New }),
            Line::Entry(entry) => {
                // The reader lets no entry through that has no bucket.
                let bucket = self.batch.buckets.len().saturating_sub(1);
                self.batch.puts.push(Put { line, bucket, entry });
            }
            Line::Gone(_) => self.summary.cut_short += 1,
            Line::Header(_) | Line::End(_) => {}
        }
        self.batch.bytes += bytes;
        self.summary.bytes += bytes;
        self.next = line + 1;
        Ok(())
    }

    /// Sends the batch: buckets first, so that nothing is put into one that may not be touched. After a refusal all that
    /// stands before it is done still.
    pub(super) async fn flush(&mut self) -> Result<(), Error> {
        let Batch { mut buckets, mut puts, .. } = mem::take(&mut self.batch);
        let now = SystemTime::now();
        let entry = puts.first().map(|put| put.bucket);
        let opened = self.open(&mut buckets, entry, now).await.map_err(|why| self.lost(why))?;
        if let Err(refused) = &opened {
            puts.retain(|put| put.line < refused.line);
        }
        let put = self.put(&mut buckets, puts, now).await.map_err(|why| self.lost(why))?;
        put.and(opened).map_err(|Refused { line, why }| self.ended(line, why))?;
        self.batch.buckets.extend(buckets.pop()); // its entries may go on
        self.place.store(self.next, Ordering::Relaxed);
        Ok(())
    }

    /// Creates the buckets that are to be created, or finds them. `first` is the one of the first entry: an import that goes
    /// on with the bucket after it has nothing to do with one that an earlier import created.
    async fn open(&mut self, buckets: &mut [Target], first: Option<usize>, now: SystemTime) -> Outcome {
        let mut asked = Vec::new();
        let mut ops = Vec::new();
        for (index, target) in buckets.iter_mut().enumerate() {
            let name = target.bucket.name.clone();
            match (target.state, remaining(target.bucket.expire_time, now)) {
                (State::Id(_) | State::Over, _) => continue,
                (State::Begun, _) if first != Some(index) => continue,
                (State::New, Err(Over)) => {
                    target.state = State::Over;
                    self.summary.skipped += 1;
                    continue;
                }
                (State::Begun, Err(Over)) => {
                    target.state = State::Over;
                    continue;
                }
                (State::New, Ok(ttl)) => ops.push(Op::Create(CreateRequest { bucket: name, ttl, idle_ttl: None })),
                (State::Begun, Ok(_)) => ops.push(Op::Lookup(LookupRequest { bucket: name })),
            }
            asked.push(target);
        }
        let answers = self.pipeline.run(ops).await?;
        for (target, answer) in asked.into_iter().zip(answers) {
            let Target { line, bucket: Bucket { name, .. }, state } = target;
            let why = match answer {
                Ok(Answer::Create(created)) => {
                    let bucket = created.bucket.unwrap_or_default();
                    // One that nobody has written to is as good as new: so a Create may be repeated.
                    if created.created || bucket.version == 0 || self.merge {
                        *state = State::Id(bucket.id);
                        self.summary.buckets += 1;
                        continue;
                    }
                    Status::already_exists(format!(
                        "bucket {name:?} is there already; --merge puts the entries into it"
                    ))
                }
                Ok(Answer::Lookup(found)) => {
                    *state = State::Id(found.bucket.unwrap_or_default().id);
                    continue;
                }
                Err(status) if status.code() == Code::NotFound => Status::not_found(format!(
                    "bucket {name:?}, which an earlier import has created, is not there any more"
                )),
                Err(status) => status,
                Ok(_) => Status::internal("an answer to another question"),
            };
            return Ok(Err(Refused { line: *line, why: why.into() }));
        }
        Ok(Ok(()))
    }

    /// Puts the entries.
    async fn put(&mut self, buckets: &mut [Target], puts: Vec<Put>, now: SystemTime) -> Outcome {
        let mut asked = Vec::new();
        let mut ops = Vec::new();
        for Put { line, bucket: index, entry } in puts {
            let target = &buckets[index];
            let (State::Id(bucket_id), Ok(ttl)) = (target.state, remaining(entry.expire_time, now)) else {
                self.summary.skipped += 1;
                continue;
            };
            let Entry { key, value, .. } = entry;
            let (bucket, bucket_id, value) = (target.bucket.name.clone(), Some(bucket_id), Some(value));
            ops.push(Op::Put(PutRequest { bucket, bucket_id, key, value, ttl, expected_version: None }));
            asked.push((line, index));
        }
        let answers = self.pipeline.run(ops).await?;
        let now = SystemTime::now();
        for ((line, index), answer) in asked.into_iter().zip(answers) {
            let Err(status) = answer else {
                self.summary.entries += 1;
                continue;
            };
            let why = Error::from(status);
            let target = &mut buckets[index];
            let is_gone = why.reason().as_deref() == Some("BUCKET_NOT_FOUND");
            if !is_gone || remaining(target.bucket.expire_time, now).is_ok() {
                return Ok(Err(Refused { line, why }));
            }
            target.state = State::Over; // its time came while this was under way
            self.summary.skipped += 1;
        }
        Ok(Ok(()))
    }

    /// The import ends at a line: all before it is done.
    pub(super) fn ended(&self, line: u64, why: Error) -> Error {
        at_line(line, why, self.merge)
    }

    /// It is not known what became of the batch: it may have happened, and is to be done again.
    fn lost(&self, why: Error) -> Error {
        at_line(self.place.load(Ordering::Relaxed), why, true)
    }
}

fn at_line(line: u64, why: Error, merge: bool) -> Error {
    let go_on = format!("--from-line {line}{}", if merge { " --merge" } else { "" });
    Error::AtLine(Box::new(AtLine { why, line, go_on }))
}

/// Nothing is left of its time.
#[derive(Debug, Eq, PartialEq)]
struct Over;

/// The time to live that is left of it at `now`; none is for ever.
fn remaining(expire_time: Option<Timestamp>, now: SystemTime) -> Result<Option<Duration>, Over> {
    let Some(time) = expire_time else { return Ok(None) };
    let left = SystemTime::try_from(time).ok().and_then(|time| time.duration_since(now).ok()).unwrap_or_default();
    if left < TTL_MIN {
        return Err(Over);
    }
    // Clocks differ: what had ten years there may seem to have a little more here.
    left.min(TTL_MAX).try_into().map(Some).map_err(|_| Over)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_of_a_time_is_a_time_to_live_and_below_the_least_it_is_over() {
        let at = |millis: u64| SystemTime::UNIX_EPOCH + std::time::Duration::from_millis(millis);
        let left = |expire: u64, now: u64| remaining(Some(at(expire).into()), at(now));
        assert_eq!(remaining(None, at(5)), Ok(None));
        assert_eq!(left(1_500, 1_000), Ok(Some(Duration { seconds: 0, nanos: 500_000_000 })));
        assert_eq!(left(1_001, 1_000), Ok(Some(Duration { seconds: 0, nanos: 1_000_000 })));
        assert_eq!((left(1_000, 1_000), left(1_000, 2_000)), (Err(Over), Err(Over)));
        let years = i64::try_from(TTL_MAX.as_secs()).unwrap();
        let later = at(1_000 * TTL_MAX.as_secs() + 5_000);
        assert_eq!(remaining(Some(later.into()), at(0)), Ok(Some(Duration { seconds: years, nanos: 0 })));
    }
}
