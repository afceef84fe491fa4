//! The file system as the kernel sees it: FUSE requests become calls of
//! [`lagan_client::Client`], results become replies.
//!
//! These must hold: the kernel never gets a time-out for names, and for attributes only
//! what [`lagan_client::Client::lend`] says; every request is answered, and within the mount's
//! `timeout`, except a lock that waits; no thread of the FUSE library waits for anything.

mod adapter;
mod call;
mod convert;
mod dir;
mod lent;
mod opens;
mod parked;
mod profile;
mod reply;

use crate::config::MountConfig;
use call::Runner;
use fuser::{InitFlags, KernelConfig};
use lagan_client::Client;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::sync::Notify;

/// Most bytes of one WRITE or READ: 256 pages, which the kernel allows by default.
const WRITE_LEN_MAX: u32 = 1 << 20;
/// Time that a request gets beyond the client's own deadline before it is refused.
const NET: Duration = Duration::from_secs(5);

/// State of the adapter.
pub(crate) struct LaganFs {
    client: Arc<Client>,
    runner: Runner,
    dirs: Arc<dir::Dirs>,
    opens: Arc<opens::OpenFiles>,
    options: FsOptions,
}

/// Settings that the kernel gets at the start.
struct FsOptions {
    max_background: u16,
    read_ahead_bytes: u64,
    local_locks: bool,
    readdirplus: bool,
}

impl LaganFs {
    /// A file system over an open session. `loop_ended` is notified when a
    /// thread that takes requests from the kernel ends, for whatever reason.
    pub(crate) fn new(
        client: Arc<Client>,
        runtime: Handle,
        config: &MountConfig,
        loop_ended: Arc<Notify>,
    ) -> Self {
        LaganFs {
            dirs: Arc::new(dir::Dirs::new(client.clone())),
            opens: Arc::default(),
            runner: Runner::new(runtime, config.timeout + NET, loop_ended),
            options: FsOptions {
                max_background: config.max_background,
                read_ahead_bytes: config.read_ahead_bytes,
                local_locks: config.local_locks,
                readdirplus: config.readdirplus,
            },
            client,
        }
    }

    /// Agrees with the kernel on the tasks of each side.
    fn negotiate(&self, kernel: &mut KernelConfig) {
        let mut wanted = vec![
            // The kernel drops pages when size or mtime changed; the client reports the rest.
            InitFlags::FUSE_AUTO_INVAL_DATA,
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            InitFlags::FUSE_ASYNC_DIO,
            // The state machine clears setuid and setgid, in the same commit.
            InitFlags::FUSE_HANDLE_KILLPRIV_V2,
            // The kernel checks permissions, with access control lists. The mode of
            // a new entry is our task, since a default list takes the umask's place.
            InitFlags::FUSE_POSIX_ACL,
            InitFlags::FUSE_DONT_MASK,
            // The target of a link never changes, and inode numbers are not used again.
            InitFlags::FUSE_CACHE_SYMLINKS,
        ];
        if !self.options.local_locks {
            wanted.push(InitFlags::FUSE_POSIX_LOCKS);
            wanted.push(InitFlags::FUSE_FLOCK_LOCKS);
        }
        if self.options.readdirplus {
            wanted.push(InitFlags::FUSE_DO_READDIRPLUS);
            wanted.push(InitFlags::FUSE_READDIRPLUS_AUTO);
        }
        for flag in wanted {
            if kernel.add_capabilities(flag).is_err() {
                tracing::warn!(?flag, "this kernel lacks a FUSE capability");
            }
        }
        // Each setter answers with the nearest value that is allowed.
        if let Err(most) = kernel.set_max_write(WRITE_LEN_MAX) {
            let _ = kernel.set_max_write(most);
        }
        let read_ahead = u32::try_from(self.options.read_ahead_bytes).unwrap_or(u32::MAX);
        if let Err(most) = kernel.set_max_readahead(read_ahead) {
            let _ = kernel.set_max_readahead(most);
        }
        let _ = kernel.set_max_background(self.options.max_background);
    }
}
