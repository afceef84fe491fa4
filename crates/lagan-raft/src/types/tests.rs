//! Bytes of batches.

use super::*;

fn command(seq: u64) -> Command {
    Command {
        seq,
        ..Command::system(lagan_types::op::SystemOp::from(lagan_types::op::Init {
            config: lagan_types::cluster::Config::default(),
        }))
    }
}

#[test]
fn golden_bytes_of_a_batch() {
    let empty = Batch::new(300, Vec::new());
    // The term as a varint, then whether bytes of chunks come along, and the number of commands.
    assert_eq!(&empty.bytes()[..], [0xfb, 0x2c, 0x01, 0, 0]);
    let full = Batch::new(7, vec![command(1), command(2)]);
    let one = codec::encode(&command(1));
    let two = codec::encode(&command(2));
    assert_eq!(&full.bytes()[..], [&[7, 0, 2], &one[..], &two].concat());
}

#[test]
fn a_batch_is_the_same_from_its_bytes() {
    for commands in [vec![], vec![command(1)], vec![command(1), command(2)]] {
        let batch = Batch::new(1 << 40, commands.clone());
        let read = Batch::from_bytes(batch.bytes().clone());
        for batch in [batch, read] {
            let (term, found) = batch.parts().unwrap();
            assert_eq!((term, &found[..]), (1 << 40, &commands[..]));
        }
    }
}

#[test]
fn envelope_is_no_longer_than_its_room() {
    let longest = codec::encode(&(u64::MAX, true, u64::MAX));
    assert_eq!(longest.len(), Batch::ENVELOPE_LEN);
}

#[test]
fn late_and_done_are_told_apart_when_encoded() {
    for answer in [BatchAnswer::Late, BatchAnswer::Done(Vec::new())] {
        let bytes = codec::encode_serde(&answer);
        assert_eq!(codec::decode_serde::<BatchAnswer>(&bytes), Ok(answer));
    }
}
