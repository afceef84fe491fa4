//! `/health` and `/metrics`, for load balancers, Prometheus and `lagan up`.

use crate::metrics;
use crate::node::Node;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Most connections at the same time; more wait.
const CONNECTIONS_MAX: usize = 64;
/// Time for a request's head.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);
/// Time after which a connection is closed, whatever it does.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(30);

/// Time between log lines about bad bytes: a scanner sends many.
const COMPLAIN_EVERY: Duration = Duration::from_secs(60);

/// Bad connections, and which of them the log has told.
#[derive(Debug, Default)]
struct Complaints {
    said: Option<Instant>,
    unsaid: u64,
}

impl Complaints {
    /// Counts one bad connection. `Some(n)`: log it now, with the n that were suppressed.
    fn add(&mut self, now: Instant) -> Option<u64> {
        let soon = |said: Instant| now.saturating_duration_since(said) < COMPLAIN_EVERY;
        if self.said.is_some_and(soon) {
            self.unsaid += 1;
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.unsaid))
    }
}

/// Listens on `addr` and serves until `cancel`.
///
/// # Errors
/// The address cannot be listened on.
pub(crate) fn serve(
    node: &Arc<Node>,
    addr: SocketAddr,
    cancel: CancellationToken,
) -> io::Result<()> {
    let listener = std::net::TcpListener::bind(addr)?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let node = node.clone();
    let tasks = node.parts.tasks.clone();
    tasks.spawn(async move {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let complaints = Arc::new(Mutex::new(Complaints::default()));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else {
                return;
            };
            tokio::select! {
                () = cancel.cancelled() => return,
                accepted = listener.accept() => match accepted {
                    Ok((stream, peer)) => {
                        let (node, complaints) = (node.clone(), complaints.clone());
                        tokio::spawn(async move {
                            let served = connection(node, stream);
                            if let Ok(Err(e)) = tokio::time::timeout(CONNECTION_DEADLINE, served).await {
                                note(&complaints, peer, &e);
                            }
                            drop(place);
                        });
                    }
                    Err(e) => {
                        tracing::warn!(error = %e, "accept http");
                        tokio::time::sleep(Duration::from_millis(100)).await;
                    }
                },
            }
        }
    });
    Ok(())
}

/// Logs a connection whose bytes are no HTTP; one that only hung up is not worth a line.
fn note(complaints: &Mutex<Complaints>, peer: SocketAddr, error: &hyper::Error) {
    if !error.is_parse() {
        tracing::debug!(%peer, %error, "http connection");
        return;
    }
    let said = complaints.lock().add(Instant::now());
    if let Some(unsaid) = said {
        tracing::warn!(%peer, %error, unsaid, "bad bytes on http, connection closed");
    }
}

async fn connection(node: Arc<Node>, stream: TcpStream) -> hyper::Result<()> {
    let service = service_fn(move |request| {
        let node = node.clone();
        async move { Ok::<_, Infallible>(answer(&node, &request)) }
    });
    hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .await
}

fn answer(node: &Node, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    match (request.method(), request.uri().path()) {
        (&Method::GET | &Method::HEAD, "/health") => health(node),
        (&Method::GET, "/metrics") => text(StatusCode::OK, metrics::render(node)),
        (_, "/health" | "/metrics") => text(StatusCode::METHOD_NOT_ALLOWED, "GET only\n".into()),
        _ => text(
            StatusCode::NOT_FOUND,
            "there is /health and /metrics\n".into(),
        ),
    }
}

/// Answers 200 when this server can do its work, and 503 with the reason otherwise.
fn health(node: &Node) -> Response<Full<Bytes>> {
    let state = match node.member.get() {
        // a member of a cluster that has not opened its stores yet is no newcomer
        None if node.data.lock().identity().membership.is_some() => "starting",
        None => "waiting",
        Some(member) if member.is_ready() => "ready",
        Some(member) => match member.trouble() {
            Some(trouble) if trouble.is_failure() => return sick(trouble.reason()),
            _ => "starting",
        },
    };
    let status = if state == "ready" {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    text(status, format!("{{\"state\":\"{state}\"}}\n"))
}

/// Answers for a node that steps aside.
fn sick(reason: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({ "state": "failed", "reason": reason });
    text(StatusCode::SERVICE_UNAVAILABLE, format!("{body}\n"))
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bad_bytes_are_told_once_in_a_while_and_counted() {
        let mut complaints = Complaints::default();
        let start = Instant::now();
        let at = |s: u64| start + Duration::from_secs(s);
        assert_eq!(complaints.add(at(0)), Some(0));
        assert_eq!(complaints.add(at(1)), None);
        assert_eq!(complaints.add(at(59)), None);
        assert_eq!(complaints.add(at(60)), Some(2));
        assert_eq!(complaints.add(at(61)), None);
        assert_eq!(complaints.add(at(200)), Some(1));
    }
}
