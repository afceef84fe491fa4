//! Connections to peers, opened when first wanted and kept.
//!
//! Callers name an address and a service; the pool keeps one connection for
//! each (several for bulk data). The next call opens a connection that ended
//! again. While an attempt is known to fail, calls fail at once, with a back-off
//! between attempts. An attempt runs in a task of its own: no caller waits for it
//! beyond its own deadline, and no attempt is cut short because a caller gave up.

use crate::connection::{Answered, Connection, ConnectionOptions, decode_answer};
use crate::error::NetError;
use crate::handshake::Hello;
use crate::message::Response;
use bytes::Bytes;
use lagan_types::codec;
use lagan_types::message::{Conversation, Message, Service};
use parking_lot::{Mutex, RwLock};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

#[cfg(test)]
mod tests;

/// Wait between attempts, at first and at most.
const BACK_OFF_MIN: Duration = Duration::from_millis(50);
const BACK_OFF_MAX: Duration = Duration::from_secs(1);
/// Time for which an address that gave no sign of life is presumed silent: calls do
/// not wait for the next attempt.
const SILENT_FOR: Duration = Duration::from_secs(10);

/// The settings of a pool.
#[derive(Debug, Clone)]
pub struct PoolOptions {
    /// Our own hello; each connection fills in its service.
    pub hello: Hello,
    /// Connections per address for bulk data.
    pub bulk_connections: usize,
    /// From the first packet to the end of the handshake.
    pub connect_deadline: Duration,
    /// The settings of its connections.
    pub connection: ConnectionOptions,
}

impl PoolOptions {
    /// The defaults, with that hello.
    pub fn new(hello: Hello) -> Self {
        PoolOptions {
            hello,
            bulk_connections: 2,
            connect_deadline: Duration::from_secs(1),
            connection: ConnectionOptions::default(),
        }
    }
}

/// A pool of connections; clones share them.
#[derive(Debug, Clone)]
pub struct Pool {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    options: PoolOptions,
    hello: RwLock<Hello>,
    peers: RwLock<HashMap<(SocketAddr, Service), Arc<Lanes>>>,
}

/// The connections to one address for one service.
#[derive(Debug)]
struct Lanes {
    lanes: Box<[Arc<Lane>]>,
    next: AtomicUsize,
}

#[derive(Debug, Default)]
struct Lane {
    state: Mutex<LaneState>,
    /// An attempt has ended.
    changed: Notify,
}

#[derive(Debug, Default)]
enum LaneState {
    #[default]
    Idle,
    /// An attempt is under way; the error of the one before, if calls should
    /// not wait for this one.
    Connecting(Option<NetError>),
    Open(Arc<Connection>),
    Failed(Failure),
}

/// An attempt that failed.
#[derive(Debug, Clone)]
struct Failure {
    error: NetError,
    at: Instant,
    back_off: Duration,
    /// No attempt before this.
    again_at: Instant,
}

enum Look {
    Ready(Arc<Connection>),
    Bad(NetError),
    Start(Option<Failure>),
    Wait,
}

impl Pool {
    /// A pool without connections.
    pub fn new(options: PoolOptions) -> Self {
        let hello = RwLock::new(options.hello.clone());
        Pool {
            inner: Arc::new(Inner {
                options,
                hello,
                peers: RwLock::default(),
            }),
        }
    }

    /// Sets the hello of later connections; open ones stay.
    pub fn set_hello(&self, hello: Hello) {
        *self.inner.hello.write() = hello;
    }

    /// Calls `service` at `addr`, within `deadline` (connecting included).
    ///
    /// # Errors
    /// [`NetError`]; at once if connecting is known to fail.
    ///
    /// # Cancel safety
    /// Dropping the future forgets the call; it may still be carried out.
    pub async fn call(
        &self,
        addr: SocketAddr,
        service: Service,
        head: impl Into<Bytes>,
        data: Bytes,
        deadline: Duration,
    ) -> Result<Response, NetError> {
        let lane = self.lane(addr, service);
        if let Some(connection) = lane.ready() {
            return connection.call(head, data, deadline).await;
        }
        let end = Instant::now() + deadline;
        let connection = self.open(&lane, addr, service, end).await?;
        let rest = end.saturating_duration_since(Instant::now());
        connection.call(head, data, rest).await
    }

    /// Asks one server, as [`Pool::call`] does; beside the answer stands its data.
    ///
    /// # Errors
    /// Fails as [`Pool::call`] does; [`NetError::Protocol`] for what is no answer to that.
    /// The inner error is the server's refusal.
    pub async fn ask<A: Message>(
        &self,
        addr: SocketAddr,
        ask: A,
        data: Bytes,
        deadline: Duration,
    ) -> Answered<A> {
        let head = codec::encode(&ask.into());
        let response = self.call(addr, A::Request::SERVICE, head, data, deadline);
        decode_answer::<A>(response.await?)
    }

    /// The connection that the next call would take, opened if need be.
    ///
    /// # Errors
    /// Fails as [`Pool::call`] does.
    pub async fn connection(
        &self,
        addr: SocketAddr,
        service: Service,
        deadline: Duration,
    ) -> Result<Arc<Connection>, NetError> {
        let lane = self.lane(addr, service);
        match lane.ready() {
            Some(connection) => Ok(connection),
            None => {
                let end = Instant::now() + deadline;
                self.open(&lane, addr, service, end).await
            }
        }
    }

    /// Drops the connections to `addr` and all knowledge of it. A connection in use
    /// ends with its last user.
    pub fn forget(&self, addr: SocketAddr) {
        self.inner.peers.write().retain(|(a, _), _| *a != addr);
    }

    /// Closes all connections; calls on them end with an error.
    pub fn close(&self) {
        let peers = std::mem::take(&mut *self.inner.peers.write());
        for lane in peers.values().flat_map(|l| l.lanes.iter()) {
            if let LaneState::Open(connection) = std::mem::take(&mut *lane.state.lock()) {
                connection.close();
            }
        }
    }

    fn lane(&self, addr: SocketAddr, service: Service) -> Arc<Lane> {
        let key = (addr, service);
        let found = self.inner.peers.read().get(&key).map(|l| l.choose());
        found.unwrap_or_else(|| {
            let count = match service {
                Service::Chunk => self.inner.options.bulk_connections.max(1),
                Service::Node
                | Service::Meta
                | Service::Leader
                | Service::Archive
                | Service::Raft => 1,
            };
            let mut peers = self.inner.peers.write();
            let lanes = peers.entry(key).or_insert_with(|| Lanes::new(count));
            lanes.choose()
        })
    }

    async fn open(
        &self,
        lane: &Arc<Lane>,
        addr: SocketAddr,
        service: Service,
        end: Instant,
    ) -> Result<Arc<Connection>, NetError> {
        loop {
            let changed = lane.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            match lane.look(Instant::now()) {
                Look::Ready(connection) => return Ok(connection),
                Look::Bad(error) => return Err(error),
                Look::Start(before) => {
                    tokio::spawn(connect(
                        self.inner.clone(),
                        lane.clone(),
                        addr,
                        service,
                        before,
                    ));
                    continue;
                }
                Look::Wait => {}
            }
            if tokio::time::timeout_at(end.into(), changed).await.is_err() {
                return Err(NetError::Connect {
                    addr,
                    reason: "no answer within the call's deadline".to_owned(),
                    silent: true,
                });
            }
        }
    }
}

/// Makes one attempt, whether a caller still waits for it or not.
async fn connect(
    pool: Arc<Inner>,
    lane: Arc<Lane>,
    addr: SocketAddr,
    service: Service,
    before: Option<Failure>,
) {
    let hello = Hello {
        service,
        ..pool.hello.read().clone()
    };
    let options = pool.options.connection.clone();
    let result = Connection::open_with(addr, &hello, options, pool.options.connect_deadline).await;
    let state = match result {
        Ok(connection) => {
            tracing::debug!(peer = %addr, ?service, "connected");
            LaneState::Open(Arc::new(connection))
        }
        Err(error) => {
            if before.is_none() {
                tracing::info!(peer = %addr, ?service, %error, "peer cannot be reached");
            }
            LaneState::Failed(Failure::after(before, error, Instant::now()))
        }
    };
    *lane.state.lock() = state;
    lane.changed.notify_waiters();
}

impl Lanes {
    fn new(count: usize) -> Arc<Self> {
        Arc::new(Lanes {
            lanes: (0..count).map(|_| Arc::default()).collect(),
            next: AtomicUsize::new(0),
        })
    }

    fn choose(&self) -> Arc<Lane> {
        let index = match self.lanes.len() {
            1 => 0,
            len => self.next.fetch_add(1, Ordering::Relaxed) % len,
        };
        self.lanes[index].clone()
    }
}

impl Lane {
    fn ready(&self) -> Option<Arc<Connection>> {
        match &*self.state.lock() {
            LaneState::Open(connection) if connection.is_usable() => Some(connection.clone()),
            _ => None,
        }
    }

    /// Decides what a call does next; with `Start` the lane is marked as connecting.
    fn look(&self, now: Instant) -> Look {
        let mut state = self.state.lock();
        let before = match &*state {
            LaneState::Open(connection) if connection.is_usable() => {
                return Look::Ready(connection.clone());
            }
            LaneState::Connecting(Some(error)) => return Look::Bad(error.clone()),
            LaneState::Connecting(None) => return Look::Wait,
            LaneState::Failed(failure) if now < failure.again_at => {
                return Look::Bad(failure.error.clone());
            }
            LaneState::Failed(failure) => Some(failure.clone()),
            LaneState::Open(_) | LaneState::Idle => None,
        };
        let known_bad = before
            .as_ref()
            .filter(|f| f.is_silent(now))
            .map(|f| f.error.clone());
        *state = LaneState::Connecting(known_bad);
        Look::Start(before)
    }
}

impl Failure {
    fn after(before: Option<Failure>, error: NetError, now: Instant) -> Self {
        let back_off = before.map_or(BACK_OFF_MIN, |b| (b.back_off * 2).min(BACK_OFF_MAX));
        Failure {
            error,
            at: now,
            back_off,
            again_at: now + back_off.mul_f64(rand::random_range(0.5..1.0)),
        }
    }

    fn is_silent(&self, now: Instant) -> bool {
        matches!(self.error, NetError::Connect { silent: true, .. })
            && now.duration_since(self.at) < SILENT_FOR
    }
}
