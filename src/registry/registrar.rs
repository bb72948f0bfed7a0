//! The registrar: the process that alone gives names and takes them away, one at a time.
//!
//! It monitors each bucket and is not linked to it, so a bucket's crash costs it one message. It may be started again at any
//! moment: what it knows besides the names in their order is in [`Shared`], and the names it takes from there.

use std::{collections::BTreeSet, convert::Infallible, ops::Bound, sync::Arc};

use once_cell::race::OnceBox;

use super::{Death, Description, Error, Event, EventKind, Inbox, Shared, Target, describe, description, index::ByName};
use crate::{
    bucket::{Begin, Bucket, Describe, Identity, Peek, Summary},
    budget::Owner,
    name::{BucketId, BucketName, Revision, page_begin},
    planted::{Bug, strikes},
    process::{Call, Context, Exit, GenServer, Info, MonitorRef, Process, Reason},
};

pub(super) struct Registrar {
    shared: Arc<Shared>,
    /// The buckets of the index, in the order of their names.
    names: BTreeSet<ByName>,
}

impl Registrar {
    /// Starts a registrar, from the buckets that live.
    #[allow(clippy::mutable_key_type)] // the order is that of the identity, which never changes
    pub(super) fn start(shared: &Arc<Shared>) -> Process<Self> {
        let names = shared.index.all().into_iter().map(ByName).collect();
        let registrar = Process::start("registrar", Self { shared: Arc::clone(shared), names });
        // Those that died while there was no registrar answer at once.
        for bucket in shared.index.all() {
            registrar.monitor(&bucket);
        }
        registrar
    }

    /// Settles the affairs of a dead bucket: its name is free, its death is in the log, its charge is given back, its
    /// monitors are handed over. Once, whoever comes first: later ones find no such id under the name.
    fn bury(&mut self, bucket: &Process<Bucket>) -> Option<Revision> {
        let Identity { name, id, created_at } = bucket.identity();
        let shared = &*self.shared;
        // From here to the log nothing can panic: the next registrar would find neither the name nor its end.
        if !shared.index.remove(name, *id) {
            return None;
        }
        self.names.remove(&**name);
        let mut remains = bucket.take_remains();
        let version = remains.as_ref().map(|bucket| bucket.summary().version).unwrap_or_default();
        let exit = bucket.why().unwrap_or_else(|| Reason::NoProc.into());
        let event = shared.log.append(|revision| Event {
            revision,
            time: shared.clock.wall().into(),
            name: Arc::clone(name),
            kind: EventKind::Down(Box::new(Death { id: *id, exit, version, created_at: *created_at })),
            wire: OnceBox::new(),
        });
        if let Some(exit) = event.exit() {
            let (reason, detail, initiator) = (exit.reason, exit.detail(), exit.initiator());
            tracing::debug!(bucket = ?name, id = id.get(), %reason, ?detail, initiator, "a bucket is down");
        }
        let bytes = remains.as_mut().map_or(0, Bucket::release);
        shared.delivery.hand_over(&event);
        shared.delivery.settle(event.revision);
        if let Some(bucket) = remains {
            shared.reaper.free(bytes, bucket);
        }
        Some(event.revision)
    }

    /// The living bucket of this name. One that is past its time, or dead but whose DOWN has not come yet, is buried on the way.
    pub(super) fn living(&mut self, name: &str, id: Option<u64>) -> Option<Process<Bucket>> {
        let bucket = self.shared.index.get(name)?;
        // One that is past its time dies of the question.
        if !bucket.is_alive() || !matches!(bucket.call(Peek), Ok(Ok(_))) {
            self.bury(&bucket);
            return None;
        }
        id.is_none_or(|id| id == bucket.identity().id.get()).then_some(bucket)
    }
}

impl GenServer for Registrar {
    type Identity = &'static str;
    type Cast = Infallible;

    fn handle_cast(&mut self, cast: Infallible, _: &mut Context<'_, Self>) {
        match cast {}
    }

    fn handle_info(&mut self, info: Info, _: &mut Context<'_, Self>) {
        match &info {
            Info::Down(down) => match down.process::<Bucket>() {
                Some(bucket) => drop(self.bury(&bucket)),
                None => tracing::debug!(?info, "nobody waits for this"),
            },
            Info::Exit { .. } => tracing::debug!(?info, "nobody waits for this"),
        }
    }
}

#[derive(Clone, Copy)]
pub(super) struct Create<'a> {
    pub(super) name: BucketName<'a>,
    pub(super) life: Begin,
    pub(super) owner: Option<&'a Arc<Owner>>,
}

impl Call<Create<'_>> for Registrar {
    type Reply = Result<(Description, bool), Error>;

    fn handle_call(&mut self, Create { name, life, owner }: Create<'_>, me: &mut Context<'_, Self>) -> Self::Reply {
        if let Some(bucket) = self.living(name.as_str(), None) {
            if let Some(living) = describe(&bucket, Describe) {
                return Ok((living, false));
            }
            // It lived a moment ago, and died of this very question.
            self.bury(&bucket);
        }
        let (bucket, summary) = self.create(name, (life, owner), me, |_| ())?;
        Ok((description(&bucket, summary), true))
    }
}

impl Registrar {
    /// Creates a bucket under a name that is free; `tie` has it before anyone else.
    fn create(
        &mut self,
        name: BucketName<'_>,
        (life, owner): (Begin, Option<&Arc<Owner>>),
        me: &Context<'_, Self>,
        tie: impl FnOnce(&Process<Bucket>),
    ) -> Result<(Process<Bucket>, Summary), Error> {
        let name = name.as_str();
        let shared = Arc::clone(&self.shared);
        if self.names.len() >= shared.env.limits.buckets_max {
            return Err(Error::TooManyBuckets { limit: shared.env.limits.buckets_max });
        }
        // Nobody else appends: the revision of the event below is this one, and it is the bucket's id.
        let id = shared.log.revision().next().as_id();
        if let Some(owner) = owner {
            owner.buckets.take(1).map_err(Error::OverQuota)?;
        }
        // From here the bucket gives it back.
        let bucket = Bucket::new(name, &shared.env, owner.cloned())?;
        let mut summary = bucket.summary();
        let identity = Identity { name: name.into(), id, created_at: shared.clock.wall().into() };
        let bucket = Process::start_as(id.into(), identity, bucket);
        me.process().monitor(&bucket);
        if let Ok(begun) = bucket.call(life) {
            summary = begun;
        }

        #[cfg(any(test, feature = "test-hooks"))]
        crate::hooks::trip(name);

        tie(&bucket);
        shared.index.insert(bucket.clone());
        self.names.insert(ByName(bucket.clone()));
        let event = shared.log.append(|revision| Event {
            revision,
            time: bucket.identity().created_at,
            name: Arc::clone(&bucket.identity().name),
            kind: EventKind::Created,
            wire: OnceBox::new(),
        });
        shared.delivery.settle(event.revision);
        tracing::debug!(bucket = ?event.name, id = id.get(), "a bucket was created");
        Ok((bucket, summary))
    }
}

/// Whether a bucket that is asked for is to be there already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Mode {
    /// It must live.
    MustExist,
    /// It is created where it does not live.
    CreateIfAbsent,
    /// It must not live, and is created.
    MustCreate,
}

/// Finds or creates a bucket and ties it to somebody, in one step: nobody sees it created and not tied.
#[derive(Clone, Copy)]
pub(super) struct Tie<'a> {
    pub(super) target: Target<'a>,
    pub(super) mode: Mode,
    pub(super) life: Begin,
    pub(super) owner: Option<&'a Arc<Owner>>,
    /// Ties it; false where it is dead. It may lock what lies below the registrar, and bonds.
    pub(super) tie: &'a dyn Fn(&Process<Bucket>) -> bool,
}

impl Call<Tie<'_>> for Registrar {
    type Reply = Result<Process<Bucket>, Error>;

    fn handle_call(
        &mut self,
        Tie { target, mode, life, owner, tie }: Tie<'_>,
        me: &mut Context<'_, Self>,
    ) -> Self::Reply {
        let name = target.name.as_str();
        if let Some(bucket) = self.living(name, None) {
            let id = bucket.identity().id;
            if mode == Mode::MustCreate {
                return Err(Error::BucketExists { id });
            }
            if target.id.is_some_and(|asked| asked != id.get()) {
                return Err(Error::BucketNotFound);
            }
            if tie(&bucket) {
                return Ok(bucket);
            }
            // It lived a moment ago, and died of this very question.
            self.bury(&bucket);
        }
        // No bucket that is created has an id of one's choice.
        if mode == Mode::MustExist || target.id.is_some() {
            return Err(Error::BucketNotFound);
        }
        // One that expires at once may be dead already: whoever ties finds out.
        let (bucket, _) = self.create(target.name, (life, owner), me, |bucket| _ = tie(bucket))?;
        Ok(bucket)
    }
}

#[derive(Clone, Copy)]
pub(super) struct Stop<'a> {
    pub(super) name: &'a str,
    pub(super) id: Option<u64>,
    pub(super) exit: &'a Exit,
}

impl Call<Stop<'_>> for Registrar {
    type Reply = Result<(BucketId, Revision), Error>;

    fn handle_call(&mut self, stop: Stop<'_>, _: &mut Context<'_, Self>) -> Self::Reply {
        let bucket = self.living(stop.name, stop.id).ok_or(Error::BucketNotFound)?;
        if strikes(Bug::ResurrectedBucket) {
            return Ok((bucket.identity().id, self.shared.log.revision()));
        }
        let stopped = bucket.stop(stop.exit);
        let revision = self.bury(&bucket);
        // Where it died of something else first, this call found no bucket.
        let (Ok(()), Some(revision)) = (stopped, revision) else { return Err(Error::BucketNotFound) };
        Ok((bucket.identity().id, revision))
    }
}

#[derive(Clone, Copy)]
pub(super) struct PageOfNames<'a> {
    pub(super) prefix: &'a str,
    pub(super) after: Option<&'a str>,
    pub(super) items_max: usize,
}

/// Buckets in the order of their names, as of a revision.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) buckets: Vec<Process<Bucket>>,
    pub(crate) more: bool,
    pub(crate) revision: Revision,
}

impl Call<PageOfNames<'_>> for Registrar {
    type Reply = Page;

    fn handle_call(&mut self, page: PageOfNames<'_>, _: &mut Context<'_, Self>) -> Page {
        let mut found = self
            .names
            .range::<str, _>((page_begin(page.prefix, page.after), Bound::Unbounded))
            .take_while(|bucket| bucket.name().starts_with(page.prefix))
            .map(|bucket| bucket.0.clone());
        let buckets = found.by_ref().take(page.items_max).collect();
        Page { buckets, more: found.next().is_some(), revision: self.shared.log.revision() }
    }
}

/// For each target its ref, and the bucket if it lives.
pub(crate) type MonitorsSet = Vec<(MonitorRef, Option<BucketId>)>;

#[derive(Clone, Copy)]
pub(super) struct Monitor<'a> {
    pub(super) targets: &'a [Target<'a>],
    pub(super) inbox: &'a Arc<Inbox>,
}

impl Call<Monitor<'_>> for Registrar {
    type Reply = (MonitorsSet, Revision);

    fn handle_call(&mut self, Monitor { targets, inbox }: Monitor<'_>, _: &mut Context<'_, Self>) -> Self::Reply {
        let set = |target: &Target<'_>| match self.living(target.name.as_str(), target.id) {
            Some(bucket) => {
                let id = bucket.identity().id;
                (self.shared.delivery.monitor(id, inbox), Some(id))
            }
            None => (MonitorRef::next(), None),
        };
        let monitors = targets.iter().map(set).collect();
        (monitors, self.shared.log.revision())
    }
}

/// For each name its bucket, if it lives.
pub(crate) type LivingBuckets = Vec<Option<Process<Bucket>>>;

#[derive(Clone, Copy)]
pub(super) struct Living<'a> {
    pub(super) names: &'a [Arc<str>],
}

impl Call<Living<'_>> for Registrar {
    type Reply = (LivingBuckets, Revision);

    fn handle_call(&mut self, Living { names }: Living<'_>, _: &mut Context<'_, Self>) -> Self::Reply {
        let living = names.iter().map(|name| self.living(name, None)).collect();
        (living, self.shared.log.revision())
    }
}
