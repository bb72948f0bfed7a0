//! A lane's socket: TCP, or TLS over it; and nobody waits for it.

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    os::fd::{AsFd, BorrowedFd},
    time::Duration,
};

use tokio_rustls::rustls::{ClientConnection, StreamOwned};

use crate::client::connector::Tls;

pub(super) enum Socket {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
}

impl Socket {
    /// Connects to the first of these that answers, within the timeout.
    pub(super) fn connect(addresses: &[SocketAddr], tls: Option<&Tls>, timeout: Duration) -> io::Result<Self> {
        let mut last = io::ErrorKind::AddrNotAvailable.into();
        for address in addresses {
            match TcpStream::connect_timeout(address, timeout).and_then(|stream| Self::open(stream, tls, timeout)) {
                Ok(socket) => return Ok(socket),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn open(mut stream: TcpStream, tls: Option<&Tls>, timeout: Duration) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let connection = match tls {
            None => None,
            Some((config, name)) => {
                let connection = ClientConnection::new(config.clone(), name.clone());
                let mut connection = connection.map_err(io::Error::other)?;
                stream.set_read_timeout(Some(timeout))?;
                stream.set_write_timeout(Some(timeout))?;
                while connection.is_handshaking() {
                    connection.complete_io(&mut stream)?;
                }
                Some(connection)
            }
        };
        stream.set_nonblocking(true)?;
        Ok(match connection {
            None => Self::Plain(stream),
            Some(connection) => Self::Tls(Box::new(StreamOwned::new(connection, stream))),
        })
    }

    /// Whether something was written that is not sent yet: [`flush`](Write::flush) sends it.
    pub(super) fn holds_back(&self) -> bool {
        match self {
            Self::Plain(_) => false,
            Self::Tls(stream) => stream.conn.wants_write(),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.read(buffer),
            Self::Tls(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Plain(stream) => stream.write(bytes),
            Self::Tls(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Plain(_) => Ok(()),
            Self::Tls(stream) => stream.flush(),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Plain(stream) => stream.as_fd(),
            Self::Tls(stream) => stream.sock.as_fd(),
        }
    }
}
