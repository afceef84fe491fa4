//! Tells the kernel which of its pages are stale.
//!
//! One thread does nothing else. What must hold: no lock is held and no thread
//! that answers requests is used while the kernel works, since it may wait for
//! reads of the same inode (docs/DESIGN.md "Sessions and coherence").

use fuser::{INodeNo, Notifier};
use lagan_client::Invalidate;
use std::io;
use std::sync::mpsc;
use std::time::Duration;

/// Most invalidations that wait; the next sender waits itself.
const QUEUE: usize = 256;
/// How long a caller waits for the kernel before it goes on all the same.
const PATIENCE: Duration = Duration::from_secs(30);

/// An inode whose pages go, and the channel that hears of the end.
type Order = (u64, mpsc::SyncSender<()>);

/// Starts the thread. It ends when the returned function is dropped.
///
/// The function blocks until the kernel is done, and returns false if that takes too
/// long. It never fails: an inode that the kernel does not know has no stale pages, and a
/// mount that is gone none at all.
pub(crate) fn start(
    notifier: Notifier,
) -> io::Result<Box<dyn Fn(Invalidate) -> bool + Send + Sync + 'static>> {
    let (orders, queue) = mpsc::sync_channel::<Order>(QUEUE);
    std::thread::Builder::new()
        .name("invalidate".into())
        .spawn(move || {
            for (ino, done) in queue {
                if let Err(e) = notifier.inval_inode(INodeNo(ino), 0, 0) {
                    tracing::debug!(ino, error = %e, "invalidate pages");
                }
                // Its caller may have lost patience.
                let _ = done.try_send(());
            }
        })?;
    Ok(Box::new(move |what| {
        let Invalidate::Data(ino) = what;
        let (done, end) = mpsc::sync_channel(1);
        if orders.send((ino.0, done)).is_ok()
            && let Err(mpsc::RecvTimeoutError::Timeout) = end.recv_timeout(PATIENCE)
        {
            tracing::warn!(ino = ino.0, "the kernel does not let go of stale pages");
            return false;
        }
        true
    }))
}
