//! Claims of a prefix, on a store in memory.

use bytes::Bytes;
use lagan_object::{
    Body, ErrorKind, ObjectMeta, ObjectStore, Owner, OwnerError, claim_owner, owner_key, read_owner,
};
use lagan_testing::memory::{Fault, MemoryStore};
use lagan_types::{ClusterId, Incarnation};

fn owner(n: u128) -> Owner {
    Owner::new(Incarnation(n), ClusterId(1))
}

#[tokio::test]
async fn a_free_prefix_is_claimed_once_and_again() {
    let store = MemoryStore::new();
    assert_eq!(read_owner(&store, "p").await, Ok(None));
    claim_owner(&store, "p", owner(7)).await.unwrap();
    claim_owner(&store, "/p/", owner(7)).await.unwrap();
    assert_eq!(read_owner(&store, "p").await, Ok(Some(owner(7))));
    assert_eq!(store.keys(), ["p/.lagan-owner"]);
}

#[tokio::test]
async fn a_prefix_of_another_incarnation_is_refused() {
    let store = MemoryStore::new();
    claim_owner(&store, "p", owner(7)).await.unwrap();
    let refused = claim_owner(&store, "p", owner(8)).await;
    assert_eq!(refused, Err(OwnerError::Other(Incarnation(7))));
    claim_owner(&store, "q", owner(8)).await.unwrap();
}

#[tokio::test]
async fn a_prefix_with_unknown_objects_is_refused() {
    let store = MemoryStore::new();
    let body = Body::from(Bytes::from_static(b"x"));
    store
        .put("p/photo.jpg", body, &ObjectMeta::default(), None)
        .await
        .unwrap();
    let refused = claim_owner(&store, "p", owner(7)).await;
    assert_eq!(refused, Err(OwnerError::NotEmpty("p/photo.jpg".into())));
    claim_owner(&store, "p2", owner(7)).await.unwrap();
}

#[tokio::test]
async fn garbage_is_not_taken_for_an_owner() {
    let store = MemoryStore::new();
    for garbage in [
        &b"{}"[..],
        b"",
        b"\xff\xfe",
        b"{\"lagan_owner\":9,\"incarnation\":\"7\",\"cluster\":\"1\"}",
    ] {
        let body = Body::from(Bytes::from_static(garbage));
        store
            .put("p/.lagan-owner", body, &ObjectMeta::default(), None)
            .await
            .unwrap();
        let result = claim_owner(&store, "p", owner(7)).await;
        assert!(
            matches!(result, Err(OwnerError::Malformed { .. })),
            "{result:?}"
        );
    }
}

#[tokio::test]
async fn an_unreachable_store_is_not_an_ownerless_one() {
    let store = MemoryStore::new();
    store.fault_next(Fault::Fail(ErrorKind::Transient));
    assert!(matches!(
        read_owner(&store, "p").await,
        Err(OwnerError::Store(_))
    ));
}

#[test]
fn an_empty_prefix_makes_no_empty_component() {
    assert_eq!(owner_key(""), ".lagan-owner");
    assert_eq!(owner_key("/a/b/"), "a/b/.lagan-owner");
}

#[tokio::test]
async fn golden_bytes_of_an_owner_object() {
    let golden = "{\"lagan_owner\":1,\
        \"incarnation\":\"00000000000000000000000000000007\",\
        \"cluster\":\"00000000000000000000000000000001\"}";
    let store = MemoryStore::new();
    claim_owner(&store, "p", owner(7)).await.unwrap();
    let len = golden.len() as u64;
    assert_eq!(store.head("p/.lagan-owner").await.unwrap().len, len);
    let bytes = store.get_range("p/.lagan-owner", 0, len).await.unwrap();
    assert_eq!(bytes, golden);
}
