//! Reads of the archive queue.
//!
//! There are two lanes, each in order of time: files with a time of their own (asked for,
//! or tried again), then files that are due `archive_after` from their last change on.
//! That time is added here, so that a new value counts at once.

use super::queues::QUEUE_PAGE_MAX;
use crate::extents;
use crate::kv::{Read, StoreError, Table};
use crate::layout::rows::AttemptRow;
use crate::layout::{self, DUE_AFTER, DUE_AT, DUE_TOO_LARGE, part};
use crate::load::{self, find_inode};
use crate::txn::Outcome;
use lagan_types::limits::FILE_LEN_MAX;
use lagan_types::query::DueFile;
use lagan_types::{ChunkId, Content, Ino};

/// Uploads, longest under way first, among which one that still counts is looked for. Its
/// file is in no lane, perhaps for long if S3 is silent.
const ATTEMPTS_LOOKED_AT: usize = 64;

/// The lanes, in the order in which they are worked off.
const LANES: [u8; 2] = [DUE_AT, DUE_AFTER];

pub(super) fn due(store: &dyn Read, now_ms: u64, limit: u32) -> Outcome<Vec<DueFile>> {
    let limit = limit.min(QUEUE_PAGE_MAX) as usize;
    let mut scan = DueScan::new(now_ms);
    let mut files = Vec::new();
    while files.len() < limit {
        let page = scan.page(store, limit - files.len())?;
        if page.is_empty() {
            break;
        }
        files.extend(page);
    }
    Ok(files)
}

/// Files that S3 cannot take as they are.
pub(super) fn too_large(store: &dyn Read, limit: u32) -> Outcome<Vec<Ino>> {
    let limit = limit.min(QUEUE_PAGE_MAX) as usize;
    let rows = store.scan(Table::Due, &[DUE_TOO_LARGE], None, limit)?;
    let inos = rows.iter().map(|(key, _)| ino_of(key));
    Ok(inos.collect::<Result<_, _>>()?)
}

/// The time at which the first file is due, and the change of the file that waits
/// longest, as far as the first of each lane and of the uploads under way tell; `None`:
/// none waits.
pub(super) fn oldest(store: &dyn Read) -> Result<Option<(u64, u64)>, StoreError> {
    let after_ms = load::counters(store)?.archive_after_ms;
    let mut oldest: Option<(u64, u64)> = None;
    for lane in LANES {
        let first = store.scan(Table::Due, &[lane], Some(&[lane + 1]), 1)?;
        let Some((key, _)) = first.first() else {
            continue;
        };
        let ms = part(Table::Due, key, 1)?;
        let (due, changed) = match lane {
            DUE_AFTER => (ms.saturating_add(after_ms), ms),
            _ => {
                let inode = find_inode(store, ino_of(key)?)?;
                (ms, inode.map_or(ms, |i| i.ctime.as_millis()))
            }
        };
        oldest = Some(earlier(oldest, (due, changed)));
    }
    for (_, value) in store.scan(Table::Attempt, &[], None, ATTEMPTS_LOOKED_AT)? {
        let attempt: AttemptRow = layout::decode(Table::Attempt, &value)?;
        let inode = find_inode(store, attempt.ino)?;
        // Those of files that went or changed stay until their uploader has ended.
        if let Some(inode) = inode.filter(|i| i.version == attempt.version) {
            oldest = Some(earlier(
                oldest,
                (attempt.started_ms, inode.ctime.as_millis()),
            ));
            break;
        }
    }
    Ok(oldest)
}

/// The earlier of each.
fn earlier(known: Option<(u64, u64)>, (due, changed): (u64, u64)) -> (u64, u64) {
    known.map_or((due, changed), |k| (k.0.min(due), k.1.min(changed)))
}

/// Walks the archive queue page by page, longest due first in each lane, so that the
/// leader need not read the whole queue to find some uploads for one node.
#[derive(Debug, Clone)]
pub struct DueScan {
    now_ms: u64,
    /// Lanes that are finished.
    done: usize,
    /// The next key of the lane; empty: the lane's start.
    from: Vec<u8>,
}

impl DueScan {
    /// A walk over the files that are due at that time.
    pub fn new(now_ms: u64) -> Self {
        DueScan {
            now_ms,
            done: 0,
            from: Vec::new(),
        }
    }

    /// The same walk, continued at a later time.
    pub fn at(self, now_ms: u64) -> Self {
        DueScan { now_ms, ..self }
    }

    /// Whether this walk has come further in the queue than `other`.
    pub fn is_behind(&self, other: &DueScan) -> bool {
        (self.done, &self.from) > (other.done, &other.from)
    }

    /// Up to `limit` more files. Empty: no more.
    ///
    /// # Errors
    /// The store's.
    pub fn page(&mut self, store: &dyn Read, limit: usize) -> Result<Vec<DueFile>, StoreError> {
        let after_ms = load::counters(store)?.archive_after_ms;
        while let Some(&lane) = LANES.get(self.done) {
            let added_ms = if lane == DUE_AFTER { after_ms } else { 0 };
            let mut files = Vec::new();
            // before that much time has passed since 1970, nothing is due
            if let Some(until_ms) = self.now_ms.checked_sub(added_ms) {
                if self.from.is_empty() {
                    self.from.push(lane);
                }
                let rows = store.scan(Table::Due, &self.from, Some(&end(lane, until_ms)), limit)?;
                for (key, _) in &rows {
                    files.extend(due_file(store, key, added_ms)?);
                }
                if let Some((last, _)) = rows.into_iter().next_back() {
                    self.from = last;
                    self.from.push(0); // the next key there can be
                }
            }
            if !files.is_empty() {
                return Ok(files);
            }
            self.done += 1;
            self.from.clear();
        }
        Ok(Vec::new())
    }
}

/// The end of a lane's keys up to and with a time.
fn end(lane: u8, until_ms: u64) -> Vec<u8> {
    match until_ms.checked_add(1) {
        Some(end_ms) => [&[lane], &end_ms.to_be_bytes()[..]].concat(),
        None => vec![lane + 1],
    }
}

fn ino_of(key: &[u8]) -> Result<Ino, StoreError> {
    part(Table::Due, key, 9).map(Ino)
}

fn due_file(store: &dyn Read, key: &[u8], added_ms: u64) -> Result<Option<DueFile>, StoreError> {
    let ino = ino_of(key)?;
    let Some(inode) = find_inode(store, ino)? else {
        return Ok(None);
    };
    Ok(Some(DueFile {
        ino,
        version: inode.version,
        size: inode.size,
        due_ms: part(Table::Due, key, 1)?.saturating_add(added_ms),
        chunk: first_chunk(store, ino)?,
    }))
}

/// The chunk of the file's first extent.
fn first_chunk(store: &dyn Read, ino: Ino) -> Result<Option<ChunkId>, StoreError> {
    let first = extents::starting_in(store, ino, 0..FILE_LEN_MAX, 1)?;
    Ok(first.first().and_then(|e| match e.content {
        Content::Chunk { id, .. } => Some(id),
        _ => None,
    }))
}
