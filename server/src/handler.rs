//! The doors of this server: each judges connections and gives each request to its
//! service.

use crate::birth::birth;
use crate::node::{Node, PeerId};
use bytes::Bytes;
use lagan_net::{Handler, Hello, Peer, Reply, Request, Response, Role, Service};
use lagan_types::NodeId;
use lagan_types::cluster::boot_follows;
use lagan_types::codec;
use lagan_types::message::{ChunkReply, ChunkRequest, MetaReply, MetaRequest};
use std::net::SocketAddr;
use std::sync::Arc;

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

    fn meta(&self, peer: &Arc<Peer>, request: MetaRequest, reply: Reply) {
        match (request, self.node.member.get()) {
            (request @ (MetaRequest::Init { .. } | MetaRequest::JoinVia { .. }), _) => {
                let node = self.node.clone();
                tokio::spawn(async move {
                    let answer = birth(&node, request).await.unwrap_or_else(|e| {
                        tracing::warn!(error = format!("{e:#}"), "init or join");
                        MetaReply::Refused(format!("{e:#}"))
                    });
                    reply.send_typed(&answer, Bytes::new());
                });
            }
            (MetaRequest::DropRecallCache, Some(member)) => {
                member.mover.drop_cache();
                let pong = MetaReply::Pong {
                    leader: member.raft.leader().map(|(node, _)| node),
                    term: member.raft.term(),
                };
                reply.send_typed(&pong, Bytes::new());
            }
            (request, Some(member)) => member.meta.handle(peer, request, reply),
            (MetaRequest::Ping, None) => {
                let pong = MetaReply::Pong {
                    leader: None,
                    term: 0,
                };
                reply.send_typed(&pong, Bytes::new());
            }
            (_, None) => {
                let waiting = MetaReply::NotLeader {
                    leader: None,
                    addr: None,
                };
                reply.send_typed(&waiting, Bytes::new());
            }
        }
    }

    fn chunk(&self, request: ChunkRequest, data: Bytes, mut reply: Reply) {
        let Some(member) = self.node.member.get() else {
            let answer = ChunkReply::Failed("this server does not belong to a cluster yet".into());
            return reply.send_typed(&answer, Bytes::new());
        };
        let mover = member.mover.clone();
        match request {
            ChunkRequest::Recall {
                ino,
                version,
                offset,
                len,
            } => {
                reply.reserve(len.min(lagan_types::limits::CHUNK_LEN_MAX) as usize);
                tokio::spawn(async move {
                    let (head, data) = mover.recall(ino, version, offset, len).await;
                    reply.send_typed(&head, data);
                });
            }
            ChunkRequest::CheckObjects { objects } => {
                tokio::spawn(async move {
                    reply.send_typed(&mover.check_objects(objects).await, Bytes::new());
                });
            }
            ChunkRequest::ListObjects { after, limit } => {
                tokio::spawn(async move {
                    reply.send_typed(&mover.list_objects(after, limit).await, Bytes::new());
                });
            }
            request => member.chunks.handle(request, data, reply),
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
            Service::Meta | Service::Admin => match codec::decode(&request.head) {
                Ok(message) => self.meta(peer, message, reply),
                Err(e) => malformed(peer, &e.to_string()),
            },
            Service::Chunk => match codec::decode(&request.head) {
                Ok(message) => self.chunk(message, request.data, reply),
                Err(e) => malformed(peer, &e.to_string()),
            },
            Service::Raft => self.raft(peer, request, reply),
        }
    }
}

/// Ends the connection of a peer that passed the handshake and the frame checks but
/// sent no message of ours. Other requests that came with it get no line in the log.
fn malformed(peer: &Peer, reason: &str) {
    if !peer.is_closed() && peer.close_first() {
        tracing::warn!(peer = %peer.addr, reason, "malformed message, connection closed");
    }
}
