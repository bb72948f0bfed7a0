//! The threads that serve connections: each has a runtime of its own, so that what one connection does stays on one core and
//! in its caches, and no call is handed from thread to thread.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
};

use tokio::{runtime, sync::mpsc, task::JoinSet};

use super::{leisure::Leisure, shed};
use crate::memory;

/// Where connections are served. Dropped, it cuts them all.
pub(super) enum Workers {
    /// As tasks of the runtime that we were called on.
    Here(JoinSet<()>),
    Threads(Vec<Worker>),
}

/// One thread.
pub(super) struct Worker {
    /// `None` once it is to end.
    starts: Option<mpsc::Sender<Start>>,
    /// How many connections it has.
    connections: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

/// Starts a connection, on the worker's thread.
type Start = Box<dyn FnOnce() + Send>;

impl Workers {
    /// So many threads, for so many connections at most; with 0 there is none, and connections are tasks of the runtime that this is called on. So it is where
    /// the system gives us no threads.
    pub(super) fn start(count: usize, connections_max: usize) -> Self {
        let threads = (0..count).map(|number| Worker::start(number, connections_max)).collect::<io::Result<Vec<_>>>();
        let threads = threads.unwrap_or_else(|error| {
            tracing::error!(%error, "no threads for workers: connections are served without");
            Vec::new()
        });
        if threads.is_empty() { Self::Here(JoinSet::new()) } else { Self::Threads(threads) }
    }

    /// How many there are; one, where they are none but ourselves.
    pub(super) fn count(&self) -> usize {
        match self {
            Self::Here(_) => 1,
            Self::Threads(workers) => workers.len(),
        }
    }

    /// The one with the fewest connections.
    pub(super) fn idlest(&self) -> usize {
        match self {
            Self::Here(_) => 0,
            Self::Threads(workers) => {
                let loads = workers.iter().map(|worker| worker.connections.load(Relaxed)).enumerate();
                loads.min_by_key(|(_, load)| *load).map_or(0, |(worker, _)| worker)
            }
        }
    }

    /// Has a connection served by this worker. `serve` is called there.
    pub(super) fn serve<F>(&mut self, worker: usize, serve: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        match self {
            Self::Here(tasks) => {
                while tasks.try_join_next().is_some() {}
                tasks.spawn(serve());
            }
            Self::Threads(workers) => {
                if let Some(worker) = workers.get(worker) {
                    worker.serve(serve);
                }
            }
        }
    }
}

impl Worker {
    fn start(number: usize, connections_max: usize) -> io::Result<Self> {
        let mut runtime = runtime::Builder::new_current_thread();
        let leisure = Arc::<Leisure>::default();
        let is_back = {
            let leisure = Arc::clone(&leisure);
            move || leisure.wakes(shed::is_back())
        };
        let runtime = runtime.enable_all().on_thread_park(shed::rests).on_thread_unpark(is_back).build()?;
        let (starts, mut queue) = mpsc::channel::<Start>(connections_max);
        let run = move || {
            runtime.block_on(async {
                drop(tokio::spawn(async move { leisure.spend(memory::give_back).await }));
                while let Some(start) = queue.recv().await {
                    start();
                }
            });
            // What is still open is dropped with the runtime.
        };
        let thread = thread::Builder::new().name(format!("pail-worker-{number}")).spawn(run)?;
        Ok(Self { starts: Some(starts), connections: Arc::default(), thread: Some(thread) })
    }

    fn serve<F>(&self, serve: impl FnOnce() -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let one = One::more(&self.connections);
        let start = Box::new(move || {
            let connection = serve();
            drop(tokio::spawn(async move {
                connection.await;
                drop(one);
            }));
        });
        if let Some(starts) = &self.starts {
            // The thread ends with us, and not before; and there is room for as many as there may be.
            if starts.try_send(start).is_err() {
                tracing::error!("a worker took no connection");
            }
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.starts = None;
        if let Some(Err(_)) = self.thread.take().map(JoinHandle::join) {
            tracing::error!("a worker panicked");
        }
    }
}

/// One of what is counted, until it is dropped.
struct One(Arc<AtomicUsize>);

impl One {
    fn more(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Relaxed);
        Self(Arc::clone(count))
    }
}

impl Drop for One {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
