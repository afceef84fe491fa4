//! Sessions and their blocks of chunk ids (docs/DESIGN.md "Sessions and coherence").

use crate::kv::{Read, StoreError, Table};
use crate::layout::rows::{BlockRow, SessionRow};
use crate::layout::{self, CONFIG_KEY, key1, part, prefix};
use crate::ops::lock;
use crate::txn::{Outcome, Txn};
use lagan_types::answer::{GrantedBlock, NewSession};
use lagan_types::cluster::{Config, NodeInfo};
use lagan_types::limits::{BLOCK_IDS, NODES_MAX, SESSION_BLOCKS_MAX};
use lagan_types::op::SessionIdentity;
use lagan_types::query::ReapChunks;
use lagan_types::{BlockId, FsError, Refusal, SessionId};

/// Rows that one scan of a loop over a table takes.
const PAGE: usize = 512;
/// Bytes of each part of an identity: a path, so that a list of sessions fits
/// a message.
const IDENTITY_LEN_MAX: usize = 4096;

/// Opens a session, or finds the one that this nonce opened.
pub(crate) fn open(
    txn: &mut Txn<'_>,
    nonce: u128,
    identity: &SessionIdentity,
    predecessor: Option<SessionId>,
) -> Outcome<NewSession> {
    let parts = [&identity.machine, &identity.boot, &identity.mount_point];
    if parts.iter().any(|part| part.len() > IDENTITY_LEN_MAX) {
        return Err(FsError::Invalid.into());
    }
    let config: Config = txn
        .row(Table::Config, CONFIG_KEY)?
        .ok_or(FsError::NotFound)?;
    let incarnation = config.incarnation;
    if let Some(session) = find_nonce(txn, nonce)? {
        return Ok(NewSession {
            session,
            incarnation,
        });
    }
    if let Some(old) = predecessor {
        let row: Option<SessionRow> = txn.row(Table::Session, &key1(old.0))?;
        let same = row.is_some_and(|r| {
            r.identity.machine == identity.machine && r.identity.mount_point == identity.mount_point
        });
        if same {
            end(txn, old)?;
        }
    }
    txn.counters.session += 1;
    let session = SessionId(txn.counters.session);
    let row = SessionRow {
        nonce,
        identity: identity.clone(),
        opened_ms: txn.now_ms(),
        blocks: Vec::new(),
    };
    txn.put(Table::Session, &key1(session.0), &row);
    Ok(NewSession {
        session,
        incarnation,
    })
}

fn find_nonce(txn: &Txn<'_>, nonce: u128) -> Result<Option<SessionId>, StoreError> {
    let mut start = Vec::new();
    loop {
        let rows = txn.scan(Table::Session, &start, None, PAGE)?;
        for (key, value) in &rows {
            let row: SessionRow = layout::decode(Table::Session, value)?;
            if row.nonce == nonce {
                return Ok(Some(SessionId(part(Table::Session, key, 0)?)));
            }
        }
        match rows.last() {
            Some((key, _)) if rows.len() == PAGE => {
                start.clone_from(key);
                start.push(0);
            }
            _ => return Ok(None),
        }
    }
}

/// Ends a session; one that is gone already stays so.
pub(crate) fn end(txn: &mut Txn<'_>, session: SessionId) -> Outcome<()> {
    let row: Option<SessionRow> = txn.row(Table::Session, &key1(session.0))?;
    let Some(row) = row else {
        return Ok(());
    };
    for block in row.blocks {
        forget_block(txn, block)?;
    }
    lock::drop_session(txn, session)?;
    delete_prefix(txn, Table::Answer, session.0)?;
    txn.delete(Table::Session, &key1(session.0));
    Ok(())
}

/// Deletes all rows whose key starts with that number.
pub(crate) fn delete_prefix(txn: &mut Txn<'_>, table: Table, a: u64) -> Result<(), StoreError> {
    let (start, end) = prefix(a);
    let mut start = start.to_vec();
    loop {
        let rows = txn.scan(table, &start, end.as_ref().map(|e| &e[..]), PAGE)?;
        for (key, _) in &rows {
            txn.delete(table, key);
        }
        match rows.last() {
            Some((key, _)) if rows.len() == PAGE => start = [key.as_slice(), &[0]].concat(),
            _ => return Ok(()),
        }
    }
}

/// Grants a block of chunk ids.
pub(crate) fn grant_block(txn: &mut Txn<'_>, session: SessionId) -> Outcome<GrantedBlock> {
    let key = key1(session.0);
    let mut row: SessionRow = txn
        .row(Table::Session, &key)?
        .ok_or(Refusal::SessionEnded)?;
    if row.blocks.len() >= SESSION_BLOCKS_MAX {
        return Err(FsError::Busy.into());
    }
    let config: Config = txn
        .row(Table::Config, CONFIG_KEY)?
        .ok_or(FsError::NotFound)?;
    txn.counters.block += 1;
    let block = BlockId::new(config.incarnation, txn.counters.block);
    row.blocks.push(block);
    txn.put(Table::Session, &key, &row);
    let granted = BlockRow {
        session,
        count: BLOCK_IDS,
        named: Vec::new(),
    };
    txn.put(Table::Block, &key1(block.0), &granted);
    Ok(GrantedBlock {
        block,
        count: BLOCK_IDS,
    })
}

/// Closes a block; one that is closed already stays so.
pub(crate) fn close_block(txn: &mut Txn<'_>, session: SessionId, block: BlockId) -> Outcome<()> {
    let key = key1(session.0);
    let mut row: SessionRow = txn
        .row(Table::Session, &key)?
        .ok_or(Refusal::SessionEnded)?;
    if let Some(at) = row.blocks.iter().position(|&b| b == block) {
        row.blocks.remove(at);
        txn.put(Table::Session, &key, &row);
        forget_block(txn, block)?;
    } else if txn.get(Table::Block, &key1(block.0))?.is_some() {
        return Err(FsError::NotPermitted.into());
    }
    Ok(())
}

/// No id of the block can be named from now on: what was written under the
/// others is garbage, on whichever node it may be.
fn forget_block(txn: &mut Txn<'_>, block: BlockId) -> Result<(), StoreError> {
    let row: Option<BlockRow> = txn.row(Table::Block, &key1(block.0))?;
    let Some(row) = row else { return Ok(()) };
    txn.delete(Table::Block, &key1(block.0));
    if row.full() {
        return Ok(());
    }
    for (_, value) in txn.scan(Table::Node, &[], None, NODES_MAX)? {
        let node: NodeInfo = layout::decode(Table::Node, &value)?;
        let what = ReapChunks::UnnamedOf {
            block,
            named: row.named.clone(),
        };
        txn.reap_at(node.id, what);
    }
    Ok(())
}
