//! Verified units of objects, in files, least recently used go first.

use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that one CRC of the cache covers.
pub(super) const BLOCK: usize = 64 * 1024;

/// An object's key, which is never used twice, and the number of a unit in it.
pub(super) type UnitKey = (Arc<str>, usize);

/// A verified unit that can be read.
#[derive(Debug)]
pub(super) struct Unit {
    bytes: Source,
    /// CRC-32 of each block.
    blocks: Arc<[u32]>,
}

#[derive(Debug)]
enum Source {
    Memory(Bytes),
    File(File),
}

impl Unit {
    pub fn memory(bytes: Bytes, blocks: Arc<[u32]>) -> Self {
        Unit {
            bytes: Source::Memory(bytes),
            blocks,
        }
    }
}

#[derive(Debug)]
struct Entry {
    path: PathBuf,
    len: u64,
    used_at: u64,
    blocks: Arc<[u32]>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: HashMap<UnitKey, Entry>,
    /// By time of last use; the times are unique.
    order: BTreeMap<u64, UnitKey>,
    bytes: u64,
    clock: u64,
}

/// The folder and what is in it.
#[derive(Debug)]
pub(super) struct Cache {
    dir: PathBuf,
    bytes_max: u64,
    next: AtomicU64,
    /// Held while files are opened or removed, never while bytes move.
    inner: Mutex<Inner>,
}

impl Cache {
    /// A cache in a folder, which is made and emptied at first use.
    pub fn new(dir: PathBuf, bytes_max: u64) -> Self {
        empty(&dir);
        Cache {
            dir,
            bytes_max,
            next: AtomicU64::new(1),
            inner: Mutex::default(),
        }
    }

    /// A new file to write a unit to.
    pub fn begin(&self) -> io::Result<(PathBuf, File)> {
        fs::create_dir_all(&self.dir)?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.join(format!("{number:016x}.unit"));
        let file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        Ok((path, file))
    }

    /// Writes and keeps a unit.
    pub fn store(&self, key: UnitKey, bytes: &Bytes, blocks: Arc<[u32]>) -> io::Result<()> {
        let (path, file) = self.begin()?;
        if let Err(error) = file.write_all_at(bytes, 0) {
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        self.insert(key, path, bytes.len() as u64, blocks)
    }

    /// Keeps a unit that was written; others leave for it.
    pub fn insert(
        &self,
        key: UnitKey,
        path: PathBuf,
        len: u64,
        blocks: Arc<[u32]>,
    ) -> io::Result<()> {
        let mut inner = self.inner.lock();
        inner.remove(&key);
        while inner.bytes.saturating_add(len) > self.bytes_max {
            let Some((_, oldest)) = inner.order.first_key_value() else {
                break;
            };
            let oldest = oldest.clone();
            inner.remove(&oldest);
        }
        inner.clock += 1;
        let used_at = inner.clock;
        inner.bytes += len;
        inner.order.insert(used_at, key.clone());
        inner.entries.insert(
            key,
            Entry {
                path,
                len,
                used_at,
                blocks,
            },
        );
        Ok(())
    }

    /// A unit, if it is here; it is now the last that would leave.
    pub fn get(&self, key: &UnitKey) -> Option<Arc<Unit>> {
        let mut inner = self.inner.lock();
        inner.clock += 1;
        let now = inner.clock;
        let entry = inner.entries.get_mut(key)?;
        let before = std::mem::replace(&mut entry.used_at, now);
        let opened = File::open(&entry.path);
        let blocks = entry.blocks.clone();
        inner.order.remove(&before);
        inner.order.insert(now, key.clone());
        match opened {
            Ok(file) => Some(Arc::new(Unit {
                bytes: Source::File(file),
                blocks,
            })),
            Err(error) => {
                tracing::warn!(%error, "recall cache");
                inner.remove(key);
                None
            }
        }
    }

    /// Drops a unit, which turned out to be damaged.
    pub fn forget(&self, key: &UnitKey) {
        self.inner.lock().remove(key);
    }

    /// Drops all units.
    pub fn clear(&self) {
        let mut inner = self.inner.lock();
        let keys: Vec<UnitKey> = inner.entries.keys().cloned().collect();
        for key in keys {
            inner.remove(&key);
        }
    }

    /// Reads `offset..offset + len` of a unit and verifies the blocks that it touches.
    ///
    /// # Errors
    /// `InvalidData` if they are not what was stored; the unit is to be forgotten.
    pub async fn read(unit: Arc<Unit>, offset: u64, len: u64) -> io::Result<Bytes> {
        if let Source::Memory(bytes) = &unit.bytes {
            let range = usize::try_from(offset)
                .ok()
                .zip(usize::try_from(offset + len).ok());
            let range = range.filter(|(_, end)| *end <= bytes.len());
            let (start, end) = range.ok_or(io::ErrorKind::UnexpectedEof)?;
            return Ok(bytes.slice(start..end));
        }
        let read = tokio::task::spawn_blocking(move || unit.read_verified(offset, len));
        read.await.map_err(io::Error::other)?
    }
}

impl Unit {
    fn read_verified(&self, offset: u64, len: u64) -> io::Result<Bytes> {
        let Source::File(file) = &self.bytes else {
            return Err(io::ErrorKind::Unsupported.into());
        };
        let block = BLOCK as u64;
        let first = offset / block;
        let end = (offset + len)
            .next_multiple_of(block)
            .min(file.metadata()?.len());
        let start = first * block;
        let all_len = end.checked_sub(start).ok_or(io::ErrorKind::UnexpectedEof)?;
        let mut all = vec![0; usize::try_from(all_len).map_err(io::Error::other)?];
        file.read_exact_at(&mut all, start)?;
        let crcs = self
            .blocks
            .iter()
            .skip(usize::try_from(first).map_err(io::Error::other)?);
        let sound = all
            .chunks(BLOCK)
            .zip(crcs)
            .filter(|(b, crc)| crc32fast::hash(b) == **crc);
        if sound.count() != all.len().div_ceil(BLOCK) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "bytes changed on disk",
            ));
        }
        let skip = (offset - start) as usize;
        let wanted = skip..skip + usize::try_from(len).map_err(io::Error::other)?;
        if wanted.end > all.len() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Bytes::from(all).slice(wanted))
    }
}

impl Inner {
    fn remove(&mut self, key: &UnitKey) {
        let Some(entry) = self.entries.remove(key) else {
            return;
        };
        self.order.remove(&entry.used_at);
        self.bytes = self.bytes.saturating_sub(entry.len);
        if let Err(error) = fs::remove_file(&entry.path) {
            tracing::debug!(%error, "recall cache");
        }
    }
}

/// Removes the units of an earlier run; other files are not ours.
fn empty(dir: &Path) {
    let Ok(files) = fs::read_dir(dir) else { return };
    for file in files.flatten() {
        let path = file.path();
        if path.extension().is_some_and(|e| e == "unit") {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit(cache: &Cache, name: &str, len: usize) -> UnitKey {
        let bytes = Bytes::from(
            (0..len)
                .map(|i| (i * 3 + i / 256) as u8)
                .collect::<Vec<_>>(),
        );
        let blocks: Vec<u32> = bytes.chunks(BLOCK).map(crc32fast::hash).collect();
        let key: UnitKey = (name.into(), 0);
        cache.store(key.clone(), &bytes, blocks.into()).unwrap();
        key
    }

    #[tokio::test]
    async fn the_least_recently_used_leaves_first() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().into(), 300);
        let (a, b) = (unit(&cache, "a", 100), unit(&cache, "b", 100));
        cache.get(&a).unwrap();
        let c = unit(&cache, "c", 200);
        assert!(cache.get(&b).is_none());
        assert!(cache.get(&a).is_some() && cache.get(&c).is_some());
        let large = unit(&cache, "large", 1000);
        assert!(cache.get(&large).is_some() && cache.get(&a).is_none());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        cache.clear();
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn ranges_are_verified_against_rot() {
        let dir = tempfile::tempdir().unwrap();
        let cache = Cache::new(dir.path().into(), 1 << 30);
        let key = unit(&cache, "a", 200_000);
        let expect: Vec<u8> = (65_000..65_600).map(|i| (i * 3 + i / 256) as u8).collect();
        let read = Cache::read(cache.get(&key).unwrap(), 65_000, 600)
            .await
            .unwrap();
        assert_eq!(read, expect);
        assert!(
            Cache::read(cache.get(&key).unwrap(), 199_000, 1001)
                .await
                .is_err()
        );
        let path = fs::read_dir(dir.path())
            .unwrap()
            .next()
            .unwrap()
            .unwrap()
            .path();
        File::options()
            .write(true)
            .open(path)
            .unwrap()
            .write_all_at(b"x", 70_000)
            .unwrap();
        assert!(
            Cache::read(cache.get(&key).unwrap(), 65_000, 600)
                .await
                .is_err()
        );
        assert!(Cache::read(cache.get(&key).unwrap(), 0, 600).await.is_ok());
    }

    #[test]
    fn units_of_an_earlier_run_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("1.unit"), "old").unwrap();
        fs::write(dir.path().join("note"), "not ours").unwrap();
        Cache::new(dir.path().into(), 300);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
