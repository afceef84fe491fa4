//! Handing out uploads: each due file goes to a node that holds its bytes.

use super::Leader;
use crate::clock::wall_ms;
use lagan_meta::kv::StoreError;
use lagan_raft::View;
use lagan_types::cluster::{ClusterMap, NodeState};
use lagan_types::message::{ArchiveJob, MetaReply};
use lagan_types::op::{ArchiveStart, Op};
use lagan_types::query::{DueFile, Query, QueryAnswer};
use lagan_types::{Answer, Attr, NodeId, SessionId, VolumeId};

/// Due files looked at for one request.
const DUE_PAGE: u32 = 512;
/// And if none of them is for the node that asks.
const DUE_MAX: u32 = 4096;
/// Uploads that one request may ask for.
const SLOTS_MAX: u32 = 256;
/// A file that has been due for longer may be uploaded by any holder: its own
/// may not reach S3.
const ANY_HOLDER_AFTER_MS: u64 = 30_000;
/// Paths longer than this are left out of the object's metadata.
const PATH_LEN_MAX: usize = 1024;

impl Leader {
    pub(super) async fn archive_jobs(&self, view: &View, node: NodeId, slots: u32) -> MetaReply {
        let files = match self.due_for(view, node, slots.min(SLOTS_MAX)) {
            Ok(files) => files,
            Err(e) => {
                tracing::error!(error = %e, "state store");
                Vec::new()
            }
        };
        if files.is_empty() {
            return MetaReply::ArchiveJobs(Vec::new());
        }
        let start = files.iter().map(|f| ArchiveStart {
            ino: f.ino,
            version: f.version,
            node,
        });
        let op = Op::StartArchive {
            files: start.collect(),
        };
        let attempts = match self.propose(op).await {
            Some(Ok(Answer::Attempts(attempts))) => attempts,
            _ => Vec::new(),
        };
        let jobs = files.iter().zip(attempts).filter_map(|(file, attempt)| {
            let attempt = attempt?;
            let (meta, name) = describe(view, file)?;
            Some(ArchiveJob {
                ino: file.ino,
                version: file.version,
                attempt: attempt.number,
                key: attempt.key,
                size: attempt.size,
                meta,
                name,
            })
        });
        MetaReply::ArchiveJobs(jobs.collect())
    }

    fn due_for(&self, view: &View, node: NodeId, slots: u32) -> Result<Vec<DueFile>, StoreError> {
        let Some(map) = lagan_meta::cluster_map(view)? else {
            return Ok(Vec::new());
        };
        if map.config.archive.is_none() {
            return Ok(Vec::new());
        }
        let now_ms = wall_ms();
        let mut files = Vec::new();
        for limit in [DUE_PAGE, DUE_MAX] {
            let query = Query::Due { now_ms, limit };
            let due = match lagan_meta::query(view, VolumeId(1), SessionId::SYSTEM, &query)? {
                Ok(QueryAnswer::Due(due)) => due,
                _ => Vec::new(),
            };
            let all = due.len() < limit as usize;
            let mine = due
                .into_iter()
                .filter(|file| may_upload(&map, file, node, now_ms));
            files = mine.take(slots as usize).collect();
            // The oldest may be on nodes that are down: look behind them.
            if all || !files.is_empty() {
                break;
            }
        }
        Ok(files)
    }
}

/// Whether that node should upload the file: the files of a set are spread
/// over its live members, and after a while any of them may.
fn may_upload(map: &ClusterMap, file: &DueFile, node: NodeId, now_ms: u64) -> bool {
    let up = |n: &NodeId| map.node(*n).is_some_and(|n| n.state != NodeState::Down);
    let holders: Vec<NodeId> = match file.chunk.and_then(|c| map.set(c.set())) {
        Some(set) => set.nodes.iter().copied().filter(up).collect(),
        None => map.nodes.iter().map(|n| n.id).filter(up).collect(),
    };
    if now_ms.saturating_sub(file.due_ms) > ANY_HOLDER_AFTER_MS {
        return holders.contains(&node);
    }
    let turn = file.ino.0 % (holders.len() as u64).max(1);
    holders.get(turn as usize) == Some(&node)
}

/// Metadata of an object, and the file's name.
type Description = (Vec<(String, String)>, Vec<u8>);

/// What S3 is told about the file beside its bytes.
fn describe(view: &View, file: &DueFile) -> Option<Description> {
    let query = Query::File { ino: file.ino };
    let answer = lagan_meta::query(view, VolumeId(1), SessionId::SYSTEM, &query).ok()?;
    let Ok(QueryAnswer::File { attr, path, .. }) = answer else {
        return None;
    };
    let path = path.unwrap_or_default();
    let name = path
        .rsplit(|&b| b == b'/')
        .next()
        .unwrap_or_default()
        .to_vec();
    Some((object_meta(&attr, &path), name))
}

fn object_meta(attr: &Attr, path: &[u8]) -> Vec<(String, String)> {
    let mut meta = vec![
        ("lagan-ino".to_owned(), attr.ino.0.to_string()),
        ("lagan-mode".to_owned(), format!("{:04o}", attr.mode)),
        ("lagan-uid".to_owned(), attr.uid.to_string()),
        ("lagan-gid".to_owned(), attr.gid.to_string()),
        (
            "lagan-mtime".to_owned(),
            format!("{}.{:09}", attr.mtime.secs, attr.mtime.nanos),
        ),
    ];
    let encoded = percent_encode(path);
    if encoded.len() <= PATH_LEN_MAX {
        meta.push(("lagan-path".to_owned(), encoded));
    }
    meta
}

/// RFC 3986: everything but unreserved characters and the slash.
fn percent_encode(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &b in bytes {
        match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                out.push(b as char);
            }
            _ => out.push_str(&format!("%{b:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_percent_encoded() {
        assert_eq!(percent_encode("/a b/ü%".as_bytes()), "/a%20b/%C3%BC%25");
    }
}
