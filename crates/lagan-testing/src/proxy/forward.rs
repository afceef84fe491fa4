//! One request through the proxy.

use super::Fault;
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Frame, Incoming, SizeHint};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;

/// Time that a request hangs before its connection is closed.
const HANG_TIME: Duration = Duration::from_secs(3600);

type AnyBody = BoxBody<Bytes, io::Error>;

/// Carries out a fault on a request.
pub(super) async fn handle(
    request: Request<Incoming>,
    to: SocketAddr,
    fault: Fault,
) -> io::Result<Response<AnyBody>> {
    match fault {
        Fault::Pass => forward(request, to, None, None).await,
        Fault::Refuse => Err(io::Error::other("refused on demand")),
        Fault::Hang => {
            let _ = request.collect().await;
            tokio::time::sleep(HANG_TIME).await;
            Err(io::Error::other("hung on demand"))
        }
        Fault::Status(code) => refuse(request, code, "").await,
        Fault::SlowDown => {
            let xml = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>SlowDown</Code>\
                       <Message>Please reduce your request rate.</Message></Error>";
            refuse(request, 503, xml).await
        }
        Fault::Delay(ms) => {
            tokio::time::sleep(Duration::from_millis(ms)).await;
            forward(request, to, None, None).await
        }
        Fault::Lose => {
            let answer = forward(request, to, None, None).await?;
            // the server has done it all before the answer is dropped
            let _ = answer.into_body().collect().await;
            Err(io::Error::other("answer lost on demand"))
        }
        Fault::Cut(at) => forward(request, to, None, Some(Change::Cut(at))).await,
        Fault::Corrupt(at) => forward(request, to, None, Some(Change::Flip(at))).await,
        Fault::CorruptUpload(at) => forward(request, to, Some(Change::Flip(at)), None).await,
    }
}

/// Reads the request, so that the client is not surprised, and answers.
async fn refuse(
    request: Request<Incoming>,
    code: u16,
    body: &'static str,
) -> io::Result<Response<AnyBody>> {
    let _ = request.collect().await;
    let body = Full::new(Bytes::from_static(body.as_bytes())).map_err(|never| match never {});
    let response = Response::builder()
        .status(code)
        .header("content-type", "application/xml");
    response.body(body.boxed()).map_err(io::Error::other)
}

async fn forward(
    request: Request<Incoming>,
    to: SocketAddr,
    upward: Option<Change>,
    downward: Option<Change>,
) -> io::Result<Response<AnyBody>> {
    let socket = TcpStream::connect(to).await?;
    let _ = socket.set_nodelay(true);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(socket))
        .await
        .map_err(io::Error::other)?;
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "connection to the server ended");
        }
    });
    let request = request.map(|body| Changed::new(body, upward));
    let answer = sender
        .send_request(request)
        .await
        .map_err(io::Error::other)?;
    Ok(answer.map(|body| Changed::new(body, downward).boxed()))
}

/// A change of a body on its way.
#[derive(Debug, Clone, Copy)]
enum Change {
    /// It ends with an error after that many bytes.
    Cut(u64),
    /// A bit of that byte is flipped.
    Flip(u64),
}

/// A body with a change.
struct Changed {
    body: Incoming,
    change: Option<Change>,
    seen: u64,
}

impl Changed {
    fn new(body: Incoming, change: Option<Change>) -> Self {
        Changed {
            body,
            change,
            seen: 0,
        }
    }

    /// A piece as it goes on, and whether the body was cut in it.
    fn change(&mut self, bytes: Bytes) -> io::Result<Bytes> {
        let start = self.seen;
        self.seen += bytes.len() as u64;
        match self.change {
            Some(Change::Flip(at)) if (start..self.seen).contains(&at) => {
                let mut changed = bytes.to_vec();
                if let Some(byte) = changed.get_mut((at - start) as usize) {
                    *byte ^= 1;
                }
                Ok(changed.into())
            }
            Some(Change::Cut(at)) if self.seen > at => {
                let left = bytes.slice(..(at.saturating_sub(start) as usize).min(bytes.len()));
                if left.is_empty() {
                    Err(io::Error::other("cut on demand"))
                } else {
                    Ok(left)
                }
            }
            _ => Ok(bytes),
        }
    }
}

impl Body for Changed {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        if let Some(Change::Cut(at)) = self.change
            && self.seen > at
        {
            return Poll::Ready(Some(Err(io::Error::other("cut on demand"))));
        }
        match Pin::new(&mut self.body).poll_frame(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(io::Error::other(error)))),
            Poll::Ready(Some(Ok(frame))) => Poll::Ready(Some(match frame.into_data() {
                Ok(bytes) => self.change(bytes).map(Frame::data),
                Err(other) => Ok(other),
            })),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
