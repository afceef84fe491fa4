//! All servers lose power at once, on disks that forget what was not synced. Nothing
//! acknowledged may be lost; and where a disk lies, it is, and is noticed.

use crate::shorthands::{s, seeds};
use lagan_tests::cluster::Cluster;
use lagan_tests::power::Left;
use lagan_tests::random::Random;
use lagan_tests::run::LONG;
use lagan_tests::saver::Savers;
use lagan_tests::{Options, with_cluster};
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

/// A pause of the cluster ends within this, on a slow machine with other work.
const GO_ON: Duration = s(60);
/// Cuts until one takes what a log without syncs had; most do.
const CUTS_MAX: u64 = 10;
/// Programs on each mount.
const SAVERS: usize = 4;

fn on_forgetful_disks(why: &'static str) -> Options {
    let options = Options {
        forgetful: true,
        ..Options::default()
    };
    options.with_faults(why)
}

fn all_mounts(cluster: &Cluster) -> Vec<String> {
    let mounts = cluster.record().mounts.into_iter();
    mounts.map(|mount| mount.name).collect()
}

#[test]
fn what_was_acknowledged_is_there_after_power_cuts() {
    with_cluster(on_forgetful_disks("power is cut"), LONG, |cluster| {
        for seed in seeds(3, 30) {
            lose_power(cluster, seed);
        }
    });
}

/// One round: programs on both mounts, and a power cut at some moment.
fn lose_power(cluster: &Cluster, seed: u64) {
    let mut random = Random::new(seed);
    let left = match seed % 3 {
        0 => Left::Nothing,
        _ => Left::Some(seed),
    };
    // in each second round the mounts stay, and their programs wait
    let killed = match seed % 2 {
        0 => all_mounts(cluster),
        _ => Vec::new(),
    };
    let (one, two) = (format!("a{seed}"), format!("b{seed}"));
    let (a, b) = (cluster.a().join(&one), cluster.b().join(&two));
    let started = |top: &PathBuf, seed| {
        fs::create_dir(top).expect("make the savers' directory");
        Savers::start(top, SAVERS, seed)
    };
    let savers = [started(&a, 2 * seed), started(&b, 2 * seed + 1)];
    savers[0].wait_more(20 + random.below(40), GO_ON);
    std::thread::sleep(Duration::from_millis(random.below(300)));
    let lost = cluster.cut_power(&killed, left);
    eprintln!("seed {seed}, {left:?}, killed {killed:?}: not synced were {lost:?}");
    cluster.restore_power(&killed);
    if killed.is_empty() {
        savers[1].wait_more(20, GO_ON);
    }
    let [first, second] = savers.map(Savers::stop);
    if killed.is_empty() {
        let errors = [&first.errors[..], &second.errors].concat();
        assert!(errors.is_empty(), "savers got errors: {errors:?}");
    }
    eprintln!("{} and {} files", first.files.len(), second.files.len());
    // first where nobody has them in memory
    first.check(&cluster.b().join(&one));
    second.check(&cluster.a().join(&two));
    first.check(&a);
    second.check(&b);
    cluster.wait_healthy();
    cluster.check();
}

/// Without this nobody would know that the test above can fail: as if a server did not
/// sync its chunks, or its metadata.
#[test]
fn lying_disks_lose_what_was_acknowledged_and_it_is_noticed() {
    with_cluster(on_forgetful_disks("disks lie"), LONG, |cluster| {
        let mounts = all_mounts(cluster);
        for (seed, below) in (0..).zip(["chunks", "meta"]) {
            let save = |name: &str, seed| {
                let top = cluster.a().join(name);
                fs::create_dir(&top).expect("make the savers' directory");
                let savers = Savers::start(&top, SAVERS, seed);
                // few: a file that no server has is asked for a while
                savers.wait_more(4, GO_ON);
                savers.stop()
            };
            let (honest, lied) = (format!("honest-{below}"), format!("lied-{below}"));
            let kept = save(&honest, 2 * seed);
            cluster.lie(below);
            let lost = save(&lied, 2 * seed + 1);
            // longer than what comes with a commit: the log of the metadata has none of it
            let (long, bytes) = (format!("long-{below}"), vec![7; 300_000]);
            fs::write(cluster.a().join(&long), &bytes).expect("write");
            cluster.cut_power(&mounts, Left::Nothing);
            cluster.restore_power(&mounts);
            kept.check(&cluster.b().join(honest));
            let wrong = lost.wrong(&cluster.b().join(lied)).len();
            let all = lost.files.len();
            eprintln!("{below}: {wrong} of {all} files are wrong");
            let found = fs::read(cluster.b().join(long));
            assert!(found.is_err() || found.is_ok_and(|found| found != bytes));
            let least = if below == "meta" { all } else { 0 };
            assert!(
                all > 0 && wrong >= least,
                "{wrong} of {all} files are wrong"
            );
        }
    });
}

/// A cut in the middle of writes; of the state beside the log, what is older than a second
/// or so is durable by itself, so that one cut may lose nothing.
#[test]
fn log_of_the_metadata_that_is_not_synced_is_noticed() {
    with_cluster(on_forgetful_disks("disks lie"), LONG, |cluster| {
        let mounts = all_mounts(cluster);
        let is_lost = |seed: &u64| {
            let name = format!("lied-{seed}");
            let top = cluster.a().join(&name);
            fs::create_dir(&top).expect("make the savers' directory");
            cluster.lie("meta/log");
            let savers = Savers::start(&top, SAVERS, *seed);
            savers.wait_more(30, GO_ON);
            cluster.cut_power(&mounts, Left::Nothing);
            let saved = savers.stop();
            cluster.restore_power(&mounts);
            let wrong = saved.wrong(&cluster.b().join(name)).len();
            eprintln!(
                "seed {seed}: {wrong} of {} files are wrong",
                saved.files.len()
            );
            wrong > 0
        };
        let found = (0..CUTS_MAX).find(is_lost);
        assert!(found.is_some(), "nothing was lost in {CUTS_MAX} cuts");
    });
}
