//! Written bytes of one file that no commit names yet. Pure.
//!
//! ```text
//! write -> live runs (mutable, one window each) -- freeze --> pieces (immutable, become one chunk each) -- commit --> gone
//! ```
//!
//! Live runs never overlap. Pieces may overlap each other: a later one wins,
//! and live runs win over all pieces. A piece is kept, with its bytes, until
//! the commit that names its chunk has succeeded, so that it can be sent again.

use crate::chunks::piece::Piece;
use bytes::{Bytes, BytesMut};
use lagan_types::limits::{CHUNK_LEN_MAX, COMMIT_EDITS_MAX};
use std::collections::BTreeMap;
use std::sync::Arc;

const WINDOW: u64 = CHUNK_LEN_MAX as u64;

/// Contiguous bytes within one window, still open to writes.
#[derive(Debug)]
enum Run {
    /// One write, not copied.
    One(Bytes),
    /// Several.
    Many(BytesMut),
}

impl Run {
    fn as_slice(&self) -> &[u8] {
        match self {
            Run::One(b) => b,
            Run::Many(b) => b,
        }
    }

    fn len(&self) -> u64 {
        self.as_slice().len() as u64
    }

    fn into_bytes(self) -> Bytes {
        match self {
            Run::One(b) => b,
            Run::Many(b) => b.freeze(),
        }
    }

    /// Overwrites and extends at `at`, which is at most `len`.
    fn put(&mut self, at: u64, data: &[u8]) {
        let (at, end) = (at as usize, at as usize + data.len());
        let old = match self {
            Run::Many(buffer) => std::mem::take(buffer),
            Run::One(bytes) => {
                let mut grown = BytesMut::with_capacity(roomy(bytes.len().max(end)));
                grown.extend_from_slice(bytes);
                grown
            }
        };
        let mut buffer = old;
        if end > buffer.len() {
            let inside = buffer.len() - at;
            buffer[at..].copy_from_slice(&data[..inside]);
            if end > buffer.capacity() {
                buffer.reserve(roomy(end) - buffer.len());
            }
            buffer.extend_from_slice(&data[inside..]);
        } else {
            buffer[at..end].copy_from_slice(data);
        }
        *self = Run::Many(buffer);
    }
}

/// Room for a run that has grown to `len`: doubling, then the whole window.
fn roomy(len: usize) -> usize {
    if len >= 512 * 1024 {
        CHUNK_LEN_MAX as usize
    } else {
        (len * 2).max(4096)
    }
}

/// The uncommitted bytes of one file.
#[derive(Debug, Default)]
pub struct Buffer {
    live: BTreeMap<u64, Run>,
    pieces: Vec<Arc<Piece>>,
    live_bytes: u64,
    piece_bytes: u64,
}

impl Buffer {
    /// True if everything written has been committed.
    pub fn is_empty(&self) -> bool {
        self.live.is_empty() && self.pieces.is_empty()
    }

    /// Live runs: each costs a chunk when it is frozen.
    pub fn runs(&self) -> usize {
        self.live.len()
    }

    /// Live runs and pieces.
    pub fn places(&self) -> usize {
        self.live.len() + self.pieces.len()
    }

    /// Bytes held, in live runs and pieces.
    pub fn held_bytes(&self) -> u64 {
        self.live_bytes + self.piece_bytes
    }

    /// First byte after the last that is held.
    pub fn end(&self) -> u64 {
        let live = self
            .live
            .last_key_value()
            .map_or(0, |(&at, run)| at + run.len());
        self.pieces.iter().map(|p| p.end()).fold(live, u64::max)
    }

    /// The frozen pieces, oldest first.
    pub fn pieces(&self) -> &[Arc<Piece>] {
        &self.pieces
    }

    /// Adds `data` at `offset`. Runs that now fill their window are frozen and
    /// returned, so that they can be sent at once.
    pub fn write(&mut self, offset: u64, data: &Bytes) -> Vec<Arc<Piece>> {
        let mut full = Vec::new();
        let mut done = 0;
        while done < data.len() {
            let at = offset + done as u64;
            let room = WINDOW - at % WINDOW;
            let len = room.min((data.len() - done) as u64) as usize;
            let start = self.write_in_window(at, data.slice(done..done + len));
            if start.is_multiple_of(WINDOW)
                && self.live.get(&start).is_some_and(|r| r.len() == WINDOW)
            {
                full.extend(self.freeze_run(start));
            }
            done += len;
        }
        full
    }

    /// Merges `data`, which crosses no window's end, into the live runs and
    /// returns where its run starts.
    fn write_in_window(&mut self, at: u64, data: Bytes) -> u64 {
        let end = at + data.len() as u64;
        let window_start = at - at % WINDOW;
        let before = self
            .live
            .range(window_start..=at)
            .next_back()
            .filter(|(s, run)| **s + run.len() >= at)
            .map(|(&s, _)| s);
        let start = match before {
            Some(start) => {
                let run = self.live.get_mut(&start).expect("found above");
                let old = run.len();
                run.put(at - start, &data);
                self.live_bytes += run.len() - old;
                start
            }
            None => {
                self.live_bytes += data.len() as u64;
                self.live.insert(at, Run::One(data));
                at
            }
        };
        self.absorb_followers(start, window_start, end);
        start
    }

    /// Merges runs of the same window that the run at `start` now reaches;
    /// below `written_to` its own bytes are the newer ones.
    fn absorb_followers(&mut self, start: u64, window_start: u64, written_to: u64) {
        loop {
            let len = self.live.get(&start).map_or(0, Run::len);
            let next = self
                .live
                .range(start + 1..=start + len)
                .next()
                .map(|(&s, _)| s)
                .filter(|s| *s < window_start + WINDOW);
            let Some(next) = next else { return };
            let taken = self.live.remove(&next).expect("found above");
            self.live_bytes -= taken.len();
            let known = written_to.max(next) - next;
            if known < taken.len() {
                let run = self.live.get_mut(&start).expect("runs merge into it");
                let old = run.len();
                run.put(next + known - start, &taken.as_slice()[known as usize..]);
                self.live_bytes += run.len() - old;
            }
        }
    }

    fn freeze_run(&mut self, start: u64) -> Option<Arc<Piece>> {
        let run = self.live.remove(&start)?;
        self.live_bytes -= run.len();
        self.piece_bytes += run.len();
        let piece = Piece::new(start, run.into_bytes());
        self.pieces.push(piece.clone());
        Some(piece)
    }

    /// Freezes every live run.
    pub fn freeze_all(&mut self) {
        while let Some((&start, _)) = self.live.first_key_value() {
            self.freeze_run(start);
        }
    }

    /// Forgets pieces that were committed or given up; returns how many bytes
    /// that were.
    pub fn retire(&mut self, gone: impl Fn(&Arc<Piece>) -> bool) -> u64 {
        let mut bytes = 0;
        self.pieces.retain(|p| {
            let gone = gone(p);
            bytes += if gone { p.len() } else { 0 };
            !gone
        });
        self.piece_bytes -= bytes;
        bytes
    }

    /// Forgets everything and returns how many bytes that were.
    pub fn clear(&mut self) -> u64 {
        let bytes = self.held_bytes();
        *self = Buffer::default();
        bytes
    }

    /// The held bytes of `offset..offset + len` with their offsets in the file, oldest
    /// first; where two overlap, the later one is right.
    pub fn overlay(&self, offset: u64, len: u64) -> Vec<(u64, Bytes)> {
        let end = offset.saturating_add(len);
        let mut found = Vec::new();
        for piece in &self.pieces {
            if let Some((from, to)) = common(piece.offset(), piece.end(), offset, end) {
                let at = (from - piece.offset()) as usize;
                found.push((from, piece.bytes().slice(at..at + (to - from) as usize)));
            }
        }
        let first = self
            .live
            .range(..=offset)
            .next_back()
            .map_or(offset, |(&s, _)| s);
        for (&start, run) in self.live.range(first..end.max(first)) {
            if let Some((from, to)) = common(start, start + run.len(), offset, end) {
                let (a, b) = ((from - start) as usize, (to - start) as usize);
                found.push((from, Bytes::copy_from_slice(&run.as_slice()[a..b])));
            }
        }
        found
    }
}

/// The common part of two half-open ranges, unless it is empty.
fn common(a: u64, a_end: u64, b: u64, b_end: u64) -> Option<(u64, u64)> {
    let (from, to) = (a.max(b), a_end.min(b_end));
    (from < to).then_some((from, to))
}

/// Cuts pieces, oldest first, into commits: within one no two overlap and
/// there are at most [`COMMIT_EDITS_MAX`], in order of offset.
pub fn batches(pieces: &[Arc<Piece>]) -> Vec<Vec<Arc<Piece>>> {
    let mut all = Vec::new();
    let mut batch: BTreeMap<u64, Arc<Piece>> = BTreeMap::new();
    for piece in pieces {
        let overlaps = batch
            .range(..piece.end())
            .next_back()
            .is_some_and(|(_, other)| other.end() > piece.offset());
        if overlaps || batch.len() == COMMIT_EDITS_MAX {
            all.push(std::mem::take(&mut batch).into_values().collect());
        }
        batch.insert(piece.offset(), piece.clone());
    }
    if !batch.is_empty() {
        all.push(batch.into_values().collect());
    }
    all
}

#[cfg(test)]
mod tests;
