//! `create`, `lookup`, `list` and `stop`: the lives of buckets.

use std::{fmt, io};

use clap::{Args, ValueEnum};
use prost_types::Duration;

use super::{
    error::Error,
    options::{Client, Options, ttl},
    output::{Escaped, Output},
    touch::expiry,
};
use crate::{
    limits::PAGE_ITEMS_MAX,
    pb::{Bucket, CreateRequest, ListRequest, LookupRequest, Reason, StopRequest},
};

/// Creates a bucket, or finds the one that has the name already
///
/// Prints its name, its id, and whether it was created or exists. The times to live are those of a new bucket: one that
/// exists keeps its own. When the first of them is over, the bucket goes down with EXPIRED.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pail create shopping
  id=$(pail create shopping | cut -f2)     the id, to name this very bucket later
  pail create room/7 --ttl 1h              gone in an hour, whatever happens
  pail create session/ann --idle-ttl 30m   gone when nobody has used it for half an hour")]
pub struct Create {
    /// The name: 1 to 255 bytes of UTF-8 without control characters
    name: String,
    /// How long it lives: a whole number of ms, s, m, h or d, at most 10 years [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = ttl)]
    ttl: Option<Duration>,
    /// How long it lives unused: each lookup, create and entry command that reaches it starts this anew [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = ttl)]
    idle_ttl: Option<Duration>,
}

/// Describes a living bucket
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pail lookup shopping
  pail lookup shopping -o json
  pail lookup shopping > /dev/null && echo it lives")]
pub struct Lookup {
    /// The name of the bucket
    name: String,
}

/// Lists the living buckets in the order of their names
///
/// Prints a line for each: its name, id, version, entries and bytes. It is no snapshot: what lives throughout is listed
/// exactly once, what comes or goes meanwhile may or may not be.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pail list
  pail list user/ --limit 10
  pail list | cut -f1                      the names alone")]
pub struct List {
    /// Only names that begin with this
    #[arg(default_value = "", hide_default_value = true)]
    prefix: String,
    /// Stop after this many buckets [default: all]
    #[arg(long, value_name = "COUNT")]
    limit: Option<usize>,
}

/// Ends a bucket with a reason, which those who watch it are told
///
/// When it returns, the bucket is gone and its name is free.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pail stop shopping
  pail stop shopping --reason killed --detail 'too large'
  pail stop shopping --id 1764000000000001   not a later bucket of that name")]
pub struct Stop {
    /// The name of the bucket
    name: String,
    /// Why
    #[arg(long, default_value = "normal")]
    reason: StopReason,
    /// Why, in words: at most 1 KiB
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    detail: String,
    /// Only if the living bucket has this id
    #[arg(long)]
    id: Option<u64>,
}

/// The reasons that a client may give.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum StopReason {
    Normal,
    Shutdown,
    Killed,
    Crashed,
}

impl From<StopReason> for Reason {
    fn from(reason: StopReason) -> Self {
        match reason {
            StopReason::Normal => Self::Normal,
            StopReason::Shutdown => Self::Shutdown,
            StopReason::Killed => Self::Killed,
            StopReason::Crashed => Self::Crashed,
        }
    }
}

impl Create {
    pub(super) async fn run(self, options: &Options, out: &mut Output<'_>) -> Result<(), Error> {
        let request = CreateRequest { bucket: self.name, ttl: self.ttl, idle_ttl: self.idle_ttl };
        let answer = options.connect().await?.create(options.request(request)).await?.into_inner();
        let bucket = answer.bucket.clone().unwrap_or_default();
        let what = if answer.created { "created" } else { "exists" };
        Ok(out.line(format_args!("{}\t{}\t{what}", Escaped(&bucket.name), bucket.id), &answer)?)
    }
}

impl Lookup {
    pub(super) async fn run(self, options: &Options, out: &mut Output<'_>) -> Result<(), Error> {
        let request = LookupRequest { bucket: self.name };
        let answer = options.connect().await?.lookup(options.request(request)).await?.into_inner();
        let bucket = answer.bucket.clone().unwrap_or_default();
        Ok(out.line(Description(&bucket), &answer)?)
    }
}

impl List {
    pub(super) async fn run(self, options: &Options, out: &mut Output<'_>) -> Result<(), Error> {
        let mut client = options.connect().await?;
        out.header("NAME\tID\tVERSION\tENTRIES\tBYTES")?;
        each_bucket(&mut client, options, self.prefix, self.limit, |bucket| {
            let Bucket { name, id, version, entry_count, byte_size, .. } = &bucket;
            out.line(format_args!("{}\t{id}\t{version}\t{entry_count}\t{byte_size}", Escaped(name)), &bucket)
        })
        .await
    }
}

impl Stop {
    pub(super) async fn run(self, options: &Options, out: &mut Output<'_>) -> Result<(), Error> {
        let name = self.name.clone();
        let reason = Reason::from(self.reason).into();
        let request = StopRequest { bucket: self.name, bucket_id: self.id, reason, detail: self.detail };
        let answer = options.connect().await?.stop(options.request(request)).await?.into_inner();
        Ok(out.line(format_args!("{}\t{}\tstopped", Escaped(&name), answer.bucket_id), &answer)?)
    }
}

/// Asks for page after page, each with a timeout of its own, until the end or the limit.
pub(super) async fn each_bucket(
    client: &mut Client,
    options: &Options,
    prefix: String,
    limit: Option<usize>,
    mut visit: impl FnMut(Bucket) -> io::Result<()>,
) -> Result<(), Error> {
    let mut left = limit.unwrap_or(usize::MAX);
    let mut page_token = String::new();
    while left > 0 {
        let request = ListRequest { prefix: prefix.clone(), page_size: page_size(left), page_token };
        let page = client.list(options.request(request)).await?.into_inner();
        page.buckets.into_iter().take(left).try_for_each(|bucket| {
            left -= 1;
            visit(bucket)
        })?;
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    Ok(())
}

/// As much as a page may hold, and no more than is wanted.
#[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)] // at most PAGE_ITEMS_MAX
pub(super) fn page_size(left: usize) -> i32 {
    left.min(PAGE_ITEMS_MAX) as i32
}

/// A bucket in lines of a name and a value, aligned.
pub(super) struct Description<'a>(pub(super) &'a Bucket);

impl fmt::Display for Description<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bucket = self.0;
        writeln!(f, "name:     {}", Escaped(&bucket.name))?;
        writeln!(f, "id:       {}", bucket.id)?;
        writeln!(f, "version:  {}", bucket.version)?;
        writeln!(f, "entries:  {}", bucket.entry_count)?;
        writeln!(f, "bytes:    {}", bucket.byte_size)?;
        writeln!(f, "links:    {}", bucket.link_count)?;
        writeln!(f, "created:  {} (revision {})", time(bucket.create_time), bucket.create_revision)?;
        write!(f, "expires:  {}", expiry(bucket.expire_time))
    }
}

/// A time as RFC 3339, or a dash.
pub(super) fn time(time: Option<prost_types::Timestamp>) -> String {
    time.map_or_else(|| "-".to_owned(), |time| time.to_string())
}
