//! Dentries, cookies, inodes and link counts agree; the directories are a tree.

use super::Walk;
use crate::kv::{StoreError, Table};
use crate::layout::rows::{CookieRow, DentryRow, InodeRow};
use crate::layout::{key2, part};
use crate::load::row;
use lagan_types::Ino;
use lagan_types::attr::Kind;
use std::collections::BTreeMap;

/// Counts the names of each inode, and the directories in each directory.
#[derive(Default)]
struct Links {
    names: BTreeMap<Ino, u32>,
    subdirs: BTreeMap<Ino, u32>,
}

impl Walk<'_> {
    pub(super) fn names(&mut self) -> Result<(), StoreError> {
        let mut links = Links::default();
        let mut entries = 0usize;
        for (key, entry) in self.decoded::<DentryRow>(Table::Dentry)? {
            let parent = Ino(part(Table::Dentry, &key, 0)?);
            let name = key.get(8..).unwrap_or_default();
            entries += 1;
            *links.names.entry(entry.ino).or_default() += 1;
            *links.subdirs.entry(parent).or_default() += (entry.kind == Kind::Directory) as u32;
            self.dentry(parent, name, &entry)?;
        }
        let cookies = self.rows(Table::Cookie)?.len();
        self.expect(cookies == entries, || {
            format!("{entries} dentries, {cookies} cookies")
        });
        for (ino, inode) in self.inodes.clone() {
            self.links(ino, &inode, &links)?;
        }
        Ok(())
    }

    fn dentry(&mut self, parent: Ino, name: &[u8], entry: &DentryRow) -> Result<(), StoreError> {
        let shown = format!("{parent}/{}", name.escape_ascii());
        let dir = self.inodes.get(&parent);
        let live = dir.is_some_and(|d| d.kind == Kind::Directory && d.nlink > 0);
        let given = dir.is_some_and(|d| entry.cookie <= d.cookie);
        self.expect(live, || format!("{shown}: its parent is no live directory"));
        self.expect(given, || format!("{shown}: cookie was never given"));
        let inode = self.inodes.get(&entry.ino);
        let same = inode.is_some_and(|i| i.kind == entry.kind && i.nlink > 0);
        self.expect(same, || {
            format!("{shown}: {} is absent or another kind", entry.ino)
        });
        let key = key2(parent.0, entry.cookie);
        let cookie: Option<CookieRow> = row(self.store, Table::Cookie, &key)?;
        let wanted = CookieRow {
            ino: entry.ino,
            kind: entry.kind,
            name: name.to_vec(),
        };
        self.expect(cookie == Some(wanted), || {
            format!("{shown}: cookie {} is another's", entry.cookie)
        });
        Ok(())
    }

    fn links(&mut self, ino: Ino, inode: &InodeRow, links: &Links) -> Result<(), StoreError> {
        let names = links.names.get(&ino).copied().unwrap_or(0);
        let subdirs = links.subdirs.get(&ino).copied().unwrap_or(0);
        let nlink = inode.nlink;
        let fits = match inode.kind {
            Kind::Directory if ino == Ino::ROOT => names == 0 && nlink == 2 + subdirs,
            Kind::Directory if nlink == 0 => names == 0 && subdirs == 0,
            Kind::Directory => names == 1 && nlink == 2 + subdirs,
            _ => names == nlink,
        };
        self.expect(fits, || {
            format!("{ino}: nlink {nlink}, {names} names, {subdirs} subdirectories")
        });
        if ino == Ino::ROOT {
            return Ok(());
        }
        let needed = inode.kind == Kind::Directory && nlink > 0;
        if inode.parent == Ino(0) {
            self.expect(!needed, || format!("{ino}: directory without parent"));
            return Ok(());
        }
        let key = crate::layout::key_name(inode.parent.0, &inode.name);
        let entry: Option<DentryRow> = row(self.store, Table::Dentry, &key)?;
        self.expect(entry.is_some_and(|e| e.ino == ino), || {
            format!("{ino}: is not where it says")
        });
        if needed {
            self.reaches_root(ino);
        }
        Ok(())
    }

    fn reaches_root(&mut self, ino: Ino) {
        let mut at = ino;
        for _ in 0..=self.inodes.len() {
            if at == Ino::ROOT {
                return;
            }
            match self.inodes.get(&at) {
                Some(row) => at = row.parent,
                None => break,
            }
        }
        self.say(format!("{ino}: not below the root"));
    }
}
