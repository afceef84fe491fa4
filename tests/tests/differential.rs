//! Random calls on two mounts and on a local file system, answer for answer.

use crate::shorthands::{s, seeds};
use lagan_tests::differ::{self, Places, plan};
use lagan_tests::wait::until;
use lagan_tests::{command, long, sys, with_shared};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Steps of one seed.
const STEPS: usize = 300;
/// Seeds at the same time.
const THREADS: usize = 2;

#[test]
fn two_mounts_answer_as_a_local_file_system_does() {
    with_shared(s(if long() { 7200 } else { 500 }), |a, b| {
        let seeds = seeds(20, 1000);
        let places = places(a, b);
        let next = AtomicU64::new(seeds.start);
        let failures: Vec<String> = std::thread::scope(|scope| {
            let threads = [(); THREADS].map(|()| {
                scope.spawn(|| {
                    let mut failures = Vec::new();
                    loop {
                        let seed = next.fetch_add(1, Ordering::Relaxed);
                        if seed >= seeds.end || failures.len() > 5 {
                            return failures;
                        }
                        failures.extend(try_seed(&places, seed));
                    }
                })
            });
            let found = threads.map(|t| t.join().expect("a seed's thread"));
            found.into_iter().flatten().collect()
        });
        remove_local(&places.local);
        assert!(failures.is_empty(), "{}", failures.join(", "));
    });
}

/// What statfs(2) says of ext4.
const EXT4: i64 = 0xef53;

/// A directory of ext4: the one that is there, or an image mounted on it.
fn make_local(local: &Path) {
    std::fs::create_dir(local).expect("make a local directory");
    if sys::file_system(local).expect("statfs") == EXT4 {
        return;
    }
    let image = local.with_extension("ext4");
    let file = std::fs::File::create(&image).expect("make an image");
    file.set_len(4 << 30).expect("make it large");
    let (image, local) = (image.to_str(), local.to_str());
    let (image, local) = (image.expect("text"), local.expect("text"));
    command::must("mkfs.ext4", &["-q", "-F", image], s(60));
    command::must("mount", &["-o", "loop", image, local], s(60));
}

fn remove_local(local: &Path) {
    if local.with_extension("ext4").exists() {
        // a process that another test is just starting may have a file of it
        until("unmount the image", s(60), || {
            sys::unmount(local, false).ok()
        });
        std::fs::remove_file(local.with_extension("ext4")).expect("remove the image");
    }
    std::fs::remove_dir_all(local).expect("remove the local directory");
}

/// The mounts, and a local directory beside them, open to other users.
fn places(a: &Path, b: &Path) -> Places {
    let root = a.parent().and_then(Path::parent).expect("a test's root");
    let local = root.join("local");
    make_local(&local);
    for dir in [root, &local, a] {
        std::fs::set_permissions(dir, PermissionsExt::from_mode(0o755)).expect("open it");
    }
    Places {
        local,
        mounts: [PathBuf::from(a), PathBuf::from(b)],
    }
}

fn try_seed(places: &Places, seed: u64) -> Option<String> {
    let steps = plan::steps(seed, STEPS);
    let name = format!("seed-{seed}");
    let aligned = plan::is_aligned(seed);
    let found = differ::compare(places, &name, &steps, aligned).err()?;
    let limit = Duration::from_secs(20);
    let small = differ::shrink(places, &format!("{name}-less"), found, aligned, limit);
    // at once: the others may take long
    eprintln!(
        "seed {seed} (LAGAN_TEST_SEEDS={seed}..{}):\n{small}",
        seed + 1
    );
    Some(format!("seed {seed}"))
}
