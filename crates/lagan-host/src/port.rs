//! Ports of processes that leave.
//!
//! The rule for users: a daemon, and `lagan up`, wait some seconds for a predecessor that
//! was killed and still has the address. Only then is the address called taken.

use crate::process::LOOK;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

/// Listens by `bind`, waiting up to `patience` for a predecessor that has the address.
///
/// # Errors
/// The errors of `bind`; `AddrInUse` comes after `patience`.
///
/// # Cancel safety
/// Safe: between two calls of `bind` nothing is held.
pub async fn listen_within<T>(
    patience: Duration,
    mut bind: impl FnMut() -> io::Result<T>,
) -> io::Result<T> {
    let end = Instant::now() + patience;
    loop {
        match bind() {
            Err(e) if is_taken(&e) && Instant::now() < end => tokio::time::sleep(LOOK).await,
            bound => return bound,
        }
    }
}

/// Checks that `addr` can be listened on, in this network namespace. Waits until then for
/// a predecessor that has it.
///
/// # Errors
/// `AddrInUse` when somebody has it at that time; at once when this machine has no such address.
pub fn check_free(addr: SocketAddr, until: Instant) -> io::Result<()> {
    loop {
        match TcpListener::bind(addr) {
            Err(e) if is_taken(&e) && Instant::now() < until => std::thread::sleep(LOOK),
            bound => return bound.map(drop),
        }
    }
}

fn is_taken(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::AddrInUse
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn address_is_waited_for_while_its_last_owner_leaves() {
        let taken = TcpListener::bind("127.78.3.1:0").unwrap();
        let addr = taken.local_addr().unwrap();
        let listen = || TcpListener::bind(addr);
        let refused = listen_within(Duration::ZERO, listen).await.unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            drop(taken);
        });
        let patience = Duration::from_secs(60);
        listen_within(patience, listen).await.unwrap();
    }

    #[test]
    fn address_is_free_when_its_last_owner_has_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = listener.local_addr().unwrap();
        let error = check_free(addr, Instant::now()).unwrap_err();
        assert!(is_taken(&error), "{error}");
        let gone = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(100));
            drop(listener);
        });
        let far = Instant::now() + Duration::from_secs(60);
        check_free(addr, far).unwrap();
        gone.join().unwrap();
    }
}
