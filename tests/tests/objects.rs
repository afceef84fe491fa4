//! `lagan check --objects`: what S3 has against what the metadata names.

use crate::shorthands::attribute;
use lagan_tests::cluster::{Cluster, PATIENCE};
use lagan_tests::command::Done;
use lagan_tests::run::LONG;
use lagan_tests::wait::until;
use lagan_tests::{Options, manifest, with_cluster};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// The key of an archived file's object.
fn key(path: &Path) -> String {
    let object = attribute(path, "object");
    let (_, key) = object.split_once('/').expect("bucket/key");
    key.to_owned()
}

/// The embedded store's file of an object: its key is in the record behind its bytes.
fn stored(data: &Path, key: &str) -> PathBuf {
    let all = manifest::files(data).expect("list the store");
    let holds = |bytes: &[u8]| position(bytes, key).is_some();
    let found = all
        .into_iter()
        .find(|path| fs::read(path).is_ok_and(|bytes| holds(&bytes)));
    found.unwrap_or_else(|| panic!("{key} is not in the store"))
}

fn position(bytes: &[u8], key: &str) -> Option<usize> {
    bytes.windows(key.len()).position(|w| w == key.as_bytes())
}

/// The report, once it and the exit status say what they must.
fn check_until(cluster: &Cluster, what: &str, is: impl Fn(i32, &Value) -> bool) -> Value {
    until(what, PATIENCE, || {
        let done = cluster.lagan(&["check", "--objects", "--json"]);
        let json = serde_json::from_str(&done.out).ok()?;
        is(done.status.unwrap_or(-1), &json).then_some(json)
    })
}

/// What `lagan check` says for people, once no server is taken for down.
fn checked(cluster: &Cluster, args: &[&str]) -> Done {
    until("check has seen everything", PATIENCE, || {
        let done = cluster.lagan(args);
        (done.status == Some(0)).then_some(done)
    })
}

/// Kind, inode and key of each finding, in order.
fn findings(json: &Value) -> Vec<(String, u64, String)> {
    let all = json["findings"].as_array().expect("a list of findings");
    let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
    let mut found: Vec<_> = all
        .iter()
        .map(|f| {
            let ino = f["ino"].as_u64().unwrap_or_default();
            (text(&f["kind"]), ino, text(&f["object"]))
        })
        .collect();
    found.sort();
    found
}

#[test]
fn objects_and_the_metadata_are_compared_both_ways() {
    let why = "objects are taken away and brought in";
    let options = Options {
        mounts: 1,
        ..Options::default()
    };
    with_cluster(options.with_faults(why), LONG, |cluster| {
        let a = cluster.a();
        let names = ["kept", "local", "released", "unlinked"];
        for name in names {
            fs::write(a.join(name), format!("content of {name}")).expect("write");
        }
        cluster.lagan_on(&["archive", "now"], &a);
        cluster.lagan_on(&["release"], &a.join("released"));
        let done = checked(cluster, &["check"]);
        assert!(
            done.out.ends_with("not looked at (--objects does)\n"),
            "{done}"
        );
        let done = checked(cluster, &["check", "--objects"]);
        let said = done.out.contains("\n4 objects checked, 4 listed\n");
        assert!(said && done.out.ends_with("\nclean\n"), "{done}");

        let keys = names.map(|name| key(&a.join(name)));
        fs::remove_file(a.join("unlinked")).expect("unlink");
        check_until(
            cluster,
            "an object waits for its deletion",
            |status, json| status == 0 && json["clean"] == true && json["pending_objects"] == 1,
        );
        take_and_bring(cluster, &keys);

        let json = check_until(cluster, "both ways are seen", |status, json| {
            status == 1 && json["finding_count"] == 3
        });
        let ino = |name: &str| {
            use std::os::unix::fs::MetadataExt;
            fs::metadata(a.join(name)).expect("stat").ino()
        };
        let gone = |name: &str, key: &String| ("object".to_owned(), ino(name), key.clone());
        let mut wanted = vec![
            gone("local", &keys[1]),
            gone("released", &keys[2]),
            ("stray".to_owned(), 0, other(&keys[0])),
        ];
        wanted.sort();
        assert_eq!(findings(&json), wanted, "{json}");
    });
}

/// A key of the same length that nothing names.
fn other(key: &str) -> String {
    key.replace("/kept", "/tpek")
}

/// Two objects go, and one comes, behind the store's back.
fn take_and_bring(cluster: &Cluster, keys: &[String; 4]) {
    let data = cluster.process("s3").data;
    cluster.kill("s3");
    fs::remove_file(stored(&data, &keys[1])).expect("take an object away");
    fs::remove_file(stored(&data, &keys[2])).expect("take an object away");
    let kept = stored(&data, &keys[0]);
    let mut bytes = fs::read(&kept).expect("read an object");
    let at = position(&bytes, &keys[0]).expect("it has its key");
    bytes.splice(at..at + keys[0].len(), other(&keys[0]).into_bytes());
    let bucket = kept.parent().and_then(Path::parent).expect("its bucket");
    // the last two digits of the number are the folder
    fs::create_dir_all(bucket.join("00")).expect("make a folder");
    fs::write(bucket.join("00/000000000000f000"), bytes).expect("bring an object");
    cluster.start("s3");
}
