//! What a run stands on: its buckets and their entries, which it has to itself, and which are gone after it.
//!
//! All names begin with a prefix of the run's own, so a run meets nothing of anybody else's, and whatever it has
//! created is found again by that, also what was created by a call whose answer never came.

use std::sync::atomic::{AtomicBool, Ordering};

use prost::Message as _;

use crate::{
    client::{
        error::Error,
        lifecycle::page_size,
        options::{Client, Options},
        pipeline::Pipeline,
    },
    limits::OPS_MAX,
    pb::{CreateRequest, GetRequest, ListRequest, PutRequest, StopRequest, Value, pipeline_op::Op, value::Kind},
};

/// Of each message of a Pipeline, as many bytes of values as this.
const BYTES_MAX: usize = 1 << 20;

/// The names, and what is under them.
#[derive(Clone, Debug)]
pub(super) struct Ground {
    /// `pail-bench/` and something that no other run has, with a `/` at its end.
    pub(super) prefix: String,
    pub(super) buckets: u64,
    pub(super) keys: u64,
    pub(super) value: Vec<u8>,
}

impl Ground {
    /// # Errors
    ///
    /// If the system has no randomness to give.
    pub(super) fn new(buckets: u64, keys: u64, value_bytes: usize) -> Result<Self, Error> {
        let mut run = [0; 8];
        getrandom::fill(&mut run).map_err(|error| Error::Usage(format!("no randomness: {error}")))?;
        // No two bytes in a row alike, should anything on the way compress.
        let value = (0..=250).map(|n: u8| n.wrapping_mul(167)).cycle().take(value_bytes).collect();
        Ok(Self { prefix: format!("pail-bench/{:016x}/", u64::from_be_bytes(run)), buckets, keys, value })
    }

    /// The bucket of a number: of a key, and of a connection's own.
    pub(super) fn bucket(&self, number: u64) -> String {
        format!("{}{}", self.prefix, number % self.buckets)
    }

    /// The bucket and the key of each entry as both Get and Put have them, encoded.
    pub(super) fn entries(&self) -> Vec<Box<[u8]>> {
        let entry = |n| GetRequest { bucket: self.bucket(n), key: key(n), ..GetRequest::default() };
        (0..self.keys).map(|n| entry(n).encode_to_vec().into()).collect()
    }

    /// The value as a Put has it after those, encoded.
    pub(super) fn value(&self) -> Vec<u8> {
        PutRequest { value: Some(data(self.value.clone())), ..PutRequest::default() }.encode_to_vec()
    }

    /// Creates the buckets, and puts the entries, unless it is stopped before.
    pub(super) async fn lay(&self, options: &Options, is_stopped: &AtomicBool) -> Result<(), Error> {
        let mut pipeline = Pipeline::open(options).await?;
        let create = |n| Op::Create(CreateRequest { bucket: self.bucket(n), ..CreateRequest::default() });
        let put = |n| {
            let value = Some(data(self.value.clone()));
            Op::Put(PutRequest { bucket: self.bucket(n), key: key(n), value, ..PutRequest::default() })
        };
        let puts_max = (BYTES_MAX / self.value.len().max(1)).clamp(1, OPS_MAX);
        all(&mut pipeline, (0..self.buckets).map(create), OPS_MAX, is_stopped).await?;
        all(&mut pipeline, (0..self.keys).map(put), puts_max, is_stopped).await
    }

    /// Stops every bucket whose name has the prefix.
    pub(super) async fn clear(&self, options: &Options) -> Result<(), Error> {
        let mut client = options.connect().await?;
        let mut pipeline = Pipeline::open(options).await?;
        loop {
            let names = self.page(&mut client, options).await?;
            if names.is_empty() {
                return Ok(());
            }
            let stop = |bucket| Op::Stop(StopRequest { bucket, ..StopRequest::default() });
            for answer in pipeline.run(names.into_iter().map(stop).collect()).await? {
                // One that is gone already was stopped by the run itself, in a call whose answer nobody waited for.
                answer.map_err(Error::from).map(drop).or_else(|error| match error.reason().as_deref() {
                    Some("BUCKET_NOT_FOUND") => Ok(()),
                    _ => Err(error),
                })?;
            }
        }
    }

    /// The first of them: those of the page before are gone.
    async fn page(&self, client: &mut Client, options: &Options) -> Result<Vec<String>, Error> {
        let request =
            ListRequest { prefix: self.prefix.clone(), page_size: page_size(usize::MAX), ..ListRequest::default() };
        let page = client.list(options.request(request)).await?.into_inner();
        Ok(page.buckets.into_iter().map(|bucket| bucket.name).collect())
    }
}

async fn all(
    pipeline: &mut Pipeline,
    ops: impl Iterator<Item = Op>,
    at_once: usize,
    is_stopped: &AtomicBool,
) -> Result<(), Error> {
    let mut ops = ops.peekable();
    while ops.peek().is_some() && !is_stopped.load(Ordering::Relaxed) {
        for answer in pipeline.run(ops.by_ref().take(at_once).collect()).await? {
            answer?;
        }
    }
    Ok(())
}

fn key(n: u64) -> String {
    format!("k{n:07}")
}

fn data(bytes: Vec<u8>) -> Value {
    Value { kind: Some(Kind::Data(bytes)) }
}
