//! Why a mount could not start.

use lagan_host::servers::NotAnAddress;

/// A cluster that could not be mounted; the text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// What was given for a server is not an address.
    #[error(transparent)]
    Address(NotAnAddress),
    /// None of the servers' names is known.
    #[error("no server is known by name: {names} ({reason}); is the name service reachable?")]
    UnknownNames {
        /// As given, with commas.
        names: String,
        /// What the last look said.
        reason: String,
    },
    /// No server was named.
    #[error("no server named; give at least one as ip:port or name:port")]
    NoServers,
    /// No server answered as leader in time.
    #[error(
        "no answer from {servers} within {seconds} s ({reason}); are the servers running and reachable?"
    )]
    NoAnswer {
        /// Who was asked.
        servers: String,
        /// For how long.
        seconds: u64,
        /// What the last try said.
        reason: String,
    },
    /// The servers answer but have no cluster yet.
    #[error("the servers have no cluster yet; run lagan init on the first of them")]
    NoCluster,
    /// The cluster has another volume.
    #[error("no volume {wanted:?} in this cluster; it has {found:?}")]
    NoSuchVolume {
        /// As asked for.
        wanted: String,
        /// What is there.
        found: String,
    },
    /// A server or the cluster said no.
    #[error("refused: {0}")]
    Refused(String),
}
