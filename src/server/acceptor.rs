//! Accepts connections, and deals each to a worker. It survives a lack of file descriptors.

use std::{
    io,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::FutureExt as _;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, watch},
    time::sleep,
};

use super::{
    call::Calls,
    connection::{self, Http, turned},
    workers::Workers,
};

/// Accepts and serves connections, each with the calls of its worker, until `stop` turns true; returns when the last of them has ended.
///
/// # Cancel safety
///
/// Dropping it cuts every connection.
pub(super) async fn serve(
    listener: TcpListener,
    mut workers: Workers,
    calls: Vec<Arc<Calls>>,
    (connections_max, http): (usize, Http),
    mut stop: watch::Receiver<bool>,
) {
    let places = Arc::new(Semaphore::new(connections_max));
    let mut pause = Pause::new();
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, accept(&listener, &mut pause).await)
        };
        let (place, stream) = tokio::select! {
            biased;
            () = turned(&mut stop) => break,
            accepted = accepted => accepted,
        };
        let stream = match stream.into_std() {
            Ok(stream) => stream,
            Err(error) => {
                tracing::debug!(%error, "a connection could not be handed over");
                continue;
            }
        };
        let worker = workers.idlest();
        let Some(calls) = calls.get(worker).cloned() else { continue };
        let (http, stop) = (http.clone(), stop.clone());
        workers.serve(worker, move || async move {
            // On the worker's own runtime from here.
            let connection = async {
                match TcpStream::from_std(stream) {
                    Ok(stream) => connection::serve(stream, http, calls, stop).await,
                    Err(error) => tracing::debug!(%error, "a connection could not be taken over"),
                }
            };
            if AssertUnwindSafe(connection).catch_unwind().await.is_err() {
                tracing::error!("a connection panicked");
            }
            drop(place);
        });
    }
    drop(listener);
    // Nobody closes the semaphore.
    drop(places.acquire_many(u32::try_from(connections_max).unwrap_or(u32::MAX)).await);
}

/// Accepts one connection, however long it takes.
async fn accept(listener: &TcpListener, pause: &mut Pause) -> TcpStream {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                pause.length = Pause::MIN;
                return stream;
            }
            Err(error) => pause.after(&error).await,
        }
    }
}

/// The time out after an accept that failed. Out of file descriptors, accept fails at once and for ever: without a pause
/// it would take a whole core, and without bounds the log.
#[derive(Debug)]
struct Pause {
    length: Duration,
    logged: Option<Instant>,
}

impl Pause {
    const MIN: Duration = Duration::from_millis(5);
    const MAX: Duration = Duration::from_millis(100);
    const LOG_EVERY: Duration = Duration::from_secs(5);

    fn new() -> Self {
        Self { length: Self::MIN, logged: None }
    }

    async fn after(&mut self, error: &io::Error) {
        if self.logged.is_none_or(|logged| logged.elapsed() >= Self::LOG_EVERY) {
            self.logged = Some(Instant::now());
            tracing::warn!(%error, "no connection can be accepted");
        }
        let length = self.length;
        self.length = (length * 2).min(Self::MAX);
        sleep(length).await;
    }
}
