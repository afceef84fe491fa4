//! The reference: directories are maps, files arrays of numbers for bytes.

use lagan_types::attr::Kind;
use lagan_types::{FsError, Ino};
use std::collections::BTreeMap;

#[derive(Debug, Clone)]
pub enum Entry {
    Directory(BTreeMap<String, Ino>),
    File(Vec<u64>),
    Symlink,
}

/// Every inode that is not reaped, by its real number.
pub struct Reference {
    pub inodes: BTreeMap<Ino, Entry>,
}

impl Reference {
    pub fn new() -> Self {
        let root = Entry::Directory(BTreeMap::new());
        Reference {
            inodes: BTreeMap::from([(Ino::ROOT, root)]),
        }
    }

    /// Directories, also removed ones.
    pub fn dirs(&self) -> Vec<Ino> {
        self.of(|e| matches!(e, Entry::Directory(_)))
    }

    /// Regular files, also orphans.
    pub fn files(&self) -> Vec<Ino> {
        self.of(|e| matches!(e, Entry::File(_)))
    }

    fn of(&self, wanted: impl Fn(&Entry) -> bool) -> Vec<Ino> {
        let found = self.inodes.iter().filter(|(_, e)| wanted(e));
        found.map(|(ino, _)| *ino).collect()
    }

    pub fn orphans(&self) -> Vec<Ino> {
        let all = self.inodes.keys().copied();
        all.filter(|ino| self.nlink(*ino) == 0).collect()
    }

    fn names(&self, ino: Ino) -> usize {
        self.inodes
            .values()
            .map(|e| match e {
                Entry::Directory(names) => names.values().filter(|i| **i == ino).count(),
                _ => 0,
            })
            .sum()
    }

    pub fn nlink(&self, ino: Ino) -> u32 {
        let named = self.names(ino) as u32;
        match self.inodes.get(&ino) {
            Some(Entry::Directory(_)) if ino != Ino::ROOT && named == 0 => 0,
            Some(Entry::Directory(names)) => {
                let dirs = names.values().filter(|i| self.is_dir(**i)).count();
                2 + dirs as u32
            }
            _ => named,
        }
    }

    fn is_dir(&self, ino: Ino) -> bool {
        matches!(self.inodes.get(&ino), Some(Entry::Directory(_)))
    }

    fn dir(&mut self, ino: Ino) -> Result<&mut BTreeMap<String, Ino>, FsError> {
        if self.nlink(ino) == 0 {
            return Err(FsError::NotFound);
        }
        match self.inodes.get_mut(&ino) {
            Some(Entry::Directory(names)) => Ok(names),
            _ => Err(FsError::NotDirectory),
        }
    }

    fn find(&mut self, dir: Ino, name: &str) -> Result<Ino, FsError> {
        self.dir(dir)?.get(name).copied().ok_or(FsError::NotFound)
    }

    pub fn create(&mut self, dir: Ino, name: &str, ino: Ino, kind: Kind) -> Result<(), FsError> {
        let names = self.dir(dir)?;
        if names.contains_key(name) {
            return Err(FsError::Exists);
        }
        names.insert(name.into(), ino);
        let entry = match kind {
            Kind::Directory => Entry::Directory(BTreeMap::new()),
            Kind::File => Entry::File(Vec::new()),
            _ => Entry::Symlink,
        };
        self.inodes.insert(ino, entry);
        Ok(())
    }

    pub fn link(&mut self, ino: Ino, dir: Ino, name: &str) -> Result<(), FsError> {
        self.dir(dir)?;
        if self.nlink(ino) == 0 {
            return Err(FsError::NotFound);
        }
        let names = self.dir(dir)?;
        if names.contains_key(name) {
            return Err(FsError::Exists);
        }
        names.insert(name.into(), ino);
        Ok(())
    }

    pub fn unlink(&mut self, dir: Ino, name: &str) -> Result<(), FsError> {
        let ino = self.find(dir, name)?;
        if self.is_dir(ino) {
            return Err(FsError::IsDirectory);
        }
        self.dir(dir)?.remove(name);
        Ok(())
    }

    fn empty(&self, ino: Ino) -> bool {
        matches!(self.inodes.get(&ino), Some(Entry::Directory(names)) if names.is_empty())
    }

    pub fn rmdir(&mut self, dir: Ino, name: &str) -> Result<(), FsError> {
        let ino = self.find(dir, name)?;
        if !self.is_dir(ino) {
            return Err(FsError::NotDirectory);
        }
        if !self.empty(ino) {
            return Err(FsError::NotEmpty);
        }
        self.dir(dir)?.remove(name);
        Ok(())
    }

    /// Whether `below` is `top` or under it.
    fn within(&self, top: Ino, below: Ino) -> bool {
        top == below
            || match self.inodes.get(&top) {
                Some(Entry::Directory(names)) => names.values().any(|i| self.within(*i, below)),
                _ => false,
            }
    }

    /// `flag`: 1 is NOREPLACE, 2 is EXCHANGE.
    pub fn rename(&mut self, from: (Ino, &str), to: (Ino, &str), flag: u8) -> Result<(), FsError> {
        self.dir(from.0)?;
        self.dir(to.0)?;
        let source = self.find(from.0, from.1)?;
        let target = self.find(to.0, to.1).ok();
        if flag == 2 && target.is_none() {
            return Err(FsError::NotFound);
        }
        if flag == 1 && target.is_some() {
            return Err(FsError::Exists);
        }
        if target == Some(source) {
            return Ok(());
        }
        if self.is_dir(source) && self.within(source, to.0) {
            return Err(FsError::Invalid);
        }
        if let Some(target) = target {
            self.check_target(source, target, from.0, flag == 2)?;
        }
        self.dir(from.0)?.remove(from.1);
        if let (2, Some(target)) = (flag, target) {
            self.dir(from.0)?.insert(from.1.into(), target);
        }
        self.dir(to.0)?.insert(to.1.into(), source);
        Ok(())
    }

    fn check_target(
        &self,
        source: Ino,
        target: Ino,
        from: Ino,
        exchange: bool,
    ) -> Result<(), FsError> {
        match (exchange, self.is_dir(source), self.is_dir(target)) {
            (true, _, true) if self.within(target, from) => Err(FsError::Invalid),
            (true, ..) | (false, false, false) => Ok(()),
            (false, true, false) => Err(FsError::NotDirectory),
            (false, false, true) => Err(FsError::IsDirectory),
            (false, true, true) if self.empty(target) => Ok(()),
            (false, true, true) => Err(FsError::NotEmpty),
        }
    }

    pub fn forget(&mut self, ino: Ino) {
        self.inodes.remove(&ino);
    }

    // -- content ----------------------------------------------------------

    pub fn content(&self, ino: Ino) -> &[u64] {
        match self.inodes.get(&ino) {
            Some(Entry::File(content)) => content,
            other => panic!("{ino} is {other:?}"),
        }
    }

    fn bytes(&mut self, ino: Ino) -> &mut Vec<u64> {
        match self.inodes.get_mut(&ino) {
            Some(Entry::File(content)) => content,
            other => panic!("{ino} is {other:?}"),
        }
    }

    pub fn write(&mut self, ino: Ino, offset: u64, bytes: &[u64]) {
        let (start, end) = (offset as usize, offset as usize + bytes.len());
        let content = self.bytes(ino);
        if content.len() < end {
            content.resize(end, 0);
        }
        content[start..end].copy_from_slice(bytes);
    }

    pub fn punch(&mut self, ino: Ino, offset: usize, len: usize) {
        let content = self.bytes(ino);
        let end = (offset + len).min(content.len());
        if offset < end {
            content[offset..end].fill(0);
        }
    }

    pub fn truncate(&mut self, ino: Ino, size: usize) {
        self.bytes(ino).resize(size, 0);
    }
}
