//! `put`, `get`, `delete`, `add` and `scan`: what a bucket holds.

use std::io;

use clap::Args;
use prost_types::Duration;

use super::{
    error::Error,
    lifecycle::page_size,
    options::{Client, Options, ttl},
    output::{Escaped, Format, Output},
    value::{self, ValueArgs},
};
use crate::pb::{AddRequest, DeleteRequest, Entry, GetRequest, PutRequest, ScanRequest};

/// Sets an entry of a bucket
///
/// Prints its key, its new version, and "put". A value is a text unless an option says otherwise; what comes from a file or
/// from standard input is data unless an option says otherwise.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pail put shopping milk 1                   the text 1
  pail put shopping milk 1 --int             the integer 1
  pail put shopping debt -5 --int
  pail put shopping flags -- --verbose       a text that looks like an option
  pail put shopping photo --file milk.png    data
  date | pail put shopping when - --text     a text, with its newline
  pail put shopping milk 2 --expect 1        only if nobody changed it since version 1
  pail put shopping lock me --expect 0       only if it is not there
  pail put shopping offer 9 --ttl 10m        gone in ten minutes")]
pub struct Put {
    /// The name of the bucket
    name: String,
    /// The key: 1 to 1,024 bytes of UTF-8
    key: String,
    #[command(flatten)]
    value: ValueArgs,
    /// How long the entry lives: a whole number of ms, s, m, h or d [default: for ever, also where the old one had a time]
    #[arg(long, value_name = "TIME", value_parser = ttl)]
    ttl: Option<Duration>,
    #[command(flatten)]
    conditions: Conditions,
}

/// Prints the value of an entry, bare
///
/// A text, an integer, a number or a flag is followed by a newline; data is not. Nothing is escaped: mind your terminal, or
/// use -o json.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pail get shopping milk
  pail get shopping photo > milk.png
  pail get shopping milk -o json             with its kind and its version")]
pub struct Get {
    /// The name of the bucket
    name: String,
    /// The key
    key: String,
    /// Only if the living bucket has this id
    #[arg(long)]
    id: Option<u64>,
}

/// Removes an entry of a bucket
///
/// Prints its key, the bucket's version, and "deleted", or "absent" where there was none: that is no error, unless
/// --expect names a version.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pail delete shopping milk
  pail delete shopping milk --expect 3       only if it is still at version 3")]
pub struct Delete {
    /// The name of the bucket
    name: String,
    /// The key
    key: String,
    #[command(flatten)]
    conditions: Conditions,
}

/// Adds to an integer entry and prints the sum
///
/// An entry that is not there counts as 0. One that is no integer, and a sum of more than 64 bits, are refused, and nothing
/// is changed.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pail add site visits 1
  pail add site stock -5
  pail add site tries/ann 1 --ttl 10m        forgotten ten minutes after the last one")]
pub struct Add {
    /// The name of the bucket
    name: String,
    /// The key
    key: String,
    /// What to add: a whole number of 64 bits, which can be negative
    #[arg(allow_negative_numbers = true)]
    delta: i64,
    /// How long the entry lives from now: a whole number of ms, s, m, h or d [default: as long as it would have]
    #[arg(long, value_name = "TIME", value_parser = ttl)]
    ttl: Option<Duration>,
    /// Only if the living bucket has this id
    #[arg(long)]
    id: Option<u64>,
}

/// Prints the entries of a bucket in the order of their keys
///
/// A line for each: its key, version, kind and value, data in base64. It is no snapshot: what is there throughout is printed
/// exactly once.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pail scan shopping
  pail scan shopping dairy/ --keys-only
  pail scan shopping -o json")]
pub struct Scan {
    /// The name of the bucket
    name: String,
    /// Only keys that begin with this
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,
    /// Leave the kinds and values out
    #[arg(long)]
    keys_only: bool,
    /// Stop after this many entries [default: all]
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
    /// Only if the living bucket has this id
    #[arg(long)]
    id: Option<u64>,
}

#[derive(Args, Debug)]
struct Conditions {
    /// Only if the entry is at this version; 0: only if it is absent
    #[arg(long, value_name = "VERSION")]
    expect: Option<u64>,
    /// Only if the living bucket has this id
    #[arg(long)]
    id: Option<u64>,
}

impl Put {
    pub(super) async fn run(self, options: &Options, out: &mut Output<'_>) -> Result<(), Error> {
        let request = PutRequest {
            bucket: self.name,
            bucket_id: self.conditions.id,
            key: self.key.clone(),
            value: Some(self.value.read()?),
            ttl: self.ttl,
            expected_version: self.conditions.expect,
        };
        let answer = options.connect().await?.put(options.request(request)).await?.into_inner();
        Ok(out.line(format_args!("{}\t{}\tput", Escaped(&self.key), answer.version), &answer)?)
    }
}

impl Get {
    pub(super) async fn run(self, options: &Options, out: &mut Output<'_>) -> Result<(), Error> {
        let request = GetRequest { bucket: self.name, bucket_id: self.id, key: self.key };
        let answer = options.connect().await?.get(options.request(request)).await?.into_inner();
        match out.format {
            Format::Json => out.json(&answer)?,
            Format::Text => out.to.write_all(&value::raw(answer.entry.and_then(|entry| entry.value)))?,
        }
        Ok(())
    }
}

impl Delete {
    pub(super) async fn run(self, options: &Options, out: &mut Output<'_>) -> Result<(), Error> {
        let request = DeleteRequest {
            bucket: self.name,
            bucket_id: self.conditions.id,
            key: self.key.clone(),
            expected_version: self.conditions.expect,
        };
        let answer = options.connect().await?.delete(options.request(request)).await?.into_inner();
        let what = if answer.entry.is_some() { "deleted" } else { "absent" };
        Ok(out.line(format_args!("{}\t{}\t{what}", Escaped(&self.key), answer.version), &answer)?)
    }
}

impl Add {
    pub(super) async fn run(self, options: &Options, out: &mut Output<'_>) -> Result<(), Error> {
        let Self { name: bucket, key, delta, ttl, id: bucket_id } = self;
        let request = AddRequest { bucket, bucket_id, key, delta, ttl };
        let answer = options.connect().await?.add(options.request(request)).await?.into_inner();
        Ok(out.line(answer.value, &answer)?)
    }
}

impl Scan {
    pub(super) async fn run(self, options: &Options, out: &mut Output<'_>) -> Result<(), Error> {
        let mut client = options.connect().await?;
        let keys_only = self.keys_only;
        out.header(if keys_only { "KEY\tVERSION" } else { "KEY\tVERSION\tKIND\tVALUE" })?;
        let request = ScanRequest {
            bucket: self.name,
            bucket_id: self.id,
            prefix: self.prefix,
            keys_only,
            ..ScanRequest::default()
        };
        each_entry(&mut client, options, request, self.limit, |entry| {
            let key = Escaped(&entry.key);
            if keys_only {
                return out.line(format_args!("{key}\t{}", entry.version), &entry);
            }
            let (kind, value) = value::fields(entry.value.as_ref());
            out.line(format_args!("{key}\t{}\t{kind}\t{value}", entry.version), &entry)
        })
        .await
    }
}

/// Asks for page after page, each with a timeout of its own, until the end or the limit.
pub(super) async fn each_entry(
    client: &mut Client,
    options: &Options,
    mut request: ScanRequest,
    limit: Option<usize>,
    mut visit: impl FnMut(Entry) -> io::Result<()>,
) -> Result<(), Error> {
    let mut left = limit.unwrap_or(usize::MAX);
    while left > 0 {
        request.page_size = page_size(left);
        let page = client.scan(options.request(request.clone())).await?.into_inner();
        page.entries.into_iter().take(left).try_for_each(|entry| {
            left -= 1;
            visit(entry)
        })?;
        // The token is of this very bucket: a namesake that came meanwhile must not finish its list.
        request.bucket_id = Some(page.bucket_id);
        request.page_token = page.next_page_token;
        if request.page_token.is_empty() {
            break;
        }
    }
    Ok(())
}
