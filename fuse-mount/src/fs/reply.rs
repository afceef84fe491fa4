//! Replies to the kernel that take more than one line.

use super::convert::{dot_attr, file_attr, file_type, fopen_flags};
use super::dir::{Item, Listing};
use super::lent::Lent;
use fuser::{
    FileHandle, FileType, Generation, INodeNo, ReplyAttr, ReplyCreate, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyStatfs, ReplyXattr,
};
use lagan_client::{Opened, StatFs};
use lagan_types::{Attr, FsError, Ino};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::time::Duration;

/// The kernel believes nothing without asking (INV-7), but for attributes that it is lent.
const TTL: Duration = Duration::ZERO;
/// Inode numbers are never used again.
const GENERATION: Generation = Generation(0);
/// f_bsize and f_frsize of statfs(2), bytes.
const STATFS_BLOCK: u32 = 4096;
/// Number of entries of a listing whose attributes are completed at a time: more than any
/// request of the kernel takes.
pub(super) const PLUS_ITEMS_MAX: usize = 1024;

/// Answers with a new inode and its attributes.
pub(super) fn entry(reply: ReplyEntry, attr: Attr) {
    found(reply, (attr, TTL));
}

/// Answers with the inode of a name, which the kernel never believes to stay there.
pub(super) fn found(reply: ReplyEntry, (attr, lasts): Lent) {
    reply.entry_with_ttls(&lasts, &TTL, &file_attr(&attr), GENERATION);
}

/// Answers with attributes.
pub(super) fn attributes(reply: ReplyAttr, (attr, lasts): Lent) {
    reply.attr(&lasts, &file_attr(&attr));
}

/// Answers with a new file and its handle.
pub(super) fn created(reply: ReplyCreate, (attr, opened): (Attr, Opened)) {
    let (fh, flags) = (FileHandle(opened.fh), fopen_flags(&opened));
    reply.created(&TTL, &file_attr(&attr), GENERATION, fh, flags);
}

/// Answers that the call is done.
pub(super) fn ok(reply: ReplyEmpty, (): ()) {
    reply.ok();
}

/// Puts as many entries into the reply as fit.
pub(super) fn fill(mut reply: ReplyDirectory, listing: &Listing, own: Ino) {
    for item in listing.items(own) {
        let full = match item {
            Item::Dot(at, node, offset) => {
                reply.add(INodeNo(node.0), offset, FileType::Directory, at)
            }
            Item::Entry(e, offset) => {
                let at = OsStr::from_bytes(&e.name);
                reply.add(INodeNo(e.ino.0), offset, file_type(e.kind), at)
            }
        };
        if full {
            break;
        }
    }
    reply.ok();
}

/// Puts entries with their attributes into the reply; `own` are newer attributes of files
/// that are open here.
pub(super) fn fill_plus(
    mut reply: ReplyDirectoryPlus,
    listing: &Listing,
    own_attrs: &[(Ino, Attr)],
    own: Ino,
) {
    for item in listing.items(own).take(PLUS_ITEMS_MAX) {
        let full = match item {
            Item::Dot(at, node, offset) => {
                let attr = dot_attr(node);
                reply.add(attr.ino, offset, at, &TTL, &attr, GENERATION)
            }
            Item::Entry(e, offset) => {
                let newer = own_attrs.iter().find(|(node, _)| *node == e.ino);
                let Some(attr) = newer.map(|(_, attr)| attr).or(e.attr.as_ref()) else {
                    continue;
                };
                let at = OsStr::from_bytes(&e.name);
                let attr = file_attr(attr);
                reply.add(attr.ino, offset, at, &TTL, &attr, GENERATION)
            }
        };
        if full {
            break;
        }
    }
    reply.ok();
}

/// Answers with the capacity, in blocks.
pub(super) fn statfs(reply: ReplyStatfs, fs: StatFs) {
    let block = u64::from(STATFS_BLOCK);
    let free = fs.free_bytes / block;
    reply.statfs(
        fs.total_bytes / block,
        free,
        free,
        fs.files,
        fs.free_files,
        STATFS_BLOCK,
        255,
        STATFS_BLOCK,
    );
}

/// Checks the name of an extended attribute. In the name space `system` there are only
/// POSIX ACLs.
///
/// # Errors
/// `Unsupported` in another name space, `Invalid` for one without a name in it.
pub(super) fn xattr_name(at: &OsStr) -> Result<Vec<u8>, FsError> {
    let bytes = at.as_bytes();
    if matches!(bytes, ACCESS_LIST | b"system.posix_acl_default") {
        return Ok(bytes.to_vec());
    }
    let spaces: [&[u8]; 3] = [b"user.", TRUSTED, b"security."];
    match spaces.iter().find_map(|space| bytes.strip_prefix(*space)) {
        None => Err(FsError::Unsupported),
        Some(b"") => Err(FsError::Invalid),
        Some(_) => Ok(bytes.to_vec()),
    }
}

/// Name of the attribute with the list that the permission bits follow.
pub(super) const ACCESS_LIST: &[u8] = b"system.posix_acl_access";

/// Name space of the attributes that only root may see.
pub(super) const TRUSTED: &[u8] = b"trusted.";

/// Refuses a value that the caller has no room for; 0 asks for the length.
pub(super) fn fits(value: Vec<u8>, size: u32) -> Result<Vec<u8>, FsError> {
    if size != 0 && value.len() > size as usize {
        return Err(FsError::Range);
    }
    Ok(value)
}

/// Answers with the value, or with its length if that was asked for.
pub(super) fn xattr(reply: ReplyXattr, value: &[u8], size: u32) {
    if size == 0 {
        reply.size(u32::try_from(value.len()).unwrap_or(u32::MAX));
    } else {
        reply.data(value);
    }
}
