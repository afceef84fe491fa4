//! Blocks, locks and answers belong to live sessions; sets to known nodes.

use super::Walk;
use crate::kv::{StoreError, Table};
use crate::layout::rows::{BlockRow, LockRow, SessionRow};
use crate::layout::{key_lock, key_session_lock, part};
use lagan_types::cluster::{NodeInfo, ReplicaSet};
use lagan_types::{BlockId, NodeId, SessionId};
use std::collections::{BTreeMap, BTreeSet};

impl Walk<'_> {
    pub(super) fn sessions(&mut self) -> Result<(), StoreError> {
        let mut blocks: BTreeMap<BlockId, SessionId> = BTreeMap::new();
        let mut live = BTreeSet::new();
        for (key, session) in self.decoded::<SessionRow>(Table::Session)? {
            let id = SessionId(part(Table::Session, &key, 0)?);
            live.insert(id);
            blocks.extend(session.blocks.iter().map(|b| (*b, id)));
        }
        for (key, block) in self.decoded::<BlockRow>(Table::Block)? {
            let id = BlockId(part(Table::Block, &key, 0)?);
            let owner = blocks.remove(&id);
            self.expect(owner == Some(block.session), || {
                format!("{id}: of {}, listed by {owner:?}", block.session)
            });
        }
        for (block, session) in blocks {
            self.say(format!("{session}: lists closed {block}"));
        }
        for (key, _) in self.rows(Table::Answer)? {
            let session = SessionId(part(Table::Answer, &key, 0)?);
            self.expect(live.contains(&session), || {
                format!("answers of ended {session}")
            });
        }
        self.locks(&live)?;
        self.sets()
    }

    fn locks(&mut self, live: &BTreeSet<SessionId>) -> Result<(), StoreError> {
        for (key, value) in self.rows(Table::Lock)? {
            let (a, b) = (part(Table::Lock, &key, 1)?, part(Table::Lock, &key, 9)?);
            let owner = part(Table::Lock, &key, 17)?;
            let (session, ino, twin) = match key.first() {
                Some(0) => (b, a, key_session_lock(b, a, owner)),
                _ => (a, b, key_lock(b, a, owner)),
            };
            let twinned = self.store.get(Table::Lock, &twin)?.is_some();
            let fits = live.contains(&SessionId(session))
                && self.inodes.contains_key(&lagan_types::Ino(ino));
            self.expect(twinned && fits, || {
                format!("lock of m{session} on i{ino} hangs in the air")
            });
            if key.first() == Some(&0) {
                let row: LockRow = crate::layout::decode(Table::Lock, &value)?;
                let apart = row.ranges.windows(2).all(|w| w[0].end < w[1].start);
                self.expect(apart && !row.ranges.is_empty(), || {
                    format!("lock of m{session} on i{ino}: ranges overlap")
                });
            }
        }
        Ok(())
    }

    fn sets(&mut self) -> Result<(), StoreError> {
        let nodes: BTreeSet<NodeId> = self
            .decoded::<NodeInfo>(Table::Node)?
            .iter()
            .map(|(_, n)| n.id)
            .collect();
        for (_, set) in self.decoded::<ReplicaSet>(Table::Set)? {
            let known = set
                .nodes
                .iter()
                .chain(&set.joining)
                .all(|n| nodes.contains(n));
            // A node that was thrown out may have been the last member.
            self.expect(known && (set.sealed || !set.nodes.is_empty()), || {
                format!("{}: of unknown nodes", set.id)
            });
            self.expect(set.joining.is_none() || set.sealed, || {
                format!("{}: open while a node joins", set.id)
            });
        }
        Ok(())
    }
}
