//! Limits and corners of the call surface. What is said of a directory is
//! checked on a local ext4, too, where the machine has one for its temporary files.

use crate::shorthands::{expect_errno, names};
use lagan_tests::cluster::PATIENCE;
use lagan_tests::run::{LONG, make_root, remove_root};
use lagan_tests::{sized, sys, with_shared};
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

/// Whether a directory is on ext4.
fn on_ext4(dir: &Path) -> bool {
    let done = lagan_tests::command::must(
        "stat",
        &["-f", "-c", "%T", dir.to_str().expect("UTF-8")],
        PATIENCE,
    );
    done.out.trim() == "ext2/ext3"
}

/// Runs a body in a local directory, if that is ext4, and on a mount; what it
/// made is then looked at through the other mount.
fn as_on_ext4(body: impl Fn(&Path) + Send + 'static, seen: impl Fn(&Path) + Send + 'static) {
    let local = make_root();
    if on_ext4(&local) {
        body(&local);
        seen(&local);
    }
    remove_root(&local);
    with_shared(LONG, move |a, b| {
        body(a);
        seen(b);
    });
}

fn open(path: &Path) -> File {
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path);
    file.unwrap_or_else(|e| panic!("open {}: {e}", path.display()))
}

#[test]
fn attributes_have_the_errors_of_linux() {
    as_on_ext4(
        |dir| {
            let (file, link) = (dir.join("x"), dir.join("link"));
            fs::write(&file, b"x").unwrap();
            symlink("x", &link).unwrap();
            sys::mknod(&dir.join("fifo"), libc::S_IFIFO | 0o600, 0).unwrap();
            sys::set_xattr(&file, "user.a", b"12345", 0).unwrap();
            assert_eq!(sys::xattr_len(&file, "user.a", 0).unwrap(), 5);
            assert_eq!(sys::xattr_len(&file, "user.a", 5).unwrap(), 5);
            expect_errno(sys::xattr_len(&file, "user.a", 4), libc::ERANGE);
            expect_errno(sys::get_xattr(&file, "user.b"), libc::ENODATA);
            expect_errno(sys::remove_xattr(&file, "user.b"), libc::ENODATA);
            let long = format!("user.{}", "n".repeat(251));
            expect_errno(sys::set_xattr(&file, &long, b"", 0), libc::ERANGE);
            sys::set_xattr(&file, &long[..255], b"", 0).unwrap();
            expect_errno(sys::set_xattr(&file, "", b"", 0), libc::ERANGE);
            expect_errno(sys::set_xattr(&file, "user.", b"", 0), libc::EINVAL);
            expect_errno(sys::set_xattr(&file, "other.x", b"", 0), libc::EOPNOTSUPP);
            expect_errno(sys::get_xattr(&file, "other.x"), libc::EOPNOTSUPP);
            expect_errno(sys::set_xattr(&file, "system.x", b"", 0), libc::EOPNOTSUPP);
            let huge = vec![0; 65_537];
            expect_errno(sys::set_xattr(&file, "user.big", &huge, 0), libc::E2BIG);
            for special in [&link, &dir.join("fifo")] {
                expect_errno(sys::set_xattr(special, "user.a", b"", 0), libc::EPERM);
                expect_errno(sys::get_xattr(special, "user.a"), libc::ENODATA);
                sys::set_xattr(special, "trusted.a", b"1", 0).unwrap();
            }
            sys::set_xattr(&file, "trusted.a", b"1", 0).unwrap();
            sys::set_xattr(&file, "security.a", b"1", 0).unwrap();
            sys::set_xattr(dir, "user.dir", b"", 0).unwrap();
        },
        |dir| {
            let listed: BTreeSet<String> = sys::list_xattrs(&dir.join("x"))
                .unwrap()
                .into_iter()
                .collect();
            assert_eq!(listed.len(), 4, "{listed:?}");
            for name in ["security.a", "trusted.a", "user.a"] {
                assert!(listed.contains(name), "{listed:?}");
            }
            assert_eq!(
                sys::get_xattr(&dir.join("link"), "trusted.a").unwrap(),
                b"1"
            );
        },
    );
}

#[test]
fn attributes_of_the_trusted_are_hidden_from_others() {
    with_shared(LONG, |a, b| {
        fs::write(a.join("x"), b"x").unwrap();
        fs::set_permissions(a.join("x"), Permissions::from_mode(0o644)).unwrap();
        let max = vec![7; 65_536];
        sys::set_xattr(&a.join("x"), "user.max", &max, 0).unwrap();
        sys::set_xattr(&a.join("x"), "trusted.a", b"1", 0).unwrap();
        assert!(sys::get_xattr(&b.join("x"), "user.max").unwrap() == max);
        // As the owner of an open file, without any privilege.
        let x = b.join("x").display().to_string();
        let root = b.parent().and_then(Path::parent).unwrap();
        fs::set_permissions(root, Permissions::from_mode(0o711)).unwrap();
        fs::set_permissions(b, Permissions::from_mode(0o755)).unwrap();
        let as_nobody = |args: &[&str]| {
            let mut command = Command::new("getfattr");
            command.uid(65534).gid(65534).args(args).arg(&x);
            lagan_tests::command::run(&mut command, PATIENCE).expect("getfattr ends")
        };
        let listed = as_nobody(&["-m", "-"]);
        assert!(listed.out.contains("user.max") && !listed.out.contains("trusted.a"));
        assert_ne!(as_nobody(&["-n", "trusted.a"]).status, Some(0));
    });
}

#[test]
fn fallocate_and_large_offsets_are_answered_as_by_linux() {
    as_on_ext4(
        |dir| {
            let x = open(&dir.join("x"));
            x.write_all_at(&[1; 65_536], 0).unwrap();
            let keep = libc::FALLOC_FL_KEEP_SIZE;
            let punch = libc::FALLOC_FL_PUNCH_HOLE;
            expect_errno(sys::fallocate(&x, punch, 0, 4096), libc::EOPNOTSUPP);
            expect_errno(sys::fallocate(&x, punch | keep, 0, 0), libc::EINVAL);
            expect_errno(sys::fallocate(&x, 0, 1 << 63, 1), libc::EINVAL);
            expect_errno(sys::fallocate(&x, 0, i64::MAX as u64, 1), libc::EFBIG);
            expect_errno(sys::fallocate(&x, 0, i64::MAX as u64 - 10, 9), libc::EFBIG);
            let read_only = File::open(dir.join("x")).unwrap();
            expect_errno(sys::fallocate(&read_only, 0, 0, 1), libc::EBADF);
            // Holes are found to the byte of their block.
            sys::fallocate(&x, punch | keep, 8192, 16_384).expect("punch");
            x.set_len(1 << 20).unwrap();
            x.sync_all().unwrap();
            let data = |at| sys::seek(&x, at, libc::SEEK_DATA);
            let hole = |at| sys::seek(&x, at, libc::SEEK_HOLE);
            assert_eq!((data(0).unwrap(), hole(0).unwrap()), (0, 8192));
            assert_eq!((data(8192).unwrap(), hole(8200).unwrap()), (24_576, 8200));
            assert_eq!(hole(24_576).unwrap(), 65_536);
            expect_errno(data(65_536), libc::ENXIO);
            expect_errno(data(1 << 20), libc::ENXIO);
            // Larger than any file.
            let far = i64::MAX as u64 - 10;
            expect_errno(x.write_at(b"x", far), libc::EFBIG);
            expect_errno(x.set_len(far), libc::EFBIG);
        },
        |dir| assert_eq!(fs::metadata(dir.join("x")).unwrap().len(), 1 << 20),
    );
}

#[test]
fn modes_that_move_bytes_within_a_file_are_not_supported() {
    with_shared(LONG, |a, _| {
        let x = open(&a.join("x"));
        x.write_all_at(&[1; 1 << 20], 0).unwrap();
        for mode in [libc::FALLOC_FL_COLLAPSE_RANGE, libc::FALLOC_FL_INSERT_RANGE] {
            expect_errno(sys::fallocate(&x, mode, 4096, 4096), libc::EOPNOTSUPP);
        }
        assert_eq!(x.metadata().unwrap().len(), 1 << 20);
        // What ext4 cannot have: terabytes, and a byte at the very end.
        x.set_len(1 << 62).unwrap();
        x.write_all_at(b"z", (1 << 62) - 1).unwrap();
        x.sync_all().unwrap();
        expect_errno(x.set_len((1 << 62) + 1), libc::EFBIG);
        // As much of it as there is room for (write(2)).
        assert_eq!(x.write_at(b"zz", (1 << 62) - 1).unwrap(), 1);
        expect_errno(x.write_at(b"z", 1 << 62), libc::EFBIG);
        assert_eq!(
            sys::seek(&x, 1 << 20, libc::SEEK_DATA).unwrap(),
            (1 << 62) - 1
        );
    });
}

#[test]
fn directories_and_links_follow_the_rules() {
    as_on_ext4(
        |dir| {
            let links = |name: &str| fs::metadata(dir.join(name)).unwrap().nlink();
            fs::create_dir_all(dir.join("d/sub/below")).unwrap();
            fs::create_dir(dir.join("d/other")).unwrap();
            fs::write(dir.join("d/file"), b"").unwrap();
            assert_eq!((links("d"), links("d/sub"), links("d/other")), (4, 3, 2));
            let rename = |from: &str, to: &str| fs::rename(dir.join(from), dir.join(to));
            expect_errno(rename("d", "d/sub/d"), libc::EINVAL);
            expect_errno(rename("d", "d/sub/below/d"), libc::EINVAL);
            expect_errno(rename("d/other", "d/sub"), libc::ENOTEMPTY);
            expect_errno(rename("d/other", "d/file"), libc::ENOTDIR);
            expect_errno(rename("d/file", "d/other"), libc::EISDIR);
            rename("d/sub/below", "d/other").unwrap();
            assert_eq!((links("d"), links("d/sub"), links("d/other")), (4, 2, 2));
            expect_errno(fs::hard_link(dir.join("d"), dir.join("e")), libc::EPERM);
            symlink("loop", dir.join("loop")).unwrap();
            expect_errno(File::open(dir.join("loop")), libc::ELOOP);
            symlink("two", dir.join("one")).unwrap();
            symlink("one", dir.join("two")).unwrap();
            expect_errno(fs::metadata(dir.join("one/x")), libc::ELOOP);
            let long = "n".repeat(256);
            expect_errno(File::create(dir.join(&long)), libc::ENAMETOOLONG);
            expect_errno(fs::metadata(dir.join(&long)), libc::ENAMETOOLONG);
        },
        |dir| assert_eq!(names(&dir.join("d")), ["file", "other", "sub"]),
    );
}

#[test]
fn names_are_bytes() {
    let all = || {
        let bytes = (1..=255u8).filter(|b| *b != b'/');
        let mut names: Vec<Vec<u8>> = bytes.map(|b| vec![b, b, b'x']).collect();
        names.push(
            (1..=255)
                .map(|b| if b == b'/' { b'.' } else { b })
                .collect(),
        );
        names.push(b"\xff\xfe not utf-8 \xc3\x28".to_vec());
        names
    };
    as_on_ext4(
        move |dir| {
            for name in all() {
                fs::write(dir.join(OsStr::from_bytes(&name)), &name).unwrap();
            }
        },
        move |dir| {
            let listed: BTreeSet<Vec<u8>> = fs::read_dir(dir)
                .unwrap()
                .map(|e| e.unwrap().file_name().as_bytes().to_vec())
                .collect();
            for name in all() {
                assert!(listed.contains(&name), "{name:?}");
                assert_eq!(fs::read(dir.join(OsStr::from_bytes(&name))).unwrap(), name);
            }
        },
    );
}

#[test]
fn privilege_bits_go_when_another_writes_truncates_or_changes_the_owner() {
    as_on_ext4(
        |dir| {
            fs::set_permissions(dir, Permissions::from_mode(0o755)).unwrap();
            let root = dir.parent().and_then(Path::parent).unwrap();
            let above = fs::metadata(root).unwrap().permissions();
            if above.mode() & 0o001 == 0 {
                fs::set_permissions(root, Permissions::from_mode(0o711)).unwrap();
            }
            let path = dir.join("tool");
            let shown = path.display().to_string();
            fs::write(&path, b"tool").unwrap();
            let bits = || fs::metadata(&path).unwrap().mode() & 0o7777;
            let set = || fs::set_permissions(&path, Permissions::from_mode(0o6777)).unwrap();
            let as_nobody = |script: String| {
                let mut sh = Command::new("sh");
                sh.uid(65534)
                    .gid(65534)
                    .args(["-c", &script])
                    .current_dir("/");
                let done = lagan_tests::command::run(&mut sh, PATIENCE);
                assert_eq!(done.expect("the script ends").status, Some(0), "{script}");
            };
            set();
            as_nobody(format!("echo more >> {shown}"));
            assert_eq!(bits(), 0o777, "write");
            set();
            as_nobody(format!("truncate -s 2 {shown}"));
            assert_eq!(bits(), 0o777, "truncate");
            set();
            as_nobody(format!(": > {shown}"));
            assert_eq!(bits(), 0o777, "open with O_TRUNC");
            set();
            std::os::unix::fs::chown(&path, Some(7), None).unwrap();
            assert_eq!(bits(), 0o777, "chown");
            // Root writes and keeps them, and reading changes nothing.
            set();
            open(&path).write_all_at(b"by root", 0).unwrap();
            as_nobody(format!("cat {shown}"));
            assert_eq!(bits(), 0o6777, "root");
        },
        |dir| assert_eq!(fs::read(dir.join("tool")).unwrap(), b"by root"),
    );
}

#[test]
fn a_directory_nested_very_deep_works_and_goes() {
    let depth = sized(300, 2000);
    as_on_ext4(
        move |dir| {
            let mut at = File::open(dir).unwrap();
            for _ in 0..depth {
                at = sys::make_dir_in(&at, "directory").unwrap();
            }
            let nested = at.metadata().unwrap();
            assert_eq!(nested.nlink(), 2);
            // Moved to another place as a whole, and no path is that long.
            fs::create_dir(dir.join("target")).unwrap();
            fs::rename(dir.join("directory"), dir.join("target/moved")).unwrap();
            drop(at);
        },
        move |dir| {
            let path = dir.join("target").display().to_string();
            let found = lagan_tests::command::must("find", &[&path, "-type", "d"], LONG);
            assert_eq!(found.lines(), depth + 1);
            lagan_tests::command::must("rm", &["-r", &path], LONG);
            expect_errno(fs::metadata(&path), libc::ENOENT);
        },
    );
}

#[test]
fn many_names_with_one_prefix_are_each_there() {
    let count = sized(3_000, 50_000);
    as_on_ext4(
        move |dir| {
            fs::create_dir(dir.join("d")).unwrap();
            fs::write(dir.join("x"), b"").unwrap();
            for n in 0..count {
                let name = format!("{}{n:06}", "prefix-".repeat(20));
                fs::hard_link(dir.join("x"), dir.join("d").join(name)).unwrap();
            }
        },
        move |dir| {
            let found: BTreeSet<String> = names(&dir.join("d")).into_iter().collect();
            assert_eq!(found.len(), count);
            assert_eq!(
                fs::metadata(dir.join("x")).unwrap().nlink(),
                count as u64 + 1
            );
            let last = format!("d/{}{:06}", "prefix-".repeat(20), count - 1);
            assert!(fs::metadata(dir.join(last)).is_ok());
        },
    );
}
