//! Releases local copies when disks fill up: the leader's duty.
//!
//! There are two water marks. Once a node is above the high one, files whose objects
//! are verified are released, least recently archived first, until the fullest node
//! should be below the low one. Freed chunks become free space only after their
//! readers' deadline and compaction, so there is a pause between rounds.
//!
//! The leader leaves out files that are open anywhere.

use crate::metrics::METRICS;
use crate::{Meta, MoverError};
use lagan_types::cluster::Config;
use lagan_types::{Ino, NodeId, Query, QueryAnswer};

/// Files in one question and one mutation.
const PAGE: u32 = 1024;

/// Bytes of files to release so that the fullest node comes below the low mark;
/// `None` if no node is above the high one. `nodes` nodes share the chunks.
pub(crate) fn wanted(fill: &[(NodeId, u64, u64)], config: &Config, nodes: usize) -> Option<u64> {
    let above = |used: u64, total: u64, percent: u8| {
        used.saturating_sub((u128::from(total) * u128::from(percent) / 100) as u64)
    };
    let over = fill.iter().filter(|(_, used, total)| {
        *total > 0 && above(*used, *total, config.high_water_percent) > 0
    });
    let excess = over
        .map(|(_, used, total)| above(*used, *total, config.low_water_percent))
        .max()?;
    // a file's bytes are on `copies` of the nodes: each gives up that share
    let copies = u64::from(config.copies.max(1)).min(nodes.max(1) as u64);
    Some(excess.saturating_mul(nodes.max(1) as u64) / copies)
}

/// Releases files of `bytes` in all, or all that may be; returns the bytes released.
pub(crate) async fn release(meta: &dyn Meta, bytes: u64) -> Result<u64, MoverError> {
    let mut from = (0, Ino(0));
    let (mut released, mut open) = (0, 0u64);
    while released < bytes {
        let answer = meta.query(Query::Releasable { from, limit: PAGE }).await?;
        let QueryAnswer::Releasable(rows) = answer else {
            return Err(MoverError::Answer("files to release"));
        };
        let Some(last) = rows.last() else { break };
        from = (last.0, Ino(last.1.0.saturating_add(1)));
        let mut planned = released;
        let files: Vec<(Ino, u64)> = rows
            .iter()
            .take_while(|row| {
                let wanted = planned < bytes;
                planned = planned.saturating_add(row.3);
                wanted
            })
            .map(|row| (row.1, row.2))
            .collect();
        let done = meta.release(files).await?;
        released = released.saturating_add(done.bytes);
        open = open.saturating_add(done.open);
        if done.unknown > 0 {
            // a mount does not answer: the next round asks again
            break;
        }
    }
    METRICS.released_bytes.add(released);
    if open > 0 {
        tracing::info!(open, "open files were not released");
    }
    Ok(released)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(copies: u8) -> Config {
        Config {
            copies,
            high_water_percent: 80,
            low_water_percent: 60,
            ..Config::default()
        }
    }

    #[test]
    fn nothing_below_the_high_mark() {
        let fill = [
            (NodeId(1), 80, 100),
            (NodeId(2), 10, 100),
            (NodeId(3), 5, 0),
        ];
        assert_eq!(wanted(&fill, &config(2), 3), None);
        assert_eq!(wanted(&[], &config(2), 3), None);
    }

    #[test]
    fn down_to_the_low_mark_of_the_fullest() {
        let fill = [(NodeId(1), 81, 100), (NodeId(2), 90, 100)];
        assert_eq!(wanted(&fill, &config(3), 3), Some(30));
        assert_eq!(wanted(&fill, &config(1), 3), Some(90));
        assert_eq!(wanted(&fill, &config(2), 1), Some(30));
    }
}
