use crate::bench::{Bench, Pattern};
use bytes::Bytes;
use lagan_object::{Body, ErrorKind, ObjectMeta, ObjectStore};
use std::sync::Arc;

const KEY: &str = "k";

fn small() -> Body {
    Body::from(Bytes::from_static(b"hello"))
}

fn crc() -> Option<u32> {
    Some(crc32fast::hash(b"hello"))
}

#[tokio::test]
async fn troubles_of_the_endpoint_are_transient() {
    let bench = Bench::start().await;
    bench
        .store()
        .await
        .put(KEY, small(), &ObjectMeta::default(), crc())
        .await
        .unwrap();
    let store = bench.impatient().await;
    for fault in [
        "status 500",
        "status 503",
        "slow-down",
        "hang",
        "lose",
        "status 429",
    ] {
        bench.fault(fault);
        let put = store
            .put(KEY, small(), &ObjectMeta::default(), crc())
            .await
            .unwrap_err();
        assert!(put.kind == ErrorKind::Transient, "{fault}: {put}");
        let get = store.get_range(KEY, 0, 5).await.unwrap_err();
        assert!(get.kind == ErrorKind::Transient, "{fault}: {get}");
        let delete = store.delete(&["absent".into()]).await.unwrap_err();
        assert!(delete.kind == ErrorKind::Transient, "{fault}: {delete}");
    }
    let store = bench.once().await;
    bench.fault("status 403");
    assert!(store.get_range(KEY, 0, 5).await.unwrap_err().is_permanent());
    bench.fault("pass");
    assert_eq!(store.get_range(KEY, 0, 5).await.unwrap(), "hello");
}

#[tokio::test]
async fn a_closed_port_is_transient_and_may_open_again() {
    let bench = Bench::start().await;
    bench
        .store()
        .await
        .put(KEY, small(), &ObjectMeta::default(), crc())
        .await
        .unwrap();
    let store = bench.impatient().await;
    bench.fault("refuse");
    let error = store.get_range(KEY, 0, 5).await.unwrap_err();
    assert!(error.kind == ErrorKind::Transient, "{error}");
    bench.fault("pass");
    for _ in 0..100 {
        if store.get_range(KEY, 0, 5).await.is_ok_and(|b| b == "hello") {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("the endpoint did not come back");
}

#[tokio::test]
async fn a_cut_answer_is_never_short_data() {
    let bench = Bench::start().await;
    let data = Pattern::bytes(0, 3 << 20);
    let direct = bench.store().await;
    direct
        .put(KEY, Body::from(data), &ObjectMeta::default(), None)
        .await
        .unwrap();
    let store = bench.impatient().await;
    bench.fault("cut 1000000 method=GET");
    let error = store.get_range(KEY, 0, 3 << 20).await.unwrap_err();
    assert!(error.kind == ErrorKind::Transient, "{error}");
}

#[tokio::test]
async fn a_range_past_the_end_is_an_error() {
    let bench = Bench::start().await;
    let store = bench.store().await;
    store
        .put(KEY, small(), &ObjectMeta::default(), crc())
        .await
        .unwrap();
    assert!(store.get_range(KEY, 3, 5).await.unwrap_err().kind == ErrorKind::Transient);
    assert!(store.get_range(KEY, 5, 1).await.unwrap_err().kind == ErrorKind::Transient);
    assert_eq!(
        store.get_range(KEY, 0, 0).await.unwrap_err().kind,
        ErrorKind::Source
    );
    assert_eq!(
        store.get_range(KEY, u64::MAX, 2).await.unwrap_err().kind,
        ErrorKind::Source
    );
}

#[tokio::test]
async fn bytes_corrupted_on_the_way_up_are_not_stored() {
    let bench = Bench::start().await;
    let store = bench.once().await;
    bench.fault("corrupt-upload 2 method=PUT");
    let error = store
        .put(KEY, small(), &ObjectMeta::default(), crc())
        .await
        .unwrap_err();
    assert_ne!(error.kind, ErrorKind::NotFound, "{error}");
    let streamed = Body::from_source(
        2 << 20,
        Arc::new(Pattern {
            broken_from: u64::MAX,
        }),
    );
    let crc = Some(Pattern::crc32(2 << 20));
    let error = store
        .put("s", streamed, &ObjectMeta::default(), crc)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::ChecksumMismatch, "{error}");
    bench.fault("pass");
    assert!(store.list("", None, 9).await.unwrap().is_empty());
}

#[tokio::test]
async fn a_patient_client_survives_single_failures() {
    let bench = Bench::start().await;
    let mut config = bench.config();
    config.endpoint = bench.proxy_url();
    let store = lagan_object::S3Store::open(&config).await.unwrap();
    bench.fault("status 503 every=2");
    for i in 0..4 {
        let key = format!("k{i}");
        let body = Body::from_source(
            1000,
            Arc::new(Pattern {
                broken_from: u64::MAX,
            }),
        );
        let crc = Some(Pattern::crc32(1000));
        store
            .put(&key, body, &ObjectMeta::default(), crc)
            .await
            .unwrap();
        assert_eq!(
            store.get_range(&key, 0, 1000).await.unwrap(),
            Pattern::bytes(0, 1000)
        );
    }
}
