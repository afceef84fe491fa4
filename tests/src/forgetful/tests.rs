use super::bytes::SECTOR;
use super::{Disk, ROOT};
use crate::random::Random;
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::path::Path;
use tempfile::TempDir;

/// Seeds that a property is tried with.
const SEEDS: u64 = 200;

fn name(name: &str) -> &OsStr {
    OsStr::new(name)
}

fn new() -> (TempDir, Disk) {
    let dir = tempfile::tempdir().unwrap();
    let disk = Disk::new(dir.path());
    (dir, disk)
}

fn create(disk: &mut Disk, called: &str, bytes: &[u8]) -> u64 {
    let inode = disk.make(ROOT, name(called), false, 0o644).unwrap();
    disk.write(inode, 0, bytes).unwrap();
    inode
}

fn read(disk: &Disk, inode: u64) -> Vec<u8> {
    let size = disk.stat(inode).unwrap().size;
    disk.read(inode, 0, size).unwrap()
}

fn names(disk: &Disk) -> Vec<OsString> {
    disk.list(ROOT).into_iter().map(|(name, _)| name).collect()
}

/// What is left of a disk, for each seed.
fn outcomes<T: Ord>(make: impl Fn(&mut Disk), look: impl Fn(&Disk) -> T) -> BTreeSet<T> {
    let outcomes = (0..SEEDS).map(|seed| {
        let (_dir, mut disk) = new();
        make(&mut disk);
        disk.forget(Some(Random::new(seed))).unwrap();
        assert_eq!(disk.unsynced(), (0, 0));
        look(&disk)
    });
    outcomes.collect()
}

#[test]
fn what_was_synced_is_there_after_each_seed() {
    let make = |disk: &mut Disk| {
        let inode = create(disk, "x", &[1; 3000]);
        disk.write(inode, 700, &[2; 900]).unwrap();
        disk.set_len(inode, 2000).unwrap();
        disk.sync(inode).unwrap();
        disk.sync(ROOT).unwrap();
    };
    let mut want = vec![1; 2000];
    want[700..1600].fill(2);
    let look = |disk: &Disk| read(disk, disk.lookup(ROOT, name("x")).unwrap().inode);
    assert_eq!(outcomes(make, look), BTreeSet::from([want]));
}

#[test]
fn nothing_that_was_not_synced_is_left_if_all_is_forgotten() {
    let (_dir, mut disk) = new();
    let inode = create(&mut disk, "x", &[1; 3000]);
    disk.sync(inode).unwrap();
    disk.sync(ROOT).unwrap();
    disk.write(inode, 2000, &[2; 3000]).unwrap();
    disk.set_len(inode, 100).unwrap();
    disk.set_len(inode, 9000).unwrap();
    disk.write(inode, 20, &[3; 5000]).unwrap();
    create(&mut disk, "y", b"y");
    disk.rename((ROOT, name("x")), (ROOT, name("z"))).unwrap();
    disk.forget(None).unwrap();
    assert_eq!(names(&disk), ["x"]);
    assert_eq!(read(&disk, inode), [1; 3000]);
}

#[test]
fn name_of_a_synced_file_needs_a_sync_of_its_directory() {
    let make = |disk: &mut Disk| {
        let inode = create(disk, "x", b"x");
        disk.sync(inode).unwrap();
    };
    let left = outcomes(make, names);
    assert_eq!(left, BTreeSet::from([vec![], vec!["x".into()]]));
}

#[test]
fn name_says_nothing_of_the_bytes() {
    let make = |disk: &mut Disk| {
        create(disk, "x", &[1; 600]);
        disk.sync(ROOT).unwrap();
    };
    let look = |disk: &Disk| read(disk, disk.lookup(ROOT, name("x")).unwrap().inode);
    let left = outcomes(make, look);
    let mut torn = vec![1; 512];
    torn.resize(600, 0);
    for bytes in [vec![], vec![1; 512], torn, vec![0; 600], vec![1; 600]] {
        assert!(left.contains(&bytes), "{} bytes", bytes.len());
    }
}

#[test]
fn names_do_not_wait_for_each_other() {
    let make = |disk: &mut Disk| {
        create(disk, "x", b"x");
        create(disk, "y", b"y");
    };
    assert_eq!(outcomes(make, names).len(), 4);
}

#[test]
fn renamed_file_has_one_of_its_names() {
    let make = |disk: &mut Disk| {
        for called in ["new", "old"] {
            let inode = create(disk, called, called.as_bytes());
            disk.sync(inode).unwrap();
        }
        disk.sync(ROOT).unwrap();
        disk.rename((ROOT, name("new")), (ROOT, name("old")))
            .unwrap();
    };
    let look = |disk: &Disk| {
        let inodes = disk.list(ROOT).into_iter();
        let bytes = inodes.map(|(name, found)| (name, read(disk, found.inode)));
        bytes.collect::<Vec<_>>()
    };
    let before = vec![
        ("new".into(), b"new".to_vec()),
        ("old".into(), b"old".to_vec()),
    ];
    let after = vec![("old".into(), b"new".to_vec())];
    assert_eq!(outcomes(make, look), BTreeSet::from([before, after]));
}

#[test]
fn directory_that_was_not_synced_into_its_own_is_gone_with_all_that_is_in_it() {
    let make = |disk: &mut Disk| {
        let dir = disk.make(ROOT, name("dir"), true, 0o755).unwrap();
        disk.make(dir, name("x"), false, 0o644).unwrap();
        disk.sync(dir).unwrap();
    };
    let look = |disk: &Disk| {
        let dir = disk.lookup(ROOT, name("dir")).ok()?;
        Some(disk.list(dir.inode).len())
    };
    assert_eq!(outcomes(make, look), BTreeSet::from([None, Some(1)]));
}

#[test]
fn rename_between_directories_is_durable_with_either() {
    for synced in 0..2 {
        let make = |disk: &mut Disk| {
            let dirs = ["a", "b"].map(|d| disk.make(ROOT, name(d), true, 0o755).unwrap());
            disk.sync(ROOT).unwrap();
            disk.make(dirs[0], name("x"), false, 0o644).unwrap();
            disk.rename((dirs[0], name("x")), (dirs[1], name("x")))
                .unwrap();
            disk.sync(dirs[synced]).unwrap();
        };
        let count = |disk: &Disk, called| {
            let dir = disk.lookup(ROOT, name(called)).unwrap();
            disk.list(dir.inode).len()
        };
        let look = |disk: &Disk| (count(disk, "a"), count(disk, "b"));
        assert_eq!(outcomes(make, look), BTreeSet::from([(0, 1)]));
    }
}

#[test]
fn removed_file_may_come_back_with_its_bytes() {
    let make = |disk: &mut Disk| {
        let inode = create(disk, "x", b"x");
        disk.sync(inode).unwrap();
        disk.sync(ROOT).unwrap();
        disk.remove(ROOT, name("x")).unwrap();
    };
    let look = |disk: &Disk| {
        let found = disk.lookup(ROOT, name("x")).ok()?;
        Some(read(disk, found.inode))
    };
    let left = outcomes(make, look);
    assert_eq!(left, BTreeSet::from([None, Some(b"x".to_vec())]));
}

#[test]
fn each_sector_is_old_or_new() {
    const LEN: usize = 8 * SECTOR as usize;
    let make = |disk: &mut Disk| {
        let inode = create(disk, "x", &[1; LEN]);
        disk.sync(inode).unwrap();
        disk.sync(ROOT).unwrap();
        disk.write(inode, 100, &[2; LEN - 200]).unwrap();
    };
    let look = |disk: &Disk| read(disk, disk.lookup(ROOT, name("x")).unwrap().inode);
    let left = outcomes(make, look);
    // all, none, a first part, and others
    assert!(left.len() > 20, "{}", left.len());
    for bytes in left {
        assert_eq!(bytes.len(), LEN);
        for sector in bytes[512..LEN - 512].chunks(512) {
            assert!(sector.iter().all(|&b| b == sector[0]));
        }
        assert!(
            bytes[..100]
                .iter()
                .chain(&bytes[LEN - 100..])
                .all(|&b| b == 1)
        );
    }
}

#[test]
fn bytes_behind_the_old_end_are_missing_or_zeros() {
    let make = |disk: &mut Disk| {
        let inode = create(disk, "x", &[1; 700]);
        disk.sync(inode).unwrap();
        disk.sync(ROOT).unwrap();
        disk.write(inode, 600, &[2; 2000]).unwrap();
    };
    let look = |disk: &Disk| read(disk, disk.lookup(ROOT, name("x")).unwrap().inode);
    for bytes in outcomes(make, look) {
        assert!((700..=2600).contains(&bytes.len()));
        assert!(bytes[..600].iter().all(|&b| b == 1));
        assert!(bytes[600..700].iter().all(|&b| b == 1 || b == 2));
        assert!(bytes[700..].iter().all(|&b| b == 0 || b == 2));
    }
}

#[test]
fn lying_disk_loses_what_it_said_was_synced_until_it_lost_power() {
    let (_dir, mut disk) = new();
    disk.lie(Path::new(""));
    let inode = create(&mut disk, "x", b"x");
    disk.sync(inode).unwrap();
    disk.sync(ROOT).unwrap();
    disk.forget(None).unwrap();
    assert!(names(&disk).is_empty());
    create(&mut disk, "y", b"y");
    disk.sync(ROOT).unwrap();
    disk.forget(None).unwrap();
    assert_eq!(names(&disk), ["y"]);
}

#[test]
fn disk_lies_about_one_directory() {
    let (_dir, mut disk) = new();
    let dirs = ["a", "b"].map(|d| disk.make(ROOT, name(d), true, 0o755).unwrap());
    disk.sync(ROOT).unwrap();
    disk.lie(Path::new("a"));
    for dir in dirs {
        disk.make(dir, name("x"), false, 0o644).unwrap();
        disk.sync(dir).unwrap();
    }
    disk.forget(None).unwrap();
    assert_eq!(dirs.map(|dir| disk.list(dir).len()), [0, 1]);
}

#[test]
fn power_stays_on_while_files_are_open() {
    let (_dir, mut disk) = new();
    let inode = create(&mut disk, "x", b"x");
    disk.open(inode).unwrap();
    let refused = disk.forget(None).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EBUSY));
    disk.close(inode);
    disk.forget(None).unwrap();
    assert!(names(&disk).is_empty());
}

#[test]
fn nothing_is_kept_of_what_cannot_come_back() {
    let (dir, mut disk) = new();
    let inode = create(&mut disk, "x", b"x");
    disk.sync(ROOT).unwrap();
    disk.open(inode).unwrap();
    disk.remove(ROOT, name("x")).unwrap();
    disk.sync(ROOT).unwrap();
    assert_eq!(read(&disk, inode), b"x");
    disk.close(inode);
    assert!(disk.stat(inode).is_err());
    assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
}
