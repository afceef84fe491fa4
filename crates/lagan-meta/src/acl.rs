//! POSIX access control lists (acl(5)), as the kernel hands them over: in the
//! extended attributes `system.posix_acl_access` and `system.posix_acl_default`.
//!
//! What must hold: the classes of an access list (owner; mask, or group if there is no
//! mask; others) equal the permission bits, whichever of them was set last. A list that
//! says no more than the bits is not kept.

use lagan_types::FsError;

/// The attribute of the list that counts.
pub(crate) const ACCESS: &[u8] = b"system.posix_acl_access";
/// The attribute of the list that a directory's new entries get.
pub(crate) const DEFAULT: &[u8] = b"system.posix_acl_default";

/// POSIX_ACL_XATTR_VERSION of linux/posix_acl_xattr.h.
const VERSION: u32 = 2;
const HEADER_LEN: usize = 4;
const ENTRY_LEN: usize = 8;

// linux/posix_acl.h: tags, in the order that entries have.
const USER_OBJ: u16 = 0x01;
const USER: u16 = 0x02;
const GROUP_OBJ: u16 = 0x04;
const GROUP: u16 = 0x08;
const MASK: u16 = 0x10;
const OTHER: u16 = 0x20;

/// One entry of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Entry {
    tag: u16,
    /// Permissions: rwx, 3 bits.
    perm: u16,
    /// Id of the named user or group.
    id: u32,
}

/// A valid list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Acl(Vec<Entry>);

impl Acl {
    /// Parses an attribute's value; `None` for a list without entries.
    ///
    /// # Errors
    /// `Unsupported` for another version, `Invalid` for bytes that are no list.
    pub fn parse(value: &[u8]) -> Result<Option<Acl>, FsError> {
        let (header, body) = value
            .split_first_chunk::<HEADER_LEN>()
            .ok_or(FsError::Invalid)?;
        if u32::from_le_bytes(*header) != VERSION {
            return Err(FsError::Unsupported);
        }
        let (entries, rest) = body.as_chunks::<ENTRY_LEN>();
        if !rest.is_empty() {
            return Err(FsError::Invalid);
        }
        let acl = Acl(entries.iter().map(entry).collect());
        if acl.0.is_empty() {
            return Ok(None);
        }
        if acl.is_valid() {
            Ok(Some(acl))
        } else {
            Err(FsError::Invalid)
        }
    }

    /// The attribute's value.
    pub fn encode(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(HEADER_LEN + self.0.len() * ENTRY_LEN);
        value.extend_from_slice(&VERSION.to_le_bytes());
        for entry in &self.0 {
            value.extend_from_slice(&entry.tag.to_le_bytes());
            value.extend_from_slice(&entry.perm.to_le_bytes());
            value.extend_from_slice(&entry.id.to_le_bytes());
        }
        value
    }

    /// Checks what posix_acl_valid() of Linux does: the order, each unnamed class once, a
    /// mask if anybody is named.
    fn is_valid(&self) -> bool {
        let mut last = 0;
        for entry in &self.0 {
            let named = matches!(entry.tag, USER | GROUP);
            let known = named || matches!(entry.tag, USER_OBJ | GROUP_OBJ | MASK | OTHER);
            if !known || entry.perm > 0o7 || entry.tag < last || (entry.tag == last && !named) {
                return false;
            }
            last = entry.tag;
        }
        let has = |tag| self.0.iter().any(|e| e.tag == tag);
        let named = has(USER) || has(GROUP);
        has(USER_OBJ) && has(GROUP_OBJ) && has(OTHER) && (has(MASK) || !named)
    }

    /// Whether the list says more than permission bits can.
    pub fn says_more(&self) -> bool {
        self.0.iter().any(|e| matches!(e.tag, USER | GROUP | MASK))
    }

    fn find(&mut self, tag: u16) -> Option<&mut Entry> {
        self.0.iter_mut().find(|e| e.tag == tag)
    }

    /// The three classes: owner, mask or group, others.
    fn classes(&mut self) -> Vec<(&mut Entry, u16)> {
        let group = if self.find(MASK).is_some() {
            MASK
        } else {
            GROUP_OBJ
        };
        let shift = move |tag| match tag {
            USER_OBJ => Some(6),
            OTHER => Some(0),
            tag if tag == group => Some(3),
            _ => None,
        };
        self.0
            .iter_mut()
            .filter_map(|e| shift(e.tag).map(|s| (e, s)))
            .collect()
    }

    /// The mode with the list's classes as permission bits.
    pub fn mode(&self, mode: u16) -> u16 {
        let mut bits = 0;
        for (entry, shift) in self.clone().classes() {
            bits |= entry.perm << shift;
        }
        mode & !0o777 | bits
    }

    /// Sets the classes by the permission bits, as chmod(2) does.
    pub fn follow(&mut self, mode: u16) {
        for (entry, shift) in self.classes() {
            entry.perm = mode >> shift & 0o7;
        }
    }

    /// Turns a directory's default list into that of a new entry: no class gets more
    /// than the mode that the entry is made with. Returns the entry's mode.
    pub fn limit(&mut self, mode: u16) -> u16 {
        for (entry, shift) in self.classes() {
            entry.perm &= mode >> shift & 0o7;
        }
        self.mode(mode)
    }
}

fn entry(bytes: &[u8; ENTRY_LEN]) -> Entry {
    let [t0, t1, p0, p1, id @ ..] = *bytes;
    let tag = u16::from_le_bytes([t0, t1]);
    Entry {
        tag,
        perm: u16::from_le_bytes([p0, p1]),
        // Of the others it means nothing, and the kernel says so.
        id: match tag {
            USER | GROUP => u32::from_le_bytes(id),
            _ => u32::MAX,
        },
    }
}

#[cfg(test)]
mod tests;
