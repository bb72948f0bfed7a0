//! What systemd is told, and what it hands over: that the server is ready, reads its configuration again, stops, and lives;
//! and a socket to listen on. Where systemd did not start this process all of that is nothing.

use std::{convert::Infallible, future::pending, io, net::TcpListener};

use listenfd::ListenFd;
use sd_notify::NotifyState;
use tokio::time::{MissedTickBehavior, interval};

use crate::registry::Registry;

/// The first socket that was handed over, if there is one: socket activation. To be asked once, before there are threads.
///
/// # Errors
/// If it is none that listens for TCP.
pub fn listener() -> io::Result<Option<TcpListener>> {
    ListenFd::from_env().take_tcp_listener(0)
}

/// Connections are accepted, with what the configuration says now.
pub fn ready() {
    notify(&[NotifyState::Ready]);
}

/// The configuration is read again, until [`ready`].
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => notify(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "systemd was not told of the reload"),
    }
}

/// The server drains.
pub fn stopping() {
    notify(&[NotifyState::Stopping]);
}

fn notify(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd does not listen");
    }
}

/// Says that the server lives, twice in the time that systemd waits for it, for as long as the registry answers: who runs this also
/// delivers events, so one that hangs says nothing any more, and is started again.
pub async fn keep_alive(registry: &Registry) -> Infallible {
    let Some(patience) = sd_notify::watchdog_enabled() else { return pending().await };
    let mut ticks = interval(patience / 2);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        match registry.list("", None, 0) {
            Ok(_) => notify(&[NotifyState::Watchdog]),
            Err(error) => tracing::error!(%error, "the registry does not answer: systemd is not told that it lives"),
        }
    }
}
