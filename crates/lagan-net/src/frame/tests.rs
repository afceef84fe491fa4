use super::*;
use proptest::prelude::*;

fn encode(frame: &Frame) -> Vec<u8> {
    let mut out = encode_header(frame.kind, frame.id, &frame.head, frame.data.len()).to_vec();
    out.extend_from_slice(&frame.head);
    out.extend_from_slice(&frame.data);
    out
}

fn frame(id: u64, head_len: usize, data_len: usize) -> Frame {
    Frame {
        kind: FrameKind::Call,
        id,
        head: vec![id as u8; head_len].into(),
        data: (0..data_len).map(|i| (i % 251) as u8).collect(),
    }
}

/// Feeds `stream` in pieces and collects what comes out.
fn feed(decoder: &mut Decoder, mut stream: &[u8]) -> Result<Vec<Frame>, FrameError> {
    let mut out = Vec::new();
    while !stream.is_empty() {
        let mut space = decoder.space();
        let room = space.chunk_mut().len();
        let len = room.min(stream.len());
        space.put_slice(&stream[..len]);
        stream = &stream[len..];
        while let Some(frame) = decoder.next_frame()? {
            out.push(frame);
        }
    }
    Ok(out)
}

fn memory(decoder: &Decoder) -> usize {
    decoder.buffer.capacity() + decoder.bulk.as_ref().map_or(0, |b| b.data.capacity())
}

#[test]
fn header_bytes_are_golden() {
    let header = encode_header(FrameKind::Answer, 0x0102_0304_0506_0708, b"head", 0x1122);
    assert_eq!(
        header,
        [
            4, 0, 0, 1, 0x22, 0x11, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1, 7, 66, 155, 128
        ]
    );
}

#[test]
fn frames_come_out_as_they_went_in() {
    let frames = [
        frame(1, 0, 0),
        frame(2, 100, 0),
        frame(3, 10, BULK_LEN),
        frame(4, 10, BULK_LEN + 1),
        frame(5, 200_000, 3),
        frame(6, 1, 4 * 1024 * 1024),
        frame(7, 1, 1),
    ];
    let stream: Vec<u8> = frames.iter().flat_map(encode).collect();
    let mut decoder = Decoder::new(FrameLimits::default());
    assert_eq!(feed(&mut decoder, &stream).unwrap(), frames);
    assert!(!decoder.is_partial());
}

#[test]
fn lengths_over_the_limit_are_refused_before_any_allocation() {
    let limits = FrameLimits {
        head_len_max: 10,
        data_len_max: 20,
    };
    let head = encode_header(FrameKind::Call, 1, &[0; 11], 0);
    let data = encode_header(FrameKind::Call, 1, &[], 21);
    assert_eq!(
        feed(&mut Decoder::new(limits), &head),
        Err(FrameError::HeadTooLong(11))
    );
    assert_eq!(
        feed(&mut Decoder::new(limits), &data),
        Err(FrameError::DataTooLong(21))
    );
}

#[test]
fn a_claimed_length_allocates_little() {
    let data_len = FRAME_DATA_LEN_MAX as usize;
    let mut decoder = Decoder::new(FrameLimits::default());
    feed(
        &mut decoder,
        &encode_header(FrameKind::Call, 1, &[], data_len),
    )
    .unwrap();
    let _ = decoder.space();
    assert!(memory(&decoder) <= BULK_START_LEN + 2 * READ_LEN);

    let mut decoder = Decoder::new(FrameLimits::default());
    let head = vec![0; FRAME_HEAD_LEN_MAX as usize];
    feed(
        &mut decoder,
        &encode_header(FrameKind::Call, 1, &head, data_len),
    )
    .unwrap();
    let _ = decoder.space();
    assert!(memory(&decoder) <= BULK_START_LEN + 2 * READ_LEN);
}

#[test]
fn an_unknown_kind_is_refused() {
    let mut bytes = encode(&frame(1, 3, 0));
    bytes[3] = 77;
    let got = feed(&mut Decoder::new(FrameLimits::default()), &bytes);
    assert_eq!(got, Err(FrameError::Kind(77)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_split_of_the_stream_gives_the_same_frames(
        sizes in prop::collection::vec((0usize..300, prop_oneof![0usize..100, 30_000usize..70_000]), 1..6),
        cuts in prop::collection::vec(1usize..50_000, 1..20),
    ) {
        let frames: Vec<_> = sizes
            .iter()
            .enumerate()
            .map(|(i, (head, data))| frame(i as u64, *head, *data))
            .collect();
        let stream: Vec<u8> = frames.iter().flat_map(encode).collect();
        let mut decoder = Decoder::new(FrameLimits::default());
        let mut got = Vec::new();
        let mut rest = &stream[..];
        for cut in cuts.iter().cycle() {
            let (now, later) = rest.split_at((*cut).min(rest.len()));
            got.extend(feed(&mut decoder, now).unwrap());
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(got, frames);
        prop_assert!(!decoder.is_partial());
    }

    #[test]
    fn random_bytes_never_panic_and_stay_small(bytes in prop::collection::vec(any::<u8>(), 0..5_000)) {
        let mut decoder = Decoder::new(FrameLimits::default());
        let _ = feed(&mut decoder, &bytes);
        prop_assert!(memory(&decoder) <= BULK_START_LEN + 2 * READ_LEN);
    }

    #[test]
    fn a_flipped_bit_of_header_or_head_gives_no_frame(head_len in 0usize..200, bit in 0usize..1_600) {
        let mut bytes = encode(&frame(9, head_len, 0));
        let bit = bit % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        let got = feed(&mut Decoder::new(FrameLimits::default()), &bytes);
        prop_assert!(!matches!(got, Ok(frames) if !frames.is_empty()));
    }
}
