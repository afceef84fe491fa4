//! A circuit breaker for one endpoint, as a pure state machine.
//!
//! ```text
//!            failures in a row             probe time
//!  (Closed) -------------------> (Open) ---------------> (HalfOpen)
//!      ^                          ^  ^                       |  |
//!      |                          |  +----- probe failed ----+  |
//!      +--------------------------|------- probe succeeded -----+
//!      any permanent failure -----+
//! ```
//! Closed lets everything through. Open lets nothing through until the next
//! probe's time. HalfOpen lets one call through: the probe. A permanent
//! failure opens at once and is probed slowly; a transient one opens after a
//! few in a row and is probed with back-off.

use crate::{Backoff, ErrorKind, ObjectError};

/// Limits at which a breaker opens, and the times of its probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BreakerConfig {
    /// Transient failures in a row that open it.
    pub failures_max: u32,
    /// Spacing of probes after transient failures.
    pub probe: Backoff,
    /// Milliseconds between probes after a permanent failure.
    pub permanent_probe_ms: u64,
    /// Milliseconds after which a probe that never reported counts as failed.
    pub probe_timeout_ms: u64,
}

impl Default for BreakerConfig {
    /// 5 failures; probes after 0.5 s to 30 s, permanent: each 30 s.
    fn default() -> Self {
        BreakerConfig {
            failures_max: 5,
            probe: Backoff::new(500, 30_000),
            permanent_probe_ms: 30_000,
            probe_timeout_ms: 120_000,
        }
    }
}

/// State of a breaker: the calls that it lets through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// All calls go.
    Closed,
    /// No call goes until `probe_at_ms`.
    Open {
        /// Time of the next probe on the caller's monotonic clock.
        probe_at_ms: u64,
    },
    /// One call, the probe, is under way; no other goes until it reports.
    HalfOpen {
        /// Time at which the probe began.
        since_ms: u64,
    },
}

/// Answers whether a call may go now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Permit {
    /// Yes.
    Go,
    /// Yes, as the probe, which decides whether others may go: send something cheap.
    Probe,
    /// No; ask again at that time.
    Wait {
        /// Milliseconds on the caller's monotonic clock.
        until_ms: u64,
    },
}

/// The breaker of one endpoint. Times are milliseconds of any one monotonic clock.
#[derive(Debug, Clone)]
pub struct Breaker {
    config: BreakerConfig,
    state: BreakerState,
    failures: u32,
    opened: u32,
    error: Option<ObjectError>,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(config: BreakerConfig) -> Self {
        Breaker {
            config,
            state: BreakerState::Closed,
            failures: 0,
            opened: 0,
            error: None,
        }
    }

    /// The state now.
    pub fn state(&self) -> BreakerState {
        self.state
    }

    /// The last failure while not closed: what status shows.
    pub fn error(&self) -> Option<&ObjectError> {
        self.error.as_ref()
    }

    /// Asks to send a call. After `Go` or `Probe` the caller reports its
    /// outcome with [`Breaker::succeeded`] or [`Breaker::failed`].
    pub fn try_call(&mut self, now_ms: u64) -> Permit {
        let probe_at_ms = match self.state {
            BreakerState::Closed => return Permit::Go,
            BreakerState::Open { probe_at_ms } => probe_at_ms,
            BreakerState::HalfOpen { since_ms } => {
                since_ms.saturating_add(self.config.probe_timeout_ms)
            }
        };
        if now_ms < probe_at_ms {
            return Permit::Wait {
                until_ms: probe_at_ms,
            };
        }
        self.state = BreakerState::HalfOpen { since_ms: now_ms };
        Permit::Probe
    }

    /// The endpoint answered: it closes.
    pub fn succeeded(&mut self) {
        self.state = BreakerState::Closed;
        self.failures = 0;
        self.opened = 0;
        self.error = None;
    }

    /// A call failed. Kinds that say nothing of the endpoint (a local source,
    /// an absent object, a condition) count as an answer of it.
    pub fn failed(&mut self, error: &ObjectError, now_ms: u64, random: u64) {
        match error.kind {
            ErrorKind::Permanent => self.open(error, now_ms, random),
            ErrorKind::Transient | ErrorKind::ChecksumMismatch => {
                self.failures = self.failures.saturating_add(1);
                let probing = matches!(self.state, BreakerState::HalfOpen { .. });
                if probing || self.failures >= self.config.failures_max {
                    self.open(error, now_ms, random);
                }
            }
            ErrorKind::NotFound | ErrorKind::Precondition => self.succeeded(),
            ErrorKind::Source => self.abandoned(now_ms),
        }
    }

    /// The call ended without a word from the endpoint: a probe is free again.
    pub fn abandoned(&mut self, now_ms: u64) {
        if matches!(self.state, BreakerState::HalfOpen { .. }) {
            self.state = BreakerState::Open {
                probe_at_ms: now_ms,
            };
        }
    }

    fn open(&mut self, error: &ObjectError, now_ms: u64, random: u64) {
        // Late answers of calls sent before it opened do not push the probe away.
        if let BreakerState::Open { .. } = self.state
            && self.error.as_ref().is_some_and(|e| e.kind == error.kind)
        {
            return;
        }
        self.opened = self.opened.saturating_add(1);
        let wait_ms = if error.kind == ErrorKind::Permanent {
            self.config.permanent_probe_ms
        } else {
            self.config.probe.delay(self.opened, random).as_millis() as u64
        };
        self.state = BreakerState::Open {
            probe_at_ms: now_ms.saturating_add(wait_ms),
        };
        self.error = Some(error.clone());
    }
}

#[cfg(test)]
mod tests;
