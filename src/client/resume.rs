//! Going on with a watch after a lost connection: from where, and after how long.

use std::{mem, time::Duration};

use super::{backoff::Backoff, error::Error};
use crate::pb::{Monitor, WatchRequest};

/// How far a watch has come, and how to go on from there.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// What is still asked for.
    asked: WatchRequest,
    /// The registry that the revision is of.
    registry_id: String,
    /// Everything up to here was told. 0 within a snapshot.
    revision: u64,
    monitors: Vec<Monitor>,
    /// Refs whose DOWN has come: they are not asked for again.
    fired: Vec<u64>,
    backoff: Backoff,
}

/// What to do about an error.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Next {
    /// It is nothing but another connection: go on at once.
    Move,
    /// Go on after a wait.
    Resume(Duration),
    /// What was missed is not to be had any more: begin anew, at once.
    Restart,
    /// It will not get better.
    Fail,
}

impl Place {
    /// The begin of a watch, after a revision that the user may have named.
    pub(super) fn new(asked: WatchRequest, revision: Option<u64>) -> Self {
        Self { asked, revision: revision.unwrap_or_default(), ..Self::default() }
    }

    pub(super) fn started(&mut self, registry_id: String, monitors: Vec<Monitor>) {
        (self.registry_id, self.monitors) = (registry_id, monitors);
        self.fired.clear();
        self.backoff.reset();
    }

    /// A response has been told of, whole.
    pub(super) fn reached(&mut self, revision: u64) {
        self.revision = revision;
    }

    /// The DOWN of a monitor has been told.
    pub(super) fn fired(&mut self, monitor: u64) {
        if !self.asked.follow && self.asked.prefix.is_none() {
            self.fired.push(monitor);
        }
    }

    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// What is to be done about `error`.
    pub(super) fn next(&mut self, error: &Error) -> Next {
        match error.reason().as_deref() {
            Some("REVISION_UNKNOWN" | "REVISION_COMPACTED") if self.revision != 0 => {
                self.revision = 0;
                Next::Restart
            }
            Some("MOVING") => Next::Move,
            _ if error.may_pass() => Next::Resume(self.backoff.next()),
            _ => Next::Fail,
        }
    }

    /// The request that goes on from here; `None` where all that it asks for was told.
    pub(super) fn request(&mut self) -> Option<WatchRequest> {
        let (monitors, fired) = (mem::take(&mut self.monitors), mem::take(&mut self.fired));
        // A monitor and what asked for it stand at the same place.
        let waits = |index: usize| monitors.get(index).is_none_or(|set| !fired.contains(&set.r#ref));
        keep(&mut self.asked.buckets, waits);
        keep(&mut self.asked.incarnations, waits);
        let WatchRequest { buckets, incarnations, prefix, .. } = &self.asked;
        if prefix.is_none() && buckets.is_empty() && incarnations.is_empty() {
            return None;
        }
        let mut request = self.asked.clone();
        if self.revision != 0 {
            request.after_revision = Some(self.revision);
            request.registry_id = (!self.registry_id.is_empty()).then(|| self.registry_id.clone());
        }
        Some(request)
    }
}

fn keep<T>(items: &mut Vec<T>, wanted: impl Fn(usize) -> bool) {
    let mut index = 0;
    items.retain(|_| {
        index += 1;
        wanted(index - 1)
    });
}

#[cfg(test)]
mod tests {
    use tonic::Status;

    use super::*;
    use crate::client::backoff::{WAIT_MAX, WAIT_MIN};
    use crate::service::status::{Failure, Reason};

    fn refused(reason: Reason) -> Error {
        Status::from(Failure::new(reason, "no")).into()
    }

    #[test]
    fn a_lost_connection_is_tried_again_at_longer_and_longer_intervals() {
        let mut place = Place::new(WatchRequest::default(), None);
        let lost = Error::Unreachable("gone".to_owned());
        let mut waits = (0..9).map(|_| match place.next(&lost) {
            Next::Resume(wait) => wait,
            other => panic!("{other:?}"),
        });
        assert_eq!(waits.next(), Some(WAIT_MIN));
        assert_eq!(waits.next(), Some(WAIT_MIN * 2));
        assert_eq!(waits.last(), Some(WAIT_MAX));
        place.started("r".to_owned(), vec![]);
        assert_eq!(place.next(&lost), Next::Resume(WAIT_MIN));
    }

    #[test]
    fn what_is_not_kept_begins_anew_and_what_is_wrong_stays_wrong() {
        let all = WatchRequest { prefix: Some(String::new()), ..WatchRequest::default() };
        let mut place = Place::new(all, Some(7));
        assert_eq!(place.next(&refused(Reason::RevisionCompacted)), Next::Restart);
        assert_eq!(place.request().unwrap().after_revision, None);
        assert_eq!(place.next(&refused(Reason::RevisionUnknown)), Next::Fail, "it was not resumed");
        assert!(matches!(place.next(&refused(Reason::Draining)), Next::Resume(_)));
        assert_eq!(place.next(&refused(Reason::Moving)), Next::Move);
        assert_eq!(place.next(&refused(Reason::InvalidName)), Next::Fail);
    }

    #[test]
    fn monitors_that_have_fired_are_not_set_again() {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let first = WatchRequest { buckets: names(&["a", "b", "a"]), ..WatchRequest::default() };
        let mut place = Place::new(first, None);
        place.request().unwrap();
        let monitor = |r#ref, bucket: &str| Monitor { r#ref, bucket: bucket.to_owned(), bucket_id: 1 };
        place.started("r".to_owned(), vec![monitor(1, "a"), monitor(2, "b"), monitor(3, "a")]);
        place.reached(100);
        place.fired(3);
        let request = place.request().unwrap();
        assert_eq!((request.buckets, request.after_revision), (names(&["a", "b"]), Some(100)));
        place.started("r".to_owned(), vec![monitor(4, "a"), monitor(5, "b")]);
        place.fired(4);
        assert_eq!(place.request().unwrap().buckets, names(&["b"]));
        place.started("r".to_owned(), vec![monitor(6, "b")]);
        place.fired(6);
        assert_eq!(place.request(), None);
    }
}
