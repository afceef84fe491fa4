//! Gauges that must be at rest in /metrics of a server that has nothing to do.

use crate::http;
use crate::record::Process;
use std::time::{Duration, Instant};

/// Gauges that go back to what is shown here when nobody wants anything. The leader
/// holds one request of each server, three as a rule, until there is something to upload.
const GAUGES: [(&str, f64); 3] = [
    ("lagan_net_in_flight_requests", 4.0),
    ("lagan_chunk_pinned_reads", 0.0),
    ("lagan_raft_pending_proposals", 0.0),
];
/// Heartbeats come and go: each gauge has to be seen at rest once, within this.
const PATIENCE: Duration = Duration::from_secs(30);

/// Gauges of a server that never were at rest, with their last value.
pub fn stuck(server: &Process) -> Vec<String> {
    let Some(addr) = &server.http else {
        return Vec::new();
    };
    let began = Instant::now();
    let mut left = GAUGES.to_vec();
    let mut last = String::new();
    while !left.is_empty() && began.elapsed() < PATIENCE {
        if let Ok((200, text)) = http::get(addr, "/metrics") {
            left.retain(|(name, rest)| value(&text, name).is_none_or(|now| now > *rest));
            last = text;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    left.iter()
        .map(|(name, _)| format!("{}: {name} {:?}", server.name, value(&last, name)))
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
