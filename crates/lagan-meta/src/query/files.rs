//! Reads of names, attributes, extents.

use crate::extents;
use crate::kv::{Read, StoreError, Table};
use crate::layout::rows::{CookieRow, DentryRow, InodeRow, ObjectRow};
use crate::layout::{self, decode_raw, key_name, key1, key2, part, prefix};
use crate::load::{find_inode, inode, row};
use crate::txn::{Fail, Outcome};
use lagan_types::attr::{Attr, Kind};
use lagan_types::limits::{
    ATTRS_PAGE_MAX, EXTENTS_PAGE_MAX, FILE_LEN_MAX, OPEN_EXTENTS, OPENS_PAGE_MAX, READDIR_PAGE_MAX,
    XATTR_LIST_LEN_MAX,
};
use lagan_types::query::{
    AllExtentsPage, DirPage, Entry, ExtentPage, FileInfo, Object, Opened, ReadDir,
};
use lagan_types::{Extent, FsError, Ino};

/// Names in a path that is shown, at most: `lagan file` is best effort.
const PATH_DEPTH_MAX: usize = 1024;

fn directory(store: &dyn Read, ino: Ino) -> Outcome<InodeRow> {
    let row = inode(store, ino)?;
    if row.kind != Kind::Directory {
        return Err(FsError::NotDirectory.into());
    }
    Ok(row)
}

pub(super) fn lookup(store: &dyn Read, parent: Ino, name: &[u8]) -> Outcome<Attr> {
    if name.len() > lagan_types::limits::NAME_LEN_MAX {
        return Err(FsError::NameTooLong.into());
    }
    let entry: Option<DentryRow> = row(store, Table::Dentry, &key_name(parent.0, name))?;
    let Some(entry) = entry else {
        directory(store, parent)?;
        return Err(FsError::NotFound.into());
    };
    Ok(inode(store, entry.ino)?.attr(entry.ino))
}

pub(super) fn attrs(store: &dyn Read, inos: &[Ino]) -> Outcome<Vec<Option<Attr>>> {
    if inos.len() > ATTRS_PAGE_MAX {
        return Err(FsError::Invalid.into());
    }
    let mut attrs = Vec::with_capacity(inos.len());
    for &ino in inos {
        attrs.push(find_inode(store, ino)?.map(|row| row.attr(ino)));
    }
    Ok(attrs)
}

pub(super) fn lookup_all(
    store: &dyn Read,
    parent: Ino,
    names: &[Vec<u8>],
) -> Outcome<Vec<Option<Attr>>> {
    if names.len() > ATTRS_PAGE_MAX {
        return Err(FsError::Invalid.into());
    }
    let mut attrs = Vec::with_capacity(names.len());
    for name in names {
        attrs.push(match lookup(store, parent, name) {
            Ok(attr) => Some(attr),
            Err(Fail::Refused(_)) => None,
            Err(error) => return Err(error),
        });
    }
    Ok(attrs)
}

fn page(
    store: &dyn Read,
    ino: Ino,
    offset: u64,
    limit: usize,
) -> Result<(Vec<Extent>, bool), StoreError> {
    let mut extents = extents::overlapping(store, ino, offset..FILE_LEN_MAX, limit + 1)?;
    let more = extents.len() > limit;
    extents.truncate(limit);
    Ok((extents, more))
}

pub(super) fn open(store: &dyn Read, ino: Ino) -> Outcome<Opened> {
    let row = inode(store, ino)?;
    if row.nlink == 0 {
        return Err(FsError::Stale.into());
    }
    let attr = row.attr(ino);
    let (extents, more) = match attr.allocated {
        0 => (Vec::new(), false),
        _ => page(store, ino, 0, OPEN_EXTENTS)?,
    };
    Ok(Opened {
        attr,
        extents,
        more,
    })
}

pub(super) fn open_all(store: &dyn Read, inos: &[Ino]) -> Outcome<Vec<Option<Opened>>> {
    if inos.len() > OPENS_PAGE_MAX {
        return Err(FsError::Invalid.into());
    }
    let mut all = Vec::with_capacity(inos.len());
    for &ino in inos {
        let is_open = |row: &InodeRow| row.kind == Kind::File && row.nlink > 0;
        let there = find_inode(store, ino)?.is_some_and(|row| is_open(&row));
        all.push(if there { Some(open(store, ino)?) } else { None });
    }
    Ok(all)
}

pub(super) fn extents(store: &dyn Read, ino: Ino, offset: u64, limit: u32) -> Outcome<ExtentPage> {
    let row = inode(store, ino)?;
    let limit = (limit as usize).clamp(1, EXTENTS_PAGE_MAX);
    let (extents, more) = page(store, ino, offset, limit)?;
    Ok(ExtentPage {
        version: row.version,
        size: row.size,
        extents,
        more,
    })
}

pub(super) fn read_dir(store: &dyn Read, query: &ReadDir) -> Outcome<DirPage> {
    let ino = query.ino;
    let dir = directory(store, ino)?;
    if dir.nlink == 0 {
        // Removed, and still open somewhere (POSIX rmdir(2)).
        return Err(FsError::NotFound.into());
    }
    let limit = (query.limit as usize).clamp(1, READDIR_PAGE_MAX);
    let mut entries = Vec::new();
    let mut end = true;
    if let Some(next) = query.cookie.checked_add(1) {
        let (_, stop) = prefix(ino.0);
        let stop = stop.as_ref().map(|s| &s[..]);
        let rows = store.scan(Table::Cookie, &key2(ino.0, next), stop, limit + 1)?;
        end = rows.len() <= limit;
        for (key, value) in rows.iter().take(limit) {
            entries.push(entry(store, key, value, query.attrs)?);
        }
    }
    let parent = if dir.parent == Ino(0) {
        ino
    } else {
        dir.parent
    };
    Ok(DirPage {
        entries,
        end,
        parent,
    })
}

fn entry(store: &dyn Read, key: &[u8], value: &[u8], attrs: bool) -> Outcome<Entry> {
    let row: CookieRow = layout::decode(Table::Cookie, value)?;
    let attr = match attrs {
        true => find_inode(store, row.ino)?.map(|inode| inode.attr(row.ino)),
        false => None,
    };
    Ok(Entry {
        name: row.name,
        ino: row.ino,
        kind: row.kind,
        cookie: part(Table::Cookie, key, 8)?,
        attr,
    })
}

pub(super) fn read_link(store: &dyn Read, ino: Ino) -> Outcome<Vec<u8>> {
    if inode(store, ino)?.kind != Kind::Symlink {
        return Err(FsError::Invalid.into());
    }
    let value = store.get(Table::Symlink, &key1(ino.0))?;
    let value = value.ok_or_else(|| {
        layout::malformed(Table::Symlink, format!("symlink {ino} without target"))
    })?;
    Ok(decode_raw(Table::Symlink, value)?)
}

pub(super) fn get_xattr(store: &dyn Read, ino: Ino, name: &[u8]) -> Outcome<Vec<u8>> {
    let value = store.get(Table::Xattr, &key_name(ino.0, name))?;
    let Some(value) = value else {
        inode(store, ino)?;
        return Err(FsError::NoAttribute.into());
    };
    Ok(decode_raw(Table::Xattr, value)?)
}

pub(super) fn list_xattr(store: &dyn Read, ino: Ino) -> Outcome<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    if inode(store, ino)?.xattr_len > 0 {
        let (start, end) = prefix(ino.0);
        let end = end.as_ref().map(|e| &e[..]);
        // Each name takes at least 2 bytes of the list's limit.
        for (key, _) in store.scan(Table::Xattr, &start, end, XATTR_LIST_LEN_MAX / 2)? {
            names.push(key.get(8..).unwrap_or_default().to_vec());
        }
    }
    Ok(names)
}

pub(super) fn parent(store: &dyn Read, ino: Ino) -> Outcome<Option<(Ino, Vec<u8>)>> {
    let row = inode(store, ino)?;
    let known = row.parent != Ino(0);
    Ok(known.then_some((row.parent, row.name)))
}

/// The path from the root by name hints; `None` where one is missing.
fn path(store: &dyn Read, ino: Ino) -> Result<Option<Vec<u8>>, StoreError> {
    let mut names: Vec<Vec<u8>> = Vec::new();
    let mut at = ino;
    while at != Ino::ROOT {
        let Some(row) = find_inode(store, at)? else {
            return Ok(None);
        };
        if row.parent == Ino(0) || names.len() >= PATH_DEPTH_MAX {
            return Ok(None);
        }
        names.push(row.name);
        at = row.parent;
    }
    let mut path = Vec::new();
    for name in names.iter().rev() {
        path.push(b'/');
        path.extend_from_slice(name);
    }
    if path.is_empty() {
        path.push(b'/');
    }
    Ok(Some(path))
}

pub(super) fn file(store: &dyn Read, ino: Ino) -> Outcome<FileInfo> {
    let found = inode(store, ino)?;
    let (extents, more) = page(store, ino, 0, EXTENTS_PAGE_MAX)?;
    let mut extent_count = extents.len() as u64;
    if more {
        extent_count = count_extents(store, ino)?;
    }
    let object = match found.archive.object {
        Some(version) => {
            let object: Option<ObjectRow> = row(store, Table::Object, &key2(ino.0, version))?;
            object.map(|o| Object {
                version,
                key: o.key,
                size: o.size,
                crc: o.crc,
            })
        }
        None => None,
    };
    Ok(FileInfo {
        attr: found.attr(ino),
        extents,
        extent_count,
        object,
        path: path(store, ino)?,
    })
}

fn count_extents(store: &dyn Read, ino: Ino) -> Result<u64, StoreError> {
    let (mut count, mut from) = (0, 0);
    loop {
        let page = extents::starting_in(store, ino, from..FILE_LEN_MAX, EXTENTS_PAGE_MAX)?;
        count += page.len() as u64;
        match page.last() {
            Some(last) if page.len() == EXTENTS_PAGE_MAX => from = last.end(),
            _ => return Ok(count),
        }
    }
}

pub(super) fn all_extents(
    store: &dyn Read,
    from: (Ino, u64),
    limit: u32,
) -> Outcome<AllExtentsPage> {
    let limit = (limit as usize).clamp(1, READDIR_PAGE_MAX);
    let rows = store.scan(Table::Extent, &key2(from.0.0, from.1), None, limit + 1)?;
    let mut extents = Vec::with_capacity(rows.len());
    for (key, value) in &rows {
        extents.push(extents::decode(key, value)?);
    }
    let next = match extents.len() > limit {
        true => extents.pop().map(|(ino, extent)| (ino, extent.offset)),
        false => None,
    };
    Ok(AllExtentsPage { extents, next })
}
