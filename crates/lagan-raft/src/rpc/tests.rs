//! Heads and entries from bytes that no peer of ours has sent: a message or an
//! error, never a panic (INV-12).

use super::*;
use crate::types::Batch;
use crate::types::alias::Membership;
use lagan_types::op::Unlink;
use lagan_types::{Command, Ino, SessionId, Time, VolumeId};
use openraft::{CommittedLeaderId, EntryPayload};
use proptest::prelude::*;
use std::collections::BTreeSet;

fn near_valid() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![12 => 0u8..=1, 2 => 0u8..=9, 1 => any::<u8>()];
    (0u8..8, prop::collection::vec(byte, 0..200)).prop_map(|(tag, mut bytes)| {
        bytes.splice(0..0, [VERSION, tag]);
        bytes
    })
}

/// Both decoders read a head the same from their own encoding of it again.
fn check(head: &[u8]) {
    if let Ok(request) = Request::decode(head) {
        let own = request.encode();
        let again = Request::decode(&own).expect("our own encoding");
        assert_eq!(again.encode(), own);
    }
    if let Ok(reply) = Reply::decode(head) {
        let own = reply.encode();
        let again = Reply::decode(&own).expect("our own encoding");
        assert_eq!(again.encode(), own);
    }
}

fn id(index: u64) -> LogId {
    LogId::new(CommittedLeaderId::new(3, 1), index)
}

fn command(seq: u64) -> Command {
    Command {
        volume: VolumeId::ONLY,
        session: SessionId(7),
        seq,
        unanswered: seq,
        time: Time::default(),
        op: Unlink {
            parent: Ino(1),
            name: vec![b'x'; 40],
        }
        .into(),
    }
}

/// An append with an entry of each kind.
fn append() -> (Vec<u8>, Bytes) {
    let payloads = [
        EntryPayload::Blank,
        EntryPayload::Normal(Batch::new(3, vec![command(1), command(2)])),
        EntryPayload::Membership(Membership::new(vec![BTreeSet::from([1, 2, 3])], None)),
    ];
    let entries = payloads.into_iter().zip(5..).map(|(payload, index)| Entry {
        log_id: id(index),
        payload,
    });
    Request::append(&AppendEntriesRequest {
        vote: Vote::new_committed(3, 1),
        prev_log_id: Some(id(4)),
        entries: entries.collect(),
        leader_commit: None,
    })
}

/// Decodes an append as a follower does; the commands of those entries that have some.
fn received(head: &[u8], data: Bytes) -> Result<Vec<Command>, String> {
    let Request::Append { entries, .. } = Request::decode(head)? else {
        return Err("another request".into());
    };
    let mut found = Vec::new();
    for entry in entries_of(entries, data)? {
        if let EntryPayload::Normal(batch) = entry.payload {
            let (_, commands) = batch.parts().map_err(|e| e.to_string())?;
            found.extend_from_slice(&commands);
        }
    }
    Ok(found)
}

#[test]
fn append_that_is_cut_is_refused() {
    let (head, data) = append();
    assert_eq!(
        received(&head, data.clone()),
        Ok(vec![command(1), command(2)])
    );
    for len in 0..head.len() {
        assert!(Request::decode(&head[..len]).is_err(), "head of {len}");
    }
    for len in 0..data.len() {
        let cut = data.slice(..len);
        assert!(received(&head, cut).is_err(), "data of {len}");
    }
    let longer = [&data[..], b"x"].concat();
    assert!(received(&head, longer.into()).is_err());
}

#[test]
fn length_that_lies_is_refused() {
    let (head, data) = append();
    for at in 1..head.len() {
        for len in [1 << 10, 1 << 24, 1 << 40, u64::MAX] {
            let mut bytes = head[..at].to_vec();
            bytes.extend(codec::encode(&len));
            bytes.extend_from_slice(&head[at + 1..]);
            check(&bytes);
            let _ = received(&bytes, data.clone());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_a_message_or_refused(
        head in prop_oneof![prop::collection::vec(any::<u8>(), 0..1000), near_valid()],
        data in prop::collection::vec(any::<u8>(), 0..1000),
    ) {
        check(&head);
        let _ = received(&head, data.into());
    }

    #[test]
    fn flipped_bit_in_an_append_gives_entries_or_is_refused(
        at in any::<prop::sample::Index>(),
        bit in 0..8u8,
    ) {
        let (mut head, data) = append();
        let mut data = data.to_vec();
        let at = at.index(head.len() + data.len());
        match at.checked_sub(head.len()) {
            None => head[at] ^= 1 << bit,
            Some(at) => data[at] ^= 1 << bit,
        }
        check(&head);
        let _ = received(&head, data.into());
    }
}
