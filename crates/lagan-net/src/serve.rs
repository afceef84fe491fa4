//! One accepted connection: handshake, requests in, answers out.

use crate::frame::{Decoder, Frame, FrameError, FrameKind};
use crate::handler::{Handler, Peer};
use crate::handshake;
use crate::limits::ServerLimits;
use crate::message::Request;
use crate::outbox::Outbox;
use crate::reply::Accepted;
use crate::socket::{self, ReadHalf};
use bytes::Bytes;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;

/// Bytes that a request counts beside its own.
const REQUEST_OVERHEAD: usize = 256;
/// Pause between a reader's looks whether others have made room.
const OTHERS_EVERY: Duration = Duration::from_millis(10);
/// Pause between signs of life to a peer from which nothing is read for want of room.
const ALIVE_EVERY: Duration = Duration::from_millis(300);
/// Time that the last answers of an ended connection may take to leave.
const FLUSH_DEADLINE: Duration = Duration::from_secs(1);

/// The state that all connections of a server share.
pub(crate) struct Shared {
    pub(crate) cancel: CancellationToken,
    handler: Arc<dyn Handler>,
    limits: Arc<ServerLimits>,
    /// Bytes that all connections have in flight.
    in_flight_len: Arc<AtomicUsize>,
    connections: Arc<Semaphore>,
    handshakes: Arc<Semaphore>,
}

/// A connection's place among those allowed.
pub(crate) struct Permits {
    _connection: OwnedSemaphorePermit,
    /// Given back when the handshake is done.
    handshake: Option<OwnedSemaphorePermit>,
}

impl Shared {
    /// A server without connections.
    pub(crate) fn new(
        handler: Arc<dyn Handler>,
        limits: ServerLimits,
        cancel: CancellationToken,
    ) -> Self {
        Shared {
            cancel,
            handler,
            in_flight_len: Arc::default(),
            connections: Arc::new(Semaphore::new(limits.connections_max)),
            handshakes: Arc::new(Semaphore::new(limits.handshakes_max)),
            limits: Arc::new(limits),
        }
    }

    /// A place for one more connection, if there is one.
    pub(crate) fn admit(&self) -> Option<Permits> {
        Some(Permits {
            _connection: self.connections.clone().try_acquire_owned().ok()?,
            handshake: Some(self.handshakes.clone().try_acquire_owned().ok()?),
        })
    }
}

#[derive(Debug, thiserror::Error)]
enum ServeError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Frame(#[from] FrameError),
    #[error("unexpected frame {0:?}")]
    Unexpected(FrameKind),
    #[error("a frame did not go on in time")]
    Stalled,
    #[error("ended in the middle of a frame")]
    Truncated,
}

/// Serves one connection to its end.
pub(crate) async fn serve(
    mut stream: TcpStream,
    addr: SocketAddr,
    mut permits: Permits,
    shared: Arc<Shared>,
) {
    let check = |hello: &handshake::Hello| shared.handler.check_hello(hello, addr);
    let deadline = shared.limits.handshake_deadline;
    let answered = tokio::select! {
        biased;
        () = shared.cancel.cancelled() => return,
        answered = tokio::time::timeout(deadline, handshake::answer(&mut stream, check)) => answered,
    };
    permits.handshake = None;
    let (version, hello) = match answered {
        Ok(Ok(agreed)) => agreed,
        Ok(Err(error)) => {
            tracing::warn!(peer = %addr, %error, "handshake failed, connection closed");
            return;
        }
        Err(_) => {
            tracing::warn!(peer = %addr, "handshake took too long, connection closed");
            return;
        }
    };
    let peer = Arc::new(Peer {
        hello,
        addr,
        version,
        cancel: shared.cancel.child_token(),
        closed: AtomicBool::new(false),
    });
    shared.handler.connected(&peer);
    let (read_half, socket) = stream.into_split();
    let serving = Serving {
        accepted: Arc::new(Accepted {
            outbox: Outbox::counted(shared.in_flight_len.clone()),
            socket,
            limits: shared.limits.clone(),
            in_flight_len: AtomicUsize::new(0),
            total_in_flight_len: shared.in_flight_len.clone(),
            in_flight: AtomicUsize::new(0),
        }),
        peer,
        handler: shared.handler.clone(),
    };
    serving.run(read_half).await;
}

/// A connection after its handshake. Its end is told to the handler even if the handler
/// panics.
struct Serving {
    accepted: Arc<Accepted>,
    peer: Arc<Peer>,
    handler: Arc<dyn Handler>,
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.accepted.outbox.close(false);
        // Replies may outlive this; the peer should not wait for them.
        socket::shutdown(&self.accepted.socket);
        self.peer.close();
        self.handler.disconnected(&self.peer);
    }
}

impl Serving {
    async fn run(&self, half: ReadHalf) {
        let writer = self.accepted.clone();
        let mut writer = tokio::spawn(async move {
            let result = writer.outbox.run(&writer.socket).await;
            if result.is_err() {
                writer.outbox.close(false);
            }
            result
        });
        let drain = tokio::select! {
            biased;
            result = self.read_frames(half) => {
                match &result {
                    Err(ServeError::Io(error)) => {
                        tracing::info!(peer = %self.peer.addr, %error, "connection lost");
                    }
                    Err(error) => {
                        tracing::warn!(peer = %self.peer.addr, %error, "bad bytes, connection closed");
                    }
                    Ok(()) => {}
                }
                result.is_ok()
            }
            () = self.peer.cancel.cancelled() => {
                self.say_goodbye().await;
                true
            }
            written = &mut writer => {
                tracing::debug!(peer = %self.peer.addr, ?written, "connection lost");
                return;
            }
        };
        self.accepted.outbox.close(drain);
        if tokio::time::timeout(FLUSH_DEADLINE, &mut writer)
            .await
            .is_err()
        {
            writer.abort();
        }
    }

    /// Lets open requests be answered, for a while.
    async fn say_goodbye(&self) {
        let accepted = &self.accepted;
        let _ = accepted.outbox.push(empty(FrameKind::Goodbye), true);
        let done = accepted
            .outbox
            .room(|| accepted.in_flight.load(Ordering::SeqCst) == 0);
        // Late answers are lost with the connection; the peer asks elsewhere.
        let _ = tokio::time::timeout(accepted.limits.drain_deadline, done).await;
    }

    async fn read_frames(&self, mut half: ReadHalf) -> Result<(), ServeError> {
        let limits = &self.accepted.limits;
        let mut decoder = Decoder::new(limits.frame);
        let mut tick = tokio::time::interval(limits.frame_deadline);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // A frame that is received in part over a whole tick comes too slowly.
        let mut frames = 0u64;
        let mut frames_at_tick = None;
        loop {
            let mut space = decoder.space();
            let read = tokio::select! {
                biased;
                read = half.read_buf(&mut space) => Some(read?),
                _ = tick.tick() => None,
            };
            match read {
                Some(0) if decoder.is_partial() => return Err(ServeError::Truncated),
                Some(0) => return Ok(()),
                Some(_) => frames += self.take_frames(&mut decoder).await?,
                None if !decoder.is_partial() => frames_at_tick = None,
                None if frames_at_tick == Some(frames) => return Err(ServeError::Stalled),
                None => frames_at_tick = Some(frames),
            }
        }
    }

    /// Handles all frames that have come; returns their number.
    async fn take_frames(&self, decoder: &mut Decoder) -> Result<u64, ServeError> {
        let accepted = &self.accepted;
        let mut count = 0;
        accepted.outbox.cork();
        let result = loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => {
                    count += 1;
                    if let Err(error) = self.receive(frame) {
                        break Err(error);
                    }
                }
                Ok(None) => break Ok(count),
                Err(error) => break Err(error.into()),
            }
            if !accepted.has_room() {
                accepted.outbox.uncork(&accepted.socket);
                self.wait_for_room().await;
                accepted.outbox.cork();
            }
        };
        accepted.outbox.uncork(&accepted.socket);
        result
    }

    fn receive(&self, frame: Frame) -> Result<(), ServeError> {
        match frame.kind {
            FrameKind::Call => {}
            FrameKind::Ping => {
                let _ = self.accepted.outbox.push(empty(FrameKind::Pong), true);
                return Ok(());
            }
            kind => return Err(ServeError::Unexpected(kind)),
        }
        let request = Request {
            head: frame.head,
            data: frame.data,
        };
        let cost = REQUEST_OVERHEAD + request.len();
        let reply = self.accepted.begin(self.peer.hello.service, frame.id, cost);
        self.handler.handle(&self.peer, request, reply);
        Ok(())
    }

    /// Back-pressure: reads nothing until answers have gone. The connection's end, by
    /// either side, ends the wait, too.
    async fn wait_for_room(&self) {
        let accepted = &self.accepted;
        let mut said = Instant::now();
        while !accepted.has_room() && !accepted.outbox.is_closed() {
            let wait = if accepted.has_own_room() {
                OTHERS_EVERY
            } else {
                ALIVE_EVERY
            };
            let room = accepted.outbox.room(|| accepted.has_room());
            let waited = tokio::time::timeout(wait, room).await;
            if waited.is_err() && said.elapsed() >= ALIVE_EVERY && accepted.outbox.queued() == 0 {
                said = Instant::now();
                let _ = accepted.outbox.push(empty(FrameKind::Pong), true);
            }
        }
    }
}

fn empty(kind: FrameKind) -> Frame {
    Frame {
        kind,
        id: 0,
        head: Bytes::new(),
        data: Bytes::new(),
    }
}
