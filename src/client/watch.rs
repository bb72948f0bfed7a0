//! `watch`: a line for each event, as it happens.

mod exec;

use std::{
    io::{self, Write as _},
    time::Duration,
};

use clap::{Args, ValueEnum};
use serde_json::{Value as Json, json};
use tokio::time::timeout;
use tonic::Status;

use self::exec::Exec;
use super::{
    error::{EXIT_INTERRUPTED, Error},
    json::{ToJson as _, reason_name},
    lifecycle::time,
    options::{Options, duration},
    output::{Escaped, Format, Output},
    resume::{Next, Place},
    value,
};
use crate::{
    limits::HEARTBEAT_DEFAULT,
    pb::{EventKind, Incarnation, WatchRequest, event::Event, watch_response::Response},
};

/// Tells what becomes of buckets: when each goes down, and why
///
/// Prints a line for each event: the time, CREATED or DOWN, the name and the id; then, for a DOWN, the reason and the
/// detail, and "initial" for a bucket that lived already. With --entries also PUT and DELETED, which have no time: the name,
/// the id, the key, the version, and for a PUT the kind and the value; then "initial" or "expired". Names and incarnations get
/// exactly one DOWN each (NOPROC where there is no such bucket), and after the last one the watch ends. A prefix is watched
/// until Ctrl-C. A server that has its clients move to other connections (--connection-age-max) is followed, and nothing is
/// missed. JSON holds the stream's other messages too, and with each the revision to resume after.
#[derive(Args, Debug)]
#[command(after_help = "\
Examples:
  pail watch shopping                        ends when the bucket does
  pail watch --prefix ''                     every bucket, for ever
  pail watch shopping --follow --resume      every bucket of this name, whatever becomes of the connection
  pail watch --prefix user/ --kinds down -o json
  pail watch settings --entries --key-prefix web/
  pail watch --prefix job/ --kinds down --exec 'jq -r .down.reason'
  pail watch --incarnation shopping:1764000000000001")]
pub struct Watch {
    #[command(flatten)]
    target: Target,
    /// Only events of these kinds, with commas between them [default: all]
    #[arg(long, value_delimiter = ',', value_name = "KIND")]
    kinds: Vec<Kind>,
    /// Tell of entries too: of those that are there, and then of what changes
    #[arg(long)]
    entries: bool,
    /// Only entries whose keys begin with this
    #[arg(long, value_name = "PREFIX", requires = "entries")]
    key_prefix: Option<String>,
    /// Leave out the values of entries
    #[arg(long, requires = "entries")]
    keys_only: bool,
    /// Leave out what is there already
    #[arg(long)]
    skip_initial: bool,
    /// Go on after a DOWN, with every bucket of that name, for ever
    #[arg(long, requires = "names")]
    follow: bool,
    /// Tell what happened after this revision, instead of what is there
    #[arg(long, value_name = "REVISION", conflicts_with = "skip_initial")]
    after: Option<u64>,
    /// Connect again when the connection is lost, go on where it was, and say so on standard error. Entries are told anew then
    #[arg(long)]
    resume: bool,
    /// Run this by sh for each event, one after the other, with the event as a line of JSON on its standard input, instead of
    /// printing it. One that fails is told of on standard error, and the watch goes on
    #[arg(long, value_name = "COMMAND")]
    exec: Option<Exec>,
    /// How long the server may be silent before it sends a sign of life: 1s at least [default: 15s]
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    heartbeat: Option<Duration>,
    /// Tell on standard error when the watch is started, when it is up to date, and of each heartbeat
    #[arg(long, short)]
    verbose: bool,
}

/// Exactly one of these.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
struct Target {
    /// The names of buckets; a name given twice is told of twice
    #[arg(value_name = "NAME")]
    names: Vec<String>,
    /// Every bucket whose name begins with this; '' is all of them
    #[arg(long)]
    prefix: Option<String>,
    /// A bucket by its name and its id; may be given again
    #[arg(long, value_name = "NAME:ID", value_parser = incarnation)]
    incarnation: Vec<Incarnation>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Kind {
    Created,
    Down,
    Put,
    Deleted,
}

impl From<Kind> for EventKind {
    fn from(kind: Kind) -> Self {
        match kind {
            Kind::Created => Self::Created,
            Kind::Down => Self::Down,
            Kind::Put => Self::Put,
            Kind::Deleted => Self::Deleted,
        }
    }
}

fn incarnation(text: &str) -> Result<Incarnation, &'static str> {
    const ALLOWED: &str = "must be NAME:ID, such as shopping:1764000000000001";
    let (bucket, id) = text.rsplit_once(':').ok_or(ALLOWED)?; // a name may hold colons, an id can't
    Ok(Incarnation { bucket: bucket.to_owned(), bucket_id: id.parse().map_err(|_| ALLOWED)? })
}

impl Watch {
    pub(super) async fn run(self, options: &Options, out: &mut Output<'_>) -> Result<(), Error> {
        tokio::spawn(exit_at_interrupt());
        self.tell(options, out).await
    }

    /// Tells what happens until the watch ends, or the caller drops it.
    pub(super) async fn tell(self, options: &Options, out: &mut Output<'_>) -> Result<(), Error> {
        let mut place = Place::new(self.request(), self.after);
        while let Some(request) = place.request() {
            let Err(error) = self.stream(request, &mut place, options, out).await else { return Ok(()) };
            let next = place.next(&error);
            if !self.resume && next != Next::Move {
                return Err(error);
            }
            let why = error.line(options).unwrap_or_default();
            match next {
                Next::Fail => return Err(error),
                Next::Move if self.verbose => writeln!(io::stderr(), "{why}")?,
                Next::Move => {}
                Next::Restart => {
                    writeln!(io::stderr(), "{why}")?;
                    writeln!(io::stderr(), "pail: what happened meanwhile is not known; beginning anew")?;
                }
                Next::Resume(wait) => {
                    let from = match place.revision() {
                        0 => "anew".to_owned(),
                        revision => format!("after revision {revision}"),
                    };
                    writeln!(io::stderr(), "{why}")?;
                    writeln!(io::stderr(), "pail: going on {from} in {wait:?}")?;
                    tokio::time::sleep(wait).await;
                }
            }
        }
        Ok(())
    }

    /// One stream, to its end.
    async fn stream(
        &self,
        request: WatchRequest,
        place: &mut Place,
        options: &Options,
        out: &mut Output<'_>,
    ) -> Result<(), Error> {
        // The heartbeat is a promise that can be held against the server: two of them missed is a lost connection.
        let silence_max = self.heartbeat.unwrap_or(HEARTBEAT_DEFAULT) * 2 + options.timeout;
        let mut client = options.connect().await?;
        let mut stream = heard(options.timeout, client.watch(request)).await?.into_inner();
        while let Some(answer) = heard(silence_max, stream.message()).await? {
            let revision = answer.revision;
            let note = |what: &str| json!({ what: {}, "revision": revision });
            match answer.response {
                Some(Response::Started(started)) => {
                    let text = format!("watching registry {}", Escaped(&started.registry_id));
                    self.note(&text, &json!({ "started": started.to_json(), "revision": revision }), out)?;
                    place.started(started.registry_id, started.monitors);
                }
                Some(Response::Events(events)) => {
                    let count = events.events.len();
                    for (i, event) in events.events.into_iter().filter_map(|event| event.event).enumerate() {
                        // The response's revision holds once its last event is handled; until then, the one before.
                        let mut json = event.to_json();
                        json["revision"] = if i + 1 == count { revision } else { place.revision() }.into();
                        match &self.exec {
                            Some(exec) => exec.run(&json).await?,
                            None => out.line(text(&event), &json)?,
                        }
                        if let Event::Down(down) = &event {
                            place.fired(down.r#ref);
                        }
                    }
                }
                Some(Response::Synced(_)) => self.note("up to date", &note("synced"), out)?,
                Some(Response::Heartbeat(_)) => self.note("heartbeat", &note("heartbeat"), out)?,
                Some(Response::Draining(_)) => out.line("-\tDRAINING", &note("draining"))?,
                None => {} // of a later version of the API
            }
            out.to.flush()?;
            place.reached(revision);
        }
        Ok(())
    }

    fn request(&self) -> WatchRequest {
        WatchRequest {
            buckets: self.target.names.clone(),
            incarnations: self.target.incarnation.clone(),
            prefix: self.target.prefix.clone(),
            entries: self.entries,
            key_prefix: self.key_prefix.clone(),
            keys_only: self.keys_only,
            kinds: self.kinds.iter().map(|&kind| EventKind::from(kind).into()).collect(),
            skip_initial: self.skip_initial,
            follow: self.follow,
            heartbeat: self.heartbeat.and_then(|heartbeat| heartbeat.try_into().ok()),
            ..WatchRequest::default()
        }
    }

    /// What is no event: a line of JSON, or a line on standard error for who wants it.
    fn note(&self, text: &str, json: &Json, out: &mut Output<'_>) -> io::Result<()> {
        match out.format {
            Format::Json => out.json(json),
            Format::Text if self.verbose => writeln!(io::stderr(), "pail: {text}"),
            Format::Text => Ok(()),
        }
    }
}

/// Ends the process from a task of its own: the watch may be held up in a write, by a reader that has paused. Nothing is
/// lost, for every event was flushed.
async fn exit_at_interrupt() {
    if tokio::signal::ctrl_c().await.is_ok() {
        std::process::exit(EXIT_INTERRUPTED.into());
    }
}

/// What the server says within so long. One that is there and says nothing is as good as gone.
pub(super) async fn heard<T>(limit: Duration, answer: impl Future<Output = Result<T, Status>>) -> Result<T, Error> {
    let silent = |_| Status::unavailable(format!("silent for {limit:?}"));
    Ok(timeout(limit, answer).await.map_err(silent)??)
}

fn text(event: &Event) -> String {
    match event {
        Event::Created(created) => {
            let initial = if created.initial { "\tinitial" } else { "" };
            format!("{}\tCREATED\t{}\t{}{initial}", time(created.time), Escaped(&created.bucket), created.bucket_id)
        }
        Event::Down(down) => format!(
            "{}\tDOWN\t{}\t{}\t{}\t{}",
            time(down.time),
            Escaped(&down.bucket),
            down.bucket_id,
            reason_name(down.reason()),
            Escaped(&down.detail)
        ),
        Event::Put(put) => {
            let entry = put.entry.clone().unwrap_or_default();
            let (kind, value) = value::fields(entry.value.as_ref());
            let (bucket, key) = (Escaped(&put.bucket), Escaped(&entry.key));
            let initial = if put.initial { "\tinitial" } else { "" };
            format!("-\tPUT\t{bucket}\t{}\t{key}\t{}\t{kind}\t{value}{initial}", put.bucket_id, entry.version)
        }
        Event::Deleted(deleted) => {
            let (bucket, key) = (Escaped(&deleted.bucket), Escaped(&deleted.key));
            let expired = if deleted.expired { "\texpired" } else { "" };
            format!("-\tDELETED\t{bucket}\t{}\t{key}\t{}{expired}", deleted.bucket_id, deleted.version)
        }
    }
}

#[cfg(test)]
mod tests {
    use prost_types::Timestamp;

    use super::*;
    use crate::pb::{CreatedEvent, DownEvent, Reason};

    #[test]
    fn an_event_is_one_line_whatever_it_holds() {
        let time = Some(Timestamp { seconds: 1_764_000_000, nanos: 0 });
        let down = DownEvent {
            bucket: "a b".into(),
            bucket_id: 7,
            reason: Reason::Crashed.into(),
            detail: "two\nlines".into(),
            time,
            ..DownEvent::default()
        };
        assert_eq!(text(&Event::Down(down)), "2025-11-24T16:00:00Z\tDOWN\ta b\t7\tCRASHED\ttwo\\nlines");

        let created = CreatedEvent { bucket: "b".into(), bucket_id: 7, initial: true, time, ..CreatedEvent::default() };
        assert_eq!(text(&Event::Created(created)), "2025-11-24T16:00:00Z\tCREATED\tb\t7\tinitial");
    }

    #[test]
    fn an_incarnation_is_a_name_that_may_hold_colons_and_an_id() {
        let parsed = incarnation("user:ann:12").unwrap();
        assert_eq!((parsed.bucket.as_str(), parsed.bucket_id), ("user:ann", 12));
        for wrong in ["shopping", "shopping:", "shopping:x", "shopping:-1"] {
            incarnation(wrong).unwrap_err();
        }
    }
}
