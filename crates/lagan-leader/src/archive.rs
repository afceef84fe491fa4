//! Handing out uploads: each due file goes to a node that holds its bytes.
//!
//! A crash loses no upload: the due queue and the attempts are in the replicated state.

use crate::clock::wall_ms;
use crate::leader::Leader;
use crate::no_answer::NoAnswer;
use lagan_meta::DueScan;
use lagan_meta::kv::{Read, StoreError};
use lagan_raft::View;
use lagan_types::answer::Attempt;
use lagan_types::cluster::ClusterMap;
use lagan_types::message::ArchiveJob;
use lagan_types::op::{ArchiveStart, StartArchive};
use lagan_types::query::{DueFile, File};
use lagan_types::{Attr, NodeId, percent};
use std::time::Duration;

/// Due files in one page of a search.
const DUE_PAGE: usize = 64;
/// Most files that one request looks at from the front of the queue, and again further on:
/// the first may all be on nodes that are down.
const DUE_MAX: usize = 4096;
/// Most uploads that one request may ask for.
const SLOTS_MAX: u32 = 256;
/// Longest wait of a request for files to become due: less than the silence after
/// which the asker looks for another leader.
const HOLD: Duration = Duration::from_millis(450);
/// Time after which any holder may upload a due file: the one whose turn it is may not
/// reach S3.
const ANY_HOLDER_AFTER_MS: u64 = 30_000;
/// Longest path that the object's metadata has, percent-encoded; longer ones are left out.
const PATH_LEN_MAX: usize = 1024;
/// Most extents that a job has with it; the uploader asks for those of other files.
const EXTENTS_MAX: u64 = 64;

impl Leader {
    /// Notes that files may have become due before their time: requests for work look again.
    pub fn files_became_due(&self) {
        self.due.notify_waiters();
    }

    /// Hands out uploads, at once or when some become due within a moment. It waits without
    /// a view: while somebody holds one, the store cannot reuse a page.
    ///
    /// # Errors
    /// This node does not lead.
    pub(crate) async fn archive_jobs(
        &self,
        node: NodeId,
        slots: u32,
    ) -> Result<Vec<ArchiveJob>, NoAnswer> {
        let end = tokio::time::Instant::now() + HOLD;
        loop {
            let more = self.due.notified();
            tokio::pin!(more);
            more.as_mut().enable();
            let view = self.raft.read().await?;
            let jobs = self.jobs_now(&view, node, slots.min(SLOTS_MAX)).await;
            drop(view);
            if !jobs.is_empty() || tokio::time::timeout_at(end, more).await.is_err() {
                return Ok(jobs);
            }
        }
    }

    async fn jobs_now(&self, view: &View, node: NodeId, slots: u32) -> Vec<ArchiveJob> {
        let files = self.due_for(view, node, slots as usize);
        let files = files.unwrap_or_else(|e| {
            tracing::error!(error = %e, "state store");
            Vec::new()
        });
        if files.is_empty() {
            return Vec::new();
        }
        let start = files.iter().map(|f| ArchiveStart {
            ino: f.ino,
            version: f.version,
            node,
        });
        let op = StartArchive {
            files: start.collect(),
        };
        let Some(Ok(attempts)) = self.propose(op).await else {
            return Vec::new();
        };
        let started = files.iter().zip(attempts);
        started
            .filter_map(|(file, attempt)| job(view, file, attempt?))
            .collect()
    }

    fn due_for(&self, view: &View, node: NodeId, slots: usize) -> Result<Vec<DueFile>, StoreError> {
        let Some(map) = lagan_meta::cluster_map(view)? else {
            return Ok(Vec::new());
        };
        if map.config.archive.is_none() {
            return Ok(Vec::new());
        }
        let now_ms = wall_ms();
        let mine = |file: &DueFile| may_upload(&map, file, node, now_ms);
        let known = self.state.lock().due_from.remove(&node);
        let mut search = Search {
            store: view,
            slots,
            files_max: DUE_MAX,
            mine: &mine,
            files: Vec::new(),
        };
        let next = search.run(DueScan::new(now_ms), known.map(|k| k.at(now_ms)))?;
        if let Some(next) = next {
            self.state.lock().due_from.insert(node, next);
        }
        search.files.truncate(slots);
        Ok(search.files)
    }
}

/// Looks for files that one node may upload.
struct Search<'a> {
    store: &'a dyn Read,
    /// Most files wanted.
    slots: usize,
    /// Most files looked at, at the front of the queue and again further on.
    files_max: usize,
    mine: &'a dyn Fn(&DueFile) -> bool,
    /// Files found so far, perhaps a few more than wanted.
    files: Vec<DueFile>,
}

impl Search<'_> {
    /// Looks at the front of the queue, then further on from where this node's last search
    /// ended. Returns where the next search continues; `None`: right after the front.
    fn run(
        &mut self,
        mut front: DueScan,
        known: Option<DueScan>,
    ) -> Result<Option<DueScan>, StoreError> {
        if self.look(&mut front)? {
            // Enough was found, or there is no more: nothing was looked at further on.
            return Ok(known);
        }
        let start = match known {
            Some(known) if known.is_behind(&front) => known,
            _ => front,
        };
        let mut further = start.clone();
        Ok(match self.look(&mut further)? {
            // The files found will not be due any more, so the next search passes over none.
            true if self.files.len() >= self.slots => Some(start),
            true => None,
            false => Some(further),
        })
    }

    /// Looks at the next files of the queue. False: there may be more behind them.
    fn look(&mut self, scan: &mut DueScan) -> Result<bool, StoreError> {
        let mut looked_at = 0;
        while self.files.len() < self.slots {
            if looked_at >= self.files_max {
                return Ok(false);
            }
            let page = scan.page(self.store, DUE_PAGE.min(self.files_max - looked_at))?;
            if page.is_empty() {
                break;
            }
            looked_at += page.len();
            self.files.extend(page.into_iter().filter(self.mine));
        }
        Ok(true)
    }
}

/// Builds the uploader's job. The attempt is for the version that `view` shows, so the
/// extents in `view` are those of this version.
fn job(view: &View, file: &DueFile, attempt: Attempt) -> Option<ArchiveJob> {
    let found = lagan_meta::read(view, File { ino: file.ino }).ok()?.ok()?;
    let path = found.path.unwrap_or_default();
    let name = path.rsplit(|&b| b == b'/').next().unwrap_or_default();
    Some(ArchiveJob {
        ino: file.ino,
        version: file.version,
        attempt: attempt.number,
        key: attempt.key,
        size: attempt.size,
        meta: object_meta(&found.attr, &path),
        name: name.to_vec(),
        extents: (found.extent_count <= EXTENTS_MAX).then_some(found.extents),
    })
}

/// Whether that node should upload the file. The files of a set are spread
/// over its live members; after a while any of them may upload.
fn may_upload(map: &ClusterMap, file: &DueFile, node: NodeId, now_ms: u64) -> bool {
    let up = |n: &NodeId| map.is_up(*n);
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

fn object_meta(attr: &Attr, path: &[u8]) -> Vec<(String, String)> {
    let mut meta = vec![
        ("lagan-ino".to_owned(), attr.ino.0.to_string()),
        (
            "lagan-mode".to_owned(),
            format!("{:04o}", attr.permissions()),
        ),
        ("lagan-uid".to_owned(), attr.uid.to_string()),
        ("lagan-gid".to_owned(), attr.gid.to_string()),
        (
            "lagan-mtime".to_owned(),
            format!("{}.{:09}", attr.mtime.secs, attr.mtime.nanos),
        ),
    ];
    let encoded = percent::encode(path, b"/");
    if encoded.len() <= PATH_LEN_MAX {
        meta.push(("lagan-path".to_owned(), encoded));
    }
    meta
}

#[cfg(test)]
mod tests {
    use super::*;
    use lagan_meta::memory::MemoryStore;
    use lagan_types::cluster::Config;
    use lagan_types::op::{GrantInos, Init, MakePromised, NewFile};
    use lagan_types::{Command, Ino, SessionId, SystemOp, Time, answer_to};

    /// Makes that many files, all due.
    fn due_files(count: u64) -> MemoryStore {
        let mut store = MemoryStore::default();
        let mut system = |op: SystemOp| {
            let command = Command {
                time: Time { secs: 1, nanos: 0 },
                ..Command::system(op)
            };
            lagan_meta::apply(&mut store, &command).unwrap()
        };
        let config = Config::default();
        system(Init { config }.into()).unwrap();
        let grant = GrantInos {
            count: count as u32,
        };
        let granted = answer_to::<GrantInos>(system(grant.into())).unwrap();
        let first = granted.first;
        for n in 0..count {
            let file = NewFile {
                ino: Ino(first.0 + n),
                parent: Ino::ROOT,
                name: n.to_string().into_bytes(),
                mode: 0o644,
                uid: 0,
                gid: 0,
                time: Time {
                    secs: n as i64,
                    nanos: 0,
                },
                set: None,
            };
            let asked = (SessionId(1), 1 + n);
            system(MakePromised { file, asked }.into()).unwrap();
        }
        store
    }

    #[test]
    fn files_behind_many_of_absent_nodes_get_their_turn() {
        let store = due_files(100);
        let all = DueScan::new(u64::MAX).page(&store, 1000).unwrap();
        assert_eq!(all.len(), 100);
        let last: Vec<Ino> = all[90..].iter().map(|f| f.ino).collect();
        // Of the first 90 no holder is up.
        let mine = |file: &DueFile| last.contains(&file.ino);
        let mut known = None;
        let mut found = Vec::new();
        for _ in 0..20 {
            let mut search = Search {
                store: &store,
                slots: 4,
                files_max: 10,
                mine: &mine,
                files: Vec::new(),
            };
            known = search.run(DueScan::new(u64::MAX), known).unwrap();
            found.extend(search.files.iter().map(|f| f.ino));
        }
        assert_eq!(found[..10], last);
        // Nobody took them: the next search begins there again.
        assert_eq!(found[10..20], last);
    }

    #[test]
    fn front_of_the_queue_is_looked_at_first_each_time() {
        let store = due_files(100);
        let all = DueScan::new(u64::MAX).page(&store, 1000).unwrap();
        let search = |mine: &dyn Fn(&DueFile) -> bool, known| {
            let mut search = Search {
                store: &store,
                slots: 4,
                files_max: 10,
                mine,
                files: Vec::new(),
            };
            let next = search.run(DueScan::new(u64::MAX), known).unwrap();
            (search.files, next)
        };
        let none = |_: &DueFile| false;
        let (mut known, mut rounds) = (None, 0);
        loop {
            known = search(&none, known).1;
            rounds += 1;
            if known.is_none() {
                break;
            }
        }
        assert_eq!(rounds, 10, "the end is reached, and it begins again");
        let known = search(&none, None).1;
        assert!(known.is_some());
        let (found, next) = search(&|_| true, known.clone());
        assert_eq!(found[..4], all[..4]);
        assert!(next.is_some_and(|n| !n.is_behind(&known.clone().unwrap())));
    }
}
