//! How many long streams there may be: on one connection, so that its unary calls always have room, and in all; and that a
//! connection goes, which its streams are to leave.
//!
//! It counts and says no; what a stream does is not known here. The connection that the request of a long stream came by is
//! a value in its extensions, put there by the server.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed},
    },
};

use http::Extensions;

use super::{
    allowance::{Allowance, Full},
    status::{Failure, Reason},
};

/// Whether the RPC of this path lives as long as its client likes. Such a call is not waited for when the server drains:
/// it is told to end.
#[must_use]
pub fn is_long(path: &str) -> bool {
    matches!(method(path), "Watch" | "Link" | "Pipeline" | "ServerReflectionInfo")
}

/// Whether the RPC of this path answers for as long as something happens, and not only what its client asks.
#[must_use]
pub fn is_endless(path: &str) -> bool {
    method(path) == "Watch"
}

/// Whether the RPC of this path takes any number of request messages, rather than exactly one.
#[must_use]
pub fn takes_many(path: &str) -> bool {
    matches!(method(path), "Link" | "Pipeline" | "ServerReflectionInfo")
}

/// Whether a call of this path may be told to come again later. A Link that is not there when its lease ends, ends lives.
#[must_use]
pub fn can_wait(path: &str) -> bool {
    method(path) != "Link"
}

fn method(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, method)| method)
}

/// Whether the RPC of this path may have changed something when it answers, and with much: it is refused before, or not at all.
#[must_use]
pub fn changes_and_tells(path: &str) -> bool {
    matches!(method(path), "Transact" | "Pipeline")
}

/// How a call ends where the server holds all that it may of answers that clients have not taken.
pub fn untaken(Full { bytes_max }: Full) -> Failure {
    let words = "the server holds too many bytes of answers that clients have not taken";
    Failure::new(Reason::Overloaded, words).with("limit", bytes_max)
}

/// The connection that a request came by.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    /// The number of its long streams.
    streams: Arc<AtomicUsize>,
    moves: Arc<AtomicBool>,
    untaken: Option<Arc<Allowance>>,
    peer: Option<SocketAddr>,
}

impl Connection {
    /// One from `peer` that has no streams yet. `untaken` are the bytes of answers that clients of the whole server have not
    /// taken.
    #[must_use]
    pub fn new(peer: Option<SocketAddr>, untaken: Arc<Allowance>) -> Self {
        Self { peer, untaken: Some(untaken), ..Self::default() }
    }

    /// Tells its long streams, those to come included, to end with [`Reason::Moving`]. They find it when they are polled: poll
    /// them.
    pub fn leave(&self) {
        // A flag for one thread, its connection's.
        self.moves.store(true, Relaxed);
    }
}

/// The long streams of the server, and what is allowed.
#[derive(Clone, Debug)]
pub struct LongStreams {
    all: Arc<AtomicUsize>,
    connection_max: usize,
    all_max: usize,
}

impl LongStreams {
    /// At most `connection_max` streams of one connection, and `all_max` together.
    #[must_use]
    pub fn new(connection_max: usize, all_max: usize) -> Self {
        Self { all: Arc::default(), connection_max, all_max }
    }

    /// Counts one more stream until the permit is dropped. Keep it in the response stream, not in the handler.
    ///
    /// A request that names no [`Connection`], as in a test without sockets, is taken for a connection's first.
    ///
    /// # Errors
    ///
    /// `RESOURCE_EXHAUSTED` / `TOO_MANY_STREAMS`, with nothing counted.
    pub fn admit(&self, extensions: &Extensions) -> Result<Permit, Failure> {
        let Connection { streams, moves, untaken, peer } = extensions.get().cloned().unwrap_or_default();
        let connection = Slot::take(streams, self.connection_max)
            .ok_or_else(|| full("connection", "this connection", self.connection_max))?;
        let all = Slot::take(Arc::clone(&self.all), self.all_max)
            .ok_or_else(|| full("server", "the server", self.all_max))?;
        Ok(Permit { _connection: connection, _all: all, moves, untaken, peer })
    }
}

fn full(subject: &str, who: &str, max: usize) -> Failure {
    Failure::new(
        Reason::TooManyStreams,
        format!("{who} has {max} Watch, Link and Pipeline streams, and no more are allowed"),
    )
    .quota(subject, max)
}

/// Leave to run one long stream; dropping it gives both counts back.
#[derive(Debug)]
#[must_use]
pub struct Permit {
    _connection: Slot,
    _all: Slot,
    moves: Arc<AtomicBool>,
    untaken: Option<Arc<Allowance>>,
    peer: Option<SocketAddr>,
}

impl Permit {
    /// Where the client is, or what stands before it.
    pub fn peer(&self) -> Option<SocketAddr> {
        self.peer
    }

    /// Whether the connection goes. Nobody is woken for it: all streams of the connection are polled.
    pub fn is_moving(&self) -> bool {
        self.moves.load(Relaxed)
    }

    /// Whether the server may hold more of what it answers.
    ///
    /// # Errors
    ///
    /// `UNAVAILABLE` / `OVERLOADED`: ask it before anything is done.
    pub fn has_room(&self) -> Result<(), Failure> {
        self.untaken.as_ref().map_or(Ok(()), |all| all.has_room()).map_err(untaken)
    }

    /// How a stream ends where it does.
    pub fn moving() -> Failure {
        Failure::new(Reason::Moving, "the connection has reached its age: open the stream again, on another one")
    }
}

/// One of a counter's places, given back on drop.
#[derive(Debug)]
struct Slot(Arc<AtomicUsize>);

impl Slot {
    fn take(count: Arc<AtomicUsize>, max: usize) -> Option<Self> {
        // Only the number matters, nothing is published by it: Relaxed is enough.
        count.fetch_update(Relaxed, Relaxed, |count| (count < max).then_some(count + 1)).ok()?;
        Some(Self(count))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection() -> Extensions {
        let mut extensions = Extensions::new();
        extensions.insert(Connection::default());
        extensions
    }

    #[test]
    fn a_connection_has_its_own_bound_and_gets_back_what_it_drops() {
        let streams = LongStreams::new(2, 10);
        let (one, other) = (connection(), connection());
        let first = streams.admit(&one).unwrap();
        let _second = streams.admit(&one).unwrap();

        let refused = streams.admit(&one).unwrap_err();
        assert_eq!(refused.reason(), Reason::TooManyStreams);
        assert!(streams.admit(&other).is_ok());

        drop(first);
        assert!(streams.admit(&one).is_ok());
    }

    #[test]
    fn all_connections_share_a_bound_and_a_refusal_counts_nowhere() {
        let streams = LongStreams::new(2, 2);
        let (one, other) = (connection(), connection());
        let permits = (streams.admit(&one).unwrap(), streams.admit(&one).unwrap());

        assert!(streams.admit(&other).is_err());
        assert!(streams.admit(&other).is_err());
        assert!(streams.admit(&other).is_err());

        drop(permits);
        let _permits = (streams.admit(&other).unwrap(), streams.admit(&other).unwrap());
    }

    #[test]
    fn long_streams_are_known_by_their_method() {
        assert!(
            ["/pail.v1.BucketService/Watch", "/grpc.health.v1.Health/Watch", "/x/ServerReflectionInfo"]
                .iter()
                .all(|path| is_long(path))
        );
        assert!(!is_long("/pail.v1.BucketService/Get") && !is_long("/Watch/Get") && !is_long("/"));
        assert!(takes_many("/pail.v1.BucketService/Link") && !takes_many("/pail.v1.BucketService/Watch"));
    }
}
