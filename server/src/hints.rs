//! The file `peers` in the data directory: addresses of the other servers when this one
//! ran last, one a line.
//!
//! It is only a hint of where to look for the leader, written some time after each
//! change of the map. The metadata's log names its members as well, as long as there is
//! a log.

use anyhow::{Context, Result};
use lagan_host::replace::{PRIVATE, replace_file};
use lagan_net::MapCell;
use lagan_types::NodeId;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Time between looks for a newer map: a server that dies sooner may find nobody when it
/// comes back at another address, and nobody finds it.
const LOOK: Duration = Duration::from_millis(250);

/// Notes where to look for the leader after a crash that comes before the first map.
///
/// # Errors
/// The disk's.
pub(crate) fn keep_first(dir: &Path, via: SocketAddr) -> Result<()> {
    replace_file(&hint_file(dir), via.to_string().as_bytes(), PRIVATE)
        .context("write peer addresses")
}

fn hint_file(dir: &Path) -> PathBuf {
    dir.join("peers")
}

/// Returns the addresses to ask for the leader: those of the hint file, then those of the
/// log's members, then this server's own.
pub(crate) fn servers_to_ask(
    dir: &Path,
    members: &BTreeMap<NodeId, String>,
    own: SocketAddr,
) -> Vec<SocketAddr> {
    let text = std::fs::read_to_string(hint_file(dir)).unwrap_or_default();
    let members = members.values().map(String::as_str);
    let known = text.lines().chain(members).filter_map(|l| l.parse().ok());
    let mut servers = Vec::new();
    for addr in known.chain([own]) {
        if !servers.contains(&addr) {
            servers.push(addr);
        }
    }
    servers
}

/// Writes the addresses of each new map, until `cancel`.
pub(crate) async fn keep(dir: PathBuf, map: Arc<MapCell>, cancel: CancellationToken) {
    let file = hint_file(&dir);
    let mut written = 0;
    loop {
        let map = map.get();
        if map.version != written {
            let lines: Vec<&str> = map.nodes.iter().map(|n| n.peer_addr.as_str()).collect();
            match replace_file(&file, lines.join("\n").as_bytes(), PRIVATE) {
                Ok(()) => written = map.version,
                Err(e) => tracing::warn!(error = %e, "write peer addresses"),
            }
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(LOOK) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addr(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn server_that_died_before_it_wrote_hints_asks_the_members() {
        let dir = tempfile::tempdir().expect("temp dir");
        let members = [(1, addr(1)), (2, addr(2)), (3, addr(3))]
            .map(|(node, addr)| (NodeId(node), addr.to_string()))
            .into();
        // It listens elsewhere now: nobody else can tell the others.
        let asked = servers_to_ask(dir.path(), &members, addr(9));
        assert_eq!(asked, [1, 2, 3, 9].map(addr));
        keep_first(dir.path(), addr(2)).expect("write");
        let asked = servers_to_ask(dir.path(), &members, addr(3));
        assert_eq!(asked, [2, 1, 3].map(addr));
        let asked = servers_to_ask(dir.path(), &BTreeMap::new(), addr(3));
        assert_eq!(asked, [2, 3].map(addr));
    }
}
