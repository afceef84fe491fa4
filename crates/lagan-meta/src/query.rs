//! Reads of one consistent state. The caller sees to it that this state is the latest.

mod counters;
mod due;
mod files;
mod queues;

pub use due::DueScan;

use crate::kv::{Read, StoreError, Table};
use crate::layout::rows::MapVersion;
use crate::layout::{CONFIG_KEY, MAP_VERSION_KEY};
use crate::load::{inode, row};
use crate::ops::cluster::{all_sets, nodes};
use crate::ops::lock;
use crate::txn::{Fail, Outcome};
use lagan_types::ask::{Ask, answer_to};
use lagan_types::cluster::{ClusterMap, Config};
use lagan_types::op::LockRange;
use lagan_types::query::GetLock;
use lagan_types::{FsError, Query, QueryAnswer, Refusal, SessionId, VolumeId};

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
) -> Result<Result<QueryAnswer, Refusal>, StoreError> {
    if volume != VolumeId::ONLY {
        return Ok(Err(FsError::CrossDevice.into()));
    }
    match answer(store, session, query) {
        Ok(answer) => Ok(Ok(answer)),
        Err(Fail::Refused(refusal)) => Ok(Err(refusal)),
        Err(Fail::Store(e)) => Err(e),
    }
}

/// Answers one read in the cluster's own name.
///
/// # Errors
/// As [`query()`].
pub fn read<R: Read, A>(store: &R, ask: A) -> Result<Result<A::Answer, Refusal>, StoreError>
where
    A: Ask<Request = Query, Reply = QueryAnswer>,
{
    let reply = query(store, VolumeId::ONLY, SessionId::SYSTEM, &ask.into())?;
    Ok(answer_to::<A>(reply))
}

fn answer(store: &dyn Read, session: SessionId, query: &Query) -> Outcome<QueryAnswer> {
    match query {
        Query::Lookup(q) => found(q, files::lookup(store, q.parent, &q.name)),
        Query::LookupAll(q) => found(q, files::lookup_all(store, q.parent, &q.names)),
        Query::GetAttr(q) => found(q, inode(store, q.ino).map(|row| row.attr(q.ino))),
        Query::GetAttrs(q) => found(q, files::attrs(store, &q.inos)),
        Query::Open(q) => found(q, files::open(store, q.ino)),
        Query::OpenAll(q) => found(q, files::open_all(store, &q.inos)),
        Query::Extents(q) => found(q, files::extents(store, q.ino, q.offset, q.limit)),
        Query::ReadDir(q) => found(q, files::read_dir(store, q)),
        Query::ReadLink(q) => found(q, files::read_link(store, q.ino)),
        Query::GetXattr(q) => found(q, files::get_xattr(store, q.ino, &q.name)),
        Query::ListXattr(q) => found(q, files::list_xattr(store, q.ino)),
        Query::GetLock(q) => found(q, get_lock(store, session, q)),
        Query::StatFs(q) => found(q, counters::fs_stat(store)),
        Query::Parent(q) => found(q, files::parent(store, q.ino)),
        Query::File(q) => found(q, files::file(store, q.ino)),
        Query::AllExtents(q) => found(q, files::all_extents(store, q.from, q.limit)),
        Query::Objects(q) => found(q, queues::objects(store, q.from, q.limit)),
        Query::GetCounters(q) => found(q, counters::counters(store)),
        Query::Due(q) => found(q, due::due(store, q.now_ms, q.limit)),
        Query::TooLarge(q) => found(q, due::too_large(store, q.limit)),
        Query::Attempts(q) => found(q, queues::attempts(store, q.from, q.limit)),
        Query::Releasable(q) => found(q, queues::releasable(store, q.from, q.limit)),
        Query::Orphans(q) => found(q, queues::orphans(store, q.from, q.limit)),
        Query::ChunkReap(q) => found(
            q,
            queues::chunk_reap(store, (q.node, q.from), q.now_ms, q.limit),
        ),
        Query::ObjectReap(q) => found(q, queues::object_reap(store, q.now_ms, q.limit)),
        Query::ObjectsToDelete(q) => found(q, queues::objects_to_delete(store, q.from, q.limit)),
        Query::Sessions(q) => found(q, queues::sessions(store)),
        Query::Blocks(q) => found(q, queues::blocks(store, &q.blocks)),
        Query::SetUses(q) => found(q, Ok(crate::uses::all(store)?.counts())),
    }
}

/// The reply to a read, whichever it is.
fn found<A: Ask<Reply = QueryAnswer>>(
    query: &A,
    answer: Outcome<A::Answer>,
) -> Outcome<QueryAnswer> {
    Ok(query.reply(answer?))
}

fn get_lock(
    store: &dyn Read,
    session: SessionId,
    query: &GetLock,
) -> Outcome<Option<(SessionId, LockRange)>> {
    inode(store, query.ino)?;
    Ok(lock::conflict(store, session, query.ino, &query.lock)?)
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
