//! Whole units that are being fetched, so that each is fetched once however many ask for it.

use crate::chunks::spec::Missing;
use bytes::Bytes;
use lagan_types::ChunkId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// A chunk, and the number of the unit in it.
type Unit = (ChunkId, u32);
type Shared = Arc<OnceCell<Result<Bytes, Missing>>>;

/// The units under way.
#[derive(Debug, Default)]
pub(crate) struct Units {
    units: Mutex<HashMap<Unit, Shared>>,
}

impl Units {
    /// Whether the unit is being fetched.
    pub fn is_under_way(&self, unit: Unit) -> bool {
        self.units.lock().contains_key(&unit)
    }

    /// The result of `fetch`, or of the one that another caller has under way for
    /// the same unit. It is forgotten when it is there.
    pub async fn once(
        &self,
        unit: Unit,
        fetch: impl Future<Output = Result<Bytes, Missing>>,
    ) -> Result<Bytes, Missing> {
        let cell = self.units.lock().entry(unit).or_default().clone();
        let fetched = cell.get_or_init(|| fetch).await.clone();
        let mut units = self.units.lock();
        if units.get(&unit).is_some_and(|c| Arc::ptr_eq(c, &cell)) {
            units.remove(&unit);
        }
        fetched
    }
}
