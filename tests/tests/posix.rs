//! What POSIX and Linux promise of a file system, on one mount and seen from the other.

use crate::shorthands::{attribute, expect_errno, names, s};
use lagan_tests::cluster::PATIENCE;
use lagan_tests::random::Random;
use lagan_tests::run::LONG;
use lagan_tests::sys::{self, Mapping};
use lagan_tests::wait::until;
use lagan_tests::{sized, with_shared};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::Path;

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
fn random_writes_read_back_as_from_an_array() {
    with_shared(LONG, |a, b| {
        let mut random = Random::new(5);
        let mut model: Vec<u8> = Vec::new();
        let file = open(&a.join("x"));
        for n in 0..250 {
            let offset = random.below(3 << 20) as usize;
            let len = random.size(1, 1 << 20) as usize;
            match random.below(10) {
                0 => {
                    file.set_len(offset as u64).unwrap();
                    model.resize(offset, 0);
                }
                1 => {
                    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                    sys::fallocate(&file, mode, offset as u64, len as u64).expect("punch");
                    let (from, to) = (offset.min(model.len()), (offset + len).min(model.len()));
                    model[from..to].fill(0);
                }
                2..5 => {
                    let mut found = vec![1; len];
                    let got = read_all_at(&file, &mut found, offset);
                    let end = (offset + len).min(model.len());
                    assert!(found[..got] == model[offset.min(end)..end], "step {n}");
                }
                _ => {
                    let bytes = random.bytes(len);
                    file.write_all_at(&bytes, offset as u64).unwrap();
                    model.resize(model.len().max(offset + len), 0);
                    model[offset..offset + len].copy_from_slice(&bytes);
                }
            }
        }
        drop(file);
        assert!(fs::read(b.join("x")).unwrap() == model);
    });
}

fn read_all_at(file: &File, buffer: &mut [u8], offset: usize) -> usize {
    let mut got = 0;
    while got < buffer.len() {
        match file
            .read_at(&mut buffer[got..], (offset + got) as u64)
            .expect("read")
        {
            0 => break,
            n => got += n,
        }
    }
    got
}

#[test]
fn fallocate_extends_punches_and_zeroes() {
    with_shared(s(60), |a, b| {
        let file = open(&a.join("x"));
        file.write_all_at(&[9; 300_000], 0).unwrap();
        sys::fallocate(&file, 0, 0, 400_000).expect("mode 0");
        assert_eq!(file.metadata().unwrap().len(), 400_000);
        sys::fallocate(&file, libc::FALLOC_FL_KEEP_SIZE, 0, 900_000).expect("keep size");
        assert_eq!(file.metadata().unwrap().len(), 400_000);
        let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        sys::fallocate(&file, punch, 1000, 100_000).expect("punch");
        sys::fallocate(&file, libc::FALLOC_FL_ZERO_RANGE, 299_000, 201_000).expect("zero range");
        assert_eq!(file.metadata().unwrap().len(), 500_000);
        drop(file);
        let mut want = vec![0; 500_000];
        want[..1000].fill(9);
        want[101_000..299_000].fill(9);
        assert!(fs::read(b.join("x")).unwrap() == want);
    });
}

#[test]
fn holes_and_data_are_found() {
    with_shared(s(60), |a, b| {
        let file = open(&a.join("x"));
        file.write_all_at(&[1; 1 << 16], 1 << 20).unwrap();
        file.write_all_at(&[2; 1 << 16], 8 << 20).unwrap();
        file.set_len(16 << 20).unwrap();
        drop(file);
        let file = File::open(b.join("x")).unwrap();
        let data = |from| sys::seek(&file, from, libc::SEEK_DATA);
        let hole = |from| sys::seek(&file, from, libc::SEEK_HOLE);
        assert_eq!(data(0).unwrap(), 1 << 20);
        assert_eq!(hole(0).unwrap(), 0);
        let end = hole(1 << 20).unwrap();
        assert_eq!(end, (1 << 20) + (1 << 16));
        assert_eq!(data(end).unwrap(), 8 << 20);
        assert_eq!(hole(9 << 20).unwrap(), 9 << 20);
        expect_errno(data(9 << 20), libc::ENXIO);
        expect_errno(hole(16 << 20), libc::ENXIO);
    });
}

#[test]
fn sparse_file_over_4_gib_keeps_its_bytes_and_takes_no_space() {
    with_shared(s(60), |a, b| {
        let ends = [0u64, (4 << 30) - 3, (4 << 30) + 5, 5 << 40];
        let file = open(&a.join("x"));
        for (n, &offset) in ends.iter().enumerate() {
            file.write_all_at(&[n as u8 + 1; 8], offset).unwrap();
        }
        drop(file);
        let file = File::open(b.join("x")).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!(metadata.len(), (5 << 40) + 8);
        assert!(
            metadata.blocks() * 512 < 64 << 20,
            "{} blocks",
            metadata.blocks()
        );
        for (n, &offset) in ends.iter().enumerate() {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, offset).unwrap();
            assert_eq!(bytes, [n as u8 + 1; 8], "at {offset}");
        }
        let mut zeros = [1; 4096];
        file.read_exact_at(&mut zeros, 1 << 40).unwrap();
        assert_eq!(zeros, [0; 4096]);
    });
}

#[test]
fn mapped_files_are_read_and_written() {
    with_shared(s(60), |a, b| {
        let bytes = Random::new(3).bytes(1 << 20);
        fs::write(a.join("x"), &bytes).unwrap();
        let on_b = open(&b.join("x"));
        let seen = Mapping::new(&on_b, bytes.len()).expect("map on the other mount");
        assert!(seen.read(0, bytes.len()) == bytes);
        let on_a = open(&a.join("x"));
        let mut map = Mapping::new(&on_a, bytes.len()).expect("map");
        map.write(5000, b"written through a mapping");
        map.sync().expect("msync");
        on_a.sync_all().expect("fsync");
        let mut want = bytes;
        want[5000..5025].copy_from_slice(b"written through a mapping");
        assert!(fs::read(b.join("x")).unwrap() == want);
    });
}

#[test]
fn unlinked_file_stays_readable_until_closed_everywhere() {
    with_shared(s(90), |a, b| {
        let bytes = Random::new(4).bytes(500_000);
        fs::write(a.join("x"), &bytes).unwrap();
        let mut on_a = open(&a.join("x"));
        let mut on_b = File::open(b.join("x")).unwrap();
        fs::remove_file(a.join("x")).unwrap();
        expect_errno(File::open(b.join("x")), libc::ENOENT);
        assert_eq!(on_b.metadata().unwrap().nlink(), 0);
        on_a.seek(std::io::SeekFrom::Start(0)).unwrap();
        on_a.write_all(b"still").unwrap();
        on_a.sync_all().unwrap();
        drop(on_a);
        let mut found = Vec::new();
        on_b.read_to_end(&mut found).unwrap();
        assert_eq!(&found[..5], b"still");
        assert!(found[5..] == bytes[5..]);
    });
}

#[test]
fn file_replaced_by_rename_stays_readable_where_it_is_open() {
    with_shared(s(60), |a, b| {
        fs::write(a.join("x"), b"the old one").unwrap();
        let mut held = File::open(b.join("x")).unwrap();
        fs::write(a.join("y"), b"the new one").unwrap();
        fs::rename(a.join("y"), a.join("x")).unwrap();
        let mut text = String::new();
        held.read_to_string(&mut text).unwrap();
        assert_eq!(text, "the old one");
        assert_eq!(fs::read(b.join("x")).unwrap(), b"the new one");
    });
}

#[test]
fn big_directory_is_listed_whole_while_it_changes() {
    with_shared(LONG, |a, b| {
        let count = sized(5000, 100_000);
        let make = |from: usize| {
            for n in (from..count).step_by(8) {
                File::create(a.join(format!("entry-{n:06}"))).expect("create");
            }
        };
        let make = &make;
        std::thread::scope(|scope| (0..8).for_each(|t| drop(scope.spawn(move || make(t)))));
        let all: Vec<String> = (0..count).map(|n| format!("entry-{n:06}")).collect();
        assert!(names(b) == all);
        // entries that stay are listed once each, whatever happens to others meanwhile
        let mut seen = Vec::new();
        for (n, entry) in fs::read_dir(b).unwrap().enumerate() {
            let name = entry.unwrap().file_name().to_string_lossy().into_owned();
            if n % 50 == 0 && n / 50 * 10 + 5 < count {
                fs::remove_file(a.join(format!("entry-{:06}", n / 50 * 10 + 5))).unwrap();
                File::create(a.join(format!("new-{n}"))).unwrap();
            }
            seen.push(name);
        }
        let stays = |name: &str| name.starts_with("entry-") && !name.ends_with('5');
        let mut stayed: Vec<String> = seen.into_iter().filter(|n| stays(n)).collect();
        stayed.sort();
        let want: Vec<String> = all.into_iter().filter(|n| stays(n)).collect();
        assert!(stayed == want, "{} of {} entries", stayed.len(), want.len());
    });
}

#[test]
fn append_can_be_switched_on_and_off_while_a_file_is_open() {
    with_shared(s(60), |a, b| {
        let path = a.join("x");
        for opened_with in [0, libc::O_APPEND] {
            fs::write(&path, b"0123456789").expect("write");
            let mut options = OpenOptions::new();
            options.read(true).write(true);
            let file = options.custom_flags(opened_with).open(&path).expect("open");
            sys::set_append(&file, false).expect("F_SETFL");
            file.write_at(b"ab", 2).expect("write in the middle");
            sys::set_append(&file, true).expect("F_SETFL");
            file.write_at(b"cd", 0).expect("write at the end");
            file.sync_all().expect("fsync");
            let found = fs::read(b.join("x")).expect("read");
            assert_eq!(found, b"01ab456789cd", "opened with {opened_with:#o}");
            let mut own = [0; 12];
            file.read_exact_at(&mut own, 0).expect("read it back");
            assert_eq!(&own, b"01ab456789cd");
        }
    });
}

#[test]
fn renames_exchange_and_refuse_as_told() {
    with_shared(s(60), |a, b| {
        fs::write(a.join("x"), b"x").unwrap();
        fs::write(a.join("y"), b"y").unwrap();
        let noreplace =
            |from: &str, to: &str| sys::rename(&a.join(from), &a.join(to), libc::RENAME_NOREPLACE);
        expect_errno(noreplace("x", "y"), libc::EEXIST);
        noreplace("x", "z").unwrap();
        sys::rename(&b.join("y"), &b.join("z"), libc::RENAME_EXCHANGE).unwrap();
        assert_eq!(fs::read(a.join("y")).unwrap(), b"x");
        assert_eq!(fs::read(a.join("z")).unwrap(), b"y");
        fs::create_dir_all(a.join("d/e")).unwrap();
        expect_errno(fs::rename(a.join("d"), a.join("d/e/f")), libc::EINVAL);
        expect_errno(fs::rename(b.join("d"), b.join("y")), libc::ENOTDIR);
        expect_errno(fs::rename(b.join("y"), b.join("d")), libc::EISDIR);
        let exchange = libc::RENAME_EXCHANGE;
        expect_errno(
            sys::rename(&a.join("d"), &a.join("d/e"), exchange),
            libc::EINVAL,
        );
        expect_errno(
            sys::rename(&a.join("y"), &a.join("none"), exchange),
            libc::ENOENT,
        );
    });
}

#[test]
fn directories_cannot_be_renamed_into_each_other() {
    with_shared(LONG, |a, b| {
        for n in 0..30 {
            let (x, y) = (format!("x{n}"), format!("y{n}"));
            fs::create_dir_all(a.join(&x)).unwrap();
            fs::create_dir_all(a.join(&y)).unwrap();
            std::thread::scope(|scope| {
                scope.spawn(|| fs::rename(a.join(&x), a.join(&y).join("in")));
                scope.spawn(|| fs::rename(b.join(&y), b.join(&x).join("in")));
            });
            let left = [a.join(&x).exists(), a.join(&y).exists()];
            assert!(left[0] || left[1], "round {n}: both are gone, in a cycle");
        }
    });
}

#[test]
fn names_up_to_255_bytes_and_of_any_bytes_work() {
    with_shared(s(60), |a, b| {
        let long = "n".repeat(255);
        fs::write(a.join(&long), b"x").unwrap();
        assert_eq!(fs::read(b.join(&long)).unwrap(), b"x");
        expect_errno(fs::write(a.join("n".repeat(256)), b"x"), libc::ENAMETOOLONG);
        expect_errno(fs::create_dir(a.join("n".repeat(256))), libc::ENAMETOOLONG);
        for name in [
            "with space",
            "tab\t",
            "new\nline",
            "ünïcödé",
            "-rf",
            "*",
            "a'b\"c",
        ] {
            fs::write(a.join(name), name.as_bytes()).unwrap();
            assert_eq!(fs::read(b.join(name)).unwrap(), name.as_bytes());
        }
        let raw = std::os::unix::ffi::OsStrExt::from_bytes(&[0xff, 0xfe, b'x']);
        let raw: &std::ffi::OsStr = raw;
        fs::write(a.join(raw), b"no text").unwrap();
        let mut entries = fs::read_dir(b).unwrap();
        assert!(entries.any(|e| e.unwrap().file_name() == raw));
    });
}

#[test]
fn wrong_calls_get_the_errno_that_linux_gives() {
    with_shared(s(60), |a, _| {
        fs::write(a.join("file"), b"x").unwrap();
        fs::create_dir(a.join("dir")).unwrap();
        expect_errno(File::open(a.join("none")), libc::ENOENT);
        expect_errno(File::open(a.join("file/below")), libc::ENOTDIR);
        expect_errno(fs::read_dir(a.join("file")), libc::ENOTDIR);
        expect_errno(
            OpenOptions::new().write(true).open(a.join("dir")),
            libc::EISDIR,
        );
        expect_errno(fs::create_dir(a.join("dir")), libc::EEXIST);
        expect_errno(fs::remove_dir(a.join("file")), libc::ENOTDIR);
        expect_errno(fs::remove_file(a.join("dir")), libc::EISDIR);
        expect_errno(fs::hard_link(a.join("dir"), a.join("link")), libc::EPERM);
        expect_errno(fs::read_link(a.join("file")), libc::EINVAL);
        let file = open(&a.join("file"));
        expect_errno(file.set_len(i64::MAX as u64), libc::EFBIG);
        expect_errno(file.write_at(b"x", i64::MAX as u64 - 1), libc::EFBIG);
        let read_only = File::open(a.join("file")).unwrap();
        expect_errno(read_only.write_at(b"x", 0), libc::EBADF);
        assert_eq!(fs::read(a.join("file")).unwrap(), b"x");
    });
}

#[test]
fn extended_attributes_are_kept_and_bounded() {
    with_shared(s(60), |a, b| {
        let (on_a, on_b) = (a.join("x"), b.join("x"));
        fs::write(&on_a, b"x").unwrap();
        let big = Random::new(8).bytes(60_000);
        sys::set_xattr(&on_a, "user.big", &big, libc::XATTR_CREATE).unwrap();
        assert!(sys::get_xattr(&on_b, "user.big").unwrap() == big);
        expect_errno(
            sys::set_xattr(&on_b, "user.big", b"", libc::XATTR_CREATE),
            libc::EEXIST,
        );
        sys::set_xattr(&on_b, "user.big", b"", libc::XATTR_REPLACE).unwrap();
        assert_eq!(sys::get_xattr(&on_a, "user.big").unwrap(), b"");
        let replace = libc::XATTR_REPLACE;
        expect_errno(
            sys::set_xattr(&on_a, "user.none", b"", replace),
            libc::ENODATA,
        );
        expect_errno(sys::remove_xattr(&on_a, "user.none"), libc::ENODATA);
        assert_eq!(sys::list_xattrs(&on_b).unwrap(), ["user.big"]);
        sys::set_xattr(a, "user.on-a-directory", b"1", 0).unwrap();
        assert_eq!(sys::get_xattr(b, "user.on-a-directory").unwrap(), b"1");
    });
}

#[test]
fn state_of_a_file_is_in_attributes_that_are_not_listed() {
    with_shared(s(60), |a, b| {
        let path = a.join("x");
        fs::write(&path, b"bytes").unwrap();
        assert_eq!(attribute(&b.join("x"), "state"), "local");
        // servers that are silent for a moment do not count
        until("both copies count", PATIENCE, || {
            (attribute(&b.join("x"), "copies") == "2/2").then_some(())
        });
        expect_errno(sys::get_xattr(&path, "user.lagan.object"), libc::ENODATA);
        for name in ["state", "object", "copies"] {
            let name = format!("user.lagan.{name}");
            expect_errno(sys::set_xattr(&path, &name, b"x", 0), libc::EPERM);
        }
        assert_eq!(sys::list_xattrs(&path).unwrap(), Vec::<String>::new());
    });
}

#[test]
fn permissions_bind_other_users() {
    with_shared(s(60), |a, b| {
        fs::set_permissions(a, PermissionsExt::from_mode(0o755)).unwrap();
        fs::write(a.join("private"), b"secret").unwrap();
        fs::set_permissions(a.join("private"), PermissionsExt::from_mode(0o600)).unwrap();
        fs::write(a.join("public"), b"open").unwrap();
        fs::set_permissions(a.join("public"), PermissionsExt::from_mode(0o644)).unwrap();
        let as_nobody = |script: &str| {
            use std::os::unix::process::CommandExt;
            let mut sh = std::process::Command::new("sh");
            sh.uid(65534)
                .gid(65534)
                .args(["-c", script])
                .current_dir("/");
            lagan_tests::command::run(&mut sh, PATIENCE)
                .expect("the script ends")
                .status
        };
        // the directories above are the test's own: opened for this
        let root = b
            .parent()
            .and_then(Path::parent)
            .expect("a test has a root");
        fs::set_permissions(root, PermissionsExt::from_mode(0o711)).unwrap();
        let path = |name: &str| b.join(name).display().to_string();
        assert_eq!(as_nobody(&format!("cat {}", path("public"))), Some(0));
        assert_ne!(as_nobody(&format!("cat {}", path("private"))), Some(0));
        assert_ne!(as_nobody(&format!("echo x >> {}", path("public"))), Some(0));
        assert_ne!(as_nobody(&format!("touch {}", path("mine"))), Some(0));
        fs::set_permissions(a, PermissionsExt::from_mode(0o1777)).unwrap();
        assert_eq!(as_nobody(&format!("echo x > {}", path("mine"))), Some(0));
        assert_eq!(fs::metadata(a.join("mine")).unwrap().uid(), 65534);
        assert_ne!(
            as_nobody(&format!("rm -f {}", path("public"))),
            Some(0),
            "sticky"
        );
    });
}

#[test]
fn set_user_id_goes_when_another_user_writes() {
    with_shared(s(60), |a, b| {
        fs::write(a.join("tool"), b"x").unwrap();
        std::os::unix::fs::chown(a.join("tool"), Some(65534), Some(65534)).unwrap();
        fs::set_permissions(a.join("tool"), PermissionsExt::from_mode(0o6777)).unwrap();
        std::os::unix::fs::chown(b.join("tool"), Some(1), None).unwrap();
        assert_eq!(fs::metadata(a.join("tool")).unwrap().mode() & 0o6000, 0);
    });
}

#[test]
fn special_files_are_what_they_were_made() {
    with_shared(s(60), |a, b| {
        sys::mknod(&a.join("fifo"), libc::S_IFIFO | 0o600, 0).unwrap();
        sys::mknod(&a.join("null"), libc::S_IFCHR | 0o666, libc::makedev(1, 3)).unwrap();
        let listener = std::os::unix::net::UnixListener::bind(a.join("s"));
        let kind = |name: &str| fs::symlink_metadata(b.join(name)).unwrap();
        assert!(kind("fifo").file_type().is_fifo());
        assert!(kind("null").file_type().is_char_device());
        assert_eq!(kind("null").rdev(), libc::makedev(1, 3));
        assert!(listener.is_err() || kind("s").file_type().is_socket());
    });
}

#[test]
fn times_are_kept_to_the_nanosecond() {
    with_shared(s(60), |a, b| {
        let path = a.join("x");
        fs::write(&path, b"x").unwrap();
        let epoch = std::time::UNIX_EPOCH;
        let at = |s, n| epoch + std::time::Duration::new(s, n);
        let times = fs::FileTimes::new()
            .set_accessed(at(1, 2))
            .set_modified(at(3, 999_999_999));
        open(&path).set_times(times).unwrap();
        let m = fs::metadata(b.join("x")).unwrap();
        assert_eq!(
            (m.atime(), m.atime_nsec(), m.mtime(), m.mtime_nsec()),
            (1, 2, 3, 999_999_999)
        );
        let before = (m.ctime(), m.ctime_nsec());
        fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
        let m = fs::metadata(b.join("x")).unwrap();
        assert!((m.ctime(), m.ctime_nsec()) > before, "ctime rises");
        assert_eq!((m.mtime(), m.mtime_nsec()), (3, 999_999_999));
    });
}

#[test]
fn direct_and_synchronous_files_work() {
    with_shared(s(60), |a, b| {
        for (name, flag) in [("sync", libc::O_SYNC), ("dsync", libc::O_DSYNC)] {
            let mut options = OpenOptions::new();
            options.create(true).write(true).custom_flags(flag);
            let mut file = options.open(a.join(name)).unwrap();
            file.write_all(b"on disk").unwrap();
            let seen = fs::read(b.join(name)).unwrap();
            assert_eq!(seen, b"on disk", "before close");
        }
        let mut options = OpenOptions::new();
        options
            .create(true)
            .read(true)
            .write(true)
            .custom_flags(libc::O_DIRECT);
        let file = options.open(a.join("direct")).unwrap();
        file.write_all_at(&[5; 8192], 4096).unwrap();
        drop(file);
        let bytes = fs::read(b.join("direct")).unwrap();
        assert!(bytes.len() == 12_288 && bytes[4096..] == [5; 8192] && bytes[..4096] == [0; 4096]);
    });
}

#[test]
fn statfs_divides_by_the_number_of_copies() {
    with_shared(s(60), |a, b| {
        let below = |path: &Path| sys::statvfs(path).expect("statvfs");
        let (ours, again) = (below(a), below(b));
        assert_eq!(ours.f_namemax, 255);
        let total = |of: &libc::statvfs| of.f_blocks * of.f_frsize;
        // others use the disk meanwhile
        assert!(total(&ours).abs_diff(total(&again)) <= total(&ours) / 10);
        assert!(ours.f_bavail <= ours.f_bfree && ours.f_bfree <= ours.f_blocks);
        assert!(ours.f_bavail > 0);
        let disk = below(&std::env::temp_dir());
        let (ours, disk) = (total(&ours), total(&disk));
        // three servers on one disk, two copies
        assert!(ours <= disk / 2 * 3 + disk / 50, "{ours} of {disk}");
    });
}

#[test]
fn shell_tools_work_on_a_mount() {
    with_shared(LONG, |a, b| {
        let script = "set -e; cd \"$0\"; mkdir src; cp -a /usr/share/common-licenses src/; \
             tar cf all.tar src; mkdir out; tar xf all.tar -C out; diff -r src out/src; \
             gzip -k all.tar; gunzip -c all.tar.gz | cmp - all.tar; sort all.tar | md5sum >sum; \
             dd if=all.tar of=copy bs=4k conv=fsync 2>/dev/null; cmp all.tar copy; \
             ln all.tar hard; mv all.tar moved; cmp hard moved; find . -type f | wc -l >count; \
             rm -r src; sed -i s/x/y/ count; cp --sparse=always copy sparse; cmp copy sparse";
        let path = a.to_str().expect("paths of tests are text");
        lagan_tests::command::must("sh", &["-c", script, path], LONG);
        lagan_tests::command::must(
            "cmp",
            &[
                b.join("hard").to_str().unwrap(),
                b.join("sparse").to_str().unwrap(),
            ],
            PATIENCE,
        );
    });
}
