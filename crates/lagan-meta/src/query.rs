//! Reads of one consistent state. The caller sees to it that this state is the latest.

mod counters;
mod due;
mod files;
mod queues;

pub use due::DueScan;

use crate::kv::{Read, StoreError, Table};
use crate::layout::rows::MapVersion;
use crate::layout::{CONFIG_KEY, MAP_VERSION_KEY};
use crate::load::{self, inode, row};
use crate::ops::cluster::{all_sets, nodes};
use crate::ops::lock;
use crate::txn::{Fail, Outcome};
use lagan_types::cluster::{ClusterMap, Config};
use lagan_types::{FsError, Query, QueryAnswer, SessionId, VolumeId};

/// Answers one read. `session` matters for locks only. It is not checked whether the
/// session still lives, since a read changes nothing.
///
/// # Errors
/// The outer one stops the node, the inner one is the answer.
pub fn query<R: Read>(
    store: &R,
    volume: VolumeId,
    session: SessionId,
    query: &Query,
) -> Result<Result<QueryAnswer, FsError>, StoreError> {
    if volume != VolumeId::ONLY {
        return Ok(Err(FsError::CrossDevice));
    }
    match answer(store, session, query) {
        Ok(answer) => Ok(Ok(answer)),
        Err(Fail::Fs(e)) => Ok(Err(e)),
        Err(Fail::Store(e)) => Err(e),
    }
}

fn answer(store: &dyn Read, session: SessionId, query: &Query) -> Outcome<QueryAnswer> {
    match query {
        Query::Lookup { parent, name } => files::lookup(store, *parent, name),
        Query::GetAttr { ino } => Ok(QueryAnswer::Attr(inode(store, *ino)?.attr(*ino))),
        Query::Open { ino } => files::open(store, *ino),
        Query::Extents { ino, offset, limit } => files::extents(store, *ino, *offset, *limit),
        Query::ReadDir {
            ino,
            cookie,
            limit,
            attrs,
        } => files::read_dir(store, *ino, *cookie, *limit, *attrs),
        Query::ReadLink { ino } => files::read_link(store, *ino),
        Query::GetXattr { ino, name } => files::get_xattr(store, *ino, name),
        Query::ListXattr { ino } => files::list_xattr(store, *ino),
        Query::GetLock { ino, lock } => {
            inode(store, *ino)?;
            let held = lock::conflict(store, session, *ino, lock)?;
            Ok(QueryAnswer::Lock(held))
        }
        Query::StatFs => Ok(QueryAnswer::StatFs {
            files: load::counters(store)?.stats.inodes,
        }),
        Query::Parent { ino } => files::parent(store, *ino),
        Query::File { ino } => files::file(store, *ino),
        Query::AllExtents { from, limit } => files::all_extents(store, *from, *limit),
        Query::Due { now_ms, limit } => due::due(store, *now_ms, *limit),
        Query::Attempts { from, limit } => queues::attempts(store, *from, *limit),
        Query::Counters => counters::counters(store),
        Query::ChunkReap {
            node,
            now_ms,
            limit,
        } => queues::chunk_reap(store, *node, *now_ms, *limit),
        Query::ObjectReap { now_ms, limit } => queues::object_reap(store, *now_ms, *limit),
        Query::Orphans { from, limit } => queues::orphans(store, *from, *limit),
        Query::Sessions => queues::sessions(store),
        Query::Releasable { from, limit } => queues::releasable(store, *from, *limit),
        Query::Blocks { blocks } => queues::blocks(store, blocks),
        Query::SetUses => Ok(QueryAnswer::SetUses(crate::uses::all(store)?.counts())),
        Query::Attrs { inos } => files::attrs(store, inos),
        Query::TooLarge { limit } => due::too_large(store, *limit),
        Query::Objects { from, limit } => queues::objects(store, *from, *limit),
        Query::ObjectsToDelete { from, limit } => queues::objects_to_delete(store, *from, *limit),
    }
}

/// The cluster map; `None` before `Init`.
///
/// # Errors
/// [`StoreError`] stops the node.
pub fn cluster_map<R: Read>(store: &R) -> Result<Option<ClusterMap>, StoreError> {
    let config: Option<Config> = row(store, Table::Config, CONFIG_KEY)?;
    let Some(config) = config else {
        return Ok(None);
    };
    Ok(Some(ClusterMap {
        version: map_version(store)?,
        nodes: nodes(store)?,
        sets: all_sets(store)?,
        config,
    }))
}

/// The cluster map's version; 0 before `Init`.
///
/// # Errors
/// [`StoreError`] stops the node.
pub fn map_version<R: Read>(store: &R) -> Result<u64, StoreError> {
    let version: Option<MapVersion> = row(store, Table::Config, MAP_VERSION_KEY)?;
    Ok(version.unwrap_or_default().0)
}
