//! Consensus messages between peers: a head by the codec, entries and snapshot
//! rows as bulk data beside it.

use crate::log::record::Kind;
use crate::log::{encode_payload, payload_of};
use crate::types::TypeConfig;
use crate::types::alias::{Entry, LogId, SnapshotMeta, Vote};
use bytes::{Bytes, BytesMut};
use lagan_types::codec;
use openraft::raft::{AppendEntriesRequest, AppendEntriesResponse, VoteRequest, VoteResponse};
use serde::{Deserialize, Serialize};

/// First byte of each head; others are refused. The entries' payloads are those of the log
/// ([`record`](crate::log::record)): whoever changes these raises this, too.
const VERSION: u8 = 3;

/// An entry's part of a head; its payload is in the data, one after the other.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EntryHead {
    id: LogId,
    kind: u8,
    len: u32,
}

/// A piece of a snapshot; its rows are the data.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PieceHead {
    /// Random number of one sending of one snapshot.
    pub transfer: u64,
    /// Counts from 0.
    pub sequence: u32,
    pub vote: Vote,
    pub meta: SnapshotMeta,
    /// CRC-32 of the data.
    pub crc: u32,
    /// Rows in all pieces up to this.
    pub rows: u64,
    /// This is the last piece: install the snapshot now.
    pub last: bool,
}

/// A request to a peer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Request {
    Append {
        vote: Vote,
        previous: Option<LogId>,
        committed: Option<LogId>,
        entries: Vec<EntryHead>,
    },
    Vote(VoteRequest<u64>),
    Piece(PieceHead),
}

/// The peer's answer.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Reply {
    Append(AppendEntriesResponse<u64>),
    Vote(VoteResponse<u64>),
    /// The piece is in; send the next.
    PieceTaken,
    /// Not the piece that is expected: begin again.
    PieceRefused(String),
    /// The last piece was in and the snapshot was judged with this vote.
    Installed(Vote),
    /// The peer could not do it, for this reason.
    Failed(String),
}

fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut head = vec![VERSION];
    head.extend_from_slice(&codec::encode_serde(value));
    head
}

fn decode<T: serde::de::DeserializeOwned>(head: &[u8]) -> Result<T, String> {
    match head.split_first() {
        Some((&VERSION, rest)) => codec::decode_serde(rest).map_err(|e| e.to_string()),
        Some((version, _)) => Err(format!("consensus message version {version}")),
        None => Err("empty consensus message".into()),
    }
}

impl Request {
    /// Head and data of an append.
    pub fn append(request: &AppendEntriesRequest<TypeConfig>) -> (Vec<u8>, Bytes) {
        let mut payloads: Vec<Bytes> = Vec::with_capacity(request.entries.len());
        let mut entries = Vec::with_capacity(request.entries.len());
        for entry in &request.entries {
            let (kind, payload) = encode_payload(entry);
            entries.push(EntryHead {
                id: entry.log_id,
                kind: kind as u8,
                len: payload.len() as u32,
            });
            payloads.push(payload);
        }
        let head = encode(&Request::Append {
            vote: request.vote,
            previous: request.prev_log_id,
            committed: request.leader_commit,
            entries,
        });
        let data = match payloads.len() {
            0 => Bytes::new(),
            1 => payloads.swap_remove(0),
            _ => {
                let len = payloads.iter().map(Bytes::len).sum();
                let mut data = BytesMut::with_capacity(len);
                payloads.iter().for_each(|p| data.extend_from_slice(p));
                data.freeze()
            }
        };
        (head, data)
    }

    /// Encodes the head of a request that is no append.
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    /// Decodes a head from a peer.
    pub fn decode(head: &[u8]) -> Result<Request, String> {
        decode(head)
    }
}

impl Reply {
    pub fn encode(&self) -> Vec<u8> {
        encode(self)
    }

    pub fn decode(head: &[u8]) -> Result<Reply, String> {
        decode(head)
    }
}

/// The entries of an append, from head and data.
pub(crate) fn entries_of(heads: Vec<EntryHead>, mut data: Bytes) -> Result<Vec<Entry>, String> {
    let mut entries = Vec::with_capacity(heads.len());
    for head in heads {
        let len = head.len as usize;
        if len > data.len() {
            return Err("entries are longer than the data".into());
        }
        let kind = Kind::from_u8(head.kind).ok_or("unknown kind of entry")?;
        entries.push(Entry {
            log_id: head.id,
            payload: payload_of(kind, data.split_to(len))?,
        });
    }
    match data.is_empty() {
        true => Ok(entries),
        false => Err("data behind the last entry".into()),
    }
}

#[cfg(test)]
mod tests;
