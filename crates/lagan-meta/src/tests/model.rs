//! Random operations against a file system of maps and byte arrays.
//!
//! Operands are indices taken modulo what exists, so that each generated
//! operation means something. After each step: the same answer, the same
//! tree, the same bytes, and every invariant.

mod drawn;
mod reference;

use super::world::World;
use drawn::is_drawn;
use lagan_types::access::Access;
use lagan_types::answer::Created;
use lagan_types::attr::{Attr, Kind};
use lagan_types::cluster::NodeState;
use lagan_types::extent::{Content, Edit};
use lagan_types::op::{
    ArchiveFail, ArchiveFinish, ArchiveStart, EndSession, FailArchive, FinishArchive, Link,
    MarkLost, NoteAccesses, ReapOrphans, Release, ReleaseExtent, Rewrite, SetAttr, SetAttrs,
    SetNodeState, StartArchive, SystemOp,
};
use lagan_types::query::{File, FileInfo, GetAttr};
use lagan_types::{ChunkId, FsError, Ino, NodeId, Refusal, SessionId, Time};
use proptest::prelude::*;
use reference::{Entry, Reference};
use std::collections::{BTreeMap, BTreeSet};

/// Names in each directory: few, so that they collide.
const NAMES: u8 = 4;

#[derive(Debug, Clone)]
enum Step {
    Create(u8, u8, Kind),
    Link(u8, u8, u8),
    Unlink(u8, u8),
    Rmdir(u8, u8),
    Rename(u8, u8, u8, u8, u8),
    Write(u8, Vec<(u8, u8)>, bool),
    Punch(u8, u8, u8),
    Truncate(u8, u8),
    Copy((u8, u8), (u8, u8), u8),
    Rewrite(u8, u8),
    Access(u8, bool),
    Start(u8),
    Finish(u8, bool),
    Release(u8),
    Reap(u8),
    Lose(u8, u8),
    Restart,
    Node(u8, bool),
}

/// The outcome in the model, as the state machine tells it.
fn refused(expected: Result<(), FsError>) -> Result<(), Refusal> {
    expected.map_err(Refusal::from)
}

fn step() -> impl Strategy<Value = Step> {
    let byte = any::<u8>;
    let kind = prop_oneof![
        3 => Just(Kind::File),
        2 => Just(Kind::Directory),
        1 => Just(Kind::Symlink)
    ];
    let edits = prop::collection::vec((0u8..60, 1u8..20), 1..4);
    prop_oneof![
        4 => (byte(), byte(), kind).prop_map(|(d, n, k)| Step::Create(d, n, k)),
        1 => (byte(), byte(), byte()).prop_map(|(f, d, n)| Step::Link(f, d, n)),
        2 => (byte(), byte()).prop_map(|(d, n)| Step::Unlink(d, n)),
        1 => (byte(), byte()).prop_map(|(d, n)| Step::Rmdir(d, n)),
        3 => (byte(), byte(), byte(), byte(), 0u8..3)
            .prop_map(|(a, b, c, d, e)| Step::Rename(a, b, c, d, e)),
        6 => (byte(), edits, any::<bool>()).prop_map(|(f, e, a)| Step::Write(f, e, a)),
        2 => (byte(), 0u8..70, 1u8..40).prop_map(|(f, o, l)| Step::Punch(f, o, l)),
        2 => (byte(), 0u8..90).prop_map(|(f, s)| Step::Truncate(f, s)),
        5 => ((byte(), 0u8..70), (byte(), 0u8..70), 1u8..60)
            .prop_map(|(from, to, len)| Step::Copy(from, to, len)),
        2 => (byte(), byte()).prop_map(|(f, e)| Step::Rewrite(f, e)),
        1 => (byte(), any::<bool>()).prop_map(|(f, old)| Step::Access(f, old)),
        3 => byte().prop_map(Step::Start),
        3 => (byte(), prop::bool::weighted(0.8)).prop_map(|(a, ok)| Step::Finish(a, ok)),
        2 => byte().prop_map(Step::Release),
        1 => byte().prop_map(Step::Reap),
        1 => (byte(), 0u8..60).prop_map(|(f, o)| Step::Lose(f, o)),
        1 => Just(Step::Restart),
        1 => (1u8..4, any::<bool>()).prop_map(|(n, up)| Step::Node(n, up)),
    ]
}

/// The real state, the reference, and the uploads under way.
struct Pair {
    world: World,
    model: Reference,
    tag: u32,
    uploads: Vec<(ArchiveFinish, Vec<u64>)>,
    objects: BTreeMap<(Ino, u64), Vec<u64>>,
    /// Every chunk that a commit named.
    named: BTreeSet<ChunkId>,
}

fn pick<T: Clone>(all: &[T], index: u8) -> Option<T> {
    (!all.is_empty()).then(|| all[index as usize % all.len()].clone())
}

fn name(index: u8) -> String {
    format!("n{}", index % NAMES)
}

impl Pair {
    fn new() -> Self {
        let mut world = World::new();
        world.given.clear();
        Pair {
            world,
            model: Reference::new(),
            tag: 0,
            uploads: Vec::new(),
            objects: BTreeMap::new(),
            named: BTreeSet::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        match step {
            Step::Create(d, n, kind) => self.create(*d, &name(*n), *kind),
            Step::Link(f, d, n) => self.link(*f, *d, &name(*n)),
            Step::Unlink(d, n) => {
                let dir = pick(&self.model.dirs(), *d).unwrap_or(Ino::ROOT);
                let real = self.world.unlink(dir, &name(*n)).map(drop);
                assert_eq!(real, refused(self.model.unlink(dir, &name(*n))));
            }
            Step::Rmdir(d, n) => {
                let dir = pick(&self.model.dirs(), *d).unwrap_or(Ino::ROOT);
                let real = self.world.rmdir(dir, &name(*n)).map(drop);
                assert_eq!(real, refused(self.model.rmdir(dir, &name(*n))));
            }
            Step::Rename(a, b, c, d, flag) => {
                let from = pick(&self.model.dirs(), *a).unwrap_or(Ino::ROOT);
                let to = pick(&self.model.dirs(), *c).unwrap_or(Ino::ROOT);
                let (old, new) = (name(*b), name(*d));
                let (no_replace, exchange) = (*flag == 1, *flag == 2);
                let real = self
                    .world
                    .rename_with((from, &old), (to, &new), no_replace, exchange)
                    .map(drop);
                let expected = self.model.rename((from, &old), (to, &new), *flag);
                assert_eq!(real, refused(expected));
            }
            Step::Write(f, edits, append) => self.write(*f, edits, *append),
            Step::Punch(f, offset, len) => self.punch(*f, *offset, *len),
            Step::Truncate(f, size) => self.truncate(*f, *size),
            Step::Copy(from, to, len) => self.copy(*from, *to, *len as u64),
            Step::Rewrite(f, e) => self.rewrite(*f, *e),
            Step::Access(f, old) => self.access(*f, *old),
            Step::Start(f) => self.start(*f),
            Step::Finish(a, ok) => self.finish(*a, *ok),
            Step::Release(f) => self.release(*f),
            Step::Reap(o) => self.reap(*o),
            Step::Lose(f, offset) => self.lose(*f, *offset),
            Step::Restart => self.restart(),
            Step::Node(n, up) => {
                let state = if *up { NodeState::Up } else { NodeState::Down };
                // One node may be down: then there is always an open set.
                let node = NodeId(*n as u64);
                let down = self
                    .world
                    .map()
                    .nodes
                    .iter()
                    .any(|o| o.id != node && o.state == NodeState::Down);
                if *up || !down {
                    self.world.system(SetNodeState { node, state }).unwrap();
                }
            }
        }
    }

    fn create(&mut self, d: u8, name: &str, kind: Kind) {
        let dir = pick(&self.model.dirs(), d).unwrap_or(Ino::ROOT);
        let real = self.world.op(World::create_op(dir, name, kind));
        match real {
            Ok(Created { attr, created }) => {
                assert!(created);
                assert_eq!(self.model.create(dir, name, attr.ino, kind), Ok(()));
            }
            Err(e) => {
                let expected = self.model.create(dir, name, Ino(0), kind);
                assert_eq!(refused(expected), Err(e));
            }
        }
    }

    fn link(&mut self, f: u8, d: u8, name: &str) {
        let Some(ino) = pick(&self.model.files(), f) else {
            return;
        };
        let parent = pick(&self.model.dirs(), d).unwrap_or(Ino::ROOT);
        let real = self.world.op(Link {
            ino,
            parent,
            name: name.into(),
        });
        assert_eq!(real.map(drop), refused(self.model.link(ino, parent, name)));
    }

    fn write(&mut self, f: u8, pieces: &[(u8, u8)], append: bool) {
        let Some(ino) = pick(&self.model.files(), f) else {
            return;
        };
        let size = self.model.content(ino).len() as u64;
        let base = if append { size } else { 0 };
        let (mut edits, mut from) = (Vec::new(), 0);
        for &(gap, len) in pieces {
            let mut edit = self.world.edit(from + gap as u64, len as u32);
            self.tag += 1;
            let skip = self.tag % 3;
            if let Some(chunk) = &mut edit.content {
                self.named.insert(chunk.id);
                chunk.chunk_crc = self.tag;
                chunk.skip = skip;
                chunk.chunk_len += skip;
            }
            from = edit.offset + edit.len;
            let bytes: Vec<u64> = (0..edit.len)
                .map(|i| (self.tag as u64) << 32 | (skip as u64 + i))
                .collect();
            self.model.write(ino, base + edit.offset, &bytes);
            edits.push(edit);
        }
        let mut commit = World::commit_of(ino, edits);
        commit.append = append;
        self.world.op(commit).unwrap();
    }

    fn punch(&mut self, f: u8, offset: u8, len: u8) {
        let Some(ino) = pick(&self.model.files(), f) else {
            return;
        };
        let hole = Edit {
            offset: offset as u64,
            len: len as u64,
            content: None,
        };
        self.world.op(World::commit_of(ino, vec![hole])).unwrap();
        self.model.punch(ino, offset as usize, len as usize);
    }

    fn truncate(&mut self, f: u8, size: u8) {
        let Some(ino) = pick(&self.model.files(), f) else {
            return;
        };
        let set = SetAttr {
            size: Some(size as u64),
            ..SetAttr::default()
        };
        self.world.op(SetAttrs { ino, set }).unwrap();
        self.model.truncate(ino, size as usize);
    }

    /// Reports a read of a file as it is, or as it was before a change.
    fn access(&mut self, f: u8, old: bool) {
        let Some(ino) = pick(&self.model.files(), f) else {
            return;
        };
        let before = self.world.attr(ino);
        let ctime = match old {
            true => Time::default(),
            false => before.ctime,
        };
        let at = Time::from_millis(self.world.now_ms);
        let read = Access { ino, ctime, at };
        self.world.op(NoteAccesses { reads: vec![read] }).unwrap();
        let after = self.world.attr(ino);
        assert!(!old || after == before);
        let atime = before.atime;
        assert_eq!(Attr { atime, ..after }, before);
    }

    fn copy(&mut self, from: (u8, u8), to: (u8, u8), len: u64) {
        let files = self.model.files();
        let (Some(source), Some(target)) = (pick(&files, from.0), pick(&files, to.0)) else {
            return;
        };
        let (at, to) = (from.1 as u64, to.1 as u64);
        let content = self.model.content(source);
        let rest = content.get(at as usize..).unwrap_or_default();
        let bytes: Vec<u64> = rest.iter().take(len as usize).copied().collect();
        let wanted = bytes.len() as u64;
        let copied = self.world.copy((source, at), (target, to), len);
        if source == target && at.abs_diff(to) < wanted {
            assert_eq!(copied, Err(FsError::Invalid.into()));
            return;
        }
        let stop = |i: u64| {
            let extents = self.world.extents(source);
            let over = |e: &&lagan_types::Extent| e.offset <= at + i && at + i < e.end();
            let found = extents.iter().find(over).map(|e| e.content.clone());
            !matches!(found, None | Some(Content::Chunk { .. }))
        };
        match copied {
            Err(e) => {
                assert_eq!(e, FsError::Corrupt.into());
                assert_eq!(bytes[0], u64::MAX);
            }
            Ok((done, through)) => {
                // All of it is copied, or the part before the first byte that is not in a chunk.
                assert!(done == wanted || (done < wanted && stop(done)));
                assert!(done + through <= wanted);
                if done > 0 {
                    let bytes = &bytes[..done as usize];
                    self.model.write(target, to, bytes);
                }
            }
        }
    }

    /// The model's bytes tell chunks apart: the range gets the bytes of the new chunk.
    fn rewrite(&mut self, f: u8, first: u8) {
        let Some(ino) = pick(&self.model.files(), f) else {
            return;
        };
        let extents = self.world.extents(ino);
        let Some(at) = extents.get(first as usize % extents.len().max(1)) else {
            return;
        };
        let mut end = at.offset;
        let run = extents.iter().skip_while(|e| e.offset < at.offset);
        let run = run.take_while(|e| {
            let follows = e.offset == end && matches!(e.content, Content::Chunk { .. });
            end = e.end();
            follows
        });
        let from: Vec<_> = run.take(3).cloned().collect();
        if from.is_empty() {
            return;
        }
        let len: u64 = from.iter().map(|e| e.len).sum();
        let mut chunk = self.world.chunk(len as u32);
        self.named.insert(chunk.id);
        self.tag += 1;
        chunk.chunk_crc = self.tag;
        let offset = from[0].offset;
        let before = self.world.attr(ino);
        let op = Rewrite { ino, from, chunk };
        assert_eq!(self.world.op(op), Ok(()));
        assert_eq!(self.world.attr(ino), before);
        let bytes: Vec<u64> = (0..len).map(|i| (self.tag as u64) << 32 | i).collect();
        self.model.write(ino, offset, &bytes);
        self.objects
            .entry((ino, before.version))
            .and_modify(|object| {
                let start = offset as usize;
                object[start..start + len as usize].copy_from_slice(&bytes);
            });
        for (finish, content) in &mut self.uploads {
            if finish.ino == ino && finish.version == before.version {
                let start = offset as usize;
                content[start..start + len as usize].copy_from_slice(&bytes);
            }
        }
    }

    fn start(&mut self, f: u8) {
        let Some(ino) = pick(&self.model.files(), f) else {
            return;
        };
        let version = self.world.attr(ino).version;
        let files = vec![ArchiveStart {
            ino,
            version,
            node: NodeId(1),
        }];
        let Ok(attempts) = self.world.system(StartArchive { files }) else {
            panic!("no attempts");
        };
        let content = self.model.content(ino).to_vec();
        // Lost bytes cannot be uploaded: such a file only fails.
        if let Some(attempt) = &attempts[0] {
            let finish = ArchiveFinish {
                ino,
                version,
                attempt: attempt.number,
                key: attempt.key.clone(),
                size: attempt.size,
                crc: 0,
            };
            self.uploads.push((finish, content));
        }
    }

    fn finish(&mut self, a: u8, ok: bool) {
        if self.uploads.is_empty() {
            return;
        }
        let at = a as usize % self.uploads.len();
        let (finish, content) = self.uploads.swap_remove(at);
        let op: SystemOp = if ok && !content.contains(&u64::MAX) {
            self.objects.insert((finish.ino, finish.version), content);
            let files = vec![finish];
            FinishArchive { files }.into()
        } else {
            FailArchive {
                files: vec![ArchiveFail {
                    ino: finish.ino,
                    version: finish.version,
                    attempt: finish.attempt,
                    key: finish.key,
                    retry_at: Time::from_millis(self.world.now_ms + 1),
                }],
            }
            .into()
        };
        self.world.give(SessionId::SYSTEM, op.clone()).unwrap();
        self.restore(&op);
        let before = self.world.store.clone();
        self.world.give(SessionId::SYSTEM, op).unwrap();
        assert!(self.world.store == before, "told twice, done twice");
    }

    /// Bytes that were lost during the upload are in the object.
    fn restore(&mut self, op: &SystemOp) {
        let SystemOp::FinishArchive(FinishArchive { files }) = op else {
            return;
        };
        for file in files {
            let found = self.world.query(File { ino: file.ino });
            let Ok(FileInfo { attr, object, .. }) = found else {
                continue;
            };
            if attr.nlink > 0 && object.is_some_and(|o| o.version == attr.version) {
                let bytes = self.objects[&(file.ino, attr.version)].clone();
                self.model.write(file.ino, 0, &bytes);
            }
        }
    }

    fn release(&mut self, f: u8) {
        let Some(ino) = pick(&self.model.files(), f) else {
            return;
        };
        let files = vec![(ino, self.world.attr(ino).version)];
        self.world.system(Release { files }).unwrap();
    }

    fn reap(&mut self, o: u8) {
        let Some(ino) = pick(&self.model.orphans(), o) else {
            return;
        };
        self.world.system(ReapOrphans { inos: vec![ino] }).unwrap();
        self.model.forget(ino);
        let gone = self.world.query(GetAttr { ino });
        assert_eq!(gone, Err(FsError::Stale.into()));
    }

    fn lose(&mut self, f: u8, offset: u8) {
        let Some(ino) = pick(&self.model.files(), f) else {
            return;
        };
        let offset = offset as u64;
        let extents = self.world.extents(ino);
        let Some(extent) = extents
            .iter()
            .find(|e| e.offset <= offset && offset < e.end())
        else {
            return;
        };
        let Content::Chunk { id: chunk, .. } = extent.content else {
            return;
        };
        let version = self.world.attr(ino).version;
        // `ReleaseExtent` loses nothing, so it changes no byte of the model.
        let turn = SystemOp::from(ReleaseExtent {
            ino,
            version,
            offset,
            chunk,
        });
        let lose = MarkLost { ino, offset, chunk }.into();
        let op = if offset.is_multiple_of(2) { turn } else { lose };
        self.world.give(SessionId::SYSTEM, op).unwrap();
        let after = self.world.extents(ino);
        let lost = after
            .iter()
            .any(|e| e.offset == extent.offset && e.content == Content::Lost);
        if lost {
            let bytes = vec![u64::MAX; extent.len as usize];
            self.model.write(ino, extent.offset, &bytes);
        }
    }

    fn restart(&mut self) {
        let old = self.world.session;
        self.world.system(EndSession { session: old }).unwrap();
        self.world.session = self.world.open_session(self.tag as u128 + 1000, Some(old));
        self.world.block = self.world.grant();
    }

    // -- comparison -------------------------------------------------------

    fn compare(&self) {
        self.world.check();
        for (ino, entry) in &self.model.inodes {
            let attr = self.world.attr(*ino);
            assert_eq!(attr.nlink, self.model.nlink(*ino), "nlink of {ino}");
            match entry {
                // it is removed and open somewhere: nobody can list it
                Entry::Directory(names) if attr.nlink == 0 => assert!(names.is_empty()),
                Entry::Directory(names) => {
                    let mut listed = self.world.names(*ino);
                    listed.sort();
                    let expected: Vec<String> = names.keys().cloned().collect();
                    assert_eq!(listed, expected, "entries of {ino}");
                    for (name, child) in names {
                        assert_eq!(self.world.lookup(*ino, name).unwrap().ino, *child);
                    }
                }
                Entry::File(content) => {
                    assert_eq!(attr.size, content.len() as u64, "size of {ino}");
                    assert_eq!(&self.content(*ino), content, "content of {ino}");
                }
                Entry::Symlink => {}
            }
        }
        let inodes = self.model.inodes.len() as u64;
        assert_eq!(self.world.counters().inodes, inodes);
        self.chunks_are_named_or_freed();
    }

    /// Nothing that a file names is to be deleted (the invariants say), and
    /// nothing that no file names is forgotten.
    fn chunks_are_named_or_freed(&self) {
        let mut known: BTreeSet<ChunkId> = (1..=3).flat_map(|n| self.world.reaped(n)).collect();
        for ino in self.model.files() {
            for extent in self.world.extents(ino) {
                if let Content::Chunk { id, .. } = extent.content {
                    known.insert(id);
                }
            }
        }
        let leaked: Vec<_> = self.named.difference(&known).collect();
        assert!(leaked.is_empty(), "{leaked:?}");
    }

    /// A file's bytes as its extents name them.
    fn content(&self, ino: Ino) -> Vec<u64> {
        let mut bytes = vec![0; self.world.attr(ino).size as usize];
        for extent in self.world.extents(ino) {
            for i in 0..extent.len {
                bytes[(extent.offset + i) as usize] = match &extent.content {
                    Content::Chunk {
                        skip, chunk_crc, ..
                    } => (*chunk_crc as u64) << 32 | (*skip as u64 + i),
                    Content::Object { version, offset } => {
                        self.objects[&(ino, *version)][(offset + i) as usize]
                    }
                    Content::Lost => u64::MAX,
                };
            }
        }
        bytes
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 64,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn random_operations_match_the_reference(steps in prop::collection::vec(step(), 1..60)) {
        let mut pair = Pair::new();
        for step in &steps {
            pair.step(step);
            prop_assert!(pair.world.given.drain(..).all(|op| is_drawn(&op)));
            pair.compare();
        }
    }
}
