use super::*;
use lagan_types::{BlockId, SetId, VolumeId};

fn sample_head() -> Vec<u8> {
    let id = ChunkId::new(VolumeId::ONLY, SetId(2), BlockId(3), 4);
    let mut head = new_head(
        Kind::Chunk,
        id,
        70_000,
        0xdead_beef,
        &[0x1111_1111, 0x2222_2222],
    );
    let at = |generation, offset| Position { generation, offset };
    place_head(&mut head, at(7, 128), at(6, 64));
    head
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn header_bytes_are_the_documented_ones() {
    let head = sample_head();
    let fixed = "4c474e52010102000700000000000000800000007011010004000300000000000000020000000100\
                 060000000000000040000000efbeadde00000000";
    assert_eq!(hex(&head[..60]), fixed.replace(' ', ""));
    assert_eq!(hex(&head[64..]), "1111111122222222");
    assert_eq!(hex(&head[60..64]), "f03b585a");
}

#[test]
fn footer_bytes_are_the_documented_ones() {
    let footer = encode_footer(9, 4096);
    assert_eq!(
        hex(&footer[..24]),
        "4c474e4601000000090000000000000000100000".to_owned() + "00000000"
    );
    assert_eq!(hex(&footer[60..]), "577d00e8");
    assert_eq!(decode_footer(&footer, 9), Some(4096));
    assert_eq!(decode_footer(&footer, 8), None);
}

#[test]
fn header_is_read_back() {
    let head = sample_head();
    let header = parse_head(&head).expect("parses");
    assert_eq!(header.kind, Kind::Chunk);
    assert_eq!(
        header.at,
        Position {
            generation: 7,
            offset: 128
        }
    );
    assert_eq!(
        header.frontier,
        Position {
            generation: 6,
            offset: 64
        }
    );
    assert_eq!(
        (header.len, header.crc, header.blocks),
        (70_000, 0xdead_beef, 2)
    );
    assert_eq!(parse_crcs(&head, &header), [0x1111_1111, 0x2222_2222]);
    assert_eq!(header.record_len(), chunk_record_len(70_000));
}

#[test]
fn header_with_any_bit_flipped_is_refused() {
    let head = sample_head();
    for bit in 0..head.len() * 8 {
        let mut bad = head.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(parse_head(&bad), None, "bit {bit}");
    }
}

#[test]
fn cut_header_is_refused() {
    let head = sample_head();
    for len in 0..head.len() {
        assert_eq!(parse_head(&head[..len]), None);
    }
}

#[test]
fn deletes_and_tables_are_read_back() {
    let deletes = vec![(ChunkId(5), 6), (ChunkId(u128::MAX), u64::MAX)];
    assert_eq!(
        decode_deletes(&encode_deletes(&deletes)),
        Some(deletes.clone())
    );
    assert_eq!(decode_deletes(&encode_deletes(&deletes)[1..]), None);
    let entry = Entry {
        kind: Kind::Deletes,
        offset: 64,
        len: 48,
        crc: 1,
        id: ChunkId(0),
    };
    assert_eq!(
        decode_table(&encode_table(&[entry, entry])),
        Some(vec![entry, entry])
    );
    assert_eq!(decode_table(&[9; 32]), None);
}
