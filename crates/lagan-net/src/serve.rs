//! One accepted connection: handshake, requests in, answers out.

use crate::frame::{Decoder, Frame, FrameError, FrameKind};
use crate::handshake;
use crate::message::{Request, Response};
use crate::metrics;
use crate::outbox::Outbox;
use crate::server::{Peer, Permits, Shared};
use crate::socket::{self, ReadHalf, WriteHalf};
use bytes::Bytes;
use lagan_types::codec::Encode;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::MissedTickBehavior;

/// What a request costs beside its bytes.
const REQUEST_OVERHEAD: usize = 256;
/// What a connection may have in flight whatever the others have.
const SHARE: usize = 1024 * 1024;
/// How often a reader looks whether others have made room.
const OTHERS_EVERY: Duration = Duration::from_millis(10);
/// While nothing is read for want of room, the peer is told this often that
/// somebody is here.
const ALIVE_EVERY: Duration = Duration::from_millis(300);
/// How long the last answers of an ended connection may take to leave.
const FLUSH_DEADLINE: Duration = Duration::from_secs(1);

/// A connection as its reader, writer and replies share it.
struct Accepted {
    outbox: Outbox,
    socket: WriteHalf,
    /// Bytes asked and not answered, with what answers reserved.
    in_flight_len: AtomicUsize,
    /// Requests not answered.
    in_flight: AtomicUsize,
    shared: Arc<Shared>,
}

/// The way back for one request's answer. Dropped unsent, it tells the peer
/// that there will be none.
pub struct Reply {
    accepted: Arc<Accepted>,
    id: u64,
    cost: usize,
    sent: bool,
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reply").field("id", &self.id).finish()
    }
}

impl Reply {
    /// Sends the answer. Never waits; a peer that is gone gets none.
    pub fn send(mut self, response: Response) {
        let limits = &self.accepted.shared.limits.frame;
        if response.head.len() > limits.head_len_max as usize
            || response.data.len() > limits.data_len_max as usize
        {
            tracing::error!(
                len = response.head.len() + response.data.len(),
                "answer too long for a frame, dropped"
            );
            return;
        }
        self.sent = true;
        self.push(FrameKind::Answer, response);
    }

    /// As [`Reply::send`], encoding the head.
    pub fn send_typed<T: Encode>(self, head: &T, data: Bytes) {
        self.send(Response::encode_with(head, data));
    }

    /// Counts `len` bytes of a coming answer against the connection's limit
    /// from now on: for requests that are small and answered with much.
    pub fn reserve(&mut self, len: usize) {
        self.cost += len;
        self.accepted.count(len);
    }

    fn push(&self, kind: FrameKind, response: Response) {
        let frame = Frame {
            kind,
            id: self.id,
            head: response.head,
            data: response.data,
        };
        let accepted = &self.accepted;
        // Nobody to share a write with: save the hop to the writer task.
        let alone = accepted.in_flight.load(Ordering::Relaxed) <= 1;
        // Closed: the peer is gone, so is its interest in the answer.
        if accepted.outbox.push(frame, !alone).is_ok() && alone {
            accepted.outbox.flush_uncorked(&accepted.socket);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if !self.sent {
            self.push(FrameKind::Dropped, Response::default());
        }
        let accepted = &self.accepted;
        accepted
            .in_flight_len
            .fetch_sub(self.cost, Ordering::SeqCst);
        accepted
            .shared
            .in_flight_len
            .fetch_sub(self.cost, Ordering::SeqCst);
        accepted.in_flight.fetch_sub(1, Ordering::SeqCst);
        metrics::request_went();
        accepted.outbox.give_room();
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
    let accepted = Arc::new(Accepted {
        outbox: Outbox::counted(shared.in_flight_len.clone()),
        socket,
        in_flight_len: AtomicUsize::new(0),
        in_flight: AtomicUsize::new(0),
        shared,
    });
    let ending = Ending {
        accepted: &accepted,
        peer: &peer,
    };
    accepted.run(&peer, read_half).await;
    drop(ending);
}

/// Ends a connection, also when its handler panics.
struct Ending<'a> {
    accepted: &'a Accepted,
    peer: &'a Arc<Peer>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.accepted.outbox.close(false);
        // Replies may outlive this; the peer should not wait for them.
        socket::shutdown(&self.accepted.socket);
        self.peer.close();
        self.accepted.shared.handler.disconnected(self.peer);
    }
}

impl Accepted {
    async fn run(self: &Arc<Self>, peer: &Arc<Peer>, half: ReadHalf) {
        let writer = self.clone();
        let mut writer = tokio::spawn(async move {
            let result = writer.outbox.run(&writer.socket).await;
            if result.is_err() {
                writer.outbox.close(false);
            }
            result
        });
        let drain = tokio::select! {
            biased;
            result = self.read_frames(peer, half) => {
                match &result {
                    Err(ServeError::Io(error)) => {
                        tracing::info!(peer = %peer.addr, %error, "connection lost");
                    }
                    Err(error) => {
                        tracing::warn!(peer = %peer.addr, %error, "bad bytes, connection closed");
                    }
                    Ok(()) => {}
                }
                result.is_ok()
            }
            () = peer.cancel.cancelled() => {
                self.say_goodbye().await;
                true
            }
            written = &mut writer => {
                tracing::debug!(peer = %peer.addr, ?written, "connection lost");
                return;
            }
        };
        self.outbox.close(drain);
        if tokio::time::timeout(FLUSH_DEADLINE, &mut writer)
            .await
            .is_err()
        {
            writer.abort();
        }
    }

    /// Lets what was asked be answered, for a while.
    async fn say_goodbye(&self) {
        let _ = self.outbox.push(empty(FrameKind::Goodbye), true);
        let done = self
            .outbox
            .room(|| self.in_flight.load(Ordering::SeqCst) == 0);
        // Late answers are lost with the connection; the peer asks elsewhere.
        let _ = tokio::time::timeout(self.shared.limits.drain_deadline, done).await;
    }

    async fn read_frames(
        self: &Arc<Self>,
        peer: &Arc<Peer>,
        mut half: ReadHalf,
    ) -> Result<(), ServeError> {
        let limits = &self.shared.limits;
        let mut decoder = Decoder::new(limits.frame);
        let mut tick = tokio::time::interval(limits.frame_deadline);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Of the frame being received: unchanged over a whole tick is too slow.
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
                Some(_) => frames += self.take_frames(peer, &mut decoder).await?,
                None if !decoder.is_partial() => frames_at_tick = None,
                None if frames_at_tick == Some(frames) => return Err(ServeError::Stalled),
                None => frames_at_tick = Some(frames),
            }
        }
    }

    /// Hands over all frames that have come; gives how many.
    async fn take_frames(
        self: &Arc<Self>,
        peer: &Arc<Peer>,
        decoder: &mut Decoder,
    ) -> Result<u64, ServeError> {
        let mut count = 0;
        self.outbox.cork();
        let result = loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => {
                    count += 1;
                    if let Err(error) = self.receive(peer, frame) {
                        break Err(error);
                    }
                }
                Ok(None) => break Ok(count),
                Err(error) => break Err(error.into()),
            }
            if !self.has_room() {
                self.outbox.uncork(&self.socket);
                self.wait_for_room().await;
                self.outbox.cork();
            }
        };
        self.outbox.uncork(&self.socket);
        result
    }

    fn receive(self: &Arc<Self>, peer: &Arc<Peer>, frame: Frame) -> Result<(), ServeError> {
        match frame.kind {
            FrameKind::Call => {}
            FrameKind::Ping => {
                let _ = self.outbox.push(empty(FrameKind::Pong), true);
                return Ok(());
            }
            kind => return Err(ServeError::Unexpected(kind)),
        }
        let request = Request {
            head: frame.head,
            data: frame.data,
        };
        let cost = REQUEST_OVERHEAD + request.len();
        self.count(cost);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        metrics::request_came();
        let reply = Reply {
            accepted: self.clone(),
            id: frame.id,
            cost,
            sent: false,
        };
        self.shared.handler.handle(peer, request, reply);
        Ok(())
    }

    /// Counts bytes in flight; a reply's end takes them off again.
    fn count(&self, len: usize) {
        self.in_flight_len.fetch_add(len, Ordering::Relaxed);
        self.shared.in_flight_len.fetch_add(len, Ordering::Relaxed);
    }

    fn has_room(&self) -> bool {
        self.has_own_room() && self.others_leave_room()
    }

    fn has_own_room(&self) -> bool {
        let limits = &self.shared.limits;
        self.own_len() < limits.in_flight_len_max
            && self.in_flight.load(Ordering::SeqCst) < limits.in_flight_max
    }

    fn others_leave_room(&self) -> bool {
        let total = self.shared.in_flight_len.load(Ordering::SeqCst);
        total < self.shared.limits.total_in_flight_len_max || self.own_len() < SHARE
    }

    fn own_len(&self) -> usize {
        self.in_flight_len.load(Ordering::SeqCst) + self.outbox.queued()
    }

    /// Back-pressure: reads nothing until answers have gone. The connection's
    /// end, by either side, ends the wait too.
    async fn wait_for_room(&self) {
        let mut said = Instant::now();
        while !self.has_room() && !self.outbox.is_closed() {
            let wait = if self.has_own_room() {
                OTHERS_EVERY
            } else {
                ALIVE_EVERY
            };
            let room = self.outbox.room(|| self.has_room());
            let waited = tokio::time::timeout(wait, room).await;
            if waited.is_err() && said.elapsed() >= ALIVE_EVERY && self.outbox.queued() == 0 {
                said = Instant::now();
                let _ = self.outbox.push(empty(FrameKind::Pong), true);
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
