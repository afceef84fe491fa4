use crate::bench::{Bench, Pattern};
use bytes::Bytes;
use lagan_object::{
    Body, Checksum, ErrorKind, ObjectMeta, ObjectStore, Owner, OwnerError, S3Store, claim_owner,
    probe_wrong_checksum, read_owner,
};
use lagan_types::{ClusterId, Incarnation};
use std::collections::BTreeMap;
use std::sync::Arc;

fn body(bytes: &'static [u8]) -> Body {
    Body::from(Bytes::from_static(bytes))
}

fn source(len: u64, broken_from: u64) -> Body {
    Body::from_source(len, Arc::new(Pattern { broken_from }))
}

#[tokio::test]
async fn an_object_comes_back_with_its_metadata() {
    let bench = Bench::start().await;
    let store = bench.store().await;
    let long_name = format!("{}ü&?=+ #.eml", "n".repeat(600));
    let meta = ObjectMeta {
        content_type: Some("message/rfc822".into()),
        file_name: Some("Grüße.eml".into()),
        user: BTreeMap::from([("path".to_string(), "a%2Fb".to_string())]),
    };
    for key in ["p/1/mail.eml", long_name.as_str()] {
        let crc = Some(crc32fast::hash(b"hello"));
        store.put(key, body(b"hello"), &meta, crc).await.unwrap();
        assert_eq!(store.get_range(key, 0, 5).await.unwrap(), "hello");
        assert_eq!(store.get_range(key, 1, 3).await.unwrap(), "ell");
        let info = store.head(key).await.unwrap();
        assert_eq!((info.len, info.crc32), (5, crc));
        assert_eq!(info.user.get("path").map(String::as_str), Some("a%2Fb"));
    }
}

#[tokio::test]
async fn empty_objects_and_unknown_checksums_work() {
    let bench = Bench::start().await;
    let store = bench.store().await;
    store
        .put("empty", body(b""), &ObjectMeta::default(), Some(0))
        .await
        .unwrap();
    assert_eq!(store.head("empty").await.unwrap().len, 0);
    store
        .put("plain", body(b"abc"), &ObjectMeta::default(), None)
        .await
        .unwrap();
    let known = store.head("plain").await.unwrap().crc32;
    assert!(known.is_none_or(|crc| crc == crc32fast::hash(b"abc")));
    let streamed = source(3 << 20, u64::MAX);
    store
        .put("streamed", streamed, &ObjectMeta::default(), None)
        .await
        .unwrap();
    let got = store
        .get_range("streamed", (2 << 20) - 5, 10)
        .await
        .unwrap();
    assert_eq!(got, Pattern::bytes((2 << 20) - 5, 10));
}

#[tokio::test]
async fn a_large_object_goes_up_in_parts() {
    let bench = Bench::start().await;
    let store = bench.store().await;
    let len = (65 << 20) + 7;
    let crc = Some(Pattern::crc32(len));
    store
        .put("large", source(len, u64::MAX), &ObjectMeta::default(), crc)
        .await
        .unwrap();
    let info = store.head("large").await.unwrap();
    assert_eq!((info.len, info.crc32), (len, crc));
    for (at, n) in [
        (0, 100),
        ((16 << 20) - 50, 100),
        (len - 7, 7),
        (5 << 20, 4 << 20),
    ] {
        assert_eq!(
            store.get_range("large", at, n).await.unwrap(),
            Pattern::bytes(at, n as usize)
        );
    }
    assert!(store.list_uploads("", 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_large_object_that_fails_leaves_nothing() {
    let bench = Bench::start().await;
    let store = bench.store().await;
    let len = 65 << 20;
    let meta = ObjectMeta::default();
    let error = store
        .put("large", source(len, 40 << 20), &meta, None)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::Source, "{error}");
    assert!(error.message.contains("bad sector"), "{error}");
    let error = store
        .put("large", source(len, u64::MAX), &meta, Some(1))
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::ChecksumMismatch, "{error}");
    assert!(store.head("large").await.unwrap_err().is_not_found());
    assert!(store.list_uploads("", 10).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_source_that_fails_is_not_the_endpoints_fault() {
    let bench = Bench::start().await;
    let store = bench.store().await;
    let put = store
        .put(
            "k",
            source(3 << 20, 2 << 20),
            &ObjectMeta::default(),
            Some(1),
        )
        .await;
    let error = put.unwrap_err();
    assert_eq!(error.kind, ErrorKind::Source, "{error}");
    assert!(store.head("k").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn deletes_may_be_repeated() {
    let bench = Bench::start().await;
    let store = bench.store().await;
    let keys: Vec<String> = (0..1100).map(|i| format!("d/{i:04}")).collect();
    for key in keys.iter().take(3) {
        store
            .put(key, body(b"x"), &ObjectMeta::default(), None)
            .await
            .unwrap();
    }
    store.delete(&keys).await.unwrap();
    store.delete(&keys[..1]).await.unwrap();
    store.delete(&[]).await.unwrap();
    assert!(store.list("d/", None, 10).await.unwrap().is_empty());
    assert!(
        store
            .get_range("d/0000", 0, 1)
            .await
            .unwrap_err()
            .is_not_found()
    );
}

#[tokio::test]
async fn listings_are_in_order_and_page() {
    let bench = Bench::start().await;
    let store = bench.store().await;
    for key in ["p/b", "p/a", "p/c/d", "q/a"] {
        store
            .put(key, body(b"xy"), &ObjectMeta::default(), None)
            .await
            .unwrap();
    }
    let keys = |listed: Vec<lagan_object::ListedObject>| {
        listed.into_iter().map(|o| o.key).collect::<Vec<_>>()
    };
    assert_eq!(
        keys(store.list("p/", None, 10).await.unwrap()),
        ["p/a", "p/b", "p/c/d"]
    );
    assert_eq!(
        keys(store.list("p/", None, 2).await.unwrap()),
        ["p/a", "p/b"]
    );
    assert_eq!(
        keys(store.list("p/", Some("p/b"), 2).await.unwrap()),
        ["p/c/d"]
    );
    assert_eq!(keys(store.list("", Some("p/x"), 9).await.unwrap()), ["q/a"]);
}

#[tokio::test]
async fn wrong_bytes_are_refused_by_their_checksum() {
    let bench = Bench::start().await;
    let store = bench.store().await;
    let put = store
        .put("k", body(b"hello"), &ObjectMeta::default(), Some(7))
        .await;
    assert_eq!(put.unwrap_err().kind, ErrorKind::ChecksumMismatch);
    assert!(store.head("k").await.unwrap_err().is_not_found());
    assert!(probe_wrong_checksum(&store, "p").await.unwrap());
}

#[tokio::test]
async fn every_checksum_mode_stores_objects() {
    let bench = Bench::start().await;
    for checksum in [Checksum::Crc32, Checksum::WhenRequired, Checksum::None] {
        let mut config = bench.config();
        config.checksum = checksum;
        let store = S3Store::open(&config).await.unwrap();
        let crc = Some(crc32fast::hash(b"abc"));
        store
            .put("k", body(b"abc"), &ObjectMeta::default(), crc)
            .await
            .unwrap();
        store
            .put(
                "l",
                source(66 << 20, u64::MAX),
                &ObjectMeta::default(),
                None,
            )
            .await
            .unwrap();
        assert_eq!(store.get_range("k", 0, 3).await.unwrap(), "abc");
        store.delete(&["k".into(), "l".into()]).await.unwrap();
        assert_eq!(store.list("", None, 1).await.unwrap(), []);
    }
}

#[tokio::test]
async fn refused_credentials_and_missing_buckets_are_permanent() {
    let bench = Bench::start().await;
    let mut config = bench.config();
    config.bucket = "absent".into();
    let store = S3Store::open(&config).await.unwrap();
    assert!(store.check_bucket().await.unwrap_err().is_permanent());
    let put = store
        .put("k", body(b"x"), &ObjectMeta::default(), None)
        .await;
    assert!(put.unwrap_err().is_permanent());

    let mut config = bench.config();
    config.credentials = lagan_object::Credentials::Static {
        access_key: "AK".into(),
        secret_key: lagan_object::Secret::new("wrong"),
        session_token: None,
    };
    let store = S3Store::open(&config).await.unwrap();
    let error = store
        .put("k", body(b"x"), &ObjectMeta::default(), None)
        .await
        .unwrap_err();
    assert!(error.is_permanent(), "{error}");
    assert!(!error.to_string().contains("wrong"));
    assert!(store.check_bucket().await.unwrap_err().is_permanent());
    bench.store().await.check_bucket().await.unwrap();
}

#[tokio::test]
async fn a_prefix_has_one_owner() {
    let bench = Bench::start().await;
    let store = bench.store().await;
    let owner = |n| Owner::new(Incarnation(n), ClusterId(9));
    assert_eq!(read_owner(&store, "lagan").await.unwrap(), None);
    claim_owner(&store, "lagan", owner(1)).await.unwrap();
    claim_owner(&store, "lagan", owner(1)).await.unwrap();
    let refused = claim_owner(&store, "lagan", owner(2)).await;
    assert_eq!(refused, Err(OwnerError::Other(Incarnation(1))));
}
