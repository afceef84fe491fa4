//! Extents do not overlap, and the sums in the inode are theirs. A chunk has the same
//! length and CRC wherever it is named, is in Shared if that is more than one place,
//! and is not freed. Xattrs, symlinks and objects belong to their inodes.

use super::Walk;
use crate::extents::{decode, home};
use crate::kv::{StoreError, Table};
use crate::layout::rows::{BlockRow, ObjectRow};
use crate::layout::{key_set, key1, part};
use crate::load::row;
use crate::uses;
use lagan_types::attr::{CAPABILITY, HAS_CAPABILITY, Kind};
use lagan_types::cluster::ReplicaSet;
use lagan_types::{ChunkId, Content, Extent, Ino, SetId};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Default, PartialEq, Eq, Debug, Clone, Copy)]
struct Sums {
    chunk: u64,
    object: u64,
    lost: u64,
    lost_extents: u64,
}

impl Walk<'_> {
    pub(super) fn extents(&mut self) -> Result<(), StoreError> {
        let mut sums: BTreeMap<Ino, Sums> = BTreeMap::new();
        let mut chunks: BTreeMap<ChunkId, (u32, u32)> = BTreeMap::new();
        let mut homes: BTreeSet<(ChunkId, Ino, u64)> = BTreeSet::new();
        let mut uses: BTreeMap<SetId, u64> = BTreeMap::new();
        let mut before = (Ino(0), 0);
        for (key, value) in self.rows(Table::Extent)? {
            let (ino, extent) = decode(&key, &value)?;
            self.expect(before.0 != ino || before.1 <= extent.offset, || {
                format!("{ino}: extents overlap at {}", extent.offset)
            });
            before = (ino, extent.end());
            self.place(ino, &extent);
            let sum = sums.entry(ino).or_default();
            match extent.content {
                Content::Chunk {
                    id,
                    chunk_len,
                    chunk_crc,
                    ..
                } => {
                    sum.chunk += extent.len;
                    *uses.entry(id.set()).or_default() += 1;
                    let one = (chunk_len, chunk_crc);
                    let known = *chunks.entry(id).or_insert(one);
                    self.expect(known == one, || {
                        format!("{ino}: chunk {id} is {one:?}, elsewhere {known:?}")
                    });
                    homes.extend(home(&extent).map(|h| (id, ino, h.at)));
                    self.chunk(ino, id)?;
                }
                Content::Object { .. } => sum.object += extent.len,
                Content::Lost => {
                    sum.lost += extent.len;
                    sum.lost_extents += 1;
                }
            }
        }
        for (ino, inode) in self.inodes.clone() {
            let real = sums.remove(&ino).unwrap_or_default();
            let kept = Sums {
                chunk: inode.chunk_bytes,
                object: inode.object_bytes,
                lost: inode.lost_bytes,
                lost_extents: inode.lost_extents,
            };
            self.expect(real == kept, || {
                format!("{ino}: has {real:?}, says {kept:?}")
            });
        }
        for ino in sums.keys() {
            self.say(format!("{ino}: extents without inode"));
        }
        if let Some(kept) = uses::all(self.store)?.counts() {
            let real: Vec<(SetId, u64)> = uses.into_iter().collect();
            self.expect(real == kept, || {
                format!("extents by set: {real:?}, says {kept:?}")
            });
        }
        self.shared(&homes)
    }

    /// Shared has all places of each chunk that is named in more than one.
    fn shared(&mut self, homes: &BTreeSet<(ChunkId, Ino, u64)>) -> Result<(), StoreError> {
        let mut wanted = BTreeSet::new();
        for pair in homes.iter().zip(homes.iter().skip(1)) {
            if pair.0.0 == pair.1.0 {
                wanted.extend([*pair.0, *pair.1]);
            }
        }
        let mut rows = BTreeSet::new();
        for (key, _) in self.rows(Table::Shared)? {
            let high = part(Table::Shared, &key, 0)?;
            let low = part(Table::Shared, &key, 8)?;
            let id = ChunkId((high as u128) << 64 | low as u128);
            let ino = Ino(part(Table::Shared, &key, 16)?);
            rows.insert((id, ino, part(Table::Shared, &key, 24)?));
        }
        for (id, ino, at) in wanted.symmetric_difference(&rows) {
            self.say(format!(
                "{ino}: chunk {id} at {at} is shared on one side only"
            ));
        }
        Ok(())
    }

    fn place(&mut self, ino: Ino, extent: &Extent) {
        let Some(inode) = self.inodes.get(&ino) else {
            return;
        };
        let inside = inode.kind == Kind::File && extent.end() <= inode.size;
        let object = match extent.content {
            Content::Object { version, offset } => {
                offset == extent.offset && inode.archive.object == Some(version)
            }
            _ => true,
        };
        self.expect(inside, || {
            format!("{ino}: extent at {} beyond the end", extent.offset)
        });
        self.expect(object, || {
            format!("{ino}: extent at {} names no object", extent.offset)
        });
    }

    fn chunk(&mut self, ino: Ino, id: ChunkId) -> Result<(), StoreError> {
        let block: Option<BlockRow> = row(self.store, Table::Block, &key1(id.block().0))?;
        let named = block.is_none_or(|b| b.is_named(id));
        self.expect(named, || {
            format!("{ino}: chunk {id} is not marked in its block")
        });
        let set: Option<ReplicaSet> = row(self.store, Table::Set, &key_set(id.set().0))?;
        self.expect(set.is_some(), || format!("{ino}: chunk {id} has no set"));
        let freed = self.reaped.contains(&id);
        self.expect(!freed, || {
            format!("{ino}: chunk {id} is named and to be deleted")
        });
        Ok(())
    }

    /// Checks xattrs, symlinks and objects.
    pub(super) fn side_rows(&mut self) -> Result<(), StoreError> {
        let mut xattrs: BTreeMap<Ino, u32> = BTreeMap::new();
        let mut capable: BTreeSet<Ino> = BTreeSet::new();
        for (key, _) in self.rows(Table::Xattr)? {
            let ino = Ino(part(Table::Xattr, &key, 0)?);
            if key.get(8..) == Some(CAPABILITY) {
                capable.insert(ino);
            }
            *xattrs.entry(ino).or_default() += key.len() as u32 - 8 + 1;
        }
        let mut objects: BTreeMap<Ino, u64> = BTreeMap::new();
        for (key, object) in self.decoded::<ObjectRow>(Table::Object)? {
            let ino = Ino(part(Table::Object, &key, 0)?);
            let twice = objects.insert(ino, part(Table::Object, &key, 8)?);
            self.expect(twice.is_none(), || {
                format!("{ino}: second object {}", object.key)
            });
        }
        let mut symlinks = 0;
        for (ino, inode) in self.inodes.clone() {
            let (real, kept) = (xattrs.remove(&ino).unwrap_or(0), inode.xattr_len);
            self.expect(real == kept, || {
                format!("{ino}: xattr names of {real} bytes, says {kept}")
            });
            let says = inode.mode & HAS_CAPABILITY != 0;
            self.expect(capable.contains(&ino) == says, || {
                format!("{ino}: says of its capabilities {says}")
            });
            let object = objects.remove(&ino);
            self.expect(object == inode.archive.object, || {
                format!("{ino}: object {object:?}, says {:?}", inode.archive.object)
            });
            if inode.kind == Kind::Symlink {
                symlinks += 1;
                let there = self.store.get(Table::Symlink, &key1(ino.0))?.is_some();
                self.expect(there, || format!("{ino}: symlink without target"));
            }
        }
        let targets = self.rows(Table::Symlink)?.len();
        self.expect(targets == symlinks, || {
            format!("{symlinks} symlinks, {targets} targets")
        });
        for ino in xattrs.keys().chain(objects.keys()) {
            self.say(format!("{ino}: xattrs or object without inode"));
        }
        Ok(())
    }
}
