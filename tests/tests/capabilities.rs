//! File capabilities (capabilities(7)): set by root, honoured where a file is executed, and
//! gone with the content or owner that they were given to.

use crate::shorthands::{expect_errno, open_for_all, s, text};
use lagan_tests::{command, sys, with_shared};
use std::fs::{self, File, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

const NAME: &str = "security.capability";
/// To listen on ports below 1024 (linux/capability.h).
const CAP_NET_BIND_SERVICE: u32 = 1 << 10;

/// The attribute's value in its second version: permitted, effective from the start.
fn value() -> Vec<u8> {
    let words = [0x0200_0001, CAP_NET_BIND_SERVICE, 0, 0, 0];
    words
        .iter()
        .flat_map(|word: &u32| word.to_le_bytes())
        .collect()
}

fn set(path: &Path) {
    sys::set_xattr(path, NAME, &value(), 0).expect("set the capabilities");
}

/// Asks what the program may do when user 1234 runs it; it must be a copy of grep.
fn effective(grep: &Path) -> String {
    let mut run = Command::new(grep);
    run.args(["-h", "^CapEff", "/proc/self/status"])
        .current_dir("/");
    let done = command::run(run.uid(1234).gid(1234), s(30)).expect("run it");
    done.expect(0).out.trim().to_owned()
}

#[test]
fn capabilities_are_honoured_on_every_mount_at_once() {
    with_shared(s(90), |a, b| {
        open_for_all(b);
        let grep = command::must("sh", &["-c", "command -v grep"], s(30)).out;
        fs::copy(grep.trim(), a.join("grep")).unwrap();
        fs::set_permissions(a.join("grep"), Permissions::from_mode(0o755)).unwrap();
        let none = "CapEff:\t0000000000000000";
        assert_eq!(effective(&b.join("grep")), none);
        set(&a.join("grep"));
        assert_eq!(effective(&b.join("grep")), "CapEff:\t0000000000000400");
        assert_eq!(sys::get_xattr(&b.join("grep"), NAME).unwrap(), value());
        assert_eq!(sys::list_xattrs(&b.join("grep")).unwrap(), [NAME]);
        // neither a mode nor a name is content
        fs::set_permissions(a.join("grep"), Permissions::from_mode(0o555)).unwrap();
        fs::rename(a.join("grep"), a.join("g")).unwrap();
        assert_eq!(effective(&b.join("g")), "CapEff:\t0000000000000400");
        sys::remove_xattr(&a.join("g"), NAME).unwrap();
        assert_eq!(effective(&b.join("g")), none);
        expect_errno(sys::remove_xattr(&a.join("g"), NAME), libc::ENODATA);
    });
}

#[test]
fn whatever_changes_content_or_owner_takes_capabilities_away() {
    type Change = fn(&Path);
    let changes: [(&str, Change); 8] = [
        ("append", |path| {
            let mut file = File::options().append(true).open(path).unwrap();
            file.write_all(b"more").unwrap();
        }),
        ("overwrite", |path| {
            let file = File::options().write(true).open(path).unwrap();
            file.write_all_at(b"X", 0).unwrap();
        }),
        ("shorten", |path| {
            let file = File::options().write(true).open(path).unwrap();
            file.set_len(1).unwrap();
        }),
        ("same size", |path| {
            let file = File::options().write(true).open(path).unwrap();
            file.set_len(7).unwrap();
        }),
        ("empty", |path| drop(File::create(path).unwrap())),
        ("chown", |path| {
            std::os::unix::fs::chown(path, Some(0), Some(0)).unwrap();
        }),
        ("copy", |path| {
            let source = File::open(path.with_file_name("source")).unwrap();
            let file = File::options().write(true).open(path).unwrap();
            assert_eq!(sys::copy_range((&source, 0), (&file, 0), 6).unwrap(), 6);
        }),
        ("punch", |path| {
            let file = File::options().write(true).open(path).unwrap();
            let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
            sys::fallocate(&file, mode, 0, 4).unwrap();
        }),
    ];
    with_shared(s(90), move |a, b| {
        fs::write(a.join("source"), b"source").unwrap();
        for (name, change) in changes {
            fs::write(a.join(name), b"content").unwrap();
            set(&a.join(name));
            change(&b.join(name));
            let left = sys::get_xattr(&a.join(name), NAME);
            assert!(left.is_err(), "{name}: {left:?}");
            expect_errno(left, libc::ENODATA);
        }
    });
}

#[test]
fn a_write_through_a_file_that_was_open_before_takes_them_away() {
    with_shared(s(60), |a, b| {
        fs::write(a.join("x"), b"content").unwrap();
        let open = File::options().write(true).open(b.join("x")).unwrap();
        open.write_all_at(b"1", 0).unwrap();
        open.sync_all().unwrap();
        set(&a.join("x"));
        open.write_all_at(b"2", 1).unwrap();
        open.sync_all().unwrap();
        expect_errno(sys::get_xattr(&a.join("x"), NAME), libc::ENODATA);
        // again, in the same handle, after the kernel was told that there are none
        set(&a.join("x"));
        open.set_len(3).unwrap();
        expect_errno(sys::get_xattr(&a.join("x"), NAME), libc::ENODATA);
    });
}

#[test]
fn copies_keep_capabilities() {
    with_shared(s(90), |a, b| {
        fs::create_dir(a.join("d")).unwrap();
        fs::write(a.join("d/x"), b"x").unwrap();
        set(&a.join("d/x"));
        let from = format!("{}/", text(&b.join("d")));
        command::must("rsync", &["-aHAX", &from, text(&a.join("rsync"))], s(60));
        let script = "mkdir $1/tar && tar -C $0/d --xattrs --xattrs-include='*' -cf - . | \
                      tar -C $1/tar --xattrs --xattrs-include='*' -xpf -";
        command::must("sh", &["-c", script, text(b), text(a)], s(60));
        for copy in ["rsync/x", "tar/x"] {
            let copied = sys::get_xattr(&b.join(copy), NAME);
            assert_eq!(copied.expect(copy), value());
        }
    });
}

#[test]
fn nobody_but_root_sets_capabilities() {
    with_shared(s(60), |a, _| {
        open_for_all(a);
        fs::write(a.join("x"), b"x").unwrap();
        std::os::unix::fs::chown(a.join("x"), Some(1234), Some(1234)).unwrap();
        let mut set = Command::new("setfattr");
        set.args([
            "-n",
            NAME,
            "-v",
            "0x0100000200040000000000000000000000000000",
        ]);
        let set = set.arg(a.join("x")).uid(1234).gid(1234).current_dir("/");
        assert_eq!(command::run(set, s(30)).unwrap().status, Some(1));
        expect_errno(sys::get_xattr(&a.join("x"), NAME), libc::ENODATA);
    });
}
