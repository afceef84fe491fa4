//! Snapshots on their way: rows in numbered pieces, each with its CRC, written
//! to a new file by the receiver, which becomes its state when all are in.
//!
//! The sender reads them from one read transaction of redb, so that nothing is exported
//! and nothing waits. A piece that arrives twice is answered again and not taken again;
//! any other break of the order makes the sender begin again.
//! The next start removes the files that a crash leaves.

use crate::error::TransportError;
use crate::peer::Peer;
use crate::rpc::{PieceHead, Reply, Request};
use crate::state::{Incoming, StateStore};
use crate::types::SnapshotData;
use crate::types::alias::{OpenRaft, Snapshot, Vote};
use bytes::Bytes;
use std::time::Duration;
use tokio::sync::Mutex;

/// Bytes of rows in a piece, about: one row may be larger.
const PIECE_LEN: usize = 512 * 1024;
/// Time for one piece.
const PIECE_DEADLINE: Duration = Duration::from_secs(10);
/// Time for the last piece, after which the receiver syncs and switches.
const INSTALL_DEADLINE: Duration = Duration::from_secs(60);
/// Times that one piece is sent.
const PIECE_TRIES: u32 = 4;

/// The reason why a snapshot was not sent.
#[derive(Debug)]
pub(crate) enum SendError {
    Transport(TransportError),
    Store(String),
}

/// Sends a snapshot; returns the receiver's vote.
pub(crate) async fn send(peer: &Peer, vote: Vote, snapshot: Snapshot) -> Result<Vote, SendError> {
    let SnapshotData::Local(view) = *snapshot.snapshot else {
        return Err(SendError::Store("not a snapshot of this node".into()));
    };
    let mut head = PieceHead {
        transfer: rand::random(),
        sequence: 0,
        vote,
        meta: snapshot.meta,
        crc: 0,
        rows: 0,
        last: false,
    };
    let mut after: Option<Vec<u8>> = None;
    loop {
        let (view, from) = (view.clone(), after.take());
        let piece = tokio::task::spawn_blocking(move || view.piece(from.as_deref(), PIECE_LEN))
            .await
            .map_err(|e| SendError::Store(e.to_string()))?
            .map_err(|e| SendError::Store(e.to_string()))?;
        head.crc = crc32fast::hash(&piece.bytes);
        head.rows += piece.rows;
        head.last = piece.end;
        match send_piece(peer, &head, piece.bytes.into()).await {
            Ok(Reply::PieceTaken) if !head.last => {}
            Ok(Reply::Installed(vote)) => return Ok(vote),
            Ok(Reply::PieceRefused(why)) => {
                return Err(SendError::Transport(TransportError::NoAnswer(why)));
            }
            Ok(_) => {
                let why = "unexpected answer".to_string();
                return Err(SendError::Transport(TransportError::NoAnswer(why)));
            }
            Err(e) => return Err(SendError::Transport(e)),
        }
        head.sequence += 1;
        after = Some(piece.last_key);
    }
}

async fn send_piece(peer: &Peer, head: &PieceHead, data: Bytes) -> Result<Reply, TransportError> {
    let deadline = if head.last {
        INSTALL_DEADLINE
    } else {
        PIECE_DEADLINE
    };
    let request = Request::Piece(head.clone()).encode();
    let mut tries = 1;
    loop {
        match peer.call(request.clone(), data.clone(), deadline).await {
            Err(TransportError::NoAnswer(_)) if tries < PIECE_TRIES => tries += 1,
            other => return other,
        }
        tokio::time::sleep(Duration::from_millis(50) * tries).await;
    }
}

struct Receiving {
    transfer: u64,
    next: u32,
    incoming: Incoming,
}

/// The receiving end: one snapshot at a time, the newest transfer wins.
#[derive(Default)]
pub(crate) struct Receiver(Mutex<Option<Receiving>>);

impl Receiver {
    /// Takes a piece.
    pub async fn take(
        &self,
        core: &OpenRaft,
        state: &StateStore,
        head: PieceHead,
        data: Bytes,
    ) -> Reply {
        if crc32fast::hash(&data) != head.crc {
            return Reply::Failed("snapshot piece was damaged on its way".into());
        }
        let mut slot = self.0.lock().await;
        if head.sequence == 0 && slot.as_ref().is_none_or(|r| r.transfer != head.transfer) {
            *slot = match state.incoming() {
                Ok(incoming) => Some(Receiving {
                    transfer: head.transfer,
                    next: 0,
                    incoming,
                }),
                Err(e) => return Reply::Failed(e.to_string()),
            };
        }
        let Some(receiving) = slot.take().filter(|r| r.transfer == head.transfer) else {
            return Reply::PieceRefused("not the transfer that is under way".into());
        };
        let (reply, receiving) = receiving.take(core, head, data).await;
        *slot = receiving;
        reply
    }
}

impl Receiving {
    async fn take(
        mut self,
        core: &OpenRaft,
        head: PieceHead,
        data: Bytes,
    ) -> (Reply, Option<Receiving>) {
        if head.sequence.checked_add(1) == Some(self.next) {
            return (Reply::PieceTaken, Some(self));
        }
        if head.sequence != self.next {
            return (Reply::PieceRefused("a piece is missing".into()), None);
        }
        let last = head.last;
        let added = tokio::task::spawn_blocking(move || {
            self.incoming.add(&data)?;
            if last {
                self.incoming.finish()?;
            }
            self.next += 1;
            Ok::<_, lagan_meta::kv::StoreError>(self)
        })
        .await;
        let receiving = match added {
            Ok(Ok(receiving)) => receiving,
            Ok(Err(e)) => return (Reply::PieceRefused(e.to_string()), None),
            Err(e) => return (Reply::PieceRefused(e.to_string()), None),
        };
        if receiving.incoming.rows() != head.rows {
            return (Reply::PieceRefused("rows are missing".into()), None);
        }
        if !last {
            return (Reply::PieceTaken, Some(receiving));
        }
        let snapshot = Snapshot {
            meta: head.meta,
            snapshot: Box::new(SnapshotData::Received(Box::new(receiving.incoming))),
        };
        match core.install_full_snapshot(head.vote, snapshot).await {
            Ok(answer) => (Reply::Installed(answer.vote), None),
            Err(e) => (Reply::Failed(e.to_string()), None),
        }
    }
}
