//! Recovery of the log under cuts and flips, and its files under use.

use super::record::{self, Header, Kind};
use super::recover::Replay;
use super::segment::{RECORD_HEADER_LEN, SEGMENT_HEADER_LEN, SegmentHeader};
use super::{Floor, LogOptions, LogStore};
use crate::types::Batch;
use crate::types::alias::{Entry, LogId, Vote};
use openraft::storage::{RaftLogStorage, RaftLogStorageExt};
use openraft::{CommittedLeaderId, EntryPayload, RaftLogReader};
use proptest::prelude::*;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

fn id(term: u64, index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(term, 1), index)
}

fn entry(term: u64, index: u64, len: usize) -> Entry {
    let body = vec![index as u8; len];
    Entry {
        log_id: id(term, index),
        payload: EntryPayload::Normal(Batch::from_bytes(body.into())),
    }
}

fn options(dir: &Path) -> LogOptions {
    LogOptions {
        dir: dir.to_path_buf(),
        node: 9,
        segment_bytes: 16 * 1024,
        cache_bytes: 4 * 1024,
        slow_sync: Duration::from_secs(5),
    }
}

fn open(dir: &Path, floor: u64) -> LogStore {
    let covered = Arc::new(Floor::default());
    covered.raise(floor);
    LogStore::open(options(dir), covered).unwrap()
}

async fn append(log: &mut LogStore, entries: impl IntoIterator<Item = Entry>) {
    let entries: Vec<_> = entries.into_iter().collect();
    log.blocking_append(entries).await.unwrap();
    // openraft goes on before it is on disk.
    let synced = log.syncs().wait_for_all(Duration::from_secs(30));
    synced.await.unwrap();
}

async fn indexes(log: &mut LogStore) -> Vec<u64> {
    let entries = log.try_get_log_entries(..).await.unwrap();
    entries.iter().map(|e| e.log_id.index).collect()
}

#[tokio::test]
async fn entries_are_the_same_after_reopening_over_many_segments() {
    let dir = tempfile::tempdir().unwrap();
    let written: Vec<_> = (0..200).map(|i| entry(1 + i / 50, i, 700)).collect();
    let mut log = open(dir.path(), 0);
    log.save_vote(&Vote::new_committed(4, 1)).await.unwrap();
    for part in written.chunks(7) {
        append(&mut log, part.to_vec()).await;
    }
    log.save_committed(Some(id(4, 180))).await.unwrap();
    append(&mut log, [entry(4, 200, 1)]).await;
    assert_eq!(log.try_get_log_entries(..200).await.unwrap(), written);
    log.stop();
    let mut log = open(dir.path(), 0);
    assert_eq!(log.try_get_log_entries(..200).await.unwrap(), written);
    assert_eq!(
        log.read_vote().await.unwrap(),
        Some(Vote::new_committed(4, 1))
    );
    assert_eq!(log.read_committed().await.unwrap(), Some(id(4, 180)));
    log.stop();
}

#[tokio::test]
async fn a_batch_of_this_node_knows_whether_the_log_was_given_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), 0);
    let batch = Batch::new(1, Vec::new());
    let entry = Entry {
        log_id: id(1, 0),
        payload: EntryPayload::Normal(batch.clone()),
    };
    assert!(!batch.has_entered());
    append(&mut log, [entry]).await;
    assert!(batch.has_entered());
    // Nothing takes that back.
    log.truncate(id(1, 0)).await.unwrap();
    assert!(batch.has_entered());
    log.stop();
}

#[tokio::test]
async fn truncated_entries_stay_away_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), 0);
    append(&mut log, (0..20).map(|i| entry(1, i, 100))).await;
    log.truncate(id(1, 10)).await.unwrap();
    append(&mut log, (10..12).map(|i| entry(2, i, 100))).await;
    log.stop();
    let mut log = open(dir.path(), 0);
    assert_eq!(indexes(&mut log).await, (0..12).collect::<Vec<_>>());
    let last = log.get_log_state().await.unwrap().last_log_id;
    assert_eq!(last, Some(id(2, 11)));
    log.stop();
}

#[tokio::test]
async fn purging_waits_for_the_floor_and_then_frees_segments() {
    let dir = tempfile::tempdir().unwrap();
    let floor = Arc::new(Floor::default());
    let options = LogOptions {
        dir: dir.path().to_path_buf(),
        node: 9,
        segment_bytes: 16 * 1024,
        cache_bytes: 4 * 1024,
        slow_sync: Duration::from_secs(5),
    };
    let mut log = LogStore::open(options, floor.clone()).unwrap();
    append(&mut log, (0..100).map(|i| entry(1, i, 1000))).await;
    let files = || std::fs::read_dir(dir.path()).unwrap().count();
    let before = files();
    assert!(before >= 6);
    log.purge(id(1, 89)).await.unwrap();
    append(&mut log, [entry(1, 100, 1)]).await;
    assert!(files() >= before);
    assert_eq!(log.needs_from(), 0);
    floor.raise(90);
    log.purge_to_floor();
    append(&mut log, [entry(1, 101, 1)]).await;
    log.stop();
    assert!(files() <= 4, "{}", files());
    let mut log = open(dir.path(), 90);
    assert_eq!(log.needs_from(), 90);
    let left = indexes(&mut log).await;
    assert_eq!(left, (90..102).collect::<Vec<_>>());
    log.stop();
}

#[tokio::test]
async fn a_purge_beyond_the_end_lets_the_log_go_on_behind_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), 1_000);
    append(&mut log, (0..10).map(|i| entry(1, i, 10))).await;
    log.purge(id(3, 500)).await.unwrap();
    append(&mut log, [entry(3, 501, 10)]).await;
    log.stop();
    let mut log = open(dir.path(), 1_000);
    assert_eq!(indexes(&mut log).await, [501]);
    assert_eq!(log.purged(), 500);
    log.stop();
}

#[tokio::test]
async fn a_hole_that_the_state_does_not_cover_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), 0);
    append(&mut log, (0..10).map(|i| entry(1, i, 10))).await;
    log.purge(id(3, 500)).await.unwrap();
    assert!(log.blocking_append([entry(3, 501, 10)]).await.is_err());
    log.stop();
}

#[tokio::test]
async fn a_hole_waits_for_the_state_to_cover_it() {
    let dir = tempfile::tempdir().unwrap();
    let floor = Arc::new(Floor::default());
    let mut log = LogStore::open(options(dir.path()), floor.clone()).unwrap();
    append(&mut log, (0..10).map(|i| entry(1, i, 10))).await;
    log.purge(id(3, 500)).await.unwrap();
    let late = tokio::spawn(async move {
        tokio::time::sleep(Duration::from_millis(50)).await;
        floor.raise(501);
    });
    append(&mut log, [entry(3, 501, 10)]).await;
    late.await.unwrap();
    log.stop();
    let log = open(dir.path(), 501);
    assert_eq!(log.needs_from(), 501);
    log.stop();
}

#[tokio::test]
async fn a_damaged_segment_with_another_behind_it_is_refused() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), 0);
    append(&mut log, (0..100).map(|i| entry(1, i, 1000))).await;
    log.stop();
    let first = dir.path().join("0000000000000001.seg");
    let file = std::fs::OpenOptions::new().write(true).open(first).unwrap();
    file.write_all_at(b"rot", 5_000).unwrap();
    let options = LogOptions {
        dir: dir.path().to_path_buf(),
        node: 9,
        segment_bytes: 16 * 1024,
        cache_bytes: 0,
        slow_sync: Duration::from_secs(5),
    };
    let opened = LogStore::open(options, Arc::new(Floor::default()));
    assert!(matches!(opened, Err(crate::RaftError::LogDamaged(_))));
}

#[tokio::test]
async fn what_lay_behind_a_torn_tail_never_comes_back() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), 0);
    append(&mut log, [entry(1, 0, 50)]).await;
    append(&mut log, [entry(1, 1, 50), entry(1, 2, 50)]).await;
    log.stop();
    // Tear entry 1: 2, of the same sync, lies whole behind it.
    let first = dir.path().join("0000000000000001.seg");
    let at = place_of(&first, 1);
    let file = std::fs::OpenOptions::new().write(true).open(first).unwrap();
    file.write_all_at(&[0xff; 4], at + 70).unwrap();
    let mut log = open(dir.path(), 0);
    assert_eq!(indexes(&mut log).await, [0]);
    append(&mut log, [entry(1, 1, 50)]).await;
    log.stop();
    let mut log = open(dir.path(), 0);
    assert_eq!(indexes(&mut log).await, [0, 1]);
    log.stop();
}

/// Where the entry is in a segment's file.
fn place_of(segment: &Path, index: u64) -> u64 {
    let bytes = std::fs::read(segment).unwrap();
    let is_it = |at: &usize| {
        record::peek(&bytes[*at..]).is_some_and(|h| h.kind.is_entry() && h.index == index)
    };
    (SEGMENT_HEADER_LEN..bytes.len()).find(is_it).unwrap() as u64
}

#[tokio::test]
async fn damage_in_what_was_on_disk_is_no_torn_tail() {
    use std::os::unix::fs::FileExt;
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), 0);
    for index in 0..4 {
        append(&mut log, [entry(1, index, 50)]).await;
    }
    log.stop();
    let first = dir.path().join("0000000000000001.seg");
    let options = || LogOptions {
        dir: dir.path().to_path_buf(),
        node: 9,
        segment_bytes: 16 * 1024,
        cache_bytes: 0,
        slow_sync: Duration::from_secs(5),
    };
    let whole = std::fs::read(&first).unwrap();
    let end = place_of(&first, 3);
    for at in (SEGMENT_HEADER_LEN as u64..end).step_by(7) {
        let file = std::fs::OpenOptions::new()
            .write(true)
            .open(&first)
            .unwrap();
        file.write_all_at(&[whole[at as usize] ^ 0x10], at).unwrap();
        let opened = LogStore::open(options(), Arc::new(Floor::default()));
        assert!(
            matches!(opened, Err(crate::RaftError::LogDamaged(_))),
            "flipped at {at}"
        );
        file.write_all_at(&whole, 0).unwrap();
    }
    // The last entry has nothing behind it: it may be a torn tail.
    let file = std::fs::OpenOptions::new()
        .write(true)
        .open(&first)
        .unwrap();
    file.write_all_at(&[0xff; 4], end + 70).unwrap();
    let mut log = open(dir.path(), 0);
    assert_eq!(indexes(&mut log).await, [0, 1, 2]);
    log.stop();
}

#[tokio::test]
async fn log_of_another_build_is_refused_by_name_and_left_as_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let mut log = open(dir.path(), 0);
    append(&mut log, (0..3).map(|i| entry(1, i, 100))).await;
    log.stop();
    let path = dir.path().join("0000000000000001.seg");
    let mut bytes = std::fs::read(&path).unwrap();
    for (version, words) in [
        (
            5,
            "the metadata log has format version 5, this build reads version 6: an older build",
        ),
        (
            7,
            "the metadata log has format version 7, this build reads version 6: a newer build",
        ),
    ] {
        bytes[8] = version;
        let crc = crc32fast::hash(&bytes[..60]);
        bytes[60..64].copy_from_slice(&crc.to_le_bytes());
        std::fs::write(&path, &bytes).unwrap();
        let opened = LogStore::open(options(dir.path()), Arc::new(Floor::default()));
        let error = opened.err().expect("it is refused").to_string();
        assert!(error.starts_with(words), "{error}");
        assert!(std::fs::read(&path).unwrap() == bytes);
    }
}

#[test]
fn golden_bytes_of_segment_header_and_record() {
    let header = SegmentHeader {
        sequence: 3,
        seed: 0x0102_0304,
    };
    let raw = header.encode();
    assert_eq!(&raw[..12], b"LAGANLOG\x06\0\0\0");
    assert_eq!(SegmentHeader::decode(&raw), Ok(Some(header)));
    for version in [1, 2, 3, 4, 5, 7] {
        let mut other = raw;
        other[8] = version;
        let crc = crc32fast::hash(&other[..60]);
        other[60..].copy_from_slice(&crc.to_le_bytes());
        assert_eq!(SegmentHeader::decode(&other), Err(version.into()));
    }
    assert_eq!(&raw[16..28], [3, 0, 0, 0, 0, 0, 0, 0, 4, 3, 2, 1]);
    let mut out = Vec::new();
    let crc = record::encode(
        &mut out,
        &Header::of(Kind::Normal, &id(2, 9), 8, 3),
        b"abc",
        7,
    );
    assert_eq!(&out[..9], b"LgRc\x03\0\0\0\x02");
    assert_eq!(out[16], 9);
    assert_eq!(out[24], 2);
    assert_eq!(out[32], 1);
    assert_eq!(out[40], 8);
    assert_eq!(&out[RECORD_HEADER_LEN..], b"abc");
    assert_eq!(crc, GOLDEN_CRC);
}

#[test]
fn golden_bytes_of_a_marked_record() {
    let segment = SegmentHeader {
        sequence: 3,
        seed: 0x0102_0304,
    };
    let header = Header::of(Kind::Normal, &id(2, 9), 8, 3);
    let mut out = Vec::new();
    record::encode_marked(&mut out, &header, b"abc", 7, Some((&segment, 0x0506)));
    assert_eq!(&out[48..56], [6, 5, 0, 0, 3, 0, 0, 0]);
    let check = u32::from_le_bytes(out[56..60].try_into().unwrap());
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&segment.seed.to_le_bytes());
    hasher.update(&segment.sequence.to_le_bytes());
    hasher.update(&out[..56]);
    assert_eq!(check, hasher.finalize());
    assert!(record::parse(&out, 7).is_some());
}

/// CRC of the record above: changes only with the format's version.
const GOLDEN_CRC: u32 = 0xda50_5c10;

/// A written record and the entries that are left after it.
fn stream(steps: &[(u8, u8)]) -> (Vec<u8>, Vec<usize>, Vec<Vec<LogId>>) {
    let (mut bytes, mut ends, mut states) = (Vec::new(), vec![0], vec![Vec::new()]);
    let (mut log, mut term, mut seed): (Vec<LogId>, u64, u32) = (Vec::new(), 1, 99);
    for &(what, arg) in steps {
        let next = log.last().map_or(0, |l| l.index + 1);
        let header = match what % 8 {
            0..=4 => {
                log.push(id(term, next));
                Header::of(Kind::Normal, &id(term, next), 0, arg as usize)
            }
            5 => {
                term += 1;
                Header::of_vote(&Vote::new(term, 1), 0)
            }
            _ => {
                let since = next.saturating_sub(arg as u64 % 4);
                log.retain(|l| l.index < since);
                term += 1;
                Header::of(Kind::Truncate, &id(term, since), 0, 0)
            }
        };
        let payload = vec![what; header.len as usize];
        seed = record::encode(&mut bytes, &header, &payload, seed);
        ends.push(bytes.len());
        states.push(log.clone());
    }
    (bytes, ends, states)
}

fn replayed(bytes: &[u8]) -> Vec<LogId> {
    let mut replay = Replay::default();
    record::replay(bytes, 0, 99, |found| replay.step(1, found)).unwrap();
    let (index, _) = replay.finish().unwrap();
    index.slots.iter().map(|s| s.id).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_cut_log_replays_to_the_state_after_its_last_whole_record(
        steps in prop::collection::vec((any::<u8>(), any::<u8>()), 1..40),
        at in any::<prop::sample::Index>(),
    ) {
        let (bytes, ends, states) = stream(&steps);
        let cut = at.index(bytes.len() + 1);
        let whole = ends.iter().rposition(|&end| end <= cut).unwrap();
        prop_assert_eq!(&replayed(&bytes[..cut]), &states[whole]);
    }

    #[test]
    fn a_flipped_bit_ends_the_log_before_its_record(
        steps in prop::collection::vec((any::<u8>(), any::<u8>()), 1..40),
        at in any::<prop::sample::Index>(),
        bit in 0..8u8,
    ) {
        let (mut bytes, ends, states) = stream(&steps);
        let flipped = at.index(bytes.len());
        bytes[flipped] ^= 1 << bit;
        let whole = ends.iter().rposition(|&end| end <= flipped).unwrap();
        prop_assert_eq!(&replayed(&bytes), &states[whole]);
    }

    #[test]
    fn arbitrary_bytes_are_no_log(bytes in prop::collection::vec(any::<u8>(), 0..4096)) {
        prop_assert!(replayed(&bytes).is_empty());
        let _ = SegmentHeader::decode(&bytes);
    }
}
