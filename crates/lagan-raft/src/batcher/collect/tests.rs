//! Which proposals get into which batch.

use super::*;
use lagan_types::op::Unlink;
use lagan_types::{Ino, SessionId, VolumeId};

type Answers = oneshot::Receiver<Result<Carried, ProposeError>>;

const NOT_LEADER: ProposeError = ProposeError::NotLeader { leader: None };
fn now() -> Time {
    Time::from_millis(1_000)
}

struct Bench {
    queue: mpsc::Sender<Proposal>,
    leader: watch::Sender<LeaderInfo>,
    collector: Collector,
}

fn leads_in(term: u64) -> LeaderInfo {
    LeaderInfo {
        term,
        is_leader: true,
        ..LeaderInfo::default()
    }
}

fn not_found(index: u64) -> Carried {
    let answer = Err(FsError::NotFound.into());
    Carried { answer, index }
}

impl Bench {
    /// A node that leads in that term.
    fn new(term: u64) -> Bench {
        let (queue, waiting) = mpsc::channel(2_000);
        let (leader, watching) = watch::channel(leads_in(term));
        Bench {
            queue,
            leader,
            collector: Collector::new(waiting, watching, Time::default()),
        }
    }

    /// Queues a command of which one name has `len` bytes.
    fn command(&self, term: u64, seq: u64, len: usize) -> Answers {
        let (reply, answer) = oneshot::channel();
        let content = Content::Command(Box::new(command(seq, len)), reply);
        self.queue
            .try_send(Proposal { term, content })
            .ok()
            .unwrap();
        answer
    }

    fn barrier(&self, term: u64) -> oneshot::Receiver<Result<(), ProposeError>> {
        let (reply, answer) = oneshot::channel();
        let content = Content::Barrier(reply);
        self.queue
            .try_send(Proposal { term, content })
            .ok()
            .unwrap();
        answer
    }

    fn collect(&mut self) -> (Collected, Option<Proposal>) {
        let first = self.collector.queue.try_recv().unwrap();
        self.collector.collect(first, now())
    }
}

fn command(seq: u64, len: usize) -> Command {
    Command {
        volume: VolumeId::ONLY,
        session: SessionId(7),
        seq,
        unanswered: seq,
        time: Time::default(),
        op: Unlink {
            parent: Ino(1),
            name: vec![b'x'; len],
        }
        .into(),
    }
}

/// Term and sequences of a batch.
fn content(batch: &Batch) -> (u64, Vec<u64>) {
    let (term, commands) = batch.parts().unwrap();
    (term, commands.iter().map(|c| c.seq).collect())
}

#[test]
fn proposals_of_an_ended_term_are_refused_and_in_no_batch() {
    let mut bench = Bench::new(5);
    let mut old = bench.command(4, 1, 1);
    let mut present = bench.command(5, 2, 1);
    let mut barrier = bench.barrier(4);
    let mut next = bench.command(5, 3, 1);
    let (collected, left) = bench.collect();
    assert!(left.is_none());
    let (batch, _waiting) = collected.into_batch().unwrap();
    assert_eq!(content(&batch), (5, vec![2, 3]));
    assert_eq!(old.try_recv(), Ok(Err(NOT_LEADER)));
    assert_eq!(barrier.try_recv(), Ok(Err(NOT_LEADER)));
    assert!(present.try_recv().is_err() && next.try_recv().is_err());
}

#[test]
fn a_node_that_leads_no_more_proposes_nothing() {
    let mut bench = Bench::new(5);
    let mut command = bench.command(5, 1, 1);
    let mut barrier = bench.barrier(5);
    bench.leader.send_modify(|l| l.is_leader = false);
    let (collected, left) = bench.collect();
    assert!(left.is_none() && collected.into_batch().is_none());
    assert_eq!(command.try_recv(), Ok(Err(NOT_LEADER)));
    assert_eq!(barrier.try_recv(), Ok(Err(NOT_LEADER)));
}

#[test]
fn a_proposal_of_a_new_term_waits_for_a_batch_of_that_term() {
    let mut bench = Bench::new(5);
    let _first = bench.command(5, 1, 1);
    let (mut collected, _) = bench.collect();
    bench.leader.send_replace(leads_in(7));
    let mut second = bench.command(7, 2, 1);
    let proposal = bench.collector.queue.try_recv().unwrap();
    let left = bench.collector.take(proposal, now(), &mut collected);
    let (batch, _waiting) = collected.into_batch().unwrap();
    assert_eq!(content(&batch), (5, vec![1]));
    let (collected, left) = bench.collector.collect(left.unwrap(), now());
    assert!(left.is_none());
    let (batch, _waiting) = collected.into_batch().unwrap();
    assert_eq!(content(&batch), (7, vec![2]));
    assert!(second.try_recv().is_err());
}

#[test]
fn barriers_share_batches_and_need_no_command() {
    let mut bench = Bench::new(5);
    let mut alone = bench.barrier(5);
    let (collected, _) = bench.collect();
    let (batch, waiting) = collected.into_batch().unwrap();
    assert_eq!(content(&batch), (5, vec![]));
    waiting.answer(Ok((8, BatchAnswer::Done(Vec::new()))));
    assert_eq!(alone.try_recv(), Ok(Ok(())));
    let (mut command, mut barrier) = (bench.command(5, 1, 1), bench.barrier(5));
    let (collected, _) = bench.collect();
    let (batch, waiting) = collected.into_batch().unwrap();
    assert_eq!(content(&batch), (5, vec![1]));
    waiting.answer(Ok((
        9,
        BatchAnswer::Done(vec![Err(FsError::NotFound.into())]),
    )));
    assert_eq!(command.try_recv(), Ok(Ok(not_found(9))));
    assert_eq!(barrier.try_recv(), Ok(Ok(())));
}

#[test]
fn barriers_count_as_commands_do() {
    let mut bench = Bench::new(5);
    let barriers: Vec<_> = (0..=BATCH_COMMANDS_MAX).map(|_| bench.barrier(5)).collect();
    let (collected, left) = bench.collect();
    assert!(left.is_none());
    assert_eq!(collected.waiting.len(), BATCH_COMMANDS_MAX);
    assert_eq!(barriers.len(), BATCH_COMMANDS_MAX + 1);
}

#[test]
fn whoever_waits_for_a_late_entry_hears_that_nothing_happened() {
    let mut bench = Bench::new(5);
    let (mut command, mut barrier) = (bench.command(5, 1, 1), bench.barrier(5));
    let (collected, _) = bench.collect();
    let (_, waiting) = collected.into_batch().unwrap();
    waiting.answer(Ok((8, BatchAnswer::Late)));
    assert_eq!(command.try_recv(), Ok(Err(NOT_LEADER)));
    assert_eq!(barrier.try_recv(), Ok(Err(NOT_LEADER)));
}

#[test]
fn the_longest_batch_is_within_the_limit() {
    let mut bench = Bench::new(u64::MAX);
    let timed = Command {
        time: now(),
        ..command(1, 1 << 20)
    };
    // The length of the name keeps its own length in this range.
    let over = lagan_types::codec::encode(&timed).len() - (1 << 20);
    let fits = BATCH_LEN_MAX - Batch::ENVELOPE_LEN - over;
    let mut too_big = bench.command(u64::MAX, 1, fits + 1);
    let (collected, left) = bench.collect();
    assert!(left.is_none() && collected.into_batch().is_none());
    assert_eq!(
        too_big.try_recv(),
        Ok(Ok(Carried {
            answer: Err(FsError::TooBig.into()),
            index: 0
        }))
    );
    let _longest = bench.command(u64::MAX, 1, fits);
    let mut next = bench.command(u64::MAX, 2, 1);
    let (collected, left) = bench.collect();
    let (batch, _waiting) = collected.into_batch().unwrap();
    assert_eq!(content(&batch).1, [1]);
    assert!(batch.bytes().len() <= BATCH_LEN_MAX);
    assert!(left.is_none() && next.try_recv().is_err(), "it was full");
    let _does_not_fit = bench.command(u64::MAX, 3, fits);
    let (collected, left) = bench.collect();
    let (batch, _waiting) = collected.into_batch().unwrap();
    assert_eq!(content(&batch).1, [2]);
    assert!(left.is_some(), "it waits for the next");
}

#[test]
fn whatever_waits_at_the_end_hears_that_the_node_has_stopped() {
    let mut bench = Bench::new(5);
    let mut answers = [bench.command(5, 1, 1), bench.command(5, 2, 1)];
    let mut barrier = bench.barrier(5);
    let held = bench.collector.queue.try_recv().ok();
    bench.collector.stop(held);
    for answer in &mut answers {
        assert_eq!(answer.try_recv(), Ok(Err(ProposeError::Stopped)));
    }
    assert_eq!(barrier.try_recv(), Ok(Err(ProposeError::Stopped)));
}
