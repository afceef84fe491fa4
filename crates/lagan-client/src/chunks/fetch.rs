//! Reads bytes of chunks: any replica, nearest first, verified here.
//!
//! A replica that is silent is not waited for: after a moment the next one is
//! asked too, and the first good answer counts. A bad block is reported to its
//! node, which heals it, and so is a replica that one node lacks and another has.
//! "Not found" everywhere means that the file's map was old.

use crate::chunks::Chunks;
use crate::chunks::blocks::UNIT_LEN;
use crate::chunks::spec::{ChunkSpec, Missing};
use crate::leader::link::left;
use bytes::Bytes;
use lagan_types::limits::BLOCK_LEN;
use lagan_types::message::{Blocks, ChunkRefusal, ReadChunk, Replica};
use lagan_types::{FsError, NodeId};
use std::future::poll_fn;
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;
use tokio::time::Instant;

/// How long a replica is silent before the next one is asked too.
pub(super) const HEDGE: Duration = Duration::from_millis(500);
/// How long one attempt waits, at most.
pub(super) const ATTEMPT: Duration = Duration::from_secs(10);
/// Wait between rounds over all replicas, at first and at most.
const PAUSE: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// One replica's answer.
enum Outcome {
    Found(Bytes),
    NotFound,
    Bad,
    Failed,
}

type Attempt<'a> = Pin<Box<dyn Future<Output = (NodeId, Outcome)> + Send + 'a>>;

impl Chunks {
    /// Reads bytes `at..at + len` of a chunk, which must lie in one unit. With
    /// `whole` the whole unit is fetched: more of it will be read soon.
    ///
    /// # Errors
    /// [`Missing::Unreachable`] when no node answers, as long as somebody leads.
    pub(super) async fn reachable_bytes(
        &self,
        chunk: ChunkSpec,
        at: u32,
        len: u32,
        whole: bool,
        until: Instant,
    ) -> Result<Bytes, Missing> {
        if let Some(bytes) = self.blocks.get(chunk.id, at, len) {
            return Ok(bytes);
        }
        let unit = at / UNIT_LEN;
        let under_way = self.units.is_under_way((chunk.id, unit));
        if whole || under_way {
            let bytes = self.fetch_unit(chunk, unit, until).await?;
            let from = (at % UNIT_LEN) as usize;
            return slice(&bytes, from, len);
        }
        let start = at - at % BLOCK_LEN;
        let end = (at + len).next_multiple_of(BLOCK_LEN).min(chunk.len);
        let bytes = self
            .fetch(chunk, start, end.max(start) - start, until)
            .await?;
        self.blocks.put(chunk.id, start, bytes.clone());
        slice(&bytes, (at - start) as usize, len)
    }

    /// Reads a whole unit; it is fetched once however many ask for it at the same time.
    async fn fetch_unit(
        &self,
        chunk: ChunkSpec,
        unit: u32,
        until: Instant,
    ) -> Result<Bytes, Missing> {
        let (start, len) = unit_of(chunk, unit);
        if let Some(bytes) = self.blocks.get(chunk.id, start, len) {
            return Ok(bytes);
        }
        loop {
            let fetch = async {
                let bytes = self.fetch(chunk, start, len, until).await?;
                self.blocks.put(chunk.id, start, bytes.clone());
                Ok(bytes)
            };
            let fetched = self.units.once((chunk.id, unit), fetch).await;
            // The deadline may have been that of another, who asked first.
            let early =
                fetched == Err(Missing::Failed(FsError::Io)) && Instant::now() + PAUSE_MAX < until;
            if !early {
                return fetched;
            }
        }
    }

    /// Fetches the units of `at..at + len` in the background.
    pub fn prefetch(&self, chunk: ChunkSpec, at: u32, len: u64) {
        let last = (u64::from(at) + len - 1) / u64::from(UNIT_LEN);
        for unit in at / UNIT_LEN..=last as u32 {
            self.prefetch_unit(chunk, unit);
        }
    }

    /// Fetches a unit in the background, unless it is there or too much of that goes on.
    fn prefetch_unit(&self, chunk: ChunkSpec, unit: u32) {
        let (start, len) = unit_of(chunk, unit);
        if len == 0 || self.blocks.get(chunk.id, start, len).is_some() {
            return;
        }
        let Ok(permit) = self.ahead.clone().try_acquire_owned() else {
            return;
        };
        self.tasks.spawn(&self.me, move |chunks| async move {
            let until = chunks.leader.deadline();
            // A reader that needs it asks again.
            let _ = chunks.fetch_unit(chunk, unit, until).await;
            drop(permit);
        });
    }

    /// Asks the chunk's replicas for `start..start + len` until one gives it; `start` is
    /// a block's start, and the answer is whole blocks from there on. Ends when no
    /// node answers, as long as somebody leads: the caller knows what to do then.
    async fn fetch(
        &self,
        chunk: ChunkSpec,
        start: u32,
        len: u32,
        until: Instant,
    ) -> Result<Bytes, Missing> {
        let mut pause = PAUSE;
        let mut newest = false;
        loop {
            let suspects = self.leader.cluster().suspects();
            let placement = self.leader.cluster().current();
            let draw = self.leader.cluster().draw();
            let nodes = placement.order(chunk.id.set(), |n| suspects.contains(&n), draw);
            if nodes.is_empty() && newest {
                // The set is gone, or all its members are.
                return Err(Missing::NotFound { everywhere: true });
            }
            let failed = match self.fetch_round(&nodes, chunk, start, len, until).await {
                Ok(bytes) => return Ok(bytes),
                Err(counts) => counts,
            };
            let all = nodes.len();
            if !failed.missing.is_empty() {
                let everywhere = failed.missing.len() + failed.bad == all;
                return Err(Missing::NotFound { everywhere });
            }
            if all > 0 && failed.bad == all {
                return Err(Missing::Failed(FsError::Corrupt));
            }
            if newest {
                return Err(Missing::Unreachable);
            }
            self.pause_until(pause, until).await?;
            pause = (pause * 2).min(PAUSE_MAX);
            // Members may have moved; without a leader the old map must do.
            let soon = until.min(Instant::now() + PAUSE_MAX);
            newest = self.leader.refresh_map(soon).await.is_ok();
        }
    }

    /// Waits before something is tried again that must end by `until`.
    ///
    /// # Errors
    /// [`FsError::Io`] at once if there is no time for that.
    pub(super) async fn pause_until(&self, pause: Duration, until: Instant) -> Result<(), Missing> {
        if Instant::now() + pause >= until {
            return Err(Missing::Failed(FsError::Io));
        }
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Asks each node once, the next one when the last is silent for [`HEDGE`].
    async fn fetch_round(
        &self,
        nodes: &[NodeId],
        chunk: ChunkSpec,
        start: u32,
        len: u32,
        until: Instant,
    ) -> Result<Bytes, Counts> {
        let mut counts = Counts::default();
        let mut running: Vec<Attempt<'_>> = Vec::with_capacity(nodes.len());
        let mut rest = nodes.iter();
        loop {
            let asked = rest.next().copied();
            if let Some(node) = asked {
                running.push(Box::pin(self.read_from(node, chunk, start, len, until)));
            }
            if running.is_empty() {
                return Err(counts);
            }
            match tokio::time::timeout(HEDGE, first_of(&mut running)).await {
                Ok((node, Outcome::Found(bytes))) => {
                    self.leader.cluster().trust(node);
                    self.report(&counts.missing, chunk);
                    return Ok(bytes);
                }
                Ok((node, Outcome::NotFound)) => counts.missing.push(node),
                Ok((_, Outcome::Bad)) => counts.bad += 1,
                Ok((node, Outcome::Failed)) => self.leader.cluster().suspect(node),
                Err(_) => {
                    asked.inspect(|&node| self.leader.cluster().suspect(node));
                    // One has it not: look at the map before waiting for the silent.
                    if !counts.missing.is_empty() && rest.len() == 0 {
                        return Err(counts);
                    }
                }
            }
        }
    }

    async fn read_from(
        &self,
        node: NodeId,
        chunk: ChunkSpec,
        start: u32,
        len: u32,
        until: Instant,
    ) -> (NodeId, Outcome) {
        let addr = self.leader.cluster().current().addr(node).map(str::parse);
        let Some(Ok(addr)) = addr else {
            return (node, Outcome::Failed);
        };
        let request = ReadChunk {
            id: chunk.id,
            offset: start,
            len,
        };
        let deadline = ATTEMPT.min(left(until));
        let link = self.leader.link();
        let asked = link.ask_at(addr, request, Bytes::new(), deadline);
        let outcome = match asked.await {
            Ok((answer, data)) => judge(answer, data, chunk, start, len),
            Err(error) => {
                tracing::debug!(%node, %error, chunk = %chunk.id, "chunk read failed");
                Outcome::Failed
            }
        };
        if matches!(outcome, Outcome::Bad) {
            tracing::warn!(%node, chunk = %chunk.id, "replica is damaged, reported to its node");
            self.report(&[node], chunk);
        }
        (node, outcome)
    }
}

/// The replicas of a round that do not have the bytes.
#[derive(Default)]
struct Counts {
    missing: Vec<NodeId>,
    bad: usize,
}

/// Verifies an answer and cuts it to `start..start + len`.
fn judge(
    answer: Result<Blocks, ChunkRefusal>,
    data: Bytes,
    chunk: ChunkSpec,
    start: u32,
    len: u32,
) -> Outcome {
    let first_block = match Replica::of(answer, &data, Some((chunk.len, chunk.crc))) {
        Replica::Good(blocks) => blocks.first_block,
        Replica::Absent => return Outcome::NotFound,
        Replica::Damaged(_) => return Outcome::Bad,
        Replica::Unknown(_) => return Outcome::Failed,
    };
    let Some(skip) = first_block
        .checked_mul(BLOCK_LEN)
        .and_then(|first| start.checked_sub(first))
    else {
        return Outcome::Bad;
    };
    let (from, to) = (skip as usize, skip as usize + len as usize);
    if to > data.len() {
        return Outcome::Bad;
    }
    Outcome::Found(data.slice(from..to))
}

/// First byte and length of a chunk's unit.
fn unit_of(chunk: ChunkSpec, unit: u32) -> (u32, u32) {
    let start = unit * UNIT_LEN;
    (start, chunk.len.saturating_sub(start).min(UNIT_LEN))
}

fn slice(bytes: &Bytes, from: usize, len: u32) -> Result<Bytes, Missing> {
    if from + len as usize > bytes.len() {
        return Err(Missing::Failed(FsError::Corrupt));
    }
    Ok(bytes.slice(from..from + len as usize))
}

/// The first attempt to end, which is removed.
async fn first_of(running: &mut Vec<Attempt<'_>>) -> (NodeId, Outcome) {
    poll_fn(|cx| {
        for i in 0..running.len() {
            if let Poll::Ready(outcome) = running[i].as_mut().poll(cx) {
                drop(running.swap_remove(i));
                return Poll::Ready(outcome);
            }
        }
        Poll::Pending
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use lagan_types::chunk::block_crcs;
    use lagan_types::{BlockId, ChunkId, SetId, VolumeId};

    fn chunk(data: &[u8]) -> ChunkSpec {
        ChunkSpec {
            id: ChunkId::new(VolumeId::ONLY, SetId(1), BlockId(1), 1),
            len: data.len() as u32,
            crc: crc32fast::hash(data),
            named: None,
        }
    }

    fn reply(data: &[u8], chunk_len: usize, first_block: u32) -> Result<Blocks, ChunkRefusal> {
        Ok(Blocks {
            chunk_len: chunk_len as u32,
            first_block,
            crcs: block_crcs(data),
        })
    }

    #[test]
    fn verified_blocks_are_cut_to_what_was_asked() {
        let data: Vec<u8> = (0..200_000u32).map(|i| (i / 7) as u8).collect();
        let part = &data[65_536..196_608];
        let got = judge(
            reply(part, data.len(), 1),
            Bytes::copy_from_slice(part),
            chunk(&data),
            131_072,
            100,
        );
        assert!(matches!(got, Outcome::Found(b) if b[..] == data[131_072..131_172]));
    }

    #[test]
    fn other_bytes_under_right_block_crcs_are_bad() {
        let (right, wrong) = (vec![1u8; 1000], vec![2u8; 1000]);
        let answer = (reply(&wrong, 1000, 0), Bytes::from(wrong));
        let got = judge(answer.0, answer.1, chunk(&right), 0, 10);
        assert!(matches!(got, Outcome::Bad));
    }

    #[test]
    fn flipped_short_and_misplaced_answers_are_bad() {
        let data = vec![7u8; 100_000];
        let mut flipped = data.clone();
        flipped[5] ^= 1;
        let spec = chunk(&data);
        let cases = [
            (reply(&data, 100_000, 0), flipped),
            (reply(&data, 100_000, 0), data[..50_000].to_vec()),
            (reply(&data, 99_999, 0), data.clone()),
            (reply(&data[..65_536], 100_000, 1), data[..65_536].to_vec()),
            (reply(&data, 100_000, u32::MAX), data.clone()),
        ];
        for (reply, bytes) in cases {
            let got = judge(reply, bytes.into(), spec, 0, 70_000);
            assert!(matches!(got, Outcome::Bad));
        }
    }
}
