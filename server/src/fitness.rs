//! Whether this node can do its work, judged from its disks; a node that cannot
//! steps aside and says why (docs/DESIGN.md "Faults").
//!
//! A failed log ends the process: nobody knows any more what its disk has, and
//! nothing is retried after a failed sync. A failed or stalled chunk store takes
//! no new chunks, but goes on to serve those it has: one may be the last copy. A
//! stall alone does not count as full: where nodes share a disk, all would be full, and
//! writers would get ENOSPC instead of waiting.

use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Time between looks.
const LOOK: Duration = Duration::from_millis(250);
/// Time that the chunk disk may take for one batch; more is a stall. Writers have long
/// taken other sets by then, and a disk that is only busy syncs a segment in less.
const STALL: Duration = Duration::from_secs(5);

/// The signs that a node's fitness is judged by.
#[derive(Debug, Clone)]
pub(crate) struct Signs {
    /// The consensus has ended although nobody stopped it.
    pub(crate) consensus_ended: bool,
    /// A write or sync of the metadata log failed.
    pub(crate) log_failed: bool,
    /// Syncs of the metadata log take too long.
    pub(crate) log_slow: bool,
    /// Whether the chunk store takes writes, or why not.
    pub(crate) store: Result<(), String>,
    /// How long the chunk store's disk has worked on one batch.
    pub(crate) store_stalled: Duration,
}

/// Why a node steps aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The node must stop.
    Fatal(String),
    /// The node takes no new chunks.
    Store(String),
    /// The node takes new chunks too slowly; this ends by itself.
    Stall(String),
    /// The node does not lead; this ends by itself.
    Log(String),
}

impl Trouble {
    /// Whether nobody should count on the node: /health says so.
    pub(crate) fn is_failure(&self) -> bool {
        !matches!(self, Trouble::Log(_))
    }

    /// The reason, one line.
    pub(crate) fn reason(&self) -> &str {
        match self {
            Trouble::Fatal(reason)
            | Trouble::Store(reason)
            | Trouble::Stall(reason)
            | Trouble::Log(reason) => reason,
        }
    }
}

/// Returns the worst trouble that the signs show.
pub(crate) fn judge(signs: &Signs) -> Option<Trouble> {
    if signs.log_failed {
        let reason = "a write or sync of the metadata log failed: check the disk";
        return Some(Trouble::Fatal(reason.into()));
    }
    if signs.consensus_ended {
        let reason = "the metadata's consensus ended by an error";
        return Some(Trouble::Fatal(reason.into()));
    }
    if let Err(e) = &signs.store {
        let reason = format!("the chunk store takes no writes: {e}");
        return Some(Trouble::Store(reason));
    }
    if signs.store_stalled > STALL {
        return Some(Trouble::Stall("the chunk store's disk stalls".into()));
    }
    let slow = "syncs of the metadata log take over a second";
    signs.log_slow.then(|| Trouble::Log(slow.into()))
}

/// Logs each trouble once, and calls `fail` at a fatal one.
pub(crate) async fn watch(
    look: impl Fn() -> Option<Trouble>,
    fail: impl FnOnce(String),
    cancel: CancellationToken,
) {
    let mut told: Option<Trouble> = None;
    while cancel
        .run_until_cancelled(tokio::time::sleep(LOOK))
        .await
        .is_some()
    {
        let now = look();
        if now == told {
            continue;
        }
        match &now {
            Some(Trouble::Fatal(reason)) => return fail(reason.clone()),
            Some(Trouble::Store(reason)) => tracing::error!(reason, "this node steps aside"),
            Some(Trouble::Stall(reason) | Trouble::Log(reason)) => {
                tracing::warn!(reason, "this node steps aside");
            }
            None => tracing::info!("this node does its work again"),
        }
        told = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Signs {
        Signs {
            consensus_ended: false,
            log_failed: false,
            log_slow: false,
            store: Ok(()),
            store_stalled: Duration::ZERO,
        }
    }

    #[test]
    fn healthy_node_has_no_trouble() {
        assert_eq!(judge(&well()), None);
    }

    #[test]
    fn failed_log_is_fatal_whatever_else_is_wrong() {
        let signs = Signs {
            log_failed: true,
            consensus_ended: true,
            store: Err("disk".into()),
            ..well()
        };
        assert!(matches!(judge(&signs), Some(Trouble::Fatal(r)) if r.contains("log")));
        let signs = Signs {
            consensus_ended: true,
            ..well()
        };
        assert!(matches!(judge(&signs), Some(Trouble::Fatal(_))));
    }

    #[test]
    fn failed_or_stalled_store_takes_no_chunks_and_says_why() {
        let signs = Signs {
            store: Err("a sync failed".into()),
            ..well()
        };
        assert!(matches!(judge(&signs), Some(Trouble::Store(r)) if r.contains("a sync failed")));
        let signs = Signs {
            store_stalled: STALL + Duration::from_millis(1),
            ..well()
        };
        let trouble = judge(&signs).expect("a stall");
        assert!(matches!(trouble, Trouble::Stall(_)) && trouble.is_failure());
    }

    #[test]
    fn slow_log_only_keeps_from_leading() {
        let signs = Signs {
            log_slow: true,
            ..well()
        };
        let trouble = judge(&signs).expect("slow");
        assert!(matches!(trouble, Trouble::Log(_)) && !trouble.is_failure());
    }
}
