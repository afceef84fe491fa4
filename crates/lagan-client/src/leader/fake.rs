//! Stand-ins of tests for servers and for the storeys above.

use crate::Options;
use crate::leader::brought::Brought;
use crate::leader::connect::Joined;
use crate::leader::link::Link;
pub(crate) use crate::leader::link::fake::{Said, Served, Servers};
use crate::leader::open_files::OpenFiles;
use bytes::Bytes;
use lagan_types::attr::ArchiveState;
use lagan_types::cluster::{ClusterMap, Config, NodeInfo, NodeRole, NodeState, ReplicaSet};
use lagan_types::message::{ChunkReply, ChunkRequest, LeaderRefusal, MetaReply, MetaRequest};
use lagan_types::op::SessionIdentity;
use lagan_types::{Attr, Epoch, Ino, Kind, NodeId, SessionId, SetId, StoreId, Time};
use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

/// Nobody has files open.
pub(crate) struct Nobody;

impl OpenFiles for Nobody {
    fn is_open(&self, _: Ino) -> bool {
        false
    }
    fn hold(&self, _: Ino) {}
    fn let_go(&self, _: Ino) {}
    fn promise_made(&self, _: &Attr, _: &Attr) {}
    fn promise_lost(&self, _: Ino) {}
    fn attributes_forgotten(&self, _: Ino) {}
    fn brought(&self, _: Vec<Brought>) {}
    fn session_lost(&self, _: &HashSet<Ino>) {}
}

/// A leader that answers by a function, and nodes that take each chunk.
pub(crate) struct Leading<F>(pub F);

impl<F> fmt::Debug for Leading<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Leading")
    }
}

impl<F: Fn(&MetaRequest) -> MetaReply + Send + Sync> Servers for Leading<F> {
    fn meta(&self, request: &MetaRequest) -> Said<Result<MetaReply, LeaderRefusal>> {
        Said::This(Ok((self.0)(request)))
    }

    fn chunk(&self, _: SocketAddr, _: &ChunkRequest) -> Said<Served<ChunkRequest>> {
        Said::This((Ok(ChunkReply::Done(())), Bytes::new()))
    }
}

/// Session 1 in a cluster of these servers.
pub(crate) fn joined(servers: Arc<dyn Servers>, map: ClusterMap) -> Joined {
    Joined {
        link: Link::fake(servers),
        map,
        session: SessionId(1),
    }
}

/// Options of a mount that has no server on its machine.
pub(crate) fn options() -> Options {
    let identity = SessionIdentity {
        machine: "machine".into(),
        boot: "boot".into(),
        mount_point: "/mnt".into(),
        instance: 1,
    };
    let mut options = Options::new(Vec::new(), "vol".into(), identity);
    options.bind_from = Some([10, 0, 1, 1].into());
    options
}

/// The attributes of an empty file.
pub(crate) fn attr(ino: Ino) -> Attr {
    let time = Time::default();
    Attr {
        ino,
        kind: Kind::File,
        mode: 0o644,
        uid: 0,
        gid: 0,
        nlink: 1,
        size: 0,
        allocated: 0,
        rdev: 0,
        atime: time,
        mtime: time,
        ctime: time,
        btime: time,
        version: 1,
        archive: ArchiveState::Local,
    }
}

/// The address of a node.
pub(crate) fn address(node: u64) -> String {
    format!("10.0.0.{node}:1")
}

/// A map of nodes 1 to 9, all up, and of sets 1, 2, ... with these members.
pub(crate) fn map(sets: &[&[u64]]) -> ClusterMap {
    ClusterMap {
        version: 1,
        nodes: (1..=9)
            .map(|id| NodeInfo {
                id: NodeId(id),
                name: format!("n{id}"),
                store: StoreId(u128::from(id)),
                boot: 1,
                addr: address(id),
                peer_addr: String::new(),
                http: String::new(),
                role: NodeRole::Storage,
                state: NodeState::Up,
                voter: true,
            })
            .collect(),
        sets: (1..)
            .zip(sets)
            .map(|(id, nodes)| ReplicaSet {
                id: SetId(id),
                nodes: nodes.iter().map(|&n| NodeId(n)).collect(),
                epoch: Epoch(1),
                sealed: false,
                joining: None,
                leaving: None,
            })
            .collect(),
        config: Config::default(),
    }
}
