use super::world::World;
use crate::NotPromised;
use crate::preview;
use lagan_types::Refusal;
use lagan_types::answer::Created;
use lagan_types::attr::{Attr, Kind, Time};
use lagan_types::op::{Create, NewFile, SetAttr, SetAttrs, SetListAsOther, SetXattr, XattrMode};
use lagan_types::query::GetXattr;
use lagan_types::{FsError, Ino, VolumeId};

const ACCESS: &str = "system.posix_acl_access";
const DEFAULT: &str = "system.posix_acl_default";
const NONE: u32 = u32::MAX;

/// An attribute's value: (tag, permissions, id).
fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut value = vec![2, 0, 0, 0];
    for (tag, perm, id) in entries {
        value.extend_from_slice(&tag.to_le_bytes());
        value.extend_from_slice(&perm.to_le_bytes());
        value.extend_from_slice(&id.to_le_bytes());
    }
    value
}

/// user::rwx user:1000:`named` group::r-x mask::`mask` other::---
fn named(named: u16, mask: u16) -> Vec<u8> {
    list(&[
        (1, 7, NONE),
        (2, named, 1000),
        (4, 5, NONE),
        (16, mask, NONE),
        (32, 0, NONE),
    ])
}

fn set(w: &mut World, ino: Ino, name: &str, value: Vec<u8>) -> Result<(), Refusal> {
    let op = SetXattr {
        ino,
        name: name.into(),
        value,
        mode: XattrMode::Any,
    };
    let done = w.op(op);
    w.check();
    done
}

fn get(w: &World, ino: Ino, name: &str) -> Option<Vec<u8>> {
    let name = name.into();
    match w.query(GetXattr { ino, name }) {
        Ok(value) => Some(value),
        Err(Refusal::Fs(FsError::NoAttribute)) => None,
        other => panic!("{other:?}"),
    }
}

fn chmod(w: &mut World, ino: Ino, mode: u16) {
    let set = SetAttr {
        mode: Some(mode),
        ..SetAttr::default()
    };
    w.op(SetAttrs { ino, set }).unwrap();
}

fn masked(parent: Ino, name: &str, kind: Kind, mode: u16, umask: u16) -> Create {
    Create {
        parent,
        name: name.into(),
        kind,
        mode,
        uid: 10,
        gid: 20,
        rdev: 0,
        target: Vec::new(),
        exclusive: true,
        umask,
    }
}

fn create(w: &mut World, op: Create) -> Attr {
    let made = w.op(op);
    w.check();
    match made {
        Ok(Created { attr, .. }) => attr,
        other => panic!("{other:?}"),
    }
}

#[test]
fn permission_bits_and_list_say_the_same_whichever_is_set() {
    let mut w = World::new();
    let a = w.file("a");
    set(&mut w, a, ACCESS, named(6, 6)).unwrap();
    assert_eq!(w.attr(a).permissions(), 0o760);
    assert!(w.attr(a).has_xattrs());
    chmod(&mut w, a, 0o640);
    assert_eq!(w.attr(a).permissions(), 0o640);
    let value = get(&w, a, ACCESS).unwrap();
    let expected = list(&[
        (1, 6, NONE),
        (2, 6, 1000),
        (4, 5, NONE),
        (16, 4, NONE),
        (32, 0, NONE),
    ]);
    assert_eq!(value, expected);
}

#[test]
fn a_list_that_says_no_more_than_the_bits_is_not_kept() {
    let mut w = World::new();
    let a = w.file("a");
    set(&mut w, a, ACCESS, named(6, 6)).unwrap();
    let three = list(&[(1, 6, NONE), (4, 4, NONE), (32, 4, NONE)]);
    set(&mut w, a, ACCESS, three).unwrap();
    assert_eq!(get(&w, a, ACCESS), None);
    assert_eq!(w.attr(a).mode, 0o644);
    set(&mut w, a, ACCESS, named(6, 6)).unwrap();
    set(&mut w, a, ACCESS, list(&[])).unwrap();
    assert_eq!(w.attr(a).mode, 0o760);
}

#[test]
fn default_lists_are_inherited_instead_of_the_umask() {
    let mut w = World::new();
    let d = w.dir(Ino::ROOT, "d");
    set(&mut w, d, DEFAULT, named(7, 7)).unwrap();
    assert_eq!(w.attr(d).permissions(), 0o644);
    let promise = NewFile {
        ino: Ino(99),
        parent: d,
        name: b"f".to_vec(),
        mode: 0o644,
        uid: 10,
        gid: 20,
        time: Time::default(),
        set: None,
    };
    let promised = preview(&w.store, VolumeId::ONLY, w.session, &promise).unwrap();
    assert_eq!(promised, Err(NotPromised::DefaultAcl));
    let f = create(&mut w, masked(d, "f", Kind::File, 0o666, 0o077));
    assert_eq!(f.permissions(), 0o660);
    let access = list(&[
        (1, 6, NONE),
        (2, 7, 1000),
        (4, 5, NONE),
        (16, 6, NONE),
        (32, 0, NONE),
    ]);
    assert_eq!(get(&w, f.ino, ACCESS), Some(access));
    assert_eq!(get(&w, f.ino, DEFAULT), None);
    let sub = create(&mut w, masked(d, "sub", Kind::Directory, 0o777, 0o077));
    assert_eq!(sub.permissions(), 0o770);
    assert_eq!(get(&w, sub.ino, DEFAULT), Some(named(7, 7)));
    // Symbolic links have no list, and an existing file is opened as ever.
    w.create(d, "link", Kind::Symlink);
    assert_eq!(
        w.op(World::create_op(d, "f", Kind::File)),
        Err(FsError::Exists.into())
    );
    w.check();
}

#[test]
fn without_a_default_list_the_umask_counts() {
    let mut w = World::new();
    let f = create(&mut w, masked(Ino::ROOT, "f", Kind::File, 0o4666, 0o027));
    assert_eq!(f.mode, 0o4640);
    assert!(!f.has_xattrs());
    let d = w.dir(Ino::ROOT, "d");
    let three = list(&[(1, 7, NONE), (4, 0, NONE), (32, 0, NONE)]);
    set(&mut w, d, DEFAULT, three).unwrap();
    let f = create(&mut w, masked(d, "f", Kind::File, 0o666, 0));
    assert_eq!(f.mode, 0o600);
}

#[test]
fn default_lists_are_of_directories_and_links_have_none() {
    let mut w = World::new();
    let a = w.file("a");
    let link = w.create(Ino::ROOT, "l", Kind::Symlink);
    let refused = set(&mut w, a, DEFAULT, named(7, 7));
    assert_eq!(refused, Err(FsError::Access.into()));
    let refused = set(&mut w, link, ACCESS, named(7, 7));
    assert_eq!(refused, Err(FsError::Unsupported.into()));
    let refused = set(&mut w, a, ACCESS, named(9, 7));
    assert_eq!(refused, Err(FsError::Invalid.into()));
    assert_eq!(w.attr(a).mode, 0o644);
}

#[test]
fn a_list_set_by_somebody_of_another_group_takes_setgid_away() {
    let mut w = World::new();
    let d = w.dir(Ino::ROOT, "d");
    let as_other = |w: &mut World, value| {
        let done = w.op(SetListAsOther { ino: d, value });
        w.check();
        done
    };
    chmod(&mut w, d, 0o2755);
    set(&mut w, d, ACCESS, named(6, 6)).unwrap();
    assert_eq!(w.attr(d).permissions(), 0o2760);
    as_other(&mut w, named(7, 7)).unwrap();
    assert_eq!(w.attr(d).permissions(), 0o770);
    assert_eq!(get(&w, d, ACCESS), Some(named(7, 7)));
    // A list without entries changes no bits, as on Linux.
    chmod(&mut w, d, 0o2770);
    as_other(&mut w, list(&[])).unwrap();
    assert_eq!(w.attr(d).permissions(), 0o2770);
    assert_eq!(as_other(&mut w, named(9, 7)), Err(FsError::Invalid.into()));
    let long = vec![2; 65_537];
    assert_eq!(as_other(&mut w, long), Err(FsError::TooBig.into()));
    assert_eq!(w.attr(d).permissions(), 0o2770);
}
