//! `lagan down`: stops what runs in a directory, in order.
//!
//! Mounts first (unmounted, then SIGTERM), then servers, then S3. Processes are
//! found by the lock files that they hold, whoever started them and whether or
//! not `up` still lives; from then on each is watched itself, until it has ended and
//! its ports are free. What does not leave within its time is killed, and a
//! mount that stays busy is detached: both are said, and the status is 1.

use crate::exit::{ERROR, Failure, OK, Outcome};
use crate::hang;
use crate::layout::{Layout, Role};
use crate::record::Record;
use crate::sys;
use crate::up::plan::Plan;
use lagan_host::lock;
use lagan_host::mounts::mounted_at;
use lagan_host::process::Process;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[cfg(test)]
mod tests;

/// A busy mount is detached after this.
const BUSY_PATIENCE: Duration = Duration::from_secs(10);
/// A process is killed this long after its SIGTERM.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// An umount that hangs is left to itself after this.
const UNMOUNT_DEADLINE: Duration = Duration::from_secs(5);
/// A killed process is gone within moments, unless the kernel holds it.
const KILL_DEADLINE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);

/// `lagan down DIR`.
///
/// # Errors
/// Status 1 when there is no such cluster.
pub fn run(dir: &Path, json: bool) -> Outcome<u8> {
    let layout = Layout::new(dir)?;
    if !layout.run("up").is_dir() {
        return Err(Failure::error(format!(
            "{} holds no cluster of `lagan up`",
            layout.root.display()
        )));
    }
    stop(&layout, json)
}

/// Stops everything; prints what was not clean, and how it went.
///
/// # Errors
/// When /proc cannot be read.
pub fn stop(layout: &Layout, json: bool) -> Outcome<u8> {
    // Who they are is known before they are told to end: one that has let go of its
    // lock is still waited for.
    let found = processes(layout);
    let stopped: Vec<String> = found.iter().map(|p| p.name.clone()).collect();
    let _ = std::fs::write(layout.stopping_mark(), b"");
    let mut troubles = unmount_all(layout, &mount_points(layout), BUSY_PATIENCE);
    for role in [Role::Mount, Role::Server, Role::S3] {
        stop_role(layout, role, &found, &mut troubles);
    }
    // Mounts of processes that died in between, or that came back.
    troubles.extend(unmount_all(
        layout,
        &mount_points(layout),
        Duration::from_secs(1),
    ));
    let _ = std::fs::write(layout.stopped_mark(), b"");
    if json {
        let value = serde_json::json!({
            "schema": 1, "clean": troubles.is_empty(), "stopped": stopped, "troubles": troubles,
        });
        println!("{value}");
    } else {
        for trouble in &troubles {
            eprintln!("lagan: {trouble}");
        }
        match stopped.is_empty() {
            true => println!("nothing ran in {}", layout.root.display()),
            false => println!("stopped {}", stopped.join(", ")),
        }
    }
    Ok(if troubles.is_empty() { OK } else { ERROR })
}

/// Every mount point that a process of this directory may have used.
fn mount_points(layout: &Layout) -> Vec<PathBuf> {
    let mut points = BTreeSet::from([layout.default_mount()]);
    if let Ok(record) = Record::load(&layout.cluster_json()) {
        points.extend(record.mounts.into_iter().map(|m| m.path));
    }
    if let Ok(Some(plan)) = Plan::load(layout) {
        points.extend(plan.mounts);
    }
    for (role, name) in layout.processes() {
        if role == Role::Mount
            && let Ok(text) = std::fs::read_to_string(layout.config(&name))
            && let Ok(table) = text.parse::<toml::Table>()
            && let Some(point) = table.get("mount_point").and_then(|p| p.as_str())
        {
            points.insert(point.into());
        }
    }
    points.into_iter().collect()
}

/// Unmounts our file system from these places; gives what was not clean.
pub fn unmount_all(layout: &Layout, points: &[PathBuf], patience: Duration) -> Vec<String> {
    let mut troubles = Vec::new();
    let end = Instant::now() + patience;
    loop {
        let mounted: Vec<&PathBuf> = points.iter().filter(|p| is_ours(layout, p)).collect();
        if mounted.is_empty() {
            return troubles;
        }
        let late = Instant::now() >= end;
        for point in mounted {
            let why = match unmount(point, false) {
                Ok(()) => continue,
                Err(why) => why,
            };
            if late {
                troubles.push(detach(point, &why));
            }
        }
        if late {
            return troubles;
        }
        std::thread::sleep(PAUSE);
    }
}

fn detach(point: &Path, why: &str) -> String {
    match unmount(point, true) {
        Ok(()) => format!(
            "{} was {why}: unmounted lazily, it is gone when its last user is",
            point.display()
        ),
        Err(e) => format!("{} was {why}, and stays mounted: {e}", point.display()),
    }
}

fn unmount(point: &Path, lazily: bool) -> Result<(), String> {
    let path = point.to_owned();
    match hang::within(UNMOUNT_DEADLINE, move || sys::unmount(&path, lazily)) {
        Some(Ok(())) => Ok(()),
        // Somebody else was faster.
        Some(Err(e)) if e.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        Some(Err(e)) if e.raw_os_error() == Some(libc::EBUSY) => Err("busy".into()),
        Some(Err(e)) => Err(e.to_string()),
        None => Err("silent".into()),
    }
}

/// Whether our file system is mounted at `point`, as far as its source tells.
fn is_ours(layout: &Layout, point: &Path) -> bool {
    let Some(mount) = mounted_at(point).ok().flatten() else {
        return false;
    };
    if !mount.is_lagan() {
        return false;
    }
    let servers = match Plan::load(layout) {
        Ok(Some(plan)) => plan.servers.iter().map(|s| s.listen.to_string()).collect(),
        _ => Vec::new(),
    };
    let Some((addrs, _)) = mount.source.split_once(":/") else {
        return true;
    };
    servers.is_empty() || addrs.split(',').any(|a| servers.iter().any(|s| s == a))
}

/// A process of this directory.
#[derive(Debug, Clone)]
struct Found {
    role: Role,
    name: String,
    process: Process,
}

/// The processes that hold their locks now.
fn processes(layout: &Layout) -> Vec<Found> {
    let names = layout.processes().into_iter();
    let held = names.filter_map(|(role, name)| {
        let process = lock::holding_process(&layout.lock(role, &name))?;
        Some(Found {
            role,
            name,
            process,
        })
    });
    held.collect()
}

/// Ends all processes of a role at the same time: those found before, and who came since.
fn stop_role(layout: &Layout, role: Role, before: &[Found], troubles: &mut Vec<String>) {
    let mut left: Vec<Found> = before.to_vec();
    for found in processes(layout) {
        if left.iter().all(|f| f.process != found.process) {
            left.push(found);
        }
    }
    left.retain(|f| f.role == role && !f.process.has_ended());
    for found in &left {
        let _ = sys::kill(found.process.pid, libc::SIGTERM);
        // A stopped process has to run to end.
        let _ = sys::kill(found.process.pid, libc::SIGCONT);
    }
    wait_gone(&mut left, STOP_PATIENCE);
    for Found { name, process, .. } in &left {
        let _ = sys::kill(process.pid, libc::SIGKILL);
        troubles.push(format!(
            "{name} (process {}) did not end within {} s: killed",
            process.pid,
            STOP_PATIENCE.as_secs()
        ));
    }
    wait_gone(&mut left, KILL_DEADLINE);
    troubles.extend(left.iter().map(|f| format!("{} cannot be killed", f.name)));
}

/// Waits until the processes have ended, and leaves those that have not.
fn wait_gone(left: &mut Vec<Found>, patience: Duration) {
    let end = Instant::now() + patience;
    loop {
        left.retain(|found| !found.process.has_ended());
        if left.is_empty() || Instant::now() >= end {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}
