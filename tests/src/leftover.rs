//! Processes and mounts that a cluster has in the system, found by its directory.

use crate::sys;
use crate::wait;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Time that the kernel may take to remove what was killed.
const GONE_WITHIN: Duration = Duration::from_secs(10);

/// A process that has something to do with a directory.
#[derive(Debug, Clone)]
pub struct Found {
    /// Process id.
    pub pid: u32,
    /// Arguments, in one line.
    pub line: String,
}

/// Processes (no zombies) that have the path in their arguments; never this one.
pub fn processes(path: &Path) -> Vec<Found> {
    let path = path.to_string_lossy();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let mut found = Vec::new();
    for pid in pids.filter(|&pid| pid != std::process::id()) {
        let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&bytes).replace('\0', " ");
        if line.contains(path.as_ref()) && !is_zombie(pid) {
            found.push(Found { pid, line });
        }
    }
    found
}

/// Whether a process has ended, with all its threads, but nobody asked how, or it is
/// gone. The first thread may end before others, which still hold files and sockets.
pub fn is_zombie(pid: u32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task"));
    if threads.is_ok_and(|threads| threads.flatten().count() > 1) {
        return false;
    }
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else {
        return true;
    };
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    after_name.starts_with('Z') || after_name.starts_with('X')
}

/// Whether the process is there and not a zombie.
pub fn is_alive(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists() && !is_zombie(pid)
}

/// Mount points below a directory, the last mounted first.
pub fn mounts(below: &Path) -> Vec<PathBuf> {
    let table = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    let points = points.map(|p| PathBuf::from(p.replace("\\040", " ")));
    let mut points: Vec<PathBuf> = points.filter(|p| p.starts_with(below)).collect();
    points.reverse();
    points
}

/// Kills and unmounts all that is left; says what there was.
pub fn remove(root: &Path) -> Vec<String> {
    let mut said = Vec::new();
    for found in processes(root) {
        said.push(format!("process {}: {}", found.pid, found.line));
        let _ = sys::kill(found.pid, libc::SIGKILL);
    }
    for point in mounts(root) {
        said.push(format!("mount {}", point.display()));
        let path = point.clone();
        // of a dead or killed daemon this returns at once, but it is a call on a mount
        wait::attempt("unmount", GONE_WITHIN, move || sys::unmount(&path, true));
    }
    let end = Instant::now() + GONE_WITHIN;
    while !processes(root).is_empty() && Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
    }
    said
}
