//! Heartbeats: a mount says that it lives, renews its lease while it uses it, answers which
//! orphans it has open, and learns of a new cluster map and of a new leader.

use crate::leader::Leader;
use lagan_lease::HEARTBEAT_MS;
use lagan_net::NetError;
use lagan_types::Ino;
use lagan_types::message::{SessionHeard, SessionHeartbeat};
use std::sync::Weak;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Time between heartbeats that renew the lease.
const EVERY: Duration = Duration::from_millis(HEARTBEAT_MS);
/// Time between the others; the leader ends a session after 30 s without.
const EVERY_IDLE: Duration = Duration::from_secs(1);
/// How long one heartbeat tries: through a change of leader.
const DEADLINE: Duration = Duration::from_secs(5);

/// How long the servers' names are looked up when no known address answers.
const LOOK_DEADLINE: Duration = Duration::from_secs(2);

/// Heartbeats in a row until the new leader knows that nothing is promised.
const SETTLE_BEATS: u32 = 20;
const SETTLE_PAUSE: Duration = Duration::from_millis(50);
/// Time between a check and its answer.
const ANSWER_AFTER: Duration = Duration::from_millis(10);

/// A check of what is open that is to be answered.
#[derive(Debug, Default, PartialEq, Eq)]
struct Check {
    number: u64,
    orphans: Vec<Ino>,
    /// The last create that began before the check arrived.
    creates: u64,
}

/// Sends heartbeats until the mount ends or is gone.
pub(super) async fn run(leader: Weak<Leader>, cancel: CancellationToken) {
    let mut check = Check::default();
    loop {
        let Some(leader) = leader.upgrade() else {
            return;
        };
        let began = Instant::now();
        let asked = tokio::select! {
            _ = cancel.cancelled() => return,
            asked = beats(&leader, &mut check) => asked,
        };
        let leases = leader.leases.clone();
        drop(leader);
        let next = match (asked, leases.is_active()) {
            // Somebody waits for the answer.
            (true, _) => Instant::now() + ANSWER_AFTER,
            (false, true) => began + EVERY,
            (false, false) => began + EVERY_IDLE,
        };
        tokio::select! {
            _ = cancel.cancelled() => return,
            _ = tokio::time::sleep_until(next) => {}
            () = leases.beat_wanted() => {}
        }
    }
}

/// Sends one heartbeat, and others soon after it while a new leader waits for what
/// the one before had promised. Returns whether a new check came.
async fn beats(leader: &Leader, check: &mut Check) -> bool {
    let mut asked = false;
    for _ in 0..SETTLE_BEATS {
        let (said, left) = learn_term(leader, 0);
        leader.kernel.settle(&leader.leases, said).await;
        asked |= beat(leader, check, said, left).await;
        if learn_term(leader, 0).0 == said && left == 0 {
            break;
        }
        if left > 0 {
            tokio::time::sleep(SETTLE_PAUSE).await;
        }
    }
    asked
}

/// Learns a leader's term. Returns the newest one that is known, in which nothing is leased of
/// an earlier one, and how many promises of earlier ones are left.
fn learn_term(leader: &Leader, term: u64) -> (u64, u32) {
    let (newest, _) = leader.promises.learn_term(term);
    let newest = leader.leases.learn_term(newest);
    leader.promises.learn_term(newest)
}

/// Sends one heartbeat. Returns whether a new check came.
async fn beat(leader: &Leader, check: &mut Check, term: u64, promised: u32) -> bool {
    let until = Instant::now() + DEADLINE;
    let session = leader.session();
    let (number, open) = answer(leader, check);
    let renewal = leader.leases.beat().filter(|beat| beat.session == session);
    let request = SessionHeartbeat {
        session,
        check: number,
        open,
        term,
        promised,
        renews: renewal.is_some(),
    };
    match leader.link.ask(request, until).await {
        Ok(SessionHeard { alive: false, .. }) => {
            if let Err(error) = leader.renew(session, until).await {
                tracing::warn!(%error, %session, "open a new session");
            }
            false
        }
        Ok(heard) => {
            leader.leases.beat_answered(renewal, &heard);
            learn_term(leader, heard.term);
            let new = heard.check != check.number;
            if new {
                *check = Check {
                    number: heard.check,
                    orphans: heard.orphans,
                    creates: leader.creates.last(),
                };
            }
            if heard.map_version > leader.cluster.version()
                && let Err(error) = leader.refresh_map(until).await
            {
                tracing::debug!(%error, "fetch the cluster map");
            }
            new && heard.check != 0
        }
        Err(error @ (NetError::Declined(_) | NetError::Protocol(_))) => {
            tracing::warn!(%error, "heartbeat");
            false
        }
        Err(error) => {
            tracing::debug!(%error, "no answer to a heartbeat");
            // They may all be elsewhere now, under their names.
            let looks = leader.link.look_again(&leader.options.servers);
            let _ = tokio::time::timeout(LOOK_DEADLINE, looks).await;
            false
        }
    }
}

/// Answers the last check; says nothing while a create is under way that began
/// before the check and may have opened one of the inodes.
fn answer(leader: &Leader, check: &Check) -> (u64, Vec<Ino>) {
    if check.number == 0 || !leader.creates.ended(check.creates) {
        return (0, Vec::new());
    }
    let Some(files) = leader.files.upgrade() else {
        return (check.number, Vec::new());
    };
    let open = check
        .orphans
        .iter()
        .copied()
        .filter(|&ino| files.is_open(ino))
        .collect();
    (check.number, open)
}
