//! Reads the log back: a pure replay of records, and the handling of the files.

use super::files::{Dir, Segment};
use super::frontier;
use super::index::{Index, Place, Slot};
use super::record::{self, Found, Header, Kind};
use super::segment::{FORMAT_VERSION, RECORD_HEADER_LEN, SEGMENT_HEADER_LEN, SegmentHeader};
use crate::error::RaftError;
use crate::types::alias::{LogId, Vote};
use lagan_types::codec;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;

/// Payload of a checkpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Checkpoint {
    pub vote: Option<Vote>,
    pub purged: Option<LogId>,
    /// Random, so that records behind a torn tail never fit the chain again.
    pub nonce: u64,
}

/// The log as far as it was replayed.
#[derive(Debug, Default)]
pub(super) struct Replay {
    pub index: Index,
    pub committed_next: u64,
    /// Highest entry index in each segment.
    pub highest: BTreeMap<u64, u64>,
}

impl Replay {
    /// Takes the next record.
    ///
    /// # Errors
    /// In words, if no correct writer can have written the record.
    pub fn step(&mut self, segment: u64, found: Found<'_>) -> Result<(), String> {
        let header = found.header;
        match header.kind {
            Kind::Blank | Kind::Normal | Kind::Membership => self.entry(segment, &found)?,
            Kind::Vote => self.vote(header.vote())?,
            Kind::Truncate => self.truncate(header.index)?,
            Kind::Purge => self.index.purge(header.log_id()),
            Kind::Checkpoint => self.checkpoint(found.payload)?,
        }
        self.committed_next = self.committed_next.max(header.committed_next);
        Ok(())
    }

    fn entry(&mut self, segment: u64, found: &Found<'_>) -> Result<(), String> {
        let id = found.header.log_id();
        if let Some(last) = self.index.slots.back().map(|s| s.id) {
            if id.index != last.index + 1 {
                return Err(format!("entry {id} follows {last}"));
            }
            if id.leader_id < last.leader_id {
                return Err(format!("the term falls from {last} to {id}"));
            }
        }
        let highest = self.highest.entry(segment).or_default();
        *highest = id.index.max(*highest);
        self.index.push(Slot {
            id,
            kind: found.header.kind,
            place: Some(Place {
                segment,
                offset: found.offset as u64,
                len: found.header.len,
                seed: found.seed,
            }),
            entry: None,
            payload_len: found.header.len,
        });
        Ok(())
    }

    fn vote(&mut self, vote: Vote) -> Result<(), String> {
        if self
            .index
            .vote
            .is_some_and(|v| v.leader_id.term > vote.leader_id.term)
        {
            return Err(format!("the vote falls to {vote}"));
        }
        self.index.vote = Some(vote);
        Ok(())
    }

    fn truncate(&mut self, since: u64) -> Result<(), String> {
        if since < self.committed_next {
            return Err(format!("entry {since} is truncated, but was committed"));
        }
        self.index.truncate(since);
        Ok(())
    }

    fn checkpoint(&mut self, payload: &[u8]) -> Result<(), String> {
        let point: Checkpoint = codec::decode_serde(payload).map_err(|e| e.to_string())?;
        if let Some(vote) = point.vote {
            self.vote(vote)?;
        }
        if let Some(purged) = point.purged {
            self.index.purge(purged);
        }
        Ok(())
    }

    /// The finished index.
    ///
    /// # Errors
    /// In words, if entries are missing between the purged ones and the first.
    pub fn finish(mut self) -> Result<(Index, BTreeMap<u64, u64>), String> {
        if let (Some(purged), Some(first)) = (self.index.purged, self.index.slots.front())
            && first.id.index > purged.index + 1
        {
            return Err(format!(
                "entries between {purged} and {} are missing",
                first.id
            ));
        }
        self.index.purged_on_disk = self.index.purged;
        self.index.hole = false;
        if let Some(index) = self.committed_next.checked_sub(1) {
            self.index.committed = self.index.id_of(index);
        }
        Ok((self.index, self.highest))
    }
}

/// A log as found on disk, ready to be written on.
pub(super) struct Recovered {
    pub index: Index,
    pub segments: BTreeMap<u64, Segment>,
    pub highest: BTreeMap<u64, u64>,
    /// End of the last segment's records, and the CRC there; `None`: there is no segment.
    pub end: Option<(u64, u32)>,
    /// Header of the last segment.
    pub header: Option<SegmentHeader>,
}

/// Reads all segments.
///
/// # Errors
/// [`RaftError::Io`]; [`RaftError::LogVersion`]; [`RaftError::LogDamaged`] for more damage
/// than the torn tail of a crash.
pub(super) fn recover(dir: &Dir) -> Result<Recovered, RaftError> {
    let segments = live_segments(dir)?;
    let mut replay = Replay::default();
    let mut end: Option<(u64, u32)> = None;
    let mut last_sequence: Option<u64> = None;
    for (&sequence, (segment, header)) in &segments {
        if last_sequence.is_some_and(|last| sequence != last + 1) {
            return Err(RaftError::LogDamaged(format!(
                "segment before {sequence} is missing"
            )));
        }
        if end.is_some_and(|(_, seed)| seed != header.seed) {
            return Err(RaftError::LogDamaged(format!(
                "segment {} ends before {sequence} begins",
                sequence - 1
            )));
        }
        let mut bytes = vec![0; segment.len as usize];
        segment
            .file
            .read_exact_at(&mut bytes, 0)
            .map_err(RaftError::io("read log segment"))?;
        let (offset, seed) = record::replay(&bytes, SEGMENT_HEADER_LEN, header.seed, |found| {
            replay.step(sequence, found)
        })
        .map_err(RaftError::LogDamaged)?;
        check_tail(&bytes, offset, header)?;
        end = Some((offset as u64, seed));
        last_sequence = Some(sequence);
    }
    let (index, highest) = replay.finish().map_err(RaftError::LogDamaged)?;
    let header = segments.last_key_value().map(|(_, (_, header))| *header);
    let segments = segments.into_iter().map(|(k, (s, _))| (k, s)).collect();
    Ok(Recovered {
        index,
        segments,
        highest,
        end,
        header,
    })
}

/// Refuses a break of the chain before bytes that were on disk.
fn check_tail(bytes: &[u8], end: usize, header: &SegmentHeader) -> Result<(), RaftError> {
    let synced = frontier::highest(bytes.get(end..).unwrap_or_default(), header);
    if synced > end as u64 {
        return Err(RaftError::LogDamaged(format!(
            "segment {} breaks off at {end}, but was on disk up to {synced}",
            header.sequence
        )));
    }
    Ok(())
}

type Live = BTreeMap<u64, (Segment, SegmentHeader)>;

/// Opens the segments whose header fits their name; others are spare.
fn live_segments(dir: &Dir) -> Result<Live, RaftError> {
    let mut live = Live::new();
    for sequence in dir.list().map_err(RaftError::io("list log segments"))? {
        let segment = dir
            .open_segment(sequence)
            .map_err(RaftError::io("open log segment"))?;
        let mut raw = vec![0; SEGMENT_HEADER_LEN.min(segment.len as usize)];
        segment
            .file
            .read_exact_at(&mut raw, 0)
            .map_err(RaftError::io("read log segment"))?;
        match SegmentHeader::decode(&raw) {
            Ok(Some(header)) if header.sequence == sequence => {
                live.insert(sequence, (segment, header));
            }
            Ok(_) => dir
                .retire(sequence)
                .map_err(RaftError::io("retire log segment"))?,
            Err(found) => {
                let known = FORMAT_VERSION;
                return Err(RaftError::LogVersion { found, known });
            }
        }
    }
    Ok(live)
}

/// The payload at a place, verified.
pub(super) fn read_record(segment: &Segment, place: &Place) -> std::io::Result<(Header, Vec<u8>)> {
    let mut bytes = vec![0; RECORD_HEADER_LEN + place.len as usize];
    segment.file.read_exact_at(&mut bytes, place.offset)?;
    match record::parse(&bytes, place.seed) {
        Some((header, _, _)) => Ok((header, bytes.split_off(RECORD_HEADER_LEN))),
        None => Err(std::io::Error::new(
            std::io::ErrorKind::InvalidData,
            format!(
                "log record at {}:{} is damaged",
                place.segment, place.offset
            ),
        )),
    }
}
