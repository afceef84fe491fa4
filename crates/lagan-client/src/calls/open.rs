//! open and create.

use crate::Client;
use crate::calls::names::create_op;
use crate::file::inode::Inode;
use crate::file::map::FileMap;
use crate::file::pin::Pin;
use crate::leader::link::fs_error;
use crate::options::{NewInode, OpenOptions, Opened};
use lagan_types::answer::Created;
use lagan_types::op::{SetAttr, SetAttrs};
use lagan_types::query::GetAttr;
use lagan_types::{Attr, FsError, Ino, Kind};
use std::sync::Arc;

impl Client {
    /// Opens a regular file.
    ///
    /// # Errors
    /// [`FsError::Stale`] if it is gone, [`FsError::TimedOut`].
    pub async fn open(&self, ino: Ino, open: OpenOptions) -> Result<Opened, FsError> {
        // It counts from here on, so that the leader is not told that it is closed.
        let pin = Pin::new(&self.files, ino);
        let attr = if open.truncate {
            self.open_truncated(pin.inode(), open.kill_suid).await?
        } else {
            self.open_at_leader(pin.inode(), open.read).await?
        };
        Ok(self.opened(pin, &attr, open, false).await)
    }

    async fn open_truncated(&self, inode: &Arc<Inode>, kill_suid: bool) -> Result<Attr, FsError> {
        let until = self.leader.deadline();
        let _ = self.files.flush_inode(inode, until).await;
        let op = SetAttrs {
            ino: inode.ino,
            set: SetAttr {
                size: Some(0),
                kill_suid,
                ..SetAttr::default()
            },
        };
        let cut = self.leader.mutate_by(op, None, until).await;
        let attr = cut.map_err(fs_error)?;
        if attr.size == 0 {
            inode.learn_both(&attr, FileMap::empty(attr.version, 0));
        } else {
            inode.learn(&attr);
        }
        Ok(attr)
    }

    async fn open_at_leader(&self, inode: &Arc<Inode>, reads: bool) -> Result<Attr, FsError> {
        let ino = inode.ino;
        // Who has it open has what is read of it, or soon will.
        let reads = reads && self.files.table().opens(ino) == 1;
        let (mut attr, page) = match self.leader.open(ino, reads).await {
            // It is unlinked, but open here already: /proc/self/fd can open it again.
            Err(FsError::Stale) if self.files.table().opens(ino) > 1 => {
                (self.leader.query(GetAttr { ino }).await?, None)
            }
            Err(error) => return Err(error),
            Ok(found) => {
                let attr = found.attr;
                let page = FileMap::page(attr.version, attr.size, 0, found.extents, found.more);
                (attr, Some(page))
            }
        };
        self.accesses.shown(&mut attr);
        match page {
            Some(page) => inode.learn_both(&attr, page),
            None => inode.learn(&attr),
        }
        Ok(attr)
    }

    /// Makes a regular file and opens it; without `exclusive` one that is
    /// there is opened, if it is clear that the caller may do so.
    ///
    /// The kernel asks for this where it has found nothing under the name, and checks
    /// no permission afterwards. It must look itself at a file that another mount has
    /// made there meanwhile: [`FsError::Stale`] makes it begin again, once, with a lookup
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
        let op = create_op(parent, name, new, exclusive)?;
        let until = self.leader.deadline();
        let (made, promised) = self.leader.create_or_promise(op, until).await?;
        let Created { mut attr, created } = made;
        if !created && !may_open(&attr, caller, open) {
            return Err(FsError::Stale);
        }
        let pin = Pin::new(&self.files, attr.ino);
        drop(under_way);
        if promised && self.leader.promise_of(attr.ino).is_none() {
            // The session ended, or the name was lost, before there was a handle to tell it to.
            self.leader.query(GetAttr { ino: attr.ino }).await?;
        }
        if created {
            let page = FileMap::empty(attr.version, 0);
            pin.inode().learn_both(&attr, page);
        } else if open.truncate && attr.size > 0 {
            attr = self.open_truncated(pin.inode(), open.kill_suid).await?;
        }
        // The first write asks, and must not make a promised name known.
        self.no_acl.answered(&attr);
        self.accesses.shown(&mut attr);
        attr = pin.inode().merged(attr);
        let opened = self.opened(pin, &attr, open, true).await;
        Ok((attr, opened))
    }

    async fn opened(&self, pin: Pin<'_>, attr: &Attr, open: OpenOptions, shown: bool) -> Opened {
        let (same, evicted) = self.files.pages().opened(attr, shown);
        if let Some(ino) = evicted {
            // If they do not go now, they go at its next open: it is not known any more.
            let _ = self.invalidate(ino).await;
        }
        let direct_io = open.append || open.direct;
        // This mount does not hear of reads of pages that the kernel keeps.
        let hear = open.read && !open.no_atime && self.accesses.is_due(attr);
        Opened {
            fh: pin.keep(open),
            direct_io,
            keep_cache: same && !direct_io && !hear,
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
