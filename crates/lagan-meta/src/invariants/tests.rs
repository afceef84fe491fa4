use super::check;
use crate::kv::{Read, Table, Write};
use crate::layout::key1;
use crate::tests::world::World;

#[test]
fn every_deleted_or_hostile_row_is_noticed_without_panic() {
    let mut w = World::new();
    let a = w.file("a");
    let d = w.dir(lagan_types::Ino::ROOT, "d");
    w.file("gone");
    w.unlink(lagan_types::Ino::ROOT, "gone").unwrap();
    w.write(a, 0, 100);
    w.write(a, 50, 10);
    w.dir(d, "e");
    let copy = w.file("copy");
    w.copy((a, 0), (copy, 7), 100).unwrap();
    w.check();
    // No other row depends on answers or on the map version.
    let alone = [
        Table::Answer,
        Table::Config,
        Table::Block,
        Table::Session,
        Table::Node,
    ];
    let rows: Vec<_> = w
        .store
        .rows()
        .filter(|(table, ..)| !alone.contains(table))
        .map(|(table, key, _)| (table, key.to_vec()))
        .collect();
    for (table, key) in rows {
        let mut broken = w.store.clone();
        broken.delete(table, &key).unwrap();
        // A set that no extent uses may go.
        let may_go = table == Table::Set && w.store.get(Table::SetUse, &key).unwrap().is_none();
        assert!(
            may_go || !check(&broken).is_empty(),
            "{table:?} {key:?} deleted"
        );
        broken.put(table, &key, &[9, 9]).unwrap();
        let marks = matches!(
            table,
            Table::Due | Table::Orphan | Table::Cookie | Table::Shared
        );
        assert!(
            marks || !check(&broken).is_empty(),
            "{table:?} {key:?} hostile"
        );
    }
}

#[test]
fn wrong_link_count_is_noticed() {
    let mut w = World::new();
    let a = w.file("a");
    let key = key1(a.0);
    let value = w.store.get(Table::Inode, &key).unwrap().unwrap();
    let mut row: crate::layout::rows::InodeRow =
        crate::layout::decode(Table::Inode, &value).unwrap();
    row.nlink = 2;
    w.store
        .put(Table::Inode, &key, &crate::layout::encode(&row))
        .unwrap();
    let wrong = check(&w.store);
    assert!(wrong.iter().any(|l| l.contains("nlink 2")), "{wrong:?}");
}
