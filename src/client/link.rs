//! `link`: a command that runs for as long as a bucket lives, and a bucket that lives for as long as a command runs.

mod command;
mod connection;
mod fence;
mod hold;
mod wait;

use std::{
    ffi::OsString,
    io::{self, Write as _},
    os::fd::OwnedFd,
    pin::pin,
    time::Duration,
};

use clap::Args;

pub use self::command::Exec;
use self::{
    command::{EXIT_NOT_RUN, Running},
    connection::Connection,
    hold::{Hold, Times},
};
use super::{
    backoff::Backoff,
    ended::Ended,
    error::{Error, root_cause},
    options::{Options, duration, ttl},
};
use crate::{
    limits::LEASE_MIN,
    pb::{LinkBucket, LinkMode, Linked, Reason},
};

/// Runs a command that lives and dies with a bucket: a lock, a presence, a dead-man's switch
///
/// Creates the bucket, links to it, and runs the command. When the command ends, the bucket is stopped: with NORMAL for
/// status 0, else with CRASHED and "exit 3" or "signal 9"; and `pail link` exits with the command's status (128 and the
/// number of a signal). Where the name is taken, nothing is run. Killed itself, `pail link` takes the command with it
/// (on Linux), and the bucket goes down with NOCONNECTION when the command is dead; if its children live on, when the
/// lease is over.
///
/// And when the bucket goes, so does the command. Ended by somebody, or by its --ttl: SIGTERM, and after the --grace
/// SIGKILL. The connection is lost: SIGKILL at once, for the name is free at once. The server is silent: SIGKILL before
/// the --lease is over. Where there is no terminal, its children are signalled too.
///
/// With --share the bucket may be there already, and others may be linked to it. Status 0 is then a good-bye: the
/// bucket lives on. A fault ends it, and with it the commands of all the others. Create it with --idle-ttl before, and
/// it goes when nobody has been linked to it for so long.
///
/// The command finds PAIL_BUCKET, PAIL_BUCKET_ID and PAIL_ADDR in its environment. PAIL_BUCKET_ID is a fencing token:
/// who takes the name later has a greater one. A lock over a network can not promise more than that its holder is told;
/// a process that is frozen hears nothing. So let what the lock protects refuse a smaller token than the greatest it
/// has seen.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pail link backup -- ./backup               a lock: who comes second is told so
  pail link backup --wait -- ./backup        who comes second waits
  pail link online/ann -- ./chat             a presence, for 'pail watch --prefix online/'
  pail link room/7 --share -- ./player       one bucket for many
  pail link nightly --ttl 1h -- ./run        stopped after an hour

Exit codes: the command's own, 128 and the number of the signal that ended it, or, with a line that says why,
  1    the name is taken, or the bucket was ended and the command with it
  2    the command line is wrong; nothing was run
  3    no answer, or the connection was lost and the command was ended
  126  the command can't be run (127: it is not there)")]
#[allow(clippy::doc_markdown)] // the docs are the help
pub struct Link {
    /// The name of the bucket
    name: String,
    /// Wait until the name is free; who gets it then is not in the order of coming
    #[arg(long, conflicts_with = "share")]
    wait: bool,
    /// Join the bucket if it is there
    #[arg(long)]
    share: bool,
    /// How long a bucket that is created lives at most: a whole number of ms, s, m, h or d [default: for ever]
    #[arg(long, value_name = "TIME", value_parser = ttl)]
    ttl: Option<prost_types::Duration>,
    /// How long the connection may be silent before the bucket goes down: 1s to 15s
    #[arg(long, value_name = "DURATION", default_value = "15s", value_parser = lease)]
    lease: Duration,
    /// How long the command may take to end after its SIGTERM, where there is time
    #[arg(long, value_name = "DURATION", default_value = "5s", value_parser = duration)]
    grace: Duration,
    /// Tell on standard error who is waited for, and when the bucket is linked
    #[arg(long, short)]
    verbose: bool,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND")]
    command: Vec<OsString>,
}

fn not_run(what: &str, error: &io::Error) -> Error {
    Error::Aborted { words: format!("{what}: {}", root_cause(error)), exit_code: EXIT_NOT_RUN }
}

/// A server gives up a connection that leaves its HTTP/2 pings unanswered for 10 s and 5 s more. A longer lease would
/// let a command run on when its bucket is down.
const LEASE_MAX: Duration = Duration::from_secs(15);

fn lease(text: &str) -> Result<Duration, String> {
    let allowed = || "must be 1s to 15s".to_owned();
    duration(text).ok().filter(|lease| (LEASE_MIN..=LEASE_MAX).contains(lease)).ok_or_else(allowed)
}

impl Link {
    /// To be run on the main thread: see [`Running::start`].
    pub(super) async fn run(self, options: &Options) -> Result<(), Error> {
        let (mut hold, socket) = self.take(options).await?;
        let Linked { bucket, bucket_id, .. } = &hold.linked;
        self.note(&format!("linked to bucket {bucket:?} ({bucket_id})"));
        let variables = [
            ("PAIL_BUCKET", bucket.clone()),
            ("PAIL_BUCKET_ID", bucket_id.to_string()),
            ("PAIL_ADDR", options.addr.to_string()),
        ];
        let mut command = match Running::start(&self.command, &variables, socket) {
            Ok(command) => command,
            Err(error) => {
                let error = not_run("cannot start the command", &error);
                hold.stop(Reason::Crashed, error.words(options), options).await?;
                return Err(error);
            }
        };
        let outcome = {
            let lost = pin!(hold.lost(options));
            tokio::select! {
                biased; // a command that has ended has not been ended
                ended = command.ended() => Ok(ended.map_err(|error| not_run("lost sight of the command", &error))?),
                lost = lost => Err(lost),
            }
        };
        match outcome {
            Ok(ended) => self.release(hold, ended, options).await,
            Err(lost) => {
                command.end_by(lost.until).await;
                Err(lost.why)
            }
        }
    }

    /// Takes the bucket, if need be by waiting for it.
    async fn take(&self, options: &Options) -> Result<(Hold, OwnedFd), Error> {
        let mut backoff = Backoff::default();
        loop {
            match self.attempt(options).await {
                Ok(Some(held)) => return Ok(held),
                Ok(None) => backoff.reset(), // it was taken and is free: at once, for others wait too
                Err(error) if self.wait && error.may_pass() => {
                    let wait = backoff.next();
                    writeln!(io::stderr(), "{}", error.line(options).unwrap_or_default())?;
                    writeln!(io::stderr(), "pail: trying again in {wait:?}")?;
                    tokio::time::sleep(wait).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// One attempt; `None` where the name was taken and is now free.
    async fn attempt(&self, options: &Options) -> Result<Option<(Hold, OwnedFd)>, Error> {
        let Connection { mut client, socket } = Connection::open(options).await?;
        let times = Times { lease: self.lease, grace: self.grace };
        let error = match Hold::take(client.clone(), self.ask(), times, options).await {
            Ok(hold) => return Ok(Some((hold, socket))),
            Err(error) => error,
        };
        let Some(holder) = error.fact("BUCKET_EXISTS", "bucket_id") else { return Err(error) };
        let words = format!("bucket {:?} is taken, by the one with the id {holder}", self.name);
        let (true, Ok(id)) = (self.wait, holder.parse()) else {
            return Err(error.in_words(format!("{words}; --wait waits for its end")));
        };
        self.note(&format!("{words}; waiting for its end"));
        wait::until_down(&mut client, self.name.clone(), id, options).await?;
        Ok(None)
    }

    fn ask(&self) -> LinkBucket {
        let mode = if self.share { LinkMode::CreateIfAbsent } else { LinkMode::MustCreate };
        LinkBucket { bucket: self.name.clone(), mode: mode.into(), ttl: self.ttl, ..LinkBucket::default() }
    }

    /// The command is no more, so the bucket can go; or, if it is shared and nothing went wrong, be left to the others.
    async fn release(&self, mut hold: Hold, ended: Ended, options: &Options) -> Result<(), Error> {
        let released = match ended.fault() {
            None if self.share => hold.good_bye(options).await,
            None => hold.stop(Reason::Normal, String::new(), options).await,
            Some(fault) => hold.stop(Reason::Crashed, fault, options).await,
        };
        match (ended.exit_code(), released) {
            (0, released) => released,
            (code, released) => {
                let line = released.err().and_then(|error| error.line(options));
                line.map(|line| writeln!(io::stderr(), "{line}").ok());
                Err(Error::Command(code))
            }
        }
    }

    fn note(&self, text: &str) {
        if self.verbose {
            writeln!(io::stderr(), "pail: {text}").ok(); // where nobody reads it, the command still runs
        }
    }
}
