//! Bugs planted on purpose. A harness that looks for bugs is believed once it has found these: it is run against each, and
//! must fail. No release build has them: see the feature `planted-bugs`.

/// What may be planted. The names in `PAIL_PLANT` are those of the variants, in kebab case.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Bug {
    /// A demonitor takes no monitor away.
    DeafDemonitor,
    /// A normal end travels over a link.
    ContagiousNormal,
    /// A process that traps exits traps a kill too.
    TrappedKill,
    /// A Get answers with what was there before.
    StaleRead,
    /// A Put is answered and not done.
    LostPut,
    /// A Create says that it created a bucket which was there.
    DoubleCreate,
    /// A bucket whose Stop was answered lives on.
    ResurrectedBucket,
    /// A Put is answered although its bucket is down.
    AckAfterDown,
    /// A later Put gets an earlier version.
    ReorderedVersions,
    /// A Watch leaves an event out.
    DroppedEvent,
    /// A Watch tells an event twice.
    DoubledEvent,
    /// A Watch tells two events the wrong way round.
    ReorderedEvents,
    /// Frames that bring no call forward cost nothing.
    FreeFrames,
    /// What is written to a socket is lost.
    LostWrite,
    /// Memory is never given back.
    LostMemory,
    /// A page token that can't be read is the end of its call.
    CrashingToken,
    /// A worker that has too much to do takes what comes.
    OpenGate,
    /// Nothing orders a message that is left before the look whether somebody is there to handle it.
    LeftMessage,
    /// Whether there is memory left is asked first, and it is taken then.
    Overdraft,
    /// Who waits for news looks first, and says then where to be woken.
    LostNews,
    /// A watch is said to have heard of a death that is still on its way.
    EarlyWord,
}

/// Whether a bug strikes now. Where none is planted that is known to the compiler, which leaves the code for it out.
#[cfg(not(feature = "planted-bugs"))]
#[inline(always)]
pub(crate) const fn strikes(_: Bug) -> bool {
    false
}

#[cfg(feature = "planted-bugs")]
pub(crate) use self::here::strikes;
#[cfg(feature = "planted-bugs")]
pub use self::here::{plant, plant_for_good};

#[cfg(feature = "planted-bugs")]
mod here {
    use std::sync::{
        Once,
        atomic::{AtomicUsize, Ordering::Relaxed},
    };

    use super::Bug;

    /// A bug that shows at once would be found by anyone: it strikes at each of so many occasions.
    static EVERY: AtomicUsize = AtomicUsize::new(20);

    const ALL: [(&str, Bug); 21] = [
        ("deaf-demonitor", Bug::DeafDemonitor),
        ("contagious-normal", Bug::ContagiousNormal),
        ("trapped-kill", Bug::TrappedKill),
        ("stale-read", Bug::StaleRead),
        ("lost-put", Bug::LostPut),
        ("double-create", Bug::DoubleCreate),
        ("resurrected-bucket", Bug::ResurrectedBucket),
        ("ack-after-down", Bug::AckAfterDown),
        ("reordered-versions", Bug::ReorderedVersions),
        ("dropped-event", Bug::DroppedEvent),
        ("doubled-event", Bug::DoubledEvent),
        ("reordered-events", Bug::ReorderedEvents),
        ("free-frames", Bug::FreeFrames),
        ("lost-write", Bug::LostWrite),
        ("lost-memory", Bug::LostMemory),
        ("crashing-token", Bug::CrashingToken),
        ("open-gate", Bug::OpenGate),
        ("left-message", Bug::LeftMessage),
        ("overdraft", Bug::Overdraft),
        ("lost-news", Bug::LostNews),
        ("early-word", Bug::EarlyWord),
    ];

    /// 0 for none, else the bug's place in [`ALL`], from 1.
    static PLANTED: AtomicUsize = AtomicUsize::new(0);
    static OCCASIONS: AtomicUsize = AtomicUsize::new(0);

    /// Plants a bug in this process, in place of the one that is there; `None` for none.
    pub fn plant(bug: Option<Bug>) {
        from_environment();
        let place = bug.and_then(|bug| ALL.iter().position(|(_, each)| *each == bug));
        PLANTED.store(place.map_or(0, |place| place + 1), Relaxed);
        OCCASIONS.store(0, Relaxed);
    }

    /// The same, and it strikes every time: for who goes through all that can happen, again and again from the start.
    pub fn plant_for_good(bug: Bug) {
        plant(Some(bug));
        EVERY.store(1, Relaxed);
    }

    pub(crate) fn strikes(bug: Bug) -> bool {
        from_environment();
        let planted = PLANTED.load(Relaxed).checked_sub(1);
        let every = EVERY.load(Relaxed);
        planted.is_some_and(|place| ALL[place].1 == bug) && OCCASIONS.fetch_add(1, Relaxed) % every == every - 1
    }

    fn from_environment() {
        static ONCE: Once = Once::new();
        ONCE.call_once(|| {
            let Ok(name) = std::env::var("PAIL_PLANT") else { return };
            let Some(place) = ALL.iter().position(|(each, _)| *each == name) else {
                let names = ALL.map(|(name, _)| name).join(", ");
                panic!("PAIL_PLANT is {name:?}, and there is {names}");
            };
            PLANTED.store(place + 1, Relaxed);
        });
    }
}
