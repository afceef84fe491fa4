use super::*;
use proptest::prelude::*;

fn read(buffer: &Buffer, offset: u64, len: u64) -> Vec<Option<u8>> {
    let mut out = vec![None; len as usize];
    for (at, bytes) in buffer.overlay(offset, len) {
        for (i, b) in bytes.iter().enumerate() {
            out[(at - offset) as usize + i] = Some(*b);
        }
    }
    out
}

#[test]
fn a_single_write_is_not_copied() {
    let mut buffer = Buffer::default();
    let data = Bytes::from(vec![7; 1000]);
    assert!(buffer.write(5, &data).is_empty());
    buffer.freeze_all();
    assert_eq!(buffer.pieces()[0].bytes().as_ptr(), data.as_ptr());
}

#[test]
fn adjacent_writes_become_one_run_per_window() {
    let mut buffer = Buffer::default();
    for i in 0..8u64 {
        buffer.write(WINDOW - 400 + i * 100, &Bytes::from(vec![i as u8; 100]));
    }
    buffer.freeze_all();
    let frozen = buffer.pieces();
    let shape: Vec<_> = frozen.iter().map(|p| (p.offset(), p.len())).collect();
    assert_eq!(shape, [(WINDOW - 400, 400), (WINDOW, 400)]);
}

#[test]
fn a_full_window_is_frozen_at_once() {
    let mut buffer = Buffer::default();
    let mib = Bytes::from(vec![1; 1 << 20]);
    for i in 0..3 {
        assert!(buffer.write(i << 20, &mib).is_empty());
    }
    let full = buffer.write(3 << 20, &mib);
    assert_eq!((full.len(), full[0].len()), (1, 4 << 20));
    assert_eq!(buffer.runs(), 0);
    assert!(!buffer.is_empty());
}

#[test]
fn overlapping_pieces_go_into_commits_in_order() {
    let piece = |at, len| Piece::new(at, Bytes::from(vec![0; len]));
    let pieces = [piece(10, 10), piece(0, 5), piece(15, 10), piece(40, 1)];
    let shape: Vec<Vec<u64>> = batches(&pieces)
        .iter()
        .map(|b| b.iter().map(|p| p.offset()).collect())
        .collect();
    assert_eq!(shape, [vec![0, 10], vec![15, 40]]);
}

#[test]
fn a_commit_has_a_bounded_number_of_edits() {
    let pieces: Vec<_> = (0..600)
        .map(|i| Piece::new(i * 10, Bytes::from_static(b"x")))
        .collect();
    let lens: Vec<_> = batches(&pieces).iter().map(Vec::len).collect();
    assert_eq!(lens, [256, 256, 88]);
}

#[derive(Debug, Clone)]
enum Step {
    Write(u64, usize, u8),
    Freeze,
    CommitOldest,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    // Around the end of the first window, so that both sides of it are hit.
    let step = prop_oneof![
        6 => (0u64..300, 1usize..80, any::<u8>()).prop_map(|(at, len, b)| Step::Write(
            WINDOW - 150 + at,
            len,
            b
        )),
        1 => Just(Step::Freeze),
        1 => Just(Step::CommitOldest),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn buffer_and_commits_together_equal_a_byte_array(steps in steps()) {
        let base = WINDOW - 150;
        let mut model = vec![None; 400];
        let mut committed = vec![None; 400];
        let mut buffer: Buffer = Buffer::default();
        for step in steps {
            match step {
                Step::Write(at, len, byte) => {
                    buffer.write(at, &Bytes::from(vec![byte; len]));
                    for i in 0..len {
                        model[(at - base) as usize + i] = Some(byte);
                    }
                }
                Step::Freeze => {
                    buffer.freeze_all();
                }
                Step::CommitOldest => {
                    let all = batches(buffer.pieces());
                    let Some(batch) = all.first() else { continue };
                    for piece in batch {
                        for (i, b) in piece.bytes().iter().enumerate() {
                            committed[(piece.offset() - base) as usize + i] = Some(*b);
                        }
                    }
                    buffer.retire(|p| batch.iter().any(|b| Arc::ptr_eq(b, p)));
                }
            }
            let live: u64 = buffer.live.values().map(Run::len).sum();
            let pieces: u64 = buffer.pieces.iter().map(|p| p.len()).sum();
            prop_assert_eq!(live + pieces, buffer.held_bytes());
            let seen: Vec<_> = read(&buffer, base, 400)
                .into_iter()
                .zip(&committed)
                .map(|(b, c)| b.or(*c))
                .collect();
            prop_assert_eq!(&seen, &model);
            let end = read(&buffer, base, 400).iter().rposition(Option::is_some);
            prop_assert_eq!(buffer.end(), end.map_or(0, |e| base + e as u64 + 1));
        }
    }
}
