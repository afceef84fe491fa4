//! Identifiers. Each is a type of its own, so that no two can be swapped.

use crate::codec::{Decode, Encode};
use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($int:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode, Serialize,
            Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub $int);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id! {
    /// An inode's number: a counter in the replicated state, never reused.
    /// FUSE node id = ino; 1 is the root directory.
    Ino(u64), "i"
}
id! {
    /// A volume is one namespace. The first is 1; 0 holds what all volumes share.
    VolumeId(u16), "v"
}
id! {
    /// A storage node of the cluster, 1 and up, never given twice.
    NodeId(u64), "n"
}
id! {
    /// A replica set: the nodes that hold the chunks written to it.
    SetId(u32), "s"
}
id! {
    /// A registered mount. 0 is the cluster itself (mover, admin commands).
    SessionId(u64), "m"
}
id! {
    /// The version of a replica set's row: rises with each change of it.
    Epoch(u64), "e"
}
id! {
    /// A block of chunk ids granted to one session: the upper 24 bits are
    /// drawn from the incarnation, the lower 40 count up in the replicated state.
    BlockId(u64), "b"
}

impl Ino {
    /// The root directory of a volume.
    pub const ROOT: Ino = Ino(1);
}

impl VolumeId {
    /// The only volume that there is so far.
    pub const ONLY: VolumeId = VolumeId(1);
}

impl SessionId {
    /// The cluster's own commands: not remembered, so each must be idempotent.
    pub const SYSTEM: SessionId = SessionId(0);
}

impl BlockId {
    /// Composes a block id.
    pub fn new(incarnation: Incarnation, counter: u64) -> Self {
        let tag = (incarnation.0 >> 104) as u64;
        BlockId(tag << 40 | (counter & ((1 << 40) - 1)))
    }
}

/// Names a chunk: written once, never changed, never used again.
///
/// 128 bits, from the most significant: volume 16, set 32, block 64, index 16.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize,
)]
pub struct ChunkId(pub u128);

impl ChunkId {
    /// Composes an id. `index` is below [`crate::limits::BLOCK_IDS`].
    pub fn new(volume: VolumeId, set: SetId, block: BlockId, index: u16) -> Self {
        ChunkId(
            (volume.0 as u128) << 112
                | (set.0 as u128) << 80
                | (block.0 as u128) << 16
                | index as u128,
        )
    }

    /// The volume that the chunk belongs to.
    pub fn volume(self) -> VolumeId {
        VolumeId((self.0 >> 112) as u16)
    }

    /// The replica set that holds it.
    pub fn set(self) -> SetId {
        SetId((self.0 >> 80) as u32)
    }

    /// The block that the id was drawn from.
    pub fn block(self) -> BlockId {
        BlockId((self.0 >> 16) as u64)
    }

    /// Its place in the block.
    pub fn index(self) -> u16 {
        self.0 as u16
    }
}

impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}-{}-{:x}-{}",
            self.volume().0,
            self.set().0,
            self.block().0,
            self.index()
        )
    }
}

impl fmt::Debug for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

macro_rules! random_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Encode, Decode,
        )]
        pub struct $name(pub u128);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:032x}", self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = std::num::ParseIntError;

            fn from_str(s: &str) -> Result<Self, Self::Err> {
                u128::from_str_radix(s, 16).map($name)
            }
        }

        impl Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
                s.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
                let s = String::deserialize(d)?;
                s.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

random_id! {
    /// Drawn at a cluster's birth and at every restore from a backup.
    Incarnation
}
random_id! {
    /// Drawn once when a cluster is made; survives restores.
    ClusterId
}
random_id! {
    /// Drawn when a node's data directory is made.
    StoreId
}
