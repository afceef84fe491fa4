//! Why a mount could not start.

use lagan_host::servers::NotAnAddress;

/// A cluster that could not be mounted; the text says what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The text that was given for a server is not an address.
    #[error(transparent)]
    Address(NotAnAddress),
    /// None of the servers' names is known.
    #[error("no server is known by name: {names} ({reason}); is the name service reachable?")]
    UnknownNames {
        /// The names as they were given, with commas.
        names: String,
        /// The error of the last look-up.
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
        /// The servers that were asked.
        servers: String,
        /// Time for which they were asked.
        seconds: u64,
        /// The error of the last try.
        reason: String,
    },
    /// The servers answer but have no cluster yet.
    #[error("the servers have no cluster yet; run lagan init on the first of them")]
    NoCluster,
    /// The cluster has another volume.
    #[error("no volume {wanted:?} in this cluster; it has {found:?}")]
    NoSuchVolume {
        /// The volume that was asked for.
        wanted: String,
        /// The volume that the cluster has.
        found: String,
    },
    /// A server or the cluster said no.
    #[error("refused: {0}")]
    Refused(String),
}
