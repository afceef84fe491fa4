//! A small real server for this crate's tests.

use crate::handshake::{Hello, Role};
use crate::message::{Request, Response};
use crate::{Handler, Peer, Reply, Server, ServerLimits};
use bytes::Bytes;
use lagan_types::Incarnation;
use lagan_types::message::Service;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Time limit for things that should come at once.
pub(crate) const LONG: Duration = Duration::from_secs(20);

pub(crate) fn hello() -> Hello {
    Hello::client(Role::Mount, Some(Incarnation(1)), Service::Meta)
}

/// Answers with the request; heads `hold` keep the reply, `drop` drop it,
/// `later` answer from a task.
#[derive(Default)]
pub(crate) struct Echo {
    pub(crate) held: Mutex<Vec<(Request, Reply)>>,
    pub(crate) seen: AtomicUsize,
    pub(crate) gone: AtomicUsize,
}

impl Handler for Echo {
    fn check_hello(&self, theirs: &Hello, _: SocketAddr) -> Result<Hello, String> {
        theirs.check_incarnation(Some(Incarnation(1)))?;
        Ok(Hello {
            role: Role::Server,
            incarnation: Some(Incarnation(1)),
            ..theirs.clone()
        })
    }

    fn handle(&self, _: &Arc<Peer>, request: Request, reply: Reply) {
        self.seen.fetch_add(1, Ordering::SeqCst);
        match &request.head[..] {
            b"hold" => self.held.lock().push((request, reply)),
            b"drop" => drop(reply),
            b"panic" => panic!("as asked"),
            b"later" => drop(tokio::spawn(async move { reply.send(echo(request)) })),
            _ => reply.send(echo(request)),
        }
    }

    fn disconnected(&self, _: &Arc<Peer>) {
        self.gone.fetch_add(1, Ordering::SeqCst);
    }
}

pub(crate) fn echo(request: Request) -> Response {
    Response {
        head: request.head,
        data: request.data,
    }
}

/// A server that ends with this.
pub(crate) struct Running {
    pub(crate) addr: SocketAddr,
    pub(crate) echo: Arc<Echo>,
    pub(crate) cancel: CancellationToken,
    server: Option<Server>,
}

impl Running {
    pub(crate) fn start(limits: ServerLimits) -> Self {
        Self::start_at("127.0.0.1:0".parse().unwrap(), limits)
    }

    pub(crate) fn start_at(addr: SocketAddr, limits: ServerLimits) -> Self {
        let echo = Arc::new(Echo::default());
        let cancel = CancellationToken::new();
        let server = Server::bind(addr, echo.clone(), limits, cancel.clone()).unwrap();
        Running {
            addr: server.local_addr(),
            echo,
            cancel,
            server: Some(server),
        }
    }

    pub(crate) async fn stop(&mut self) {
        self.cancel.cancel();
        if let Some(server) = self.server.take() {
            tokio::time::timeout(LONG, server.join()).await.unwrap();
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(what: &str, condition: impl Fn() -> bool) {
    let end = tokio::time::Instant::now() + LONG;
    while !condition() {
        assert!(tokio::time::Instant::now() < end, "never: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Some bytes that are not all the same.
pub(crate) fn payload(len: usize) -> Bytes {
    (0..len).map(|i| (i % 251) as u8).collect()
}
