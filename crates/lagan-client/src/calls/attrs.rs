//! Attributes: getattr, setattr, and pages that the kernel must drop before it sees them.

use crate::Client;
use crate::file::pages::Seen;
use crate::leader::link::fs_error;
use crate::options::{Caller, Invalidate};
use lagan_lease::{KERNEL_MS, Way};
use lagan_types::op::{SetAttr, SetAttrs};
use lagan_types::query::GetAttr;
use lagan_types::{Attr, FsError, Ino, Kind};
use std::time::Duration;

/// How long attributes wait for the kernel to drop pages. It waits for reads of them that
/// are under way, and these may wait for servers or S3; so this ends, and the next look
/// has the pages dropped again.
const INVALIDATE_WAIT: Duration = Duration::from_secs(10);

impl Client {
    /// An inode's attributes, with the effect of what this mount wrote and has not committed.
    ///
    /// # Errors
    /// [`FsError::NotFound`] or [`FsError::Stale`] if it is gone, [`FsError::TimedOut`].
    pub async fn getattr(&self, ino: Ino) -> Result<Attr, FsError> {
        if let Some(inode) = self.files.table().inode(ino)
            && inode.has_appends()
        {
            // An error is told by the flush of the handle that wrote.
            let _ = self.files.flush_inode(&inode, self.leader.deadline()).await;
        }
        let until = self.leader.deadline();
        let mut answer = self.leader.query_by(GetAttr { ino }, until).await;
        if let Err(error) = &answer
            && self
                .leader
                .make_unknown(*error, |f| f.ino == ino, until)
                .await
        {
            answer = self.leader.query_by(GetAttr { ino }, until).await;
        }
        Ok(self.show(answer?).await)
    }

    /// Lends attributes, which are about to be answered, to the kernel. Returns how long it may
    /// believe them; zero: it asks each time. `named`: they answer a look-up of that
    /// name in that directory. The answer must wait for nothing from here on.
    pub fn lend(&self, attr: &Attr, named: Option<(Ino, &[u8])>) -> Duration {
        let way = named.map_or(Way::Attributes, |(dir, name)| Way::Name(dir, name));
        let lent = self.leader.kernel().can_forget() && self.leader.leases().lend(attr, way);
        Duration::from_millis(if lent { KERNEL_MS } else { 0 })
    }

    /// chmod, chown, truncate, utimens, after what was written before.
    ///
    /// # Errors
    /// [`FsError::FileTooLarge`], [`FsError::Invalid`], and those of [`Client::getattr`].
    pub async fn setattr(
        &self,
        caller: Caller,
        ino: Ino,
        mut set: SetAttr,
    ) -> Result<Attr, FsError> {
        set.kill_suid |= set.size.is_some() && !caller.privileged();
        let attr = match self.files.set_alone(ino, &set).await {
            Some(attr) => attr,
            None => self.set_by_leader(ino, set).await?,
        };
        self.no_acl.answered(&attr);
        let attr = self.merged(attr).await;
        self.files.pages().answered_set(&attr);
        Ok(attr)
    }

    async fn set_by_leader(&self, ino: Ino, set: SetAttr) -> Result<Attr, FsError> {
        let until = self.leader.deadline();
        if let Some(inode) = self.files.table().inode(ino) {
            // Later, the flush would change size, times and mode again.
            let _ = self.files.flush_inode(&inode, until).await;
        }
        let op = SetAttrs { ino, set };
        let attr = self.leader.mutate_by(op, None, until).await;
        attr.map_err(fs_error)
    }

    /// chown(2) that names no owner, or what the kernel sends when a write takes
    /// setuid away; it does not say which. Only what the owner may do is done:
    /// a write by others clears setuid with its commit.
    ///
    /// # Errors
    /// Those of [`Client::setattr`].
    pub async fn change_nothing(&self, caller: Caller, ino: Ino) -> Result<Attr, FsError> {
        let attr = self.getattr(ino).await?;
        if !caller.privileged() && attr.uid != caller.uid {
            return Ok(attr);
        }
        let set = SetAttr {
            kill_suid: true,
            ..SetAttr::default()
        };
        self.setattr(caller, ino, set).await
    }

    /// Makes attributes from the leader ready for the kernel: merged with
    /// unflushed writes, and after stale pages are gone.
    pub(super) async fn show(&self, attr: Attr) -> Attr {
        self.no_acl.answered(&attr);
        let attr = self.merged(attr).await;
        if attr.kind == Kind::File
            && let Seen::Stale(doubt) = self.files.pages().answered(&attr)
            && self.invalidate(attr.ino).await
        {
            self.files.pages().dropped(&attr, doubt);
        }
        attr
    }

    /// Puts over them what was written here and is not committed, and reads that are
    /// not told yet.
    async fn merged(&self, mut attr: Attr) -> Attr {
        self.accesses.shown(&mut attr);
        match self.files.table().inode(attr.ino) {
            Some(inode) if attr.kind == Kind::File => {
                // Late is better than never: the size is right at the latest after the flush.
                let _ = inode.settled(attr.version, self.leader.deadline()).await;
                inode.merged(attr)
            }
            _ => attr,
        }
    }

    /// Has the kernel drop the inode's pages and waits until it did; false: it has not.
    pub(super) async fn invalidate(&self, ino: Ino) -> bool {
        let Some(tell) = self.invalidator.read().clone() else {
            return true;
        };
        let told = tokio::task::spawn_blocking(move || tell(Invalidate::Data(ino)));
        match tokio::time::timeout(INVALIDATE_WAIT, told).await {
            Ok(Ok(gone)) => return gone,
            Ok(Err(error)) => tracing::error!(%ino, %error, "invalidate pages"),
            Err(_) => tracing::warn!(%ino, "pages are not invalidated yet"),
        }
        false
    }
}
