//! A file's extents at one data version. Pure.

use crate::chunks::spec::ChunkSpec;
use lagan_types::extent::Edit;
use lagan_types::{Content, Extent};
use std::ops::Range;

/// Extents that one file may have cached: 1 GiB of whole chunks in a row and
/// far less than a megabyte of memory.
const EXTENTS_MAX: usize = 8192;

/// The extents of a range of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMap {
    version: u64,
    size: u64,
    /// All extents that touch `from..to`, in order of offset; none overlap, and none
    /// begins before `from`: a change there would not be followed.
    extents: Vec<Extent>,
    from: u64,
    /// `u64::MAX`: to the end of the file.
    to: u64,
}

/// A part of a read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// First byte in the file.
    pub offset: u64,
    /// Its length, never 0.
    pub len: u64,
    /// The place of its bytes.
    pub source: Source,
}

/// The place of a part's bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Nowhere: zeros.
    Hole,
    /// In a chunk.
    Chunk {
        /// The chunk, without a name.
        chunk: ChunkSpec,
        /// First byte in it.
        at: u32,
    },
    /// In an archived object.
    Object {
        /// The data version that was archived.
        version: u64,
        /// First byte in it.
        at: u64,
    },
    /// Lost: reading it fails.
    Lost,
}

impl FileMap {
    /// Makes the map of a file without extents.
    pub fn empty(version: u64, size: u64) -> Self {
        FileMap {
            version,
            size,
            extents: Vec::new(),
            from: 0,
            to: u64::MAX,
        }
    }

    /// Makes the map of a page of extents: all that end after `offset`, unless there are
    /// `more`. Extents that overlap or overflow are left out.
    pub fn page(
        version: u64,
        size: u64,
        offset: u64,
        mut extents: Vec<Extent>,
        more: bool,
    ) -> Self {
        let mut end = 0;
        extents.retain(|e| {
            let sound = e.offset >= end && e.offset.checked_add(e.len).is_some();
            end = if sound { e.offset + e.len } else { end };
            sound
        });
        let to = match (more, extents.last()) {
            (true, Some(last)) => last.end(),
            (true, None) => offset,
            (false, _) => u64::MAX,
        };
        let from = extents.first().map_or(offset, |e| e.offset.min(offset));
        FileMap {
            version,
            size,
            extents,
            from,
            to,
        }
    }

    /// Adds a page that continues this map; replaces it if the page does not.
    pub fn merge(&mut self, page: FileMap) {
        let follows = page.version == self.version
            && page.from <= self.to
            && page.from >= self.from
            && page.to >= self.to
            && self.extents.len() + page.extents.len() <= EXTENTS_MAX;
        if !follows {
            *self = page;
            return;
        }
        // Extents may have been made one since, or cut, at the same version.
        let kept = self.extents.partition_point(|e| e.offset < page.from);
        self.extents.truncate(kept);
        if let Some(last) = self.extents.last_mut().filter(|e| e.end() > page.from) {
            *last = cut(last, last.offset, page.from);
        }
        self.extents.extend(page.extents);
        self.to = page.to;
        self.size = page.size;
    }

    /// The data version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The file's size at that version.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether a read of `offset..end` finds all it needs here.
    pub fn covers(&self, offset: u64, end: u64) -> bool {
        let end = end.min(self.size);
        offset >= end || (self.from <= offset && end <= self.to)
    }

    /// The offset from which a fetch has to go on so that this map covers `offset`.
    pub fn fetch_from(&self, offset: u64) -> u64 {
        if self.from <= offset && offset >= self.to && self.extents.len() < EXTENTS_MAX / 2 {
            // A sequential reader runs off the end: continue there.
            if offset - self.to < 64 * 1024 * 1024 {
                return self.to;
            }
        }
        offset
    }

    /// Counts the extents of a range; `None` if they are not known.
    pub fn count_in(&self, range: &Range<u64>) -> Option<usize> {
        let end = range.end.min(self.size);
        let known = self.covers(range.start, end);
        let first = self.extents.partition_point(|e| e.end() <= range.start);
        let last = self.extents.partition_point(|e| e.offset < end);
        known.then(|| last.saturating_sub(first))
    }

    /// The extents of a range, cut to it; `None` if they are not known.
    pub fn extents_in(&self, range: &Range<u64>) -> Option<Vec<Extent>> {
        self.count_in(range)?;
        let end = range.end.min(self.size);
        let first = self.extents.partition_point(|e| e.end() <= range.start);
        let found = self.extents.iter().skip(first);
        let found = found.take_while(|e| e.offset < end);
        let found = found.map(|e| cut(e, e.offset.max(range.start), e.end().min(end)));
        Some(found.collect())
    }

    /// The extents at the file's end that are known and follow each other
    /// without a gap, the last one first.
    pub fn tail(&self) -> impl Iterator<Item = &Extent> {
        let mut end = self.size;
        let known = self.to == u64::MAX;
        let extents = self.extents.iter().rev().take_while(move |e| {
            let follows = e.end() == end;
            end = e.offset;
            follows
        });
        extents.filter(move |_| known)
    }

    /// Whether the end of the file is in the known range.
    pub fn knows_tail(&self) -> bool {
        self.to == u64::MAX && (self.from < self.size || self.from == 0)
    }

    /// Splits `offset..offset + len`, cut at the size, into its parts, without gaps.
    pub fn plan(&self, offset: u64, len: u64) -> Vec<Part> {
        let end = offset.saturating_add(len).min(self.size);
        let mut parts = Vec::new();
        let mut at = offset;
        let first = self.extents.partition_point(|e| e.end() <= offset);
        for extent in self.extents.iter().skip(first) {
            if extent.offset >= end || at >= end {
                break;
            }
            if extent.offset > at {
                parts.push(hole(at, extent.offset));
                at = extent.offset;
            }
            let to = extent.end().min(end);
            parts.push(Part {
                offset: at,
                len: to - at,
                source: source(extent, at),
            });
            at = to;
        }
        if at < end {
            parts.push(hole(at, end));
        }
        parts
    }

    /// Follows a commit of this mount that found the map's version: false if
    /// the map cannot be kept.
    pub fn follow(&mut self, edits: &[Edit], version: u64, size: u64) -> bool {
        for edit in edits {
            let end = edit.offset + edit.len;
            if end <= self.from || (edit.offset >= self.to && self.to != u64::MAX) {
                continue;
            }
            if edit.offset < self.from || end > self.to {
                return false;
            }
            self.apply(edit);
        }
        self.version = version;
        self.size = size;
        self.extents.len() <= EXTENTS_MAX
    }

    fn apply(&mut self, edit: &Edit) {
        let end = edit.offset + edit.len;
        let first = self.extents.partition_point(|e| e.end() <= edit.offset);
        let last = self.extents.partition_point(|e| e.offset < end);
        let mut put = Vec::with_capacity(3);
        if let Some(head) = self.extents.get(first).filter(|e| e.offset < edit.offset) {
            put.push(cut(head, head.offset, edit.offset));
        }
        if let Some(chunk) = &edit.content {
            put.push(Extent {
                offset: edit.offset,
                len: edit.len,
                content: Content::Chunk {
                    id: chunk.id,
                    skip: chunk.skip,
                    chunk_len: chunk.chunk_len,
                    chunk_crc: chunk.chunk_crc,
                },
            });
        }
        if last > first
            && let Some(tail) = self.extents.get(last - 1).filter(|e| e.end() > end)
        {
            put.push(cut(tail, end, tail.end()));
        }
        self.extents.splice(first..last.max(first), put);
    }

    /// Finds the first byte at or after `offset` that is data (or, without `data`,
    /// that is a hole). `None`: there is none below the known end. The size counts as a hole.
    pub fn seek(&self, offset: u64, data: bool) -> Option<u64> {
        if !self.covers(offset, offset.saturating_add(1)) {
            return None;
        }
        self.plan(offset, self.to.min(self.size).saturating_sub(offset))
            .iter()
            .find(|p| (p.source != Source::Hole) == data)
            .map(|p| p.offset)
    }

    /// The first byte that is not known, or the size.
    pub fn known_to(&self) -> u64 {
        self.to.min(self.size)
    }
}

fn hole(from: u64, to: u64) -> Part {
    Part {
        offset: from,
        len: to - from,
        source: Source::Hole,
    }
}

fn source(extent: &Extent, at: u64) -> Source {
    let into = at - extent.offset;
    if let Some((chunk, skip)) = ChunkSpec::of(&extent.content) {
        return match u32::try_from(into + u64::from(skip)) {
            Ok(at) if at < chunk.len => Source::Chunk { chunk, at },
            _ => Source::Lost,
        };
    }
    match extent.content {
        Content::Object { version, offset } => Source::Object {
            version,
            at: offset.saturating_add(into),
        },
        Content::Chunk { .. } | Content::Lost => Source::Lost,
    }
}

/// The part `from..to` of an extent.
fn cut(extent: &Extent, from: u64, to: u64) -> Extent {
    let into = from - extent.offset;
    let content = match &extent.content {
        Content::Chunk {
            id,
            skip,
            chunk_len,
            chunk_crc,
        } => Content::Chunk {
            id: *id,
            skip: skip.saturating_add(into as u32),
            chunk_len: *chunk_len,
            chunk_crc: *chunk_crc,
        },
        Content::Object { version, offset } => Content::Object {
            version: *version,
            offset: offset + into,
        },
        Content::Lost => Content::Lost,
    };
    Extent {
        offset: from,
        len: to - from,
        content,
    }
}

#[cfg(test)]
mod tests;
