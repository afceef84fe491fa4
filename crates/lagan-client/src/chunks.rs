//! The chunks storey: the bytes of chunks, to the servers and back.
//!
//! ```text
//!   store (a piece becomes a chunk)     range --> fetch (any replica, verified) --> report
//!             |                           |          |                                |
//!             |                           |          +-- blocks, units (tables)       |
//!             |                           +--> recall (the archived object)           |
//!             v                                      v                                v
//!          leader: chunk ids, cluster map, which nodes are distrusted, links to the servers
//! ```
//!
//! This storey knows no file: a caller names the file and the offset only so that
//! a server can look whether a bad replica is still wanted, and so that the
//! object of that file can stand in. It uses the leader storey and no other.

use crate::chunks::blocks::BlockCache;
use crate::chunks::pause::InlinePause;
use crate::chunks::units::Units;
use crate::leader::Leader;
use crate::leader::brought::Brought;
use crate::tasks::Tasks;
use lagan_types::limits::ALONG_LEN_MAX;
use std::sync::{Arc, Weak};
use tokio::sync::Semaphore;

pub(crate) mod blocks;
mod fetch;
mod inline;
mod pause;
pub(crate) mod piece;
pub(crate) mod range;
mod recall;
mod report;
pub(crate) mod spec;
mod store;
mod units;

#[cfg(test)]
mod tests;

/// Chunks on their way to servers at the same time.
const SENDS_MAX: usize = 32;
/// Units fetched ahead at the same time.
const AHEAD_MAX: usize = 16;

/// The bytes of chunks.
pub(crate) struct Chunks {
    me: Weak<Chunks>,
    leader: Arc<Leader>,
    tasks: Arc<Tasks>,
    /// Verified bytes, kept for readers.
    blocks: BlockCache,
    /// Whole units that are being fetched.
    units: Units,
    /// Room for chunks on their way to servers.
    sends: Semaphore,
    /// Room for units that are fetched ahead.
    ahead: Arc<Semaphore>,
    /// Whether bytes may come with commits.
    inline: InlinePause,
}

impl Chunks {
    /// Builds the storey over `leader`; it keeps at most that many bytes for readers.
    pub fn new(leader: Arc<Leader>, tasks: Arc<Tasks>, cache_bytes: usize) -> Arc<Chunks> {
        Arc::new_cyclic(|me| Chunks {
            me: me.clone(),
            leader,
            tasks,
            blocks: BlockCache::new(cache_bytes),
            units: Units::default(),
            sends: Semaphore::new(SENDS_MAX),
            ahead: Arc::new(Semaphore::new(AHEAD_MAX)),
            inline: InlinePause::default(),
        })
    }

    /// Keeps whole chunks for readers; those that are damaged are not, and whoever reads
    /// them finds that out.
    pub fn keep_brought(&self, brought: Vec<Brought>) {
        for Brought { id, crc, bytes } in brought {
            if bytes.len() <= ALONG_LEN_MAX as usize && crc32fast::hash(&bytes) == crc {
                self.blocks.put(id, 0, bytes);
            }
        }
    }
}
