//! Which chunks of a set another node has.

use crate::peers::Peers;
use bytes::Bytes;
use lagan_types::message::ListChunks;
use lagan_types::{ChunkId, NodeId, SetId};

/// Ids in one page.
pub(crate) const PAGE: u32 = 4096;

/// One node's chunks of a set, page by page in the order of their ids.
pub(crate) struct Listing<'a> {
    peers: &'a Peers,
    source: NodeId,
    set: SetId,
    /// The last id of the page before.
    after: Option<ChunkId>,
}

impl<'a> Listing<'a> {
    /// Begins with the first page.
    pub fn new(peers: &'a Peers, source: NodeId, set: SetId) -> Self {
        let after = None;
        Listing {
            peers,
            source,
            set,
            after,
        }
    }

    /// Asks for the next page; `None` after the last one.
    pub async fn next(&mut self) -> Result<Option<Vec<ChunkId>>, String> {
        let request = ListChunks {
            set: Some(self.set),
            after: self.after,
            limit: PAGE,
        };
        let asked = self.peers.ask(self.source, request, Bytes::new(), 1 << 20);
        let (page, _) = asked.await.map_err(|e| e.to_string())?;
        let page = page.map_err(|refusal| format!("node {} answered: {refusal}", self.source))?;
        let Some(&(last, _)) = page.last() else {
            return Ok(None);
        };
        self.after = Some(last);
        Ok(Some(page.into_iter().map(|(id, _)| id).collect()))
    }
}
