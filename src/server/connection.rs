//! One socket: speaks HTTP/2 on it until it ends or is told to.
//!
//! It knows nothing of gRPC beyond a future for each request.

use std::{
    error::Error,
    fmt, io,
    pin::pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use hyper::{body::Incoming, server::conn::http2::Builder, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{sleep, timeout},
};

use super::{
    beside::{Begun, WithStreams},
    call::{Calls, Open},
    guard::Cut,
    meter::{Ending, Meter, OpenConnection},
    seldom::Seldom,
    shed::Share,
    socket::Socket,
    stream::Opening,
};
use crate::{limits::Limits, service::streams};

/// Request bytes on their way in one connection. h2 closes healthy connections when it is small and messages are.
const CONNECTION_WINDOW_BYTES: u32 = 16 << 20;

/// Request bytes on their way in one stream: a message of common size comes in one round trip, and what nobody takes
/// is not much.
const STREAM_WINDOW_BYTES: u32 = 512 << 10;

/// Response bytes that one stream holds for a client that does not read. hyper takes 400 KiB.
const SEND_BUFFER_BYTES: usize = 64 << 10;

/// Bytes of a request's headers, as HTTP/2 counts them.
const HEADER_LIST_BYTES: u32 = 16 << 10;

/// A connection is pinged after this long, so that a peer that is gone is noticed…
const PING_EVERY: Duration = Duration::from_secs(10);

/// …when it does not answer for so long.
const PING_ANSWER: Duration = Duration::from_secs(5);

/// A peer that takes nothing of what is written to it is cut off after this long, be it silent or not: pings find
/// only the silent.
#[cfg(target_os = "linux")]
const NOT_READING_MS: u32 = 30_000;

/// A client that connects and says nothing, TLS's handshake aside, is let go after this long; HTTP/2 has no timer of
/// its own for that. From its first byte on the socket's guard looks after it.
const FIRST_WORD: Duration = Duration::from_secs(10);

/// A connection that is told to go away, and carries no stream and no byte for twice this long, is closed whether it has
/// heard it or not.
const GOODBYE: Duration = Duration::from_millis(250);

/// Returns once it is time to stop.
pub(super) async fn turned(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody is left to say it: then it is time to stop as well.
    drop(stop.wait_for(|stop| *stop).await);
}

/// How a connection opens, and what it is told of HTTP/2.
#[derive(Clone, Debug)]
pub(super) struct Http {
    opening: Opening,
    meter: Arc<Meter>,
    /// Of those that did not open, or were cut.
    refused: Arc<Seldom>,
    streams_max: u32,
    idle_max: Duration,
    age_max: Option<Duration>,
    age_grace: Duration,
    queue_time_max: Duration,
}

impl Http {
    pub(super) fn new(limits: &Limits, opening: Opening, meter: Arc<Meter>) -> Self {
        let streams_max = u32::try_from(limits.streams_max).unwrap_or(u32::MAX);
        Self {
            opening,
            meter,
            refused: Arc::default(),
            streams_max,
            idle_max: limits.connection_idle_max,
            age_max: limits.connection_age_max,
            age_grace: limits.connection_age_grace,
            queue_time_max: limits.queue_time_max,
        }
    }

    /// Takes note of a client that is sent away.
    fn refuse(&self, connection: &mut OpenConnection, ending: Ending, why: &dyn fmt::Display) {
        connection.ends(ending);
        if let Some(count) = self.refused.count() {
            tracing::info!(count, last = %why, "clients were sent away");
        }
    }

    /// Takes note of a connection that has ended by itself.
    fn ended(&self, connection: &mut OpenConnection, ended: io::Result<()>) {
        log_end(&ended);
        match ended {
            Ok(()) => connection.ends(Ending::Closed),
            Err(error) => match cut(&error) {
                Some(cut) => self.refuse(connection, cut.into(), &cut),
                None => connection.ends(Ending::Failed),
            },
        }
    }

    fn builder(&self, begun: Begun) -> Builder<Begun> {
        let mut http = Builder::new(begun);
        http.timer(TokioTimer::new())
            .max_concurrent_streams(self.streams_max)
            .max_header_list_size(HEADER_LIST_BYTES)
            .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
            .initial_stream_window_size(STREAM_WINDOW_BYTES)
            .max_send_buf_size(SEND_BUFFER_BYTES)
            .keep_alive_interval(PING_EVERY)
            .keep_alive_timeout(PING_ANSWER)
            .auto_date_header(false);
        http
    }
}

/// One connection, from its first byte to its last.
pub(super) async fn serve(stream: TcpStream, http: Http, calls: Arc<Calls>, mut stop: watch::Receiver<bool>) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY was not set");
    }
    let mut counted = http.meter.connections.opened(&http.meter);
    let peer = stream.peer_addr().ok();
    #[cfg(target_os = "linux")]
    if let Err(error) = rustix::net::sockopt::set_tcp_user_timeout(&stream, NOT_READING_MS) {
        tracing::debug!(%error, "TCP_USER_TIMEOUT was not set");
    }
    // hyper can't be told to go away before the handshake (hyper#4170): a client that is silent is not handed to it.
    let stream = tokio::select! {
        () = turned(&mut stop) => return,
        opened = timeout(FIRST_WORD, http.opening.open(stream)) => match opened {
            Ok(Ok(Some(stream))) => stream,
            Ok(Ok(None)) => return counted.ends(Ending::Closed),
            Ok(Err(error)) => return http.refuse(&mut counted, Ending::NotOpened, &error),
            Err(_) => return http.refuse(&mut counted, Ending::NotOpened, &format_args!("nothing was said for {FIRST_WORD:?}")),
        },
    };

    // Every open call holds one of these, and the service below holds one more.
    let token = Arc::new(calls.open(stream.certificate().map(Arc::new)));
    let open = Arc::downgrade(&token);
    let long_streams = streams::Connection::new(peer, Arc::clone(&token.untaken));
    let long_streams_here = long_streams.clone();
    let begun_calls = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&begun_calls);
    let service = service_fn(move |mut request: hyper::Request<Incoming>| {
        // The others don't ask, and to put it there takes memory.
        if streams::is_long(request.uri().path()) {
            request.extensions_mut().insert(long_streams_here.clone());
        }
        count.fetch_add(1, Relaxed);
        calls.call(request, Arc::clone(&token))
    });
    let socket = Socket::new(stream);
    let begun = Begun::default();
    let connection = http.builder(begun.clone()).serve_connection(TokioIo::new(socket.clone()), service);
    let share = Share::new(http.queue_time_max);
    let mut connection = pin!(WithStreams::new(connection, begun, socket.clone(), share));
    let age_max = http.age_max.map(|age| give_or_take_a_tenth(age, getrandom::u32().unwrap_or(u32::MAX / 2)));
    let grace = tokio::select! {
        ended = connection.as_mut() => return http.ended(&mut counted, ended),
        // One that is not used is a place that others wait for, and a client that is gone may have left it behind a proxy.
        () = unused(&open, &begun_calls, http.idle_max) => {
            counted.ends(Ending::Idle);
            None
        }
        () = after(age_max) => {
            counted.ends(Ending::Age);
            long_streams.leave();
            connection.as_mut().poll_all();
            Some(http.age_grace)
        }
        () = turned(&mut stop) => None,
    };
    connection.as_mut().connection().graceful_shutdown();
    let mut cut = pin!(after(grace));

    // GOAWAY is sent, and open streams may end. A peer that does not answer is not waited for; one that is slow to
    // read what its streams sent last, which are over for us, moves a byte now and then. Two looks, because what was
    // sent last may still be on its way at the first.
    let (mut idle, mut bytes) = (false, socket.passed());
    loop {
        tokio::select! {
            ended = connection.as_mut() => return log_end(&ended),
            () = &mut cut => return,
            () = sleep(GOODBYE) => {}
        }
        let before = std::mem::replace(&mut bytes, socket.passed());
        let was_idle = std::mem::replace(&mut idle, open.strong_count() <= 1 && before == bytes);
        if idle && was_idle {
            return;
        }
    }
}

/// Returns after this time; for `None` never.
async fn after(time: Option<Duration>) {
    match time {
        Some(time) => sleep(time).await,
        None => std::future::pending().await,
    }
}

/// Connections that came together do not go together. `random` is any number.
fn give_or_take_a_tenth(age: Duration, random: u32) -> Duration {
    age.mul_f64(0.9 + 0.2 * f64::from(random) / f64::from(u32::MAX))
}

/// Returns once no call was open for so long, or a fifteenth of it longer.
async fn unused(open: &Weak<Open>, begun_calls: &AtomicUsize, idle_max: Duration) {
    const LOOKS: u32 = 15;
    let (mut quiet, mut last) = (0, 0);
    while quiet < LOOKS {
        sleep(idle_max / LOOKS).await;
        let begun = begun_calls.load(Relaxed);
        // The service holds one itself.
        let was_used = open.strong_count() > 1 || begun != last;
        (quiet, last) = if was_used { (0, begun) } else { (quiet + 1, begun) };
    }
}

/// The guard's reason, where it was the guard's doing.
fn cut(error: &(dyn Error + 'static)) -> Option<Cut> {
    let inner =
        error.downcast_ref::<io::Error>().and_then(io::Error::get_ref).map(|inner| inner as &(dyn Error + 'static));
    match (error.downcast_ref::<Cut>(), inner.or_else(|| error.source())) {
        (Some(cut), _) => Some(*cut),
        (None, Some(source)) => self::cut(source),
        (None, None) => None,
    }
}

fn log_end(ended: &io::Result<()>) {
    if let Err(error) = ended {
        // Clients go away in many ways, and none is the server's fault.
        tracing::debug!(%error, "a connection ended");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_is_a_tenth_more_or_less_and_anything_between() {
        let drawn = |random| give_or_take_a_tenth(Duration::from_secs(100), random).as_millis();
        assert_eq!((drawn(0), drawn(u32::MAX / 2), drawn(u32::MAX)), (90_000, 99_999, 110_000));
    }
}
