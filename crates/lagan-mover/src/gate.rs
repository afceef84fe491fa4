//! The gate to the endpoint: it is open while requests may be sent.
//!
//! The gate opens once the prefix is found to be ours and it is known whether
//! the endpoint verifies checksums. It closes by the circuit breaker of
//! writes. One task, the keeper, probes while it is closed; all others only
//! look, report what their calls came to, and wait. Reads (recall) have a
//! breaker of their own: a bucket may be readable and not writable.

use crate::health::{LastFailure, S3Health};
use crate::{Meta, MoverError, RecallError};
use lagan_object::{
    Breaker, BreakerConfig, BreakerState, ErrorKind, ObjectError, ObjectStore, Owner, OwnerError,
    Permit, claim_owner, probe_wrong_checksum, read_owner,
};
use parking_lot::Mutex;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, watch};

/// Pause between looks while nobody has claimed the prefix yet.
const CLAIM_POLL: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Inner {
    writes: Breaker,
    reads: Breaker,
    last_write: LastFailure,
    last_read: LastFailure,
    /// The prefix is ours and the endpoint was probed.
    ready: bool,
    /// The endpoint refuses wrong checksums.
    verifies: bool,
    /// Why the prefix cannot be used, if a person must act.
    problem: Option<String>,
}

impl Inner {
    fn note_write(&mut self, result: Result<(), &ObjectError>, now_ms: u64) {
        let local = [
            ErrorKind::Source,
            ErrorKind::NotFound,
            ErrorKind::Precondition,
        ];
        match result {
            Ok(()) => self.last_write.succeeded(),
            Err(error) if local.contains(&error.kind) => {}
            Err(error) => self.last_write.failed(error, now_ms),
        }
    }
}

/// The gate of one endpoint.
pub(crate) struct Gate {
    store: Arc<dyn ObjectStore>,
    meta: Arc<dyn Meta>,
    started: Instant,
    permanent_retry: Duration,
    /// Held for moments only.
    inner: Mutex<Inner>,
    /// True while uploads and deletes may go.
    open: watch::Sender<bool>,
    failed: Notify,
}

impl Gate {
    pub fn new(store: Arc<dyn ObjectStore>, meta: Arc<dyn Meta>, breaker: BreakerConfig) -> Self {
        let inner = Inner {
            writes: Breaker::new(breaker),
            reads: Breaker::new(breaker),
            last_write: LastFailure::default(),
            last_read: LastFailure::default(),
            ready: false,
            verifies: false,
            problem: None,
        };
        Gate {
            store,
            meta,
            started: Instant::now(),
            permanent_retry: Duration::from_millis(breaker.permanent_probe_ms),
            inner: Mutex::new(inner),
            open: watch::Sender::new(false),
            failed: Notify::new(),
        }
    }

    /// True while uploads and deletes may go.
    pub fn is_open(&self) -> bool {
        *self.open.borrow()
    }

    /// Waits until uploads and deletes may go.
    pub async fn opened(&self) {
        let mut open = self.open.subscribe();
        // the sender lives as long as self
        let _ = open.wait_for(|open| *open).await;
    }

    /// True if the endpoint refuses wrong checksums.
    pub fn verifies(&self) -> bool {
        self.inner.lock().verifies
    }

    /// Takes note of a write's or delete's result.
    pub fn report(&self, result: Result<(), &ObjectError>) {
        let now_ms = self.now_ms();
        let mut inner = self.inner.lock();
        inner.note_write(result, now_ms);
        match result {
            Ok(()) => {
                // late successes of before do not open what a probe has to
                if inner.writes.state() == BreakerState::Closed {
                    inner.writes.succeeded();
                }
            }
            Err(error) => inner.writes.failed(error, now_ms, rand::random()),
        }
        self.show(&inner);
    }

    /// Asks whether a read may go.
    ///
    /// # Errors
    /// The breaker of reads is open.
    pub fn try_read(&self) -> Result<(), RecallError> {
        let mut inner = self.inner.lock();
        match inner.reads.try_call(self.now_ms()) {
            Permit::Go | Permit::Probe => Ok(()),
            Permit::Wait { .. } => {
                let error = inner.reads.error();
                let permanent = error.is_some_and(ObjectError::is_permanent);
                let reason = error.map_or("S3 is being probed".into(), ToString::to_string);
                match permanent {
                    true => Err(RecallError::permanent(reason)),
                    false => Err(RecallError::transient(reason)),
                }
            }
        }
    }

    /// Takes note of a read's result.
    pub fn report_read(&self, result: Result<(), &ObjectError>) {
        let now_ms = self.now_ms();
        let mut inner = self.inner.lock();
        match result {
            Ok(()) => {
                inner.last_read.succeeded();
                inner.reads.succeeded();
            }
            Err(error) => {
                // here a missing object is a failure: the metadata names it
                if error.kind != ErrorKind::Source {
                    inner.last_read.failed(error, now_ms);
                }
                inner.reads.failed(error, now_ms, rand::random());
            }
        }
    }

    /// Takes note that a read brought wrong bytes.
    pub fn note_read(&self, error: &ObjectError) {
        let now_ms = self.now_ms();
        self.inner.lock().last_read.failed(error, now_ms);
    }

    /// The state that `lagan status` shows.
    pub fn health(&self) -> S3Health {
        let inner = self.inner.lock();
        if let Some(problem) = &inner.problem {
            return S3Health {
                error: problem.clone(),
                permanent: true,
                ready: false,
            };
        }
        let now_ms = self.now_ms();
        let shut = inner.writes.error().or(inner.reads.error());
        let error = shut
            .or_else(|| inner.last_write.shown(now_ms))
            .or_else(|| inner.last_read.shown(now_ms));
        S3Health {
            error: error.map_or_else(String::new, ToString::to_string),
            permanent: error.is_some_and(ObjectError::is_permanent),
            ready: inner.ready,
        }
    }

    /// Closes the gate: the owner object names another incarnation.
    pub fn lose_ownership(&self, error: &OwnerError) {
        let mut inner = self.inner.lock();
        inner.ready = false;
        inner.problem = Some(error.to_string());
        self.show(&inner);
    }

    /// The prefix and its owner, if an archive is configured.
    pub fn ours(&self) -> Option<(String, Owner)> {
        let map = self.meta.map();
        let archive = map.config.archive.as_ref()?;
        let owner = Owner::new(map.config.incarnation, map.config.cluster);
        Some((archive.prefix.clone(), owner))
    }

    /// Probes while the gate is closed; runs until it is dropped.
    pub async fn keep(&self) {
        loop {
            if self.is_open() {
                self.failed.notified().await;
                continue;
            }
            let pause = self.try_open().await;
            self.show(&self.inner.lock());
            tokio::time::sleep(pause).await;
        }
    }

    /// Tries once to open the gate. Returns how long to wait before the next try.
    async fn try_open(&self) -> Duration {
        let (permit, ready) = {
            let mut inner = self.inner.lock();
            (inner.writes.try_call(self.now_ms()), inner.ready)
        };
        match permit {
            Permit::Wait { until_ms } => {
                Duration::from_millis(until_ms.saturating_sub(self.now_ms()).max(1))
            }
            Permit::Go if ready => Duration::ZERO,
            Permit::Probe if ready => {
                let probed = self.store.check_bucket().await;
                self.probed(probed);
                Duration::ZERO
            }
            Permit::Go | Permit::Probe => self.set_up().await,
        }
    }

    fn probed(&self, result: Result<(), ObjectError>) {
        let now_ms = self.now_ms();
        let mut inner = self.inner.lock();
        inner.note_write(result.as_ref().map(|_| ()), now_ms);
        match result {
            Ok(()) => inner.writes.succeeded(),
            Err(error) => inner.writes.failed(&error, now_ms, rand::random()),
        }
    }

    /// Finds out whose the prefix is and whether the endpoint is careful.
    async fn set_up(&self) -> Duration {
        match self.find_out().await {
            Ok(Some(verifies)) => {
                let mut inner = self.inner.lock();
                inner.writes.succeeded();
                inner.last_write.succeeded();
                (inner.ready, inner.verifies, inner.problem) = (true, verifies, None);
                drop(inner);
                tracing::info!(verifies, "archive is reachable and ours");
                Duration::ZERO
            }
            Ok(None) => {
                self.probed(Ok(()));
                CLAIM_POLL
            }
            Err(MoverError::Object(error)) => {
                tracing::warn!(%error, "archive is not reachable");
                self.probed(Err(error));
                Duration::from_millis(1)
            }
            Err(error) => {
                self.probed(Ok(()));
                let text = error.to_string();
                let mut inner = self.inner.lock();
                if inner.problem.as_ref() != Some(&text) {
                    tracing::error!(%error, "archive cannot be used");
                }
                inner.problem = Some(text);
                self.permanent_retry
            }
        }
    }

    /// Returns whether the endpoint verifies checksums; `None` while nobody has claimed
    /// the prefix, which is the leader's duty.
    async fn find_out(&self) -> Result<Option<bool>, MoverError> {
        let Some((prefix, owner)) = self.ours() else {
            return Ok(None);
        };
        self.store.check_bucket().await?;
        if self.meta.is_leader() {
            claim_owner(&*self.store, &prefix, owner).await?;
        } else {
            match read_owner(&*self.store, &prefix).await? {
                None => return Ok(None),
                Some(found) if found.incarnation != owner.incarnation => {
                    return Err(OwnerError::Other(found.incarnation).into());
                }
                Some(_) => {}
            }
        }
        Ok(Some(probe_wrong_checksum(&*self.store, &prefix).await?))
    }

    /// Opens or closes the gate for those who wait, as the state says.
    fn show(&self, inner: &Inner) {
        let open = inner.ready && inner.writes.state() == BreakerState::Closed;
        let was = self.open.send_replace(open);
        if was && !open {
            let error = inner
                .writes
                .error()
                .map(ToString::to_string)
                .unwrap_or_default();
            tracing::warn!(error, "archive is in trouble, uploads wait");
            self.failed.notify_one();
        }
        if !was && open {
            tracing::info!("archive works, uploads go on");
        }
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}
