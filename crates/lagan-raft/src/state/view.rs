//! One consistent state to read.

use super::db::{full_end, full_key, io};
use super::overlay::{self, Base, Overlay};
use super::rows::push_row;
use lagan_meta::kv::{Read, Row, StoreError, Table};
use std::sync::Arc;

/// The state after exactly one log entry: a read transaction and what was
/// applied since it began. Clones are cheap and share it. As long as one lives,
/// the pages that it sees are not reused: keep it for a request, not for a session.
#[derive(Clone)]
pub struct View {
    pub(super) base: Arc<Base>,
    pub(super) over: Arc<Overlay>,
}

impl View {
    /// Whether both show the state after the same log entry. A yes is always right. A no
    /// may be wrong: the rows of one state may have moved into redb between the two views.
    pub fn is_same(&self, other: &View) -> bool {
        // Each entry makes an overlay of its own, and one that a view holds is neither
        // changed nor freed, so its place in memory stands for its entry.
        Arc::ptr_eq(&self.base, &other.base) && Arc::ptr_eq(&self.over, &other.over)
    }

    /// About `len` bytes of the rows after `after` (from the first, if `None`), in the
    /// snapshot's form, with their last key and their number. Empty: there are no more.
    /// Works for a snapshot's view only, which has all its rows in redb.
    pub(crate) fn piece(&self, after: Option<&[u8]>, len: usize) -> Result<Piece, StoreError> {
        use std::ops::Bound;
        if self.over.len() > 0 {
            return Err(io("this view is not of a snapshot"));
        }
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let mut piece = Piece::default();
        let range = (start, Bound::<&[u8]>::Unbounded);
        for row in self.base.rows.range::<&[u8]>(range).map_err(io)? {
            let (key, value) = row.map_err(io)?;
            push_row(&mut piece.bytes, key.value(), value.value());
            piece.rows += 1;
            if piece.bytes.len() >= len {
                piece.last_key = key.value().to_vec();
                return Ok(piece);
            }
        }
        piece.end = true;
        Ok(piece)
    }
}

/// A part of a snapshot.
#[derive(Debug, Default)]
pub(crate) struct Piece {
    pub bytes: Vec<u8>,
    /// Not set at the end.
    pub last_key: Vec<u8>,
    pub rows: u64,
    /// There are no rows behind these.
    pub end: bool,
}

impl Read for View {
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        overlay::get(&self.base, &self.over, &full_key(table, key))
    }

    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError> {
        let (start, end) = (full_key(table, start), full_end(table, end));
        overlay::scan(&self.base, &self.over, &start, &end, limit)
    }

    fn last(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> Result<Option<Row>, StoreError> {
        let (start, end) = (full_key(table, start), full_end(table, end));
        overlay::last(&self.base, &self.over, &start, &end)
    }
}
