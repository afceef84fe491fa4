//! Endpoints that verify what they receive, and such that do not.

use lagan_object::probe_wrong_checksum;
use lagan_testing::memory::MemoryStore;

#[tokio::test]
async fn tells_careful_from_careless_endpoints() {
    let store = MemoryStore::new();
    assert!(probe_wrong_checksum(&store, "p").await.unwrap());
    store.accept_wrong_checksums(true);
    assert!(!probe_wrong_checksum(&store, "p").await.unwrap());
    assert!(store.keys().is_empty());
}
