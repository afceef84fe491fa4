//! What /metrics of a server at rest must not show.

use crate::http;
use crate::record::Process;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// Gauges that go back to zero when nobody wants anything.
const GAUGES: [&str; 3] = [
    "lagan_net_in_flight_requests",
    "lagan_chunk_pinned_reads",
    "lagan_raft_pending_proposals",
];
/// Heartbeats come and go: each gauge has to be seen at zero once, within this.
const PATIENCE: Duration = Duration::from_secs(30);

/// Gauges of a server that never were at zero, with their last value.
pub fn stuck(server: &Process) -> Vec<String> {
    let Some(addr) = &server.http else {
        return Vec::new();
    };
    let began = Instant::now();
    let mut left: BTreeSet<&str> = GAUGES.into();
    let mut last = String::new();
    while !left.is_empty() && began.elapsed() < PATIENCE {
        if let Ok((200, text)) = http::get(addr, "/metrics") {
            left.retain(|name| value(&text, name) != Some(0.0));
            last = text;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    left.iter()
        .map(|name| format!("{}: {name} {:?}", server.name, value(&last, name)))
        .collect()
}

fn value(text: &str, name: &str) -> Option<f64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(n, _)| *n == name)?.1.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_is_that_of_the_name_alone() {
        let text = "# HELP a x\n# TYPE a gauge\na_b 3\na 0\n";
        assert_eq!(value(text, "a"), Some(0.0));
        assert_eq!(value(text, "a_b"), Some(3.0));
        assert_eq!(value(text, "b"), None);
    }
}
