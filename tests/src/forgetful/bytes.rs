//! The bytes of one file of a forgetful disk, with what is needed to undo what was not
//! synced.

use crate::random::Random;
use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// What a disk writes whole or not at all.
pub const SECTOR: u64 = 512;

/// A file: its bytes as programs see them, and how to take back the changes since the
/// last sync.
#[derive(Debug)]
pub struct Bytes {
    file: File,
    len: u64,
    changes: Vec<Change>,
}

/// One change of the bytes: those at `offset` were `old`, up to the end of the file that
/// was `old_len` long.
#[derive(Debug)]
struct Change {
    offset: u64,
    /// Bytes that are new, from `offset`.
    len: u64,
    old: Vec<u8>,
    old_len: u64,
    new_len: u64,
}

impl Bytes {
    /// Makes an empty file.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut options = File::options();
        let file = options.read(true).write(true).create_new(true).open(path)?;
        Ok(Bytes {
            file,
            len: 0,
            changes: Vec::new(),
        })
    }

    /// Length in bytes.
    pub fn size(&self) -> u64 {
        self.len
    }

    /// Changes since the last sync.
    pub fn unsynced(&self) -> usize {
        self.changes.len()
    }

    /// Bytes from `offset`, fewer than `len` at the end of the file.
    ///
    /// # Errors
    /// When they cannot be read.
    pub fn read(&self, offset: u64, len: u64) -> io::Result<Vec<u8>> {
        let len = len.min(self.len.saturating_sub(offset));
        let mut bytes = vec![0; len as usize];
        self.file.read_exact_at(&mut bytes, offset)?;
        Ok(bytes)
    }

    /// Writes bytes.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let end = offset + bytes.len() as u64;
        self.note(offset, bytes.len() as u64, self.len.max(end))?;
        self.file.write_all_at(bytes, offset)?;
        self.len = self.len.max(end);
        Ok(())
    }

    /// Makes it shorter or longer.
    ///
    /// # Errors
    /// When that fails.
    pub fn set_len(&mut self, len: u64) -> io::Result<()> {
        if len != self.len {
            let gone = self.len.saturating_sub(len);
            self.note(self.len.min(len), gone, len)?;
            self.file.set_len(len)?;
            self.len = len;
        }
        Ok(())
    }

    fn note(&mut self, offset: u64, len: u64, new_len: u64) -> io::Result<()> {
        let old = self.read(offset, len)?;
        self.changes.push(Change {
            offset,
            len,
            old,
            old_len: self.len,
            new_len,
        });
        Ok(())
    }

    /// Everything until now is durable.
    pub fn sync(&mut self) {
        self.changes.clear();
    }

    /// Loses power, and with it each change since the last sync.
    ///
    /// # Errors
    /// When the bytes cannot be read or written.
    pub fn forget_all(&mut self) -> io::Result<()> {
        self.undo_to(0)
    }

    /// Loses power: what was not synced is there or not, in one of the ways in which a
    /// disk and a kernel's cache may leave it.
    ///
    /// # Errors
    /// When the bytes cannot be read or written.
    pub fn forget(&mut self, random: &mut Random) -> io::Result<()> {
        let count = self.changes.len() as u64;
        let shrank = self.changes.iter().any(|c| c.new_len < c.old_len);
        match random.below(4) {
            _ if count == 0 => {}
            0 => self.undo_to(0)?,
            1 => self.undo_to(random.below(count + 1) as usize)?,
            // what is cut off cannot be told from what is not written
            2 if !shrank => self.scatter(random)?,
            _ => {
                self.undo_to(1 + random.below(count) as usize)?;
                self.tear(random)?;
            }
        }
        self.changes.clear();
        Ok(())
    }

    /// Takes back the changes from that one on.
    fn undo_to(&mut self, kept: usize) -> io::Result<()> {
        for change in self.changes.drain(kept..).rev() {
            self.file.set_len(change.old_len)?;
            self.file.write_all_at(&change.old, change.offset)?;
            self.len = change.old_len;
        }
        Ok(())
    }

    /// Takes back parts of the last change: all sectors from one on, and the length too,
    /// or some sectors.
    fn tear(&mut self, random: &mut Random) -> io::Result<()> {
        let Some(last) = self.changes.pop() else {
            return Ok(());
        };
        if last.new_len < last.old_len {
            return Ok(());
        }
        let end = last.offset + last.len;
        let sectors: Vec<u64> = (last.offset / SECTOR..end.div_ceil(SECTOR)).collect();
        let cut = random.below(sectors.len() as u64 + 1) as usize;
        if random.below(2) == 0 {
            for &sector in &sectors[cut..] {
                self.restore(&last, sector)?;
            }
            let written = sectors.get(cut).map_or(end, |sector| sector * SECTOR);
            self.len = self.len.min(written.max(last.old_len));
            return self.file.set_len(self.len);
        }
        for sector in sectors {
            if random.below(2) == 0 {
                self.restore(&last, sector)?;
            }
        }
        Ok(())
    }

    /// Gives a sector the bytes that it had before a change; behind the old end, zeros.
    fn restore(&self, change: &Change, sector: u64) -> io::Result<()> {
        let from = (sector * SECTOR).max(change.offset);
        let to = ((sector + 1) * SECTOR).min(change.offset + change.len);
        let bytes = (from..to).map(|at| {
            let at = (at - change.offset) as usize;
            change.old.get(at).copied().unwrap_or(0)
        });
        let bytes: Vec<u8> = bytes.collect();
        self.file.write_all_at(&bytes, from)
    }

    /// Keeps some of all sectors that were written since the last sync, in no order, and
    /// the old length or the new one.
    fn scatter(&mut self, random: &mut Random) -> io::Result<()> {
        let mut sectors = BTreeSet::new();
        for change in &self.changes {
            let end = change.offset + change.len;
            sectors.extend(change.offset / SECTOR..end.div_ceil(SECTOR));
        }
        sectors.retain(|_| random.below(2) == 0);
        let kept: io::Result<Vec<_>> = sectors
            .into_iter()
            .map(|sector| Ok((sector * SECTOR, self.read(sector * SECTOR, SECTOR)?)))
            .collect();
        let (kept, new_len) = (kept?, self.len);
        self.undo_to(0)?;
        if random.below(2) == 0 {
            self.len = new_len;
        }
        for (at, mut bytes) in kept {
            bytes.truncate(self.len.saturating_sub(at) as usize);
            self.file.write_all_at(&bytes, at)?;
        }
        self.file.set_len(self.len)
    }
}
