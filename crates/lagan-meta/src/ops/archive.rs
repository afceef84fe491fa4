//! The archive's steps (docs/DESIGN.md "The mover's states").
//!
//! ```text
//! due --start--> attempt --finish, same version--> archived --release--> released
//!  ^                |  \--finish, other version--> key to the reap queue
//!  +----fail--------+
//! ```
//! The commands come from the cluster itself and are not remembered: an attempt
//! counts once because its row goes with it.

use crate::extents::{self, Home, home};
use crate::kv::{Read, StoreError, Table};
use crate::layout::rows::{AttemptRow, Due, InodeRow, ObjectRow};
use crate::layout::{self, CONFIG_KEY, key1, key2, part};
use crate::txn::{Outcome, Txn};
use lagan_types::answer::{Attempt, ReleasedFiles};
use lagan_types::cluster::{ArchiveConfig, Config};
use lagan_types::limits::FILE_LEN_MAX;
use lagan_types::op::{ArchiveFail, ArchiveFinish, ArchiveStart};
use lagan_types::{ChunkId, Content, Extent, FsError, Incarnation, Ino, NodeId, VolumeId, percent};
use std::collections::BTreeSet;
use std::fmt::Write;

/// Bytes of a key that S3 takes.
const KEY_LEN_MAX: usize = 1024;
/// Extents that one step of a rewrite takes.
const PAGE: usize = 256;

/// Records attempts before their uploads start.
pub(crate) fn start(txn: &mut Txn<'_>, files: &[ArchiveStart]) -> Outcome<Vec<Option<Attempt>>> {
    let config: Option<Config> = txn.row(Table::Config, CONFIG_KEY)?;
    let config = config.ok_or(FsError::NotFound)?;
    let mut attempts = Vec::with_capacity(files.len());
    for file in files {
        attempts.push(match &config.archive {
            Some(archive) => start_one(txn, archive, config.incarnation, file)?,
            None => None,
        });
    }
    Ok(attempts)
}

fn start_one(
    txn: &mut Txn<'_>,
    archive: &ArchiveConfig,
    incarnation: Incarnation,
    file: &ArchiveStart,
) -> Outcome<Option<Attempt>> {
    let Some(mut row) = txn.find_inode(file.ino)? else {
        return Ok(None);
    };
    let wanted =
        row.live_file() && row.version == file.version && !row.archived() && !row.is_too_large();
    if !wanted || row.archive.attempt.is_some() {
        return Ok(None);
    }
    txn.counters.attempt += 1;
    txn.counters.stats.attempts += 1;
    let number = txn.counters.attempt;
    let key = object_key(archive, incarnation, file, number, &row);
    let attempt = AttemptRow {
        ino: file.ino,
        version: file.version,
        node: file.node,
        key: key.clone(),
        started_ms: txn.now_ms(),
    };
    txn.put(Table::Attempt, &key1(number), &attempt);
    let size = row.size;
    row.archive.due = None;
    row.archive.failed = false;
    row.archive.attempt = Some(number);
    txn.set_inode(file.ino, row)?;
    Ok(Some(Attempt { number, key, size }))
}

/// `PREFIX/incarnation/volume/ino-version-attempt/name`; without the name if
/// none is known or the key would be too long.
fn object_key(
    archive: &ArchiveConfig,
    incarnation: Incarnation,
    file: &ArchiveStart,
    attempt: u64,
    row: &InodeRow,
) -> String {
    let mut key = String::new();
    if !archive.prefix.is_empty() {
        key.push_str(&archive.prefix);
        key.push('/');
    }
    let (ino, version) = (file.ino.0, file.version);
    let volume = VolumeId::ONLY.0;
    let _ = write!(key, "{incarnation}/{volume}/{ino}-{version}-{attempt}");
    let name = percent::encode(&row.name, b"");
    if !name.is_empty() && key.len() + 1 + name.len() <= KEY_LEN_MAX {
        key.push('/');
        key.push_str(&name);
    }
    key
}

/// Takes an attempt's row out: whoever finds it decides what becomes of it.
fn take_attempt(txn: &mut Txn<'_>, number: u64) -> Result<Option<AttemptRow>, StoreError> {
    let attempt = txn.row(Table::Attempt, &key1(number))?;
    if attempt.is_some() {
        txn.delete(Table::Attempt, &key1(number));
        let stats = &mut txn.counters.stats;
        stats.attempts = stats.attempts.saturating_sub(1);
    }
    Ok(attempt)
}

/// Uploads ended well.
pub(crate) fn finish(txn: &mut Txn<'_>, files: &[ArchiveFinish]) -> Outcome<()> {
    for file in files {
        if let Some(attempt) = take_attempt(txn, file.attempt)? {
            finish_one(txn, file, attempt)?;
        }
    }
    Ok(())
}

fn finish_one(txn: &mut Txn<'_>, file: &ArchiveFinish, attempt: AttemptRow) -> Outcome<()> {
    let ino = attempt.ino;
    let Some(mut row) = txn.find_inode(ino)? else {
        txn.free_object(attempt.key);
        return Ok(());
    };
    let current = row.archive.attempt == Some(file.attempt);
    let wins = current
        && row.live_file()
        && row.version == attempt.version
        && row.size == file.size
        && !row.archived();
    if !wins {
        txn.free_object(attempt.key);
        if current {
            retry(&mut row, txn.now_ms());
            txn.set_inode(ino, row)?;
        }
        return Ok(());
    }
    if let Some(old) = row.archive.object {
        let old_key = key2(ino.0, old);
        let object: Option<ObjectRow> = txn.row(Table::Object, &old_key)?;
        txn.delete(Table::Object, &old_key);
        if let Some(object) = object {
            txn.free_object(object.key);
        }
    }
    let object = ObjectRow {
        key: attempt.key,
        size: file.size,
        crc: file.crc,
    };
    txn.put(Table::Object, &key2(ino.0, row.version), &object);
    row.archive.object = Some(row.version);
    row.archive.archived_ms = txn.now_ms();
    row.archive.attempt = None;
    row.archive.failed = false;
    row.archive.due = None;
    if row.object_bytes > 0 || row.lost_bytes > 0 {
        to_objects(txn, ino, &mut row, |content| {
            !matches!(content, Content::Chunk { .. })
        })?;
    }
    txn.set_inode(ino, row)?;
    Ok(())
}

/// The current version has no attempt any more: it is due (again).
fn retry(row: &mut InodeRow, at_ms: u64) {
    row.archive.attempt = None;
    if row.live_file() && !row.archived() {
        row.archive.due = Some(Due::At(at_ms));
        row.archive.failed = true;
    }
}

/// Uploads ended badly.
pub(crate) fn fail(txn: &mut Txn<'_>, files: &[ArchiveFail]) -> Outcome<()> {
    for file in files {
        let Some(attempt) = take_attempt(txn, file.attempt)? else {
            continue;
        };
        txn.free_object(attempt.key);
        let Some(mut row) = txn.find_inode(attempt.ino)? else {
            continue;
        };
        if row.archive.attempt == Some(file.attempt) {
            retry(&mut row, file.retry_at.as_millis());
            txn.set_inode(attempt.ino, row)?;
        }
    }
    Ok(())
}

/// A node will never report: what it uploaded is deleted in case it is there,
/// and its files are due again.
pub(crate) fn fail_of(txn: &mut Txn<'_>, node: NodeId) -> Outcome<()> {
    let mut start = Vec::new();
    loop {
        let rows = txn.scan(Table::Attempt, &start, None, PAGE)?;
        let mut lost = Vec::new();
        for (key, value) in &rows {
            let attempt: AttemptRow = layout::decode(Table::Attempt, value)?;
            if attempt.node == node {
                lost.push(ArchiveFail {
                    ino: attempt.ino,
                    version: attempt.version,
                    attempt: part(Table::Attempt, key, 0)?,
                    key: attempt.key,
                    retry_at: txn.time,
                });
            }
        }
        fail(txn, &lost)?;
        match rows.last() {
            Some((key, _)) if rows.len() == PAGE => start = [key.as_slice(), &[0]].concat(),
            _ => return Ok(()),
        }
    }
}

/// Makes files due at once.
pub(crate) fn now(txn: &mut Txn<'_>, inos: &[Ino]) -> Outcome<()> {
    let now_ms = txn.now_ms();
    for &ino in inos {
        let Some(mut row) = txn.find_inode(ino)? else {
            continue;
        };
        let later = match row.archive.due {
            Some(Due::At(at_ms)) => at_ms > now_ms,
            Some(Due::After(_)) => true,
            None => false,
        };
        if later {
            row.archive.due = Some(Due::At(now_ms));
            txn.set_inode(ino, row)?;
        }
    }
    Ok(())
}

/// Swaps chunk extents of archived files for object extents.
pub(crate) fn release(txn: &mut Txn<'_>, files: &[(Ino, u64)]) -> Outcome<ReleasedFiles> {
    let (mut released, mut bytes) = (0, 0);
    if !has_archive(txn)? {
        // nobody could bring the bytes back
        return Ok(ReleasedFiles {
            files: released,
            bytes,
        });
    }
    for &(ino, version) in files {
        let Some(mut row) = txn.find_inode(ino)? else {
            continue;
        };
        if row.version != version || row.releasable_ms().is_none() {
            continue;
        }
        released += 1;
        bytes += row.chunk_bytes;
        to_objects(txn, ino, &mut row, |_| true)?;
        txn.set_inode(ino, row)?;
    }
    Ok(ReleasedFiles {
        files: released,
        bytes,
    })
}

fn has_archive(txn: &Txn<'_>) -> Result<bool, StoreError> {
    let config: Option<Config> = txn.row(Table::Config, CONFIG_KEY)?;
    Ok(config.is_some_and(|c| c.archive.is_some()))
}

/// Points extents at the object of the current version, which has the whole
/// file's bytes; neighbours become one.
fn to_objects(
    txn: &mut Txn<'_>,
    ino: Ino,
    row: &mut InodeRow,
    which: impl Fn(&Content) -> bool,
) -> Outcome<()> {
    let version = row.version;
    let mut open: Option<Extent> = None;
    let mut gone = BTreeSet::new();
    let mut from = 0;
    loop {
        let page = extents::starting_in(txn, ino, from..FILE_LEN_MAX, PAGE)?;
        for extent in page.iter().filter(|e| which(&e.content)) {
            extents::remove(txn, ino, row, extent);
            gone.extend(home(extent));
            match &mut open {
                Some(last) if last.end() == extent.offset => last.len += extent.len,
                _ => {
                    if let Some(done) = open.take() {
                        extents::insert(txn, ino, row, &done);
                    }
                    let (offset, len) = (extent.offset, extent.len);
                    let content = Content::Object { version, offset };
                    open = Some(Extent {
                        offset,
                        len,
                        content,
                    });
                }
            }
        }
        match page.last() {
            Some(last) if page.len() == PAGE => from = last.end(),
            _ => break,
        }
    }
    if let Some(done) = open {
        extents::insert(txn, ino, row, &done);
    }
    // All of the file's extents of a chunk went at once.
    for home in gone {
        extents::left(txn, ino, &home)?;
    }
    Ok(())
}

/// Points one extent, whose chunk has no healthy replica, at the object of that
/// version. Does nothing unless the file is archived in that version and the extent
/// still names the chunk.
pub(crate) fn release_extent(
    txn: &mut Txn<'_>,
    (ino, version): (Ino, u64),
    offset: u64,
    chunk: ChunkId,
) -> Outcome<ReleasedFiles> {
    let none = ReleasedFiles { files: 0, bytes: 0 };
    if !has_archive(txn)? {
        return Ok(none);
    }
    let Some(mut row) = txn.find_inode(ino)? else {
        return Ok(none);
    };
    if row.version != version || !row.archived() {
        return Ok(none);
    }
    let Some((extent, home)) = naming(txn, ino, offset, chunk)? else {
        return Ok(none);
    };
    let content = Content::Object {
        version,
        offset: extent.offset,
    };
    replace(txn, ino, &mut row, (&extent, &home), content)?;
    txn.set_inode(ino, row)?;
    Ok(ReleasedFiles {
        files: 1,
        bytes: extent.len,
    })
}

/// An extent's chunk has no healthy replica: its bytes are in the object of the
/// current version, or lost.
pub(crate) fn mark_lost(txn: &mut Txn<'_>, ino: Ino, offset: u64, chunk: ChunkId) -> Outcome<()> {
    let Some(mut row) = txn.find_inode(ino)? else {
        return Ok(());
    };
    let Some((extent, home)) = naming(txn, ino, offset, chunk)? else {
        return Ok(());
    };
    let content = match row.archive.object {
        Some(version) if row.archived() => Content::Object {
            version,
            offset: extent.offset,
        },
        _ => Content::Lost,
    };
    replace(txn, ino, &mut row, (&extent, &home), content)?;
    txn.set_inode(ino, row)?;
    Ok(())
}

/// The extent at `offset` if it names the chunk, with the chunk's home.
fn naming(txn: &Txn<'_>, ino: Ino, offset: u64, chunk: ChunkId) -> Outcome<Option<(Extent, Home)>> {
    let end = offset.checked_add(1).ok_or(FsError::Invalid)?;
    let mut found = extents::overlapping(txn, ino, offset..end, 1)?;
    let found = found.pop().and_then(|extent| {
        let home = home(&extent).filter(|home| home.id == chunk)?;
        Some((extent, home))
    });
    Ok(found)
}

/// Gives the extent that content; its chunk is freed if nothing else names it.
fn replace(
    txn: &mut Txn<'_>,
    ino: Ino,
    row: &mut InodeRow,
    (extent, home): (&Extent, &Home),
    content: Content,
) -> Outcome<()> {
    extents::remove(txn, ino, row, extent);
    let replaced = Extent {
        content,
        ..extent.clone()
    };
    extents::insert(txn, ino, row, &replaced);
    Ok(extents::free_if_unnamed(txn, ino, home)?)
}
