//! A [`Body`] as the SDK wants it: a stream that can be started again.

use crate::Body;
use crate::body::pieces;
use aws_sdk_s3::primitives::{ByteStream, SdkBody};
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use tokio::sync::mpsc;

/// Pieces read ahead of the socket: one is sent while the next is read.
const READ_AHEAD: usize = 1;

/// The failure of a body's source. It is kept aside, since the SDK would report it
/// like a failure of the network.
#[derive(Debug, Clone, Default)]
pub(super) struct SourceFailure(Arc<Mutex<Option<String>>>);

impl SourceFailure {
    /// The first failure, if there was one.
    pub(super) fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn set(&self, message: &str) {
        let mut slot = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        slot.get_or_insert_with(|| message.to_string());
    }
}

/// The bytes `offset..offset + len` of a body as a stream; each attempt of the
/// SDK starts it again.
pub(super) fn stream(body: &Body, offset: u64, len: u64) -> (ByteStream, SourceFailure) {
    let failure = SourceFailure::default();
    if let Body::Bytes(bytes) = body {
        let range = usize::try_from(offset)
            .ok()
            .zip(usize::try_from(offset + len).ok());
        let part =
            range.and_then(|(start, end)| (end <= bytes.len()).then(|| bytes.slice(start..end)));
        let part = part.unwrap_or_else(|| {
            failure.set("range is outside of the body");
            Bytes::new()
        });
        return (ByteStream::from(part), failure);
    }
    let (body, seen) = (body.clone(), failure.clone());
    let sdk = SdkBody::retryable(move || start(body.clone(), offset, len, seen.clone()));
    (ByteStream::new(sdk), failure)
}

/// Starts reading; the task ends with the stream, at the next piece.
fn start(body: Body, offset: u64, len: u64, failure: SourceFailure) -> SdkBody {
    let (sender, receiver) = mpsc::channel(READ_AHEAD);
    tokio::spawn(async move {
        for (at, piece_len) in pieces(offset, len) {
            let piece = body.piece(at, piece_len).await;
            if let Err(message) = &piece {
                failure.set(message);
            }
            let failed = piece.is_err();
            if sender.send(piece).await.is_err() || failed {
                return;
            }
        }
    });
    SdkBody::from_body_1_x(PieceBody {
        receiver,
        left: len,
    })
}

/// The receiving end, as an HTTP body.
struct PieceBody {
    receiver: mpsc::Receiver<Result<Bytes, String>>,
    left: u64,
}

impl hyper::body::Body for PieceBody {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        match self.receiver.poll_recv(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(Some(Ok(bytes))) => {
                self.left = self.left.saturating_sub(bytes.len() as u64);
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Poll::Ready(Some(Err(message))) => {
                self.left = 0;
                Poll::Ready(Some(Err(std::io::Error::other(message))))
            }
            Poll::Ready(None) => {
                self.left = 0;
                Poll::Ready(Some(Err(std::io::Error::other("body ended early"))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
