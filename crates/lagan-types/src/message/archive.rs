//! The mover of one server: bytes of archived files, and the state of objects in S3.

use super::{Conversation, Service};
use crate::ask::{Asker, answers, asks};
use crate::codec::{Decode, Encode};
use crate::id::Ino;
use crate::query::Object;

asks! {
    /// Asked of the mover of one server.
    #[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
    pub enum ArchiveRequest -> ArchiveReply {
        /// Bytes of an archived object, verified; through the node's recall cache. Data of
        /// the answer: bytes.
        Recall {
            ino: Ino,
            version: u64,
            offset: u64,
            len: u32,
        } -> Recalled,
        /// Whether S3 has these objects as the metadata says; 256 at most. The answer has the
        /// health of each, in the order asked.
        CheckObjects { objects: Vec<Object> } -> Vec<ObjectHealth>,
        /// Objects of this life of the cluster in S3, in order of key, above `after`.
        ListObjects { after: Option<String>, limit: u32 } -> ObjectList,
    }
}

answers! {
    /// What a mover answers.
    #[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
    pub enum ArchiveReply {
        /// Bytes came.
        Recalled(Recalled),
        /// The health of objects.
        Objects(Vec<ObjectHealth>),
        /// Keys and lengths.
        List(ObjectList),
    }
}

impl Conversation for ArchiveRequest {
    const SERVICE: Service = Service::Archive;
    type Reply = ArchiveReply;
    type Refusal = ArchiveRefusal;

    fn asker(&self) -> Asker {
        match self {
            ArchiveRequest::Recall(_) => Asker::Anybody,
            ArchiveRequest::CheckObjects(_) | ArchiveRequest::ListObjects(_) => Asker::Operator,
        }
    }

    fn refuse(reason: String) -> ArchiveRefusal {
        ArchiveRefusal::Failed(reason)
    }
}

/// Bytes that were recalled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Recalled {
    /// CRC-32 of exactly the bytes beside this.
    pub crc: u32,
}

/// Objects of a bucket.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct ObjectList {
    /// Keys and bytes, in order of key.
    pub objects: Vec<(String, u64)>,
    /// There are no more.
    pub last: bool,
}

/// Why a mover gave nothing.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode, thiserror::Error)]
pub enum ArchiveRefusal {
    /// The file is not archived in that version (any more): fetch its map again.
    #[error("not archived in that version")]
    Gone,
    /// Not now, in words: trying again may help.
    #[error("{0}")]
    Transient(String),
    /// The node cannot: in words.
    #[error("{0}")]
    Failed(String),
}

/// State of one object in S3.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ObjectHealth {
    /// Present, of the right length, and of the right CRC where S3 knows one.
    Healthy,
    /// Not there.
    Missing,
    /// There, but another: its length, and its CRC-32 where S3 knows one.
    Differs {
        /// Bytes.
        size: u64,
        /// CRC-32 of all of it.
        crc: Option<u32>,
    },
    /// S3 did not say: why.
    Unknown(String),
}
