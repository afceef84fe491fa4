//! Objects on disk.
//!
//! ```text
//! DATA/lock                          held while open; holds the pid
//! DATA/buckets/BUCKET/XX/SEQUENCE    an object (see `record`), XX = SEQUENCE mod 256
//! DATA/tmp/N                         being written; emptied at start
//! DATA/uploads/ID/                   a multipart upload (see `upload`)
//! ```
//! Keys live in the records, not in file names, so that any key is possible.
//! An index in memory (key to sequence) is rebuilt from the records at start.
//! DATA has mode 0700, objects 0600: who may read them is for the requests to say.
//!
//! # What must hold
//! A file appears under `buckets` by rename, complete and synced. If two files
//! have one key, the one with the higher sequence is newer, so a crash between the
//! rename and the removal of the old file loses nothing.
//!
//! Calls block: callers on an async runtime use a blocking thread.

use crate::record::{Attributes, Checksums, Record};
use lagan_host::process::LEAVING_PATIENCE;
use lagan_host::wall::wall_ms;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Why a store cannot be opened, or a call of it failed.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Another process has it open.
    #[error("data directory {0} is in use by another process")]
    InUse(PathBuf),
    /// There is no such bucket.
    #[error("no such bucket")]
    NoSuchBucket,
    /// There is an object of that key, and there must not be one.
    #[error("object exists")]
    Exists,
    /// The disk's error.
    #[error("{0}: {1}")]
    Io(String, #[source] io::Error),
}

impl StoreError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        move |error| StoreError::Io(what.into(), error)
    }
}

/// An object as the index knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub sequence: u64,
    pub len: u64,
    pub e_tag: String,
    pub modified_ms: u64,
}

type Index = BTreeMap<String, Entry>;

/// A page of a listing.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Page {
    pub objects: Vec<(String, Entry)>,
    pub common_prefixes: BTreeSet<String>,
    /// The last key or common prefix of this page, if more follow.
    pub next: Option<String>,
}

/// A request for one page of a listing.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ListQuery<'a> {
    pub prefix: &'a str,
    pub delimiter: Option<&'a str>,
    pub after: Option<&'a str>,
    pub limit: usize,
}

/// The data directory, open.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    sync: bool,
    /// Wrong checksums are refused.
    pub(crate) verify: bool,
    _lock: File,
    next: AtomicU64,
    /// Held for moments only; never across disk access, but for the rename.
    buckets: Mutex<BTreeMap<String, Index>>,
}

impl Store {
    /// Opens a data directory and reads the records of all its objects.
    ///
    /// # Errors
    /// `InUse`, or the disk's.
    pub fn open(root: &Path, sync: bool) -> Result<Self, StoreError> {
        let open = || StoreError::io(format!("open data directory {}", root.display()));
        fs::create_dir_all(root).map_err(open())?;
        fs::set_permissions(root, Permissions::from_mode(0o700)).map_err(open())?;
        let lock = lock(root, LEAVING_PATIENCE)?;
        let tmp = root.join("tmp");
        if tmp.exists() {
            fs::remove_dir_all(&tmp).map_err(open())?;
        }
        for dir in ["tmp", "buckets", "uploads"] {
            fs::create_dir_all(root.join(dir)).map_err(open())?;
        }
        let mut store = Store {
            root: root.to_path_buf(),
            sync,
            verify: true,
            _lock: lock,
            next: AtomicU64::new(1),
            buckets: Mutex::default(),
        };
        store.load().map_err(open())?;
        Ok(store)
    }

    fn load(&mut self) -> io::Result<()> {
        let mut buckets = BTreeMap::new();
        let mut highest = 0;
        for bucket in fs::read_dir(self.root.join("buckets"))? {
            let bucket = bucket?;
            let Ok(name) = bucket.file_name().into_string() else {
                continue;
            };
            let mut index = Index::new();
            for folder in fs::read_dir(bucket.path())? {
                for file in fs::read_dir(folder?.path())? {
                    highest = highest.max(load_file(&file?.path(), &mut index)?);
                }
            }
            buckets.insert(name, index);
        }
        self.next = AtomicU64::new(highest + 1);
        self.buckets = Mutex::new(buckets);
        Ok(())
    }

    /// Makes a bucket; `false` if it is there already.
    ///
    /// # Errors
    /// The disk's.
    pub fn create_bucket(&self, bucket: &str) -> Result<bool, StoreError> {
        let mut buckets = self.lock();
        if buckets.contains_key(bucket) {
            return Ok(false);
        }
        let dir = self.root.join("buckets").join(bucket);
        fs::create_dir_all(&dir).map_err(StoreError::io("create bucket"))?;
        self.sync_dir(&self.root.join("buckets"))
            .map_err(StoreError::io("create bucket"))?;
        buckets.insert(bucket.into(), Index::new());
        Ok(true)
    }

    /// Removes an empty bucket; `false` if it is not empty.
    pub(crate) fn delete_bucket(&self, bucket: &str) -> Result<bool, StoreError> {
        let mut buckets = self.lock();
        match buckets.get(bucket) {
            None => return Err(StoreError::NoSuchBucket),
            Some(index) if !index.is_empty() => return Ok(false),
            Some(_) => {}
        }
        let dir = self.root.join("buckets").join(bucket);
        fs::remove_dir_all(dir).map_err(StoreError::io("delete bucket"))?;
        buckets.remove(bucket);
        Ok(true)
    }

    /// The names of all buckets.
    pub(crate) fn buckets(&self) -> Vec<String> {
        self.lock().keys().cloned().collect()
    }

    /// Makes sure that there is that bucket.
    pub(crate) fn check_bucket(&self, bucket: &str) -> Result<(), StoreError> {
        self.lock()
            .get(bucket)
            .map(|_| ())
            .ok_or(StoreError::NoSuchBucket)
    }

    /// Begins to write an object or a part.
    pub(crate) fn begin(&self) -> Result<Draft, StoreError> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.root.join("tmp").join(format!("{number:016x}"));
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .map_err(StoreError::io("create object"))?;
        Ok(Draft {
            path,
            file,
            len: 0,
            kept: false,
        })
    }

    /// Makes a finished draft the object of that key. With `only_new` there
    /// must be none of that key.
    pub(crate) fn commit(
        &self,
        bucket: &str,
        mut draft: Draft,
        record: Record,
        only_new: bool,
    ) -> Result<(), StoreError> {
        let failed = || StoreError::io("store object");
        draft.finish(&record, self.sync).map_err(failed())?;
        let mut buckets = self.lock();
        let index = buckets.get_mut(bucket).ok_or(StoreError::NoSuchBucket)?;
        if only_new && index.contains_key(&record.key) {
            return Err(StoreError::Exists);
        }
        // taken under the lock: a later commit of the key has a higher sequence
        let sequence = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.object_path(bucket, sequence);
        draft.rename(&path).map_err(failed())?;
        let entry = Entry {
            sequence,
            len: record.len,
            e_tag: record.e_tag,
            modified_ms: record.modified_ms,
        };
        let old = index.insert(record.key, entry);
        drop(buckets);
        if let Some(folder) = path.parent() {
            self.sync_dir(folder).map_err(failed())?;
        }
        match old {
            Some(old) => self.remove(bucket, old.sequence),
            None => Ok(()),
        }
    }

    /// Looks an object up in the index.
    pub(crate) fn entry(&self, bucket: &str, key: &str) -> Result<Option<Entry>, StoreError> {
        let buckets = self.lock();
        let index = buckets.get(bucket).ok_or(StoreError::NoSuchBucket)?;
        Ok(index.get(key).cloned())
    }

    /// Opens an object for reading; it stays readable when it is replaced.
    pub(crate) fn open_object(
        &self,
        bucket: &str,
        key: &str,
    ) -> Result<Option<(File, Record)>, StoreError> {
        let mut tries = 0;
        loop {
            let Some(entry) = self.entry(bucket, key)? else {
                return Ok(None);
            };
            match File::open(self.object_path(bucket, entry.sequence)) {
                Ok(file) => {
                    let record = Record::read(&file).map_err(StoreError::io("read object"))?;
                    return Ok(Some((file, record)));
                }
                // replaced or deleted between the index and the disk
                Err(e) if e.kind() == io::ErrorKind::NotFound && tries < 10 => tries += 1,
                Err(e) => return Err(StoreError::io("open object")(e)),
            }
        }
    }

    /// Deletes an object; one that is not there counts as deleted.
    pub(crate) fn delete(&self, bucket: &str, key: &str) -> Result<(), StoreError> {
        let mut buckets = self.lock();
        let index = buckets.get_mut(bucket).ok_or(StoreError::NoSuchBucket)?;
        let old = index.remove(key);
        drop(buckets);
        old.map_or(Ok(()), |entry| self.remove(bucket, entry.sequence))
    }

    /// Lists objects in key order.
    pub(crate) fn list(&self, bucket: &str, query: ListQuery<'_>) -> Result<Page, StoreError> {
        let buckets = self.lock();
        let index = buckets.get(bucket).ok_or(StoreError::NoSuchBucket)?;
        Ok(list(index, query))
    }

    /// The directory of unfinished uploads.
    pub(crate) fn uploads_dir(&self) -> PathBuf {
        self.root.join("uploads")
    }

    /// True if writes are synced before they are answered.
    pub(crate) fn syncs(&self) -> bool {
        self.sync
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Index>> {
        self.buckets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn object_path(&self, bucket: &str, sequence: u64) -> PathBuf {
        let folder = format!("{:02x}", sequence & 0xff);
        self.root
            .join("buckets")
            .join(bucket)
            .join(folder)
            .join(format!("{sequence:016x}"))
    }

    fn remove(&self, bucket: &str, sequence: u64) -> Result<(), StoreError> {
        match fs::remove_file(self.object_path(bucket, sequence)) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => {
                Err(StoreError::io("remove object")(e))
            }
            _ => Ok(()),
        }
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        if self.sync {
            File::open(dir)?.sync_all()
        } else {
            Ok(())
        }
    }
}

/// Locks the directory for this process and leaves its pid there; waits for a
/// predecessor that was killed and is not quite gone.
fn lock(root: &Path, patience: Duration) -> Result<File, StoreError> {
    match lagan_host::lock::take_within(&root.join("lock"), patience) {
        Err(e) if e.kind() == io::ErrorKind::WouldBlock => Err(StoreError::InUse(root.into())),
        taken => taken.map_err(StoreError::io(format!(
            "lock data directory {}",
            root.display()
        ))),
    }
}

/// Takes a file into the index; of two with one key the older is removed.
/// Returns its sequence.
fn load_file(path: &Path, index: &mut Index) -> io::Result<u64> {
    let name = path
        .file_name()
        .and_then(|n| n.to_str())
        .unwrap_or_default();
    let Ok(sequence) = u64::from_str_radix(name, 16) else {
        return Ok(0);
    };
    let record = match File::open(path).and_then(|file| Record::read(&file)) {
        Ok(record) => record,
        Err(error) => {
            tracing::warn!(path = %path.display(), %error, "file is no object, left out");
            return Ok(sequence);
        }
    };
    let known = index.get(&record.key).map(|e| e.sequence);
    let superseded = match known {
        Some(other) if other > sequence => Some(path.to_path_buf()),
        Some(other) => path.parent().and_then(Path::parent).map(|bucket| {
            bucket
                .join(format!("{:02x}", other & 0xff))
                .join(format!("{other:016x}"))
        }),
        None => None,
    };
    if known.is_none_or(|other| other < sequence) {
        let entry = Entry {
            sequence,
            len: record.len,
            e_tag: record.e_tag,
            modified_ms: record.modified_ms,
        };
        index.insert(record.key, entry);
    }
    superseded.map_or(Ok(()), fs::remove_file)?;
    Ok(sequence)
}

fn list(index: &Index, query: ListQuery<'_>) -> Page {
    use std::ops::Bound::{Excluded, Included, Unbounded};
    let mut page = Page::default();
    let mut last = None;
    let mut from = match query.after {
        Some(after) if after >= query.prefix => Excluded(after.to_string()),
        _ => Included(query.prefix.to_string()),
    };
    loop {
        let Some((key, entry)) = index.range((from, Unbounded)).next() else {
            return page;
        };
        let Some(rest) = key.strip_prefix(query.prefix) else {
            return page;
        };
        let group = query.delimiter.filter(|d| !d.is_empty()).and_then(|d| {
            rest.find(d)
                .map(|at| format!("{}{}", query.prefix, &rest[..at + d.len()]))
        });
        // a page that ended with a group resumes behind all of it
        let seen = group
            .as_deref()
            .is_some_and(|g| query.after.is_some_and(|a| a.starts_with(g)));
        if !seen {
            if page.objects.len() + page.common_prefixes.len() >= query.limit {
                page.next = last;
                return page;
            }
            match &group {
                Some(group) => page.common_prefixes.insert(group.clone()),
                None => {
                    page.objects.push((key.clone(), entry.clone()));
                    true
                }
            };
            last = Some(group.clone().unwrap_or_else(|| key.clone()));
        }
        from = match group {
            Some(group) => match after_all_of(&group) {
                Some(next) => Included(next),
                None => return page,
            },
            None => Excluded(key.clone()),
        };
    }
}

/// The lowest string above all that begin with `prefix`.
fn after_all_of(prefix: &str) -> Option<String> {
    let mut chars: Vec<char> = prefix.chars().collect();
    while let Some(last) = chars.pop() {
        let next = (last as u32 + 1..=char::MAX as u32).find_map(char::from_u32);
        if let Some(next) = next {
            chars.push(next);
            return Some(chars.into_iter().collect());
        }
    }
    None
}

/// A file being written; removed when dropped before it is kept.
#[derive(Debug)]
pub(crate) struct Draft {
    path: PathBuf,
    file: File,
    len: u64,
    kept: bool,
}

impl Draft {
    /// Appends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all(bytes)?;
        self.len += bytes.len() as u64;
        Ok(())
    }

    /// Bytes so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Appends the record and makes it durable.
    pub fn finish(&mut self, record: &Record, sync: bool) -> io::Result<()> {
        debug_assert_eq!(record.len, self.len);
        self.file.write_all(&record.encode()?)?;
        if sync { self.file.sync_data() } else { Ok(()) }
    }

    /// Moves the file to its place.
    pub fn rename(mut self, to: &Path) -> io::Result<()> {
        if let Some(folder) = to.parent() {
            fs::create_dir_all(folder)?;
        }
        fs::rename(&self.path, to)?;
        self.kept = true;
        Ok(())
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.kept {
            // what stays is removed at the next start
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// A record of what was written to a draft.
pub(crate) fn record(
    key: &str,
    len: u64,
    e_tag: String,
    checksums: Checksums,
    attributes: Attributes,
) -> Record {
    Record {
        key: key.into(),
        len,
        e_tag,
        modified_ms: wall_ms(),
        checksums,
        attributes,
    }
}

#[cfg(test)]
mod tests;
