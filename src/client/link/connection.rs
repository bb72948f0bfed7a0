//! A connection whose socket the command holds too.
//!
//! When a process is killed, its sockets are closed before anyone who depends on it can be told. So if `pail link`
//! alone held the connection, the server would see the end of it while the command still ran, and could give the
//! bucket's name to another. But the command inherits the socket, as it inherits standard input: the server sees the
//! end of the connection only when the last process that holds it is gone. If children of the command live on, that is
//! not before they end, or, as nobody sends pings, before the lease is over.

use std::{io, os::fd::OwnedFd};

use tokio::{net::TcpStream, time::timeout};

use crate::client::{
    error::Error,
    options::{Client, Options},
};

/// One connection, which is not made anew when it is lost.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) client: Client,
    /// The same socket once more, in a form that a child process inherits.
    pub(super) socket: OwnedFd,
}

impl Connection {
    /// Connects, within the timeout.
    pub(super) async fn open(options: &Options) -> Result<Self, Error> {
        let connect = timeout(options.timeout, TcpStream::connect(options.addr.to_string()));
        let stream = connect.await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        let (stream, socket) = stream.and_then(inheritable).map_err(|error| Error::unreachable(&error))?;
        Ok(Self { client: options.connect_over(stream).await?, socket })
    }
}

fn inheritable(stream: TcpStream) -> io::Result<(TcpStream, OwnedFd)> {
    stream.set_nodelay(true)?;
    let socket = rustix::io::dup(&stream)?; // unlike the standard library's, a copy that survives an exec
    Ok((stream, socket))
}
