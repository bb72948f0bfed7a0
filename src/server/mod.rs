//! The server: serves an application over gRPC on a listener, until it is told to stop; then it drains.
//!
//! It knows sockets and calls, and no bucket. [`serve`] returns within [`Options::drain_timeout`] of the signal, whatever
//! clients do. An admitted unary call finishes if its handler does in half of that time; a call that was not admitted was
//! not executed, and says so.

mod acceptor;
mod answer;
mod bell;
mod beside;
mod call;
mod connection;
mod deadline;
mod gate;
mod guard;
mod health;
mod intake;
mod leisure;
pub mod meter;
mod observed;
mod router;
mod seldom;
mod shed;
mod socket;
mod stream;
#[cfg(test)]
mod tests;
mod turn;
mod unsent;
pub mod web;
mod workers;

use std::{future::pending, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures_util::FutureExt as _;
use tokio::{
    net::TcpListener,
    sync::watch,
    time::{Instant, sleep_until, timeout_at},
};

use self::{
    call::Calls, connection::Http, gate::Gate, health::Health, meter::Meter, router::Router, stream::Opening, web::Web,
    workers::Workers,
};
use crate::{auth::Auth, followed::Followed, limits::Limits, service::allowance::Allowance, tls::Tls, traces::Traces};

pub use self::router::GrpcService;

/// What is served.
pub trait Application: Send + Sync + 'static {
    /// The service, as tonic generates it.
    type Service: GrpcService;

    /// The service; asked for once for each worker.
    fn service(&self) -> Self::Service;

    /// Takes down what lives beyond a call, and tells the streams that are open to end with DRAINING.
    ///
    /// It is called once, when no unary call is left or will come. A long stream that was let in just before may still
    /// reach its handler afterwards, and is to be told the same. What is not done by the deadline is cut off.
    fn drain(&self, deadline: Instant) -> impl Future<Output = ()> + Send;
}

/// How to serve.
#[derive(Debug)]
pub struct Options {
    /// The bounds on calls, streams and connections.
    pub limits: Limits,
    /// From the signal to the return of [`serve`], at most.
    pub drain_timeout: Duration,
    /// With it, every connection begins with a handshake.
    pub tls: Option<Arc<Followed<Tls>>>,
    /// With it, every call but those for health begins with a look at who calls.
    pub auth: Option<Arc<Auth>>,
    /// What counts its calls and its connections.
    pub meter: Arc<Meter>,
    /// Where spans of calls go.
    pub traces: Option<Arc<Traces>>,
    /// A port for operators.
    pub web: Option<Web>,
    /// Threads that serve connections, each with a runtime of its own; with 0 they are tasks of the runtime that [`serve`] is
    /// called on.
    pub workers: usize,
}

impl Options {
    /// What a server cannot do without; the rest is not there, and connections are tasks of the runtime that it is called on.
    #[must_use]
    pub fn new(limits: Limits, drain_timeout: Duration) -> Self {
        let (tls, auth, traces, web) = (None, None, None, None);
        Self { limits, drain_timeout, tls, auth, meter: Arc::default(), traces, web, workers: 0 }
    }
}

/// Serves `application` on `listener` until `shutdown` is ready, then drains, and returns.
///
/// # Cancel safety
///
/// Dropping it cuts every connection at once.
pub async fn serve(
    listener: TcpListener,
    application: impl Application,
    options: Options,
    shutdown: impl Future<Output = ()>,
) {
    let Options { limits, drain_timeout, tls, auth, meter, traces, web, workers } = options;
    let workers = Workers::start(workers, limits.connections_max);
    let health = Health::new();
    let gate = Gate::default();
    let allowances = [limits.undecoded_bytes_max, limits.untaken_bytes_max].map(Allowance::new);
    meter.holds(&allowances);
    let calls = || {
        let router = Router::new(application.service(), health.clone(), &meter);
        Arc::new(Calls::new(
            router,
            gate.door(),
            (auth.clone(), traces.clone()),
            allowances.clone(),
            limits.message_bytes_max,
        ))
    };
    let web = web.map(|web| web::serve(web, calls()));
    let calls = (0..workers.count()).map(|_| calls()).collect();
    let (stop, stopped) = watch::channel(false);

    let http = Http::new(&limits, Opening::new(tls, limits.handshakes_max), Arc::clone(&meter));
    let connections = acceptor::serve(listener, workers, calls, (limits.connections_max, http), stopped);
    let drain = async {
        shutdown.await;
        drain(&application, &health, &gate, &stop, drain_timeout).await;
    };
    tokio::select! {
        () = connections => tracing::info!("drained"),
        () = drain => tracing::warn!("the drain timeout has passed: what was left is cut"),
        never = async { match web { Some(web) => web.await, None => pending().await } } => match never {},
    }
}

/// The steps of a shutdown, each with its share of the time; it returns when that is up.
async fn drain(
    application: &impl Application,
    health: &Health,
    gate: &Gate,
    stop: &watch::Sender<bool>,
    total: Duration,
) {
    let start = Instant::now();
    tracing::info!(calls = gate.count(), timeout = ?total, "draining");

    // Still accepting: whoever comes now is told DRAINING, which is better than a refused connection.
    health.drain();
    gate.close();

    if timeout_at(start + total / 2, gate.empty()).await.is_err() {
        tracing::warn!(calls = gate.count(), "calls are not over in half of the drain timeout");
    }

    let deadline = start + total * 3 / 4;
    let application = AssertUnwindSafe(application.drain(deadline)).catch_unwind();
    match timeout_at(deadline, application).await {
        Ok(Ok(())) => {}
        Ok(Err(_)) => tracing::error!("the application panicked while draining"),
        Err(_) => tracing::warn!("the application is not drained in three quarters of the drain timeout"),
    }

    stop.send_replace(true);
    sleep_until(start + total).await;
}
