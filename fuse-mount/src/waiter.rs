//! Tells whether a process that waits in one of our calls has a signal to handle.
//!
//! The kernel's own interrupt requests do not reach this program, so a lock
//! that waits looks at `/proc/PID/status` (proc(5)) of its caller: a signal that is
//! pending, not blocked and not ignored ends the wait with EINTR.

use std::time::{Duration, Instant};

/// SIGCHLD, SIGCONT, SIGURG and SIGWINCH: they do nothing unless they are caught
/// (signal(7)). Such a signal can be pending for a moment all the same, when it came
/// while the thread that forked had it blocked.
const IGNORED_BY_DEFAULT: u64 = 1 << 16 | 1 << 17 | 1 << 22 | 1 << 27;

/// Whether the thread has a signal to handle. A thread that this program cannot see
/// (another pid namespace) counts as having none.
pub(crate) fn interrupted(tid: u32) -> bool {
    if tid == 0 {
        return false;
    }
    std::fs::read_to_string(format!("/proc/{tid}/status")).is_ok_and(|status| has_signal(&status))
}

/// Whether the thread waits in fcntl(F_SETLKW), that is for a lock of its process and
/// not for flock(2) or a lock of an open file: the kernel's request does not tell them
/// apart. A thread that this program cannot see counts as not waiting so.
pub(crate) fn waits_as_process(tid: u32) -> bool {
    if tid == 0 {
        return false;
    }
    std::fs::read_to_string(format!("/proc/{tid}/syscall")).is_ok_and(|call| is_setlkw(&call))
}

/// Whether the text of `/proc/PID/syscall` shows fcntl(F_SETLKW): it has the number of the
/// system call, then the arguments in hexadecimal.
fn is_setlkw(call: &str) -> bool {
    let mut words = call.split_whitespace();
    let number = words.next().and_then(|n| n.parse::<i64>().ok());
    let command = words
        .nth(1)
        .and_then(|c| c.strip_prefix("0x"))
        .and_then(|c| i64::from_str_radix(c, 16).ok());
    number == Some(libc::SYS_fcntl) && command == Some(libc::F_SETLKW.into())
}

/// Whether a waiter of another pid namespace (number 0) has waited long enough. This
/// program cannot see its signals, so its wait has the bound of any other call.
pub(crate) fn unseen(tid: u32, since: Instant, patience: Duration) -> bool {
    tid == 0 && since.elapsed() >= patience
}

/// Whether the text of `/proc/PID/status` shows a signal to handle.
fn has_signal(status: &str) -> bool {
    let mask = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
            .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
            .unwrap_or(0)
    };
    let pending = mask("SigPnd") | mask("ShdPnd");
    let ignored = mask("SigIgn") | (IGNORED_BY_DEFAULT & !mask("SigCgt"));
    pending & !mask("SigBlk") & !ignored != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(own: &str, shared: &str, blocked: &str, ignored: &str) -> String {
        format!(
            "Name:\tsleep\nThreads:\t1\nSigQ:\t0/7823\nSigPnd:\t{own}\nShdPnd:\t{shared}\n\
             SigBlk:\t{blocked}\nSigIgn:\t{ignored}\nSigCgt:\t0000000000000000\n"
        )
    }

    const NONE: &str = "0000000000000000";
    const TERM: &str = "0000000000004000";
    const KILL: &str = "0000000000000100";

    #[test]
    fn pending_signals_interrupt() {
        assert!(!has_signal(&status(NONE, NONE, NONE, NONE)));
        assert!(has_signal(&status(KILL, NONE, NONE, NONE)));
        assert!(has_signal(&status(NONE, TERM, NONE, NONE)));
    }

    #[test]
    fn blocked_and_ignored_signals_do_not() {
        assert!(!has_signal(&status(NONE, TERM, TERM, NONE)));
        assert!(!has_signal(&status(NONE, TERM, NONE, TERM)));
        assert!(has_signal(&status(KILL, TERM, TERM, NONE)));
    }

    #[test]
    fn signals_that_do_nothing_interrupt_only_when_caught() {
        const CHLD: &str = "0000000000010000";
        let pending = status(NONE, CHLD, NONE, NONE);
        assert!(!has_signal(&pending));
        let caught = pending.replace(&format!("SigCgt:\t{NONE}"), &format!("SigCgt:\t{CHLD}"));
        assert!(has_signal(&caught));
    }

    #[test]
    fn who_cannot_be_seen_waits_only_so_long() {
        let long_ago = Instant::now() - Duration::from_secs(5);
        assert!(unseen(0, long_ago, Duration::from_secs(4)));
        assert!(!unseen(0, long_ago, Duration::from_secs(60)));
        assert!(!unseen(1, long_ago, Duration::from_secs(4)));
    }

    #[test]
    fn only_fcntl_of_a_process_counts_as_its_wait() {
        let fcntl = libc::SYS_fcntl;
        assert!(is_setlkw(&format!(
            "{fcntl} 0x5 0x7 0x7ffd 0x0 0x0 0x0 0x1 0x2"
        )));
        assert!(!is_setlkw(&format!(
            "{fcntl} 0x5 0x26 0x7ffd 0x0 0x0 0x0 0x1 0x2"
        )));
        assert!(!is_setlkw(&format!("{} 0x5 0x7 0x0", libc::SYS_flock)));
        assert!(!is_setlkw("running"));
        assert!(!is_setlkw(""));
    }

    #[test]
    fn nonsense_is_no_signal() {
        assert!(!has_signal(""));
        assert!(!has_signal("SigPnd:\tzz\nShdPnd\n"));
        assert!(!interrupted(0));
        assert!(!interrupted(std::process::id()));
    }
}
