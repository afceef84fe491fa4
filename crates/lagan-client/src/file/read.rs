//! Reads: this mount's own unflushed bytes over chunks, objects and holes.
//!
//! A file whose present version is archived has its bytes in two places: where no replica
//! of a chunk is good, or none can be reached, they are read from the object.

use crate::chunks::blocks::UNIT_LEN;
use crate::chunks::range::Ask;
use crate::chunks::spec::Missing;
use crate::file::Files;
use crate::file::handle::Handle;
use crate::file::inode::{Inode, InodeState};
use crate::file::map::{FileMap, Part, Source};
use crate::leader::link::data_error;
use bytes::{Bytes, BytesMut};
use lagan_types::limits::{CHUNK_LEN_MAX, EXTENTS_PAGE_MAX, FILE_LEN_MAX};
use lagan_types::query::Extents;
use lagan_types::{FsError, Ino};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A read fetches the map again so often, at most, after "not found".
const MAP_RETRIES: u32 = 3;
/// Wait before the second of these and later ones: the file may be changing right now.
const MAP_PAUSE: Duration = Duration::from_millis(200);

/// The parts of a read.
struct View {
    /// The data version of these extents.
    version: u64,
    /// The parts that the file's extents give.
    parts: Vec<Part>,
    /// This mount's own bytes, later ones over earlier ones.
    overlay: Vec<(u64, Bytes)>,
    /// The read ends here: at `offset + len` or at the end of the file.
    end: u64,
}

impl Files {
    /// Reads at most `len` bytes; fewer only at the end of the file. The access time stays.
    ///
    /// # Errors
    /// [`FsError::Corrupt`] if the bytes are lost or wrong everywhere,
    /// [`FsError::Io`] at the deadline and after the end of the handle's session.
    pub async fn read(&self, handle: &Handle, offset: u64, len: u32) -> Result<Bytes, FsError> {
        handle.check()?;
        if offset >= FILE_LEN_MAX {
            return Ok(Bytes::new());
        }
        let until = self.leader.deadline();
        let inode = &handle.inode;
        if !inode.state.lock().appends.is_empty() {
            // An error is told by the flush of the handle that wrote.
            let _ = self.flush_inode(inode, until).await;
        }
        let len = len.min(CHUNK_LEN_MAX);
        let sequential = handle.ahead.lock().next == offset;
        // The kernel does not ask for attributes before reads of these.
        let mut refetch = handle.is_direct();
        let (mut first, mut nowhere) = (true, 0);
        loop {
            let view = self.view(inode, offset, len, refetch, until).await?;
            let ask = Ask {
                version: view.version,
                whole: sequential,
                sure: !first,
                until,
            };
            match self.fill(inode.ino, ask, &view, offset).await {
                Ok(bytes) => {
                    self.read_ahead(handle, offset, view.end);
                    return Ok(bytes);
                }
                Err(Missing::Failed(error)) => return Err(error),
                Err(Missing::NotFound { everywhere }) => nowhere += u32::from(everywhere),
                // That ends only with the time for it.
                Err(Missing::Unreachable) => return Err(FsError::Io),
            }
            if nowhere > MAP_RETRIES {
                tracing::error!(ino = %inode.ino, off = offset, "no replica has what the file names");
                return Err(FsError::Corrupt);
            }
            if Instant::now() >= until {
                return Err(FsError::Io);
            }
            if !std::mem::take(&mut first) {
                tokio::time::sleep(MAP_PAUSE).await;
            }
            inode.state.lock().map = None;
            refetch = true;
        }
    }

    /// Finds out what the range consists of, at the newest version known now or later.
    async fn view(
        &self,
        inode: &Arc<Inode>,
        offset: u64,
        len: u32,
        mut refetch: bool,
        until: Instant,
    ) -> Result<View, FsError> {
        let need = inode.state.lock().version;
        loop {
            let newest = inode.state.lock().map.as_ref().map_or(0, FileMap::version);
            if !inode.settled(newest, until).await {
                return Err(FsError::Io);
            }
            let (view, missing) = {
                let state = inode.state.lock();
                let sure = |m: &&FileMap| m.version() >= need && !state.is_unsettled(m.version());
                let map = state.map.as_ref().filter(sure);
                let end = offset + len as u64;
                match map {
                    Some(map) if !refetch && map.covers(offset, end) => {
                        (Some(view_of(&state, map, offset, len)), 0)
                    }
                    Some(map) if !refetch => {
                        let at = map.known_to().clamp(offset, end);
                        (None, if map.covers(offset, at) { at } else { offset })
                    }
                    _ => (None, offset),
                }
            };
            if let Some(view) = view {
                return Ok(view);
            }
            self.fetch_map(inode, missing, until)
                .await
                .map_err(data_error)?;
            refetch = false;
        }
    }

    /// Fetches a page of extents that has `offset`, or leads there from what is known.
    pub(super) async fn fetch_map(
        &self,
        inode: &Inode,
        offset: u64,
        until: Instant,
    ) -> Result<(), FsError> {
        let offset = {
            let state = inode.state.lock();
            let map = state.map.as_ref().filter(|m| m.version() == state.version);
            map.map_or(offset, |m| m.fetch_from(offset))
        };
        self.fetch_page(inode, offset, until).await
    }

    /// Fetches the page of extents that starts exactly there.
    pub(super) async fn fetch_page(
        &self,
        inode: &Inode,
        offset: u64,
        until: Instant,
    ) -> Result<(), FsError> {
        let query = Extents {
            ino: inode.ino,
            offset,
            limit: EXTENTS_PAGE_MAX as u32,
        };
        let found = self.leader.query_by(query, until).await?;
        let page = FileMap::page(found.version, found.size, offset, found.extents, found.more);
        inode.state.lock().learn_map(page);
        Ok(())
    }

    async fn fill(&self, ino: Ino, ask: Ask, view: &View, offset: u64) -> Result<Bytes, Missing> {
        if view.end <= offset {
            return Ok(Bytes::new());
        }
        if let ([part], []) = (view.parts.as_slice(), view.overlay.as_slice())
            && part.len == view.end - offset
            && let Source::Chunk { chunk, at } = part.source
            && (at % UNIT_LEN) as u64 + part.len <= UNIT_LEN as u64
        {
            let chunk = chunk.named(ino, part.offset);
            return self.chunks.bytes(ask, chunk, at, part.len as u32).await;
        }
        self.prefetch_parts(ino, view.parts.iter().skip(1));
        let mut out = BytesMut::zeroed((view.end - offset) as usize);
        for part in &view.parts {
            if !view.hides(part) {
                let at = (part.offset - offset) as usize;
                let to = &mut out[at..at + part.len as usize];
                self.fill_part(ino, ask, part, to).await?;
            }
        }
        for (at, bytes) in &view.overlay {
            let at = (at - offset) as usize;
            out[at..at + bytes.len()].copy_from_slice(bytes);
        }
        Ok(out.freeze())
    }

    async fn fill_part(
        &self,
        ino: Ino,
        ask: Ask,
        part: &Part,
        mut out: &mut [u8],
    ) -> Result<(), Missing> {
        match part.source {
            Source::Hole => Ok(()),
            Source::Lost => Err(Missing::Failed(FsError::Corrupt)),
            Source::Object { version, at } => {
                let len = part.len as u32;
                let object = self.chunks.recall((ino, version), at, len, ask.until);
                out.copy_from_slice(&object.await?);
                Ok(())
            }
            Source::Chunk { chunk, at } => {
                if u64::from(at) + part.len > u64::from(chunk.len) {
                    return Err(Missing::Failed(FsError::Corrupt));
                }
                let (chunk, len) = (chunk.named(ino, part.offset), part.len as u32);
                self.chunks.range(ask, chunk, at, len, &mut out).await
            }
        }
    }

    /// Fetches what a sequential reader will ask for next.
    fn read_ahead(&self, handle: &Handle, offset: u64, end: u64) {
        let limit = self.read_ahead_bytes;
        let (from, to) = {
            let mut ahead = handle.ahead.lock();
            let len = end.saturating_sub(offset);
            let sequential = ahead.next == offset;
            ahead.next = end;
            if !sequential {
                ahead.run = 0;
                ahead.asked_to = end;
                return;
            }
            ahead.run += len;
            // One small read at the start may be all of it.
            if ahead.run <= len && end < UNIT_LEN as u64 {
                return;
            }
            let to = end + limit.min(ahead.run.max(UNIT_LEN as u64));
            let from = ahead.asked_to.max(end);
            // Not for every read: when half of it is used up.
            if limit == 0 || (ahead.asked_to > end && ahead.asked_to - end > (to - end) / 2) {
                return;
            }
            ahead.asked_to = to;
            (from, to)
        };
        let parts = {
            let state = handle.inode.state.lock();
            let map = state.map.as_ref().filter(|m| m.version() == state.version);
            map.map(|m| m.plan(from, m.known_to().min(to).saturating_sub(from)))
        };
        self.prefetch_parts(handle.inode.ino, parts.unwrap_or_default().iter());
    }

    fn prefetch_parts<'a>(&self, ino: Ino, parts: impl Iterator<Item = &'a Part>) {
        for part in parts {
            if let Source::Chunk { chunk, at } = part.source {
                let chunk = chunk.named(ino, part.offset);
                self.chunks.prefetch(chunk, at, part.len);
            }
        }
    }
}

impl View {
    /// Whether own bytes cover the part.
    fn hides(&self, part: &Part) -> bool {
        self.overlay.iter().any(|(at, bytes)| {
            *at <= part.offset && *at + bytes.len() as u64 >= part.offset + part.len
        })
    }
}

fn view_of(state: &InodeState, map: &FileMap, offset: u64, len: u32) -> View {
    let size = map.size().max(state.buffer.end());
    View {
        version: map.version(),
        parts: map.plan(offset, len as u64),
        overlay: state.buffer.overlay(offset, len as u64),
        end: (offset + len as u64).min(size),
    }
}
