//! Random calls of two mounts on a few files, against byte arrays.

use crate::calls::{APPEND, RW, USER, close, get, new_file, write};
use crate::cluster::{Cluster, ROOT};
use bytes::Bytes;
use lagan_client::{Client, CopySpan};
use lagan_types::cluster::ArchiveConfig;
use lagan_types::op::{
    ArchiveFinish, ArchiveStart, FinishArchive, Release, SetAttr, SetConfig, StartArchive,
};
use lagan_types::query::GetAttr;
use lagan_types::{FsError, Ino, NodeId};
use proptest::prelude::*;
use std::sync::Arc;

/// Has the cluster archive the file's present content and release it.
pub fn archive_and_release(cluster: &Cluster, ino: Ino, data: &[u8]) {
    if let Some(version) = archive(cluster, ino, data) {
        cluster.world().system(Release {
            files: vec![(ino, version)],
        });
    }
}

/// Has the cluster archive the file's present content; its version, unless it was
/// archived before.
pub fn archive(cluster: &Cluster, ino: Ino, data: &[u8]) -> Option<u64> {
    let mut world = cluster.world();
    let mut config = lagan_meta::cluster_map(&world.store)
        .unwrap()
        .unwrap()
        .config;
    config.archive = Some(ArchiveConfig {
        endpoint: None,
        region: "r".into(),
        bucket: "bucket".into(),
        prefix: "p".into(),
    });
    world.system(SetConfig { config });
    let version = world.query(GetAttr { ino }).version;
    let attempts = world.system(StartArchive {
        files: vec![ArchiveStart {
            ino,
            version,
            node: NodeId(1),
        }],
    });
    let attempt = attempts[0].clone()?;
    world.system(FinishArchive {
        files: vec![ArchiveFinish {
            ino,
            version,
            attempt: attempt.number,
            key: attempt.key,
            size: data.len() as u64,
            crc: crc32fast::hash(data),
        }],
    });
    world
        .objects
        .insert((ino, version), Bytes::copy_from_slice(data));
    Some(version)
}

const FILES: usize = 2;
const SIZE: usize = 300_000;

#[derive(Debug, Clone)]
enum Step {
    Write(usize, usize, u64, usize, u8),
    Append(usize, usize, usize, u8),
    Truncate(usize, usize, u64),
    Punch(usize, usize, u64, u64),
    Copy(usize, (usize, u64), (usize, u64), u64),
    Flush(usize, usize),
    Read(usize, usize, u64, u32),
    Reopen(usize, usize),
    Release(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let (m, f) = (0..2usize, 0..FILES);
    let at = 0..SIZE as u64;
    let len = prop_oneof![1..100usize, 1..SIZE];
    let who = (m.clone(), f.clone());
    prop_oneof![
        6 => (who.clone(), at.clone(), len.clone(), any::<u8>())
            .prop_map(|((m, f), at, len, b)| Step::Write(m, f, at, len, b)),
        3 => (who.clone(), 1..70_000usize, any::<u8>())
            .prop_map(|((m, f), len, b)| Step::Append(m, f, len, b)),
        1 => (who.clone(), at.clone()).prop_map(|((m, f), at)| Step::Truncate(m, f, at)),
        1 => (who.clone(), at.clone(), 1..SIZE as u64)
            .prop_map(|((m, f), at, len)| Step::Punch(m, f, at, len)),
        3 => (m.clone(), (f.clone(), at.clone()), (f, at.clone()), 1..SIZE as u64)
            .prop_map(|(m, from, to, len)| Step::Copy(m, from, to, len)),
        2 => who.clone().prop_map(|(m, f)| Step::Flush(m, f)),
        6 => (who.clone(), at, 1..200_000u32)
            .prop_map(|((m, f), at, len)| Step::Read(m, f, at, len)),
        1 => who.prop_map(|(m, f)| Step::Reopen(m, f)),
        1 => (0..FILES).prop_map(Step::Release),
    ]
}

/// Two mounts with two handles per file each: positional and appending. What
/// one mount wrote is flushed before the other acts, as a user would do.
struct Rig {
    cluster: Cluster,
    mounts: [Arc<Client>; 2],
    inos: Vec<Ino>,
    fhs: [Vec<(u64, u64)>; 2],
    model: Vec<Vec<u8>>,
    /// The mount that has unflushed data in each file.
    dirty: Vec<Option<usize>>,
}

impl Rig {
    async fn start() -> Rig {
        let cluster = Cluster::start(3, 2);
        let mounts = [cluster.mount(1).await, cluster.mount(2).await];
        let mut rig = Rig {
            cluster,
            mounts,
            inos: Vec::new(),
            fhs: [Vec::new(), Vec::new()],
            model: vec![Vec::new(); FILES],
            dirty: vec![None; FILES],
        };
        for f in 0..FILES {
            let name = format!("f{f}");
            let made = rig.mounts[0].make(ROOT, name.as_bytes(), new_file()).await;
            rig.inos.push(made.unwrap().ino);
            for m in 0..2 {
                let fhs = rig.open(m, f).await;
                rig.fhs[m].push(fhs);
            }
        }
        rig
    }

    async fn open(&self, m: usize, f: usize) -> (u64, u64) {
        let open = async |options| self.mounts[m].open(self.inos[f], options).await.unwrap().fh;
        (open(RW).await, open(APPEND).await)
    }

    /// Before mount `m` acts on file `f`.
    async fn settle(&mut self, m: usize, f: usize, writes: bool) {
        if let Some(other) = self.dirty[f].filter(|d| *d != m) {
            let fh = self.fhs[other][f].0;
            self.mounts[other].fsync(fh).await.unwrap();
            self.dirty[f] = None;
        }
        if writes {
            self.dirty[f] = Some(m);
        }
    }

    async fn run(&mut self, step: &Step) {
        match *step {
            Step::Write(m, f, at, len, byte) => {
                self.settle(m, f, true).await;
                write(&self.mounts[m], self.fhs[m][f].0, at, &vec![byte; len]).await;
                let model = &mut self.model[f];
                let end = at as usize + len;
                model.resize(model.len().max(end), 0);
                model[at as usize..end].fill(byte);
            }
            Step::Append(m, f, len, byte) => {
                self.settle(m, f, true).await;
                write(&self.mounts[m], self.fhs[m][f].1, 0, &vec![byte; len]).await;
                let model = &mut self.model[f];
                model.resize(model.len() + len, byte);
            }
            Step::Truncate(m, f, size) => {
                self.settle(m, f, false).await;
                let set = SetAttr {
                    size: Some(size),
                    ..SetAttr::default()
                };
                let attr = self.mounts[m].setattr(USER, self.inos[f], set).await;
                assert_eq!(attr.unwrap().size, size);
                self.model[f].resize(size as usize, 0);
            }
            Step::Punch(m, f, at, len) => {
                self.settle(m, f, false).await;
                let fh = self.fhs[m][f].0;
                self.mounts[m]
                    .fallocate(USER, fh, at, len, 0x3)
                    .await
                    .unwrap();
                let model = &mut self.model[f];
                let end = model.len().min((at + len) as usize);
                if let Some(hole) = model.get_mut(at as usize..end) {
                    hole.fill(0);
                }
            }
            Step::Copy(m, from, to, len) => self.copy(m, from, to, len).await,
            Step::Flush(m, f) => {
                self.mounts[m].flush(self.fhs[m][f].0, 0).await.unwrap();
                self.mounts[m].flush(self.fhs[m][f].1, 0).await.unwrap();
            }
            Step::Read(m, f, at, len) => self.read(m, f, at, len).await,
            Step::Reopen(m, f) => {
                let (rw, append) = self.fhs[m][f];
                close(&self.mounts[m], rw).await.unwrap();
                close(&self.mounts[m], append).await.unwrap();
                self.fhs[m][f] = self.open(m, f).await;
            }
            Step::Release(f) => {
                for m in 0..2 {
                    self.mounts[m].fsync(self.fhs[m][f].0).await.unwrap();
                }
                self.dirty[f] = None;
                archive_and_release(&self.cluster, self.inos[f], &self.model[f]);
            }
        }
    }

    async fn copy(&mut self, m: usize, from: (usize, u64), to: (usize, u64), len: u64) {
        self.settle(m, from.0, false).await;
        self.settle(m, to.0, true).await;
        let source = &self.model[from.0];
        let start = source.len().min(from.1 as usize);
        let end = source.len().min(start + len as usize);
        let bytes = source[start..end].to_vec();
        let mut span = CopySpan {
            from: self.fhs[m][from.0].0,
            from_offset: from.1,
            to: self.fhs[m][to.0].0,
            to_offset: to.1,
            // As the kernel cuts it.
            len: bytes.len() as u64,
        };
        let mut done = 0;
        while done < bytes.len() {
            let copied = self.mounts[m].copy_file_range(USER, span).await;
            // The kernel looks at this before, and so do the servers.
            if from.0 == to.0 && from.1.abs_diff(to.1) < (bytes.len() - done) as u64 {
                assert_eq!(copied, Err(FsError::Invalid));
                return;
            }
            let copied = copied.unwrap();
            assert!(copied > 0 && copied <= (bytes.len() - done) as u64);
            done += copied as usize;
            span.from_offset += copied;
            span.to_offset += copied;
            span.len -= copied;
        }
        if !bytes.is_empty() {
            let (model, at) = (&mut self.model[to.0], to.1 as usize);
            model.resize(model.len().max(at + bytes.len()), 0);
            model[at..at + bytes.len()].copy_from_slice(&bytes);
        }
    }

    async fn read(&mut self, m: usize, f: usize, at: u64, len: u32) {
        self.settle(m, f, false).await;
        let attr = self.mounts[m].getattr(self.inos[f]).await.unwrap();
        let model = &self.model[f];
        assert_eq!(attr.size, model.len() as u64);
        let from = model.len().min(at as usize);
        let to = model.len().min(at as usize + len as usize);
        for fh in [self.fhs[m][f].0, self.fhs[m][f].1] {
            let got = self.mounts[m].read(fh, at, len).await.unwrap();
            assert!(got == model[from..to], "file {f}, {at}+{len}");
        }
    }

    async fn finish(self) {
        for m in 0..2 {
            for &(rw, append) in &self.fhs[m] {
                close(&self.mounts[m], rw).await.unwrap();
                close(&self.mounts[m], append).await.unwrap();
            }
        }
        let fresh = self.cluster.mount(9).await;
        for (ino, model) in self.inos.iter().zip(&self.model) {
            let got = get(&fresh, *ino).await;
            let differs = got.iter().zip(model).position(|(a, b)| a != b);
            assert!(
                got == *model,
                "{ino}: {} of {} bytes, first difference at {differs:?}",
                got.len(),
                model.len()
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn two_mounts_agree_with_byte_arrays(steps in proptest::collection::vec(step(), 1..40)) {
        agree(&steps);
    }
}

/// Runs the steps and compares all files.
fn agree(steps: &[Step]) {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let mut rig = Rig::start().await;
        for step in steps {
            rig.run(step).await;
        }
        rig.finish().await;
    });
}

#[test]
fn an_append_keeps_what_was_written_before_what_was_read() {
    agree(&[
        Step::Write(0, 1, 58_103, 238_075, 156),
        Step::Write(1, 1, 272_463, 19, 77),
        Step::Read(0, 1, 292_327, 37_019),
        Step::Write(0, 1, 277_485, 58, 82),
        Step::Append(0, 1, 54_214, 102),
        Step::Read(1, 1, 270_000, 20_000),
    ]);
}

#[test]
fn a_copy_reads_the_newest_of_what_is_archived() {
    agree(&[
        Step::Write(0, 0, 42_338, 89_283, 1),
        Step::Release(0),
        Step::Copy(1, (0, 131_620), (1, 218_598), 100_820),
    ]);
}
