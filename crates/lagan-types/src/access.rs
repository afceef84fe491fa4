//! Access times: when a read moves one, and what a mount tells of its reads.

use crate::codec::{Decode, Encode};
use crate::id::Ino;
use crate::time::Time;

/// An access time of that age is moved by any read, seconds (Linux,
/// `relatime_need_update` in fs/inode.c).
const OLD_S: i64 = 24 * 60 * 60;

/// A read that moved an inode's access time on its mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Access {
    /// What was read.
    pub ino: Ino,
    /// Its ctime as the mount knew it when it read: any change since then wins.
    pub ctime: Time,
    /// When, by the mount's wall clock.
    pub at: Time,
}

/// The times that decide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Times {
    /// Last access.
    pub atime: Time,
    /// Last change of the content.
    pub mtime: Time,
    /// Last change.
    pub ctime: Time,
}

impl Times {
    /// The access time after a read at `at`, as the mount option relatime has
    /// it; `None`: it stays as it is.
    ///
    /// `now` is the clock of whoever decides. The result is later than the
    /// changes that were read, whatever the reader's clock says, and not later
    /// than `now` but for that; a modification time that lies in the future is
    /// not reached, and the next read moves the access time again.
    pub fn accessed(self, at: Time, now: Time) -> Option<Time> {
        let unread = self.atime <= self.mtime || self.atime <= self.ctime;
        let old = now.secs.saturating_sub(self.atime.secs) >= OLD_S;
        if !unread && !old {
            return None;
        }
        let changed = match self.mtime > now {
            true => self.ctime,
            false => self.ctime.max(self.mtime),
        };
        let new = at.min(now).max(changed.succ());
        (new > self.atime || (unread && new != self.atime)).then_some(new)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec;
    use crate::op::{FileOp, NoteAccesses, Op};

    fn s(secs: i64) -> Time {
        Time { secs, nanos: 0 }
    }

    fn times(atime: i64, mtime: i64, ctime: i64) -> Times {
        Times {
            atime: s(atime),
            mtime: s(mtime),
            ctime: s(ctime),
        }
    }

    #[test]
    fn first_read_after_a_change_counts_and_the_next_does_not() {
        for (before, counts) in [
            (times(100, 100, 100), true),
            (times(100, 200, 200), true),
            (times(100, 50, 200), true),
            (times(300, 400, 200), true),
            (times(300, 200, 200), false),
        ] {
            let after = before.accessed(s(1000), s(1001));
            assert_eq!(after, counts.then_some(s(1000)), "{before:?}");
        }
        let read = times(1000, 200, 200);
        assert_eq!(read.accessed(s(1002), s(1002)), None);
    }

    #[test]
    fn a_day_later_any_read_counts() {
        let read = times(1000, 200, 200);
        let day = 1000 + OLD_S;
        assert_eq!(read.accessed(s(day - 1), s(day - 1)), None);
        assert_eq!(read.accessed(s(day), s(day)), Some(s(day)));
        // Told late, or by a clock that is behind: never back.
        assert_eq!(read.accessed(s(900), s(day)), None);
    }

    #[test]
    fn clock_of_the_reader_neither_hides_a_read_nor_leads_into_the_future() {
        let unread = times(100, 300, 200);
        assert_eq!(unread.accessed(s(250), s(1000)), Some(s(300).succ()));
        assert_eq!(unread.accessed(s(5000), s(1000)), Some(s(1000)));
        // The clock that decides is behind the change itself.
        let unread = times(100, 200, 2000);
        assert_eq!(unread.accessed(s(900), s(1000)), Some(s(2000).succ()));
    }

    #[test]
    fn times_of_the_future_are_not_reached() {
        let ahead = times(100, 9000, 200);
        assert_eq!(ahead.accessed(s(1000), s(1000)), Some(s(1000)));
        let again = times(1000, 9000, 200);
        assert_eq!(again.accessed(s(1000), s(1001)), None);
        assert_eq!(again.accessed(s(1001), s(1001)), Some(s(1001)));
        let set = times(8000, 200, 300);
        assert_eq!(set.accessed(s(1000), s(1000)), None);
        let both = times(8000, 9000, 300);
        assert_eq!(both.accessed(s(1000), s(1000)), Some(s(1000)));
    }

    #[test]
    fn bytes_of_the_command_do_not_change() {
        let read = Access {
            ino: Ino(300),
            ctime: Time { secs: -1, nanos: 5 },
            at: Time {
                secs: 1000,
                nanos: 70_000,
            },
        };
        let hex: String =
            codec::encode(&Op::from(FileOp::from(NoteAccesses { reads: vec![read] })))
                .iter()
                .map(|b| format!("{b:02x}"))
                .collect();
        assert_eq!(hex, "000e01fb2c010105fbd007fc70110100");
    }
}
