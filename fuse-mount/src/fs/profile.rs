//! What the kernel's requests cost this mount, for `lagan profile`: read as an extended attribute
//! of the root.

use super::lent;
use lagan_client::Client;
use lagan_client::spent::{Spent, others};
use lagan_types::{FsError, Ino};
use parking_lot::RwLock;
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// The attribute of the mount's root.
const NAME: &[u8] = b"user.lagan.profile";

/// The requests of one kind.
#[derive(Debug, Default)]
pub(super) struct Tally {
    count: AtomicU64,
    us: AtomicU64,
    pub spent: Arc<Spent>,
}

/// All requests so far.
#[derive(Debug)]
pub(crate) struct Profile {
    began: Instant,
    calls: RwLock<HashMap<&'static str, Arc<Tally>>>,
}

/// A request that is counted when it is answered.
pub(super) struct Meter {
    tally: Arc<Tally>,
    began: Instant,
}

impl Meter {
    /// Counts the request, which is about to be answered.
    pub fn stop(&self) {
        let us = self.began.elapsed().as_micros();
        self.tally.count.fetch_add(1, Ordering::Relaxed);
        let us = u64::try_from(us).unwrap_or(u64::MAX);
        self.tally.us.fetch_add(us, Ordering::Relaxed);
    }

    /// What the requests of its kind have spent.
    pub fn spent(&self) -> Arc<Spent> {
        self.tally.spent.clone()
    }
}

#[derive(Debug, Serialize)]
struct Shown {
    schema: u32,
    /// Seconds since the mount was made.
    seconds: f64,
    kernel: Kernel,
    calls: BTreeMap<&'static str, Calls>,
    /// Requests of tasks, of the mount and of calls.
    others: Others,
}

#[derive(Debug, Serialize)]
struct Kernel {
    /// What uname(1) says.
    release: String,
    /// Whether attributes are lent to it with answers to look-ups.
    loans_by_name: bool,
}

#[derive(Debug, Serialize)]
struct Calls {
    count: u64,
    /// Time until they were answered, all together, microseconds.
    us: u64,
    /// Requests to servers.
    requests: u64,
    /// Bytes of these and of their answers.
    bytes: u64,
}

#[derive(Debug, Serialize)]
struct Others {
    requests: u64,
    bytes: u64,
}

impl Profile {
    /// Counts from now on.
    pub fn new() -> Self {
        Profile {
            began: Instant::now(),
            calls: RwLock::default(),
        }
    }

    /// Begins a request of that kind.
    pub(super) fn begin(&self, op: &'static str) -> Meter {
        let known = self.calls.read().get(op).cloned();
        let tally = known.unwrap_or_else(|| self.calls.write().entry(op).or_default().clone());
        let began = Instant::now();
        Meter { tally, began }
    }

    /// Returns all of it as JSON.
    fn json(&self) -> Vec<u8> {
        let calls = self.calls.read();
        let calls = calls.iter().map(|(op, tally)| {
            let calls = Calls {
                count: tally.count.load(Ordering::Relaxed),
                us: tally.us.load(Ordering::Relaxed),
                requests: tally.spent.requests(),
                bytes: tally.spent.bytes(),
            };
            (*op, calls)
        });
        let shown = Shown {
            schema: 1,
            seconds: self.began.elapsed().as_secs_f64(),
            kernel: Kernel {
                release: lent::release(),
                loans_by_name: lent::lends_names(),
            },
            calls: calls.collect(),
            others: Others {
                requests: others().requests(),
                bytes: others().bytes(),
            },
        };
        serde_json::to_vec(&shown).unwrap_or_default()
    }
}

/// Answers GETXATTR.
pub(super) async fn xattr(
    client: &Client,
    profile: &Profile,
    ino: Ino,
    name: &[u8],
) -> Result<Vec<u8>, FsError> {
    if ino == Ino::ROOT && name == NAME {
        return Ok(profile.json());
    }
    client.getxattr(ino, name).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_kind() {
        let profile = Profile::new();
        for op in ["open", "read", "read"] {
            profile.begin(op).stop();
        }
        let _unanswered = profile.begin("flush");
        let shown: serde_json::Value = serde_json::from_slice(&profile.json()).unwrap();
        assert_eq!(shown["schema"], 1);
        assert_eq!(shown["calls"]["read"]["count"], 2);
        assert_eq!(shown["calls"]["flush"]["count"], 0);
        assert_eq!(shown["calls"]["open"]["requests"], 0);
        assert!(
            shown["kernel"]["release"]
                .as_str()
                .is_some_and(|r| !r.is_empty())
        );
    }
}
