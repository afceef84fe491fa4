//! Appended bytes that wait for their commit, and how much of the file's end is rewritten with them. Pure.
//!
//! An extent is rewritten only with as much behind it as it is long itself:
//! lengths halve from one extent to the next, few of them are short, and each
//! byte is written about once for each time that its extent doubles.

use bytes::{Bytes, BytesMut};
use lagan_types::limits::{APPEND_MERGE_LEN_MAX, CHUNK_LEN_MAX};

/// A last extent up to this length is rewritten whatever is appended: that
/// costs a page either way.
const MERGE_ALWAYS_LEN: u64 = 4 * 1024;

/// Appended bytes of one file that are not committed.
#[derive(Debug, Default)]
pub(crate) struct Appends {
    /// Each at most a chunk, each a whole number of writes.
    groups: Vec<BytesMut>,
    waiting_bytes: u64,
    /// Bytes that a commit is placing now.
    placing_bytes: u64,
}

impl Appends {
    /// Whether nothing waits and nothing is being placed.
    pub fn is_empty(&self) -> bool {
        self.held_bytes() == 0
    }

    /// Bytes that wait or are being placed.
    pub fn held_bytes(&self) -> u64 {
        self.waiting_bytes + self.placing_bytes
    }

    /// Adds one write.
    pub fn push(&mut self, data: &[u8]) {
        self.waiting_bytes += data.len() as u64;
        match self.groups.last_mut() {
            Some(last) if last.len() + data.len() <= CHUNK_LEN_MAX as usize => {
                last.extend_from_slice(data);
            }
            _ => {
                for part in data.chunks(CHUNK_LEN_MAX as usize) {
                    self.groups.push(part.into());
                }
            }
        }
    }

    /// Takes all bytes that wait, to place them; [`Appends::placed`] ends that.
    pub fn take(&mut self) -> Vec<Bytes> {
        self.placing_bytes += self.waiting_bytes;
        self.waiting_bytes = 0;
        self.groups.drain(..).map(BytesMut::freeze).collect()
    }

    /// Notes that so many bytes were placed or given up. Returns how many of them were held still.
    pub fn placed(&mut self, bytes: u64) -> u64 {
        let bytes = bytes.min(self.placing_bytes);
        self.placing_bytes -= bytes;
        bytes
    }

    /// Forgets everything; returns how many bytes these were.
    pub fn clear(&mut self) -> u64 {
        let bytes = self.held_bytes();
        *self = Appends::default();
        bytes
    }
}

/// How many of the last extents are rewritten when `new` bytes are appended: each
/// is at most as long as those behind it and `new` together. `lens` are the
/// extents' lengths, the last one first.
pub(super) fn rewritten(lens: impl Iterator<Item = u64>, new: u64) -> usize {
    let mut sum = new;
    lens.take_while(|&len| {
        let fits = sum + len <= APPEND_MERGE_LEN_MAX as u64;
        let take = fits && len <= sum.max(MERGE_ALWAYS_LEN);
        sum += len;
        take
    })
    .count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_is_never_split_between_groups() {
        let mut appends = Appends::default();
        let write = vec![1u8; 3 * 1024 * 1024];
        for _ in 0..3 {
            appends.push(&write);
        }
        let lens: Vec<_> = appends.take().iter().map(Bytes::len).collect();
        assert_eq!(lens, [write.len(); 3]);
    }

    #[test]
    fn small_writes_share_a_group_and_keep_their_order() {
        let mut appends = Appends::default();
        appends.push(b"one ");
        appends.push(b"two");
        assert_eq!(appends.take(), [Bytes::from_static(b"one two")]);
        assert!(!appends.is_empty());
        assert_eq!(appends.placed(7), 7);
        assert!(appends.is_empty());
    }

    /// The extents' lengths after appends, in order of offset.
    fn after(appends: impl Iterator<Item = u64>) -> (Vec<u64>, u64) {
        let (mut lens, mut written) = (Vec::<u64>::new(), 0);
        for new in appends {
            let count = rewritten(lens.iter().rev().copied(), new);
            let tail: u64 = lens.split_off(lens.len() - count).iter().sum();
            written += tail + new;
            lens.push(tail + new);
        }
        (lens, written)
    }

    #[test]
    fn an_extent_is_rewritten_with_as_much_behind_it() {
        let count = |lens: &[u64], new| rewritten(lens.iter().copied(), new);
        assert_eq!(count(&[4096], 1), 1);
        assert_eq!(count(&[5000], 4999), 0);
        assert_eq!(count(&[5000, 10_000, 20_001], 5000), 2);
        assert_eq!(count(&[128 * 1024], 128 * 1024), 1);
        assert_eq!(count(&[128 * 1024], 128 * 1024 + 1), 0);
    }

    #[test]
    fn appended_lines_leave_few_extents_and_are_written_few_times() {
        for line in [80, 1000, 30_000] {
            let bytes = 20 * 1024 * 1024;
            let (lens, written) = after((0..bytes / line).map(|_| line));
            let short = lens.iter().filter(|&&l| l < 100 * 1024).count();
            assert!(short <= 8, "{line}: {short} short extents");
            assert!(lens.len() <= 250, "{line}: {} extents", lens.len());
            let times = written / bytes;
            assert!(times <= 4096 / line + 12, "{line}: written {times} times");
        }
    }
}
