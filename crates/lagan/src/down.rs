//! `lagan down`: stops what runs in a directory, in order.
//!
//! First the mounts (unmounted, then SIGTERM), then the servers, then S3. Processes are
//! found by the lock files that they hold, whoever started them and whether or not `up`
//! still lives. From then on each process is watched until it has ended and its ports are
//! free. A process that does not end in time is killed, and a mount that stays busy is
//! detached: both are reported, and the status is 1.

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

/// Time until a busy mount is detached.
const BUSY_PATIENCE: Duration = Duration::from_secs(10);
/// Time from a process's SIGTERM to its SIGKILL.
const STOP_PATIENCE: Duration = Duration::from_secs(20);
/// Time after which an umount that hangs is left to itself.
const UNMOUNT_DEADLINE: Duration = Duration::from_secs(5);
/// Time for a killed process to end: moments, unless the kernel holds it.
const KILL_DEADLINE: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(50);

/// `lagan down DIR`.
///
/// # Errors
/// Status 1 when the directory holds no cluster.
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

/// Stops everything, and prints what was not clean and what was stopped.
///
/// # Errors
/// When /proc cannot be read.
pub fn stop(layout: &Layout, json: bool) -> Outcome<u8> {
    // The processes are found before they are told to end, so that one that has let go
    // of its lock is still waited for.
    let found = processes(layout);
    let stopped: Vec<String> = found.iter().map(|p| p.name.clone()).collect();
    let _ = std::fs::write(layout.stopping_mark(), b"");
    let mut troubles = unmount_all(layout, &mount_points(layout), BUSY_PATIENCE);
    for role in [Role::Mount, Role::Server, Role::S3] {
        stop_role(layout, role, &found, &mut troubles);
    }
    // Processes may have died in between and left mounts, or have come back.
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

/// Unmounts our file system from these places; returns what was not clean.
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
        // Somebody else unmounted it first.
        Some(Err(e)) if e.raw_os_error() == Some(libc::EINVAL) => Ok(()),
        Some(Err(e)) if e.raw_os_error() == Some(libc::EBUSY) => Err("busy".into()),
        Some(Err(e)) => Err(e.to_string()),
        None => Err("silent".into()),
    }
}

/// Whether the file system of this directory is mounted at `point`, as far as the source
/// of the mount tells.
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

/// A process of this directory, as it was found.
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

/// Ends all processes of a role at the same time: those found before, and those that came
/// since.
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
        // A stopped process has to run again so that it can end.
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

/// Waits until the processes have ended, and keeps those in the list that have not.
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
