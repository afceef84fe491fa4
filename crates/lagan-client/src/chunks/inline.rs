//! Places chunks whose bytes come with the commit: ids in an open set, and nothing sent.

use crate::chunks::Chunks;
use crate::chunks::piece::{Piece, Stored};
use crate::leader::link::data_error;
use lagan_types::chunk::{block_crcs, combine_crcs};
use lagan_types::cluster::{NodeInfo, log_keeps};
use lagan_types::extent::ChunkRef;
use lagan_types::limits::INLINE_LEN_MAX;
use lagan_types::{ChunkId, FsError, NodeId, VolumeId};
use std::collections::BTreeSet;
use std::sync::Arc;
use tokio::time::Instant;

impl Chunks {
    /// Gives pieces whose bytes may come with their commit the ids of chunks; `None`: they
    /// are too long, or go to the chunk stores now.
    ///
    /// # Errors
    /// Those of [`crate::leader::Leader::take_id`].
    pub async fn place(
        &self,
        pieces: &[Arc<Piece>],
        until: Instant,
    ) -> Result<Option<Vec<Arc<Piece>>>, FsError> {
        let len: u64 = pieces.iter().map(|piece| piece.len()).sum();
        let unsent = pieces.iter().all(|piece| piece.is_unsent());
        if len > INLINE_LEN_MAX as u64 || !unsent || !self.inline.is_over() {
            return Ok(None);
        }
        let placement = self.leader.cluster().current();
        let suspects = self.leader.cluster().suspects();
        let draw = self.leader.cluster().draw();
        let Ok(set) = placement.choose(|n| suspects.contains(&n), &[], draw) else {
            return Ok(None);
        };
        let votes = |n: &&NodeInfo| n.voter;
        let voters: BTreeSet<NodeId> = placement
            .map
            .nodes
            .iter()
            .filter(votes)
            .map(|n| n.id)
            .collect();
        let suspect = set.nodes.iter().any(|n| suspects.contains(n));
        if suspect || !log_keeps(&set.nodes, &voters) {
            return Ok(None);
        }
        let mut placed = Vec::with_capacity(pieces.len());
        for piece in pieces {
            let ticket = self.leader.take_id(until).await.map_err(data_error)?;
            let crc = combine_crcs(&block_crcs(piece.bytes()), piece.len() as u32);
            let refer = ChunkRef {
                id: ChunkId::new(VolumeId::ONLY, set.id, ticket.block, ticket.index),
                set_epoch: set.epoch,
                skip: 0,
                chunk_len: piece.len() as u32,
                chunk_crc: crc.ok_or(FsError::Io)?,
            };
            let stored = Stored { refer, ticket };
            placed.push(Piece::placed(piece.offset(), piece.bytes().clone(), stored));
        }
        Ok(Some(placed))
    }

    /// Lets bytes go to the chunk stores for a while: the leader would not have them.
    pub fn pause_inline(&self) {
        self.inline.begin();
    }
}
