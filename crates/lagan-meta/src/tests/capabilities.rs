use super::world::World;
use lagan_types::attr::{CAPABILITY, Kind};
use lagan_types::op::{RemoveXattr, SetAttr, SetAttrs, SetXattr, XattrMode};
use lagan_types::query::GetXattr;
use lagan_types::{FsError, Ino, Refusal};

fn set(w: &mut World, ino: Ino) {
    let op = SetXattr {
        ino,
        name: CAPABILITY.to_vec(),
        value: b"some".to_vec(),
        mode: XattrMode::Any,
    };
    w.op(op).unwrap();
    assert!(w.attr(ino).has_capability());
    w.check();
}

/// Whether the inode has capabilities: by the row, and by its attributes.
fn has(w: &World, ino: Ino) -> bool {
    w.check();
    let name = CAPABILITY.to_vec();
    let row = match w.query(GetXattr { ino, name }) {
        Ok(_) => true,
        Err(Refusal::Fs(FsError::NoAttribute)) => false,
        other => panic!("{other:?}"),
    };
    assert_eq!(w.attr(ino).has_capability(), row);
    row
}

fn set_attr(w: &mut World, ino: Ino, set: SetAttr) {
    w.op(SetAttrs { ino, set }).unwrap();
}

#[test]
fn every_change_of_content_takes_capabilities_away() {
    let mut w = World::new();
    let (a, source) = (w.file("a"), w.file("source"));
    w.write(source, 0, 100);
    w.write(a, 0, 10);
    set(&mut w, a);
    w.write(a, 5, 10);
    assert!(!has(&w, a));
    set(&mut w, a);
    w.copy((source, 0), (a, 0), 50).unwrap();
    assert!(!has(&w, a));
    set(&mut w, a);
    let size = Some(w.attr(a).size);
    let same = SetAttr {
        size,
        ..SetAttr::default()
    };
    set_attr(&mut w, a, same);
    assert!(!has(&w, a));
}

#[test]
fn a_change_of_owner_takes_capabilities_of_files_away() {
    let mut w = World::new();
    let a = w.file("a");
    let d = w.dir(Ino::ROOT, "d");
    let group = SetAttr {
        gid: Some(7),
        ..SetAttr::default()
    };
    for ino in [a, d] {
        set(&mut w, ino);
        set_attr(&mut w, ino, group.clone());
    }
    assert!(!has(&w, a) && has(&w, d));
}

#[test]
fn names_modes_times_and_other_attributes_leave_capabilities() {
    let mut w = World::new();
    let a = w.file("a");
    w.write(a, 0, 10);
    set(&mut w, a);
    for mode in [0o4755, 0o600] {
        let chmod = SetAttr {
            mode: Some(mode),
            atime: Some(lagan_types::op::SetTime::Now),
            ..SetAttr::default()
        };
        set_attr(&mut w, a, chmod);
        assert_eq!(w.attr(a).permissions(), mode);
    }
    w.create(Ino::ROOT, "other", Kind::File);
    let other = SetXattr {
        ino: a,
        name: b"user.x".to_vec(),
        value: Vec::new(),
        mode: XattrMode::Any,
    };
    w.op(other).unwrap();
    let empty = World::commit_of(a, Vec::new());
    w.op(empty).unwrap();
    assert!(has(&w, a));
    let name = CAPABILITY.to_vec();
    w.op(RemoveXattr { ino: a, name }).unwrap();
    assert!(!has(&w, a) && w.attr(a).has_xattrs());
}

#[test]
fn a_mark_without_its_row_is_noticed() {
    use crate::kv::{Table, Write};
    let mut w = World::new();
    let a = w.file("a");
    set(&mut w, a);
    let key = crate::layout::key_name(a.0, CAPABILITY);
    let mut broken = w.store.clone();
    broken.delete(Table::Xattr, &key).unwrap();
    let said = crate::invariants::check(&broken);
    assert!(said.iter().any(|s| s.contains("capabilities")), "{said:?}");
}
