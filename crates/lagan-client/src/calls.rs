//! The calls storey: what a mount can be asked to do, each call of the kernel one method.
//!
//! ```text
//!   names  attrs  xattrs  dirs  locks  open, close  io  copy  space  access
//!     |      |      |       |     |        |         |    |     |      |
//!     +------+------+-------+-----+--------+---------+----+-----+------+
//!                  file, leader (and chunks, below them)
//! ```
//!
//! [`Client`] owns what only calls need: directories that are open
//! (`open_dirs.rs`), reads that move an access time (`accesses.rs`), inodes
//! without an access control list (`no_acl.rs`), and the way to the kernel's caches.

use crate::calls::accesses::Accesses;
use crate::calls::no_acl::NoAcl;
use crate::calls::open_dirs::OpenDirs;
use crate::file::Files;
use crate::leader::Leader;
use crate::options::{Forget, Invalidate};
use crate::tasks::Tasks;
use lagan_types::SessionId;
use parking_lot::RwLock;
use std::sync::Arc;

mod access;
mod accesses;
mod attrs;
mod close;
pub(crate) mod copy;
mod dirs;
mod io;
mod life;
pub(crate) mod locks;
mod names;
mod no_acl;
mod open;
mod open_dirs;
mod space;
mod xattrs;

type Invalidator = Arc<dyn Fn(Invalidate) -> bool + Send + Sync>;

/// The file system of one mount.
///
/// It is shared by all tasks. No call blocks a thread; each ends within
/// [`crate::Options::timeout`]. Dropping a call's future gives it up: a mutation
/// that was under way may still happen.
pub struct Client {
    leader: Arc<Leader>,
    files: Arc<Files>,
    tasks: Arc<Tasks>,
    dirs: OpenDirs,
    no_acl: NoAcl,
    accesses: Accesses,
    invalidator: RwLock<Option<Invalidator>>,
}

impl Client {
    /// Sets what is called when the kernel must forget something: on a thread
    /// of its own, with no lock held; it may block. The call that found out
    /// waits for it. It returns whether the kernel did forget.
    pub fn on_invalidate(&self, tell: Box<dyn Fn(Invalidate) -> bool + Send + Sync>) {
        *self.invalidator.write() = Some(Arc::from(tell));
    }

    /// Sets how the kernel is told to forget attributes. Without it nothing is lent.
    pub fn on_forget(&self, forget: Forget) {
        self.leader.kernel().forgets_by(forget);
    }

    /// Notes that nothing is mounted any more, and nothing lent.
    pub fn unmounted(&self) {
        self.leader.kernel().gone();
    }

    /// This mount's session. It changes when the old one was ended.
    pub fn session(&self) -> SessionId {
        self.leader.session()
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("session", &self.session())
            .finish_non_exhaustive()
    }
}
