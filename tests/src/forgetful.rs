//! A disk that forgets what was not synced: the model behind `forgetful-disk`, which
//! puts it under a directory, as a file system of FUSE. Servers that are killed find all
//! that they wrote in the kernel's cache, synced or not; on this disk they do not.
//!
//! What a program may rely on, and nothing more:
//!
//! - fsync and fdatasync of a file make its bytes and its length durable. They say
//!   nothing of its name.
//! - A name (create, mkdir, rename, unlink, rmdir) is durable after fsync of its
//!   directory, which says nothing of the directory's own name, nor of the bytes of the
//!   files in it. A rename is there or is not; an fsync of either directory is enough.
//! - sync_file_range is no sync. Modes and times are durable at once.
//!
//! What a power cut leaves of the rest is drawn from a seed, for each file and for each
//! name by itself, so that nothing is in order between two of them:
//!
//! - Of a file's changes since its last sync none are left, or the first ones, the last
//!   of which may be torn: sectors of 512 bytes are old or new, and bytes behind the old
//!   end that did not get there are missing or zeros. Or any sectors are new and any
//!   old, and the length is one or the other.
//! - Of the changes of a name the first ones, or none. A file whose name is not left is
//!   gone, and one whose removal is not left is back.
//!
//! The bytes that programs see are in files of a backing directory, one an inode, and all
//! else is in memory: the process lives through the power cuts. A disk that lies
//! ([`Disk::lie`]) says of every sync that it is done, and does none of those below a
//! directory.

mod bytes;
mod names;
#[cfg(test)]
mod tests;

use crate::random::Random;
use bytes::Bytes;
use names::Names;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// The inode of the top directory.
pub const ROOT: u64 = 1;

/// A disk.
#[derive(Debug)]
pub struct Disk {
    backing: PathBuf,
    inodes: BTreeMap<u64, Inode>,
    names: Names,
    next: u64,
    /// Syncs of what is below this path are not done.
    lies: Option<PathBuf>,
}

#[derive(Debug)]
struct Inode {
    /// `None`: a directory.
    bytes: Option<Bytes>,
    mode: u32,
    modified: SystemTime,
    opens: u64,
}

/// What stat(2) tells.
#[derive(Debug, Clone, Copy)]
pub struct Attributes {
    /// Its number.
    pub inode: u64,
    /// Whether it is a directory, and otherwise a file.
    pub is_dir: bool,
    /// Bytes.
    pub size: u64,
    /// Permissions.
    pub mode: u32,
    /// The time of the last change.
    pub modified: SystemTime,
}

fn errno(errno: i32) -> io::Error {
    io::Error::from_raw_os_error(errno)
}

impl Disk {
    /// An empty disk, whose bytes are in an empty directory.
    pub fn new(backing: &Path) -> Self {
        let root = Inode::new(None, 0o755);
        Disk {
            backing: backing.to_owned(),
            inodes: BTreeMap::from([(ROOT, root)]),
            names: Names::default(),
            next: ROOT + 1,
            lies: None,
        }
    }

    /// From now on syncs do nothing for that directory, named from the top, and all that is
    /// below it.
    pub fn lie(&mut self, below: &Path) {
        self.lies = Some(below.to_owned());
    }

    /// Loses power, and is honest again. `random` says what is left of that which was not
    /// synced; without it, nothing is.
    ///
    /// # Errors
    /// EBUSY: files are open, so programs still run; otherwise the disk is of no use.
    pub fn forget(&mut self, random: Option<Random>) -> io::Result<()> {
        if self.inodes.values().any(|inode| inode.opens > 0) {
            return Err(errno(libc::EBUSY));
        }
        self.lies = None;
        let files = self.inodes.values_mut().filter_map(|i| i.bytes.as_mut());
        match random {
            None => {
                self.names.forget_all();
                for bytes in files {
                    bytes.forget_all()?;
                }
            }
            Some(mut random) => {
                self.names.forget(&mut random);
                for bytes in files {
                    bytes.forget(&mut random)?;
                }
            }
        }
        self.collect();
        Ok(())
    }

    /// Changes that a power cut may take: of names, and of bytes.
    pub fn unsynced(&self) -> (usize, usize) {
        let files = self.inodes.values().filter_map(|i| i.bytes.as_ref());
        (self.names.unsynced(), files.map(Bytes::unsynced).sum())
    }

    /// Attributes of an inode.
    ///
    /// # Errors
    /// ESTALE: a power cut took it.
    pub fn stat(&self, inode: u64) -> io::Result<Attributes> {
        let found = self.get(inode)?;
        Ok(Attributes {
            inode,
            is_dir: found.bytes.is_none(),
            size: found.bytes.as_ref().map_or(0, Bytes::size),
            mode: found.mode,
            modified: found.modified,
        })
    }

    /// Attributes of a name.
    ///
    /// # Errors
    /// ENOENT: there is none.
    pub fn lookup(&self, dir: u64, name: &OsStr) -> io::Result<Attributes> {
        let found = self.names.find(dir, name);
        self.stat(found.ok_or_else(|| errno(libc::ENOENT))?)
    }

    /// Names in a directory, sorted, and their attributes.
    pub fn list(&self, dir: u64) -> Vec<(OsString, Attributes)> {
        let names = self.names.list(dir);
        let with = names.map(|(name, inode)| Some((name.clone(), self.stat(inode).ok()?)));
        with.flatten().collect()
    }

    /// Makes a file or a directory.
    ///
    /// # Errors
    /// EEXIST: the name is taken.
    pub fn make(&mut self, dir: u64, name: &OsStr, is_dir: bool, mode: u32) -> io::Result<u64> {
        if self.names.find(dir, name).is_some() {
            return Err(errno(libc::EEXIST));
        }
        let inode = self.next;
        let bytes = match is_dir {
            true => None,
            false => Some(Bytes::create(&self.file_of(inode))?),
        };
        self.next += 1;
        self.inodes.insert(inode, Inode::new(bytes, mode));
        self.names.add((dir, name.to_owned()), inode);
        Ok(inode)
    }

    /// Removes a file or an empty directory.
    ///
    /// # Errors
    /// ENOENT; ENOTEMPTY.
    pub fn remove(&mut self, dir: u64, name: &OsStr) -> io::Result<()> {
        self.check_empty(self.lookup(dir, name)?.inode)?;
        self.names.remove((dir, name.to_owned()));
        Ok(())
    }

    /// Renames, over what has that name.
    ///
    /// # Errors
    /// ENOENT; ENOTEMPTY.
    pub fn rename(&mut self, from: (u64, &OsStr), to: (u64, &OsStr)) -> io::Result<()> {
        let inode = self.lookup(from.0, from.1)?.inode;
        match self.names.find(to.0, to.1) {
            Some(other) if other == inode => return Ok(()),
            Some(other) => self.check_empty(other)?,
            None => {}
        }
        let (from, to) = ((from.0, from.1.to_owned()), (to.0, to.1.to_owned()));
        self.names.rename(from, to, inode);
        Ok(())
    }

    /// A program has opened it: it stays without a name too.
    ///
    /// # Errors
    /// ESTALE.
    pub fn open(&mut self, inode: u64) -> io::Result<()> {
        self.get_mut(inode)?.opens += 1;
        Ok(())
    }

    /// A program has closed it.
    pub fn close(&mut self, inode: u64) {
        if let Some(found) = self.inodes.get_mut(&inode) {
            found.opens = found.opens.saturating_sub(1);
            self.collect();
        }
    }

    /// Bytes of a file, fewer than `len` at its end.
    ///
    /// # Errors
    /// ESTALE; EISDIR; those of the file that holds them.
    pub fn read(&self, inode: u64, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        let bytes = self.get(inode)?.bytes.as_ref();
        bytes.ok_or_else(|| errno(libc::EISDIR))?.read(offset, len)
    }

    /// Writes into a file.
    ///
    /// # Errors
    /// ESTALE; EISDIR; those of the file that holds it.
    pub fn write(&mut self, inode: u64, offset: u64, data: &[u8]) -> io::Result<()> {
        self.change(inode)?.write(offset, data)
    }

    /// Makes a file shorter or longer.
    ///
    /// # Errors
    /// ESTALE; EISDIR; those of the file that holds it.
    pub fn set_len(&mut self, inode: u64, len: u64) -> io::Result<()> {
        self.change(inode)?.set_len(len)
    }

    /// Changes the permissions.
    ///
    /// # Errors
    /// ESTALE.
    pub fn set_mode(&mut self, inode: u64, mode: u32) -> io::Result<()> {
        self.get_mut(inode)?.mode = mode;
        Ok(())
    }

    /// Makes a file's bytes durable, or a directory's names.
    ///
    /// # Errors
    /// ESTALE.
    pub fn sync(&mut self, inode: u64) -> io::Result<()> {
        let lies = self.lies.as_ref();
        let lies = lies.is_some_and(|below| self.names.path_of(inode).starts_with(below));
        match self.get_mut(inode)?.bytes.as_mut() {
            _ if lies => {}
            Some(bytes) => bytes.sync(),
            None => {
                self.names.sync(inode);
                self.collect();
            }
        }
        Ok(())
    }

    fn get(&self, inode: u64) -> io::Result<&Inode> {
        self.inodes.get(&inode).ok_or_else(|| errno(libc::ESTALE))
    }

    fn get_mut(&mut self, inode: u64) -> io::Result<&mut Inode> {
        let found = self.inodes.get_mut(&inode);
        found.ok_or_else(|| errno(libc::ESTALE))
    }

    fn change(&mut self, inode: u64) -> io::Result<&mut Bytes> {
        let found = self.get_mut(inode)?;
        found.modified = SystemTime::now();
        found.bytes.as_mut().ok_or_else(|| errno(libc::EISDIR))
    }

    fn check_empty(&self, inode: u64) -> io::Result<()> {
        match self.names.list(inode).next() {
            Some(_) => Err(errno(libc::ENOTEMPTY)),
            None => Ok(()),
        }
    }

    /// Drops what nobody has open, and no power cut can bring back.
    fn collect(&mut self) {
        let named = self.names.inodes();
        let is_gone = |(inode, found): &(&u64, &Inode)| {
            **inode != ROOT && found.opens == 0 && !named.contains(inode)
        };
        let gone: Vec<u64> = self
            .inodes
            .iter()
            .filter(is_gone)
            .map(|(n, _)| *n)
            .collect();
        for inode in gone {
            if self
                .inodes
                .remove(&inode)
                .is_some_and(|i| i.bytes.is_some())
            {
                // one that stays is in nobody's way
                let _ = std::fs::remove_file(self.file_of(inode));
            }
        }
    }

    fn file_of(&self, inode: u64) -> PathBuf {
        self.backing.join(inode.to_string())
    }
}

impl Inode {
    fn new(bytes: Option<Bytes>, mode: u32) -> Self {
        Inode {
            bytes,
            mode: mode & 0o7777,
            modified: SystemTime::now(),
            opens: 0,
        }
    }
}
