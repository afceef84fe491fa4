//! Regions of files that small commits have touched, and which extents in them are worth a rewrite. Pure.

use lagan_types::limits::REWRITE_EXTENTS_MAX;
use lagan_types::{Content, Extent, Ino};
use parking_lot::Mutex;
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

/// Length of a region.
const REGION_LEN: u64 = 1024 * 1024;
/// Extents that a region may have.
pub(super) const REGION_EXTENTS_MAX: usize = 64;
/// Writes of this length crowd no region.
const SMALL_LEN: u64 = 256 * 1024;
/// Extents in a row that are worth a rewrite: holes cut a region into rows.
const RUN_EXTENTS_MIN: usize = 8;
/// Regions of one file that wait.
const WAITING_MAX: usize = 1024;

/// Regions that wait for their rewrite; a file that has an entry has a task.
#[derive(Debug, Default)]
pub(crate) struct Regions {
    waiting: Mutex<HashMap<Ino, BTreeSet<u64>>>,
}

impl Regions {
    /// Adds regions; true if a task must be started for them.
    pub fn add(&self, ino: Ino, regions: BTreeSet<u64>) -> bool {
        let mut waiting = self.waiting.lock();
        let new = !waiting.contains_key(&ino);
        let all = waiting.entry(ino).or_default();
        all.extend(regions);
        while all.len() > WAITING_MAX {
            all.pop_last();
        }
        new
    }

    /// Takes the next region for the file's task; `None`: there is none, and no task any more.
    pub fn next(&self, ino: Ino) -> Option<u64> {
        let mut waiting = self.waiting.lock();
        let region = waiting.get_mut(&ino)?.pop_first();
        if region.is_none() {
            waiting.remove(&ino);
        }
        region
    }
}

/// The bytes of a region.
pub(super) fn range_of(region: u64) -> Range<u64> {
    let start = region * REGION_LEN;
    start..start + REGION_LEN
}

/// The regions of small slices.
pub(super) fn regions(slices: impl Iterator<Item = (u64, u64)>) -> BTreeSet<u64> {
    let small = slices.filter(|(_, len)| (1..SMALL_LEN).contains(len));
    small
        .flat_map(|(offset, len)| [offset / REGION_LEN, (offset + len - 1) / REGION_LEN])
        .collect()
}

/// The rows of chunks without a gap that are worth a rewrite. A first one that is longer than all
/// behind it is left out: where a file grows at its end, lengths halve from one extent to the
/// next, and each byte is rewritten once for each time that its extent doubles.
pub(super) fn rows(extents: Vec<Extent>) -> Vec<Vec<Extent>> {
    let mut rows: Vec<Vec<Extent>> = Vec::new();
    let mut end = None;
    for extent in extents {
        if !matches!(extent.content, Content::Chunk { .. }) {
            end = None;
            continue;
        }
        let next = Some(extent.end());
        match rows.last_mut() {
            Some(row) if end == Some(extent.offset) && row.len() < REWRITE_EXTENTS_MAX => {
                row.push(extent);
            }
            _ => rows.push(vec![extent]),
        }
        end = next;
    }
    for row in &mut rows {
        let mut behind: u64 = row.iter().map(|extent| extent.len).sum();
        let longer = row.iter().take_while(|extent| {
            behind -= extent.len;
            extent.len > behind
        });
        row.drain(..longer.count());
    }
    rows.retain(|row| row.len() >= RUN_EXTENTS_MIN);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;
    use lagan_types::{BlockId, ChunkId, SetId, VolumeId};

    fn extent(offset: u64, len: u64, chunk: bool) -> Extent {
        let content = match chunk {
            true => Content::Chunk {
                id: ChunkId::new(VolumeId::ONLY, SetId(1), BlockId(1), 1),
                skip: 0,
                chunk_len: len as u32,
                chunk_crc: 0,
            },
            false => Content::Lost,
        };
        Extent {
            offset,
            len,
            content,
        }
    }

    #[test]
    fn rows_end_at_gaps_and_at_what_is_no_chunk() {
        let mut extents: Vec<_> = (0..10).map(|n| extent(n * 10, 10, true)).collect();
        extents.extend((0..20).map(|n| extent(200 + n * 10, 10, n != 9)));
        extents.extend((0..3).map(|n| extent(900 + n * 10, 10, true)));
        let found = rows(extents);
        let shape: Vec<_> = found.iter().map(|r| (r[0].offset, r.len())).collect();
        assert_eq!(shape, [(0, 10), (200, 9), (300, 10)]);
    }

    #[test]
    fn extents_longer_than_all_behind_them_stay_as_they_are() {
        let lens = |lens: &[u64]| {
            let mut end = 0;
            let extents = lens.iter().map(|&len| {
                end += len;
                extent(end - len, len, true)
            });
            let rows = rows(extents.collect());
            let rows = rows.iter().map(|row| (row[0].len, row.len()));
            rows.collect::<Vec<_>>()
        };
        let short = [100; 20];
        assert_eq!(lens(&[&[9_000, 4_000][..], &short].concat()), [(100, 20)]);
        assert_eq!(lens(&[&[9_000, 2_000][..], &short].concat()), [(2_000, 21)]);
        assert_eq!(lens(&[&short[..], &[9_000]].concat()), [(100, 21)]);
    }

    /// The lengths of a region's extents after lines were appended to it.
    fn after(lines: u64, line: u64) -> (Vec<u64>, u64) {
        let (mut lens, mut written) = (Vec::<u64>::new(), 0);
        for _ in 0..lines {
            lens.push(line);
            if lens.len() > REGION_EXTENTS_MAX {
                let mut end = 0;
                let extents = lens.iter().map(|&len| {
                    end += len;
                    extent(end - len, len, true)
                });
                for row in rows(extents.collect()) {
                    let len = row.iter().map(|e| e.len).sum();
                    lens.truncate(lens.len() - row.len());
                    lens.push(len);
                    written += len;
                }
            }
        }
        (lens, written)
    }

    #[test]
    fn appended_lines_are_rewritten_few_times() {
        for line in [80, 1_000, 4_000] {
            let lines = REGION_LEN / line;
            let (lens, written) = after(lines, line);
            assert!(
                lens.len() <= REGION_EXTENTS_MAX,
                "{line}: {} extents",
                lens.len()
            );
            let times = written / REGION_LEN;
            assert!(times <= 8, "{line}: rewritten {times} times");
        }
    }

    #[test]
    fn only_small_writes_crowd_their_regions() {
        let mib = REGION_LEN;
        let slices = [(5, 10), (mib - 1, 2), (7 * mib, SMALL_LEN), (9 * mib, 0)];
        assert_eq!(regions(slices.into_iter()), BTreeSet::from([0, 1]));
    }

    #[test]
    fn a_file_has_one_task_at_a_time() {
        let waiting = Regions::default();
        assert!(waiting.add(Ino(1), BTreeSet::from([3])));
        assert!(!waiting.add(Ino(1), BTreeSet::from([2, 3])));
        assert_eq!(
            (waiting.next(Ino(1)), waiting.next(Ino(1))),
            (Some(2), Some(3))
        );
        assert_eq!(waiting.next(Ino(1)), None);
        assert!(waiting.add(Ino(1), BTreeSet::from([3])));
    }
}
