//! open, create, release.

use crate::Client;
use crate::calls::names::{create_op, masked_op};
use crate::file::inode::Inode;
use crate::file::map::FileMap;
use crate::options::{NewInode, OpenOptions, Opened};
use lagan_types::op::SetAttr;
use lagan_types::{Answer, Attr, FsError, Ino, Kind, Op, Query, QueryAnswer};
use std::sync::Arc;

impl Client {
    /// Opens a regular file.
    ///
    /// # Errors
    /// [`FsError::Stale`] if it is gone, [`FsError::TimedOut`].
    pub async fn open(&self, ino: Ino, open: OpenOptions) -> Result<Opened, FsError> {
        // Counted from here on, so that the leader is not told that it is closed.
        let pin = Pin::new(self, ino);
        let attr = if open.truncate {
            self.open_truncated(&pin.inode, open.kill_suid).await?
        } else {
            self.open_at_leader(&pin.inode).await?
        };
        Ok(self.opened(pin, &attr, open, false).await)
    }

    async fn open_truncated(&self, inode: &Arc<Inode>, kill_suid: bool) -> Result<Attr, FsError> {
        let until = self.leader.deadline();
        let _ = self.flush_inode(inode, until).await;
        let op = Op::SetAttr {
            ino: inode.ino,
            set: SetAttr {
                size: Some(0),
                kill_suid,
                ..SetAttr::default()
            },
        };
        match self.leader.mutate_by(op, None, until).await? {
            Answer::Attr(attr) => {
                let mut state = inode.state.lock();
                if attr.size == 0 {
                    state.learn_map(FileMap::empty(attr.version, 0));
                }
                state.learn(&attr);
                Ok(attr)
            }
            _ => Err(FsError::Malformed),
        }
    }

    async fn open_at_leader(&self, inode: &Arc<Inode>) -> Result<Attr, FsError> {
        let ino = inode.ino;
        let answer = match self.leader.query(Query::Open { ino }).await {
            // Unlinked, but open here already: /proc/self/fd can open it again.
            Err(FsError::Stale) if self.files.opens(ino) > 1 => {
                self.leader.query(Query::GetAttr { ino }).await?
            }
            other => other?,
        };
        let mut state = inode.state.lock();
        let mut attr = match answer {
            QueryAnswer::Opened {
                attr,
                extents,
                more,
            } => {
                state.learn_map(FileMap::page(attr.version, attr.size, 0, extents, more));
                attr
            }
            QueryAnswer::Attr(attr) => attr,
            _ => return Err(FsError::Malformed),
        };
        self.accesses.shown(&mut attr);
        state.learn(&attr);
        Ok(attr)
    }

    /// Makes a regular file and opens it; without `exclusive` one that is
    /// there is opened, if it is clear that the caller may do so.
    ///
    /// The kernel asks for this where it has found nothing under the name, and checks
    /// no permission afterwards. What another mount has made there meanwhile it must
    /// look at itself: [`FsError::Stale`] makes it begin again, once, with a lookup
    /// (`do_filp_open` in Linux' fs/namei.c).
    ///
    /// # Errors
    /// [`FsError::Exists`], [`FsError::IsDirectory`], [`FsError::Stale`], and those of
    /// [`Client::make`].
    pub async fn create(
        &self,
        parent: Ino,
        name: &[u8],
        new: NewInode,
        exclusive: bool,
        open: OpenOptions,
    ) -> Result<(Attr, Opened), FsError> {
        let under_way = self.leader.creates().begin();
        let caller = new.uid;
        let masked = masked_op(parent, name, &new, exclusive)?;
        let op = create_op(parent, name, new, exclusive)?;
        let (answer, promised) = match self
            .leader
            .create_or_promise(op, self.leader.deadline())
            .await
        {
            Err(FsError::DefaultAcl) => (self.leader.mutate(masked).await?, false),
            other => other?,
        };
        let Answer::Created { mut attr, created } = answer else {
            return Err(FsError::Malformed);
        };
        if !created && !may_open(&attr, caller, open) {
            return Err(FsError::Stale);
        }
        let pin = Pin::new(self, attr.ino);
        drop(under_way);
        if promised && self.leader.promise_of(attr.ino).is_none() {
            // The session ended, or the name was lost, before there was a handle to tell it to.
            self.leader.query(Query::GetAttr { ino: attr.ino }).await?;
        }
        if created {
            let mut state = pin.inode.state.lock();
            state.learn_map(FileMap::empty(attr.version, 0));
            state.learn(&attr);
        } else if open.truncate && attr.size > 0 {
            attr = self.open_truncated(&pin.inode, open.kill_suid).await?;
        }
        // The first write asks, and must not make a promised name known.
        self.lists.answered(&attr);
        self.accesses.shown(&mut attr);
        attr = pin.inode.state.lock().merged(attr);
        let opened = self.opened(pin, &attr, open, true).await;
        Ok((attr, opened))
    }

    async fn opened(&self, pin: Pin<'_>, attr: &Attr, open: OpenOptions, shown: bool) -> Opened {
        let (same, evicted) = self.pages.opened(attr, shown);
        if let Some(ino) = evicted {
            // if not now, then at its next open: it is not known any more
            let _ = self.invalidate(ino).await;
        }
        let direct_io = open.append || open.direct;
        // Of reads of pages that the kernel keeps nothing is heard here.
        let hear = open.read && !open.no_atime && self.accesses.is_due(attr);
        Opened {
            fh: self.files.insert(pin.keep(), open),
            direct_io,
            keep_cache: same && !direct_io && !hear,
        }
    }

    /// The last descriptor of a handle is gone. What a mapping wrote after the
    /// last flush is committed; drops the flock(2) lock of that owner, and locks
    /// that belong to the open file description.
    pub async fn release(&self, fh: u64, flock_owner: Option<u64>) {
        let Some(handle) = self.files.remove(fh) else {
            return;
        };
        let ino = handle.inode.ino;
        let until = self.leader.deadline();
        if let Err(error) = self.flush_inode(&handle.inode, until).await {
            tracing::warn!(%ino, fh, %error, "data written after the last flush is lost");
        }
        let mut owners = self.leader.locks().closed(fh);
        owners.extend(flock_owner);
        for owner in owners {
            self.drop_locks(ino, owner, until).await;
        }
        self.unpin(ino);
    }

    /// An open ends. What the last one leaves unflushed has failed already;
    /// its room is free again.
    pub(crate) fn unpin(&self, ino: Ino) {
        if let Some(inode) = self.files.unpin(ino) {
            self.leader.give_up_promise(ino);
            let freed = inode.state.lock().discard();
            if freed > 0 {
                self.pages.lost(ino);
            }
            self.give_back(freed);
        }
    }
}

/// Whether it is clear without the kernel that a user may open what is there: as
/// root, or as the owner, for whom ACLs do not count (acl(5)).
fn may_open(attr: &Attr, uid: u32, open: OpenOptions) -> bool {
    let bits = attr.permissions() >> 6;
    let reads = !open.read || bits & 4 != 0;
    let writes = !(open.write || open.append || open.truncate) || bits & 2 != 0;
    attr.kind == Kind::File && (uid == 0 || (uid == attr.uid && reads && writes))
}

/// An inode that counts as open; closed again when dropped, unless kept.
pub(crate) struct Pin<'a> {
    client: &'a Client,
    inode: Arc<Inode>,
    kept: bool,
}

impl<'a> Pin<'a> {
    /// Counts an open of the inode.
    pub(crate) fn new(client: &'a Client, ino: Ino) -> Self {
        Pin {
            client,
            inode: client.files.pin(ino),
            kept: false,
        }
    }

    /// From here on a handle counts.
    fn keep(mut self) -> Arc<Inode> {
        self.kept = true;
        self.inode.clone()
    }
}

impl Drop for Pin<'_> {
    fn drop(&mut self) {
        if !self.kept {
            self.client.unpin(self.inode.ino);
        }
    }
}
