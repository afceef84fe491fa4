//! The doors of this server: each judges connections and gives each request to its
//! service.

use crate::birth;
use crate::member::Member;
use crate::node::{Node, PeerId};
use bytes::Bytes;
use lagan_net::{Handler, Hello, Peer, Reply, Request, Response, Role, Service};
use lagan_types::NodeId;
use lagan_types::cluster::boot_follows;
use lagan_types::codec;
use lagan_types::message::{
    ArchiveRefusal, ArchiveRequest, ChunkRequest, Conversation, DropRecallCache, InitCluster,
    JoinVia, LeaderRefusal, LeaderRequest, MetaRequest, NodeRefusal, NodeRequest, Ping, Pong,
};
use std::net::SocketAddr;
use std::sync::Arc;

/// The refusal of a server that waits for its cluster.
const NO_CLUSTER: &str = "this server does not belong to a cluster yet";

/// The handler of one listener.
#[derive(Debug)]
pub(crate) struct Door {
    node: Arc<Node>,
    /// Whether this is the address of the other servers, where Raft comes in.
    peers: bool,
}

impl Door {
    /// Makes the door of `listen`, or (`peers`) of `peer_listen`.
    pub(crate) fn new(node: Arc<Node>, peers: bool) -> Arc<Self> {
        Arc::new(Door { node, peers })
    }

    /// Decodes a request of a service and gives it to `serve`, if its sender may ask it.
    fn admit<R: Conversation>(
        &self,
        peer: &Arc<Peer>,
        request: Request,
        reply: Reply,
        serve: impl FnOnce(&Self, R, Bytes, Reply),
    ) {
        let ask: R = match codec::decode(&request.head) {
            Ok(ask) => ask,
            Err(e) => return malformed(peer, &e.to_string()),
        };
        let (role, asker) = (peer.hello.role, ask.asker());
        if !role.may_ask(asker) {
            tracing::warn!(?role, "request refused: it is for {asker}");
            return reply.refuse::<R>(R::refuse(format!("only {asker} ask this")));
        }
        serve(self, ask, request.data, reply);
    }

    fn node(&self, request: NodeRequest, reply: Reply) {
        let member = self.node.member.get();
        match request {
            NodeRequest::Ping(_) => {
                let leader = member.and_then(|m| m.raft.leader());
                let pong = Pong {
                    leader: leader.map(|(node, _)| node),
                    term: member.map_or(0, |m| m.raft.term()),
                };
                reply.answer::<Ping>(Ok(pong), Bytes::new());
            }
            NodeRequest::InitCluster(ask) => {
                let node = self.node.clone();
                tokio::spawn(async move {
                    let born = birth::init(&node, ask.config).await;
                    reply.answer::<InitCluster>(born.map_err(unborn), Bytes::new());
                });
            }
            NodeRequest::JoinVia(ask) => {
                let node = self.node.clone();
                tokio::spawn(async move {
                    let born = birth::join(&node, &ask.via).await;
                    reply.answer::<JoinVia>(born.map_err(unborn), Bytes::new());
                });
            }
            NodeRequest::DropRecallCache(_) => {
                let dropped = member.map(|m| m.mover.drop_cache());
                let answer = dropped.ok_or_else(|| NodeRequest::refuse(NO_CLUSTER.into()));
                reply.answer::<DropRecallCache>(answer, Bytes::new());
            }
        }
    }

    /// Gives a request to the service of a server that belongs to a cluster; another one
    /// refuses it.
    fn member<R: Conversation>(
        &self,
        refusal: impl FnOnce() -> R::Refusal,
        reply: Reply,
        serve: impl FnOnce(&Member, Reply),
    ) {
        match self.node.member.get() {
            Some(member) => serve(member, reply),
            None => reply.refuse::<R>(refusal()),
        }
    }

    fn raft(&self, peer: &Arc<Peer>, request: Request, reply: Reply) {
        let Some(member) = self.node.member.get().cloned() else {
            // Dropped: the peer learns that there will be no answer.
            return;
        };
        let peer = peer.clone();
        tokio::spawn(async move {
            match member.raft.handle(request.head, request.data).await {
                Ok((head, data)) => reply.send(Response {
                    head: head.into(),
                    data,
                }),
                Err(e) => malformed(&peer, &e.to_string()),
            }
        });
    }

    /// Refuses a node whose store is another or older than the registered one: it is not
    /// that node (INV-5).
    fn check_node(&self, node: NodeId, hello: &Hello) -> Result<(), String> {
        let Some(member) = self.node.member.get() else {
            return Ok(());
        };
        let mut map = member.map.get();
        if map.version == 0 {
            // After a start of all servers nobody has a map yet, but the state has one.
            let view = member.raft.local_view();
            let stored = lagan_meta::cluster_map(&view).ok().flatten();
            map = stored.map(Arc::new).unwrap_or(map);
        }
        let Some(info) = map.node(node) else {
            return Ok(());
        };
        if hello.store.is_some_and(|s| s != info.store) || !boot_follows(hello.boot, info.boot) {
            return Err(format!(
                "node {} is registered with store {} at boot {}, not {:?} at boot {}",
                node.0, info.store, info.boot, hello.store, hello.boot
            ));
        }
        Ok(())
    }
}

impl Handler for Door {
    fn check_hello(&self, hello: &Hello, _peer: SocketAddr) -> Result<Hello, String> {
        let own = self.node.hello(hello.service);
        hello.check_incarnation(own.incarnation)?;
        if hello.service == Service::Raft && !(self.peers && hello.role == Role::Server) {
            return Err("raft is for servers, on the peers' address".into());
        }
        if let Some(node) = hello.node {
            self.check_node(node, hello)?;
            self.node.live.lock().check(node, hello.boot)?;
        }
        Ok(own)
    }

    fn connected(&self, peer: &Arc<Peer>) {
        let Some(node) = peer.hello.node else { return };
        let mut live = self.node.live.lock();
        for old in live.enter(node, peer.hello.boot, PeerId(peer.clone())) {
            tracing::warn!(%node, peer = %old.0.addr, boot = old.0.hello.boot, "a newer start of this node is connected, closed");
            old.0.close();
        }
    }

    fn disconnected(&self, peer: &Arc<Peer>) {
        if let Some(node) = peer.hello.node {
            self.node.live.lock().leave(node, &PeerId(peer.clone()));
        }
    }

    fn handle(&self, peer: &Arc<Peer>, request: Request, reply: Reply) {
        match peer.hello.service {
            Service::Node => self.admit(peer, request, reply, |door, ask, _, reply| {
                door.node(ask, reply);
            }),
            Service::Meta => self.admit(peer, request, reply, |door, ask, _, reply| {
                door.member::<MetaRequest>(
                    || LeaderRefusal::UNKNOWN,
                    reply,
                    |member, reply| {
                        member.meta.handle_meta(peer, ask, reply);
                    },
                );
            }),
            Service::Leader => self.admit(peer, request, reply, |door, ask, _, reply| {
                door.member::<LeaderRequest>(
                    || LeaderRefusal::UNKNOWN,
                    reply,
                    |member, reply| {
                        member.meta.handle_leader(peer, ask, reply);
                    },
                );
            }),
            Service::Chunk => self.admit(peer, request, reply, |door, ask, data, reply| {
                let refusal = || ChunkRequest::refuse(NO_CLUSTER.into());
                door.member::<ChunkRequest>(refusal, reply, |member, reply| {
                    member.chunks.handle(ask, data, reply);
                });
            }),
            Service::Archive => self.admit(peer, request, reply, |door, ask, _, reply| {
                // It may only be opening its stores: a reader asks again.
                let refusal = || ArchiveRefusal::Transient(NO_CLUSTER.into());
                door.member::<ArchiveRequest>(refusal, reply, |member, reply| {
                    member.mover.handle(ask, reply);
                });
            }),
            Service::Raft => self.raft(peer, request, reply),
        }
    }
}

fn unborn(error: anyhow::Error) -> NodeRefusal {
    tracing::warn!(error = format!("{error:#}"), "init or join");
    NodeRequest::refuse(format!("{error:#}"))
}

/// Ends the connection of a peer that passed the handshake and the frame checks but
/// sent no message of ours. Other requests that came with it get no line in the log.
fn malformed(peer: &Peer, reason: &str) {
    if !peer.is_closed() && peer.close_first() {
        tracing::warn!(peer = %peer.addr, reason, "malformed message, connection closed");
    }
}
