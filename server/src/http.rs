//! `/health` and `/metrics`, for load balancers, Prometheus and `lagan up`.

use crate::handler::Node;
use crate::metrics;
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Connections at the same time; more wait.
const CONNECTIONS_MAX: usize = 64;
/// A request's head must be there by then.
const HEAD_DEADLINE: Duration = Duration::from_secs(5);
/// A connection is closed after this, whatever it does.
const CONNECTION_DEADLINE: Duration = Duration::from_secs(30);

/// Listens on `addr` and serves until `cancel`.
///
/// # Errors
/// The address cannot be listened on.
pub fn serve(node: Arc<Node>, addr: SocketAddr, cancel: CancellationToken) -> anyhow::Result<()> {
    let listener = std::net::TcpListener::bind(addr)?;
    listener.set_nonblocking(true)?;
    let listener = TcpListener::from_std(listener)?;
    let tasks = node.parts.tasks.clone();
    tasks.spawn(async move {
        let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else {
                return;
            };
            tokio::select! {
                () = cancel.cancelled() => return,
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => {
                        let node = node.clone();
                        tokio::spawn(async move {
                            let _ = tokio::time::timeout(CONNECTION_DEADLINE, connection(node, stream)).await;
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

async fn connection(node: Arc<Node>, stream: TcpStream) {
    let service = service_fn(move |request| {
        let node = node.clone();
        async move { Ok::<_, Infallible>(answer(&node, &request)) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(e) = served {
        tracing::debug!(error = %e, "http connection");
    }
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

/// 200 when this server can do its work; 503 with the reason otherwise.
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

/// A node that steps aside says why.
fn sick(reason: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({ "state": "failed", "reason": reason });
    text(StatusCode::SERVICE_UNAVAILABLE, format!("{body}\n"))
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = status;
    response
}
