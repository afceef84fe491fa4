//! Extended attributes, stored ones and those that show where a file is.
//!
//! `user.lagan.state`, `.object` and `.copies` of regular files can be read;
//! they are not listed, so that copies do not carry them, and cannot be set.

use crate::Client;
use lagan_types::attr::CAPABILITY;
use lagan_types::limits::{EXTENTS_PAGE_MAX, XATTR_NAME_LEN_MAX, XATTR_VALUE_LEN_MAX};
use lagan_types::op::{FileOp, RemoveXattr, SetListAsOther, SetXattr, XattrMode};
use lagan_types::query::{Extents, File, GetAttr, GetXattr, ListXattr};
use lagan_types::{Answer, Ask, Content, Extent, FsError, Ino, Kind};
use tokio::time::Instant;

const OWN: &[u8] = b"user.lagan.";
/// The list that permission bits follow.
const ACCESS: &[u8] = b"system.posix_acl_access";

/// Whether the kernel asks for it whenever it checks the permissions of somebody
/// who is not the owner.
fn is_acl(name: &[u8]) -> bool {
    name == ACCESS || name == b"system.posix_acl_default"
}

fn check(name: &[u8]) -> Result<(), FsError> {
    if name.len() > XATTR_NAME_LEN_MAX {
        return Err(FsError::Range);
    }
    Ok(())
}

impl Client {
    /// The value of an attribute.
    ///
    /// # Errors
    /// [`FsError::NoAttribute`], [`FsError::Range`] for a name that is too long.
    pub async fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, FsError> {
        check(name)?;
        if name == CAPABILITY && self.no_acl.has_no_capability(ino) {
            return Err(FsError::NoAttribute);
        }
        if let Some(own) = name.strip_prefix(OWN) {
            return self.own_attribute(ino, own).await;
        }
        if is_acl(name) && self.no_acl.has_no_list(ino) {
            return Err(FsError::NoAttribute);
        }
        let list = is_acl(name);
        if !list && self.has_none(ino).await {
            return Err(FsError::NoAttribute);
        }
        let name = name.to_vec();
        let value = self.leader.query(GetXattr { ino, name }).await;
        if list {
            // The kernel may keep it beside newer attributes.
            self.leader.leases().quieten(ino);
        }
        value
    }

    /// Whether an inode has no attributes, as most. `ls -l` asks for one of each file: the leader is
    /// not asked where this mount remembers the inode.
    async fn has_none(&self, ino: Ino) -> bool {
        let attr = self.leader.query(GetAttr { ino }).await;
        attr.is_ok_and(|attr| !attr.has_xattrs())
    }

    async fn own_attribute(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, FsError> {
        if !matches!(name, b"state" | b"object" | b"copies") {
            return Err(FsError::NoAttribute);
        }
        let file = self.leader.query(File { ino }).await?;
        if file.attr.kind != Kind::File {
            return Err(FsError::NoAttribute);
        }
        // The newest map says which servers are up, and the bucket.
        self.leader.refresh_map(self.leader.deadline()).await?;
        let text = match name {
            b"state" => file.attr.archive.as_str().to_owned(),
            b"copies" => {
                let more = file.extent_count > file.extents.len() as u64;
                self.copies(ino, file.extents, more).await?
            }
            _ => {
                let object = file.object.ok_or(FsError::NoAttribute)?;
                let placement = self.leader.cluster().current();
                let archive = placement.map.config.archive.as_ref();
                let bucket = archive.map_or("", |a| a.bucket.as_str());
                format!("{bucket}/{}", object.key)
            }
        };
        Ok(text.into_bytes())
    }

    /// Copies on servers that are up, of the chunk that has fewest, and how
    /// many are wanted. A file without bytes has all; an object alone none.
    /// `page` are the first extents; the rest are read page by page, as long as a lower
    /// number can be found.
    ///
    /// # Errors
    /// [`FsError::TimedOut`] when that takes longer than a call may.
    async fn copies(&self, ino: Ino, page: Vec<Extent>, more: bool) -> Result<String, FsError> {
        let until = self.leader.deadline();
        let placement = self.leader.cluster().current();
        let wanted = placement.map.config.copies as usize;
        let healthy = |e: &Extent| match e.content {
            Content::Chunk { id, .. } => placement.copies(id.set()).0,
            Content::Object { .. } | Content::Lost => 0,
        };
        let (mut page, mut more, mut lowest) = (page, more, None);
        loop {
            lowest = page.iter().map(healthy).chain(lowest).min();
            let Some(offset) = page.last().map(Extent::end) else {
                break;
            };
            if !more || lowest == Some(0) {
                break;
            }
            if Instant::now() >= until {
                return Err(FsError::TimedOut);
            }
            (page, more) = self.extents_after(ino, offset, until).await?;
        }
        Ok(format!("{}/{wanted}", lowest.unwrap_or(wanted)))
    }

    async fn extents_after(
        &self,
        ino: Ino,
        offset: u64,
        until: Instant,
    ) -> Result<(Vec<Extent>, bool), FsError> {
        let query = Extents {
            ino,
            offset,
            limit: EXTENTS_PAGE_MAX as u32,
        };
        let found = self.leader.query_by(query, until).await?;
        Ok((found.extents, found.more))
    }

    /// Sets an attribute.
    ///
    /// # Errors
    /// [`FsError::NotPermitted`] for `user.lagan.*`, [`FsError::Exists`] or
    /// [`FsError::NoAttribute`] by `mode`, [`FsError::Range`], [`FsError::TooBig`].
    pub async fn setxattr(
        &self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Result<(), FsError> {
        check(name)?;
        if name.starts_with(OWN) {
            return Err(FsError::NotPermitted);
        }
        if value.len() > XATTR_VALUE_LEN_MAX {
            return Err(FsError::TooBig);
        }
        let op = SetXattr {
            ino,
            name: name.to_vec(),
            value: value.to_vec(),
            mode,
        };
        self.set(ino, op).await
    }

    async fn set<A>(&self, ino: Ino, op: A) -> Result<(), FsError>
    where
        A: Ask<Request = FileOp, Reply = Answer, Answer = ()>,
    {
        let done = self.leader.mutate(op).await;
        self.no_acl.forget(ino);
        done
    }

    /// Sets an access list for somebody who is not privileged: unless `in_group` says
    /// that the caller is in the inode's group, set-group-id goes, as by chmod(2).
    ///
    /// # Errors
    /// Those of [`Client::setxattr`].
    pub async fn set_access_list(
        &self,
        ino: Ino,
        value: &[u8],
        in_group: impl Fn(u32) -> bool,
    ) -> Result<(), FsError> {
        if value.len() > XATTR_VALUE_LEN_MAX {
            return Err(FsError::TooBig);
        }
        if in_group(self.getattr(ino).await?.gid) {
            return self.setxattr(ino, ACCESS, value, XattrMode::Any).await;
        }
        let value = value.to_vec();
        self.set(ino, SetListAsOther { ino, value }).await
    }

    /// The names of the stored attributes.
    ///
    /// # Errors
    /// Those of [`Client::getattr`].
    pub async fn listxattr(&self, ino: Ino) -> Result<Vec<Vec<u8>>, FsError> {
        if self.has_none(ino).await {
            return Ok(Vec::new());
        }
        self.leader.query(ListXattr { ino }).await
    }

    /// Removes an attribute.
    ///
    /// # Errors
    /// [`FsError::NoAttribute`], [`FsError::NotPermitted`] for `user.lagan.*`.
    ///
    /// The kernel removes capabilities before a write to a file that had some when it
    /// asked; that somebody else's change took them away meanwhile is no failure of that write.
    pub async fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<(), FsError> {
        check(name)?;
        if name.starts_with(OWN) {
            return Err(FsError::NotPermitted);
        }
        let gone_is_done = name == CAPABILITY && !self.no_acl.has_no_capability(ino);
        let name = name.to_vec();
        match self.leader.mutate(RemoveXattr { ino, name }).await {
            Err(FsError::NoAttribute) if gone_is_done => Ok(()),
            other => other,
        }
    }
}
