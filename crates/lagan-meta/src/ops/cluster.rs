//! The cluster map: birth, configuration, nodes, replica sets.

use crate::kv::{Read, StoreError, Table};
use crate::layout::rows::InodeRow;
use crate::layout::{self, CONFIG_KEY, SETS_COUNTED_KEY, key_set, key1};
use crate::ops::archive;
use crate::ops::orphan;
use crate::sets;
use crate::txn::{Outcome, Txn};
use crate::uses;
use lagan_types::attr::Kind;
use lagan_types::cluster::{Config, NodeInfo, NodeState, ReplicaSet, boot_follows};
use lagan_types::limits::NODES_MAX;
use lagan_types::op::SetChange;
use lagan_types::{FsError, Ino, NodeId, SetId};

/// Sets in the table, at most: what a map message can carry with room.
const SETS_MAX: usize = 65_536;

fn config(txn: &Txn<'_>) -> Outcome<Config> {
    let config: Option<Config> = txn.row(Table::Config, CONFIG_KEY)?;
    Ok(config.ok_or(FsError::NotFound)?)
}

/// The first command of a cluster.
pub(crate) fn init(txn: &mut Txn<'_>, config: &Config) -> Outcome<()> {
    if txn.get(Table::Config, CONFIG_KEY)?.is_some() {
        return Err(FsError::Exists.into());
    }
    config.check().map_err(|_| FsError::Invalid)?;
    let mut root = InodeRow::new(Kind::Directory, 0o755, (0, 0), txn.time);
    root.parent = Ino::ROOT;
    txn.add_inode(Ino::ROOT, root);
    txn.counters.ino = Ino::ROOT.0;
    txn.put_mark(Table::Config, SETS_COUNTED_KEY);
    store_config(txn, config);
    Ok(())
}

fn store_config(txn: &mut Txn<'_>, config: &Config) {
    txn.put(Table::Config, CONFIG_KEY, config);
    txn.counters.archive_after_ms = config.archive_after_ms;
    txn.map_changed = true;
}

/// `lagan set`.
pub(crate) fn set_config(txn: &mut Txn<'_>, new: &Config) -> Outcome<()> {
    let old = config(txn)?;
    new.check().map_err(|_| FsError::Invalid)?;
    if new.cluster != old.cluster || new.incarnation != old.incarnation || new.volume != old.volume
    {
        return Err(FsError::NotPermitted.into());
    }
    if *new != old {
        store_config(txn, new);
        settle(txn, new)?;
    }
    Ok(())
}

/// Adds a node, or registers a new boot of one.
pub(crate) fn register(txn: &mut Txn<'_>, info: &NodeInfo) -> Outcome<NodeId> {
    let config = config(txn)?;
    let known = nodes(txn)?;
    let old = known.iter().find(|n| match info.id.0 {
        0 => n.store == info.store,
        _ => n.id == info.id,
    });
    let row = match old {
        Some(old) => {
            if old.store != info.store || !boot_follows(info.boot, old.boot) {
                return Err(FsError::Stale.into());
            }
            NodeInfo {
                id: old.id,
                state: old.state,
                voter: old.voter,
                ..info.clone()
            }
        }
        None => {
            if info.id.0 != 0 || known.iter().any(|n| n.store == info.store) {
                return Err(FsError::Stale.into());
            }
            if known.len() >= NODES_MAX {
                return Err(FsError::NoSpace.into());
            }
            txn.counters.node += 1;
            NodeInfo {
                id: NodeId(txn.counters.node),
                ..info.clone()
            }
        }
    };
    let node = row.id;
    let added = old.is_none();
    if old != Some(&row) {
        txn.put(Table::Node, &key1(node.0), &row);
        txn.map_changed = true;
    }
    if added {
        settle(txn, &config)?;
    }
    Ok(node)
}

/// A node went silent, came back or filled up.
pub(crate) fn set_state(txn: &mut Txn<'_>, node: NodeId, state: NodeState) -> Outcome<()> {
    let config = config(txn)?;
    let row: Option<NodeInfo> = txn.row(Table::Node, &key1(node.0))?;
    let mut row = row.ok_or(FsError::NotFound)?;
    if row.state != state {
        row.state = state;
        txn.put(Table::Node, &key1(node.0), &row);
        txn.map_changed = true;
        settle(txn, &config)?;
    }
    Ok(())
}

/// The node becomes, or is no longer, a voter.
pub(crate) fn set_voter(txn: &mut Txn<'_>, node: NodeId, voter: bool) -> Outcome<()> {
    let row: Option<NodeInfo> = txn.row(Table::Node, &key1(node.0))?;
    let mut row = row.ok_or(FsError::NotFound)?;
    if row.voter != voter {
        row.voter = voter;
        txn.put(Table::Node, &key1(node.0), &row);
        txn.map_changed = true;
    }
    Ok(())
}

/// `lagan remove`: the node and all that is only there for it. Without `force`
/// it must be down, and in no set that a file uses but where enough others are.
pub(crate) fn remove_node(txn: &mut Txn<'_>, node: NodeId, force: bool) -> Outcome<()> {
    let config = config(txn)?;
    let row: Option<NodeInfo> = txn.row(Table::Node, &key1(node.0))?;
    let row = row.ok_or(FsError::NotFound)?;
    if nodes(txn)?.len() < 2 {
        return Err(FsError::Invalid.into());
    }
    if !force && row.state != NodeState::Down {
        return Err(FsError::Busy.into());
    }
    let (uses, nodes) = (uses::all(txn)?, nodes(txn)?);
    for set in all_sets(txn)? {
        let Some(without) = sets::without(&set, node) else {
            continue;
        };
        let enough = without.joining.is_none()
            && without.nodes.len() >= config.copies as usize
            && sets::all_alive(&without.nodes, &nodes);
        if !uses.is_used(set.id) {
            txn.delete(Table::Set, &key_set(set.id.0));
        } else if force || enough {
            txn.put(Table::Set, &key_set(set.id.0), &without);
        } else {
            return Err(FsError::Busy.into());
        }
    }
    archive::fail_of(txn, node)?;
    orphan::chunks_reaped(txn, node, u64::MAX)?;
    txn.delete(Table::Node, &key1(node.0));
    txn.map_changed = true;
    settle(txn, &config)?;
    Ok(())
}

/// Changes rows of the set table; none if one of them is refused.
pub(crate) fn change_sets(txn: &mut Txn<'_>, changes: &[SetChange]) -> Outcome<()> {
    let config = config(txn)?;
    let nodes = nodes(txn)?;
    for change in changes {
        let row = match change {
            SetChange::Add { nodes: members } => {
                sets::check_members(&nodes, members)?;
                txn.counters.set += 1;
                sets::new_set(SetId(txn.counters.set), members.clone(), &nodes)
            }
            SetChange::StartJoin { set, .. }
            | SetChange::FinishJoin { set, .. }
            | SetChange::AbortJoin { set, .. } => {
                let old: Option<ReplicaSet> = txn.row(Table::Set, &key_set(set.0))?;
                sets::change(&old.ok_or(FsError::NotFound)?, change, &nodes)?
            }
        };
        txn.put(Table::Set, &key_set(row.id.0), &row);
        txn.map_changed = true;
    }
    settle(txn, &config)?;
    Ok(())
}

/// Brings the set table in line with the nodes.
fn settle(txn: &mut Txn<'_>, config: &Config) -> Outcome<()> {
    let nodes = nodes(txn)?;
    let table = all_sets(txn)?;
    let uses = uses::all(txn)?;
    let last = SetId(txn.counters.set);
    let settled = sets::settle(config, &nodes, &table, |set| uses.is_used(set), last);
    for row in settled.put {
        txn.counters.set = txn.counters.set.max(row.id.0);
        txn.put(Table::Set, &key_set(row.id.0), &row);
        txn.map_changed = true;
    }
    for set in settled.gone {
        txn.delete(Table::Set, &key_set(set.0));
        txn.map_changed = true;
    }
    Ok(())
}

/// The node table.
pub(crate) fn nodes(store: &dyn Read) -> Result<Vec<NodeInfo>, StoreError> {
    store
        .scan(Table::Node, &[], None, NODES_MAX)?
        .iter()
        .map(|(_, value)| layout::decode(Table::Node, value))
        .collect()
}

/// The set table.
pub(crate) fn all_sets(store: &dyn Read) -> Result<Vec<ReplicaSet>, StoreError> {
    store
        .scan(Table::Set, &[], None, SETS_MAX)?
        .iter()
        .map(|(_, value)| layout::decode(Table::Set, value))
        .collect()
}
