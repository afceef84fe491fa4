//! The HTTP server: `/health` without signature, all else is S3.

use crate::api::Api;
use crate::{Config, Store, StoreError};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use lagan_host::port::listen_within;
use lagan_host::process::LEAVING_PATIENCE;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use s3s::{Body, HttpError, HttpResponse};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::Semaphore;

/// Connections at a time; more wait in the kernel's queue.
const CONNECTIONS_MAX: usize = 512;
/// Time that requests in flight have to end once the server is told to stop.
const STOP_TIME: Duration = Duration::from_secs(5);
/// Time that a client has to send the head of a request.
const HEAD_TIME: Duration = Duration::from_secs(30);

/// Why a server does not start.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The data directory cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The address cannot be listened on.
    #[error("listen on {0}: {1}")]
    Listen(SocketAddr, #[source] io::Error),
    /// A bucket's name is not allowed.
    #[error("bucket {0:?}: not a bucket's name (3 to 63 of a-z, 0-9, '-', '.')")]
    BucketName(String),
}

/// Listens as bind(2) and listen(2) do.
fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = match addr {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(addr)?;
    socket.listen(CONNECTIONS_MAX as u32)
}

/// A server that listens.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    api: Api,
    access_key: String,
    secret_key: String,
}

impl Server {
    /// Opens the data directory, makes the buckets and listens.
    ///
    /// # Errors
    /// See [`ServerError`]; nothing stays behind but the directory.
    pub async fn bind(config: &Config) -> Result<Self, ServerError> {
        if let Some(name) = config
            .buckets
            .iter()
            .find(|n| !s3s::path::check_bucket_name(n))
        {
            return Err(ServerError::BucketName(name.clone()));
        }
        let listener = listen_within(LEAVING_PATIENCE, || listen(config.listen))
            .await
            .map_err(|e| ServerError::Listen(config.listen, e))?;
        let mut store = Store::open(&config.data, config.sync)?;
        store.verify = config.verify;
        for bucket in &config.buckets {
            store.create_bucket(bucket)?;
        }
        let api = Api {
            store: Arc::new(store),
            region: config.region.clone(),
        };
        Ok(Server {
            listener,
            api,
            access_key: config.access_key.clone(),
            secret_key: config.secret_key.clone(),
        })
    }

    /// The address that it listens on.
    ///
    /// # Errors
    /// The socket's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop` is ready, then lets requests in flight end.
    pub async fn run(self, stop: impl Future<Output = ()>) {
        let mut builder = S3ServiceBuilder::new(self.api);
        builder.set_auth(SimpleAuth::from_single(self.access_key, self.secret_key));
        let service = builder.build();
        let graceful = GracefulShutdown::new();
        let permits = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let mut stop = std::pin::pin!(stop);
        loop {
            let accepted = tokio::select! {
                accepted = accept(&self.listener, &permits) => accepted,
                () = &mut stop => break,
            };
            let Some((socket, permit)) = accepted else {
                continue;
            };
            let service = service.clone();
            let mut http = Builder::new(TokioExecutor::new());
            http.http1()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIME);
            let answer = service_fn(move |request| answer(service.clone(), request));
            let connection = http
                .serve_connection(TokioIo::new(socket), answer)
                .into_owned();
            let connection = graceful.watch(connection);
            tokio::spawn(async move {
                if let Err(error) = connection.await {
                    tracing::debug!(%error, "connection ended");
                }
                drop(permit);
            });
        }
        drop(self.listener);
        if tokio::time::timeout(STOP_TIME, graceful.shutdown())
            .await
            .is_err()
        {
            tracing::warn!("stopped with requests in flight");
        }
    }
}

async fn accept(
    listener: &TcpListener,
    permits: &Arc<Semaphore>,
) -> Option<(TcpStream, tokio::sync::OwnedSemaphorePermit)> {
    let permit = permits.clone().acquire_owned().await.ok()?;
    match listener.accept().await {
        Ok((socket, _)) => {
            // small answers must not wait for the client's acknowledgement
            let _ = socket.set_nodelay(true);
            Some((socket, permit))
        }
        Err(error) => {
            tracing::warn!(%error, "accept");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    }
}

async fn answer(service: S3Service, request: Request<Incoming>) -> Result<HttpResponse, HttpError> {
    if request.uri().path() == "/health" {
        let ok = Full::new(Bytes::from_static(b"ok\n")).map_err(|never| match never {});
        return Ok(Response::new(Body::http_body::<_>(ok)));
    }
    hyper::service::Service::call(&service, request).await
}
