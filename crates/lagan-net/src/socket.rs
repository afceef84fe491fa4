//! TCP sockets, made and tuned in one place.
//!
//! Everything that opens or accepts a connection goes through here; TLS with
//! client certificates would wrap the stream in [`connect`] and [`accepted`].

use crate::error::NetError;
use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::time::Duration;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// The side that a connection's reader owns.
pub(crate) type ReadHalf = OwnedReadHalf;
/// The side that a connection's writer and its callers share.
pub(crate) type WriteHalf = OwnedWriteHalf;

/// Connections that wait for `accept`.
const BACKLOG: u32 = 1024;
/// A peer that acknowledges nothing for this long is gone. This is a backstop: callers
/// notice silence much earlier.
const USER_TIMEOUT: Duration = Duration::from_secs(15);
/// An idle peer is asked after this long whether it is there.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(15);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);
const KEEPALIVE_RETRIES: u32 = 3;

/// Listens on exactly `addr`.
///
/// # Errors
/// Those of bind(2) and listen(2).
pub(crate) fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = socket_for(addr)?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(BACKLOG)
}

/// Connects to `addr`, from `bind_from` if given, within `deadline`.
///
/// # Errors
/// [`NetError::Connect`], `silent` when nothing came back.
pub(crate) async fn connect(
    addr: SocketAddr,
    bind_from: Option<IpAddr>,
    deadline: Duration,
) -> Result<TcpStream, NetError> {
    let attempt = async {
        let socket = socket_for(addr)?;
        if let Some(ip) = bind_from {
            socket.bind(SocketAddr::new(ip, 0))?;
        }
        let stream = socket.connect(addr).await?;
        // A connect to a free port of one's own address can meet itself.
        if stream.local_addr()? == stream.peer_addr()? {
            return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
        }
        tune(&stream)?;
        Ok(stream)
    };
    match tokio::time::timeout(deadline, attempt).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(NetError::Connect {
            addr,
            silent: is_silence(&error),
            reason: error.to_string(),
        }),
        Err(_) => Err(NetError::Connect {
            addr,
            silent: true,
            reason: "no answer".to_owned(),
        }),
    }
}

/// Prepares a connection that was accepted.
///
/// # Errors
/// Those of setsockopt(2).
pub(crate) fn accepted(stream: TcpStream) -> io::Result<TcpStream> {
    tune(&stream)?;
    Ok(stream)
}

/// Ends both directions, whoever still holds a half.
pub(crate) fn shutdown(socket: &WriteHalf) {
    // One that the peer has ended already is as good.
    let _ = SockRef::from(socket.as_ref()).shutdown(Shutdown::Both);
}

fn socket_for(addr: SocketAddr) -> io::Result<TcpSocket> {
    match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }
}

fn is_silence(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
    )
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
    socket.set_tcp_keepalive(
        &TcpKeepalive::new()
            .with_time(KEEPALIVE_AFTER)
            .with_interval(KEEPALIVE_EVERY)
            .with_retries(KEEPALIVE_RETRIES),
    )
}
