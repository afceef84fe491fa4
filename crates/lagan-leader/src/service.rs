//! The metadata service: it answers what any process asks of the leader.
//!
//! Every server answers; one that does not lead names the leader. A server that does not
//! vote hears nothing of elections, and names the leader that it calls itself. If nobody
//! knows the outcome of a mutation, the answer is that of a missing leader: the asker sends
//! it again, and the state machine carries it out once.

use crate::leader::Leader;
use crate::promises::Reading;
use bytes::Bytes;
use lagan_meta::kv::StoreError;
use lagan_net::{LeaderClient, MapCell, Peer, Reply, Role};
use lagan_raft::{ProposeError, Raft, View};
use lagan_types::message::{MetaReply, MetaRequest};
use lagan_types::query::{Query, QueryAnswer};
use lagan_types::{Answer, Command, FileOp, FsError, NodeId, Op, SessionId, SystemOp, VolumeId};
use std::sync::Arc;
use std::time::Duration;

/// Time for a proposal to find a quorum; after it the answer is "ask again".
const PROPOSE_DEADLINE: Duration = Duration::from_secs(5);

/// Answers metadata requests of one node.
pub struct MetaService {
    node: NodeId,
    raft: Arc<Raft>,
    leader: Arc<Leader>,
    map: Arc<MapCell>,
    /// This node's own way to the leader.
    heard: Arc<LeaderClient>,
}

impl std::fmt::Debug for MetaService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetaService").finish_non_exhaustive()
    }
}

impl MetaService {
    /// Makes the service of `node` over its `raft` and its `leader`; `heard` is the node's own
    /// way to the leader.
    pub fn new(
        node: NodeId,
        raft: Arc<Raft>,
        leader: Arc<Leader>,
        map: Arc<MapCell>,
        heard: Arc<LeaderClient>,
    ) -> Arc<Self> {
        Arc::new(MetaService {
            node,
            raft,
            leader,
            map,
            heard,
        })
    }

    /// Answers a request: a small read at once, anything else on a task of its own.
    pub fn handle(self: &Arc<Self>, peer: &Arc<Peer>, request: MetaRequest, reply: Reply) {
        if let Some(answer) = self.answer_at_once(&request) {
            return reply.send_typed(&answer, Bytes::new());
        }
        let (service, role) = (self.clone(), peer.hello.role);
        tokio::spawn(async move {
            let answer = service.answer(role, request).await;
            reply.send_typed(&answer, Bytes::new());
        });
    }

    async fn answer(&self, role: Role, request: MetaRequest) -> MetaReply {
        if !may_ask(role, &request) {
            tracing::warn!(?role, "request refused: it is for servers");
            return MetaReply::Refused("only servers ask this".into());
        }
        let answer = match request {
            MetaRequest::Ping => Ok(self.pong()),
            MetaRequest::Mutate(command) => self.mutate(role, command).await,
            MetaRequest::Create(command) => self.create(role, command).await,
            MetaRequest::Query {
                volume,
                session,
                query,
            } => self.query(volume, session, &query).await,
            MetaRequest::Map { known } => self.map(known).await,
            MetaRequest::ArchiveJobs { node, slots } => self.leader.archive_jobs(node, slots).await,
            MetaRequest::Release { files } => self.leader.release(files).await,
            other => match self.raft.read().await {
                Ok(view) => Ok(self.leader.answer(&view, other).await),
                Err(e) => Err(e),
            },
        };
        answer.unwrap_or_else(|e| self.redirect(role, &e))
    }

    async fn mutate(&self, role: Role, command: Command) -> Result<MetaReply, ProposeError> {
        if !allowed(role, &command) {
            tracing::warn!(?role, op = ?command.op, "command refused");
            return Ok(MetaReply::Answer(Err(FsError::NotPermitted)));
        }
        let ended = match &command.op {
            Op::File(FileOp::CloseSession(_)) => Some(command.session),
            Op::System(SystemOp::OpenSession(op)) => op.predecessor,
            _ => None,
        };
        let locks = match &command.op {
            Op::File(FileOp::SetLock(op)) => Some((command.session, op.ino, op.lock)),
            _ => None,
        };
        let may_be_due = matches!(
            command.op,
            Op::System(SystemOp::ArchiveNow(_) | SystemOp::SetConfig(_))
        );
        let answer = self
            .leader
            .promises
            .mutate(command, PROPOSE_DEADLINE)
            .await?;
        if let (Ok(_), Some((session, ino, lock))) = (&answer, &locks) {
            self.leader.lock_taken(*session, *ino, lock);
        }
        if let Ok(answer) = &answer {
            if let Some(session) = ended {
                self.leader.session_ended(session);
            }
            if let Answer::Session { session, .. } = answer {
                self.leader.session_heard(*session);
            }
        }
        if may_be_due {
            self.leader.files_became_due();
        }
        Ok(MetaReply::Answer(answer))
    }

    /// Creates a regular file for a mount: promises the name, if it can be promised.
    async fn create(&self, role: Role, command: Command) -> Result<MetaReply, ProposeError> {
        if allowed(role, &command)
            && let Some((attr, term)) = self.leader.promises.create(&command).await?
        {
            return Ok(MetaReply::Promised { attr, term });
        }
        self.mutate(role, command).await
    }

    /// Answers a read of few rows at once, if this node is known to lead: a task
    /// for it would cost more than the read.
    fn answer_at_once(&self, request: &MetaRequest) -> Option<MetaReply> {
        let MetaRequest::Query {
            volume,
            session,
            query,
        } = request
        else {
            return None;
        };
        if !is_small(query) {
            return None;
        }
        // First the promises, then the state: a file made in between is in the state.
        let reading = self.leader.promises.reading_now(*session, query)?;
        let view = self.raft.try_read()?;
        self.read(&view, reading, (*volume, *session), query).ok()
    }

    async fn query(
        &self,
        volume: VolumeId,
        session: SessionId,
        query: &Query,
    ) -> Result<MetaReply, ProposeError> {
        // First the promises, then the state: a file made in between is in the state.
        let reading = self.leader.promises.before_read(session, query).await?;
        let view = self.raft.read().await?;
        self.read(&view, reading, (volume, session), query)
    }

    /// Answers a read: from the promise, if the file is the asker's own, else from the state.
    fn read(
        &self,
        view: &View,
        reading: Reading,
        (volume, session): (VolumeId, SessionId),
        query: &Query,
    ) -> Result<MetaReply, ProposeError> {
        if let Reading::Own(attr) = reading {
            return Ok(MetaReply::Query(Ok(QueryAnswer::Attr(attr))));
        }
        let mut reply = read_query(view, volume, session, query)?;
        if let MetaReply::Query(Ok(answer)) = &mut reply {
            self.leader.promises.after_read(answer);
        }
        Ok(reply)
    }

    async fn map(&self, known: u64) -> Result<MetaReply, ProposeError> {
        let view = self.raft.read().await?;
        read_map(&view, known).map_err(|e| store_failed(&e))
    }

    fn pong(&self) -> MetaReply {
        MetaReply::Pong {
            leader: self.raft.leader().map(|(node, _)| node),
            term: self.raft.term(),
        }
    }

    /// Names the leader by the address that the asker can use.
    fn redirect(&self, role: Role, error: &ProposeError) -> MetaReply {
        let voted = match error {
            ProposeError::NotLeader { leader } => leader.clone(),
            _ => None,
        };
        let (leader, addr) = match (role, voted) {
            (Role::Server, Some((node, peer_addr))) => (Some(node), Some(peer_addr)),
            // Servers know each other: what one only heard would go round among them.
            (Role::Server, None) => (None, None),
            (Role::Mount | Role::Admin, voted) => {
                let leader = voted.map(|(node, _)| node).or_else(|| self.heard_leader());
                (leader, leader.and_then(|node| self.client_addr(node)))
            }
        };
        MetaReply::NotLeader { leader, addr }
    }

    /// Returns the leader as far as this node's own calls tell; `None` if the node votes:
    /// then its consensus knows better.
    fn heard_leader(&self) -> Option<NodeId> {
        let map = self.map.get();
        let addr = self.heard.leader()?.to_string();
        let leader = map.nodes.iter().find(|n| n.peer_addr == addr)?;
        let votes = self.raft.voters().contains(&self.node);
        (!votes).then_some(leader.id)
    }

    fn client_addr(&self, node: NodeId) -> Option<String> {
        self.map.get().node(node).map(|n| n.addr.clone())
    }
}

fn read_query(
    view: &View,
    volume: VolumeId,
    session: SessionId,
    query: &Query,
) -> Result<MetaReply, ProposeError> {
    if ended(view, session, query).map_err(|e| store_failed(&e))? {
        return Ok(MetaReply::Query(Err(FsError::SessionEnded)));
    }
    let answer = lagan_meta::query(view, volume, session, query);
    answer.map(MetaReply::Query).map_err(|e| store_failed(&e))
}

/// Whether the query reads so few rows that it may hold up a connection.
fn is_small(query: &Query) -> bool {
    matches!(
        query,
        Query::Lookup { .. }
            | Query::GetAttr { .. }
            | Query::Open { .. }
            | Query::ReadLink { .. }
            | Query::GetXattr { .. }
            | Query::StatFs
            | Query::Parent { .. }
    )
}

/// Whether the read must fail because the session has ended. A mount asks about locks as
/// the holder of some: without a session it has none, and must learn that. Other reads
/// show everybody the same.
fn ended(view: &View, session: SessionId, query: &Query) -> Result<bool, StoreError> {
    let matters = session != SessionId::SYSTEM && matches!(query, Query::GetLock { .. });
    Ok(matters && !lagan_meta::session_exists(view, session)?)
}

/// Whether a process of that role may ask this: some requests are for servers and the admin
/// command only.
fn may_ask(role: Role, request: &MetaRequest) -> bool {
    match request {
        MetaRequest::NodeHeartbeat(_)
        | MetaRequest::ArchiveJobs { .. }
        | MetaRequest::Join { .. } => role == Role::Server,
        MetaRequest::RemoveNode { .. } | MetaRequest::Release { .. } => {
            matches!(role, Role::Admin | Role::Server)
        }
        _ => true,
    }
}

fn read_map(view: &View, known: u64) -> Result<MetaReply, StoreError> {
    if lagan_meta::map_version(view)? <= known {
        return Ok(MetaReply::Map(None));
    }
    Ok(MetaReply::Map(lagan_meta::cluster_map(view)?))
}

fn store_failed(error: &StoreError) -> ProposeError {
    tracing::error!(%error, "state store");
    ProposeError::Stopped
}

/// Whether a process of that role may propose the command: mounts change files; the
/// cluster's own commands come from servers and the admin command. (The handshake judges who
/// may connect at all.)
fn allowed(role: Role, command: &Command) -> bool {
    let own = command.session == SessionId::SYSTEM;
    match &command.op {
        Op::File(_) => !own,
        Op::System(op) => own && role.may_ask(op.asker()),
    }
}
