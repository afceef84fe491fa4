//! POSIX access control lists, by the tools that people use.

use crate::shorthands::{expect_errno, open_for_all, s, text};
use lagan_tests::disk::Disk;
use lagan_tests::{sys, with_shared};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

fn must(program: &str, args: &[&str]) -> String {
    lagan_tests::command::must(program, args, s(60)).out
}

fn setfacl(args: &[&str], path: &Path) {
    must("setfacl", &[args, &[text(path)]].concat());
}

/// What getfacl says, without names of files and owners.
fn getfacl(path: &Path) -> String {
    must("getfacl", &["-cpEn", text(path)]).trim().to_owned()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("stat").mode() & 0o7777
}

/// Whether user 1234 of no known group gets through with a shell command.
fn may(script: &str) -> bool {
    let mut sh = Command::new("sh");
    sh.uid(1234).gid(1234).args(["-c", script]).current_dir("/");
    let done = lagan_tests::command::run(&mut sh, s(30));
    done.expect("the script ends").status == Some(0)
}

#[test]
fn lists_bind_on_every_mount_at_once() {
    with_shared(s(90), |a, b| {
        open_for_all(b);
        fs::write(a.join("x"), b"secret").unwrap();
        fs::set_permissions(a.join("x"), Permissions::from_mode(0o640)).unwrap();
        let read = format!("cat {}", text(&b.join("x")));
        let write = format!("echo more >> {}", text(&b.join("x")));
        assert!(!may(&read));
        setfacl(&["-m", "u:1234:r"], &a.join("x"));
        assert!(may(&read) && !may(&write));
        setfacl(&["-m", "u:1234:rw"], &a.join("x"));
        assert!(may(&write));
        assert_eq!(mode(&b.join("x")), 0o660);
        // chmod sets the mask, and that binds the named user.
        fs::set_permissions(a.join("x"), Permissions::from_mode(0o640)).unwrap();
        assert!(may(&read) && !may(&write));
        assert!(getfacl(&b.join("x")).contains("user:1234:rw-"));
        assert!(getfacl(&b.join("x")).contains("mask::r--"));
        setfacl(&["-b"], &b.join("x"));
        assert!(!may(&read));
        assert_eq!(getfacl(&a.join("x")), "user::rw-\ngroup::r--\nother::---");
        assert_eq!(
            sys::list_xattrs(&a.join("x")).unwrap(),
            Vec::<String>::new()
        );
    });
}

#[test]
fn default_lists_are_inherited_and_the_umask_does_not_count_there() {
    with_shared(s(90), |a, b| {
        fs::create_dir(a.join("d")).unwrap();
        setfacl(&["-d", "-m", "u:1234:rwx,g::rwx,o::-"], &a.join("d"));
        let script = "umask 077; cd $0; echo x > file; mkdir sub; mkfifo pipe; ln -s file link";
        must("sh", &["-c", script, text(&b.join("d"))]);
        let (file, sub) = (a.join("d/file"), a.join("d/sub"));
        assert_eq!(mode(&file), 0o660);
        let of_file = "user::rw-\nuser:1234:rwx\ngroup::rwx\nmask::rw-\nother::---";
        assert_eq!(getfacl(&file), of_file);
        assert_eq!(mode(&a.join("d/pipe")), 0o660);
        assert_eq!(mode(&sub), 0o770);
        let inherited = "default:user::rwx\ndefault:user:1234:rwx\ndefault:group::rwx\n\
                         default:mask::rwx\ndefault:other::---";
        assert!(getfacl(&sub).ends_with(inherited), "{}", getfacl(&sub));
        // Elsewhere the umask does.
        must("sh", &["-c", "umask 027; echo x > $0", text(&b.join("y"))]);
        assert_eq!(mode(&a.join("y")), 0o640);
    });
}

#[test]
fn copies_keep_lists() {
    with_shared(s(120), |a, b| {
        fs::create_dir(a.join("d")).unwrap();
        setfacl(&["-d", "-m", "u:1234:rwx"], &a.join("d"));
        fs::write(a.join("d/x"), b"x").unwrap();
        setfacl(&["-m", "g:77:r,u:5:-"], &a.join("d/x"));
        must("cp", &["-a", text(&a.join("d")), text(&b.join("cp"))]);
        let from = format!("{}/", text(&b.join("d")));
        must("rsync", &["-aAX", &from, text(&a.join("rsync"))]);
        for copy in ["cp", "rsync"] {
            let copy = b.join(copy);
            assert_eq!(getfacl(&copy), getfacl(&a.join("d")));
            assert_eq!(getfacl(&copy.join("x")), getfacl(&a.join("d/x")));
        }
    });
}

#[test]
fn bad_lists_are_refused_as_by_linux() {
    with_shared(s(60), |a, _| {
        fs::write(a.join("x"), b"x").unwrap();
        let set = |name: &str, value: &[u8]| sys::set_xattr(&a.join("x"), name, value, 0);
        let (access, default) = ("system.posix_acl_access", "system.posix_acl_default");
        expect_errno(set(access, b"nonsense"), libc::EOPNOTSUPP);
        expect_errno(set(access, &[2, 0, 0, 0, 1, 0, 7, 0]), libc::EINVAL);
        expect_errno(
            set(access, &[2, 0, 0, 0, 1, 0, 7, 0, 0, 0, 0, 0]),
            libc::EINVAL,
        );
        let mut three = vec![2, 0, 0, 0];
        for tag in [1, 4, 32] {
            three.extend_from_slice(&[tag, 0, 6, 0, 255, 255, 255, 255]);
        }
        expect_errno(set(default, &three), libc::EACCES);
        set(access, &three).unwrap();
        assert_eq!(mode(&a.join("x")), 0o666);
        expect_errno(sys::get_xattr(&a.join("x"), access), libc::ENODATA);
    });
}

/// Runs setfacl as user 1234 of group 1234, with one more group or none.
fn setfacl_as(more: Option<&str>, args: &[&str], path: &Path) {
    let groups = more.map_or(vec!["--clear-groups"], |g| vec!["--groups", g]);
    let user = ["--reuid", "1234", "--regid", "1234"];
    let command = ["setfacl"];
    must(
        "setpriv",
        &[&user, &groups[..], &command, args, &[text(path)]].concat(),
    );
}

/// What is left of set-group-id of a file and a directory of group 5678 after each way
/// to set a list: modes, in order.
fn setgid_after_lists(set_on: &Path, seen_on: &Path) -> Vec<u32> {
    let named = ["-m", "u:99:rx"];
    let ways: [(&str, Option<&str>, &[&str]); 6] = [
        ("other", None, &named),
        ("member", Some("5678"), &named),
        ("bits", None, &["-m", "g::rwx"]),
        ("removed", None, &["-b"]),
        ("default", None, &["-d", "-m", "u:99:rx"]),
        ("root", None, &named),
    ];
    let mut modes = Vec::new();
    for (name, more, args) in ways {
        for (path, is_dir) in [
            (format!("{name}-file"), false),
            (format!("{name}-dir"), true),
        ] {
            if name == "default" && !is_dir {
                continue;
            }
            let (set_on, seen_on) = (set_on.join(&path), seen_on.join(&path));
            if is_dir {
                fs::create_dir(&set_on).expect("mkdir");
            } else {
                fs::write(&set_on, b"x").expect("write");
            }
            std::os::unix::fs::chown(&set_on, Some(1234), Some(5678)).expect("chown");
            fs::set_permissions(&set_on, Permissions::from_mode(0o2775)).expect("chmod");
            match name {
                "root" => setfacl(args, &set_on),
                _ => setfacl_as(more, args, &set_on),
            }
            modes.push(mode(&seen_on));
        }
    }
    modes
}

#[test]
fn a_list_set_by_somebody_of_another_group_clears_setgid_as_on_ext4() {
    let scratch = tempfile::tempdir().expect("make a directory");
    fs::set_permissions(scratch.path(), Permissions::from_mode(0o755)).expect("chmod");
    let point = scratch.path().join("ext4");
    let _disk = Disk::mount(&scratch.path().join("image"), &point, 8);
    let wanted = setgid_after_lists(&point, &point);
    assert!(
        wanted.contains(&0o775) && wanted.contains(&0o2775),
        "{wanted:?}"
    );
    with_shared(s(90), move |a, b| {
        open_for_all(a);
        open_for_all(b);
        assert_eq!(setgid_after_lists(a, b), wanted);
    });
}
