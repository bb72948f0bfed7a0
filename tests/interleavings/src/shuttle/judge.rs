//! Whether what a watch said is what it promises: ordered, unique, reliable, bookmarkable and explained. What is true is
//! the registry's log, and what the writers were answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
};

use crate::{
    bucket::ring::ChangeKind,
    name::Revision,
    registry::{Event, EventKind},
    story::{Ack, NAMES},
    watch::{End, Notice, NoticeKind, Response, Update},
};

/// What is watched, each with entries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Wanted {
    /// All buckets.
    All,
    /// Each name, until its one DOWN.
    Monitors,
    /// The second name, for ever.
    Follow,
}

impl Wanted {
    fn is_of(self, name: &str) -> bool {
        match self {
            Self::All | Self::Monitors => true,
            Self::Follow => name == NAMES[1],
        }
    }
}

/// What a watch said, each with when it was heard.
pub(crate) type Heard = Vec<(usize, Result<Response, End>)>;

fn require(is_so: bool, why: impl FnOnce() -> String) -> Result<(), String> {
    if is_so { Ok(()) } else { Err(why()) }
}

/// No bucket has gone with fewer versions than it acknowledged.
pub(crate) fn acks(log: &[Arc<Event>], acks: &[Ack]) -> Result<(), String> {
    let mut ends = BTreeMap::new();
    for event in log {
        if let EventKind::Down(death) = &event.kind {
            require(ends.insert(death.id.get(), death.version.0).is_none(), || format!("{} went twice", death.id))?;
        }
    }
    for Ack { id, version, .. } in acks {
        let end = ends.get(id).ok_or_else(|| format!("{id} never went"))?;
        require(version <= end, || format!("version {version} of {id} was acknowledged, and it went with {end}"))?;
    }
    Ok(())
}

/// What has been heard of so far.
#[derive(Default)]
struct So<'a> {
    /// The version of each bucket that lives.
    living: BTreeMap<u64, u64>,
    /// Lifecycle events.
    events: BTreeSet<u64>,
    gone: Vec<&'a Event>,
    /// Versions, up to one, of buckets that went as the watch began, before their entries could be told.
    untold: Vec<(u64, u64)>,
    /// There was no such bucket.
    had_none: usize,
}

impl<'a> So<'a> {
    /// Whether all up to a version was told, or nothing at all.
    fn follows(&mut self, id: u64, told: u64, version: u64) -> Result<(), String> {
        if told == 0 && version > 0 {
            self.untold.push((id, version));
            return Ok(());
        }
        require(told == version, || format!("of {id} all up to {told} was told, and not what came up to {version}"))
    }

    fn hear(&mut self, notice: &'a Notice) -> Result<(), String> {
        let id = notice.id.unwrap_or_default();
        let change = |so: &mut Self, version: u64| {
            let before =
                so.living.insert(id, version).ok_or_else(|| format!("a change of {id}, which is not there"))?;
            so.follows(id, before, version.saturating_sub(1))
        };
        match &notice.kind {
            NoticeKind::Alive { .. } => require(self.living.insert(id, 0).is_none(), || format!("{id} is there twice")),
            NoticeKind::NoProc { .. } => {
                self.had_none += 1;
                Ok(())
            }
            NoticeKind::Put { entry, initial: true } => {
                let version =
                    self.living.get_mut(&id).ok_or_else(|| format!("an entry of {id}, which is not there"))?;
                *version = entry.version.0;
                Ok(())
            }
            NoticeKind::Put { entry, .. } => change(self, entry.version.0),
            NoticeKind::Changed(of) => {
                require(matches!(of.kind, ChangeKind::Put { .. }), || format!("a change that nobody made: {of:?}"))?;
                change(self, of.version.0)
            }
            NoticeKind::Deleted { .. } => Err(format!("a deletion that nobody made, of {id}")),
            NoticeKind::Happened(event) => {
                let revision = event.revision.get();
                let last = self.events.last().copied().unwrap_or_default();
                require(last < revision, || format!("revision {revision} after {last}"))?;
                self.events.insert(revision);
                match &event.kind {
                    EventKind::Created => {
                        require(self.living.insert(id, 0).is_none(), || format!("{id} was created twice"))
                    }
                    EventKind::Down(death) => {
                        let version = self.living.remove(&id).ok_or_else(|| format!("{id} went and was not there"))?;
                        self.gone.push(event);
                        self.follows(id, version, death.version.0)
                    }
                }
            }
        }
    }
}

pub(crate) fn judge(log: &[Arc<Event>], acks: &[Ack], wanted: Wanted, heard: &Heard) -> Result<(), String> {
    let mut so = So::default();
    let mut reached: Option<Revision> = None;
    let (mut synced, mut synced_at) = (None, usize::MAX);
    for (n, (at, response)) in heard.iter().enumerate() {
        let Ok(response) = response else { continue };
        match &response.update {
            Update::Started { monitors, .. } => {
                require(n == 0, || "it began twice".to_owned())?;
                if wanted == Wanted::Monitors {
                    so.living = monitors.iter().filter_map(|monitored| Some((monitored.id?.get(), 0))).collect();
                }
            }
            Update::Synced => {
                require(synced.is_none(), || "it was synced twice".to_owned())?;
                (synced, synced_at) = (response.revision, *at);
            }
            Update::Events(notices) => notices.iter().try_for_each(|notice| so.hear(notice))?,
            Update::Heartbeat | Update::Draining => {}
        }
        require(response.revision >= reached, || format!("{:?} after {reached:?}", response.revision))?;
        reached = response.revision;
        // A bookmark: all up to it has been told, of what came after the snapshot.
        if let (Some(synced), Some(reached)) = (synced, reached) {
            for event in log.iter().filter(|event| event.revision > synced && event.revision <= reached) {
                let of_interest = wanted.is_of(&event.name) && (wanted != Wanted::Monitors || so_far(&so, event));
                require(!of_interest || so.events.contains(&event.revision.get()), || {
                    format!("it is at {reached}, and did not tell of {}", event.revision)
                })?;
            }
        }
    }
    require(so.living.is_empty(), || format!("never told of the end of {:?}", so.living))?;
    let is_late = |ack: &&Ack| {
        let is_untold = so.untold.iter().any(|(id, until)| ack.id == *id && ack.version <= *until);
        is_untold && ack.asked > synced_at
    };
    if let Some(ack) = acks.iter().find(is_late) {
        return Err(format!("version {} of {} was asked for after it was synced, and not told", ack.version, ack.id));
    }
    match (wanted, heard.last().map(|(_, last)| last)) {
        (Wanted::Monitors, Some(Ok(_))) => require(so.gone.len() + so.had_none == NAMES.len(), || {
            format!("{} DOWNs, and {} times none to monitor", so.gone.len(), so.had_none)
        }),
        (Wanted::All | Wanted::Follow, Some(Err(End::Drained))) => {
            let all = log.iter().filter(|event| wanted.is_of(&event.name) && Some(event.revision) > synced);
            let all: BTreeSet<u64> = all.map(|event| event.revision.get()).collect();
            let after: BTreeSet<u64> =
                so.events.iter().copied().filter(|each| Some(*each) > synced.map(Revision::get)).collect();
            require(all == after, || format!("told of {after:?}, and there were {all:?}"))
        }
        (_, last) => Err(format!("it ended with {last:?}")),
    }
}

/// Whether a watch of one life is to tell of this: of the end of the bucket that it watches.
fn so_far(so: &So<'_>, event: &Event) -> bool {
    matches!(&event.kind, EventKind::Down(death) if so.living.contains_key(&death.id.get()))
}

/// What was heard, in short, without what differs from run to run.
pub(crate) fn tell(told: &mut String, wanted: Wanted, heard: &Heard) {
    writeln!(told, "{wanted:?}").unwrap();
    for (_, response) in heard {
        match response {
            Err(end) => writeln!(told, "  {end}").unwrap(),
            Ok(Response { revision, update }) => {
                let revision = revision.map(Revision::get);
                match update {
                    Update::Started { .. } => writeln!(told, "  {revision:?} started").unwrap(),
                    Update::Events(notices) => {
                        for Notice { name, id, kind, .. } in notices {
                            writeln!(told, "  {revision:?} {name} {id:?} {kind:?}").unwrap();
                        }
                    }
                    other => writeln!(told, "  {revision:?} {other:?}").unwrap(),
                }
            }
        }
    }
}
