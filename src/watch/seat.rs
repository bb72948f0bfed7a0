//! A watcher's place in the registry.

use std::{collections::HashMap, sync::Arc, task::Context};

use crate::{
    name::BucketId,
    process::MonitorRef,
    registry::{Inbox, Interest, Registry},
};

/// A place among those who are woken, given up on every way out.
#[derive(Debug)]
pub(crate) struct Seat {
    pub(super) registry: Registry,
    pub(super) inbox: Arc<Inbox>,
    /// The monitors that have not fired.
    pub(super) monitors: HashMap<MonitorRef, BucketId>,
    /// Buckets of monitors that were given up.
    taken_back: Vec<BucketId>,
}

impl Seat {
    pub(crate) fn take(registry: Registry, interest: Interest) -> Self {
        let inbox = Arc::new(Inbox::default());
        registry.enroll(&inbox, interest);
        Self { registry, inbox, monitors: HashMap::new(), taken_back: Vec::new() }
    }

    /// Gives a monitor up. One of the same bucket that is wanted would go too, so it stays where it is; what it fires is
    /// not known here any more.
    pub(super) fn take_back(&mut self, monitor: MonitorRef) {
        self.taken_back.extend(self.monitors.remove(&monitor));
    }

    /// Whether the server drains; who has a seat for [`Interest::Drain`] is woken when it begins to.
    pub(crate) fn is_draining(&self, cx: &Context<'_>) -> bool {
        self.inbox.waker().register(cx.waker());
        self.registry.is_draining()
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.registry.forget(&self.inbox, self.monitors.values().chain(&self.taken_back).copied());
    }
}
