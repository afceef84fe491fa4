//! What a mount does every second: says that it lives, answers which orphans
//! it has open, learns of a new cluster map, and commits what waits for long.

use crate::Client;
use lagan_types::Ino;
use lagan_types::message::{MetaReply, MetaRequest};
use std::sync::Weak;
use std::time::Duration;
use tokio::time::{Instant, MissedTickBehavior};

/// Between heartbeats; the leader ends a session after 30 s without.
const EVERY: Duration = Duration::from_secs(1);
/// One heartbeat's patience: through a change of leader.
const DEADLINE: Duration = Duration::from_secs(5);

/// For the servers' names, when none of the known addresses answers.
const LOOK_DEADLINE: Duration = Duration::from_secs(2);

/// Heartbeats in a row until the new leader knows that nothing is promised.
const SETTLE_BEATS: u32 = 20;
const SETTLE_PAUSE: Duration = Duration::from_millis(50);
/// A check is answered so soon after it came.
const ANSWER_AFTER: Duration = Duration::from_millis(10);

/// A check of what is open that is to be answered.
#[derive(Debug, Default, PartialEq, Eq)]
struct Check {
    number: u64,
    orphans: Vec<Ino>,
    /// Creates that began before it arrived end with this one.
    creates: u64,
}

/// Runs until the client is gone or shut down.
pub(crate) async fn run(client: Weak<Client>) {
    let mut tick = tokio::time::interval(EVERY);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut check = Check::default();
    loop {
        let Some(cancel) = client.upgrade().map(|c| c.cancel.clone()) else {
            return;
        };
        tokio::select! {
            _ = cancel.cancelled() => return,
            _ = tick.tick() => {}
        }
        let Some(client) = client.upgrade() else {
            return;
        };
        client.flush_old();
        tokio::select! {
            _ = cancel.cancelled() => return,
            asked = beats(&client, &mut check) => {
                // somebody waits for the answer
                if asked {
                    tick.reset_after(ANSWER_AFTER);
                }
            }
        }
    }
}

/// One heartbeat, and others soon after it while a new leader waits for what
/// the one before had promised. Returns whether a new check came.
async fn beats(client: &Client, check: &mut Check) -> bool {
    let mut asked = false;
    for _ in 0..SETTLE_BEATS {
        let (said, left) = client.reserved.learn_term(0);
        asked |= beat(client, check, said, left).await;
        if client.reserved.learn_term(0).0 == said && left == 0 {
            break;
        }
        if left > 0 {
            tokio::time::sleep(SETTLE_PAUSE).await;
        }
    }
    asked
}

/// Whether a new check came.
async fn beat(client: &Client, check: &mut Check, term: u64, reserved: u32) -> bool {
    let until = Instant::now() + DEADLINE;
    let session = client.session();
    let (number, open) = answer(client, check);
    let request = MetaRequest::SessionHeartbeat {
        session,
        check: number,
        open,
        map_version: client.cluster.version(),
        term,
        reserved,
    };
    match client.link.meta(&request, until).await {
        Ok(MetaReply::Heartbeat { alive: false, .. }) => {
            if let Err(error) = client.renew(session, until).await {
                tracing::warn!(%error, %session, "open a new session");
            }
            false
        }
        Ok(MetaReply::Heartbeat {
            map_version,
            check: number,
            orphans,
            term,
            ..
        }) => {
            client.reserved.learn_term(term);
            let new = number != check.number;
            if new {
                *check = Check {
                    number,
                    orphans,
                    creates: client.creates.last(),
                };
            }
            if map_version > client.cluster.version()
                && let Err(error) = client.refresh_map(until).await
            {
                tracing::debug!(%error, "fetch the cluster map");
            }
            new && number != 0
        }
        Ok(reply) => {
            tracing::warn!(?reply, "unexpected answer to a heartbeat");
            false
        }
        Err(error) => {
            tracing::debug!(%error, "no answer to a heartbeat");
            // They may all be elsewhere now, under their names.
            let looks = client.link.look_again(&client.options.servers);
            let _ = tokio::time::timeout(LOOK_DEADLINE, looks).await;
            false
        }
    }
}

/// What to say of the last check: nothing while a create is under way that
/// began before it and may have opened one of the inodes.
fn answer(client: &Client, check: &Check) -> (u64, Vec<Ino>) {
    if check.number == 0 || !client.creates.ended(check.creates) {
        return (0, Vec::new());
    }
    let open = check
        .orphans
        .iter()
        .copied()
        .filter(|&ino| client.files.is_open(ino))
        .collect();
    (check.number, open)
}
