//! Frees what dead buckets leave, off to the side where there is much of it.

use std::{
    mem,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    thread,
};

use crate::{limits::FREE_INLINE_BYTES_MAX, sync::Mutex};

/// A thread that is there only while it has work, and the work.
#[derive(Clone, Default)]
pub(super) struct Reaper(Arc<Mutex<Work>>);

#[derive(Default)]
struct Work {
    remains: Vec<Box<dyn Send>>,
    running: bool,
}

impl Reaper {
    /// Frees `remains`, of about so many bytes: now if they are few, else on another thread.
    pub(super) fn free(&self, bytes: usize, remains: impl Send + 'static) {
        let remains = Box::new(remains);
        if bytes <= FREE_INLINE_BYTES_MAX {
            return free(remains);
        }
        let mut work = self.0.lock();
        work.remains.push(remains);
        if !mem::replace(&mut work.running, true) {
            drop(work);
            let reaper = self.clone();
            if let Err(error) = thread::Builder::new().name("pail-reaper".into()).spawn(move || reaper.run()) {
                tracing::warn!(%error, "no thread to free memory on; it is freed here");
                self.run();
            }
        }
    }

    fn run(&self) {
        loop {
            let remains = {
                let mut work = self.0.lock();
                if work.remains.is_empty() {
                    work.running = false;
                    return;
                }
                mem::take(&mut work.remains)
            };
            remains.into_iter().for_each(free);
        }
    }
}

fn free(remains: Box<dyn Send>) {
    if catch_unwind(AssertUnwindSafe(|| drop(remains))).is_err() {
        tracing::error!("a panic while a bucket's memory was freed; the rest of it is lost");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Says on which thread it was dropped, and panics if it is asked to.
    struct Remains(Sender<Option<String>>, bool);

    impl Drop for Remains {
        fn drop(&mut self) {
            self.0.send(thread::current().name().map(ToOwned::to_owned)).unwrap();
            assert!(!self.1, "a drop that panics");
        }
    }

    #[test]
    fn what_is_large_is_freed_on_another_thread_and_what_is_small_here() {
        let (sender, dropped) = channel();
        let reaper = Reaper::default();
        reaper.free(FREE_INLINE_BYTES_MAX, Remains(sender.clone(), false));
        assert_eq!(dropped.recv().unwrap().as_deref(), thread::current().name());
        for _ in 0..3 {
            reaper.free(FREE_INLINE_BYTES_MAX + 1, Remains(sender.clone(), false));
            assert_eq!(dropped.recv().unwrap().as_deref(), Some("pail-reaper"));
        }
    }

    #[test]
    fn a_panic_in_a_drop_stops_nobody() {
        let (sender, dropped) = channel();
        let reaper = Reaper::default();
        for bytes in [1, 1 << 30, 1, 1 << 30] {
            reaper.free(bytes, Remains(sender.clone(), true));
            dropped.recv().unwrap();
        }
    }
}
