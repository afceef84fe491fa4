//! Finds the metadata leader and keeps to it.
//!
//! A call goes to the server that led last. The answer `NotLeader` names the server to
//! ask next; after an error the next one in the list is asked; during silence the others
//! are asked for the leader, while the call goes on. Calls are sent again freely:
//! mutations carry (session, sequence), and the state machine does each once (INV-6).

use crate::connection::{decode_reply, own_answer};
use crate::error::NetError;
use crate::message::Response;
use crate::pool::Pool;
use bytes::Bytes;
use lagan_types::NodeId;
use lagan_types::codec;
use lagan_types::message::{Conversation, LeaderRefusal, Message, Ping, Service};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

#[cfg(test)]
mod tests;

/// Silence after which the other servers are asked for the leader.
const SILENCE: Duration = Duration::from_millis(600);
/// Pause before they are asked again, while the silence lasts.
const ASK_AGAIN: Duration = Duration::from_millis(250);
/// Time that one of them may take to answer.
const ASK_DEADLINE: Duration = Duration::from_millis(400);
/// Between rounds that found no leader, with jitter.
const PAUSE: Duration = Duration::from_millis(60);
/// Hints followed in a row without a pause: two servers may each name the other.
const HINTS_MAX: u32 = 2;

/// A client of whichever server leads. Many tasks may use it at once.
#[derive(Debug)]
pub struct LeaderClient {
    pool: Pool,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    servers: Vec<SocketAddr>,
    nodes: HashMap<NodeId, SocketAddr>,
    leader: Option<SocketAddr>,
    /// Index of the server to try next while no leader is known.
    next: usize,
}

/// The outcome of one attempt.
enum Attempt {
    Answered(Response),
    /// Another server says that this one leads instead.
    Moved(SocketAddr),
}

/// The progress of one call.
struct Progress {
    end: Instant,
    /// An attempt may have reached a server.
    sent: bool,
    /// One that did is over, without an answer: the next one asks again. A server that names
    /// no leader may not know what became of a mutation.
    again: bool,
    last: Option<NetError>,
    refused: Vec<SocketAddr>,
    hints: u32,
    failures: usize,
}

impl LeaderClient {
    /// A client of the cluster that `servers` belong to, over `pool`.
    pub fn new(pool: Pool, servers: Vec<SocketAddr>) -> Self {
        LeaderClient {
            pool,
            known: Mutex::new(Known {
                servers,
                ..Known::default()
            }),
        }
    }

    /// Replaces the addresses to try (a newer cluster map). Empty: no change.
    pub fn set_nodes(&self, nodes: impl IntoIterator<Item = (NodeId, SocketAddr)>) {
        let nodes: HashMap<_, _> = nodes.into_iter().collect();
        if nodes.is_empty() {
            return;
        }
        let mut known = self.known.lock();
        known.servers = nodes.values().copied().collect();
        known.servers.sort_unstable();
        known.nodes = nodes;
    }

    /// Adds addresses to try, beside those there are.
    pub fn add_servers(&self, servers: impl IntoIterator<Item = SocketAddr>) {
        let mut known = self.known.lock();
        for server in servers {
            if !known.servers.contains(&server) {
                known.servers.push(server);
            }
        }
    }

    /// The addresses that are tried.
    pub fn servers(&self) -> Vec<SocketAddr> {
        self.known.lock().servers.clone()
    }

    /// The address of the leader when one was last heard of.
    pub fn leader(&self) -> Option<SocketAddr> {
        self.known.lock().leader
    }

    /// The pool of its connections.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Asks the leader, whichever server it is or becomes, and returns its answer within
    /// `deadline`.
    ///
    /// # Errors
    /// [`NetError::TimedOut`] (for a mutation: unknown, if `sent`), or why no
    /// server could be reached; [`NetError::Refused`] at once if all refuse us;
    /// [`NetError::Declined`] if the leader refuses the request; [`NetError::Protocol`] if it
    /// answers another kind of request.
    ///
    /// # Cancel safety
    /// Dropping the future forgets the call; it may still be carried out.
    pub async fn ask<A>(&self, ask: A, deadline: Duration) -> Result<A::Answer, NetError>
    where
        A: Message,
        A::Request: Conversation<Refusal = LeaderRefusal>,
    {
        self.ask_counted(ask, deadline).await.0
    }

    /// Does the same as [`LeaderClient::ask`], and says whether the request may have reached
    /// a server more than once.
    pub async fn ask_counted<A>(
        &self,
        ask: A,
        deadline: Duration,
    ) -> (Result<A::Answer, NetError>, bool)
    where
        A: Message,
        A::Request: Conversation<Refusal = LeaderRefusal>,
    {
        let mut progress = Progress::until(Instant::now() + deadline);
        let answer = self.ask_on(ask, &mut progress).await;
        (answer, progress.again)
    }

    /// Asks the server that led last, once, for something that it may be long about. That it
    /// does not lead any more is for other calls to find out.
    ///
    /// # Errors
    /// Those of [`LeaderClient::ask`]; [`NetError::TimedOut`] also if the server does not
    /// lead.
    pub async fn ask_once<A>(&self, ask: A, deadline: Duration) -> Result<A::Answer, NetError>
    where
        A: Message,
        A::Request: Conversation<Refusal = LeaderRefusal>,
    {
        let target = self.target().ok_or(NetError::TimedOut { sent: false })?;
        let head = Bytes::from(codec::encode(&ask.into()));
        let service = A::Request::SERVICE;
        let call = self
            .pool
            .call(target, service, head, Bytes::new(), deadline);
        match decode_reply::<A>(&call.await?)? {
            Ok(reply) => own_answer::<A>(reply),
            Err(LeaderRefusal::NotLeader { .. }) => Err(NetError::TimedOut { sent: true }),
            Err(refusal) => Err(NetError::Declined(refusal.to_string())),
        }
    }

    async fn ask_on<A>(&self, ask: A, progress: &mut Progress) -> Result<A::Answer, NetError>
    where
        A: Message,
        A::Request: Conversation<Refusal = LeaderRefusal>,
    {
        let head = Bytes::from(codec::encode(&ask.into()));
        loop {
            let Some(target) = self.target() else {
                return Err(NetError::TimedOut { sent: false });
            };
            let attempt = self.attempt(target, A::Request::SERVICE, &head, progress.end);
            match attempt.await {
                Ok(Attempt::Answered(response)) => match decode_reply::<A>(&response) {
                    Ok(Err(LeaderRefusal::NotLeader { leader, addr })) => {
                        progress.again |= leader.is_none();
                        self.follow(target, leader, addr.as_deref(), progress).await;
                    }
                    Ok(reply) => {
                        self.known.lock().leader = Some(target);
                        return match reply {
                            Ok(reply) => own_answer::<A>(reply),
                            Err(refusal) => Err(NetError::Declined(refusal.to_string())),
                        };
                    }
                    Err(error) => self.failed(target, error, progress).await?,
                },
                Ok(Attempt::Moved(to)) => {
                    progress.sent = true;
                    progress.again = true;
                    self.known.lock().leader = Some(to);
                }
                Err(error) => self.failed(target, error, progress).await?,
            }
            if Instant::now() >= progress.end {
                return Err(progress.timed_out());
            }
        }
    }

    fn target(&self) -> Option<SocketAddr> {
        let known = self.known.lock();
        let count = known.servers.len();
        match known.leader {
            Some(leader) => Some(leader),
            None if count == 0 => None,
            None => known.servers.get(known.next % count).copied(),
        }
    }

    /// Forgets `target` as the leader, unless another took its place meanwhile.
    fn leave(&self, target: SocketAddr) {
        let mut known = self.known.lock();
        if known.leader == Some(target) {
            known.leader = None;
        }
        let count = known.servers.len().max(1);
        if known.servers.get(known.next % count) == Some(&target) {
            known.next = (known.next + 1) % count;
        }
    }

    async fn follow(
        &self,
        target: SocketAddr,
        leader: Option<NodeId>,
        addr: Option<&str>,
        progress: &mut Progress,
    ) {
        let hint = addr.and_then(|a| a.parse().ok()).or_else(|| {
            let known = self.known.lock();
            leader.and_then(|l| known.nodes.get(&l).copied())
        });
        self.leave(target);
        match hint {
            Some(hint) if hint != target && progress.hints < HINTS_MAX => {
                progress.hints += 1;
                self.known.lock().leader = Some(hint);
            }
            _ => {
                progress.hints = 0;
                progress.pause().await;
            }
        }
    }

    async fn failed(
        &self,
        target: SocketAddr,
        error: NetError,
        progress: &mut Progress,
    ) -> Result<(), NetError> {
        progress.sent |= error.possibly_sent();
        progress.again |= error.possibly_sent();
        if error.is_final() {
            return Err(error);
        }
        self.leave(target);
        let servers = self.servers();
        if matches!(error, NetError::Refused { .. }) {
            progress.refused.push(target);
            if servers.iter().all(|s| progress.refused.contains(s)) {
                return Err(error);
            }
        }
        progress.last = Some(error);
        progress.failures += 1;
        if progress.failures.is_multiple_of(servers.len().max(1)) {
            progress.pause().await;
        }
        Ok(())
    }

    /// One call to `target`; ends early if another is found to lead.
    async fn attempt(
        &self,
        target: SocketAddr,
        service: Service,
        head: &Bytes,
        end: Instant,
    ) -> Result<Attempt, NetError> {
        let rest = end.saturating_duration_since(Instant::now());
        let call = self
            .pool
            .call(target, service, head.clone(), Bytes::new(), rest);
        tokio::pin!(call);
        let mut silence = SILENCE;
        loop {
            tokio::select! {
                biased;
                response = &mut call => return response.map(Attempt::Answered),
                other = self.other_leader(target, silence) => {
                    if let Some(addr) = other {
                        return Ok(Attempt::Moved(addr));
                    }
                    silence = ASK_AGAIN;
                }
            }
        }
    }

    /// After `silence`, asks all servers but `target` for the leader. Returns the leader
    /// of the highest term if it is not `target`.
    async fn other_leader(&self, target: SocketAddr, silence: Duration) -> Option<SocketAddr> {
        tokio::time::sleep(silence).await;
        if let Some(found) = self.leader().filter(|&l| l != target) {
            // Another call was quicker to find out.
            return Some(found);
        }
        let mut asked = JoinSet::new();
        for addr in self.servers().into_iter().filter(|&a| a != target) {
            asked.spawn(ask(self.pool.clone(), addr));
        }
        let mut best: Option<(u64, NodeId)> = None;
        while let Some(answer) = asked.join_next().await {
            let Ok(Some(answer)) = answer else {
                continue;
            };
            if let Some(node) = answer.node {
                self.known.lock().nodes.entry(node).or_insert(answer.addr);
            }
            if let Some(leader) = answer.leader
                && best.is_none_or(|(term, _)| answer.term > term)
            {
                best = Some((answer.term, leader));
            }
        }
        let (_, leader) = best?;
        let addr = self.known.lock().nodes.get(&leader).copied()?;
        (addr != target).then_some(addr)
    }
}

/// A server's answer to the question for the leader.
struct Opinion {
    addr: SocketAddr,
    node: Option<NodeId>,
    leader: Option<NodeId>,
    term: u64,
}

async fn ask(pool: Pool, addr: SocketAddr) -> Option<Opinion> {
    let connection = pool
        .connection(addr, Service::Node, ASK_DEADLINE)
        .await
        .ok()?;
    let asked = connection.ask(Ping, Bytes::new(), ASK_DEADLINE).await;
    let pong = asked.ok()?.0.ok()?;
    Some(Opinion {
        addr,
        node: connection.server().node,
        leader: pong.leader,
        term: pong.term,
    })
}

impl Progress {
    fn until(end: Instant) -> Self {
        Progress {
            end,
            sent: false,
            again: false,
            last: None,
            refused: Vec::new(),
            hints: 0,
            failures: 0,
        }
    }

    async fn pause(&self) {
        let pause = PAUSE.mul_f64(rand::random_range(0.5..1.5));
        let end = self.end.min(Instant::now() + pause);
        tokio::time::sleep_until(end.into()).await;
    }

    fn timed_out(&mut self) -> NetError {
        match self.last.take() {
            Some(error) if !self.sent => error,
            _ => NetError::TimedOut { sent: self.sent },
        }
    }
}
