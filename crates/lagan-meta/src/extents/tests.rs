use super::*;
use lagan_types::{BlockId, SetId, VolumeId};

fn chunk(offset: u64, len: u64, skip: u32) -> Extent {
    Extent {
        offset,
        len,
        content: Content::Chunk {
            id: ChunkId::new(VolumeId::ONLY, SetId(1), BlockId(1), 1),
            skip,
            chunk_len: 1000,
            chunk_crc: 0,
        },
    }
}

#[test]
fn slices_keep_their_place_in_the_chunk() {
    let piece = slice(&chunk(100, 50, 7), 110..120);
    assert_eq!(piece, chunk(110, 10, 17));
    let home = home(&piece).unwrap();
    assert_eq!((home.at, home.range()), (93, 93..1093));
}

#[test]
fn home_of_a_chunk_whose_start_lies_before_the_file_is_clamped() {
    let home = home(&chunk(5, 10, 20)).unwrap();
    assert_eq!(home.range(), 0..985);
}

#[test]
fn only_what_continues_in_file_and_chunk_is_joined() {
    let parts = vec![chunk(0, 10, 5), chunk(10, 10, 15), chunk(20, 10, 26)];
    assert_eq!(join(parts), [chunk(0, 20, 5), chunk(20, 10, 26)]);
    let apart = vec![chunk(0, 10, 5), chunk(11, 10, 16)];
    assert_eq!(join(apart.clone()), apart);
}

#[test]
fn rows_with_impossible_numbers_are_malformed() {
    let key = key2(9, 100);
    let mut row = ExtentRow {
        len: 1,
        content: Content::Lost,
    };
    assert!(decode(&key, &layout::encode(&row)).is_ok());
    for len in [0, u64::MAX, u64::MAX - 100, 1 << 62] {
        row.len = len;
        assert!(decode(&key, &layout::encode(&row)).is_err(), "{len}");
    }
    row.len = 11;
    row.content = chunk(0, 11, 990).content;
    assert!(decode(&key, &layout::encode(&row)).is_err());
    assert!(decode(&key[..15], &layout::encode(&row)).is_err());
}
