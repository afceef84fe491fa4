//! The way to the peers, as openraft wants it.

use crate::error::TransportError;
use crate::holds::Holds;
use crate::log::LogStore;
use crate::peer::{Peer, Transport};
use crate::rpc::{Reply, Request};
use crate::snapshot;
use crate::types::TypeConfig;
use crate::types::alias::{Snapshot, Vote};
use bytes::Bytes;
use contact::Contact;
use lagan_types::NodeId;
use openraft::error::{
    Fatal, NetworkError, RPCError, RaftError, ReplicationClosed, StreamingError, Unreachable,
};
use openraft::network::{Backoff, RPCOption, RaftNetwork, RaftNetworkFactory};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, BasicNode, OptionalSend};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

mod contact;

/// Pause after "unreachable" before openraft tries again.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(200);

/// A leader whose own disk takes longer for an entry sends nothing until it is done.
const STILL_MAX: Duration = Duration::from_millis(100);

/// Makes a [`Stream`] to each target.
pub(crate) struct Network {
    pub transport: Arc<dyn Transport>,
    /// This node's log.
    pub log: LogStore,
    /// The entries that followers have.
    pub holds: Arc<Holds>,
    /// A commit is told in a message of its own if the last message is older than this.
    pub quiet_max: Duration,
}

/// Messages to one peer, in order.
pub(crate) struct Stream {
    peer: Peer,
    /// This node's log.
    log: LogStore,
    holds: Arc<Holds>,
    contact: Contact,
}

impl Stream {
    /// Tells no peer that an entry is committed before it is on this disk as well. A
    /// leader whose disk stands still falls silent, so that the others elect one that can
    /// go on.
    async fn check_own_disk(
        &self,
        request: &mut AppendEntriesRequest<TypeConfig>,
        limit: Duration,
    ) -> Result<(), CallError> {
        let syncs = self.log.syncs();
        if syncs.is_still(STILL_MAX) {
            let waited = syncs.wait_for_all(limit).await;
            waited.map_err(|e| RPCError::Network(NetworkError::new(&e)))?;
        }
        let committed = request.leader_commit.map(|id| id.index);
        if committed.is_some_and(|index| !syncs.has(index)) {
            request.leader_commit = None;
        }
        Ok(())
    }
}

impl Stream {
    /// Notes the entries of a message that the peer has on disk now.
    fn note_held(
        &self,
        request: &AppendEntriesRequest<TypeConfig>,
        answer: &AppendEntriesResponse<u64>,
    ) {
        // A follower says that it has an entry of an earlier term that is committed, also if a
        // snapshot brought it.
        let term = request.vote.leader_id.term;
        let mut own = request.entries.iter();
        let first = own.find(|entry| entry.log_id.leader_id.term == term);
        let (Some(first), Some(last)) = (first, request.entries.last()) else {
            return;
        };
        let (first, last) = (first.log_id.index, last.log_id.index);
        let through = match answer {
            AppendEntriesResponse::Success => last,
            AppendEntriesResponse::PartialSuccess(Some(matching)) => matching.index.min(last),
            AppendEntriesResponse::PartialSuccess(None)
            | AppendEntriesResponse::Conflict
            | AppendEntriesResponse::HigherVote(_) => return,
        };
        if through >= first {
            self.holds.note(self.peer.to, term, (first, through));
        }
    }
}

type CallError = RPCError<u64, BasicNode, RaftError<u64>>;

fn failed(e: TransportError) -> CallError {
    match e {
        TransportError::Unreachable(_) => RPCError::Unreachable(Unreachable::new(&e)),
        TransportError::NoAnswer(_) => RPCError::Network(NetworkError::new(&e)),
    }
}

fn unexpected() -> CallError {
    RPCError::Network(NetworkError::new(&AnyError::error("unexpected answer")))
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Stream;

    async fn new_client(&mut self, target: u64, node: &BasicNode) -> Stream {
        Stream {
            peer: Peer {
                transport: self.transport.clone(),
                to: NodeId(target),
                addr: node.addr.clone(),
            },
            log: self.log.clone(),
            holds: self.holds.clone(),
            contact: Contact::new(self.quiet_max),
        }
    }
}

impl RaftNetwork<TypeConfig> for Stream {
    async fn append_entries(
        &mut self,
        mut request: AppendEntriesRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<u64>, CallError> {
        let now = Instant::now();
        if self.contact.spares(&request, now) {
            return Ok(AppendEntriesResponse::Success);
        }
        self.check_own_disk(&mut request, option.hard_ttl()).await?;
        let attempt = self.contact.begin(&request, now);
        let (head, data) = Request::append(&request);
        match self.peer.call(head, data, option.hard_ttl()).await {
            Ok(Reply::Append(answer)) => {
                if answer.is_success() {
                    self.contact.succeed(attempt);
                }
                self.note_held(&request, &answer);
                Ok(answer)
            }
            Ok(_) => Err(unexpected()),
            Err(e) => Err(failed(e)),
        }
    }

    async fn vote(
        &mut self,
        request: VoteRequest<u64>,
        option: RPCOption,
    ) -> Result<VoteResponse<u64>, CallError> {
        let head = Request::Vote(request).encode();
        match self.peer.call(head, Bytes::new(), option.hard_ttl()).await {
            Ok(Reply::Vote(answer)) => Ok(answer),
            Ok(_) => Err(unexpected()),
            Err(e) => Err(failed(e)),
        }
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<u64>, StreamingError<TypeConfig, Fatal<u64>>> {
        let last = snapshot.meta.last_log_id.map(|id| id.index);
        let sent = tokio::select! {
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = snapshot::send(&self.peer, vote, snapshot) => match sent {
                Ok(vote) => Ok(SnapshotResponse::new(vote)),
                Err(snapshot::SendError::Transport(e @ TransportError::Unreachable(_))) => {
                    Err(StreamingError::Unreachable(Unreachable::new(&e)))
                }
                Err(snapshot::SendError::Transport(e)) => {
                    Err(StreamingError::Network(NetworkError::new(&e)))
                }
                Err(snapshot::SendError::Store(e)) => Err(StreamingError::StorageError(
                    openraft::StorageIOError::read_snapshot(None, AnyError::error(e)).into(),
                )),
            },
        };
        if let (Ok(_), Some(last)) = (&sent, last) {
            self.holds.note_snapshot(self.peer.to, last);
        }
        sent
    }

    fn backoff(&self) -> Backoff {
        Backoff::new(std::iter::repeat(UNREACHABLE_PAUSE))
    }
}
