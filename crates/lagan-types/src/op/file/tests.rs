//! Bytes that come with commits.

use super::*;
use crate::id::{ChunkId, Epoch, SetId, VolumeId};

fn refer(index: u16, data: &[u8]) -> ChunkRef {
    ChunkRef {
        id: ChunkId::new(VolumeId::ONLY, SetId(1), BlockId(2), index),
        set_epoch: Epoch(3),
        skip: 0,
        chunk_len: data.len() as u32,
        chunk_crc: crc32fast::hash(data),
    }
}

fn commit(pieces: &[&[u8]], data: &[u8]) -> Commit {
    let edits = (0..).zip(pieces).map(|(n, piece)| Edit {
        offset: u64::from(n) * 100_000,
        len: piece.len() as u64,
        content: Some(refer(n, piece)),
    });
    Commit {
        ino: Ino(7),
        edits: edits.collect(),
        append: false,
        size_min: 0,
        expect_version: None,
        kill_suid: false,
        mtime: None,
        inline: Inline::Data(Data(data.to_vec().into())),
    }
}

#[test]
fn bytes_are_cut_into_the_chunks_of_the_edits() {
    let mut commit = commit(&[b"abc", b"defg"], b"abcdefg");
    commit.edits.insert(
        1,
        Edit {
            offset: 50_000,
            len: 9,
            content: None,
        },
    );
    assert!(commit.is_whole());
    let found: Vec<_> = commit.inline_chunks().collect();
    assert_eq!(found.len(), 2);
    assert_eq!((found[0].0.chunk_len, &found[0].1[..]), (3, &b"abc"[..]));
    assert_eq!((found[1].0.chunk_len, &found[1].1[..]), (4, &b"defg"[..]));
}

#[test]
fn bytes_that_are_not_the_chunks_are_told() {
    for data in [&b"abd"[..], b"ab", b"abcd", b""] {
        assert!(!commit(&[b"abc"], data).is_whole(), "{data:?}");
    }
    assert!(!commit(&[b""], b"").is_whole());
    assert!(!commit(&[], b"abc").is_whole(), "no chunk has them");
    let long = vec![5; INLINE_LEN_MAX + 1];
    assert!(commit(&[&long[1..]], &long[1..]).is_whole());
    assert!(!commit(&[&long], &long).is_whole());
    let mut huge = commit(&[b"abc", b"d"], b"abcd");
    for edit in &mut huge.edits {
        edit.content.as_mut().unwrap().chunk_len = u32::MAX;
    }
    assert!(!huge.is_whole() && huge.inline_chunks().next().is_none());
}

#[test]
fn refused_bytes_are_gone_and_nothing_else() {
    let with = FileOp::from(commit(&[b"abc"], b"abc"));
    assert!(with.inline().is_some());
    let without = with.clone().without_data();
    assert!(without.inline().is_none());
    let FileOp::Commit(left) = &without else {
        panic!("{without:?}");
    };
    assert_eq!(left.inline, Inline::Refused);
    let edits = |op: &FileOp| op.clone().touches();
    assert_eq!(edits(&with), edits(&without));
    let mut stored = commit(&[b"abc"], b"");
    stored.inline = Inline::Stored;
    let stored = FileOp::from(stored);
    assert_eq!(stored.clone().without_data(), stored);
}
