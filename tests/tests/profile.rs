//! `lagan profile` shows what calls on a mount cost it.

use crate::shorthands::{s, text};
use lagan_tests::cluster::Cluster;
use lagan_tests::options::Options;
use lagan_tests::wait::until;
use lagan_tests::with_cluster;
use serde_json::Value;
use std::fs;

/// Everything since the mount was made.
fn profile(cluster: &Cluster) -> Value {
    let mount = cluster.a();
    let done = cluster.lagan(&["--json", "profile", text(&mount), "--seconds", "0"]);
    done.expect(0).json()
}

fn figure(profile: &Value, call: &str, of: &str) -> u64 {
    profile["calls"][call][of].as_u64().unwrap_or(0)
}

#[test]
fn profile_counts_calls_and_their_requests() {
    with_cluster(Options::default(), s(120), |cluster| {
        let dir = cluster.a().join("d");
        fs::create_dir(&dir).expect("a call on a mount");
        let before = profile(cluster);
        for n in 0..20 {
            fs::write(dir.join(format!("f{n}")), b"some bytes").expect("a call on a mount");
        }
        let after = profile(cluster);
        let grew = |call: &str, of: &str| figure(&after, call, of) - figure(&before, call, of);
        assert_eq!(grew("create", "count"), 20);
        assert_eq!(grew("write", "count"), 20);
        assert!(grew("flush", "count") >= 20);
        // The directory is the mount's own: it makes the file, and commits it with its bytes.
        assert!(grew("create", "requests") < 20, "{after}");
        assert!(grew("flush", "requests") >= 20, "{after}");
        assert!(grew("flush", "bytes") >= 20 * 10, "{after}");
        assert_eq!(grew("write", "requests"), 0);
        assert!(grew("flush", "us") > 0);
        assert!(after["kernel"]["release"].is_string(), "{after}");

        // What is remembered costs nothing; a machine that stalls lets the lease run out.
        until("looks cost nothing", s(60), || {
            let before = profile(cluster);
            for _ in 0..50 {
                fs::metadata(dir.join("f1")).expect("a call on a mount");
            }
            let after = profile(cluster);
            let asked =
                |p: &Value| figure(p, "lookup", "requests") + figure(p, "getattr", "requests");
            (asked(&after) == asked(&before)).then_some(())
        });
    });
}

#[test]
fn profile_watches_for_a_while_and_refuses_other_paths() {
    with_cluster(Options::default(), s(120), |cluster| {
        let mount = cluster.a();
        let shown = cluster.lagan(&["profile", text(&mount), "--seconds", "1"]);
        let shown = shown.expect(0).out;
        assert!(
            shown.lines().count() >= 3 && shown.contains("getxattr"),
            "{shown}"
        );
        let dir = mount.join("d");
        fs::create_dir(&dir).expect("a call on a mount");
        for path in [text(&dir), "/proc"] {
            let refused = cluster
                .lagan(&["profile", path, "--seconds", "1"])
                .expect(2);
            assert!(
                refused.lines() == 1 && refused.err.contains("mount point"),
                "{refused}"
            );
        }
        let refused = cluster.lagan(&["profile", "/nonexistent"]).expect(1);
        assert!(
            refused.lines() == 1 && refused.err.contains("/nonexistent"),
            "{refused}"
        );
    });
}
