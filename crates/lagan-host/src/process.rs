//! Processes that leave, and how long they are waited for.
//!
//! A killed process ends in steps: its first thread may be a zombie while other threads
//! still hold its locks and sockets. It has ended when no thread is left. A program that
//! starts in the meantime waits up to [`LEAVING_PATIENCE`] instead of failing.

use std::time::Duration;

#[cfg(test)]
mod tests;

/// How long a process that was killed, or was told to end, may take to let go of its
/// locks and ports. On a busy machine an exit takes its time.
pub const LEAVING_PATIENCE: Duration = Duration::from_secs(5);
/// Pause between two looks at a process that leaves.
pub(crate) const LOOK: Duration = Duration::from_millis(20);

/// A process that lived when it was looked up. Its start time tells it from a later
/// process with the same number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Process {
    /// Process number.
    pub pid: u32,
    /// Start, in clock ticks since the machine's boot: see proc_pid_stat(5).
    start: u64,
}

impl Process {
    /// The process that has the number `pid` now.
    pub fn find(pid: u32) -> Option<Self> {
        let start = stat(pid)?.start;
        Some(Process { pid, start })
    }

    /// Whether all threads of the process are gone, and its files and sockets are closed.
    /// Its parent need not have waited for it.
    pub fn has_ended(&self) -> bool {
        match stat(self.pid) {
            Some(stat) if stat.start == self.start => stat.is_zombie && threads(self.pid) <= 1,
            _ => true,
        }
    }
}

/// What /proc says about a process.
struct Stat {
    /// Its first thread has ended.
    is_zombie: bool,
    start: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name, in brackets, may contain anything.
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split_whitespace();
    let state = fields.next()?;
    // State is the third field, the start time the twenty-second.
    let start = fields.nth(18)?.parse().ok()?;
    let is_zombie = matches!(state, "Z" | "X");
    Some(Stat { is_zombie, start })
}

fn threads(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/task")).map_or(0, |tasks| tasks.flatten().count())
}
