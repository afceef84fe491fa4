//! The types that openraft is instantiated with.

use crate::state::{Incoming, View};
use bytes::Bytes;
use lagan_types::codec;
use lagan_types::{Answer, Command, Refusal};
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::sync::Arc;

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

/// One log entry's commands: encoded once, and still decoded where they came from.
#[derive(Clone, Default)]
pub struct Batch {
    bytes: Bytes,
    /// Set only on the node that proposed it, to spare the decoding there.
    commands: Option<Arc<[Command]>>,
}

impl Batch {
    /// A batch of these commands.
    pub fn new(commands: Vec<Command>) -> Self {
        let bytes = codec::encode(&commands).into();
        Batch {
            bytes,
            commands: Some(commands.into()),
        }
    }

    /// A batch of commands whose encodings, one after the other, are `body`.
    pub(crate) fn from_parts(commands: Vec<Command>, body: &[u8]) -> Self {
        // A sequence is encoded as its length and its items.
        let mut bytes = codec::encode(&(commands.len() as u64));
        bytes.extend_from_slice(body);
        Batch {
            bytes: bytes.into(),
            commands: Some(commands.into()),
        }
    }

    /// A batch as it came from disk or wire.
    pub fn from_bytes(bytes: Bytes) -> Self {
        Batch {
            bytes,
            commands: None,
        }
    }

    /// Its encoding.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The commands.
    ///
    /// # Errors
    /// [`codec::CodecError`] if the bytes are not a batch.
    pub fn commands(&self) -> Result<Arc<[Command]>, codec::CodecError> {
        match &self.commands {
            Some(commands) => Ok(commands.clone()),
            None => Ok(codec::decode::<Vec<Command>>(&self.bytes)?.into()),
        }
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

/// The answers to a batch's commands, in their order; none for other entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct BatchAnswer(pub Vec<Result<Answer, Refusal>>);

impl Serialize for BatchAnswer {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(&codec::encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for BatchAnswer {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let bytes = Vec::<u8>::deserialize(d)?;
        codec::decode(&bytes)
            .map(BatchAnswer)
            .map_err(D::Error::custom)
    }
}
