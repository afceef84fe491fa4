//! Reads a segment's records back.
//!
//! A sealed segment has a table. In any other segment the scan walks the headers; at a
//! bad place it looks for the next good record, which says itself where it is and of
//! which generation. Bad bytes below the highest known frontier were on disk once:
//! they are rot. Bad bytes above it are the torn tail.
//!
//! ```text
//!   good   good   BAD   good(frontier F)   good   BAD   good
//!   |------------- < F: synced ------|--- data verified --|-- cut: never acknowledged
//!                 rot, reported                       ^ cut
//! ```

use crate::record::{self, ENTRY_LEN, Entry, FOOTER_LEN, Header, Kind, Position};
use crate::sys;
use lagan_types::ChunkId;
use std::fs::File;
use std::io;

/// Bytes read at once while looking for records.
const WINDOW_LEN: usize = 256 * 1024;

/// A segment's records.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Scan {
    /// The good ones, in order.
    pub entries: Vec<Entry>,
    /// Rotten ranges: offset and bytes.
    pub damage: Vec<(u32, u32)>,
    /// Where the last good one ends.
    pub end: u32,
    /// Whether the table was there.
    pub sealed: bool,
}

/// The records by the segment's table; `None` unless there is a good one.
pub(crate) fn load_table(file: &File, generation: u64, file_len: u64) -> io::Result<Option<Scan>> {
    let Some(footer_at) = file_len.checked_sub(FOOTER_LEN as u64) else {
        return Ok(None);
    };
    let footer = sys::read_at(file, footer_at, FOOTER_LEN as usize)?;
    let Some(offset) = record::decode_footer(&footer, generation) else {
        return Ok(None);
    };
    let at = Position { generation, offset };
    let head = sys::read_at(file, offset as u64, record::HEAD_LEN as usize)?;
    let Some(header) = record::parse_head(&head).filter(|h| h.kind == Kind::Table && h.at == at)
    else {
        return Ok(None);
    };
    let start = offset as u64 + record::HEAD_LEN as u64;
    if start + header.len as u64 > footer_at || !header.len.is_multiple_of(ENTRY_LEN) {
        return Ok(None);
    }
    let table = sys::read_at(file, start, header.len as usize)?;
    if table.len() != header.len as usize || crc32fast::hash(&table) != header.crc {
        return Ok(None);
    }
    Ok(record::decode_table(&table).map(|entries| Scan {
        entries,
        damage: Vec::new(),
        end: offset,
        sealed: true,
    }))
}

/// Reads a file in large windows.
struct Windows<'a> {
    file: &'a File,
    at: u64,
    bytes: Vec<u8>,
}

impl<'a> Windows<'a> {
    fn new(file: &'a File) -> Self {
        Windows {
            file,
            at: 0,
            bytes: Vec::new(),
        }
    }

    /// The bytes from `at` on: at least `want`, unless the file ends.
    fn get(&mut self, at: u64, want: usize) -> io::Result<&[u8]> {
        let have = at
            .checked_sub(self.at)
            .and_then(|skip| self.bytes.len().checked_sub(skip as usize));
        if have.is_none_or(|have| have < want) {
            self.bytes = sys::read_at(self.file, at, WINDOW_LEN.max(want))?;
            self.at = at;
        }
        let skip = (at - self.at) as usize;
        Ok(self.bytes.get(skip..).unwrap_or_default())
    }
}

/// Walks one segment.
struct Walk<'a> {
    windows: Windows<'a>,
    file: &'a File,
    generation: u64,
    file_len: u64,
}

impl Walk<'_> {
    /// The good record at `at`, if there is one. With `near` the bytes around it are
    /// read as well, since they are wanted next.
    fn header(&mut self, at: u64, near: bool) -> io::Result<Option<Header>> {
        let want = record::HEAD_LEN_MAX as usize;
        let bytes;
        let head = if near {
            self.windows.get(at, want)?
        } else {
            bytes = sys::read_at(self.file, at, want)?;
            &bytes
        };
        let Some(header) = record::parse_head(head) else {
            return Ok(None);
        };
        let right = header.at.generation == self.generation
            && header.at.offset as u64 == at
            && at + header.record_len() <= self.file_len;
        Ok(right.then_some(header))
    }

    /// The first good record from `at` on.
    fn next(&mut self, mut at: u64) -> io::Result<Option<Header>> {
        if at < self.file_len
            && let Some(header) = self.header(at, false)?
        {
            return Ok(Some(header));
        }
        while at < self.file_len {
            if let Some(header) = self.header(at, true)? {
                return Ok(Some(header));
            }
            at += record::ALIGN as u64;
        }
        Ok(None)
    }

    /// Whether a record's payload has its CRC.
    fn verify(&self, header: &Header) -> io::Result<bool> {
        let start = header.at.offset as u64 + header.head_len() as u64;
        let payload = sys::read_at(self.file, start, header.len as usize)?;
        Ok(payload.len() == header.len as usize && crc32fast::hash(&payload) == header.crc)
    }
}

/// The records of a segment by walking it.
///
/// The log up to `synced` is known to have been on disk. `last` says whether the
/// segment may have a torn tail; in any other segment everything was synced.
pub(crate) fn walk(
    file: &File,
    generation: u64,
    file_len: u64,
    synced: Position,
    last: bool,
) -> io::Result<Scan> {
    let mut walk = Walk {
        windows: Windows::new(file),
        file,
        generation,
        file_len,
    };
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(header) = walk.next(at)? {
        at = header.at.offset as u64 + header.record_len();
        if header.kind != Kind::Table {
            found.push(header);
        }
    }
    let frontiers = found.iter().map(|h| h.frontier).chain([synced]);
    let frontier = frontiers.filter(|f| f.generation == generation);
    let frontier = frontier.map(|f| f.offset).max().unwrap_or(0);
    sort_out(&walk, &found, if last { frontier } else { u32::MAX })
}

/// Splits what was found into records that count, rot, and the torn tail.
fn sort_out(walk: &Walk<'_>, found: &[Header], frontier: u32) -> io::Result<Scan> {
    let mut scan = Scan::default();
    for header in found {
        let offset = header.at.offset;
        if offset > scan.end {
            if scan.end >= frontier {
                break;
            }
            scan.damage.push((scan.end, offset - scan.end));
        }
        let end = offset as u64 + header.record_len();
        if end > frontier as u64 && !walk.verify(header)? {
            break;
        }
        scan.entries.push(Entry {
            kind: header.kind,
            offset,
            len: header.len,
            crc: header.crc,
            id: header.id,
        });
        scan.end = end as u32;
    }
    Ok(scan)
}

/// The entries of a deletes record; `None` if it is damaged.
pub(crate) fn load_deletes(
    file: &File,
    generation: u64,
    entry: &Entry,
) -> io::Result<Option<Vec<(ChunkId, u64)>>> {
    let len = record::HEAD_LEN as usize + entry.len as usize;
    let bytes = sys::read_at(file, entry.offset as u64, len)?;
    let at = Position {
        generation,
        offset: entry.offset,
    };
    let right = record::parse_head(&bytes)
        .is_some_and(|h| h.kind == Kind::Deletes && h.at == at && h.len == entry.len);
    let payload = bytes.get(record::HEAD_LEN as usize..len);
    Ok(payload
        .filter(|p| right && crc32fast::hash(p) == entry.crc)
        .and_then(record::decode_deletes))
}
