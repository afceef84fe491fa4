//! The metadata service: it answers what any process asks of the leader.
//!
//! Every server answers; one that does not lead names the leader. A server that does not
//! vote hears nothing of elections, and names the leader that it calls itself. If nobody
//! knows the outcome of a mutation, the answer is that of a missing leader: the asker sends
//! it again, and the state machine carries it out once.

use crate::after::After;
use crate::along::{self, ChunksHere};
use crate::leader::Leader;
use crate::metrics;
use crate::no_answer::NoAnswer;
use crate::promises::{Changed, Promised, Reading};
use bytes::Bytes;
use lagan_meta::kv::StoreError;
use lagan_net::{LeaderClient, MapCell, Peer, Reply, Role};
use lagan_raft::{ProposeError, Raft, View};
use lagan_types::cluster::ClusterMap;
use lagan_types::lease::{CLOSED_MAX, Closed, Key, Leased};
use lagan_types::limits::ALONG_ALL_LEN_MAX;
use lagan_types::message::{
    Conversation, CreateFile, CreateOutcome, FileCreated, GetJobs, GetMap, GetStatus, Join,
    LeaderRefusal, LeaderRequest, Message, MetaRequest, Mutate, Mutated, NodeHeartbeat,
    PollRecalls, ReadState, ReleaseFiles, Remove, SessionHeartbeat, StateRead, WaitLock,
};
use lagan_types::op::Create;
use lagan_types::query::{Query, QueryAnswer, Sees};
use lagan_types::{Command, FileOp, FsError, NodeId, Op, Refusal, SessionId, answer_to};
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Time for a proposal to find a quorum; after it the answer is "ask again".
const PROPOSE_DEADLINE: Duration = Duration::from_secs(5);

/// Time for a mount to give up a directory that it uses alone, or for its lease to end.
const VISIT_MAX: Duration = Duration::from_secs(4);

/// How often a read begins again to lease its answer, while others change the state.
const READS_MAX: u32 = 3;

/// Answers metadata requests of one node.
pub struct MetaService {
    node: NodeId,
    raft: Arc<Raft>,
    leader: Arc<Leader>,
    map: Arc<MapCell>,
    chunks: Arc<dyn ChunksHere>,
    /// This node's own way to the leader.
    heard: Arc<LeaderClient>,
}

impl std::fmt::Debug for MetaService {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MetaService").finish_non_exhaustive()
    }
}

impl MetaService {
    /// Makes the service of `node` over its `leader`, its cluster map and its chunks; `heard`
    /// is the node's own way to the leader.
    pub fn new(
        node: NodeId,
        leader: Arc<Leader>,
        map: Arc<MapCell>,
        chunks: Arc<dyn ChunksHere>,
        heard: Arc<LeaderClient>,
    ) -> Arc<Self> {
        Arc::new(MetaService {
            node,
            raft: leader.raft.clone(),
            leader,
            map,
            chunks,
            heard,
        })
    }

    /// Answers a request about the state: a small read at once, anything else on a task of its
    /// own.
    pub fn handle_meta(self: &Arc<Self>, peer: &Arc<Peer>, request: MetaRequest, mut reply: Reply) {
        metrics::asked(&request);
        let (service, role) = (self.clone(), peer.hello.role);
        if let MetaRequest::ReadState(ask) = &request {
            reply.reserve(ask.along.min(ALONG_ALL_LEN_MAX) as usize);
            if let Some(mut read) = self.read_at_once(ask) {
                let missing = along::bring(&*self.chunks, &mut read, ask.along);
                if missing.is_empty() {
                    return reply.answer::<ReadState>(Ok(read), Bytes::new());
                }
                tokio::spawn(async move {
                    along::wait(&*service.chunks, &mut read, missing).await;
                    service.send::<ReadState>(role, Ok(read), reply);
                });
                return;
            }
        }
        tokio::spawn(async move { service.answer_meta(role, request, reply).await });
    }

    async fn answer_meta(&self, role: Role, request: MetaRequest, reply: Reply) {
        match request {
            MetaRequest::Mutate(ask) => {
                let answer = self.mutate(role, ask).await;
                self.send::<Mutate>(role, answer, reply);
            }
            MetaRequest::ReadState(ask) => {
                let mut answer = self.read_state(&ask).await;
                if let Ok(read) = &mut answer {
                    let missing = along::bring(&*self.chunks, read, ask.along);
                    along::wait(&*self.chunks, read, missing).await;
                }
                self.send::<ReadState>(role, answer, reply);
            }
            MetaRequest::CreateFile(ask) => {
                let answer = self.create(role, ask).await;
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
            LeaderRequest::PollRecalls(ask) => {
                let answer = leader.leases.poll(ask.session, ask.term, ask.acked).await;
                self.send::<PollRecalls>(role, answer.map_err(NoAnswer::from), reply);
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

    async fn mutate(&self, role: Role, ask: Mutate) -> Result<Mutated, NoAnswer> {
        let Mutate { command, closed } = ask;
        if !allowed(role, &command) {
            tracing::warn!(?role, op = ?command.op, "command refused");
            return Ok(Err(FsError::NotPermitted.into()).into());
        }
        if !is_sound(closed.as_ref()) {
            return Ok(Err(Refusal::Malformed).into());
        }
        // The state judges by the answers that it remembers.
        self.leader.floors.admit(&command);
        let members = match self.leader.inline_members(&command)? {
            Ok(members) => Some(members).filter(|m| !m.is_empty()),
            Err(Refusal::NotInline) => return self.refuse_data(command, closed).await,
            Err(refusal) => return Ok(Err(refusal).into()),
        };
        let after = After::of(&command);
        let promises = &self.leader.promises;
        let changed = promises.mutate(command, closed.as_ref(), PROPOSE_DEADLINE);
        let Changed {
            answer,
            proof,
            entry,
        } = changed.await?;
        self.leader.note(after, &answer);
        let held = match members.filter(|_| answer.is_ok()) {
            Some(members) => self.leader.wait_held(entry, members).await?,
            None => true,
        };
        Ok(Mutated {
            answer,
            proof,
            held,
        })
    }

    /// Has a mutation refused whose bytes cannot come with it now. It may have been carried out
    /// before, when it was sent the first time: then nobody knows who has the bytes.
    async fn refuse_data(
        &self,
        mut command: Command,
        closed: Option<Closed>,
    ) -> Result<Mutated, NoAnswer> {
        if let Op::File(op) = command.op {
            command.op = op.without_data().into();
        }
        let promises = &self.leader.promises;
        let changed = promises.mutate(command, closed.as_ref(), PROPOSE_DEADLINE);
        let Changed { answer, proof, .. } = changed.await?;
        Ok(Mutated {
            answer,
            proof,
            held: false,
        })
    }

    /// Creates a regular file for a mount: promises the name, if it can be promised.
    async fn create(&self, role: Role, ask: CreateFile) -> Result<FileCreated, NoAnswer> {
        let CreateFile { command, closed } = ask;
        let is_create = matches!(command.op, Op::File(FileOp::Create(_)));
        if !is_create || !is_sound(closed.as_ref()) {
            return Ok(Err(Refusal::Malformed).into());
        }
        if allowed(role, &command) {
            if !self.leader.floors.admit(&command) {
                return Ok(Err(Refusal::OutsideWindow).into());
            }
            let promises = &self.leader.promises;
            let promised = promises.create(&command, closed.as_ref());
            if let Some(Promised { attr, term, proof }) = promised.await? {
                let outcome = Ok(CreateOutcome::Promised { attr, term });
                return Ok(FileCreated { outcome, proof });
            }
        }
        let mutated = self.mutate(role, Mutate { command, closed }).await?;
        Ok(FileCreated {
            outcome: answer_to::<Create>(mutated.answer).map(CreateOutcome::Replicated),
            proof: mutated.proof,
        })
    }

    /// Answers a read of few rows at once, if this node is known to lead: a task
    /// for it would cost more than the read.
    fn read_at_once(&self, ask: &ReadState) -> Option<StateRead> {
        if !is_small(&ask.query) {
            return None;
        }
        self.raft.try_read()?;
        let term = self.raft.leading()?;
        let began = self.leader.leases.read_begins(term);
        let read = self.read_leased(ask).ok().flatten()?;
        self.may_show(ask, &read, (term, began)).then_some(read)
    }

    async fn read_state(&self, ask: &ReadState) -> Result<StateRead, NoAnswer> {
        let promises = &self.leader.promises;
        let mut made_in = None;
        loop {
            self.raft.read().await?;
            let Some(term) = self.raft.leading() else {
                continue;
            };
            let leases = &self.leader.leases;
            let (held, began) = (leases.holds(term), leases.read_begins(term));
            let mut read = self.read_leased(ask)?;
            if read.is_none() && !held && made_in == Some(term) {
                // Others go on to promise files that are in its way. What it waited for is
                // there, which is all that it may ask for.
                read = self.read_over(ask, term)?;
            }
            match read {
                Some(read) if self.may_show(ask, &read, (term, began)) => return Ok(read),
                Some(read) => {
                    let keys = ask.query.keys(&read.answer);
                    let until = Instant::now() + VISIT_MAX;
                    leases.visit(ask.session, term, &keys, until).await?;
                }
                None if held => leases.wait_for_hold(term).await?,
                None => {
                    promises.before_read(ask.session, &ask.query).await?;
                    made_in = Some(term);
                }
            }
        }
    }

    /// Whether nobody but the asker used a directory alone that a read shows, which began with
    /// that number in that term: what it made there may not be in the state.
    fn may_show(&self, ask: &ReadState, read: &StateRead, (term, began): (u64, u64)) -> bool {
        let keys = ask.query.keys(&read.answer);
        self.leader.leases.may_show(ask.session, term, &keys, began)
    }

    /// Answers a read although promises may stand in its way, and leases nothing; `None`: this
    /// is not the term.
    fn read_over(&self, ask: &ReadState, term: u64) -> Result<Option<StateRead>, NoAnswer> {
        let state = || self.query(&self.raft.local_view(), ask);
        let promises = &self.leader.promises;
        let found = promises.look_over(term, ask.session, &ask.query, state);
        Ok(found.transpose()?.map(StateRead::from))
    }

    /// Answers a read, and leases what the mount wants to remember of the answer; `None`: a
    /// promise stands in the way, or may. Call it when a read of this node's state is known
    /// to be linearizable.
    ///
    /// A lease is on what a read shows that began after the interest was registered. Which
    /// keys an answer shows is known when it is there; so it counts if nothing has changed
    /// from its reading until after the registration, and else is read once more.
    fn read_leased(&self, ask: &ReadState) -> Result<Option<StateRead>, NoAnswer> {
        let promises = &self.leader.promises;
        let Some(term) = self.raft.leading() else {
            return Ok(None);
        };
        let mut registered: HashMap<Key, bool> = HashMap::new();
        for tries in 1.. {
            let version = promises.version();
            if version.0 != term {
                return Ok(None);
            }
            // What is absent in a view of before the end of the hold may be there now.
            let held = self.leader.leases.holds(term);
            // First the promises, then the state: a file made in between is in the state.
            let Some(reading) = promises.reading_now(ask.session, &ask.query) else {
                return Ok(None);
            };
            let from_state = matches!(reading, Reading::State);
            let view = self.raft.local_view();
            let answer = self.read(&view, reading, ask)?;
            if promises.version() != version {
                // A directory's times may be those of before a promise that was kept since.
                if tries < READS_MAX {
                    continue;
                }
                // Whoever looks ahead has no use for what is not leased; the whole of it would be
                // read once more while nobody can promise anything.
                return match is_ahead(ask) {
                    true => Ok(Some(answer.into())),
                    false => self.read_over(ask, term),
                };
            }
            if held && denies(&ask.query, &answer) {
                return Ok(None);
            }
            let (Some(wish), true) = (ask.wish, from_state) else {
                return Ok(Some(answer.into()));
            };
            let keys = ask.query.keys(&answer);
            let listed = |key: &Key| wish.listing || !matches!(key, Key::Directory(_));
            let new = keys
                .iter()
                .filter(|key| !registered.contains_key(key) && listed(key));
            let new: Vec<Key> = new.cloned().collect();
            if !new.is_empty() {
                let leases = &self.leader.leases;
                let leased = leases.register(ask.session, term, wish.asked, &new);
                registered.extend(new.iter().cloned().zip(leased));
            }
            let same = || self.raft.local_view().is_same(&view) && promises.version() == version;
            if new.is_empty() || same() {
                let may = |key| registered.get(key).copied().unwrap_or(false);
                let keys = keys.iter().map(may).collect();
                let leased = Some(Leased { term, keys });
                let chunks = Vec::new();
                return Ok(Some(StateRead {
                    answer,
                    leased,
                    chunks,
                }));
            }
            if tries == READS_MAX {
                return Ok(Some(answer.into()));
            }
        }
        Ok(None)
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
        let mut answer = self.query(view, ask)?;
        if let Ok(answer) = &mut answer {
            self.leader.promises.after_read(answer);
        }
        Ok(answer)
    }

    fn query(
        &self,
        view: &View,
        ask: &ReadState,
    ) -> Result<Result<QueryAnswer, Refusal>, NoAnswer> {
        if ended(view, ask.session, &ask.query)? {
            return Ok(Err(Refusal::SessionEnded));
        }
        let (volume, session) = (ask.volume, ask.session);
        Ok(lagan_meta::query(view, volume, session, &ask.query)?)
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
            // To name another would say that nothing happened.
            ProposeError::Unknown => return LeaderRefusal::UNKNOWN,
            ProposeError::Busy | ProposeError::Stopped => None,
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

/// Whether the answer says that something is not there. In a new term a leader before may
/// have promised it, and its mount has not said so yet.
fn denies(query: &Query, answer: &Result<QueryAnswer, Refusal>) -> bool {
    match answer {
        Err(Refusal::Fs(FsError::NotFound | FsError::Stale)) => {
            !matches!(query.sees(), Sees::Nothing)
        }
        _ => matches!(query.sees(), Sees::Entries(_)),
    }
}

/// Whether a mount closed no more keys than one mutation has.
fn is_sound(closed: Option<&Closed>) -> bool {
    closed.is_none_or(|closed| closed.keys.len() <= CLOSED_MAX)
}

/// Whether a mount asks for what it may look at next, to remember it.
fn is_ahead(ask: &ReadState) -> bool {
    let many = matches!(
        ask.query,
        Query::GetAttrs(_) | Query::LookupAll(_) | Query::OpenAll(_)
    );
    many && ask.wish.is_some()
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
