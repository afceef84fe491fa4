//! Reads ranges of chunks, from replicas or, where none is good or can be reached, from
//! the archived object of the file that names them.

use crate::chunks::Chunks;
use crate::chunks::blocks::by_units;
use crate::chunks::spec::{ChunkSpec, Missing};
use bytes::{BufMut, Bytes};
use lagan_types::FsError;
use std::time::Duration;
use tokio::time::Instant;

/// Wait before all nodes of a chunk are asked again that did not answer.
pub(super) const UNREACHABLE_PAUSE: Duration = Duration::from_millis(500);

/// How bytes of a chunk are read.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ask {
    /// The data version of the file that names the chunk: only an object of that
    /// version may stand in.
    pub version: u64,
    /// Whole units are fetched: more of them will be read soon.
    pub whole: bool,
    /// The map was fetched because no replica had something: it is not just old.
    pub sure: bool,
    /// When the bytes must be there.
    pub until: Instant,
}

impl Ask {
    /// Asks for bytes of a chunk that is named by no file: replicas alone give them.
    pub fn replicas(until: Instant) -> Self {
        Ask {
            version: 0,
            whole: false,
            sure: false,
            until,
        }
    }
}

impl Chunks {
    /// Appends bytes `at..at + len` of a chunk to `out`. `chunk` is named where the first of them lies.
    ///
    /// # Errors
    /// Those of [`Chunks::bytes`]; [`FsError::Corrupt`] if it gave fewer or more bytes,
    /// which would move all that follow.
    pub async fn range(
        &self,
        ask: Ask,
        chunk: ChunkSpec,
        at: u32,
        len: u32,
        out: &mut impl BufMut,
    ) -> Result<(), Missing> {
        for (from, len) in by_units(at, len) {
            let here = chunk.further(u64::from(from - at));
            let bytes = self.bytes(ask, here, from, len).await?;
            if bytes.len() != len as usize {
                return Err(Missing::Failed(FsError::Corrupt));
            }
            out.put_slice(&bytes);
        }
        Ok(())
    }

    /// Reads bytes `at..at + len` of a chunk, which must lie in one unit. `chunk` is
    /// named where the first of them lies. Nodes that do not answer are waited for.
    ///
    /// # Errors
    /// [`Missing::NotFound`] if the map may be old, [`FsError::Corrupt`] if the bytes
    /// are lost or wrong everywhere, [`FsError::Io`] at the deadline.
    pub async fn bytes(
        &self,
        ask: Ask,
        chunk: ChunkSpec,
        at: u32,
        len: u32,
    ) -> Result<Bytes, Missing> {
        // Nodes that are known to be down are asked last: one that lost its power is
        // silent, and each read would wait for it anew.
        let mut unreachable = self.leader.cluster().current().all_down(chunk.id.set())
            && self.blocks.get(chunk.id, at, len).is_none();
        let fetched = loop {
            if unreachable && let Some(bytes) = self.bytes_meanwhile(ask, chunk, len).await {
                return Ok(bytes);
            }
            let fetched = self.reachable_bytes(chunk, at, len, ask.whole, ask.until);
            match fetched.await {
                // Both may come back: nodes, and the archive. An object that may stand in
                // is asked for before the first pause.
                Err(Missing::Unreachable) => {
                    if unreachable || chunk.named.is_none() {
                        self.pause_until(UNREACHABLE_PAUSE, ask.until).await?;
                    }
                    unreachable = true;
                }
                other => break other,
            }
        };
        let everywhere = match fetched {
            Err(Missing::Failed(FsError::Corrupt)) => true,
            Err(Missing::NotFound { everywhere }) if ask.sure => everywhere,
            other => return other,
        };
        let Some((ino, offset)) = chunk.named else {
            return fetched;
        };
        let object = self.archived_bytes((ino, ask.version), offset, len, ask.until);
        let Some(bytes) = object.await else {
            return fetched;
        };
        tracing::warn!(%ino, chunk = %chunk.id, "no replica is good, read from the archive");
        if everywhere {
            self.report_everywhere(chunk);
        }
        Ok(bytes)
    }

    /// Reads bytes from the file's object, while none of the chunk's nodes is there.
    async fn bytes_meanwhile(&self, ask: Ask, chunk: ChunkSpec, len: u32) -> Option<Bytes> {
        let (ino, offset) = chunk.named?;
        let object = self.archived_meanwhile((ino, ask.version), offset, len, ask.until);
        let bytes = object.await?;
        tracing::debug!(%ino, chunk = %chunk.id, "no replica can be reached, read from the archive");
        Some(bytes)
    }
}
