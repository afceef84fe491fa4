//! Writes the records of one batch to a segment's file.
//!
//! Short records are gathered into few calls and stay in the page cache, since they
//! are often read soon after. The pages of long records are dropped once they are on
//! disk, so that a stream neither displaces pages that are read nor pays for pages
//! that it will not use. The first and the last page of a long record stay: the next
//! record shares the last one.
//!
//! Nothing is synced here; an error leaves the records written in part.

use crate::record::{self, PAGE_LEN};
use crate::sys;
use std::fs::File;
use std::io::{self, IoSlice};

/// Bytes after which the disk is set to work while the rest is copied.
const WRITE_BACK_LEN: usize = 1 << 20;
/// The pages of payloads from this length on are not kept in the page cache.
const PASS_LEN: usize = 1 << 20;
/// Batches from this length on are not followed by zeros: beside such a write
/// the change of the file's extents is cheap, and zeros would be as long.
const AHEAD_BATCH_MAX: u64 = 256 << 10;
/// Zeros written after a batch serve about this many batches like it.
const AHEAD_BATCHES: u64 = 16;
const AHEAD_LEN_MIN: u64 = 64 << 10;
const AHEAD_LEN_MAX: u64 = 1 << 20;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The end of the write for a batch that ends at `end`. A write ends at a whole page,
/// so that no page has to be read first. Where it would go beyond `written`, zeros
/// follow it: the syncs of the next small batches then change no metadata of the file
/// system, which makes them three times as fast.
pub(crate) fn write_end(end: u64, batch_len: u64, written: u64) -> u64 {
    let page_end = end.next_multiple_of(PAGE_LEN as u64);
    if page_end <= written || batch_len >= AHEAD_BATCH_MAX {
        return page_end;
    }
    page_end + (batch_len * AHEAD_BATCHES).clamp(AHEAD_LEN_MIN, AHEAD_LEN_MAX)
}

/// The write of one batch.
pub(crate) struct Appender<'a> {
    file: &'a File,
    /// Offset of the first gathered byte.
    from: u64,
    gathered: Vec<IoSlice<'a>>,
    gathered_len: usize,
}

impl<'a> Appender<'a> {
    /// Appends to `file` from `at` on.
    pub fn new(file: &'a File, at: u64) -> Self {
        Appender {
            file,
            from: at,
            gathered: Vec::new(),
            gathered_len: 0,
        }
    }

    /// Offset of the next byte.
    pub fn end(&self) -> u64 {
        self.from + self.gathered_len as u64
    }

    /// Appends one record with its padding.
    pub fn record(&mut self, head: &'a [u8], data: &'a [u8]) -> io::Result<()> {
        let len = (head.len() + data.len()) as u64;
        let pad = (record::align(len) - len) as usize;
        self.gather(head);
        if data.len() >= PASS_LEN {
            self.pass(data)?;
        } else {
            self.gather(data);
        }
        self.gather(&ZEROS[..pad]);
        if self.gathered_len >= WRITE_BACK_LEN {
            let (from, len) = (self.from, self.gathered_len as u64);
            self.flush()?;
            sys::start_write_back(self.file, from, len);
        }
        Ok(())
    }

    /// Writes the gathered rest, and zeros up to `to`.
    pub fn finish(mut self, to: u64) -> io::Result<()> {
        for at in (self.end()..to).step_by(ZEROS.len()) {
            let len = (to - at).min(ZEROS.len() as u64);
            self.gather(&ZEROS[..len as usize]);
        }
        self.flush()
    }

    fn gather(&mut self, bytes: &'a [u8]) {
        if !bytes.is_empty() {
            self.gathered.push(IoSlice::new(bytes));
            self.gathered_len += bytes.len();
        }
    }

    /// Writes the whole pages of `data` past the page cache, its ends as usual.
    fn pass(&mut self, data: &'a [u8]) -> io::Result<()> {
        let page = PAGE_LEN as usize;
        let first = self.end().next_multiple_of(page as u64) - self.end();
        let (first, rest) = data.split_at(first as usize);
        let (pages, last) = rest.split_at(rest.len() - rest.len() % page);
        self.gather(first);
        self.flush()?;
        for piece in pages.chunks(WRITE_BACK_LEN) {
            sys::write_passing_at(self.file, piece, self.from)?;
            self.from += piece.len() as u64;
        }
        self.gather(last);
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        sys::write_all_at(self.file, &mut self.gathered[..], self.from)?;
        self.from += self.gathered_len as u64;
        self.gathered.clear();
        self.gathered_len = 0;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn zeros_go_ahead_of_small_batches_only() {
        const KIB: u64 = 1 << 10;
        // Nothing is written yet: 16 KiB and zeros for sixteen like it.
        assert_eq!(write_end(16 * KIB, 16 * KIB, 0), (16 + 256) * KIB);
        // Inside what is written: up to the page's end.
        assert_eq!(write_end(33 * KIB, 17 * KIB, 272 * KIB), 36 * KIB);
        // Tiny and middling ones have limits.
        assert_eq!(write_end(100, 100, 0), (4 + 64) * KIB);
        assert_eq!(write_end(200 * KIB, 200 * KIB, 0), (200 + 1024) * KIB);
        // A long one goes without.
        assert_eq!(write_end(4100 * KIB + 1, 4100 * KIB, 0), 4104 * KIB);
    }

    #[test]
    fn records_of_any_length_follow_each_other_byte_by_byte() {
        let dir = tempfile::TempDir::new().unwrap();
        let path = dir.path().join("file");
        let mut expected = vec![7; 1000];
        fs::write(&path, &expected).unwrap();
        let file = fs::File::options().write(true).open(&path).unwrap();
        let lens = [5, PASS_LEN - 1, PASS_LEN, 3, 3 * PASS_LEN + 4097, 70_000, 0];
        let data: Vec<Vec<u8>> = lens
            .iter()
            .map(|&len| (0..len).map(|i| (i / 3) as u8).collect())
            .collect();
        let head = [9; 68];
        let mut appender = Appender::new(&file, 1000);
        for data in &data {
            expected.extend_from_slice(&head);
            expected.extend_from_slice(data);
            let len = 68 + data.len() as u64;
            expected.resize(expected.len() + (record::align(len) - len) as usize, 0);
            appender.record(&head, data).unwrap();
            assert_eq!(appender.end(), expected.len() as u64);
        }
        expected.resize(expected.len() + 100_000, 0);
        appender.finish(expected.len() as u64).unwrap();
        assert!(fs::read(&path).unwrap() == expected);
    }
}
