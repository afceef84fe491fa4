use super::world::World;
use lagan_types::answer::{Created, Renamed, Unlinked};
use lagan_types::attr::Kind;
use lagan_types::op::{Link, ReapOrphans, SetAttr, SetAttrs};
use lagan_types::query::{DirPage, File, FileInfo, GetAttr, Open, ReadDir, ReadLink};
use lagan_types::{FsError, Ino};

const ROOT: Ino = Ino::ROOT;

#[test]
fn created_file_is_found_and_listed() {
    let mut w = World::new();
    let a = w.file("a");
    let d = w.dir(ROOT, "d");
    assert_eq!(w.lookup(ROOT, "a").unwrap().ino, a);
    assert_eq!(w.names(ROOT), ["a", "d"]);
    assert_eq!(w.attr(ROOT).nlink, 3);
    assert_eq!(w.attr(d).nlink, 2);
    assert_eq!(w.lookup(ROOT, "b"), Err(FsError::NotFound.into()));
    w.check();
}

#[test]
fn names_that_posix_forbids_are_refused() {
    let mut w = World::new();
    for (name, error) in [
        ("", FsError::Invalid),
        (".", FsError::Invalid),
        ("..", FsError::Invalid),
        ("a/b", FsError::Invalid),
        ("a\0", FsError::Invalid),
        (&"x".repeat(256), FsError::NameTooLong),
    ] {
        let op = World::create_op(ROOT, name, Kind::File);
        assert_eq!(w.op(op), Err(error.into()), "{name:?}");
    }
    w.create(ROOT, &"x".repeat(255), Kind::File);
    w.check();
}

#[test]
fn create_opens_what_is_there_unless_exclusive() {
    let mut w = World::new();
    let a = w.file("a");
    w.dir(ROOT, "d");
    let open = |name: &str| {
        let mut op = World::create_op(ROOT, name, Kind::File);
        op.exclusive = false;
        op
    };
    match w.op(open("a")) {
        Ok(Created { attr, created }) => assert_eq!((attr.ino, created), (a, false)),
        other => panic!("{other:?}"),
    }
    assert_eq!(w.op(open("d")), Err(FsError::IsDirectory.into()));
    let again = World::create_op(ROOT, "a", Kind::File);
    assert_eq!(w.op(again), Err(FsError::Exists.into()));
    w.check();
}

#[test]
fn setgid_of_the_directory_is_inherited() {
    let mut w = World::new();
    let d = w.dir(ROOT, "d");
    let set = SetAttr {
        mode: Some(0o2775),
        gid: Some(99),
        ..SetAttr::default()
    };
    w.op(SetAttrs { ino: d, set }).unwrap();
    let f = w.create(d, "f", Kind::File);
    let e = w.dir(d, "e");
    assert_eq!((w.attr(f).gid, w.attr(f).mode), (99, 0o644));
    assert_eq!((w.attr(e).gid, w.attr(e).mode), (99, 0o2644));
}

#[test]
fn last_unlink_makes_an_orphan_that_can_be_reaped() {
    let mut w = World::new();
    let a = w.file("a");
    let id = w.write(a, 0, 100);
    w.op(Link {
        ino: a,
        parent: ROOT,
        name: b"b".to_vec(),
    })
    .unwrap();
    assert_eq!(w.attr(a).nlink, 2);
    let answer = w.unlink(ROOT, "a");
    assert_eq!(answer, Ok(Unlinked { ino: a, nlink: 1 }));
    w.system(ReapOrphans { inos: vec![a] }).unwrap();
    assert_eq!(w.attr(a).size, 100);
    w.unlink(ROOT, "b").unwrap();
    assert_eq!(w.query(Open { ino: a }), Err(FsError::Stale.into()));
    w.write(a, 200, 10);
    assert_eq!(w.attr(a).size, 210);
    w.check();
    w.system(ReapOrphans { inos: vec![a] }).unwrap();
    assert_eq!(w.query(GetAttr { ino: a }), Err(FsError::Stale.into()));
    let everywhere: Vec<_> = (1..=3).flat_map(|n| w.reaped(n)).collect();
    assert_eq!(everywhere.iter().filter(|&&c| c == id).count(), 2);
    assert_eq!(w.counters().orphans, 0);
    w.check();
}

#[test]
fn rmdir_wants_an_empty_directory() {
    let mut w = World::new();
    let d = w.dir(ROOT, "d");
    w.create(d, "f", Kind::File);
    assert_eq!(w.rmdir(ROOT, "d"), Err(FsError::NotEmpty.into()));
    assert_eq!(w.unlink(ROOT, "d"), Err(FsError::IsDirectory.into()));
    assert_eq!(w.rmdir(d, "f"), Err(FsError::NotDirectory.into()));
    w.unlink(d, "f").unwrap();
    w.rmdir(ROOT, "d").unwrap();
    let op = World::create_op(d, "g", Kind::File);
    assert_eq!(w.op(op), Err(FsError::NotFound.into()));
    assert_eq!(w.attr(ROOT).nlink, 2);
    w.check();
}

#[test]
fn rename_replaces_files_and_empty_directories() {
    let mut w = World::new();
    let (a, b) = (w.file("a"), w.file("b"));
    let (d, e) = (w.dir(ROOT, "d"), w.dir(ROOT, "e"));
    let sub = w.dir(e, "sub");
    let answer = w.rename((ROOT, "a"), (ROOT, "b"));
    let replaced = Some(b);
    assert_eq!(answer, Ok(Renamed { ino: a, replaced }));
    assert_eq!(w.attr(b).nlink, 0);
    assert_eq!(
        w.rename((ROOT, "b"), (ROOT, "d")),
        Err(FsError::IsDirectory.into())
    );
    assert_eq!(
        w.rename((ROOT, "d"), (ROOT, "b")),
        Err(FsError::NotDirectory.into())
    );
    assert_eq!(
        w.rename((ROOT, "d"), (ROOT, "e")),
        Err(FsError::NotEmpty.into())
    );
    w.rename((ROOT, "d"), (e, "sub")).unwrap();
    assert_eq!(w.attr(sub).nlink, 0);
    assert_eq!(w.attr(e).nlink, 3);
    assert_eq!(w.attr(ROOT).nlink, 3);
    assert_eq!(w.lookup(e, "sub").unwrap().ino, d);
    w.check();
}

#[test]
fn rename_makes_no_cycles() {
    let mut w = World::new();
    let a = w.dir(ROOT, "a");
    let b = w.dir(a, "b");
    let c = w.dir(b, "c");
    assert_eq!(
        w.rename((ROOT, "a"), (c, "x")),
        Err(FsError::Invalid.into())
    );
    assert_eq!(
        w.rename((ROOT, "a"), (a, "x")),
        Err(FsError::Invalid.into())
    );
    assert_eq!(
        w.rename((b, "c"), (ROOT, "a")),
        Err(FsError::NotEmpty.into())
    );
    let swap = w.rename_with((b, "c"), (ROOT, "a"), false, true);
    assert_eq!(swap, Err(FsError::Invalid.into()));
    w.check();
}

#[test]
fn exchange_swaps_and_no_replace_refuses() {
    let mut w = World::new();
    let a = w.file("a");
    let d = w.dir(ROOT, "d");
    let sub = w.dir(d, "sub");
    let taken = w.rename_with((ROOT, "a"), (d, "sub"), true, false);
    assert_eq!(taken, Err(FsError::Exists.into()));
    let absent = w.rename_with((ROOT, "a"), (d, "none"), false, true);
    assert_eq!(absent, Err(FsError::NotFound.into()));
    w.rename_with((ROOT, "a"), (d, "sub"), false, true).unwrap();
    assert_eq!(w.lookup(d, "sub").unwrap().ino, a);
    assert_eq!(w.lookup(ROOT, "a").unwrap().ino, sub);
    assert_eq!((w.attr(ROOT).nlink, w.attr(d).nlink), (4, 2));
    w.check();
}

#[test]
fn rename_between_links_of_one_file_does_nothing() {
    let mut w = World::new();
    let a = w.file("a");
    let (ino, parent, name) = (a, ROOT, b"b".to_vec());
    w.op(Link { ino, parent, name }).unwrap();
    w.rename((ROOT, "a"), (ROOT, "b")).unwrap();
    assert_eq!(w.names(ROOT), ["a", "b"]);
    w.check();
}

#[test]
fn paths_of_files_follow_renamed_directories() {
    let mut w = World::new();
    let d = w.dir(ROOT, "d");
    let f = w.create(d, "f", Kind::File);
    let e = w.dir(ROOT, "e");
    w.rename((ROOT, "d"), (e, "dd")).unwrap();
    match w.query(File { ino: f }) {
        Ok(FileInfo { path, .. }) => assert_eq!(path.unwrap(), b"/e/dd/f"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn cookies_go_on_where_readdir_stopped() {
    let mut w = World::new();
    for i in 0..10 {
        w.file(&format!("f{i}"));
    }
    let (mut cookie, mut seen) = (0, Vec::new());
    loop {
        let q = ReadDir {
            ino: ROOT,
            cookie,
            limit: 3,
            attrs: false,
        };
        let Ok(DirPage { entries, end, .. }) = w.query(q) else {
            panic!("no entries");
        };
        cookie = entries.last().unwrap().cookie;
        seen.extend(entries.into_iter().map(|e| e.name));
        if end {
            break;
        }
        // Removing one entry and adding one does not disturb the others.
        w.unlink(ROOT, &format!("f{}", seen.len() - 1)).unwrap();
        if seen.len() == 3 {
            w.file("late");
        }
    }
    let mut wanted: Vec<_> = (0..10).map(|i| format!("f{i}").into_bytes()).collect();
    wanted.push(b"late".to_vec());
    assert_eq!(seen, wanted);
    w.check();
}

#[test]
fn ctime_and_directory_version_rise_even_if_the_clock_stands() {
    let mut w = World::new();
    let before = w.attr(ROOT);
    w.file("a");
    w.now_ms -= 1000;
    let middle = w.attr(ROOT);
    w.file("b");
    let after = w.attr(ROOT);
    assert!(before.ctime < middle.ctime && middle.ctime < after.ctime);
    assert!(before.version < middle.version && middle.version < after.version);
}

#[test]
fn symlinks_keep_their_target() {
    let mut w = World::new();
    let s = w.create(ROOT, "s", Kind::Symlink);
    let target = w.query(ReadLink { ino: s });
    assert_eq!(target, Ok(b"to".to_vec()));
    assert_eq!(w.attr(s).size, 2);
    assert_eq!(
        w.query(ReadLink { ino: ROOT }),
        Err(FsError::Invalid.into())
    );
    w.unlink(ROOT, "s").unwrap();
    w.system(ReapOrphans { inos: vec![s] }).unwrap();
    w.check();
}

#[test]
fn an_inode_has_65_000_names_and_not_one_more() {
    let mut w = World::new();
    let a = w.file("a");
    let d = w.dir(ROOT, "d");
    let link = |n: u32| Link {
        ino: a,
        parent: d,
        name: format!("{}{n}", "the same prefix ".repeat(15)).into(),
    };
    for n in 1..65_000 {
        w.op(link(n)).unwrap();
    }
    assert_eq!(w.op(link(65_000)), Err(FsError::TooManyLinks.into()));
    assert_eq!(w.attr(a).nlink, 65_000);
    let (mut cookie, mut listed) = (0, 0);
    loop {
        let page = w.query(ReadDir {
            ino: d,
            cookie,
            limit: 4096,
            attrs: false,
        });
        let Ok(DirPage { entries, end, .. }) = page else {
            panic!("{page:?}");
        };
        assert!(entries.iter().all(|e| e.cookie > cookie && e.ino == a));
        cookie = entries.last().map_or(cookie, |e| e.cookie);
        listed += entries.len();
        if end {
            break;
        }
    }
    assert_eq!(listed, 64_999);
    w.unlink(ROOT, "a").unwrap();
    w.op(link(65_000)).unwrap();
    w.check();
}
