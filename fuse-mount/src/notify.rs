//! Tells the kernel what it must forget.
//!
//! Two threads do nothing else, one for pages and one for attributes, since dropping pages may
//! wait for reads of the same inode. What must hold: no lock is held and no thread that
//! answers requests is used while the kernel works (docs/DESIGN.md "Sessions and coherence").

use fuser::{INodeNo, Notifier};
use lagan_client::{Forget, Invalidate};
use lagan_types::Ino;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::sync::oneshot;

/// Most invalidations that wait; the next sender waits itself.
const QUEUE: usize = 256;
/// How long a caller waits for the kernel before it goes on all the same.
const PATIENCE: Duration = Duration::from_secs(30);
/// FUSE_NOTIFY_INVAL_INODE of `enum fuse_notify_code` (linux/fuse.h).
const INVAL_INODE: i32 = 2;

/// An inode whose pages go, and the channel that hears of the end.
type Order = (u64, mpsc::SyncSender<()>);
/// Inodes whose attributes go, and the channel that receives those that the kernel does not
/// know.
type ForgetOrder = (Vec<Ino>, oneshot::Sender<Vec<Ino>>);

/// Starts the thread for pages. It ends when the returned function is dropped.
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

/// Starts the thread for attributes, which writes to a descriptor of the device of its own. It
/// ends when the returned function is dropped.
pub(crate) fn start_forgetting(device: OwnedFd) -> io::Result<Forget> {
    let (orders, queue) = mpsc::channel::<ForgetOrder>();
    let mut device = File::from(device);
    std::thread::Builder::new()
        .name("forget".into())
        .spawn(move || {
            for (inos, done) in queue {
                match forget_all(&mut device, inos) {
                    // Its caller may have gone.
                    Ok(unknown) => _ = done.send(unknown),
                    Err(error) => tracing::warn!(%error, "have the kernel forget attributes"),
                }
            }
        })?;
    Ok(Arc::new(move |inos| {
        let (done, unknown) = oneshot::channel();
        // If the thread is gone, so is the sender of what the caller waits for.
        let _ = orders.send((inos, done));
        unknown
    }))
}

/// Has the kernel forget these. Returns those that it does not know.
fn forget_all(device: &mut File, inos: Vec<Ino>) -> io::Result<Vec<Ino>> {
    let mut unknown = Vec::new();
    for ino in inos {
        if !forget(device, ino)? {
            unknown.push(ino);
        }
    }
    Ok(unknown)
}

/// Has the kernel ask again for the attributes of an inode, and drop what it keeps beside
/// them; its pages stay. Returns whether it knows the inode: the library does not say.
///
/// Attributes that are on their way to the kernel are discarded, if it asked for them before
/// (`fuse_reverse_inval_inode` in Linux' fs/fuse/inode.c: an offset below zero takes no lock; it
/// waits for an inode that is just being dropped from the cache).
fn forget(device: &mut File, ino: Ino) -> io::Result<bool> {
    let mut message = Vec::with_capacity(40);
    // struct fuse_out_header
    message.extend(40u32.to_ne_bytes());
    message.extend(INVAL_INODE.to_ne_bytes());
    message.extend(0u64.to_ne_bytes());
    // struct fuse_notify_inval_inode_out
    message.extend(ino.0.to_ne_bytes());
    message.extend((-1i64).to_ne_bytes());
    message.extend(0i64.to_ne_bytes());
    match device.write_all(&message) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        told => told.map(|()| true),
    }
}
