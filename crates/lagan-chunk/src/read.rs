//! Reading: blocks of a chunk, verification, listing.

use crate::error::ChunkError;
use crate::index::Place;
use crate::inner::Inner;
use crate::record::{self, Header, Kind};
use crate::segment::Segment;
use crate::state::Delta;
use crate::sys;
use bytes::Bytes;
use lagan_types::chunk::{combine_crcs, verify_blocks};
use lagan_types::limits::BLOCK_LEN;
use lagan_types::{BlockId, ChunkId, SetId, VolumeId};
use std::fs::File;
use std::io;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Files of segments that are held open, at most and about.
const OPEN_FILES_MAX: usize = 512;
/// How often a look-up is repeated when compaction moves the chunk meanwhile.
const TRIES_MAX: usize = 16;

/// Whole blocks of a chunk with their CRCs, not verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BlockRange {
    /// Bytes of the whole chunk.
    pub chunk_len: u32,
    /// Number of the first block.
    pub first_block: u32,
    /// One CRC per block.
    pub crcs: Vec<u32>,
    /// The blocks; the chunk's last one may be short.
    pub data: Bytes,
}

/// A chunk's place with its segment's file. The segment is pinned.
pub(crate) struct Located {
    pub place: Place,
    pub file: Arc<File>,
    _pin: Pin,
}

/// A segment whose file is not reused while this lives.
struct Pin {
    _segment: Arc<Segment>,
    count: Arc<AtomicUsize>,
}

impl Pin {
    fn new(inner: &Inner, segment: Arc<Segment>) -> Self {
        inner.pins.fetch_add(1, Ordering::Relaxed);
        Pin {
            _segment: segment,
            count: inner.pins.clone(),
        }
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Finds a chunk and pins its segment.
fn locate(inner: &Inner, id: ChunkId) -> Result<Located, ChunkError> {
    for _ in 0..TRIES_MAX {
        let place = inner.lookup(id)?.ok_or(ChunkError::NotFound(id))?;
        let segment = inner
            .state
            .lock()
            .segments
            .get(&place.at.generation)
            .cloned();
        let Some(segment) = segment else {
            std::thread::yield_now();
            continue;
        };
        match segment.file() {
            Ok((file, opened)) => {
                if opened {
                    limit_open_files(inner);
                }
                return Ok(Located {
                    place,
                    file,
                    _pin: Pin::new(inner, segment),
                });
            }
            // The segment was retired after the look-up.
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => return Err(ChunkError::io("open a segment", e)),
        }
    }
    Err(ChunkError::Corrupt(id))
}

fn limit_open_files(inner: &Inner) {
    if inner.open_files.fetch_add(1, Ordering::Relaxed) < OPEN_FILES_MAX {
        return;
    }
    let state = inner.state.lock();
    let open = state.segments.values().filter(|s| s.close_if_idle());
    inner.open_files.store(open.count(), Ordering::Relaxed);
}

/// The header at the start of `bytes`, if it belongs to that chunk at that place.
fn check_head(bytes: &[u8], id: ChunkId, place: Place) -> Result<Header, ChunkError> {
    record::parse_head(bytes)
        .filter(|h| h.kind == Kind::Chunk && h.id == id && h.at == place.at)
        .filter(|h| h.len == place.len && h.crc == place.crc)
        .ok_or(ChunkError::Corrupt(id))
}

/// Reads a number of bytes at an offset, fewer only at the file's end.
type ReadAt = fn(&File, u64, usize) -> io::Result<Vec<u8>>;

/// The blocks that cover `offset..offset + len`, cut at the chunk's end.
pub(crate) fn read(
    inner: &Inner,
    id: ChunkId,
    offset: u32,
    len: u32,
) -> Result<BlockRange, ChunkError> {
    let in_memory = || read_staged(inner, id, offset, len);
    let located = match locate(inner, id) {
        Err(ChunkError::NotFound(_)) => match in_memory() {
            Some(range) => return Ok(range),
            // It may have come to disk since.
            None => locate(inner, id)?,
        },
        located => located?,
    };
    cover(&located, id, (offset, len), sys::read_at)
}

/// Does what [`read`] does for a chunk in memory, which is one block.
fn read_staged(inner: &Inner, id: ChunkId, offset: u32, len: u32) -> Option<BlockRange> {
    let (data, crc) = inner.staged.get(id)?;
    let chunk_len = data.len() as u32;
    let none = offset >= chunk_len || len == 0;
    Some(BlockRange {
        chunk_len,
        first_block: 0,
        crcs: if none { Vec::new() } else { vec![crc] },
        data: if none { Bytes::new() } else { data },
    })
}

/// Does what [`read`] does if everything it needs is in memory, else nothing.
pub(crate) fn read_now(inner: &Inner, id: ChunkId, offset: u32, len: u32) -> Option<BlockRange> {
    if let Some(range) = read_staged(inner, id, offset, len) {
        return Some(range);
    }
    let (place, segment) = {
        let state = inner.state.lock();
        let place = state.get(id)??;
        (place, state.segments.get(&place.at.generation)?.clone())
    };
    let located = Located {
        place,
        file: segment.open_file()?,
        _pin: Pin::new(inner, segment),
    };
    cover(&located, id, (offset, len), sys::read_now_at).ok()
}

fn cover(
    located: &Located,
    id: ChunkId,
    (offset, len): (u32, u32),
    read_at: ReadAt,
) -> Result<BlockRange, ChunkError> {
    let chunk_len = located.place.len;
    let end = offset.saturating_add(len).min(chunk_len);
    if offset >= end {
        return Ok(BlockRange {
            chunk_len,
            first_block: offset.min(chunk_len) / BLOCK_LEN,
            crcs: Vec::new(),
            data: Bytes::new(),
        });
    }
    let blocks = offset / BLOCK_LEN..end.div_ceil(BLOCK_LEN);
    read_blocks(located, id, blocks, read_at)
}

fn read_blocks(
    located: &Located,
    id: ChunkId,
    blocks: std::ops::Range<u32>,
    read_at: ReadAt,
) -> Result<BlockRange, ChunkError> {
    let place = located.place;
    let (from, to) = (
        blocks.start * BLOCK_LEN,
        (blocks.end * BLOCK_LEN).min(place.len),
    );
    let head_len = (record::HEAD_LEN + 4 * place.len.div_ceil(BLOCK_LEN)) as usize;
    let at = place.at.offset as u64;
    let get = |at, len| {
        let bytes = read_at(&located.file, at, len);
        bytes.map_err(|e| ChunkError::io("read a chunk", e))
    };
    // One call where header and data lie together.
    let near = if from == 0 { to as usize } else { 0 };
    let mut bytes = Bytes::from(get(at, head_len + near)?);
    let header = check_head(&bytes, id, place)?;
    let crcs = record::parse_crcs(&bytes, &header);
    let crcs = crcs.get(blocks.start as usize..blocks.end as usize);
    let crcs = crcs.ok_or(ChunkError::Corrupt(id))?.to_vec();
    let data = match from {
        0 => bytes.split_off(head_len.min(bytes.len())),
        _ => Bytes::from(get(
            at + head_len as u64 + from as u64,
            (to - from) as usize,
        )?),
    };
    if data.len() != (to - from) as usize {
        return Err(ChunkError::Corrupt(id));
    }
    Ok(BlockRange {
        chunk_len: place.len,
        first_block: blocks.start,
        crcs,
        data,
    })
}

/// Reads a chunk and checks all its CRCs.
pub(crate) fn verify(inner: &Inner, id: ChunkId) -> Result<(), ChunkError> {
    if inner.staged.content(id).is_some() {
        // It is in memory; the leader has checked it before it came into the log.
        return Ok(());
    }
    let located = locate(inner, id)?;
    let len = located.place.len;
    let range = read_blocks(&located, id, 0..len.div_ceil(BLOCK_LEN), sys::read_at)?;
    let right = combine_crcs(&range.crcs, len) == Some(located.place.crc)
        && verify_blocks(&range.data, &range.crcs);
    if right {
        Ok(())
    } else {
        Err(ChunkError::Corrupt(id))
    }
}

/// The ids after `after`, only those of `set` if it is given: those in memory, too.
pub(crate) fn list(
    inner: &Inner,
    set: Option<SetId>,
    after: Option<ChunkId>,
    limit: usize,
) -> Result<Vec<(ChunkId, u32)>, ChunkError> {
    // First memory: what comes to disk meanwhile is found there.
    let mut all = inner.staged.list(set, after);
    let on_disk = list_disk(inner, set, after, limit)?;
    if on_disk.len() >= limit
        && let Some(&(last, _)) = on_disk.last()
    {
        all.retain(|id, _| *id <= last);
    }
    all.extend(on_disk);
    Ok(all.into_iter().take(limit).collect())
}

fn list_disk(
    inner: &Inner,
    set: Option<SetId>,
    after: Option<ChunkId>,
    limit: usize,
) -> Result<Vec<(ChunkId, u32)>, ChunkError> {
    let mut out = Vec::new();
    let mut from = after.map_or(Bound::Unbounded, Bound::Excluded);
    while out.len() < limit {
        let Some(next) = list_run(inner, set, from, limit, &mut out)? else {
            break;
        };
        from = Bound::Included(next);
    }
    Ok(out)
}

/// Appends a run of wanted ids and says where to go on: ids are ordered by
/// volume before set, so those of one set are in several runs.
fn list_run(
    inner: &Inner,
    set: Option<SetId>,
    from: Bound<ChunkId>,
    limit: usize,
    out: &mut Vec<(ChunkId, u32)>,
) -> Result<Option<ChunkId>, ChunkError> {
    for row in merged(inner, from) {
        let (id, place) = row?;
        match set {
            Some(set) if id.set() != set => return Ok(first_of_set(id, set)),
            _ => out.push((id, place.len)),
        }
        if out.len() >= limit {
            break;
        }
    }
    Ok(None)
}

/// The lowest possible id of `set` after `id`, which is of another set.
fn first_of_set(id: ChunkId, set: SetId) -> Option<ChunkId> {
    let volume = match id.set() < set {
        true => id.volume(),
        false => VolumeId(id.volume().0.checked_add(1)?),
    };
    Some(ChunkId::new(volume, set, BlockId(0), 0))
}

/// All chunks from `from` on in order of id, memory laid over disk.
fn merged(
    inner: &Inner,
    from: Bound<ChunkId>,
) -> impl Iterator<Item = Result<(ChunkId, Place), ChunkError>> {
    let mut memory = Delta::new();
    {
        let state = inner.state.lock();
        let range = (from, Bound::Unbounded);
        for frozen in &state.frozen {
            memory.extend(frozen.delta.range(range).map(|(k, v)| (*k, *v)));
        }
        memory.extend(state.delta.range(range).map(|(k, v)| (*k, *v)));
    }
    let mut disk = inner.index.range(from).peekable();
    std::iter::from_fn(move || {
        loop {
            let in_memory = memory.first_key_value().map(|(id, _)| *id);
            let on_disk = match disk.peek() {
                Some(Ok((id, _))) => Some(*id),
                Some(Err(_)) => return disk.next(),
                None => None,
            };
            let Some(id) = in_memory else {
                return disk.next();
            };
            if on_disk.is_some_and(|d| d < id) {
                return disk.next();
            }
            if on_disk == Some(id) {
                disk.next();
            }
            if let Some((id, Some(place))) = memory.pop_first() {
                return Some(Ok((id, place)));
            }
        }
    })
}
