//! `touch`: how long something goes on living.

use clap::Args;
use prost_types::{Duration, Timestamp};

use super::{
    error::Error,
    options::{Options, ttl},
    output::Output,
};
use crate::pb::TouchRequest;

/// Sets how long a bucket, or an entry of it, lives from now
///
/// Prints when it will expire, or "never". Neither a value nor a version changes.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pail touch session/ann --ttl 30m           the bucket
  pail touch shopping offer --ttl 10m        an entry
  pail touch shopping offer --forever")]
pub struct Touch {
    /// The name of the bucket
    name: String,
    /// The key of an entry [default: the bucket itself]
    key: Option<String>,
    #[command(flatten)]
    time: Time,
    /// Only if the living bucket has this id
    #[arg(long)]
    id: Option<u64>,
}

/// Exactly one of these.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Time {
    /// How long from now: a whole number of ms, s, m, h or d, at most 10 years
    #[arg(long, value_name = "TIME", value_parser = ttl)]
    ttl: Option<Duration>,
    /// No time to live any more; the --idle-ttl of a bucket stays
    #[arg(long)]
    forever: bool,
}

impl Touch {
    pub(super) async fn run(self, options: &Options, out: &mut Output<'_>) -> Result<(), Error> {
        let request = TouchRequest { bucket: self.name, bucket_id: self.id, key: self.key, ttl: self.time.ttl };
        let answer = options.connect().await?.touch(options.request(request)).await?.into_inner();
        Ok(out.line(expiry(answer.expire_time), &answer)?)
    }
}

/// When something expires, as RFC 3339 or "never".
pub(super) fn expiry(time: Option<Timestamp>) -> String {
    time.map_or_else(|| "never".to_owned(), |time| time.to_string())
}
