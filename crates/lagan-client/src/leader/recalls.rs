//! Polls for recalls: what this mount must forget before others may change it.
//!
//! One poll is always under way while something may be remembered. What it brings is forgotten
//! at once, and acknowledged with the next poll when the kernel has forgotten it too.

use crate::leader::Leader;
use crate::leader::kernel::Kernel;
use crate::leader::leases::Leases;
use crate::leader::link::Link;
use lagan_types::SessionId;
use lagan_types::lease::Key;
use lagan_types::message::PollRecalls;
use std::sync::Weak;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Longer than a leader lets a poll wait.
const DEADLINE: Duration = Duration::from_secs(15);
/// Pause after a poll that brought nothing and did not wait.
const PAUSE: Duration = Duration::from_millis(50);

/// Time to have files made in directories that were this mount's alone: no lease is longer.
const MAKE_TIME: Duration = Duration::from_secs(2);
/// Time between looks whether the mount is still there.
const LOOK: Duration = Duration::from_secs(1);

/// Polls until the mount ends or is gone.
pub(super) async fn run(leader: Weak<Leader>, cancel: CancellationToken) {
    let weak = leader;
    while let Some(leader) = weak.upgrade() {
        let (link, leases) = (leader.link.clone(), leader.leases.clone());
        let kernel = leader.kernel.clone();
        let session = leader.session();
        // A poll is long: it keeps no storey alive.
        drop(leader);
        let round = async {
            if leases.is_active() || leases.is_valid() {
                poll(&weak, &link, (&leases, &kernel), session).await;
            } else {
                let _ = tokio::time::timeout(LOOK, leases.poll_wanted()).await;
            }
        };
        tokio::select! {
            _ = cancel.cancelled() => return,
            () = round => {}
        }
    }
}

/// Asks once what to forget, and forgets it.
async fn poll(
    leader: &Weak<Leader>,
    link: &Link,
    (leases, kernel): (&Leases, &Kernel),
    session: SessionId,
) {
    let (term, acked) = leases.acked(session);
    let poll = PollRecalls {
        session,
        term,
        acked,
    };
    let began = Instant::now();
    let answer = tokio::select! {
        answer = link.ask_once(poll, began + DEADLINE) => answer,
        () = leases.renewed() => return,
    };
    let brought = match answer {
        Ok(recalls) => {
            if let Some(loans) = leases.recalled(session, &recalls) {
                let back = kernel.take_back(leases, loans);
                let (made, ()) = tokio::join!(make(leader, &recalls.keys), back);
                // If they could not be made it is handed out again, until the lease is over.
                if made {
                    leases.acknowledge(session, &recalls);
                }
            }
            !recalls.keys.is_empty()
        }
        Err(error) => {
            tracing::debug!(%error, "poll for recalls");
            false
        }
    };
    if !brought && began.elapsed() < PAUSE {
        tokio::time::sleep(PAUSE).await;
    }
}

/// Has the files made that nobody else knows, if directories that were this mount's alone are
/// recalled. Returns whether all are.
async fn make(leader: &Weak<Leader>, keys: &[Key]) -> bool {
    if !keys.iter().any(|key| matches!(key, Key::Exclusive(_))) {
        return true;
    }
    match leader.upgrade() {
        Some(leader) => leader
            .make_orphans(Instant::now() + MAKE_TIME)
            .await
            .is_ok(),
        None => false,
    }
}
