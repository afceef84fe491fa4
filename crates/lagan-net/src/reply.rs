//! Answers on their way out of an accepted connection, and what they may cost.

use crate::frame::{Frame, FrameKind};
use crate::limits::ServerLimits;
use crate::message::Response;
use crate::metrics;
use crate::outbox::Outbox;
use crate::socket::WriteHalf;
use bytes::Bytes;
use lagan_types::ask::Part;
use lagan_types::message::{Conversation, Message, RefusalOf, Service};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Bytes that a connection may have in flight whatever the others have.
const SHARE: usize = 1024 * 1024;

/// A connection as its reader, writer and replies share it.
pub(crate) struct Accepted {
    pub(crate) outbox: Outbox,
    pub(crate) socket: WriteHalf,
    pub(crate) limits: Arc<ServerLimits>,
    /// Bytes of requests without an answer, and bytes that were reserved for answers.
    pub(crate) in_flight_len: AtomicUsize,
    /// The same sum over all connections of the server.
    pub(crate) total_in_flight_len: Arc<AtomicUsize>,
    /// Requests without an answer.
    pub(crate) in_flight: AtomicUsize,
}

impl Accepted {
    /// Counts a request that costs `cost` bytes; returns the way back for its answer.
    pub(crate) fn begin(self: &Arc<Self>, service: Service, id: u64, cost: usize) -> Reply {
        self.count(cost);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        metrics::request_came(service);
        Reply {
            accepted: self.clone(),
            id,
            cost,
            sent: false,
        }
    }

    /// Counts bytes in flight; a reply's end takes them off again.
    fn count(&self, len: usize) {
        self.in_flight_len.fetch_add(len, Ordering::Relaxed);
        self.total_in_flight_len.fetch_add(len, Ordering::Relaxed);
    }

    pub(crate) fn has_room(&self) -> bool {
        self.has_own_room() && self.others_leave_room()
    }

    pub(crate) fn has_own_room(&self) -> bool {
        let limits = &self.limits;
        self.own_len() < limits.in_flight_len_max
            && self.in_flight.load(Ordering::SeqCst) < limits.in_flight_max
    }

    fn others_leave_room(&self) -> bool {
        let total = self.total_in_flight_len.load(Ordering::SeqCst);
        total < self.limits.total_in_flight_len_max || self.own_len() < SHARE
    }

    fn own_len(&self) -> usize {
        self.in_flight_len.load(Ordering::SeqCst) + self.outbox.queued()
    }
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
        let limits = &self.accepted.limits.frame;
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

    /// Answers a request `A`, or refuses it, as [`Reply::send`] does.
    pub fn answer<A: Message>(self, answer: Result<A::Answer, RefusalOf<A>>, data: Bytes) {
        let reply: Result<A::Reply, _> = answer.map(Part::wrap);
        self.send(Response::encode_with(&reply, data));
    }

    /// Refuses a request of the service whose requests are `R`.
    pub fn refuse<R: Conversation>(self, refusal: R::Refusal) {
        let reply: Result<R::Reply, _> = Err(refusal);
        self.send(Response::encode_with(&reply, Bytes::new()));
    }

    /// Counts `len` bytes of a coming answer against the connection's limit from now on,
    /// for small requests with long answers.
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
            .total_in_flight_len
            .fetch_sub(self.cost, Ordering::SeqCst);
        accepted.in_flight.fetch_sub(1, Ordering::SeqCst);
        metrics::request_went();
        accepted.outbox.give_room();
    }
}
