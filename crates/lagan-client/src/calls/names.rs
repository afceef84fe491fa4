//! Names: lookup, make, link, unlink, rename. Each is one call to the leader.

use crate::Client;
use crate::options::NewInode;
use lagan_types::limits::NAME_LEN_MAX;
use lagan_types::op::{Create, Link, NewFile, Rename, Rmdir, Unlink};
use lagan_types::query::{Lookup, ReadLink};
use lagan_types::{Attr, FsError, Ino};

/// Checks a name before the leader is asked.
///
/// # Errors
/// [`FsError::NameTooLong`].
pub(super) fn check_name(name: &[u8]) -> Result<Vec<u8>, FsError> {
    if name.len() > NAME_LEN_MAX {
        return Err(FsError::NameTooLong);
    }
    Ok(name.to_vec())
}

impl Client {
    /// Finds the inode of a name.
    ///
    /// # Errors
    /// [`FsError::NotFound`], [`FsError::NotDirectory`], [`FsError::NameTooLong`],
    /// [`FsError::TimedOut`].
    pub async fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        let name = check_name(name)?;
        let until = self.leader.deadline();
        let query = Lookup { parent, name };
        let mut answer = self.leader.query_by(query.clone(), until).await;
        if let Err(error) = &answer {
            let touches = |f: &NewFile| f.parent == parent && f.name == query.name;
            if self.leader.make_unknown(*error, touches, until).await {
                answer = self.leader.query_by(query, until).await;
            }
        }
        Ok(self.show(answer?).await)
    }

    /// mknod(2), mkdir(2), symlink(2).
    ///
    /// # Errors
    /// [`FsError::Exists`] and those of [`Client::lookup`].
    pub async fn make(&self, parent: Ino, name: &[u8], new: NewInode) -> Result<Attr, FsError> {
        let op = create_op(parent, name, new, true)?;
        let made = self.leader.mutate(op).await?;
        Ok(self.show(made.attr).await)
    }

    /// Reads a symbolic link's target. Moves its access time.
    ///
    /// # Errors
    /// [`FsError::Invalid`] for anything else.
    pub async fn readlink(&self, ino: Ino) -> Result<Vec<u8>, FsError> {
        let target = self.leader.query(ReadLink { ino }).await?;
        self.accesses.note_known(ino);
        Ok(target)
    }

    /// link(2).
    ///
    /// # Errors
    /// [`FsError::Exists`], [`FsError::TooManyLinks`], [`FsError::NotPermitted`]
    /// for a directory, and those of [`Client::lookup`].
    pub async fn link(&self, ino: Ino, parent: Ino, name: &[u8]) -> Result<Attr, FsError> {
        let name = check_name(name)?;
        let attr = self.leader.mutate(Link { ino, parent, name }).await?;
        Ok(self.show(attr).await)
    }

    /// unlink(2). An inode that is open somewhere stays readable.
    ///
    /// # Errors
    /// [`FsError::IsDirectory`] and those of [`Client::lookup`].
    pub async fn unlink(&self, parent: Ino, name: &[u8]) -> Result<(), FsError> {
        let name = check_name(name)?;
        self.leader
            .mutate(Unlink { parent, name })
            .await
            .map(|_| ())
    }

    /// rmdir(2).
    ///
    /// # Errors
    /// [`FsError::NotEmpty`] and those of [`Client::lookup`].
    pub async fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<(), FsError> {
        let name = check_name(name)?;
        self.leader.mutate(Rmdir { parent, name }).await.map(|_| ())
    }

    /// renameat2(2).
    ///
    /// # Errors
    /// [`FsError::Exists`] under `no_replace`, [`FsError::Invalid`] for a
    /// directory into itself, [`FsError::NotEmpty`], and those of [`Client::lookup`].
    pub async fn rename(
        &self,
        parent: Ino,
        name: &[u8],
        new_parent: Ino,
        new_name: &[u8],
        no_replace: bool,
        exchange: bool,
    ) -> Result<(), FsError> {
        let op = Rename {
            parent,
            name: check_name(name)?,
            new_parent,
            new_name: check_name(new_name)?,
            no_replace,
            exchange,
        };
        self.leader.mutate(op).await.map(|_| ())
    }
}

/// The mutation that makes an inode.
pub(super) fn create_op(
    parent: Ino,
    name: &[u8],
    new: NewInode,
    exclusive: bool,
) -> Result<Create, FsError> {
    Ok(Create {
        parent,
        name: check_name(name)?,
        kind: new.kind,
        mode: new.mode,
        umask: new.umask,
        uid: new.uid,
        gid: new.gid,
        rdev: new.rdev,
        target: new.target,
        exclusive,
    })
}
