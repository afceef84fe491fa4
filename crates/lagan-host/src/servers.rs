//! Addresses of servers, as people write them, and what they mean.
//!
//! The rule for users: wherever a server is named (mount source, `mount.toml`,
//! `client.toml`, `--cluster`, `lagan join`), it is named as `ip:port` or `name:port`. All
//! names of a list are looked up at the same time, each for ten seconds at most; one that is
//! not known just now is the caller's to pass over.

use std::io;
use std::net::{Ipv6Addr, SocketAddr};
use std::time::Duration;
use tokio::task::JoinSet;

#[cfg(test)]
mod tests;

/// How long one name is looked up: as long as resolvers commonly try two name servers.
const LOOK_UP_DEADLINE: Duration = Duration::from_secs(10);

/// A text that cannot be the address of a server.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a server's address: write ip:port or name:port, as in 10.0.0.1:7700")]
pub struct NotAnAddress(pub String);

/// Why the addresses of one server are not known.
#[derive(Debug, thiserror::Error)]
pub enum LookUpError {
    /// The text is no address.
    #[error(transparent)]
    NotAnAddress(#[from] NotAnAddress),
    /// The name has no address now, or the resolver failed or was silent.
    #[error("look up {server}: {reason}")]
    Unknown {
        /// The server as given.
        server: String,
        /// The resolver's answer.
        reason: io::Error,
    },
}

/// Checks that the text is an `ip:port` or a `name:port`. No name is looked up.
///
/// # Errors
/// It is neither, or the port is 0.
pub fn check(text: &str) -> Result<(), NotAnAddress> {
    let fits = match text.parse::<SocketAddr>() {
        Ok(addr) => addr.port() != 0,
        Err(_) => is_name_and_port(text),
    };
    match fits {
        true => Ok(()),
        false => Err(NotAnAddress(text.to_owned())),
    }
}

/// A host's name has letters, digits, `-` and `.` (RFC 1123), and `_` in practice. An IPv6
/// address may lack its brackets.
fn is_name_and_port(text: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '.' | '_');
    text.rsplit_once(':').is_some_and(|(host, port)| {
        let is_name = !host.is_empty() && host.chars().all(plain);
        let host_fits = is_name || is_ipv6(host);
        host_fits && port.parse::<u16>().is_ok_and(|p| p != 0)
    })
}

/// An address of one link has a zone (RFC 4007): the number or the name of an interface,
/// which the resolver looks up.
fn is_ipv6(host: &str) -> bool {
    let (address, zone_fits) = match host.split_once('%') {
        Some((address, zone)) => (address, is_interface(zone)),
        None => (host, true),
    };
    zone_fits && address.parse::<Ipv6Addr>().is_ok()
}

/// The kernel takes any name for an interface that has no `/`, `:` or white space.
fn is_interface(zone: &str) -> bool {
    let fits = |c: char| !c.is_whitespace() && !matches!(c, '/' | ':' | ',' | '%');
    !zone.is_empty() && zone.chars().all(fits)
}

/// Looks up one server: its addresses, at least one.
///
/// # Errors
/// The text is no address, or the name is not known.
///
/// # Cancel safety
/// Safe: nothing is kept.
pub async fn look_up_one(server: &str) -> Result<Vec<SocketAddr>, LookUpError> {
    check(server)?;
    let asked = tokio::net::lookup_host(server);
    let found = match tokio::time::timeout(LOOK_UP_DEADLINE, asked).await {
        Ok(Ok(addrs)) => Ok(Vec::from_iter(addrs)),
        Ok(Err(e)) => Err(e),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer")),
    };
    let found = match found {
        Ok(addrs) if addrs.is_empty() => Err(io::Error::other("no address")),
        other => other,
    };
    found.map_err(|reason| LookUpError::Unknown {
        server: server.to_owned(),
        reason,
    })
}

/// Looks up all servers at the same time, so that one name without an answer holds up no
/// other. The result has their order.
///
/// # Cancel safety
/// Safe: nothing is kept.
pub async fn look_up(servers: &[String]) -> Vec<(String, Result<Vec<SocketAddr>, LookUpError>)> {
    let mut asked = JoinSet::new();
    for (n, server) in servers.iter().cloned().enumerate() {
        asked.spawn(async move {
            let found = look_up_one(&server).await;
            (n, server, found)
        });
    }
    let mut all = asked.join_all().await;
    all.sort_by_key(|(n, ..)| *n);
    all.into_iter()
        .map(|(_, server, found)| (server, found))
        .collect()
}
