use super::*;

fn put(bytes: &'static [u8]) -> Body {
    Body::from(Bytes::from_static(bytes))
}

#[tokio::test]
async fn a_lost_answer_leaves_the_object() {
    let store = MemoryStore::new();
    store.fault_next(Fault::LoseAnswer);
    let result = store
        .put("k", put(b"abc"), &ObjectMeta::default(), None)
        .await;
    assert!(result.unwrap_err().kind == ErrorKind::Transient);
    assert_eq!(store.get_range("k", 1, 2).await.unwrap(), "bc");
}

#[tokio::test]
async fn a_failed_put_leaves_nothing() {
    let store = MemoryStore::new();
    store.fault_next(Fault::Fail(ErrorKind::Transient));
    assert!(
        store
            .put("k", put(b"abc"), &ObjectMeta::default(), None)
            .await
            .is_err()
    );
    assert!(store.head("k").await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_corrupted_put_is_refused_by_its_checksum() {
    let store = MemoryStore::new();
    store.fault_next(Fault::Corrupt);
    let crc = Some(crc32fast::hash(b"abc"));
    let error = store
        .put("k", put(b"abc"), &ObjectMeta::default(), crc)
        .await
        .unwrap_err();
    assert_eq!(error.kind, ErrorKind::ChecksumMismatch);
    assert!(store.keys().is_empty());
}

#[tokio::test]
async fn lists_in_pages() {
    let store = MemoryStore::new();
    for key in ["a/1", "a/2", "a/3", "b/1"] {
        store
            .put(key, put(b"x"), &ObjectMeta::default(), None)
            .await
            .unwrap();
    }
    let first = store.list("a/", None, 2).await.unwrap();
    assert_eq!(
        first.iter().map(|o| o.key.as_str()).collect::<Vec<_>>(),
        ["a/1", "a/2"]
    );
    let rest = store.list("a/", Some("a/2"), 2).await.unwrap();
    assert_eq!(rest.len(), 1);
}
