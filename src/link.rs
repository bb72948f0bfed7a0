//! Links of clients: a client is a process, and the process layer does the work.
//!
//! A [`Client`] always traps exits and applies its policy itself: it tells its owner of each linked bucket that has ended,
//! and where one has ended abnormally and its owner did not ask for [`Trap`], it ends with LINKED, which takes its other
//! buckets with it. [`Life`] ends it on every way out. It knows no gRPC and no timers.

use std::{
    collections::{HashMap, VecDeque},
    fmt, mem,
    sync::Arc,
    task::{Context as TaskContext, Poll},
};

use futures_util::task::AtomicWaker;

use crate::{
    bucket::{Begin, Bucket, Hold, Identity, Release},
    budget::Owner,
    process::{Call, CallError, Context, Exit, GenServer, Info, MonitorRef, Pid, Process, Reason},
    registry::{Error, Mode, Registry, Target},
    sync::{AtomicBool, Mutex, Ordering},
};

/// A linked bucket that has ended.
#[derive(Clone, Debug)]
pub struct Gone {
    /// Its name.
    pub name: Arc<str>,
    /// Its id.
    pub id: u64,
    /// Why it ended.
    pub exit: Exit,
}

/// How a client came to its end.
#[derive(Clone, Debug)]
pub struct End {
    /// Why.
    pub exit: Exit,
    /// The bucket whose end was the client's.
    pub cause: Option<Gone>,
}

/// What a client has to tell its owner.
#[derive(Clone, Debug)]
pub enum News {
    /// A linked bucket has ended.
    Exit(Gone),
    /// The client has, and there is no more news.
    End(End),
}

/// Where a client leaves its news: at most one exit for each link, and its own end.
///
/// The lock is a leaf.
#[derive(Debug, Default)]
struct Outbox {
    news: Mutex<(VecDeque<Gone>, Option<End>)>,
    waker: AtomicWaker,
}

impl Outbox {
    fn push(&self, gone: Gone) {
        self.news.lock().0.push_back(gone);
        self.waker.wake();
    }

    fn end(&self, end: End) {
        self.news.lock().1 = Some(end);
        self.waker.wake();
    }

    fn purge(&self, matches: impl Fn(&Gone) -> bool) {
        self.news.lock().0.retain(|gone| !matches(gone));
    }

    fn poll(&self, cx: &mut TaskContext<'_>) -> Poll<News> {
        self.waker.register(cx.waker());
        let (exits, end) = &mut *self.news.lock();
        match (exits.pop_front(), end) {
            (Some(gone), _) => Poll::Ready(News::Exit(gone)),
            (None, Some(end)) => Poll::Ready(News::End(end.clone())),
            (None, None) => Poll::Pending,
        }
    }
}

/// The state of a client's process.
pub struct Client {
    registry: Registry,
    /// Whose quota the buckets are charged to that it creates.
    owner: Option<Arc<Owner>>,
    links: HashMap<Pid, Link>,
    outbox: Arc<Outbox>,
    trap: Trap,
    /// The server goes, and takes the buckets with it: that is not the client's end.
    moving: Arc<AtomicBool>,
    cause: Option<Gone>,
}

#[derive(Debug)]
struct Link {
    /// What the client calls it: never 0, and no other link's.
    id: u64,
    bucket: Process<Bucket>,
}

impl Link {
    fn identity(&self) -> &Identity {
        self.bucket.identity()
    }

    /// Whether a client means this one by a name, and an id if it gives one.
    fn is(&self, name: &str, id: Option<u64>) -> bool {
        let identity = self.identity();
        &*identity.name == name && id.is_none_or(|id| id == identity.id.get())
    }

    fn linked(&self) -> Linked {
        let identity = self.identity();
        Linked { link: self.id, name: Arc::clone(&identity.name), id: identity.id.get() }
    }

    /// Its bucket has ended, with `exit` as far as the signal knows.
    fn gone(&self, exit: Exit) -> Gone {
        let Identity { name, id, .. } = self.identity();
        // A bucket that ended in the very moment of the link is told of as NOPROC; itself it knows better.
        let exit = self.bucket.why().unwrap_or(exit);
        Gone { name: Arc::clone(name), id: id.get(), exit }
    }
}

/// A link, as its client knows it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Linked {
    /// The link's id.
    pub link: u64,
    /// The bucket's name.
    pub name: Arc<str>,
    /// The bucket's id.
    pub id: u64,
}

impl GenServer for Client {
    type Identity = &'static str;
    type Cast = std::convert::Infallible;

    fn handle_cast(&mut self, cast: Self::Cast, _: &mut Context<'_, Self>) {
        match cast {}
    }

    fn handle_info(&mut self, info: Info, me: &mut Context<'_, Self>) {
        let Info::Exit { from, exit } = info else { return };
        // Without a link it is a late message.
        let Some(link) = self.links.remove(&from) else { return };
        let gone = link.gone(exit);
        self.outbox.push(gone.clone());
        let trapped = self.trap == Trap::Exits || self.moving.load(Ordering::Acquire);
        if gone.exit.reason != Reason::Normal && !trapped {
            me.stop(gone.exit.linked(link.identity()));
            self.cause = Some(gone);
        }
    }

    fn terminate(&mut self, exit: &Exit) {
        for link in mem::take(&mut self.links).into_values() {
            match link.bucket.why() {
                // Its signal is on the way, and would find nobody.
                Some(why) => self.outbox.push(link.gone(why)),
                None if exit.reason == Reason::Normal => drop(link.bucket.call(Release)),
                // It ends with this client.
                None => {}
            }
        }
        self.outbox.end(End { exit: exit.clone(), cause: self.cause.take() });
    }
}

/// Whether a client lives on where a linked bucket ends abnormally.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Trap {
    /// It ends too.
    Nothing,
    /// It is only told.
    Exits,
}

impl Call<Trap> for Client {
    type Reply = ();

    fn handle_call(&mut self, trap: Trap, _: &mut Context<'_, Self>) {
        self.trap = trap;
    }
}

/// Why a client was not linked.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum LinkError {
    /// It has as many links as it may.
    #[error("a client may have {limit} links")]
    TooManyLinks {
        /// How many that is.
        limit: usize,
    },
    /// The registry refused.
    #[error(transparent)]
    Registry(#[from] Error),
}

#[derive(Clone, Copy)]
struct Join<'a> {
    target: Target<'a>,
    mode: Mode,
    life: Begin,
}

impl Call<Join<'_>> for Client {
    type Reply = Result<Linked, LinkError>;

    fn handle_call(&mut self, Join { target, mode, life }: Join<'_>, me: &mut Context<'_, Self>) -> Self::Reply {
        let limit = self.registry.limits().links_max;
        if self.links.len() >= limit {
            let known = self.links.values().find(|link| link.is(target.name.as_str(), target.id));
            let known = known.filter(|link| mode != Mode::MustCreate && link.bucket.is_alive());
            return known.map(Link::linked).ok_or(LinkError::TooManyLinks { limit });
        }
        let links = &self.links;
        let tie = |bucket: &Process<Bucket>| {
            links.contains_key(&bucket.pid())
                || (matches!(bucket.call(Hold), Ok(Ok(()))) && me.process().link(bucket).is_ok())
        };
        let bucket = self.registry.tie(target, mode, (life, self.owner.as_ref()), &tie)?;
        if !bucket.is_alive() {
            // It may have died before the link: then this brings its exit.
            me.process().link(&bucket).unwrap_or_default();
        }
        let link = self.links.entry(bucket.pid()).or_insert_with(|| Link { id: MonitorRef::next().get(), bucket });
        Ok(link.linked())
    }
}

/// Takes a link away.
#[derive(Clone, Copy)]
struct Leave<'a> {
    name: &'a str,
    id: Option<u64>,
}

impl Call<Leave<'_>> for Client {
    type Reply = ();

    fn handle_call(&mut self, Leave { name, id }: Leave<'_>, me: &mut Context<'_, Self>) {
        for (_, link) in self.links.extract_if(|_, link| link.is(name, id)) {
            me.process().unlink(&link.bucket);
            // One that is dead needs it no more.
            drop(link.bucket.call(Release));
        }
        self.outbox.purge(|gone| &*gone.name == name && id.is_none_or(|id| id == gone.id));
    }
}

/// Asks for all links.
#[derive(Clone, Copy)]
struct Links;

impl Call<Links> for Client {
    type Reply = Vec<Linked>;

    fn handle_call(&mut self, _: Links, _: &mut Context<'_, Self>) -> Vec<Linked> {
        self.links.values().map(Link::linked).collect()
    }
}

/// A client's life, in its owner's hand: where this goes without a [`good_bye`](Self::good_bye), for whatever reason, every
/// linked bucket goes down with NOCONNECTION.
pub struct Life {
    client: Process<Client>,
    outbox: Arc<Outbox>,
}

impl Life {
    /// A client without links. Once `moving` is true, no end of a bucket ends the client.
    #[must_use]
    pub fn begin(registry: Registry, moving: Arc<AtomicBool>) -> Self {
        Self::begin_for(None, registry, moving)
    }

    /// The same, of somebody, whose quota the buckets are charged to that it creates.
    #[must_use]
    pub fn begin_for(owner: Option<Arc<Owner>>, registry: Registry, moving: Arc<AtomicBool>) -> Self {
        let outbox = Arc::new(Outbox::default());
        let (links, cause) = (HashMap::new(), None);
        let state = Client { registry, owner, links, outbox: Arc::clone(&outbox), trap: Trap::Nothing, moving, cause };
        let client = Process::start("client", state);
        client.trap_exit(true);
        Self { client, outbox }
    }

    /// Says whether the client lives on where a linked bucket ends abnormally.
    ///
    /// # Errors
    /// [`CallError`] where the client is dead, as with all that follows: its news say why.
    pub fn trap(&self, trap: Trap) -> Result<(), CallError> {
        self.client.call(trap)
    }

    /// Links the client to a bucket, which is found or created in the same step. Linking twice is linking once.
    ///
    /// # Errors
    /// [`CallError`] where the client is dead, and [`LinkError`] where it was not linked.
    pub fn link(&self, target: Target<'_>, mode: Mode, life: Begin) -> Result<Result<Linked, LinkError>, CallError> {
        self.client.call(Join { target, mode, life })
    }

    /// Takes a link away, if there is one: there is no news of that bucket from now on.
    ///
    /// # Errors
    /// [`CallError`] where the client is dead.
    pub fn unlink(&self, name: &str, id: Option<u64>) -> Result<(), CallError> {
        self.client.call(Leave { name, id })
    }

    /// The links that there are; none where the client is dead.
    #[must_use]
    pub fn links(&self) -> Vec<Linked> {
        self.client.call(Links).unwrap_or_default()
    }

    /// The next piece of news; the last is the client's end, which comes for ever.
    pub fn poll_news(&self, cx: &mut TaskContext<'_>) -> Poll<News> {
        self.outbox.poll(cx)
    }

    /// Ends the client normally: its links go, the buckets live.
    pub fn good_bye(&self) {
        // One that is dead has had its end.
        self.client.stop(&Reason::Normal.into()).unwrap_or_default();
    }

    /// Ends the client abnormally, for `why`: every linked bucket goes down with NOCONNECTION.
    pub fn lose(&self, why: &str) {
        self.client.stop(&Exit::new(Reason::NoConnection, why)).unwrap_or_default();
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.lose("the client went without a good-bye");
    }
}

impl fmt::Debug for Life {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.client.fmt(f)
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Client({} links)", self.links.len())
    }
}

#[cfg(test)]
mod tests {
    use std::{task::Waker, time::Duration};

    use super::*;
    use crate::{
        bucket::Get,
        clock::ManualClock,
        hooks,
        limits::Limits,
        name::{BucketName, Key},
        registry::EventKind,
        time_to_live::Ttl,
    };

    const FOR_EVER: Begin = Begin { ttl: None, idle_ttl: None };

    fn timed(limits: Limits) -> (Registry, Arc<ManualClock>) {
        let clock = Arc::new(ManualClock::default());
        (Registry::start(limits, Arc::clone(&clock) as _, "test".to_owned()), clock)
    }

    fn registry() -> Registry {
        timed(Limits::default()).0
    }

    fn client(registry: &Registry) -> Life {
        Life::begin(registry.clone(), Arc::default())
    }

    fn at(name: &str) -> Target<'_> {
        Target { name: BucketName::parse(name, &Limits::default()).unwrap(), id: None }
    }

    fn link(client: &Life, name: &str) -> Linked {
        client.link(at(name), Mode::CreateIfAbsent, FOR_EVER).unwrap().unwrap()
    }

    fn stop(registry: &Registry, name: &str, reason: Reason) {
        registry.stop(at(name), &reason.into()).unwrap();
    }

    fn crash(registry: &Registry, name: &str) {
        let key = format!("{}boom", hooks::PANIC);
        let key = Key::parse(&key, &Limits::default()).unwrap();
        assert!(matches!(registry.ask(at(name), Get { key }), Err(Error::BucketCrashed { .. })));
    }

    /// What there is: the exits, and the reason of the client's end.
    fn news(client: &Life) -> (Vec<(String, Reason)>, Option<Reason>) {
        let mut exits = Vec::new();
        loop {
            match client.poll_news(&mut TaskContext::from_waker(Waker::noop())) {
                Poll::Ready(News::Exit(gone)) => exits.push((gone.name.to_string(), gone.exit.reason)),
                Poll::Ready(News::End(end)) => return (exits, Some(end.exit.reason)),
                Poll::Pending => return (exits, None),
            }
        }
    }

    /// Why each bucket went down, as the log tells; in the order of names.
    fn downs(registry: &Registry) -> Vec<(String, Reason)> {
        let events = registry.events(registry.first_revision(), 10_000).unwrap();
        let down = |event: &Arc<crate::registry::Event>| match &event.kind {
            EventKind::Down(death) => Some((event.name.to_string(), death.exit.reason)),
            EventKind::Created => None,
        };
        let mut downs: Vec<_> = events.iter().filter_map(down).collect();
        downs.sort_by(|one, other| one.0.cmp(&other.0));
        downs
    }

    fn pair(name: &str, reason: Reason) -> (String, Reason) {
        (name.to_owned(), reason)
    }

    #[test]
    fn the_mode_says_whether_the_bucket_must_be_there() {
        let registry = registry();
        let client = client(&registry);
        let link = |mode| client.link(at("b"), mode, FOR_EVER).unwrap();
        assert_eq!(link(Mode::MustExist), Err(LinkError::Registry(Error::BucketNotFound)));
        let linked = link(Mode::MustCreate).unwrap();
        assert!(linked.link != 0);
        let id = registry.id_of(at("b").name).unwrap();
        assert_eq!(link(Mode::MustCreate), Err(LinkError::Registry(Error::BucketExists { id })));
        assert_eq!((link(Mode::MustExist), link(Mode::CreateIfAbsent)), (Ok(linked.clone()), Ok(linked)));
    }

    #[test]
    fn an_id_is_that_of_the_living_bucket_and_none_is_created_with_it() {
        let registry = registry();
        let client = client(&registry);
        let id = link(&client, "b").id;
        let asked = |name, id| {
            let target = Target { id: Some(id), ..at(name) };
            client.link(target, Mode::CreateIfAbsent, FOR_EVER).unwrap().map(|linked| linked.id)
        };
        assert_eq!(asked("b", id), Ok(id));
        assert_eq!(asked("b", id + 1), Err(LinkError::Registry(Error::BucketNotFound)));
        assert_eq!(asked("c", id), Err(LinkError::Registry(Error::BucketNotFound)));
    }

    #[test]
    fn a_client_that_is_lost_takes_its_buckets_with_noconnection() {
        let registry = registry();
        let client = client(&registry);
        for name in ["a", "b"] {
            link(&client, name);
        }
        drop(client);
        assert_eq!(downs(&registry), [pair("a", Reason::NoConnection), pair("b", Reason::NoConnection)]);
    }

    #[test]
    fn a_good_bye_leaves_the_buckets_alive() {
        let registry = registry();
        let client = client(&registry);
        link(&client, "b");
        client.good_bye();
        assert_eq!(news(&client), (vec![], Some(Reason::Normal)));
        drop(client);
        assert!(registry.lookup(at("b").name).is_ok());
    }

    #[test]
    fn a_normal_end_is_told_and_ends_nothing_else() {
        let registry = registry();
        let client = client(&registry);
        for name in ["a", "b"] {
            link(&client, name);
        }
        stop(&registry, "a", Reason::Normal);
        assert_eq!(news(&client), (vec![pair("a", Reason::Normal)], None));
        assert_eq!(client.links().len(), 1);
    }

    #[test]
    fn an_abnormal_end_ends_the_client_and_its_other_buckets_with_linked() {
        for reason in [Reason::Killed, Reason::Crashed, Reason::Shutdown] {
            let registry = registry();
            let client = client(&registry);
            for name in ["a", "b", "c"] {
                link(&client, name);
            }
            match reason {
                Reason::Crashed => crash(&registry, "a"),
                reason => stop(&registry, "a", reason),
            }
            assert_eq!(news(&client), (vec![pair("a", reason)], Some(Reason::Linked)));
            let expected = [pair("a", reason), pair("b", Reason::Linked), pair("c", Reason::Linked)];
            assert_eq!(downs(&registry), expected);
        }
    }

    #[test]
    fn a_client_that_traps_exits_is_told_of_every_reason_and_lives_on() {
        let registry = registry();
        let client = client(&registry);
        client.trap(Trap::Exits).unwrap();
        for name in ["a", "b", "c"] {
            link(&client, name);
        }
        stop(&registry, "a", Reason::Killed);
        crash(&registry, "b");
        assert_eq!(news(&client), (vec![pair("a", Reason::Killed), pair("b", Reason::Crashed)], None));
        assert!(registry.lookup(at("c").name).is_ok());
    }

    #[test]
    fn of_two_clients_of_one_bucket_the_other_is_told_noconnection() {
        let registry = registry();
        let (lost, other, trapper) = (client(&registry), client(&registry), client(&registry));
        trapper.trap(Trap::Exits).unwrap();
        for client in [&lost, &other, &trapper] {
            link(client, "shared");
        }
        link(&other, "own");
        lost.lose("gone");
        assert_eq!(news(&other), (vec![pair("shared", Reason::NoConnection)], Some(Reason::Linked)));
        assert_eq!(news(&trapper), (vec![pair("shared", Reason::NoConnection)], None));
        assert_eq!(downs(&registry), [pair("own", Reason::Linked), pair("shared", Reason::NoConnection)]);
    }

    #[test]
    fn there_is_no_news_after_an_unlink_and_the_bucket_lives_on() {
        let registry = registry();
        let client = client(&registry);
        client.trap(Trap::Exits).unwrap();
        let id = link(&client, "a").id;
        link(&client, "b");
        client.unlink("a", Some(id + 1)).unwrap();
        assert_eq!(client.links().len(), 2, "another id is another bucket");
        client.unlink("a", None).unwrap();
        // Told of already, and not taken yet.
        stop(&registry, "b", Reason::Killed);
        client.unlink("b", None).unwrap();
        assert_eq!(news(&client), (vec![], None));
        drop(client);
        assert!(registry.lookup(at("a").name).is_ok());
    }

    #[test]
    fn a_link_again_after_an_end_is_another_link() {
        let registry = registry();
        let client = client(&registry);
        let first = link(&client, "a");
        stop(&registry, "a", Reason::Normal);
        let second = link(&client, "a");
        assert!(first.link != second.link && first.id != second.id);
        assert_eq!(news(&client).0, [pair("a", Reason::Normal)]);
        drop(client);
        assert_eq!(downs(&registry)[1], pair("a", Reason::NoConnection));
    }

    #[test]
    fn past_the_limit_a_link_is_refused_and_creates_nothing() {
        let (registry, _) = timed(Limits { links_max: 2, ..Limits::default() });
        let client = client(&registry);
        let first = link(&client, "a");
        link(&client, "b");
        let refused = client.link(at("c"), Mode::CreateIfAbsent, FOR_EVER).unwrap();
        assert_eq!(refused, Err(LinkError::TooManyLinks { limit: 2 }));
        assert!(registry.lookup(at("c").name).is_err());
        assert_eq!(link(&client, "a"), first, "linking twice is linking once, also at the limit");
    }

    #[test]
    fn while_it_is_linked_a_bucket_does_not_idle_out() {
        let (registry, clock) = timed(Limits::default());
        let second = Duration::from_secs(1);
        let (one, two) = (client(&registry), client(&registry));
        registry.create(at("b").name, Begin { ttl: None, idle_ttl: Ttl::new(second) }).unwrap();
        let living = || registry.list("", None, 10).unwrap().buckets.len();
        // Twice, and held once.
        for client in [&one, &one, &two] {
            link(client, "b");
        }
        for leave in [|client: &Life| client.unlink("b", None).unwrap(), Life::good_bye] {
            clock.advance(second * 10);
            registry.expire();
            assert_eq!(living(), 1);
            leave(&one);
            clock.advance(second * 10);
            registry.expire();
            assert_eq!(living(), 1, "the other still holds it");
            link(&two, "b");
        }
        two.good_bye();
        clock.advance(second / 2);
        registry.expire();
        assert_eq!(living(), 1, "the idle time begins anew");
        clock.advance(second / 2);
        registry.expire();
        assert_eq!(living(), 0);
    }

    #[test]
    fn a_bucket_with_a_time_to_live_expires_though_it_is_linked() {
        let (registry, clock) = timed(Limits::default());
        let client = client(&registry);
        let life = Begin { ttl: Ttl::new(Duration::from_secs(1)), idle_ttl: None };
        client.link(at("b"), Mode::MustCreate, life).unwrap().unwrap();
        clock.advance(Duration::from_secs(1));
        registry.expire();
        assert_eq!(news(&client), (vec![pair("b", Reason::Expired)], Some(Reason::Linked)));
    }

    #[test]
    fn a_link_that_meets_a_crash_of_the_registry_is_none() {
        let registry = registry();
        let client = client(&registry);
        let name = format!("{}boom", hooks::PANIC);
        let refused = client.link(at(&name), Mode::MustCreate, FOR_EVER).unwrap();
        assert!(matches!(refused, Err(LinkError::Registry(Error::RegistryCrashed(_)))));
        assert_eq!((client.links(), news(&client)), (vec![], (vec![], None)));
        link(&client, "b");
    }

    #[test]
    fn when_the_server_goes_no_end_of_a_bucket_ends_the_client() {
        let registry = registry();
        let moving = Arc::<AtomicBool>::default();
        let client = Life::begin(registry.clone(), Arc::clone(&moving));
        for name in ["a", "b"] {
            link(&client, name);
        }
        moving.store(true, Ordering::Release);
        registry.shut_down(|| false).unwrap();
        assert_eq!(downs(&registry), [pair("a", Reason::Shutdown), pair("b", Reason::Shutdown)]);
        assert_eq!(news(&client).1, None);
    }
}
