//! How many extents name chunks of each replica set: a set that none names can go.
//!
//! `Txn` counts with each change of an extent, from the first
//! command of a cluster on. A state that was begun by a build that did not count
//! has no mark of it: there every set counts as used, for ever.

use crate::kv::{Read, StoreError, Table};
use crate::layout::rows::UseCount;
use crate::layout::{self, SETS_COUNTED_KEY, malformed};
use lagan_types::SetId;
use std::collections::BTreeMap;

/// Rows that one scan takes.
const PAGE: usize = 1024;

/// The counts of all sets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Uses(Option<BTreeMap<SetId, u64>>);

impl Uses {
    /// Whether an extent names, or may name, a chunk of the set.
    pub fn is_used(&self, set: SetId) -> bool {
        self.0
            .as_ref()
            .is_none_or(|counts| counts.contains_key(&set))
    }

    /// Sets with extents, and how many; `None` if they were not counted.
    pub fn counts(self) -> Option<Vec<(SetId, u64)>> {
        self.0.map(|counts| counts.into_iter().collect())
    }
}

/// The counts of one state.
pub(crate) fn all(store: &dyn Read) -> Result<Uses, StoreError> {
    if store.get(Table::Config, SETS_COUNTED_KEY)?.is_none() {
        return Ok(Uses(None));
    }
    let mut counts = BTreeMap::new();
    let mut start = Vec::new();
    loop {
        let rows = store.scan(Table::SetUse, &start, None, PAGE)?;
        for (key, value) in &rows {
            let set = key.as_slice().try_into().map(u32::from_be_bytes);
            let set = set.map_err(|_| malformed(Table::SetUse, "key".into()))?;
            let UseCount(count) = layout::decode(Table::SetUse, value)?;
            counts.insert(SetId(set), count);
        }
        match rows.last() {
            Some((key, _)) if rows.len() == PAGE => start = [key.as_slice(), &[0]].concat(),
            _ => return Ok(Uses(Some(counts))),
        }
    }
}
