//! What wakes a task, and keeps silent while the task is at work: most of what would wake a connection then is its own doing,
//! and it looks at the end of its turn whether more was.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Wake, Waker},
};

use parking_lot::Mutex;

/// The bell of one task. It is rung by its [`Rope`]s.
#[derive(Debug)]
pub(super) struct Bell {
    muffled: AtomicBool,
    task: Mutex<Waker>,
}

impl Default for Bell {
    fn default() -> Self {
        Self { muffled: AtomicBool::new(false), task: Mutex::new(Waker::noop().clone()) }
    }
}

impl Bell {
    /// Begins a turn of the task.
    pub(super) fn muffle(&self, task: &Waker) {
        self.muffled.store(true, SeqCst);
        self.task.lock().clone_from(task);
    }

    /// Ends the turn. From here on each pull wakes the task; it must look at the ropes once more for those that came before.
    pub(super) fn unmuffle(&self) {
        self.muffled.store(false, SeqCst);
    }
}

/// One of the things that a task is woken for.
#[derive(Debug)]
pub(super) struct Rope {
    pull: Arc<Pull>,
    waker: Waker,
}

#[derive(Debug)]
struct Pull {
    pulled: AtomicBool,
    bell: Arc<Bell>,
}

impl Rope {
    pub(super) fn of(bell: &Arc<Bell>) -> Self {
        let pull = Arc::new(Pull { pulled: AtomicBool::new(false), bell: Arc::clone(bell) });
        Self { waker: Arc::clone(&pull).into(), pull }
    }

    /// To poll with, so that it is pulled when there is more to do.
    pub(super) fn context(&self) -> Context<'_> {
        Context::from_waker(&self.waker)
    }

    /// To be called before all is done that it may have been pulled for.
    pub(super) fn let_go(&self) {
        // Not a mere store: what was done before the pull is to be seen after this.
        self.pull.pulled.swap(false, SeqCst);
    }

    pub(super) fn is_pulled(&self) -> bool {
        self.pull.pulled.load(SeqCst)
    }
}

impl Wake for Pull {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        // In this order: either the bell is heard, or the task finds this at the end of its turn.
        self.pulled.store(true, SeqCst);
        if !self.bell.muffled.load(SeqCst) {
            self.bell.task.lock().wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, SeqCst);
        }
    }

    #[test]
    fn wakes_the_task_out_of_its_turn_alone() {
        let (count, bell) = (Arc::<Count>::default(), Arc::<Bell>::default());
        let rope = Rope::of(&bell);
        bell.muffle(&Arc::clone(&count).into());
        rope.waker.wake_by_ref();
        assert_eq!((count.0.load(SeqCst), rope.is_pulled()), (0, true));
        rope.let_go();
        assert!(!rope.is_pulled());
        bell.unmuffle();
        rope.waker.wake_by_ref();
        assert_eq!((count.0.load(SeqCst), rope.is_pulled()), (1, true));
    }

    #[test]
    fn a_pull_is_never_missed() {
        // Another thread pulls as the turn ends: the task is woken, or it finds the rope pulled.
        for _ in 0..2_000 {
            let (count, bell) = (Arc::<Count>::default(), Arc::<Bell>::default());
            let rope = Rope::of(&bell);
            bell.muffle(&Arc::clone(&count).into());
            let waker = rope.waker.clone();
            let found = std::thread::scope(|scope| {
                scope.spawn(move || waker.wake_by_ref());
                bell.unmuffle();
                rope.is_pulled()
            });
            assert!(found || count.0.load(SeqCst) == 1);
        }
    }
}
