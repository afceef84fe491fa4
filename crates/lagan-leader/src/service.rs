//! The metadata service: it answers what any process asks of the leader.
//!
//! Every server answers; one that does not lead names the leader. A server that does not
//! vote hears nothing of elections, and names the leader that it calls itself. If nobody
//! knows the outcome of a mutation, the answer is that of a missing leader: the asker sends
//! it again, and the state machine carries it out once.

use crate::after::After;
use crate::leader::Leader;
use crate::no_answer::NoAnswer;
use crate::promises::Reading;
use bytes::Bytes;
use lagan_meta::kv::StoreError;
use lagan_net::{LeaderClient, MapCell, Peer, Reply, Role};
use lagan_raft::{ProposeError, Raft, View};
use lagan_types::cluster::ClusterMap;
use lagan_types::message::{
    Conversation, CreateFile, CreateOutcome, GetJobs, GetMap, GetStatus, Join, LeaderRefusal,
    LeaderRequest, Message, MetaRequest, Mutate, NodeHeartbeat, ReadState, ReleaseFiles, Remove,
    SessionHeartbeat, WaitLock,
};
use lagan_types::op::Create;
use lagan_types::query::{Query, QueryAnswer};
use lagan_types::{Answer, Command, FileOp, FsError, NodeId, Op, Refusal, SessionId, answer_to};
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

    /// Answers a request about the state: a small read at once, anything else on a task of its
    /// own.
    pub fn handle_meta(self: &Arc<Self>, peer: &Arc<Peer>, request: MetaRequest, reply: Reply) {
        if let MetaRequest::ReadState(ask) = &request
            && let Some(answer) = self.read_at_once(ask)
        {
            return reply.answer::<ReadState>(Ok(answer), Bytes::new());
        }
        let (service, role) = (self.clone(), peer.hello.role);
        tokio::spawn(async move { service.answer_meta(role, request, reply).await });
    }

    async fn answer_meta(&self, role: Role, request: MetaRequest, reply: Reply) {
        match request {
            MetaRequest::Mutate(ask) => {
                let answer = self.mutate(role, ask.command).await;
                self.send::<Mutate>(role, answer, reply);
            }
            MetaRequest::ReadState(ask) => {
                let answer = self.read_state(&ask).await;
                self.send::<ReadState>(role, answer, reply);
            }
            MetaRequest::CreateFile(ask) => {
                let answer = self.create(role, ask.command).await;
                self.send::<CreateFile>(role, answer, reply);
            }
            MetaRequest::GetMap(ask) => {
                let answer = self.map(ask.known).await;
                self.send::<GetMap>(role, answer, reply);
            }
        }
    }

    /// Answers a request to the leader itself, on a task of its own.
    pub fn handle_leader(self: &Arc<Self>, peer: &Arc<Peer>, request: LeaderRequest, reply: Reply) {
        let (service, role) = (self.clone(), peer.hello.role);
        tokio::spawn(async move { service.answer_leader(role, request, reply).await });
    }

    async fn answer_leader(&self, role: Role, request: LeaderRequest, reply: Reply) {
        let leader = &self.leader;
        match request {
            LeaderRequest::SessionHeartbeat(beat) => {
                let answer = leader.session_heartbeat(&beat).await;
                self.send::<SessionHeartbeat>(role, answer, reply);
            }
            LeaderRequest::WaitLock(ask) => {
                let answer = leader.wait_lock(&ask).await;
                self.send::<WaitLock>(role, answer, reply);
            }
            LeaderRequest::NodeHeartbeat(beat) => {
                let answer = leader.node_heartbeat(beat).await;
                self.send::<NodeHeartbeat>(role, answer, reply);
            }
            LeaderRequest::GetJobs(ask) => {
                let answer = leader.archive_jobs(ask.node, ask.slots).await;
                self.send::<GetJobs>(role, answer, reply);
            }
            LeaderRequest::Join(ask) => {
                let answer = leader.join(ask.info).await;
                self.send::<Join>(role, answer, reply);
            }
            LeaderRequest::GetStatus(_) => {
                let answer = leader.status().await;
                self.send::<GetStatus>(role, answer, reply);
            }
            LeaderRequest::Remove(ask) => {
                let answer = leader.remove_node(ask.node, ask.force).await;
                self.send::<Remove>(role, answer, reply);
            }
            LeaderRequest::ReleaseFiles(ask) => {
                let answer = leader.release(ask.files).await;
                self.send::<ReleaseFiles>(role, answer, reply);
            }
        }
    }

    fn send<A>(&self, role: Role, answer: Result<A::Answer, NoAnswer>, reply: Reply)
    where
        A: Message,
        A::Request: Conversation<Refusal = LeaderRefusal>,
    {
        reply.answer::<A>(answer.map_err(|e| self.refusal(role, e)), Bytes::new());
    }

    async fn mutate(
        &self,
        role: Role,
        command: Command,
    ) -> Result<Result<Answer, Refusal>, NoAnswer> {
        if !allowed(role, &command) {
            tracing::warn!(?role, op = ?command.op, "command refused");
            return Ok(Err(FsError::NotPermitted.into()));
        }
        let after = After::of(&command);
        let promises = &self.leader.promises;
        let answer = promises.mutate(command, PROPOSE_DEADLINE).await?;
        self.leader.note(after, &answer);
        Ok(answer)
    }

    /// Creates a regular file for a mount: promises the name, if it can be promised.
    async fn create(
        &self,
        role: Role,
        command: Command,
    ) -> Result<Result<CreateOutcome, Refusal>, NoAnswer> {
        if !matches!(command.op, Op::File(FileOp::Create(_))) {
            return Ok(Err(Refusal::Malformed));
        }
        if allowed(role, &command)
            && let Some((attr, term)) = self.leader.promises.create(&command).await?
        {
            return Ok(Ok(CreateOutcome::Promised { attr, term }));
        }
        let answer = self.mutate(role, command).await?;
        Ok(answer_to::<Create>(answer).map(CreateOutcome::Replicated))
    }

    /// Answers a read of few rows at once, if this node is known to lead: a task
    /// for it would cost more than the read.
    fn read_at_once(&self, ask: &ReadState) -> Option<Result<QueryAnswer, Refusal>> {
        if !is_small(&ask.query) {
            return None;
        }
        // First the promises, then the state: a file made in between is in the state.
        let reading = self.leader.promises.reading_now(ask.session, &ask.query)?;
        let view = self.raft.try_read()?;
        self.read(&view, reading, ask).ok()
    }

    async fn read_state(&self, ask: &ReadState) -> Result<Result<QueryAnswer, Refusal>, NoAnswer> {
        // First the promises, then the state: a file made in between is in the state.
        let promises = &self.leader.promises;
        let reading = promises.before_read(ask.session, &ask.query).await?;
        let view = self.raft.read().await?;
        self.read(&view, reading, ask)
    }

    /// Answers a read: from the promise, if the file is the asker's own, else from the state.
    fn read(
        &self,
        view: &View,
        reading: Reading,
        ask: &ReadState,
    ) -> Result<Result<QueryAnswer, Refusal>, NoAnswer> {
        if let Reading::Own(attr) = reading {
            return Ok(Ok(QueryAnswer::Attr(attr)));
        }
        if ended(view, ask.session, &ask.query)? {
            return Ok(Err(Refusal::SessionEnded));
        }
        let mut answer = lagan_meta::query(view, ask.volume, ask.session, &ask.query)?;
        if let Ok(answer) = &mut answer {
            self.leader.promises.after_read(answer);
        }
        Ok(answer)
    }

    async fn map(&self, known: u64) -> Result<Option<ClusterMap>, NoAnswer> {
        let view = self.raft.read().await?;
        if lagan_meta::map_version(&view)? <= known {
            return Ok(None);
        }
        Ok(lagan_meta::cluster_map(&view)?)
    }

    /// Puts into words for the asker why there is no answer.
    fn refusal(&self, role: Role, error: NoAnswer) -> LeaderRefusal {
        match error {
            NoAnswer::Refused(reason) => LeaderRefusal::Refused(reason),
            NoAnswer::Unknown => LeaderRefusal::UNKNOWN,
            NoAnswer::Raft(error) => self.redirect(role, &error),
            NoAnswer::Store(error) => {
                tracing::error!(%error, "state store");
                LeaderRefusal::UNKNOWN
            }
        }
    }

    /// Names the leader by the address that the asker can use.
    fn redirect(&self, role: Role, error: &ProposeError) -> LeaderRefusal {
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
        LeaderRefusal::NotLeader { leader, addr }
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

/// Whether the query reads so few rows that it may hold up a connection.
fn is_small(query: &Query) -> bool {
    matches!(
        query,
        Query::Lookup(_)
            | Query::GetAttr(_)
            | Query::Open(_)
            | Query::ReadLink(_)
            | Query::GetXattr(_)
            | Query::StatFs(_)
            | Query::Parent(_)
    )
}

/// Whether the read must fail because the session has ended. A mount asks about locks as
/// the holder of some: without a session it has none, and must learn that. Other reads
/// show everybody the same.
fn ended(view: &View, session: SessionId, query: &Query) -> Result<bool, StoreError> {
    let matters = session != SessionId::SYSTEM && matches!(query, Query::GetLock(_));
    Ok(matters && !lagan_meta::session_exists(view, session)?)
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
