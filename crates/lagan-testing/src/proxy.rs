//! A proxy that breaks things on demand: for tests against a real server.
//!
//! Each request asks its [`Control`] for a [`Plan`], so faults can be switched
//! while connections are open. As a file, a plan is one line:
//!
//! ```text
//! pass | refuse | hang | status CODE | slow-down | delay MS | lose
//!      | cut BYTES | corrupt BYTE | corrupt-upload BYTE
//!      [every=N] [method=METHOD]
//! ```
//! `every=N` hits only each N-th request, `method=GET` only those.

mod forward;
mod plan;

pub use plan::{Fault, Plan};

use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// Pause between looks whether connections are to be refused.
const REFUSE_POLL: Duration = Duration::from_millis(20);

/// The source of the plan.
#[derive(Debug, Clone)]
pub enum Control {
    /// A file, read for each request; absent or empty: no fault.
    File(PathBuf),
    /// Shared with a test in the same process.
    Shared(Arc<Mutex<Plan>>),
}

impl Control {
    /// The plan for now. A line that makes no sense is logged and breaks nothing.
    fn plan(&self) -> Plan {
        match self {
            Control::Shared(plan) => *plan.lock().unwrap_or_else(PoisonError::into_inner),
            Control::File(path) => {
                let line = std::fs::read_to_string(path).unwrap_or_default();
                line.parse().unwrap_or_else(|error: String| {
                    tracing::error!(path = %path.display(), %error, "fault file");
                    Plan::default()
                })
            }
        }
    }
}

/// State that all connections share.
#[derive(Debug)]
struct Shared {
    to: SocketAddr,
    control: Control,
    /// Requests that a plan was asked for, to count `every`.
    requests: AtomicU64,
}

impl Shared {
    /// The fault of one request.
    fn fault(&self, method: &str) -> Fault {
        let plan = self.control.plan();
        if !plan.is_for(method) {
            return Fault::Pass;
        }
        let number = self.requests.fetch_add(1, Ordering::Relaxed) + 1;
        if number.is_multiple_of(plan.every) {
            plan.fault
        } else {
            Fault::Pass
        }
    }

    fn refuses(&self) -> bool {
        self.control.plan().fault == Fault::Refuse
    }
}

/// A proxy that listens.
#[derive(Debug)]
pub struct Proxy {
    listener: TcpListener,
    addr: SocketAddr,
    shared: Arc<Shared>,
}

impl Proxy {
    /// Listens; port 0 takes any free one.
    ///
    /// # Errors
    /// The socket's.
    pub async fn bind(listen: SocketAddr, to: SocketAddr, control: Control) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let addr = listener.local_addr()?;
        let shared = Arc::new(Shared {
            to,
            control,
            requests: AtomicU64::new(0),
        });
        Ok(Proxy {
            listener,
            addr,
            shared,
        })
    }

    /// The address that it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.addr
    }

    /// Serves until `stop` is ready. While the plan is to refuse, the port is
    /// closed and open connections are reset.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let Proxy {
            listener,
            addr,
            shared,
        } = self;
        let mut listener = Some(listener);
        let (cut, _) = watch::channel(());
        let mut stop = std::pin::pin!(stop);
        loop {
            if shared.refuses() {
                listener = None;
                cut.send_replace(());
            } else if listener.is_none() {
                listener = TcpListener::bind(addr).await.ok();
            }
            tokio::select! {
                () = &mut stop => return,
                () = tokio::time::sleep(REFUSE_POLL) => {}
                Some(socket) = accept(listener.as_ref()) => {
                    let mut cut = cut.subscribe();
                    let shared = shared.clone();
                    tokio::spawn(async move {
                        tokio::select! {
                            () = serve(socket, shared) => {}
                            _ = cut.changed() => {}
                        }
                    });
                }
            }
        }
    }
}

async fn accept(listener: Option<&TcpListener>) -> Option<TcpStream> {
    match listener {
        Some(listener) => listener.accept().await.ok().map(|(socket, _)| socket),
        None => std::future::pending().await,
    }
}

async fn serve(socket: TcpStream, shared: Arc<Shared>) {
    let _ = socket.set_nodelay(true);
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move {
            let fault = shared.fault(request.method().as_str());
            forward::handle(request, shared.to, fault).await
        }
    });
    let http = hyper::server::conn::http1::Builder::new();
    if let Err(error) = http.serve_connection(TokioIo::new(socket), service).await {
        tracing::debug!(%error, "connection ended");
    }
}

#[cfg(test)]
mod tests;
