use super::*;
use lagan_types::extent::ChunkRef;
use lagan_types::{BlockId, ChunkId, Epoch, SetId, VolumeId};
use proptest::prelude::*;

fn id(n: u16) -> ChunkId {
    ChunkId::new(VolumeId::ONLY, SetId(1), BlockId(1), n)
}

fn edit(offset: u64, len: u64, chunk: Option<u16>) -> Edit {
    Edit {
        offset,
        len,
        content: chunk.map(|n| ChunkRef {
            id: id(n),
            set_epoch: Epoch(1),
            skip: 0,
            chunk_len: len as u32,
            chunk_crc: 0,
        }),
    }
}

#[test]
fn what_no_extent_covers_is_a_hole() {
    let mut map = FileMap::empty(1, 0);
    assert!(map.follow(&[edit(10, 5, Some(1))], 2, 20));
    let shape: Vec<_> = map.plan(0, 100).iter().map(|p| (p.offset, p.len)).collect();
    assert_eq!(shape, [(0, 10), (10, 5), (15, 5)]);
    assert_eq!(map.seek(0, true), Some(10));
    assert_eq!(map.seek(11, false), Some(15));
    assert_eq!(map.seek(16, true), None);
    let later = FileMap::page(1, 1000, 500, vec![], false);
    assert_eq!((later.seek(0, false), later.seek(0, true)), (None, None));
}

#[test]
fn a_page_with_more_to_come_covers_only_itself() {
    let page = |offset, n: u64, more| {
        let extents = (0..2)
            .map(|i| Extent {
                offset: (n + i) * 10,
                len: 10,
                content: Content::Lost,
            })
            .collect();
        FileMap::page(5, 100, offset, extents, more)
    };
    let mut map = page(0, 0, true);
    assert!(map.covers(0, 20) && !map.covers(0, 21));
    assert_eq!(map.fetch_from(25), 20);
    map.merge(page(20, 2, true));
    assert!(map.covers(0, 40));
    map.merge(page(80, 8, false));
    assert!(!map.covers(0, 40) && map.covers(85, 1000));
}

#[test]
fn what_is_written_into_an_extent_that_begins_before_the_page_is_followed() {
    let one = Extent {
        offset: 100,
        len: 100,
        content: Content::Lost,
    };
    let mut map = FileMap::page(5, 200, 190, vec![one], false);
    assert!(map.follow(&[edit(110, 5, Some(1))], 6, 200));
    let tail = map.tail().next().unwrap();
    assert_eq!((tail.offset, tail.len), (115, 85));
}

#[test]
fn a_page_whose_extents_were_cut_differently_leaves_no_gap() {
    let lost = |offset, len| Extent {
        offset,
        len,
        content: Content::Lost,
    };
    let mut map = FileMap::page(5, 100, 0, vec![lost(0, 10), lost(10, 30)], true);
    map.merge(FileMap::page(
        5,
        100,
        20,
        vec![lost(15, 15), lost(30, 60)],
        false,
    ));
    let shape: Vec<_> = map.plan(0, 100).iter().map(|p| (p.offset, p.len)).collect();
    assert_eq!(shape, [(0, 10), (10, 5), (15, 15), (30, 60), (90, 10)]);
}

#[test]
fn extents_of_a_range_are_counted_and_cut_to_it() {
    let mut map = FileMap::empty(1, 0);
    assert!(map.follow(&[edit(10, 5, Some(1)), edit(15, 10, Some(2))], 2, 25));
    assert_eq!(map.count_in(&(0..10)), Some(0));
    assert_eq!(map.count_in(&(14..1000)), Some(2));
    let cut = map.extents_in(&(12..20)).unwrap();
    let shape: Vec<_> = cut.iter().map(|e| (e.offset, e.len)).collect();
    assert_eq!(shape, [(12, 3), (15, 5)]);
    let later = FileMap::page(1, 1000, 500, vec![], false);
    assert_eq!(later.count_in(&(0..10)), None);
    assert_eq!(later.extents_in(&(600..700)), Some(vec![]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn following_edits_equals_a_byte_array(
        edits in proptest::collection::vec((0u64..100, 1u64..40, any::<bool>()), 1..40)
    ) {
        let mut map = FileMap::empty(1, 0);
        let mut model: Vec<Option<(u16, u64)>> = vec![None; 140];
        let mut size = 0;
        for (n, (offset, len, data)) in edits.into_iter().enumerate() {
            let n = n as u16;
            size = size.max(offset + len);
            prop_assert!(map.follow(&[edit(offset, len, data.then_some(n))], n as u64, size));
            for i in 0..len {
                model[(offset + i) as usize] = data.then_some((n, i));
            }
            let mut at = 0;
            for part in map.plan(0, 1000) {
                prop_assert_eq!(part.offset, at);
                for i in 0..part.len {
                    let want = model[(at + i) as usize];
                    let got = match part.source {
                        Source::Chunk { chunk, at } => Some((chunk.id.index(), at as u64 + i)),
                        _ => None,
                    };
                    prop_assert_eq!(got, want);
                }
                at += part.len;
            }
            prop_assert_eq!(at, size);
        }
    }
}
