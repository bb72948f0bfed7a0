//! The signals: of those that end the process the first asks for a drain, and the second does not ask; SIGHUP has the
//! configuration read again.

use std::{future::Future, io};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Listens for SIGTERM and SIGINT from now on. The future is ready at the first of them; a second ends the process at once
/// with 128 and the signal's number, as shells expect.
///
/// # Errors
///
/// If the signals can't be listened for.
pub fn shutdown_signal() -> io::Result<impl Future<Output = ()> + Send> {
    let mut signals =
        Signals { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? };
    Ok(async move {
        let kind = signals.next().await;
        tracing::info!(signal = kind.as_raw_value(), "a signal to stop; another one stops at once");
        tokio::spawn(async move {
            let kind = signals.next().await;
            std::process::exit(128 + kind.as_raw_value());
        });
    })
}

/// Listens for SIGHUP from now on, which no longer ends the process.
///
/// # Errors
///
/// If the signal can't be listened for.
pub fn hangup() -> io::Result<Signal> {
    signal(SignalKind::hangup())
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.interrupt.recv() => SignalKind::interrupt(),
        }
    }
}
