//! What a Watch is told, as naively as it can be written.

use std::collections::BTreeSet;

use pail::pb::{self, EventKind, Reason, event::Event};

use crate::model::{BEGIN, HISTORY_EVENTS_MAX, Model, timestamp};

/// What one Watch heard in one step. Refs are the places of the monitors, from 1.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Heard {
    /// As it began: the monitored ids.
    pub(crate) started: Option<Vec<u64>>,
    pub(crate) events: Vec<Event>,
    pub(crate) synced: bool,
    /// It ended, well.
    pub(crate) over: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct Watch {
    scope: Scope,
    kinds: Vec<EventKind>,
    /// The prefix of keys, and whether values are left out.
    entries: Option<(String, bool)>,
    over: bool,
}

#[derive(Clone, Debug)]
enum Scope {
    Prefix(String),
    Follow(Vec<String>),
    /// For each ref the bucket that it waits for, until it has fired.
    Monitors(Vec<Option<u64>>),
}

/// The bucket's name, its id, and the kind of an event.
fn about(event: &Event) -> (&str, u64, EventKind) {
    match event {
        Event::Created(event) => (&event.bucket, event.bucket_id, EventKind::Created),
        Event::Down(event) => (&event.bucket, event.bucket_id, EventKind::Down),
        Event::Put(event) => (&event.bucket, event.bucket_id, EventKind::Put),
        Event::Deleted(event) => (&event.bucket, event.bucket_id, EventKind::Deleted),
    }
}

pub(crate) fn name_of(event: &Event) -> &str {
    about(event).0
}

pub(crate) fn set_ref(event: &mut Event, to: u64) {
    match event {
        Event::Created(event) => event.r#ref = to,
        Event::Down(event) => event.r#ref = to,
        Event::Put(event) => event.r#ref = to,
        Event::Deleted(event) => event.r#ref = to,
    }
}

fn revision(event: &Event) -> u64 {
    match event {
        Event::Created(event) => event.revision,
        Event::Down(event) => event.revision,
        Event::Put(_) | Event::Deleted(_) => unreachable!("the log has none"),
    }
}

impl Watch {
    /// Begins to watch, or says why not.
    pub(crate) fn open(model: &Model, request: &pb::WatchRequest) -> Result<(Self, Heard), &'static str> {
        check(model, request)?;
        let all = [EventKind::Created, EventKind::Down, EventKind::Put, EventKind::Deleted];
        let wanted = |kind: &EventKind| request.kinds.is_empty() || request.kinds.contains(&i32::from(*kind));
        let key_prefix = request.key_prefix.clone().unwrap_or_default();
        let mut watch = Self {
            scope: Scope::Prefix(request.prefix.clone().unwrap_or_default()),
            kinds: all.into_iter().filter(wanted).collect(),
            entries: request.entries.then_some((key_prefix, request.keys_only)),
            over: false,
        };
        let mut heard = Heard { started: Some(Vec::new()), synced: true, ..Heard::default() };
        let after = request.after_revision;
        if request.prefix.is_none() && request.follow {
            let ids = request.buckets.iter().map(|name| model.buckets.get(name).map_or(0, |bucket| bucket.id));
            heard.started = Some(ids.collect());
            watch.scope = Scope::Follow(request.buckets.clone());
        } else if request.prefix.is_none() {
            watch.monitor(model, request, &mut heard);
        }
        // What was missed; where nothing was, what is there.
        if !matches!(watch.scope, Scope::Monitors(_)) {
            if let Some(after) = after {
                let missed: Vec<Event> = model.log.iter().filter(|event| revision(event) > after).cloned().collect();
                heard.events.extend(watch.told(&missed));
            } else if !request.skip_initial {
                heard.events.extend(watch.initial_buckets(model));
            }
        }
        if !request.skip_initial {
            heard.events.extend(watch.initial_entries(model));
        }
        heard.over = watch.over;
        Ok((watch, heard))
    }

    /// One monitor for each bucket that is named, as of the revision that is resumed after.
    fn monitor(&mut self, model: &Model, request: &pb::WatchRequest, heard: &mut Heard) {
        let names = request.buckets.iter().map(|name| (name, None));
        let lives = request.incarnations.iter().map(|life| (&life.bucket, Some(life.bucket_id)));
        let mut monitors = Vec::new();
        let mut started = Vec::new();
        let mut fired = Vec::new();
        for (place, (name, asked)) in (1..).zip(names.chain(lives)) {
            let mut down = Event::Down(pb::DownEvent {
                r#ref: place,
                bucket: name.clone(),
                bucket_id: asked.unwrap_or(0),
                reason: Reason::Noproc.into(),
                revision: model.revision,
                time: Some(timestamp(model.now)),
                ..pb::DownEvent::default()
            });
            let is_meant = |event: &&Event| {
                let (of, id, _) = about(event);
                of == name && asked.is_none_or(|asked| asked == id)
            };
            let after = request.after_revision.unwrap_or(u64::MAX);
            let missed = model.log.iter().filter(|event| revision(event) > after).find(is_meant);
            let living = model.buckets.get(name).map(|bucket| bucket.id);
            let living = living.filter(|id| asked.is_none_or(|asked| asked == *id));
            let waits = match (missed, living) {
                (Some(missed @ Event::Down(_)), _) => {
                    started.push(about(missed).1);
                    down = missed.clone();
                    set_ref(&mut down, place);
                    None
                }
                (Some(_), _) | (None, None) => {
                    started.push(0);
                    None
                }
                (None, Some(id)) => {
                    started.push(id);
                    Some(id)
                }
            };
            monitors.push(waits);
            if waits.is_none() {
                fired.push(down);
            }
        }
        // In the order of what happened; what was not there comes as of now.
        fired.sort_by_key(revision);
        heard.events.extend(fired.into_iter().filter(|_| self.kinds.contains(&EventKind::Down)));
        heard.started = Some(started);
        self.over = monitors.iter().all(Option::is_none);
        self.scope = Scope::Monitors(monitors);
    }

    /// What it is told of this.
    pub(crate) fn hear(&mut self, news: &[Event]) -> Heard {
        if self.over {
            return Heard::default();
        }
        Heard { events: self.told(news), over: self.over, ..Heard::default() }
    }

    fn told(&mut self, news: &[Event]) -> Vec<Event> {
        let mut told = Vec::new();
        for event in news {
            let (name, id, kind) = about(event);
            for place in self.refs(name, id) {
                told.extend(self.shown(event, place));
            }
            if let (Scope::Monitors(monitors), EventKind::Down) = (&mut self.scope, kind) {
                monitors.iter_mut().filter(|waits| **waits == Some(id)).for_each(|waits| *waits = None);
                self.over = monitors.iter().all(Option::is_none);
            }
        }
        told
    }

    /// Whom an event of this bucket is for.
    fn refs(&self, name: &str, id: u64) -> Vec<u64> {
        let places = 1..;
        match &self.scope {
            Scope::Prefix(prefix) if name.starts_with(prefix) => vec![0],
            Scope::Prefix(_) => Vec::new(),
            Scope::Follow(names) => {
                places.zip(names).filter(|(_, each)| *each == name).map(|(place, _)| place).collect()
            }
            Scope::Monitors(ids) => {
                places.zip(ids).filter(|(_, each)| **each == Some(id)).map(|(place, _)| place).collect()
            }
        }
    }

    /// The event as it is told, if it is wanted.
    fn shown(&self, event: &Event, place: u64) -> Option<Event> {
        let (_, _, kind) = about(event);
        if !self.kinds.contains(&kind) {
            return None;
        }
        let mut event = event.clone();
        set_ref(&mut event, place);
        let key = match &event {
            Event::Created(_) | Event::Down(_) => return Some(event),
            Event::Put(put) => put.entry.as_ref().map(|entry| &entry.key),
            Event::Deleted(deleted) => Some(&deleted.key),
        };
        let (key_prefix, keys_only) = self.entries.as_ref()?;
        if !key?.starts_with(key_prefix) {
            return None;
        }
        if let (Event::Put(put), true) = (&mut event, keys_only) {
            put.entry.as_mut()?.value = None;
        }
        Some(event)
    }

    fn initial_buckets(&self, model: &Model) -> Vec<Event> {
        let mut told = Vec::new();
        for (name, bucket) in &model.buckets {
            let created = model.log.iter().find(|event| revision(event) == bucket.id);
            let Some(Event::Created(mut created)) = created.cloned() else { unreachable!("it was created") };
            created.initial = true;
            let created = Event::Created(created);
            told.extend(self.refs(name, bucket.id).into_iter().filter_map(|place| self.shown(&created, place)));
        }
        if let Scope::Follow(names) = &self.scope {
            let absent: BTreeSet<&String> = names.iter().filter(|name| !model.buckets.contains_key(*name)).collect();
            for name in absent {
                let down = Event::Down(pb::DownEvent {
                    bucket: name.clone(),
                    reason: Reason::Noproc.into(),
                    revision: model.revision,
                    time: Some(timestamp(model.now)),
                    ..pb::DownEvent::default()
                });
                told.extend(self.refs(name, 0).into_iter().filter_map(|place| self.shown(&down, place)));
            }
        }
        told
    }

    fn initial_entries(&self, model: &Model) -> Vec<Event> {
        let Some((key_prefix, keys_only)) = &self.entries else { return Vec::new() };
        let mut told = Vec::new();
        for (name, bucket) in &model.buckets {
            for event in bucket.initial(name, key_prefix, !keys_only) {
                told.extend(self.refs(name, bucket.id).into_iter().filter_map(|place| self.shown(&event, place)));
            }
        }
        told
    }
}

/// Why it can't begin.
fn check(model: &Model, request: &pb::WatchRequest) -> Result<(), &'static str> {
    let has_entry_kinds =
        request.kinds.iter().any(|kind| *kind == i32::from(EventKind::Put) || *kind == i32::from(EventKind::Deleted));
    let targets = [!request.buckets.is_empty(), !request.incarnations.is_empty(), request.prefix.is_some()];
    if !request.entries && (request.key_prefix.is_some() || request.keys_only || has_entry_kinds)
        || targets.into_iter().filter(|is_set| *is_set).count() != 1
        || request.prefix.is_none() && !request.follow && !request.entries && request.skip_initial
        || request.follow && request.buckets.is_empty()
    {
        return Err("INVALID_OPTION");
    }
    match request.after_revision {
        Some(after) if after < BEGIN || after > model.revision => Err("REVISION_UNKNOWN"),
        Some(after) if model.revision - after > HISTORY_EVENTS_MAX as u64 => Err("REVISION_COMPACTED"),
        _ => Ok(()),
    }
}
