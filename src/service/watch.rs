//! Watch: a core watch with heartbeats, as a stream of responses.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::Stream;
use http::Extensions;
use tokio::time::{Instant, Sleep, sleep};
use tonic::Status;

use super::{
    Buckets,
    access::{Kind, Standing},
    convert::{Subject, duration, to_watch_response},
    status::{Failure, Reason},
    streams::Permit,
    wire,
};
use crate::{
    auth::{Caller, Verb, Verbs},
    bucket::Values,
    limits::{HEARTBEAT_DEFAULT, HEARTBEAT_MAX, HEARTBEAT_MIN},
    name::Revision,
    pb::{self, EventKind},
    registry::{Error, Target},
    watch::{BeginError, End, Entries, Initial, Kinds, Watch},
};

impl Buckets {
    pub(super) fn watch_buckets(
        &self,
        request: &pb::WatchRequest,
        extensions: &Extensions,
    ) -> Result<WatchStream, Failure> {
        let (every, kinds) = (heartbeat(request)?, kinds(request)?);
        let standing = self.standing(extensions, Kind::Watching)?;
        let verbs = if request.entries { Verb::Watch | Verb::Read } else { Verb::Watch.into() };
        let targets = self.targets(request, standing.caller(), verbs)?;
        let after = self.after(request)?;
        let initial = match (after, request.skip_initial) {
            (Some(revision), false) => Initial::After(revision),
            (Some(revision), true) => Initial::ChangesAfter(revision),
            (None, true) => Initial::Skipped,
            (None, false) => Initial::Sent,
        };
        let permit = self.streams.admit(extensions)?;
        let registry = self.registry.clone();
        let watch = match &request.prefix {
            Some(prefix) => {
                let scopes = Self::scopes(standing.caller(), verbs, prefix)?;
                Watch::prefixes(registry, &scopes, kinds, initial)
            }
            None if request.follow => Watch::follow(registry, &targets, kinds, initial),
            None => Watch::names(registry, &targets, kinds, initial),
        }
        .map_err(refused)?
        .read_by(permit.peer());
        Ok(WatchStream { watch, every, timer: Box::pin(sleep(every)), standing, permit })
    }

    /// The names or the incarnations; none for a prefix.
    fn targets<'a>(
        &self,
        request: &'a pb::WatchRequest,
        caller: &Caller,
        verbs: Verbs,
    ) -> Result<Vec<Target<'a>>, Failure> {
        let pb::WatchRequest { buckets, incarnations, prefix, .. } = request;
        if [!buckets.is_empty(), !incarnations.is_empty(), prefix.is_some()].map(usize::from).iter().sum::<usize>() != 1
        {
            let words = "exactly one of buckets, incarnations and prefix is required (the empty prefix is all)";
            return Err(Failure::new(Reason::InvalidOption, words).field("buckets"));
        }
        if prefix.is_none() && !request.follow && !request.entries && request.skip_initial {
            let words =
                "skip_initial is set: only a watch by prefix, with follow or with entries has something to skip";
            return Err(Failure::new(Reason::InvalidOption, words).field("skip_initial"));
        }
        if request.follow && buckets.is_empty() {
            let words = "follow is set: only names can be followed (a prefix is, always)";
            return Err(Failure::new(Reason::InvalidOption, words).field("follow"));
        }
        let (limit, actual) = (self.registry.limits().watch_names_max, buckets.len() + incarnations.len());
        if actual > limit {
            let words = format!("the watch names {actual} buckets; {limit} are allowed");
            let field = if buckets.is_empty() { "incarnations" } else { "buckets" };
            return Err(Failure::new(Reason::TooLarge, words).field(field).limit(limit, actual));
        }
        let names = buckets.iter().map(|name| ("buckets", name, None));
        let lives = incarnations.iter().map(|life| ("incarnations", &life.bucket, Some(life.bucket_id)));
        let target = |(field, name, id): (&str, &'a String, _)| {
            let name = self.name(caller, verbs, name).map_err(|failure| failure.field(field))?;
            Ok(Target { name, id })
        };
        names.chain(lives).map(target).collect()
    }
}

impl Buckets {
    /// The revision that the watch is resumed after.
    fn after(&self, request: &pb::WatchRequest) -> Result<Option<Revision>, Failure> {
        let Some(after) = request.after_revision else {
            return match request.registry_id {
                None => Ok(None),
                Some(_) => {
                    let words = "registry_id is set: it goes with after_revision";
                    Err(Failure::new(Reason::InvalidOption, words).field("registry_id"))
                }
            };
        };
        if request.registry_id.as_deref().is_some_and(|id| id != self.registry.id()) {
            let words =
                "the revision is of another registry, or of an earlier life of this one: start again without it";
            return Err(Failure::new(Reason::RevisionUnknown, words).field("registry_id"));
        }
        Ok(Some(Revision::new(after)))
    }
}

fn refused(error: BeginError) -> Failure {
    match error {
        BeginError::Compacted { oldest } => {
            let words = format!("the history begins at revision {oldest}: start again without after_revision");
            Failure::new(Reason::RevisionCompacted, words).with("oldest_revision", oldest)
        }
        BeginError::Unknown => {
            let words = "the registry has not been at this revision: start again without after_revision";
            Failure::new(Reason::RevisionUnknown, words).field("after_revision")
        }
        BeginError::Failed(error) => failure(error),
    }
}

fn kinds(request: &pb::WatchRequest) -> Result<Kinds<'_>, Failure> {
    let invalid = |field, words: String| Failure::new(Reason::InvalidOption, words).field(field);
    let mut wanted =
        [EventKind::Created, EventKind::Down, EventKind::Put, EventKind::Deleted].map(|kind| (kind, false));
    for kind in &request.kinds {
        let known = wanted.iter_mut().find(|(known, _)| i32::from(*known) == *kind);
        let Some((_, wanted)) = known else {
            let words = format!("{kind} is no kind of event: CREATED, DOWN, PUT and DELETED are");
            return Err(invalid("kinds", words));
        };
        *wanted = true;
    }
    let [created, down, put, deleted] = wanted.map(|(_, wanted)| wanted || request.kinds.is_empty());
    let key_prefix = request.key_prefix.as_deref();
    if request.entries {
        let values = if request.keys_only { Values::LeftOut } else { Values::Included };
        let entries = Entries { put, deleted, key_prefix: key_prefix.unwrap_or_default(), values };
        return Ok(Kinds { created, down, entries: (put || deleted).then_some(entries) });
    }
    let alone = [("key_prefix", key_prefix.is_some()), ("keys_only", request.keys_only)];
    if let Some((field, _)) = alone.into_iter().find(|(_, set)| *set) {
        return Err(invalid(field, format!("{field} is set: it goes with entries")));
    }
    if !request.kinds.is_empty() && (put || deleted) {
        return Err(invalid("kinds", "PUT and DELETED go with entries".to_owned()));
    }
    Ok(Kinds { created, down, entries: None })
}

fn heartbeat(request: &pb::WatchRequest) -> Result<Duration, Failure> {
    let Some(asked) = request.heartbeat else { return Ok(HEARTBEAT_DEFAULT) };
    let heartbeat = duration(asked);
    heartbeat.filter(|every| (HEARTBEAT_MIN..=HEARTBEAT_MAX).contains(every)).ok_or_else(|| {
        let prost_types::Duration { seconds, nanos } = asked;
        let words = format!(
            "heartbeat is {seconds} seconds and {nanos} nanos: {HEARTBEAT_MIN:?} to {HEARTBEAT_MAX:?} is allowed"
        );
        Failure::new(Reason::InvalidOption, words).field("heartbeat")
    })
}

/// The responses of one Watch. A client that does not read is not written for: the stream is not polled then, and no
/// heartbeat is queued.
#[derive(Debug)]
pub struct WatchStream {
    watch: Watch,
    /// The longest silence.
    every: Duration,
    timer: Pin<Box<Sleep>>,
    standing: Standing,
    permit: Permit,
}

impl Stream for WatchStream {
    type Item = Result<wire::WatchResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.permit.is_moving() {
            return Poll::Ready(Some(Err(resumable(Permit::moving(), this.watch.heartbeat().revision).into())));
        }
        if let Some(failure) = this.standing.ended(cx) {
            return Poll::Ready(Some(Err(resumable(failure, this.watch.heartbeat().revision).into())));
        }
        let response = match Pin::new(&mut this.watch).poll_next(cx) {
            Poll::Ready(Some(Ok(response))) => response,
            Poll::Ready(Some(Err(end))) => return Poll::Ready(Some(Err(ended(end).into()))),
            Poll::Ready(None) => return Poll::Ready(None),
            Poll::Pending => {
                ready!(this.timer.as_mut().poll(cx));
                this.watch.heartbeat()
            }
        };
        this.timer.as_mut().reset(Instant::now() + this.every);
        Poll::Ready(Some(Ok(to_watch_response(response, this.watch.registry(), this.standing.caller()))))
    }
}

fn ended(end: End) -> Failure {
    match end {
        End::Lagged { resume } => {
            let words = "the watch was read too slowly, and the history or the ring has gone on without it";
            resumable(Failure::new(Reason::WatcherLagged, words), resume)
        }
        End::Drained => Failure::new(Reason::Draining, "the server is draining: watch another one"),
        End::Failed(error) => failure(error),
    }
}

/// Says what the watch can be resumed after.
fn resumable(failure: Failure, after: Option<Revision>) -> Failure {
    match after {
        Some(revision) => failure.with("resume_revision", revision),
        None => failure,
    }
}

fn failure(error: Error) -> Failure {
    Subject { bucket: "", bucket_id: None, key: "" }.failure(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(seconds: i64, nanos: i32) -> bool {
        let asked = prost_types::Duration { seconds, nanos };
        match heartbeat(&pb::WatchRequest { heartbeat: Some(asked), ..Default::default() }) {
            Ok(_) => false,
            Err(failure) => failure.reason() == Reason::InvalidOption,
        }
    }

    #[test]
    fn a_heartbeat_out_of_its_range_is_an_invalid_option_whatever_its_numbers() {
        assert!(!refused(1, 0) && !refused(86_400, 0));
        for (seconds, nanos) in
            [(0, 999_999_999), (86_400, 1), (-1, 0), (0, -1), (i64::MIN, 0), (i64::MIN, i32::MIN), (i64::MAX, i32::MAX)]
        {
            assert!(refused(seconds, nanos), "{seconds} s and {nanos} ns");
        }
    }
}
