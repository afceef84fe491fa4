//! The one system call that the standard library does not offer.

#![allow(unsafe_code, reason = "a call into libc")]

use std::time::Duration;

/// Time since the machine started, the time that it slept included (`Instant`
/// leaves that out). `None` if the kernel has no such clock.
pub fn boot_time() -> Option<Duration> {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` is a valid place for the answer.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut time) };
    if result != 0 {
        return None;
    }
    let secs = u64::try_from(time.tv_sec).ok()?;
    let nanos = u32::try_from(time.tv_nsec).ok()?;
    Some(Duration::new(secs, nanos))
}
