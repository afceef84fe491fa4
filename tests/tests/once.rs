//! Every kind of change, again and again, while leaders are killed: one that was
//! carried out and not answered must not be carried out a second time, nor fail
//! because it was. Each kind would notice: a name is there already or gone, two
//! files are exchanged back, a line is there twice.

use lagan_tests::cluster::PATIENCE;
use lagan_tests::run::LONG;
use lagan_tests::wait::until;
use lagan_tests::{Options, sized, sys, with_cluster};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// One round of one kind in a directory of its own, on paths that no other uses.
type Round = fn(&Path, u64) -> io::Result<()>;

const KINDS: [(&str, Round); 12] = [
    ("create", create),
    ("mkdir", mkdir),
    ("mknod", mknod),
    ("symlink", make_symlink),
    ("link", link),
    ("rename", rename),
    ("exchange", exchange),
    ("xattr", xattr),
    ("append", append),
    ("attributes", attributes),
    ("allocate", allocate),
    ("lock", lock),
];

#[test]
fn every_kind_of_change_is_carried_out_once_across_leaders() {
    let why = "leaders are killed";
    with_cluster(Options::default().with_faults(why), LONG, |cluster| {
        let stop = AtomicBool::new(false);
        let rounds = KINDS.map(|_| AtomicU64::new(0));
        std::thread::scope(|scope| {
            let workers: Vec<_> = KINDS
                .iter()
                .zip(&rounds)
                .enumerate()
                .map(|(n, ((name, round), done))| {
                    let mount = if n % 2 == 0 { cluster.a() } else { cluster.b() };
                    let (dir, stop) = (mount.join(name), &stop);
                    scope.spawn(move || work(&dir, *round, done, stop))
                })
                .collect();
            for _ in 0..sized(4, 40) {
                // all of them are at it when the leader dies
                wait_more(&rounds, 3);
                let leader = cluster.leader();
                cluster.kill(&leader);
                wait_more(&rounds, 1);
                cluster.start(&leader);
                cluster.wait_healthy();
            }
            stop.store(true, Ordering::Relaxed);
            for (worker, (name, _)) in workers.into_iter().zip(KINDS) {
                let ended = worker.join().expect("a worker's thread");
                assert!(ended.is_ok(), "{name}: {ended:?}");
            }
        });
        cluster.check();
    });
}

/// Until one fails or it is over.
fn work(dir: &Path, round: Round, done: &AtomicU64, stop: &AtomicBool) -> io::Result<()> {
    fs::create_dir(dir)?;
    let mut n = 0;
    while !stop.load(Ordering::Relaxed) {
        let ended = round(dir, n);
        // a worker that has failed is not waited for
        done.store(
            if ended.is_ok() { n + 1 } else { u64::MAX },
            Ordering::Relaxed,
        );
        ended?;
        n += 1;
    }
    Ok(())
}

fn wait_more(rounds: &[AtomicU64], more: u64) {
    let goal: Vec<u64> = rounds
        .iter()
        .map(|r| r.load(Ordering::Relaxed).saturating_add(more))
        .collect();
    until("every kind went on", 2 * PATIENCE, || {
        let reached = rounds.iter().zip(&goal);
        let mut reached = reached.map(|(r, goal)| r.load(Ordering::Relaxed) >= *goal);
        reached.all(|r| r).then_some(())
    });
}

#[track_caller]
fn ensure(holds: bool, what: &str) -> io::Result<()> {
    match holds {
        true => Ok(()),
        false => Err(io::Error::other(what.to_owned())),
    }
}

fn create(dir: &Path, n: u64) -> io::Result<()> {
    let path = dir.join(n.to_string());
    File::create_new(&path)?.write_all(b"first")?;
    let file = OpenOptions::new().write(true).truncate(true).open(&path)?;
    (&file).write_all(b"second")?;
    drop(file);
    ensure(fs::read(&path)? == b"second", "what was written")?;
    fs::remove_file(&path)
}

fn mkdir(dir: &Path, n: u64) -> io::Result<()> {
    let path = dir.join(n.to_string());
    fs::create_dir(&path)?;
    ensure(fs::metadata(dir)?.nlink() == 3, "one directory in it")?;
    fs::remove_dir(&path)?;
    ensure(fs::metadata(dir)?.nlink() == 2, "no directory in it")
}

fn mknod(dir: &Path, n: u64) -> io::Result<()> {
    let path = dir.join(n.to_string());
    sys::mknod(&path, libc::S_IFIFO | 0o600, 0)?;
    fs::remove_file(&path)
}

fn make_symlink(dir: &Path, n: u64) -> io::Result<()> {
    let path = dir.join(n.to_string());
    symlink("target", &path)?;
    ensure(fs::read_link(&path)? == Path::new("target"), "its target")?;
    fs::remove_file(&path)
}

fn link(dir: &Path, n: u64) -> io::Result<()> {
    let (file, other) = (dir.join("file"), dir.join(n.to_string()));
    if n == 0 {
        File::create_new(&file)?;
    }
    fs::hard_link(&file, &other)?;
    ensure(fs::metadata(&file)?.nlink() == 2, "two names")?;
    fs::remove_file(&other)?;
    ensure(fs::metadata(&file)?.nlink() == 1, "one name")
}

fn rename(dir: &Path, n: u64) -> io::Result<()> {
    let (from, to) = (dir.join(n.to_string()), dir.join((n + 1).to_string()));
    if n == 0 {
        File::create_new(&from)?;
    }
    match n % 2 {
        0 => fs::rename(&from, &to),
        _ => sys::rename(&from, &to, libc::RENAME_NOREPLACE),
    }
}

fn exchange(dir: &Path, n: u64) -> io::Result<()> {
    let names = [dir.join("one"), dir.join("two")];
    if n == 0 {
        fs::write(&names[0], "0")?;
        fs::write(&names[1], "1")?;
    }
    sys::rename(&names[0], &names[1], libc::RENAME_EXCHANGE)?;
    let now = fs::read_to_string(&names[0])?;
    ensure(now == ((n + 1) % 2).to_string(), "exchanged once")
}

fn xattr(dir: &Path, n: u64) -> io::Result<()> {
    let value = n.to_string();
    sys::set_xattr(dir, "user.a", value.as_bytes(), libc::XATTR_CREATE)?;
    ensure(
        sys::get_xattr(dir, "user.a")? == value.as_bytes(),
        "the value",
    )?;
    sys::remove_xattr(dir, "user.a")
}

fn append(dir: &Path, n: u64) -> io::Result<()> {
    let path = dir.join("log");
    let mut log = OpenOptions::new().create(true).append(true).open(&path)?;
    log.write_all(format!("{n:09}\n").as_bytes())?;
    log.sync_all()?;
    ensure(log.metadata()?.len() == (n + 1) * 10, "each line once")
}

fn attributes(dir: &Path, n: u64) -> io::Result<()> {
    let path = dir.join("file");
    let file = OpenOptions::new().create(true).append(true).open(&path)?;
    file.set_len(n % 7 * 1000)?;
    let mode = 0o600 + (n % 8) as u32;
    file.set_permissions(PermissionsExt::from_mode(mode))?;
    std::os::unix::fs::fchown(&file, Some(n as u32 % 99), None)?;
    let now = file.metadata()?;
    let all = (now.len(), now.mode() & 0o7777, now.uid());
    ensure(all == (n % 7 * 1000, mode, n as u32 % 99), "what was set")
}

fn allocate(dir: &Path, n: u64) -> io::Result<()> {
    let path = dir.join("file");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .read(true)
        .write(true)
        .open(&path)?;
    let len = 4096;
    sys::fallocate(&file, 0, n * len, len)?;
    ensure(file.metadata()?.len() == (n + 1) * len, "longer")?;
    let copied = sys::copy_range((&file, 0), (&file, (n + 1) * len), len as usize)?;
    ensure(copied as u64 == len, "copied")?;
    file.set_len((n + 1) * len)
}

fn lock(dir: &Path, _: u64) -> io::Result<()> {
    let open = || {
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(dir.join("file"))
    };
    let (one, two) = (open()?, open()?);
    sys::flock(&one, libc::LOCK_EX | libc::LOCK_NB)?;
    let refused = sys::flock(&two, libc::LOCK_EX | libc::LOCK_NB);
    ensure(refused.is_err(), "held by one")?;
    sys::flock(&one, libc::LOCK_UN)?;
    sys::flock(&two, libc::LOCK_EX | libc::LOCK_NB)?;
    // a close gives the lock back a moment later
    sys::flock(&two, libc::LOCK_UN)
}
