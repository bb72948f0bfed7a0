//! `pail serve`: the registry, the service over it, and the server around both.

use std::{future::Future, io, net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpSocket},
    task::{JoinSet, spawn_blocking},
    time::{Instant, timeout_at},
};

use crate::{
    clock::SystemClock,
    config::Serve,
    limits::ACCEPT_QUEUE_MAX,
    pb::bucket_service_server::BucketServiceServer,
    registry::Registry,
    server::{self, Application, Options},
    service::Buckets,
    signals, telemetry,
};

/// The arguments or the address are no good; as for any other command.
const USAGE: u8 = 2;

/// How a server came to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// It was told to stop.
    Asked,
    /// Its registry crashed too often.
    GaveUp,
}

/// Runs the server until it is told to stop; what is wrong with its configuration is one line on stderr.
pub async fn run(config: &Serve) -> ExitCode {
    match start(config).await {
        Ok((listener, address, shutdown)) => {
            tracing::info!(version = env!("CARGO_PKG_VERSION"), %address, "listening");
            let registry = Registry::start(config.limits.clone(), Arc::new(SystemClock::default()), random_id());
            let Serve { limits, drain_timeout, workers, .. } = config.clone();
            let options = Options { limits, drain_timeout, workers };
            match serve(listener, registry, options, shutdown).await {
                Ended::Asked => ExitCode::SUCCESS,
                Ended::GaveUp => ExitCode::FAILURE,
            }
        }
        Err(line) => {
            eprintln!("pail: {line}");
            ExitCode::from(USAGE)
        }
    }
}

async fn start(config: &Serve) -> Result<(TcpListener, SocketAddr, impl Future<Output = ()>), String> {
    config.check()?;
    telemetry::install(config.log_format, &config.log_level)
        .map_err(|error| format!("--log-level {:?} is refused: {error}", config.log_level))?;
    let shutdown = signals::shutdown_signal().map_err(|error| format!("signals can't be heard: {error}"))?;
    let refused = |error| format!("can't listen on {}: {error}; choose another with --listen", config.listen);
    let listener = listen(config.listen).map_err(refused)?;
    let address = listener.local_addr().map_err(refused)?;
    Ok((listener, address, shutdown))
}

/// Listens with room for a crowd: clients that all come back at once, as after a restart. tokio's own has room for 128, and
/// who comes then is not heard before a second has passed.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    // Or the port could not be had for a minute after a restart. On Windows it would mean that others may have it too.
    #[cfg(unix)]
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(ACCEPT_QUEUE_MAX)
}

/// Serves `registry` on `listener` until `shutdown` is ready or the registry gives up, then drains and returns.
///
/// # Cancel safety
/// Dropping it cuts every connection at once.
pub async fn serve(
    listener: TcpListener,
    registry: Registry,
    options: Options,
    shutdown: impl Future<Output = ()>,
) -> Ended {
    let mut ended = Ended::Asked;
    // On drop this stops what it runs.
    let mut deliveries = JoinSet::new();
    deliveries.spawn({
        let registry = registry.clone();
        async move { registry.run().await }
    });
    let until = async {
        tokio::select! {
            () = shutdown => {}
            () = registry.gave_up() => ended = Ended::GaveUp,
        }
    };
    let timer = Timer::start(&registry);
    server::serve(listener, Pail::new(registry.clone()), options, until).await;
    drop(timer);
    ended
}

/// The thread that ends what is past its time; it ends when this is dropped.
struct Timer(Registry);

impl Timer {
    fn start(registry: &Registry) -> Self {
        let runner = registry.clone();
        let thread = std::thread::Builder::new().name("pail-timer".into()).spawn(move || runner.run_timer());
        if let Err(error) = thread {
            tracing::error!(%error, "no thread for the timer: what is past its time ends when it is asked for");
        }
        Self(registry.clone())
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct Pail {
    registry: Registry,
    buckets: Buckets,
}

impl Pail {
    fn new(registry: Registry) -> Self {
        Self { buckets: Buckets::new(registry.clone()), registry }
    }
}

impl Application for Pail {
    type Service = BucketServiceServer<Buckets>;

    fn service(&self) -> Self::Service {
        // The server has seen to the size before a message is decoded, and answers with the contract's error.
        BucketServiceServer::new(self.buckets.clone()).max_decoding_message_size(usize::MAX)
    }

    async fn drain(&self, deadline: Instant) {
        self.registry.drain();
        // Before any bucket goes: to those who are linked to it, that is not the end.
        self.buckets.drain();
        let registry = self.registry.clone();
        let shut_down = spawn_blocking(move || registry.shut_down(|| Instant::now() + DRAIN_MARGIN >= deadline));
        // Whatever holds it up: at the deadline this future is dropped, and those who watch would hear nothing.
        match timeout_at(deadline.checked_sub(DRAIN_MARGIN / 2).unwrap_or(deadline), shut_down).await {
            Ok(Ok(Ok(0))) => {}
            Ok(Ok(Ok(left))) => tracing::warn!(left, "no time to take all buckets down one by one"),
            Ok(Ok(Err(error))) => tracing::error!(%error, "buckets could not be taken down one by one"),
            Ok(Err(error)) => tracing::error!(%error, "taking buckets down failed"),
            Err(_) => tracing::warn!("a bucket takes more than the time there is to take it down"),
        }
        self.registry.end();
    }
}

/// What is left of the time after buckets were taken down, for those who watch to hear of it.
const DRAIN_MARGIN: Duration = Duration::from_millis(200);

/// An id that no other registry has.
fn random_id() -> String {
    let mut bytes = [0; 16];
    if getrandom::fill(&mut bytes).is_err() {
        // No randomness: the time of the start tells this registry from the one before.
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        bytes = now.as_nanos().to_le_bytes();
    }
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock::ManualClock, limits::Limits};

    #[tokio::test]
    async fn those_who_watch_are_told_of_the_drain_though_its_time_is_up() {
        let registry = Registry::start(Limits::default(), Arc::new(ManualClock::default()), random_id());
        let deadline = Instant::now();
        timeout_at(deadline, Pail::new(registry.clone()).drain(deadline)).await.unwrap();
        assert!(registry.has_ended());
    }
}
