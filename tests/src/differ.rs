//! The same calls on a local directory and, alternately, on two mounts: every
//! answer and everything that can be seen afterwards must be the same.
//!
//! [`plan`] draws the steps from a seed, [`world`] does them, `observe` puts what
//! is seen into words. A write through an open file is fsynced before the next
//! step, so that what the other mount must see is certain. A failure is made
//! small: steps without which it still happens are left out.

mod holes;
mod observe;
pub mod plan;
pub mod sys;
pub mod world;

use observe::{Relations, Seen};
use plan::Step;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use world::World;

/// Steps between two looks at the whole tree.
const DUMP_EVERY: usize = 40;

/// How long the lock of a closed file may still be seen.
const UNLOCK_PATIENCE: Duration = Duration::from_secs(10);

/// A number, or the errno by name.
fn said(answer: sys::Answer) -> String {
    match answer {
        Ok(number) => number.to_string(),
        Err(errno) => {
            let text = std::io::Error::from_raw_os_error(errno).to_string();
            format!("error {text}")
        }
    }
}

/// The directories in which the steps are done.
#[derive(Debug, Clone)]
pub struct Places {
    /// A directory of a local file system.
    pub local: PathBuf,
    /// One directory as two mounts show it.
    pub mounts: [PathBuf; 2],
}

/// The first step after which the two are not the same.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The steps up to there, with what the local file system said.
    pub trace: Vec<(Step, String)>,
    /// Lines that only the local file system has.
    pub local: Vec<String>,
    /// Lines that only the mounts have.
    pub mounts: Vec<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (step, said) in &self.trace {
            writeln!(
                f,
                "  mount {} user {}: {:?} -> {said}",
                step.mount, step.user, step.op
            )?;
        }
        writeln!(f, "local file system: {:#?}", self.local)?;
        write!(f, "mounts: {:#?}", self.mounts)
    }
}

/// Runs the steps in new directories `name` below the places.
///
/// # Errors
/// The first difference.
///
/// # Panics
/// When the directories cannot be made.
pub fn compare(
    places: &Places,
    name: &str,
    steps: &[Step],
    aligned: bool,
) -> Result<(), Box<Difference>> {
    let local = make(&places.local, name);
    make(&places.mounts[0], name);
    let mounts = [0, 1].map(|n| places.mounts[n].join(name).join("top/work"));
    let mut one = World::new([&local, &local], aligned).expect("open the local directory");
    let mut two = World::new([&mounts[0], &mounts[1]], aligned).expect("open it on the mounts");
    let result = run(&mut one, &mut two, steps);
    drop((one, two));
    for place in [&places.local, &places.mounts[0]] {
        std::fs::remove_dir_all(place.join(name)).expect("remove the directory");
    }
    result
}

/// A directory that everybody may write to, below one that takes what `..` leads to.
fn make(place: &Path, name: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    let dir = place.join(name).join("top/work");
    std::fs::create_dir_all(&dir).expect("make a directory");
    for dir in [&dir, &place.join(name).join("top"), &place.join(name)] {
        std::fs::set_permissions(dir, PermissionsExt::from_mode(0o777)).expect("open it");
    }
    dir
}

fn run(one: &mut World, two: &mut World, steps: &[Step]) -> Result<(), Box<Difference>> {
    let mut trace = Vec::new();
    let mut relations = Relations::default();
    for (number, step) in steps.iter().enumerate() {
        let mut local = one.perform(number, step);
        let mut mounts = perform_on_mounts(two, number, step, &local[0].text);
        trace.push((step.clone(), local[0].text.clone()));
        if number % DUMP_EVERY == DUMP_EVERY - 1 || number + 1 == steps.len() {
            let mount = number / DUMP_EVERY % 2;
            local.extend(one.dump(mount));
            mounts.extend(two.dump(mount));
        }
        let (one, two) = different(&local, &mounts, &mut relations);
        if !one.is_empty() || !two.is_empty() {
            return Err(Box::new(Difference {
                trace,
                local: one,
                mounts: two,
            }));
        }
    }
    Ok(())
}

/// The kernel lets go of a closed file's locks without waiting for a mount to say that
/// it has: for a moment they may still be there.
fn perform_on_mounts(two: &mut World, number: usize, step: &Step, local: &str) -> Vec<Seen> {
    let until = Instant::now() + UNLOCK_PATIENCE;
    let is_lock = matches!(
        step.op,
        plan::Op::Flock { .. } | plan::Op::Lock { .. } | plan::Op::GetLock { .. }
    );
    loop {
        let seen = two.perform(number, step);
        if !is_lock || seen[0].text == local || Instant::now() >= until {
            return seen;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Lists observations that only one of the two has.
fn different(
    local: &[Seen],
    mounts: &[Seen],
    relations: &mut Relations,
) -> (Vec<String>, Vec<String>) {
    let only = |a: &[Seen], b: &[Seen]| {
        let new = a.iter().filter(|a| b.iter().all(|b| a.text != b.text));
        new.map(|seen| seen.text.clone()).collect::<Vec<_>>()
    };
    let one = only(local, mounts);
    let mut two = only(mounts, local);
    for (local, mounts) in local.iter().zip(mounts) {
        two.extend(relations.differ(local, mounts));
    }
    (one, two)
}

/// Leaves out steps as long as there still is a difference, for at most `limit`.
pub fn shrink(
    places: &Places,
    name: &str,
    found: Box<Difference>,
    aligned: bool,
    limit: Duration,
) -> Box<Difference> {
    let end = Instant::now() + limit;
    let mut best = found;
    let mut part = best.trace.len().div_ceil(2);
    loop {
        let mut smaller = false;
        let mut from = 0;
        while from < best.trace.len() && Instant::now() < end {
            let to = (from + part).min(best.trace.len());
            let rest = best.trace[..from].iter().chain(&best.trace[to..]);
            let steps: Vec<Step> = rest.map(|(step, _)| step.clone()).collect();
            match compare(places, name, &steps, aligned) {
                Err(found) => {
                    best = found;
                    smaller = true;
                }
                Ok(()) => from = to,
            }
        }
        if Instant::now() >= end || (part == 1 && !smaller) {
            return best;
        }
        part = (part / 2).max(1);
    }
}
