//! The types that openraft is instantiated with.

use crate::state::{Incoming, View};
use bytes::Bytes;
use lagan_types::codec;
use lagan_types::{Answer, Command, Op, Refusal};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

openraft::declare_raft_types!(
    /// Entries are batches of commands, answers are theirs, in order.
    pub TypeConfig:
        D = Batch,
        R = BatchAnswer,
        NodeId = u64,
        Node = openraft::BasicNode,
        Entry = openraft::Entry<TypeConfig>,
        SnapshotData = SnapshotData,
        AsyncRuntime = openraft::TokioRuntime,
);

/// openraft's types, instantiated.
pub(crate) mod alias {
    use super::TypeConfig;

    pub type LogId = openraft::LogId<u64>;
    pub type Vote = openraft::Vote<u64>;
    pub type Entry = openraft::Entry<TypeConfig>;
    pub type Membership = openraft::Membership<u64, openraft::BasicNode>;
    pub type StoredMembership = openraft::StoredMembership<u64, openraft::BasicNode>;
    pub type SnapshotMeta = openraft::SnapshotMeta<u64, openraft::BasicNode>;
    pub type Snapshot = openraft::Snapshot<TypeConfig>;
    pub type StorageError = openraft::StorageError<u64>;
    pub type OpenRaft = openraft::Raft<TypeConfig>;
}

/// The data of a snapshot, which openraft hands from one of our calls to another.
pub enum SnapshotData {
    /// A state of this node.
    Local(View),
    /// A snapshot that came from the leader, whole and synced, not yet installed.
    Received(Box<Incoming>),
    /// There is none yet.
    Nothing,
}

/// The node that proposed a batch has this of it.
struct Origin {
    term: u64,
    /// They spare the decoding.
    commands: Arc<[Command]>,
    /// This node's log was given the entry. Written by the log, before it can be told to
    /// cut the entry off.
    entered: AtomicBool,
}

/// One log entry's commands, and the term that they were proposed in: encoded once, and
/// still decoded where they came from. There may be no commands.
///
/// A leader names its term in each batch. If the batch gets into the log in another term
/// (it waited on its way, while its node lost and won elections), the term of the entry is
/// not that of the batch, and every node applies nothing of it. So the commands of a batch
/// happen in the batch's term or never.
#[derive(Clone, Default)]
pub struct Batch {
    bytes: Bytes,
    /// Set only on the node that proposed it.
    origin: Option<Arc<Origin>>,
    /// What it was decoded to, if somebody wanted it kept.
    parts: Arc<OnceLock<Parts>>,
}

/// The term that commands were proposed in, and the commands.
type Parts = (u64, Arc<[Command]>);

impl Batch {
    /// Bytes at most of what is encoded before the commands: term, whether bytes of chunks come
    /// with them, and their number.
    pub(crate) const ENVELOPE_LEN: usize = 19;

    /// A batch of these commands, for that term.
    pub fn new(term: u64, commands: Vec<Command>) -> Self {
        let mut body = Vec::new();
        for command in &commands {
            codec::encode_into(command, &mut body);
        }
        Batch::from_parts(term, commands, &body)
    }

    /// A batch of commands whose encodings, one after the other, are `body`.
    pub(crate) fn from_parts(term: u64, commands: Vec<Command>, body: &[u8]) -> Self {
        let carries = |c: &Command| matches!(&c.op, Op::File(op) if op.inline().is_some());
        let carries = commands.iter().any(carries);
        // A sequence is encoded as its length and its items.
        let mut bytes = codec::encode(&(term, carries, commands.len() as u64));
        bytes.extend_from_slice(body);
        let origin = Origin {
            term,
            commands: commands.into(),
            entered: AtomicBool::new(false),
        };
        Batch {
            bytes: bytes.into(),
            origin: Some(Arc::new(origin)),
            parts: Arc::default(),
        }
    }

    /// A batch as it came from disk or wire.
    pub fn from_bytes(bytes: Bytes) -> Self {
        Batch {
            bytes,
            ..Batch::default()
        }
    }

    /// Notes that this node's log was given the entry.
    pub(crate) fn enter(&self) {
        if let Some(origin) = &self.origin {
            origin.entered.store(true, Ordering::Release);
        }
    }

    /// Whether the log of this node, which proposed it, was given the entry.
    pub(crate) fn has_entered(&self) -> bool {
        let entered = |o: &Arc<Origin>| o.entered.load(Ordering::Acquire);
        self.origin.as_ref().is_some_and(entered)
    }

    /// Its encoding.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The term that the commands were proposed in, and the commands.
    ///
    /// # Errors
    /// [`codec::CodecError`] if the bytes are not a batch.
    pub fn parts(&self) -> Result<(u64, Arc<[Command]>), codec::CodecError> {
        if let Some(origin) = &self.origin {
            return Ok((origin.term, origin.commands.clone()));
        }
        if let Some(parts) = self.parts.get() {
            return Ok(parts.clone());
        }
        let (term, _, commands) = codec::decode::<(u64, bool, Vec<Command>)>(&self.bytes)?;
        Ok((term, commands.into()))
    }

    /// Returns its parts as [`Batch::parts`] does, and keeps them for the next caller.
    ///
    /// # Errors
    /// [`codec::CodecError`] if the bytes are not a batch.
    pub(crate) fn keep_parts(&self) -> Result<(u64, Arc<[Command]>), codec::CodecError> {
        let parts = self.parts()?;
        if self.origin.is_none() {
            let _ = self.parts.set(parts.clone());
        }
        Ok(parts)
    }

    /// Whether bytes of chunks come with its commands.
    pub(crate) fn is_carrying(&self) -> bool {
        let head = codec::decode_prefix::<(u64, bool)>(&self.bytes);
        head.is_ok_and(|((_, carries), _)| carries)
    }
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Batch({} bytes)", self.bytes.len())
    }
}

impl PartialEq for Batch {
    fn eq(&self, other: &Self) -> bool {
        self.bytes == other.bytes
    }
}

impl Serialize for Batch {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(&self.bytes)
    }
}

impl<'de> Deserialize<'de> for Batch {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(d)?;
        Ok(Batch::from_bytes(bytes.into()))
    }
}

/// The outcome of an entry that was applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BatchAnswer {
    /// The answers to a batch's commands, in their order; none for other entries.
    Done(Vec<Result<Answer, Refusal>>),
    /// The batch was for another term than that in which it got into the log: none of its
    /// commands happened, and none will.
    Late,
}

impl Serialize for BatchAnswer {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let answers = match self {
            BatchAnswer::Done(answers) => Some(answers),
            BatchAnswer::Late => None,
        };
        s.serialize_bytes(&codec::encode(&answers))
    }
}

impl<'de> Deserialize<'de> for BatchAnswer {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(d)?;
        let answers: Option<_> = codec::decode(&bytes).map_err(D::Error::custom)?;
        Ok(answers.map_or(BatchAnswer::Late, BatchAnswer::Done))
    }
}

#[cfg(test)]
mod tests;
