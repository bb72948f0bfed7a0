//! `pail serve`: the registry, the service over it, and the server around both.

use std::{
    convert::Infallible,
    future::{Future, pending},
    io::{self, Write as _},
    net::SocketAddr,
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpSocket},
    signal::unix::Signal,
    task::{JoinSet, spawn_blocking},
    time::{Instant, timeout_at},
};

use crate::{
    admin,
    auth::Auth,
    clock::SystemClock,
    config::{Serve, Settings},
    followed::Followed,
    limits::ACCEPT_QUEUE_MAX,
    memory,
    metrics::Metrics,
    pb::bucket_service_server::BucketServiceServer,
    registry::Registry,
    server::{self, Application, Options, meter::Meter, web::Web},
    service::Buckets,
    signals, systemd,
    telemetry::{self, LogLevel},
    tls::{self, Tls},
    traces::Traces,
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

/// Runs the server with the settings that are read, until it is told to stop; what is wrong with them is one line on stderr.
/// They are read again for each SIGHUP.
pub async fn run(read: impl Fn() -> Result<Settings, String>) -> ExitCode {
    match started(read).await {
        Ok(code) => code,
        Err(line) => {
            eprintln!("pail: {line}");
            ExitCode::from(USAGE)
        }
    }
}

async fn started(read: impl Fn() -> Result<Settings, String>) -> Result<ExitCode, String> {
    let settings = read()?;
    let config = &settings.serve;
    if config.print_config {
        let printed = io::stdout().write_all(settings.to_string().as_bytes());
        return Ok(if printed.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    let level = telemetry::install(config.log_format, &config.log_level)
        .map_err(|error| format!("there is no log to be had: {error}"))?;
    memory::forgo_huge_pages();
    let files = Files::read(config)?;
    let unheard = |error| format!("signals can't be heard: {error}");
    let shutdown = signals::shutdown_signal().map_err(unheard)?;
    let hangup = signals::hangup().map_err(unheard)?;
    let refused = |error| format!("can't listen on {}: {error}; choose another with --listen", config.listen);
    let listener = match handed_over().map_err(|error| format!("the socket that systemd handed over: {error}"))? {
        Some(listener) => listener,
        None => listen(config.listen).map_err(refused)?,
    };
    let admin = config.admin.map(|address| {
        listen(address).map_err(|error| format!("can't listen on {address}: {error}; choose another with --admin"))
    });
    let admin = admin.transpose()?;
    let address = listener.local_addr().map_err(refused)?;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), %address, "listening");
    if let Some(address) = admin.as_ref().and_then(|admin| admin.local_addr().ok()) {
        tracing::info!(%address, "listening for operators");
    }
    systemd::ready();
    let shutdown = async {
        shutdown.await;
        systemd::stopping();
    };

    let registry = Registry::start(config.limits.clone(), Arc::new(SystemClock::default()), random_id());
    let Serve { limits, drain_timeout, workers, .. } = config.clone();
    let traces = config.otlp.as_ref().map(|otlp| Traces::new(otlp, config.trace_sample, registry.id()));
    let traces = traces.transpose()?.map(Arc::new);
    let meter = Arc::<Meter>::default();
    let metrics = || Metrics::new(registry.clone(), Arc::clone(&meter), files.tls.clone());
    let web = admin.map(|listener| Web { listener, pages: admin::pages(registry.clone(), metrics()) });
    let options = Options {
        limits,
        drain_timeout,
        tls: files.tls.clone(),
        auth: files.auth.clone(),
        meter,
        traces: traces.clone(),
        web,
        workers,
    };
    let keep_alive = systemd::keep_alive(&registry);
    let ended = tokio::select! {
        ended = serve(listener, registry.clone(), options, shutdown) => ended,
        never = read_again(hangup, &settings, read, &level, &files) => match never {},
        never = files.follow() => match never {},
        never = keep_alive => match never {},
    };
    if let Some(traces) = traces {
        drop(spawn_blocking(move || traces.end()).await);
    }
    Ok(match ended {
        Ended::Asked => ExitCode::SUCCESS,
        Ended::GaveUp => ExitCode::FAILURE,
    })
}

/// What the files say that are followed, where there are any.
struct Files {
    tls: Option<Arc<Followed<Tls>>>,
    auth: Option<Arc<Auth>>,
}

impl Files {
    fn read(config: &Serve) -> Result<Self, String> {
        let auth = config.auth.as_deref().map(Auth::new).transpose()?;
        Ok(Self { tls: tls::server(&config.tls)?.map(Arc::new), auth: auth.map(Arc::new) })
    }

    /// Takes what is new in them. What is wrong with it is in the log.
    fn take_news(&self) {
        let tls = self.tls.as_ref().map(|tls| tls.take_news(None));
        let auth = self.auth.as_ref().map(|auth| auth.files().take_news(None));
        drop((tls, auth));
    }

    /// The same as it comes, for ever.
    async fn follow(&self) -> Infallible {
        let tls = async { if let Some(tls) = &self.tls { tls.follow().await } else { pending().await } };
        let auth = async { if let Some(auth) = &self.auth { auth.files().follow().await } else { pending().await } };
        tokio::select! { never = tls => never, never = auth => never }
    }
}

/// Reads the settings again whenever it is asked to. The level of the log holds from then on; for the rest there are warnings.
async fn read_again(
    mut hangup: Signal,
    settings: &Settings,
    read: impl Fn() -> Result<Settings, String>,
    level: &LogLevel,
    files: &Files,
) -> Infallible {
    loop {
        hangup.recv().await;
        systemd::reloading();
        match read() {
            Ok(new) => apply(&new, settings, level),
            Err(why) => tracing::error!(?why, "the configuration was not read again: all is as it was"),
        }
        files.take_news();
        systemd::ready();
    }
}

fn apply(new: &Settings, old: &Settings, level: &LogLevel) {
    let log_level = &new.serve.log_level;
    match level.set(log_level) {
        Ok(()) => tracing::info!(?log_level, "the configuration was read again"),
        Err(error) => tracing::error!(%error, "the level of the log can't be changed"),
    }
    let others: Vec<&str> = new.differ(old).into_iter().filter(|name| *name != LOG_LEVEL).collect();
    if !others.is_empty() {
        tracing::warn!(settings = others.join(", "), "these take a restart");
    }
}

/// What can be changed without a restart.
const LOG_LEVEL: &str = "log-level";

/// The socket of systemd's, if there is one.
fn handed_over() -> io::Result<Option<TcpListener>> {
    let Some(listener) = systemd::listener()? else { return Ok(None) };
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener).map(Some)
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
    let pail = Pail::new(registry.clone(), options.auth.clone());
    server::serve(listener, pail, options, until).await;
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
    fn new(registry: Registry, auth: Option<Arc<Auth>>) -> Self {
        Self { buckets: Buckets::new(registry.clone()).guarded_by(auth), registry }
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
        timeout_at(deadline, Pail::new(registry.clone(), None).drain(deadline)).await.unwrap();
        assert!(registry.has_ended());
    }
}
