//! The leader storey: what a mount says to the metadata leader, and what it knows of the cluster.
//!
//! ```text
//!        ask (mutate, query), open   make (promises)   ids (chunk ids)   heartbeat, recalls
//!                  |      \              |                |              |
//!                  |       renew --------+----------------+              |
//!                  v                                                     v
//!   session, window   leases, kernel   promises   creates   lock_owners   id_blocks   cluster, placement
//!                     looks, groups
//!                  |                                                     |
//!                  +---------------------- link -------------------------+--> servers
//! ```
//!
//! The lower row are tables that do no I/O; the upper row are [`Leader`]'s methods
//! over them. This storey uses no other one. Upwards it speaks through
//! [`OpenFiles`] alone, which the file storey implements.

use crate::Options;
use crate::leader::cluster::Cluster;
use crate::leader::creates::Creates;
use crate::leader::groups::Groups;
use crate::leader::id_blocks::IdBlocks;
use crate::leader::kernel::Kernel;
use crate::leader::leases::Leases;
use crate::leader::link::Link;
use crate::leader::lock_owners::LockOwners;
use crate::leader::open_files::OpenFiles;
use crate::leader::promises::Promises;
use crate::leader::session::Session;
use crate::tasks::Tasks;
use lagan_types::SessionId;
use std::sync::{Arc, Weak};
use tokio::time::Instant;

mod ask;
pub(crate) mod brought;
pub(crate) mod cluster;
pub(crate) mod connect;
pub(crate) mod creates;
mod groups;
mod heartbeat;
mod id_blocks;
pub(crate) mod ids;
pub(crate) mod kernel;
pub(crate) mod leases;
pub(crate) mod link;
pub(crate) mod lock_owners;
mod looks;
mod make;
mod open;
pub(crate) mod open_files;
pub(crate) mod placement;
pub(crate) mod promises;
mod recalls;
mod renew;
pub(crate) mod session;
mod window;

#[cfg(test)]
pub(crate) mod fake;
#[cfg(test)]
mod tests;

/// A session with a cluster: all that is asked of the leader goes through it.
pub(crate) struct Leader {
    me: Weak<Leader>,
    files: Weak<dyn OpenFiles>,
    tasks: Arc<Tasks>,
    options: Options,
    link: Arc<Link>,
    cluster: Cluster,
    session: Session,
    ids: IdBlocks,
    leases: Arc<Leases>,
    kernel: Arc<Kernel>,
    promises: Promises,
    creates: Creates,
    /// Names that are looked for ahead.
    looks: Groups,
    /// Files that are opened ahead.
    opens: Groups,
    /// Promised files that are being made.
    making: Groups,
    locks: LockOwners,
}

impl Leader {
    /// When a call that starts now must have ended.
    pub fn deadline(&self) -> Instant {
        Instant::now() + self.options.timeout
    }

    /// This mount's session. It changes when the old one was ended.
    pub fn session(&self) -> SessionId {
        self.session.id()
    }

    /// The connections to the servers.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// The cluster map, and which nodes are distrusted.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// What may be remembered.
    pub fn leases(&self) -> &Leases {
        &self.leases
    }

    /// The kernel, as far as it is lent anything.
    pub fn kernel(&self) -> &Kernel {
        &self.kernel
    }

    /// The creates under way.
    pub fn creates(&self) -> &Creates {
        &self.creates
    }

    /// The owners that may hold locks in this session.
    pub fn locks(&self) -> &LockOwners {
        &self.locks
    }
}
