use super::*;
use lagan_types::{BlockId, SetId, VolumeId};
use proptest::prelude::*;

fn chunk(n: u16) -> ChunkId {
    ChunkId::new(VolumeId(1), SetId(1), BlockId(1), n)
}

/// A chunk's bytes: 4,096 of them, different for each chunk.
fn chunk_bytes(id: ChunkId) -> Vec<u8> {
    (0..4096u32)
        .map(|i| (i * 7 + i / 256 + u32::from(id.index())) as u8)
        .collect()
}

struct Fake;

#[async_trait]
impl Chunks for Fake {
    async fn read(&self, id: ChunkId, offset: u32, len: u32) -> Result<Bytes, MoverError> {
        let all = chunk_bytes(id);
        let range = all.get(offset as usize..(offset + len) as usize);
        Ok(range.expect("a range inside of the chunk").to_vec().into())
    }
}

#[async_trait]
impl Recall for Fake {
    async fn recall(&self, _: Ino, _: u64, offset: u64, len: u32) -> Result<Bytes, MoverError> {
        Ok((offset..offset + u64::from(len)).map(|i| i as u8).collect())
    }
}

fn extent(offset: u64, len: u64, content: Content) -> Extent {
    Extent {
        offset,
        len,
        content,
    }
}

fn in_chunk(n: u16, skip: u32) -> Content {
    let id = chunk(n);
    Content::Chunk {
        id,
        skip,
        chunk_len: 4096,
        chunk_crc: crc32fast::hash(&chunk_bytes(id)),
    }
}

fn content(size: u64, extents: &[Extent]) -> FileContent {
    FileContent {
        ino: Ino(2),
        size,
        pieces: pieces(size, extents).unwrap(),
        chunks: Arc::new(Fake),
        recall: Arc::new(Fake),
    }
}

#[test]
fn overlapping_and_lost_extents_are_errors() {
    let overlap = [extent(0, 10, in_chunk(1, 0)), extent(9, 10, in_chunk(2, 0))];
    assert!(pieces(100, &overlap).is_err());
    assert!(pieces(100, &[extent(0, 10, Content::Lost)]).is_err());
    assert!(pieces(0, &[]).unwrap().is_empty());
}

#[test]
fn crc_of_zeros_is_that_of_zeros() {
    for len in [0usize, 1, 2, 3, 1000, 65_537] {
        assert_eq!(
            zeros_crc(len as u64).finalize(),
            crc32fast::hash(&vec![0; len])
        );
    }
}

#[tokio::test]
async fn an_empty_file_has_an_empty_body() {
    let file = Arc::new(content(0, &[]));
    assert_eq!(file.units().await.unwrap().combined(), 0);
    assert_eq!(file.body().await.unwrap().len(), 0);
}

proptest! {
    #[test]
    fn reads_and_crcs_agree_with_the_bytes(
        parts in proptest::collection::vec((0u8..4, 1u64..=4096, 0u32..2000), 0..12),
        tail in 0u64..3000,
        reads in proptest::collection::vec((0u64..20_000, 0u64..20_000), 5),
    ) {
        let mut extents = Vec::new();
        let mut bytes = Vec::new();
        for (i, (kind, len, skip)) in parts.into_iter().enumerate() {
            let offset = bytes.len() as u64;
            let n = i as u16;
            let (len, place) = match kind {
                0 => (len, None),
                1 => (4096, Some(in_chunk(n, 0))),
                2 => (len.min(2000), Some(in_chunk(n, skip))),
                _ => (len, Some(Content::Object { version: 1, offset: offset + 3 })),
            };
            match &place {
                None => bytes.extend(vec![0; len as usize]),
                Some(Content::Object { offset, .. }) => {
                    bytes.extend((*offset..*offset + len).map(|i| i as u8));
                }
                Some(_) => {
                    let skip = if kind == 1 { 0 } else { skip as usize };
                    bytes.extend(&chunk_bytes(chunk(n))[skip..skip + len as usize]);
                }
            }
            extents.extend(place.map(|place| extent(offset, len, place)));
        }
        bytes.extend(vec![0; tail as usize]);
        let size = bytes.len() as u64;
        let file = content(size, &extents);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            for (a, b) in reads {
                let (start, end) = (a.min(b).min(size), a.max(b).min(size));
                let read = file.read(start, end - start).await.unwrap();
                assert_eq!(read, &bytes[start as usize..end as usize]);
            }
            assert_eq!(file.units().await.unwrap().combined(), crc32fast::hash(&bytes));
        });
    }
}
