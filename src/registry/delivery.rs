//! From the registrar to those who watch, without the registrar ever waiting for them.
//!
//! A client's monitor is an entry under its bucket's id. When the bucket dies the registrar hands all its monitors over in
//! one move, however many they are, and goes on; [`Delivery::deliver`], which runs elsewhere, puts a DOWN into each watcher's
//! [`Inbox`] and wakes it. Those who read the log are only woken.

use std::{
    cell::Cell,
    collections::{BTreeMap, HashMap, VecDeque},
    mem,
    net::SocketAddr,
    num::NonZeroU64,
    ptr,
    sync::{Arc, OnceLock},
    task::Context,
};

use futures_util::task::AtomicWaker;
use smallvec::SmallVec;

use super::{Watcher, log::Event};
use crate::{
    name::{BucketId, Revision},
    planted::{Bug, strikes},
    process::{MonitorRef, unique},
    sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering, thread_local},
};

/// Where one watcher finds what it asked for. It holds at most one event for each of the watcher's monitors.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// No other has it. Who came first is woken first: in an order by addresses no run would be like another.
    number: NonZeroU64,
    queue: Mutex<VecDeque<(MonitorRef, Arc<Event>)>>,
    /// How far a reader of the log is; 0 where that is not known.
    reached: AtomicU64,
    waker: AtomicWaker,
    /// Where its reader is, for those who ask who is slow.
    peer: OnceLock<SocketAddr>,
}

impl Default for Inbox {
    fn default() -> Self {
        let (queue, reached, waker, peer) = Default::default();
        Self { number: unique(), queue, reached, waker, peer }
    }
}

impl Inbox {
    /// Whom to wake when there is something.
    pub(crate) fn waker(&self) -> &AtomicWaker {
        &self.waker
    }

    /// Its reader of the log is there.
    pub(crate) fn reached(&self, revision: Revision) {
        self.reached.store(revision.get(), Ordering::Relaxed);
    }

    /// Its reader is there, in the network.
    pub(crate) fn is_read_by(&self, peer: SocketAddr) {
        // Told once.
        self.peer.set(peer).ok();
    }

    /// The first revision that it has not taken, of those up to `revision`.
    fn next(&self, revision: Revision) -> Option<u64> {
        let reached = self.reached.load(Ordering::Relaxed);
        let waits = self.queue.lock().front().map(|(_, event)| event.revision.get());
        waits.or((reached > 0 && reached < revision.get()).then_some(reached + 1))
    }

    /// Takes up to `events_max` events, fewer where they are more than `bytes_max`, oldest first; and the revision of the
    /// first that is left.
    pub(crate) fn take(
        &self,
        events_max: usize,
        bytes_max: usize,
    ) -> (Vec<(MonitorRef, Arc<Event>)>, Option<Revision>) {
        let mut queue = self.queue.lock();
        let mut room = bytes_max;
        let fits = queue.iter().take(events_max).take_while(|(_, event)| {
            let before = room;
            room = room.saturating_sub(event.bytes());
            before > 0
        });
        let count = fits.count();
        (queue.drain(..count).collect(), queue.front().map(|(_, event)| event.revision))
    }
}

/// What a watcher is woken for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Interest {
    /// What is put into its inbox.
    Monitors,
    /// Every event of the log.
    Log,
    /// That the server drains.
    Drain,
}

thread_local! {
    /// The address of the [`Delivery`] whose news this thread holds back, or 0.
    static HELD: Cell<usize> = const { Cell::new(0) };
}

/// The monitors of one bucket, nearly always one.
type Monitors = SmallVec<[(MonitorRef, Arc<Inbox>); 1]>;

/// Below these locks there are only each other's, in this order: `delivering`, `monitors`, `deaths`, an inbox's, `watchers`.
/// A task may be woken under them, which takes none.
pub(super) struct Delivery {
    monitors: Mutex<HashMap<BucketId, Monitors>>,
    /// Deaths whose monitors were handed over and not told yet, in the order of revisions.
    deaths: Mutex<Vec<(Arc<Event>, Monitors)>>,
    /// Up to this revision all deaths are in `deaths`, or were.
    settled: AtomicU64,
    /// Up to this revision all deaths are in the inboxes.
    delivered: AtomicU64,
    /// Everyone who watches, by what wakes them.
    watchers: Mutex<[BTreeMap<NonZeroU64, Arc<Inbox>>; 3]>,
    /// How many of them want to hear of events.
    listeners: AtomicUsize,
    /// Held by the one who delivers, so that `delivered` never runs ahead.
    delivering: Mutex<()>,
    news: AtomicBool,
    waker: AtomicWaker,
}

impl Delivery {
    pub(super) fn new(first: Revision) -> Self {
        Self {
            monitors: Mutex::default(),
            deaths: Mutex::default(),
            settled: AtomicU64::new(first.get()),
            delivered: AtomicU64::new(first.get()),
            watchers: Mutex::default(),
            listeners: AtomicUsize::new(0),
            delivering: Mutex::new(()),
            news: AtomicBool::new(false),
            waker: AtomicWaker::new(),
        }
    }

    /// Notes a watcher, who must be forgotten again.
    pub(super) fn enroll(&self, inbox: &Arc<Inbox>, interest: Interest) {
        if interest != Interest::Drain {
            self.listeners.fetch_add(1, Ordering::Relaxed);
        }
        self.watchers.lock()[interest as usize].insert(inbox.number, Arc::clone(inbox));
    }

    /// Takes a watcher out, with its monitors of these buckets. A bucket may be named as often as there are monitors: it is
    /// looked through once.
    pub(super) fn forget(&self, inbox: &Arc<Inbox>, buckets: impl Iterator<Item = BucketId>) {
        {
            let mut watchers = self.watchers.lock();
            let mut leave =
                |interest: Interest| usize::from(watchers[interest as usize].remove(&inbox.number).is_some());
            self.listeners.fetch_sub(leave(Interest::Monitors) + leave(Interest::Log), Ordering::Relaxed);
            leave(Interest::Drain);
        }
        let mut buckets: Vec<BucketId> = buckets.collect();
        buckets.sort_unstable();
        buckets.dedup();
        for id in buckets {
            let mut by_bucket = self.monitors.lock();
            let Some(monitors) = by_bucket.get_mut(&id) else { continue };
            monitors.retain(|(_, known)| !Arc::ptr_eq(known, inbox));
            if monitors.is_empty() {
                by_bucket.remove(&id);
            }
        }
    }

    /// Sets a monitor of a bucket. The registrar has made sure that it lives.
    pub(super) fn monitor(&self, id: BucketId, inbox: &Arc<Inbox>) -> MonitorRef {
        let monitor = MonitorRef::next();
        self.monitors.lock().entry(id).or_default().push((monitor, Arc::clone(inbox)));
        monitor
    }

    /// How many monitors are set. Counted anew each time.
    pub(super) fn monitors(&self) -> usize {
        self.monitors.lock().values().map(SmallVec::len).sum()
    }

    /// Hands the monitors of a dead bucket over.
    pub(super) fn hand_over(&self, event: &Arc<Event>) {
        if let Some(monitors) = self.monitors.lock().remove(&event.id()) {
            self.deaths.lock().push((Arc::clone(event), monitors));
        }
    }

    /// Says that all up to `revision` was handed over, and wakes the one who delivers. That is done where the registrar's lock
    /// is held, since whoever drains its mailbox may be anyone, and one who forgot would leave a watcher in the dark; to wake
    /// a task is to put it in a queue, and maybe a thread with it, so it is not done for nobody: whoever comes to listen has
    /// been counted before it looks at the log or has a monitor, each behind a lock that was held for this event.
    pub(super) fn settle(&self, revision: Revision) {
        self.settled.store(revision.get(), Ordering::Release);
        if HELD.get() != self.address() {
            self.tell();
        }
    }

    /// Wakes the one who delivers, for somebody who listens.
    fn tell(&self) {
        if self.listeners.load(Ordering::Relaxed) != 0 && !self.news.swap(true, Ordering::AcqRel) {
            self.waker.wake();
        }
    }

    /// Does work of many deaths, and wakes the one who delivers at its end, where this thread would have done it for each. Keep
    /// it short: what others settle meanwhile is told at once, unless it is this thread that does it for them.
    pub(super) fn at_the_end_of(&self, work: impl FnOnce()) {
        struct Held<'a>(&'a Delivery);
        impl Drop for Held<'_> {
            fn drop(&mut self) {
                HELD.set(0);
                if self.0.settled.load(Ordering::Acquire) != self.0.delivered.load(Ordering::Acquire) {
                    self.0.tell();
                }
            }
        }
        HELD.set(self.address());
        let _held = Held(self);
        work();
    }

    fn address(&self) -> usize {
        ptr::from_ref(self).addr()
    }

    /// Everyone who watches, with by how many revisions it is behind this one; in no order. Looked at anew each time.
    pub(super) fn watchers(&self, revision: Revision) -> Vec<Watcher> {
        // An inbox is not locked under the lock of all.
        let all: Vec<Arc<Inbox>> = {
            let watchers = self.watchers.lock();
            let of = |interest: Interest| watchers[interest as usize].values().cloned();
            of(Interest::Monitors).chain(of(Interest::Log)).collect()
        };
        let watcher = |inbox: &Arc<Inbox>| Watcher {
            peer: inbox.peer.get().copied(),
            lag: inbox.next(revision).map_or(0, |next| (revision.get() + 1).saturating_sub(next)),
        };
        all.iter().map(watcher).collect()
    }

    /// Whether more than one watcher wants to hear of events.
    pub(super) fn has_many_listeners(&self) -> bool {
        self.listeners.load(Ordering::Relaxed) > 1
    }

    /// Up to this revision, what was monitored has been put into the inboxes.
    pub(super) fn delivered(&self) -> Revision {
        Revision::new(self.delivered.load(Ordering::Acquire))
    }

    /// Delivers what there is.
    pub(super) fn deliver(&self) {
        let _one_at_a_time = self.delivering.lock();
        // In this order: what is settled is either in `deaths` now or was delivered before.
        let mut settled = self.settled.load(Ordering::Acquire);
        let deaths = mem::take(&mut *self.deaths.lock());
        if strikes(Bug::EarlyWord) {
            settled = self.settled.load(Ordering::Acquire);
        }
        for (event, monitors) in deaths {
            for (monitor, inbox) in monitors {
                inbox.queue.lock().push_back((monitor, Arc::clone(&event)));
                inbox.waker.wake();
            }
        }
        if self.delivered.swap(settled, Ordering::AcqRel) != settled {
            self.wake(Interest::Log);
        }
    }

    /// Wakes everyone with this interest, in the order in which they came.
    pub(super) fn wake(&self, interest: Interest) {
        for inbox in self.watchers.lock()[interest as usize].values() {
            inbox.waker.wake();
        }
    }

    /// Delivers what there is, and has the task woken when there is more.
    pub(super) fn poll_deliver(&self, cx: &mut Context<'_>) {
        if !strikes(Bug::LostNews) {
            self.waker.register(cx.waker());
        }
        if self.news.swap(false, Ordering::AcqRel) {
            self.deliver();
        }
        if strikes(Bug::LostNews) {
            self.waker.register(cx.waker());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Mutex, task::Wake, thread};

    use super::*;

    #[derive(Default)]
    struct Woken(Mutex<usize>);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            *self.0.lock().unwrap() += 1;
        }
    }

    #[test]
    fn a_watcher_is_behind_by_what_it_has_not_taken() {
        let delivery = Delivery::new(Revision::new(1));
        let (reader, named, new) = (Arc::<Inbox>::default(), Arc::<Inbox>::default(), Arc::<Inbox>::default());
        delivery.enroll(&reader, Interest::Log);
        delivery.enroll(&named, Interest::Monitors);
        delivery.enroll(&new, Interest::Log);
        delivery.enroll(&Arc::default(), Interest::Drain);
        reader.reached(Revision::new(7));
        let peer = SocketAddr::from(([10, 0, 0, 7], 5123));
        reader.is_read_by(peer);
        let mut watchers = delivery.watchers(Revision::new(10));
        watchers.sort_unstable_by_key(|watcher| watcher.lag);
        let unknown = Watcher { peer: None, lag: 0 };
        let slow = Watcher { peer: Some(peer), lag: 3 };
        assert_eq!(watchers, [unknown, unknown, slow], "of one that is not there yet nothing is known");
        reader.reached(Revision::new(10));
        assert!(delivery.watchers(Revision::new(10)).iter().all(|watcher| watcher.lag == 0));
    }

    #[test]
    fn many_deaths_wake_who_delivers_once_and_those_of_others_do_so_meanwhile() {
        let delivery = Delivery::new(Revision::new(1));
        delivery.enroll(&Arc::default(), Interest::Log);
        let woken = Arc::<Woken>::default();
        let waker = Arc::clone(&woken).into();
        let count = || {
            delivery.poll_deliver(&mut Context::from_waker(&waker));
            mem::take(&mut *woken.0.lock().unwrap())
        };
        assert_eq!(count(), 0);

        delivery.at_the_end_of(|| {
            delivery.settle(Revision::new(2));
            delivery.settle(Revision::new(3));
            assert_eq!(count(), 0);
            thread::scope(|scope| scope.spawn(|| delivery.settle(Revision::new(4))).join().unwrap());
            assert_eq!((count(), delivery.delivered()), (1, Revision::new(4)));
            delivery.settle(Revision::new(5));
        });
        assert_eq!((count(), delivery.delivered()), (1, Revision::new(5)));

        delivery.at_the_end_of(|| {});
        assert_eq!(count(), 0, "there was nothing");
        delivery.settle(Revision::new(6));
        assert_eq!(count(), 1);
    }
}
