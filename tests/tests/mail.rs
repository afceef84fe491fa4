//! The main job: mail written on one machine, read on another, archived,
//! released, and read again.

use crate::shorthands::attribute;
use lagan_tests::cluster::{Cluster, PATIENCE};
use lagan_tests::command::must;
use lagan_tests::manifest::files;
use lagan_tests::run::LONG;
use lagan_tests::{Manifest, Options, corpus, sized, with_cluster};
use std::path::Path;

#[test]
fn mail_survives_archive_release_and_restart_of_everything() {
    let options = Options::default();
    with_cluster(options, LONG, |cluster| {
        let local = cluster.root().join("corpus");
        let manifest = corpus::make(&local, sized(2000, 20_000), 1).expect("make mail");
        let (source, target) = (local.to_str().unwrap(), cluster.a());
        must("cp", &["-r", source, target.to_str().unwrap()], LONG);
        let (a, b) = (cluster.a().join("corpus"), cluster.b().join("corpus"));
        manifest.check(&b);
        cluster.wait_healthy();
        cluster.check();

        archive_and_release(cluster, &a, &b, &manifest);
        restart_everything(cluster);
        manifest.check(&b);
        cluster.wait_healthy();
        cluster.check();
    });
}

fn archive_and_release(cluster: &Cluster, a: &Path, b: &Path, manifest: &Manifest) {
    cluster.lagan_on(&["archive", "now"], a);
    expect_state(b, &["archived"]);
    manifest.check(b);
    cluster.check();

    cluster.lagan_on(&["release"], a);
    expect_state(a, &["released"]);
    manifest.check(b);
    cluster.check();

    cluster.lagan_on(&["recall"], b);
    manifest.check(a);
}

#[track_caller]
fn expect_state(top: &Path, states: &[&str]) {
    for path in files(top).expect("list the corpus") {
        let state = attribute(&path, "state");
        assert!(
            states.contains(&state.as_str()),
            "{}: {state}",
            path.display()
        );
    }
}

/// Every process is killed, and started again by its line in `cluster.json`.
fn restart_everything(cluster: &Cluster) {
    let processes = cluster.record().processes;
    for process in &processes {
        cluster.kill(&process.name);
    }
    for role in ["s3", "server", "mount"] {
        let of_role = || processes.iter().filter(|p| p.role == role);
        for process in of_role() {
            cluster.launch(&process.name);
        }
        of_role().for_each(|p| cluster.wait_ready(&p.name));
    }
}

#[test]
fn mail_is_archived_by_itself_when_it_is_due() {
    let options = Options {
        archive_after: "2s".into(),
        ..Options::default()
    };
    with_cluster(options, LONG, |cluster| {
        let manifest = corpus::make(&cluster.a().join("due"), 100, 2).expect("make mail");
        let top = cluster.b().join("due");
        lagan_tests::wait::until("all is archived", 2 * PATIENCE, || {
            let all = files(&top).expect("list the mail");
            all.iter()
                .all(|p| attribute(p, "state") == "archived")
                .then_some(())
        });
        manifest.check(&top);
        let json = cluster.status_when("nothing waits", |status, json| {
            status == 0 && json["archive"]["waiting"] == 0
        });
        assert_eq!(json["s3"]["state"], "ok", "{json}");
        let path = files(&top).expect("list the mail").remove(0);
        let object = attribute(&path, "object");
        assert!(object.starts_with("lagan/"), "bucket/key, not {object}");
        assert!(stored(
            &cluster.dir().join("s3"),
            &std::fs::read(&path).unwrap()
        ));
    });
}

/// Whether one of the files of the S3 server begins with these bytes; a record
/// of the object follows them.
fn stored(data: &Path, bytes: &[u8]) -> bool {
    let all = files(data).expect("list the objects");
    all.iter()
        .any(|path| std::fs::read(path).is_ok_and(|found| found.starts_with(bytes)))
}
