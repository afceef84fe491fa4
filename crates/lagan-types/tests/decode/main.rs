//! Messages and log entries from bytes that nobody of ours has written: a value
//! or an error, never a panic, and no allocation beyond what the bytes justify
//! (INV-12).
//!
//! Valid encodings are found, not listed: an enum's variant followed by zeros
//! and ones is a value nearly always, so that new variants are met by themselves.

mod golden;
mod sys;

use lagan_types::cluster::ClusterMap;
use lagan_types::codec::{self, Decode, Encode, bincode};
use lagan_types::message::{
    ArchiveRefusal, ArchiveReply, ArchiveRequest, ChunkRefusal, ChunkReply, ChunkRequest,
    Conversation, LeaderRefusal, LeaderReply, LeaderRequest, MetaReply, MetaRequest, NodeRefusal,
    NodeReply, NodeRequest,
};
use lagan_types::{Answer, Command, FileOp, FsError, Op, Query, QueryAnswer, Refusal, SystemOp};
use proptest::prelude::*;
use std::fmt::Debug;

#[global_allocator]
static COUNTING: sys::Counting = sys::Counting;

/// Beside what was claimed: texts of errors and the like.
const SLACK: usize = 16 * 1024;

trait Value: Encode + Decode<()> + PartialEq + Debug {}
impl<T: Encode + Decode<()> + PartialEq + Debug> Value for T {}

/// What a decode of so many bytes may hold: what it claims ahead, and values
/// whose bytes are there.
fn allowed(len: usize) -> usize {
    let ahead = match len <= codec::SMALL_LEN {
        true => codec::SMALL_LIMIT_BYTES,
        false => codec::DECODE_LIMIT_BYTES,
    };
    ahead + len * 512 + SLACK
}

/// Decodes, and checks what must hold for any bytes.
fn check<T: Value>(bytes: &[u8]) -> Option<T> {
    let (found, peak) = sys::peak_of(|| codec::decode_prefix::<T>(bytes));
    assert!(
        peak <= allowed(bytes.len()),
        "{peak} bytes held for {} bytes",
        bytes.len()
    );
    let (value, used) = found.ok()?;
    let again = codec::encode(&value);
    assert!(again.len() <= used && used <= bytes.len());
    assert_eq!(codec::decode::<T>(&again).as_ref(), Ok(&value));
    Some(value)
}

/// The head of an answer to one of these requests.
type Answered<R> = Result<<R as Conversation>::Reply, <R as Conversation>::Refusal>;

/// Calls a generic function for every type that comes from a wire or a log.
macro_rules! for_each_type {
    ($call:ident($($argument:expr),*)) => {
        $call::<NodeReply>($($argument),*);
        $call::<NodeRefusal>($($argument),*);
        $call::<MetaReply>($($argument),*);
        $call::<LeaderReply>($($argument),*);
        $call::<LeaderRefusal>($($argument),*);
        $call::<ChunkReply>($($argument),*);
        $call::<ChunkRefusal>($($argument),*);
        $call::<ArchiveReply>($($argument),*);
        $call::<ArchiveRefusal>($($argument),*);
        $call::<Refusal>($($argument),*);
        $call::<NodeRequest>($($argument),*);
        $call::<Answered<NodeRequest>>($($argument),*);
        $call::<MetaRequest>($($argument),*);
        $call::<Answered<MetaRequest>>($($argument),*);
        $call::<LeaderRequest>($($argument),*);
        $call::<Answered<LeaderRequest>>($($argument),*);
        $call::<ChunkRequest>($($argument),*);
        $call::<Answered<ChunkRequest>>($($argument),*);
        $call::<ArchiveRequest>($($argument),*);
        $call::<Answered<ArchiveRequest>>($($argument),*);
        $call::<Command>($($argument),*);
        $call::<Vec<Command>>($($argument),*);
        $call::<Op>($($argument),*);
        $call::<FileOp>($($argument),*);
        $call::<SystemOp>($($argument),*);
        $call::<Query>($($argument),*);
        $call::<QueryAnswer>($($argument),*);
        $call::<Vec<Result<Answer, Refusal>>>($($argument),*);
        $call::<ClusterMap>($($argument),*);
    };
}

/// Bytes that are mostly the beginning of some value.
fn near_valid() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![12 => 0u8..=1, 2 => 0u8..=9, 1 => any::<u8>()];
    (0u8..48, prop::collection::vec(byte, 0..400)).prop_map(|(tag, mut bytes)| {
        bytes.insert(0, tag);
        bytes
    })
}

/// An encoding of that variant, all else zero.
fn plain<T: Value>(tag: u8) -> Option<Vec<u8>> {
    let mut bytes = vec![0; 600];
    bytes[0] = tag;
    let (value, _) = codec::decode_prefix::<T>(&bytes).ok()?;
    Some(codec::encode(&value))
}

fn variants<T: Value>() -> Vec<Vec<u8>> {
    (0..250).map_while(plain::<T>).collect()
}

fn cut<T: Value>(bytes: &[u8]) {
    let Some(value) = check::<T>(bytes) else {
        return;
    };
    let whole = codec::encode(&value);
    for len in 0..whole.len() {
        assert!(codec::decode_prefix::<T>(&whole[..len]).is_err(), "{len}");
    }
    let longer = [&whole[..], &[0]].concat();
    assert!(codec::decode::<T>(&longer).is_err());
}

fn flip<T: Value>(bytes: &[u8], at: &prop::sample::Index, bit: u8) {
    let Some(value) = check::<T>(bytes) else {
        return;
    };
    let mut whole = codec::encode(&value);
    let at = at.index(whole.len());
    whole[at] ^= 1 << bit;
    check::<T>(&whole);
}

/// Where a length could be there is one that lies.
fn lie<T: Value>() {
    for plain in variants::<T>() {
        for at in 0..plain.len() {
            for len in [1 << 10, 1 << 15, 1 << 20, u64::MAX] {
                let mut bytes = plain[..at].to_vec();
                bytes.extend(codec::encode(&len));
                bytes.extend_from_slice(&plain[at + 1..]);
                check::<T>(&bytes);
            }
        }
    }
}

/// What few bytes can hold is not more than they may claim.
fn many<T: Value>() {
    let widest = bincode::config::standard().with_limit::<{ codec::DECODE_LIMIT_BYTES }>();
    for plain in variants::<T>() {
        for at in 0..plain.len() {
            for count in [10u64, 100, 900] {
                let mut bytes = plain[..at].to_vec();
                bytes.extend(codec::encode(&count));
                bytes.resize(codec::SMALL_LEN, 0);
                let wide = bincode::decode_from_slice::<T, _>(&bytes, widest).ok();
                let value = codec::decode_prefix::<T>(&bytes).ok();
                assert_eq!(value, wide, "{count} at {at}");
            }
        }
    }
}

#[test]
fn every_variant_is_met() {
    fn all<T: Value>(names: &[&str]) {
        assert_eq!(variants::<T>().len(), names.len(), "{names:?}");
    }
    all::<NodeRequest>(NodeRequest::NAMES);
    all::<NodeReply>(NodeReply::NAMES);
    all::<MetaRequest>(MetaRequest::NAMES);
    all::<MetaReply>(MetaReply::NAMES);
    all::<LeaderRequest>(LeaderRequest::NAMES);
    all::<LeaderReply>(LeaderReply::NAMES);
    all::<ChunkRequest>(ChunkRequest::NAMES);
    all::<ChunkReply>(ChunkReply::NAMES);
    all::<ArchiveRequest>(ArchiveRequest::NAMES);
    all::<ArchiveReply>(ArchiveReply::NAMES);
    all::<FileOp>(FileOp::NAMES);
    all::<SystemOp>(SystemOp::NAMES);
    all::<Answer>(Answer::NAMES);
    all::<Query>(Query::NAMES);
    all::<QueryAnswer>(QueryAnswer::NAMES);
    assert_eq!(variants::<FsError>().len(), 27);
    assert_eq!(variants::<Refusal>().len(), 7);
    assert_eq!(variants::<LeaderRefusal>().len(), 2);
    assert_eq!(variants::<ChunkRefusal>().len(), 6);
    assert_eq!(variants::<ArchiveRefusal>().len(), 3);
}

/// A log holds these encodings without a version of their own: whoever moves a row or changes
/// its fields raises the versions that `op.rs` names, and then this test.
#[test]
fn golden_bytes_of_the_least_value_of_each_mutation() {
    check_rows::<FileOp>(FileOp::NAMES, &golden::FILE);
    check_rows::<SystemOp>(SystemOp::NAMES, &golden::SYSTEM);
}

fn check_rows<T: Value>(names: &[&str], golden: &[(&str, &str)]) {
    let bytes = variants::<T>();
    let hex = |row: &Vec<u8>| row.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let rows: Vec<_> = names.iter().copied().zip(bytes.iter().map(hex)).collect();
    let golden: Vec<_> = golden.iter().map(|(n, b)| (*n, (*b).to_owned())).collect();
    assert_eq!(rows, golden);
}

#[test]
fn length_that_lies_claims_no_memory() {
    for_each_type!(lie());
}

#[test]
fn what_few_bytes_hold_is_within_their_limit() {
    for_each_type!(many());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_a_value_or_refused(
        bytes in prop_oneof![
            prop::collection::vec(any::<u8>(), 0..3000),
            near_valid(),
        ],
    ) {
        for_each_type!(check(&bytes));
    }

    #[test]
    fn value_that_is_cut_or_longer_is_refused(bytes in near_valid()) {
        for_each_type!(cut(&bytes));
    }

    #[test]
    fn flipped_bit_gives_a_value_or_is_refused(
        bytes in near_valid(),
        at in any::<prop::sample::Index>(),
        bit in 0..8u8,
    ) {
        for_each_type!(flip(&bytes, &at, bit));
    }
}
