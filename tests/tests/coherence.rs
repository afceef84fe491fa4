//! What one mount has closed or fsynced, every later call on another sees.

use crate::shorthands::{expect_errno, names, s};
use lagan_tests::random::Random;
use lagan_tests::{sys, with_shared};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::Path;

const ROUNDS: usize = 100;

fn write(path: &Path, bytes: &[u8]) {
    fs::write(path, bytes).unwrap_or_else(|e| panic!("write {}: {e}", path.display()));
}

fn read(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap_or_else(|e| panic!("read {}: {e}", path.display()))
}

#[test]
fn closed_file_is_read_at_once_on_the_other_mount() {
    with_shared(s(120), |a, b| {
        let mut random = Random::new(1);
        for n in 0..ROUNDS {
            let name = format!("{n}");
            expect_errno(fs::metadata(b.join(&name)), libc::ENOENT);
            let len = random.size(1, 300_000) as usize;
            let bytes = random.bytes(len);
            write(&a.join(&name), &bytes);
            assert!(read(&b.join(&name)) == bytes, "round {n}");
            assert_eq!(
                fs::metadata(b.join(&name)).unwrap().len(),
                bytes.len() as u64
            );
        }
        assert_eq!(names(b).len(), ROUNDS);
    });
}

#[test]
fn rewritten_file_is_never_read_old() {
    with_shared(s(120), |a, b| {
        let (on_a, on_b) = (a.join("x"), b.join("x"));
        write(&on_a, b"start");
        // a handle that stays open must see it, too
        let held = File::open(&on_b).expect("open");
        for n in 0..ROUNDS {
            // the same length each time: only the version tells
            let text = format!("round {n:05}");
            let (from, to) = if n % 2 == 0 {
                (&on_a, &on_b)
            } else {
                (&on_b, &on_a)
            };
            write(from, text.as_bytes());
            assert_eq!(read(to), text.as_bytes());
            let mut seen = vec![0; text.len()];
            held.read_exact_at(&mut seen, 0)
                .expect("read the open handle");
            assert_eq!(seen, text.as_bytes(), "through a handle opened before");
        }
    });
}

#[test]
fn content_is_new_even_when_time_and_size_were_set_back() {
    with_shared(s(60), |a, b| {
        let (on_a, on_b) = (a.join("x"), b.join("x"));
        write(&on_a, b"old content");
        let time = fs::metadata(&on_a).unwrap().modified().unwrap();
        assert_eq!(read(&on_b), b"old content");
        let mut file = OpenOptions::new().write(true).open(&on_a).unwrap();
        file.write_all(b"new content").unwrap();
        file.set_modified(time).unwrap();
        drop(file);
        assert_eq!(read(&on_b), b"new content");
    });
}

/// Also where the file is open and mapped: from the mount's next look at it.
#[test]
fn rsync_in_place_with_the_old_time_is_seen_in_open_and_mapped_files() {
    with_shared(s(60), |a, b| {
        let (on_a, on_b) = (a.join("x"), b.join("x"));
        let (old, new) = (vec![b'o'; 300_000], vec![b'n'; 300_000]);
        write(&on_a, &old);
        let open = OpenOptions::new().read(true).write(true).open(&on_b);
        let open = open.unwrap();
        let shared = sys::Mapping::new(&open, old.len()).unwrap();
        let private = sys::Mapping::private(&open, old.len()).unwrap();
        assert!(shared.read(0, old.len()) == old && private.read(0, old.len()) == old);
        write(&a.join("source"), &new);
        let source = File::options().write(true).open(a.join("source")).unwrap();
        let time = fs::metadata(&on_a).unwrap().modified().unwrap();
        source.set_modified(time).unwrap();
        drop(source);
        let paths = [a.join("source"), on_a.clone()].map(|p| p.display().to_string());
        let args = ["-a", "--ignore-times", "--inplace", &paths[0], &paths[1]];
        lagan_tests::command::must("rsync", &args, s(120));
        let seen = fs::metadata(&on_b).unwrap();
        assert_eq!((seen.len(), seen.modified().unwrap()), (300_000, time));
        let mut bytes = vec![0; old.len()];
        open.read_exact_at(&mut bytes, 0).unwrap();
        assert!(bytes == new, "through the open file");
        assert!(shared.read(0, new.len()) == new, "through the mapping");
        assert!(private.read(0, new.len()) == new, "not written to here");
    });
}

/// From the mount's next look at the directory under its new name.
#[test]
fn the_directory_above_is_the_new_one_after_a_rename() {
    with_shared(s(60), |a, b| {
        for dir in ["x/d/in", "y"] {
            fs::create_dir_all(a.join(dir)).unwrap();
        }
        let ino = |path: &Path| fs::metadata(path).unwrap().ino();
        let above = |dir: &File| {
            use std::os::fd::AsRawFd;
            ino(Path::new(&format!(
                "/proc/thread-self/fd/{}/..",
                dir.as_raw_fd()
            )))
        };
        let (on_a, on_b) = (a.join("x/d/in"), b.join("x/d/in"));
        let (on_a, on_b) = (File::open(on_a).unwrap(), File::open(on_b).unwrap());
        assert_eq!(
            (above(&on_a), above(&on_b)),
            (ino(&a.join("x/d")), ino(&b.join("x/d")))
        );
        fs::rename(a.join("x/d/in"), a.join("y/in")).unwrap();
        assert_eq!(above(&on_a), ino(&a.join("y")));
        assert_eq!(ino(&b.join("y/in")), on_b.metadata().unwrap().ino());
        assert_eq!(above(&on_b), ino(&b.join("y")));
        assert_eq!(ino(&b.join("y/in/../../x")), ino(&a.join("x")));
    });
}

#[test]
fn places_in_a_directory_stay_while_others_make_and_remove_names() {
    with_shared(s(60), |a, b| {
        let name = |n: usize| format!("n{n:03}");
        for n in 0..300 {
            write(&a.join(name(n)), b"");
        }
        let mut listing = sys::Listing::open(b).unwrap();
        let before: Vec<Vec<u8>> = listing.by_ref().take(50).collect();
        let place = listing.place();
        let after: Vec<Vec<u8>> = listing.by_ref().collect();
        for n in (0..300).filter(|n| n % 3 == 0) {
            fs::remove_file(a.join(name(n))).unwrap();
            write(&a.join(format!("later{n}")), b"");
        }
        let gone = |name: &[u8]| {
            let text = String::from_utf8_lossy(name).into_owned();
            text.strip_prefix('n')
                .and_then(|n| n.parse::<usize>().ok())
                .is_some_and(|n| n % 3 == 0)
        };
        // of what is removed meanwhile, entries may be shown or not
        let stays = |name: &Vec<u8>| !name.starts_with(b"later") && !gone(name);
        let stayed: Vec<Vec<u8>> = after.into_iter().filter(stays).collect();
        for _ in 0..2 {
            listing.go_to(place);
            let again: Vec<Vec<u8>> = listing.by_ref().filter(stays).collect();
            assert!(again == stayed, "after {} entries", before.len());
        }
    });
}

#[test]
fn what_is_written_to_a_private_mapping_stays_there() {
    with_shared(s(60), |a, b| {
        write(&a.join("x"), &[1; 8192]);
        let file = OpenOptions::new().read(true).write(true).open(b.join("x"));
        let file = file.unwrap();
        let mut private = sys::Mapping::private(&file, 8192).unwrap();
        private.write(4096, b"mine");
        assert_eq!(private.read(4096, 4), b"mine");
        private.sync().unwrap();
        file.sync_all().unwrap();
        assert_eq!(read(&b.join("x")), [1; 8192]);
        assert_eq!(read(&a.join("x")), [1; 8192]);
    });
}

#[test]
fn fsynced_bytes_are_seen_before_close() {
    with_shared(s(60), |a, b| {
        let mut file = File::create(a.join("log")).unwrap();
        for n in 0..30 {
            writeln!(file, "line {n}").unwrap();
            file.sync_all().unwrap();
            let text = String::from_utf8(read(&b.join("log"))).unwrap();
            assert_eq!(text.lines().count(), n + 1);
            assert_eq!(text.lines().last(), Some(format!("line {n}").as_str()));
        }
    });
}

#[test]
fn names_change_on_both_mounts_at_once() {
    with_shared(s(120), |a, b| {
        for n in 0..ROUNDS {
            let (here, there) = if n % 2 == 0 { (a, b) } else { (b, a) };
            let old = format!("old{n}");
            let new = format!("new{n}");
            write(&here.join(&old), old.as_bytes());
            fs::rename(there.join(&old), there.join(&new)).expect("rename on the other mount");
            expect_errno(fs::metadata(here.join(&old)), libc::ENOENT);
            assert_eq!(read(&here.join(&new)), old.as_bytes());
            fs::remove_file(there.join(&new)).expect("unlink on the other mount");
            expect_errno(File::open(here.join(&new)), libc::ENOENT);
            assert_eq!(names(here), Vec::<String>::new());
        }
    });
}

#[test]
fn file_replaced_by_rename_is_the_new_one_everywhere() {
    with_shared(s(120), |a, b| {
        write(&a.join("config"), b"version 0");
        for n in 1..=ROUNDS {
            let text = format!("version {n}");
            write(&a.join("config.new"), text.as_bytes());
            fs::rename(a.join("config.new"), a.join("config")).expect("rename over");
            assert_eq!(read(&b.join("config")), text.as_bytes());
            assert_eq!(names(b), ["config"]);
        }
    });
}

#[test]
fn attributes_are_the_same_on_both_mounts() {
    with_shared(s(60), |a, b| {
        write(&a.join("x"), b"0123456789");
        fs::set_permissions(a.join("x"), PermissionsExt::from_mode(0o640)).unwrap();
        std::os::unix::fs::chown(a.join("x"), Some(1234), Some(4321)).unwrap();
        fs::hard_link(a.join("x"), a.join("y")).unwrap();
        let file = OpenOptions::new().write(true).open(b.join("x")).unwrap();
        file.set_len(4).unwrap();
        drop(file);
        sys::set_xattr(&b.join("y"), "user.kind", b"mail", 0).unwrap();
        let facts = |path: &Path| {
            let m = fs::metadata(path).unwrap();
            let times = (m.mtime(), m.mtime_nsec(), m.ctime(), m.ctime_nsec());
            (
                m.ino(),
                m.mode(),
                m.uid(),
                m.gid(),
                m.nlink(),
                m.len(),
                times,
            )
        };
        assert_eq!(facts(&a.join("x")), facts(&b.join("y")));
        assert_eq!(facts(&b.join("x")).5, 4);
        assert_eq!((facts(&a.join("x")).2, facts(&a.join("x")).4), (1234, 2));
        assert_eq!(sys::get_xattr(&a.join("x"), "user.kind").unwrap(), b"mail");
        sys::remove_xattr(&a.join("x"), "user.kind").unwrap();
        expect_errno(sys::get_xattr(&b.join("x"), "user.kind"), libc::ENODATA);
    });
}

#[test]
fn change_of_mode_does_not_keep_old_bytes() {
    with_shared(s(60), |a, b| {
        fs::write(a.join("x"), [b'o'; 10_000]).unwrap();
        let held = File::open(b.join("x")).unwrap();
        let mut found = [0; 10_000];
        held.read_exact_at(&mut found, 0).unwrap();
        let writer = OpenOptions::new().write(true).open(a.join("x")).unwrap();
        writer.write_all_at(&[b'n'; 10_000], 0).unwrap();
        drop(writer);
        // its answer brings the new times, and the kernel drops no pages for it
        held.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        held.read_exact_at(&mut found, 0).unwrap();
        assert!(found == [b'n'; 10_000], "bytes of before");
    });
}

#[test]
fn removed_directory_has_no_entries_where_it_is_open() {
    with_shared(s(60), |a, b| {
        fs::create_dir(a.join("d")).unwrap();
        let held = File::open(b.join("d")).unwrap();
        fs::remove_dir(a.join("d")).unwrap();
        // not readdir(3), which takes this for the end
        let found = sys::entries(&held).map(|entries| entries.len());
        expect_errno(found, libc::ENOENT);
    });
}

#[test]
fn directories_and_links_appear_and_go_on_both_mounts() {
    with_shared(s(60), |a, b| {
        fs::create_dir_all(a.join("d/e/f")).unwrap();
        std::os::unix::fs::symlink("e/f", b.join("d/link")).unwrap();
        assert_eq!(fs::read_link(a.join("d/link")).unwrap(), Path::new("e/f"));
        write(&b.join("d/link/x"), b"through the link");
        assert_eq!(read(&a.join("d/e/f/x")), b"through the link");
        expect_errno(fs::remove_dir(b.join("d/e/f")), libc::ENOTEMPTY);
        fs::remove_file(a.join("d/e/f/x")).unwrap();
        fs::remove_dir(b.join("d/e/f")).unwrap();
        expect_errno(fs::read_dir(a.join("d/e/f")), libc::ENOENT);
        assert_eq!(fs::metadata(b.join("d")).unwrap().nlink(), 3);
    });
}

#[test]
fn exclusive_create_has_one_winner() {
    with_shared(s(120), |a, b| {
        for n in 0..ROUNDS {
            let name = format!("{n}");
            let paths = [a.join(&name), b.join(&name)];
            let create = |path: &Path| match File::create_new(path) {
                Ok(_) => true,
                Err(e) => {
                    assert_eq!(e.raw_os_error(), Some(libc::EEXIST), "{e}");
                    false
                }
            };
            let won = std::thread::scope(|scope| {
                let both = paths.each_ref().map(|p| scope.spawn(move || create(p)));
                both.map(|t| t.join().expect("creators do not panic"))
            });
            assert!(won[0] != won[1], "round {n}: {won:?}");
        }
    });
}

#[test]
fn appends_from_two_mounts_overwrite_nothing() {
    with_shared(s(180), |a, b| {
        let lines = 150;
        let append = |path: &Path, who: usize| {
            let mut file = OpenOptions::new()
                .append(true)
                .create(true)
                .open(path)
                .unwrap();
            for n in 0..lines {
                let len = (n * 37) % 500;
                let line = format!("{who} {n} {}\n", "x".repeat(len));
                file.write_all(line.as_bytes()).expect("append");
            }
            file.sync_all().expect("sync");
        };
        let append = &append;
        let paths = [a.join("log"), b.join("log"), a.join("log"), b.join("log")];
        std::thread::scope(|scope| {
            for (who, path) in paths.iter().enumerate() {
                scope.spawn(move || append(path, who));
            }
        });
        let text = String::from_utf8(read(&b.join("log"))).expect("nothing but text");
        assert_eq!(text.lines().count(), 4 * lines);
        for who in 0..4 {
            let mine = text.lines().filter(|l| l.starts_with(&format!("{who} ")));
            let numbers: Vec<usize> = mine
                .map(|l| l.split(' ').nth(1).unwrap().parse().unwrap())
                .collect();
            assert_eq!(
                numbers,
                (0..lines).collect::<Vec<_>>(),
                "in order, writer {who}"
            );
        }
        assert!(read(&a.join("log")) == text.as_bytes());
    });
}

#[test]
fn writers_of_different_ranges_keep_each_others_bytes() {
    with_shared(s(120), |a, b| {
        const PART: usize = 70_000;
        const PARTS: usize = 20;
        File::create(a.join("x")).unwrap();
        let fill = |path: &Path, first: usize| {
            let file = OpenOptions::new().write(true).open(path).unwrap();
            for part in (first..PARTS).step_by(2) {
                file.write_all_at(&vec![part as u8 + 1; PART], (part * PART) as u64)
                    .unwrap();
                file.sync_all().unwrap();
            }
        };
        let fill = &fill;
        std::thread::scope(|scope| {
            scope.spawn(move || fill(&a.join("x"), 0));
            scope.spawn(move || fill(&b.join("x"), 1));
        });
        let bytes = read(&a.join("x"));
        assert_eq!(bytes.len(), PART * PARTS);
        for (part, bytes) in bytes.chunks(PART).enumerate() {
            assert!(bytes.iter().all(|&b| b == part as u8 + 1), "part {part}");
        }
        assert!(read(&b.join("x")) == bytes);
    });
}

#[test]
fn truncation_elsewhere_shows_in_open_handles() {
    with_shared(s(60), |a, b| {
        write(&a.join("x"), &[7; 200_000]);
        let mut held = File::open(b.join("x")).unwrap();
        let mut first = [0; 10];
        held.read_exact(&mut first).unwrap();
        let file = OpenOptions::new().write(true).open(a.join("x")).unwrap();
        file.set_len(5).unwrap();
        file.set_len(100).unwrap();
        drop(file);
        held.seek(SeekFrom::Start(0)).unwrap();
        let mut all = Vec::new();
        held.read_to_end(&mut all).unwrap();
        assert_eq!(
            (all.len(), &all[..5], &all[5..]),
            (100, &[7u8; 5][..], &[0u8; 95][..])
        );
    });
}
