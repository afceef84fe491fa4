use super::*;
use crate::kv::Write;
use crate::memory::MemoryStore;
use proptest::prelude::*;

/// The overlay gives the answers of a store that has the changes.
fn same_as_merged(base: &[u8], changes: &[(u8, bool)], range: (u8, Option<u8>), limit: usize) {
    let table = Table::Dentry;
    let mut store = MemoryStore::new();
    for key in base {
        store.put(table, &[*key], &[0]).unwrap();
    }
    let mut merged = store.clone();
    let mut txn = Txn::new(&store, Time::default()).unwrap();
    for &(key, put) in changes {
        if put {
            txn.put_bytes(table, &[key], vec![1]);
            merged.put(table, &[key], &[1]).unwrap();
        } else {
            txn.delete(table, &[key]);
            merged.delete(table, &[key]).unwrap();
        }
    }
    let start = [range.0];
    let end = range.1.map(|e| [e]);
    let end = end.as_ref().map(|e| &e[..]);
    assert_eq!(
        txn.scan(table, &start, end, limit).unwrap(),
        merged.scan(table, &start, end, limit).unwrap()
    );
    assert_eq!(
        txn.last(table, &start, end).unwrap(),
        merged.last(table, &start, end).unwrap()
    );
    assert_eq!(
        txn.get(table, &start).unwrap(),
        merged.get(table, &start).unwrap()
    );
}

proptest! {
    #[test]
    fn overlay_reads_like_the_merged_store(
        base in prop::collection::vec(0u8..32, 0..24),
        changes in prop::collection::vec((0u8..32, any::<bool>()), 0..24),
        start in 0u8..32,
        end in prop::option::of(0u8..34),
        limit in 0usize..20,
    ) {
        same_as_merged(&base, &changes, (start, end), limit);
    }
}

#[test]
fn nothing_changed_means_no_rows() {
    let store = MemoryStore::new();
    let txn = Txn::new(&store, Time::default()).unwrap();
    assert!(txn.finish().unwrap().is_empty());
}
