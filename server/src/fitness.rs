//! Whether this node can do its work, judged from its disks; a node that cannot
//! steps aside and says why (docs/DESIGN.md "Faults").
//!
//! A failed log ends the process: what its disk has is not known any more, and
//! nothing is retried after a failed sync. A failed or stalled chunk store takes
//! no new chunks, but goes on to serve what it has: it may be the last copy. A
//! stall alone does not count as full: where nodes share a disk, all would be, and
//! writers would get ENOSPC instead of waiting.

use crate::member::Member;
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Between looks.
const LOOK: Duration = Duration::from_millis(250);
/// A batch that takes the chunk disk longer is a stall: writers have long taken
/// other sets, and a disk that is only busy syncs a segment in less.
const STALL: Duration = Duration::from_secs(5);

/// What is looked at.
#[derive(Debug, Clone)]
pub struct Signs {
    /// The consensus has ended although nobody stopped it.
    pub consensus_ended: bool,
    /// A write or sync of the metadata log failed.
    pub log_failed: bool,
    /// Its syncs take too long.
    pub log_slow: bool,
    /// Whether the chunk store takes writes, or why not.
    pub store: Result<(), String>,
    /// How long its disk has worked on one batch.
    pub store_stalled: Duration,
}

/// Why a node steps aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trouble {
    /// It must stop.
    Fatal(String),
    /// It takes no new chunks.
    Store(String),
    /// It takes new chunks too slowly; that ends by itself.
    Stall(String),
    /// It does not lead; that ends by itself.
    Log(String),
}

impl Trouble {
    /// Whether the node should not be counted on: /health says so.
    pub fn is_failure(&self) -> bool {
        !matches!(self, Trouble::Log(_))
    }

    /// In words.
    pub fn reason(&self) -> &str {
        match self {
            Trouble::Fatal(reason)
            | Trouble::Store(reason)
            | Trouble::Stall(reason)
            | Trouble::Log(reason) => reason,
        }
    }
}

/// The worst of what the signs say.
pub fn judge(signs: &Signs) -> Option<Trouble> {
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

/// Tells each trouble once, and ends the server at a fatal one.
pub async fn watch(member: Arc<Member>, cancel: CancellationToken) {
    let mut told: Option<Trouble> = None;
    while cancel
        .run_until_cancelled(tokio::time::sleep(LOOK))
        .await
        .is_some()
    {
        let now = member.trouble();
        if now == told {
            continue;
        }
        match &now {
            Some(Trouble::Fatal(reason)) => return member.fail(reason.clone()),
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
