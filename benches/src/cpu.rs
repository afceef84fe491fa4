//! Processor time of this process.

use std::time::Duration;

/// A clock tick of Linux, in which /proc counts.
const TICK: Duration = Duration::from_millis(10);

/// Processor time that all threads of this process have used, in user and in kernel
/// mode (proc_pid_stat(5)), in steps of 10 ms.
pub fn used() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // the name, in brackets, may contain anything
    let fields = stat.rsplit(')').next().unwrap_or_default();
    let fields = fields.split_whitespace().skip(11).take(2);
    let ticks: u32 = fields.filter_map(|field| field.parse::<u32>().ok()).sum();
    TICK * ticks
}
