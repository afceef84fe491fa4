//! Fills the stores of a stopped server with files, each of one chunk, through
//! the stores' own interfaces: commands to a Raft of one voter, chunks to the
//! chunk store, so that what a start finds is what real writes would have left.
//!
//! Only for a cluster of one server: nobody else takes part in the commands.

use anyhow::{Context, Result, anyhow, ensure};
use bytes::Bytes;
use lagan_chunk::Store;
use lagan_raft::{BoxFuture, NoChunks, Raft, Transport, TransportError};
use lagan_types::attr::Kind;
use lagan_types::chunk::block_crcs;
use lagan_types::cluster::ReplicaSet;
use lagan_types::extent::{ChunkRef, Edit};
use lagan_types::limits::BLOCK_IDS;
use lagan_types::op::{
    CloseBlock, CloseSession, Commit, Create, GrantBlock, Inline, OpenSession, SessionIdentity,
};
use lagan_types::{
    Answer, Ask, BlockId, ChunkId, Command, FileOp, Ino, NodeId, SessionId, Time, VolumeId,
    answer_to,
};
use std::path::Path;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// The one server of the cluster.
const NODE: NodeId = NodeId(1);
/// Files in one directory.
const DIR_FILES: u64 = 1000;
/// Bytes of each file.
const FILE_LEN: usize = 1024;
/// Time limit of one command, and for the server to become leader.
const DEADLINE: Duration = Duration::from_secs(60);

/// The state in which the generator leaves the stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Closed, as a server that was told to stop leaves them.
    Closed,
    /// As a killed process leaves them.
    Killed,
}

/// The network of a server that is alone: every call fails.
struct Alone;

impl Transport for Alone {
    fn call(
        &self,
        _to: NodeId,
        _addr: &str,
        _head: Vec<u8>,
        _data: Bytes,
        _deadline: Duration,
    ) -> BoxFuture<'_, Result<(Bytes, Bytes), TransportError>> {
        Box::pin(async { Err(TransportError::Unreachable("alone".into())) })
    }
}

/// Adds the files `first..first + files`, with one chunk each, to the stopped
/// server whose data directory is `data`. `first` must begin a directory (a
/// multiple of 1,000). With [`End::Killed`] it does not return: the process aborts.
///
/// # Errors
/// The stores do not open, are no single server's, or refuse something.
pub async fn generate(data: &Path, first: u64, files: u64, end: End) -> Result<()> {
    ensure!(
        first.is_multiple_of(DIR_FILES),
        "--first: must be a multiple of {DIR_FILES}"
    );
    ensure!(
        data.join("meta").is_dir() && data.join("chunks").is_dir(),
        "{}: no data directory of a server that was in a cluster",
        data.display()
    );
    let store = Store::open(lagan_chunk::Options::new(data.join("chunks")))?;
    let options = lagan_raft::Options::new(data.join("meta"), NODE);
    let raft = Raft::start(options, Arc::new(Alone), Arc::new(NoChunks(NODE))).await?;
    let mut writer = Writer::start(raft.clone(), store.clone()).await?;
    writer.fill(first / DIR_FILES, files).await?;
    if end == End::Killed {
        std::process::abort();
    }
    writer.close().await?;
    drop(writer);
    raft.shutdown().await;
    tokio::task::spawn_blocking(move || store.close()).await??;
    Ok(())
}

/// A session that creates files.
struct Writer {
    raft: Arc<Raft>,
    store: Arc<Store>,
    session: SessionId,
    /// Sequence number of the next command.
    seq: u64,
    set: ReplicaSet,
}

impl Writer {
    async fn start(raft: Arc<Raft>, store: Arc<Store>) -> Result<Writer> {
        let until = Instant::now() + DEADLINE;
        while !raft.is_leader() {
            ensure!(
                Instant::now() < until,
                "does not become leader: is it one server's data?"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let map = lagan_meta::cluster_map(&raft.local_view())?
            .ok_or_else(|| anyhow!("the cluster was not completed"))?;
        ensure!(map.nodes.len() == 1, "the cluster has more than one server");
        let set = map
            .sets
            .into_iter()
            .find(|s| !s.sealed && s.nodes == [NODE])
            .ok_or_else(|| anyhow!("the cluster has no open set"))?;
        let mut writer = Writer {
            raft,
            store,
            session: SessionId::SYSTEM,
            seq: 0,
            set,
        };
        writer.session = writer.open_session().await?;
        writer.seq = 1;
        Ok(writer)
    }

    async fn open_session(&mut self) -> Result<SessionId> {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?;
        let op = OpenSession {
            nonce: now.as_nanos(),
            identity: SessionIdentity {
                machine: "generator".into(),
                boot: "generator".into(),
                mount_point: "/generator".into(),
                instance: now.as_nanos(),
            },
            predecessor: None,
        };
        let answer = self.raft.propose(Command::system(op), DEADLINE).await?;
        Ok(answer_to::<OpenSession>(answer)?.session)
    }

    /// Proposes all at once and returns the answers in order. At most the
    /// session's window.
    async fn all<A>(&mut self, ops: impl IntoIterator<Item = A>) -> Result<Vec<A::Answer>>
    where
        A: Ask<Request = FileOp, Reply = Answer>,
    {
        let first = self.seq;
        let mut waiting = Vec::new();
        for op in ops {
            let command = Command {
                volume: VolumeId::ONLY,
                session: self.session,
                seq: self.seq,
                unanswered: first,
                time: Time::default(),
                op: op.into().into(),
            };
            self.seq += 1;
            let raft = self.raft.clone();
            waiting.push(tokio::spawn(async move {
                raft.propose(command, DEADLINE).await
            }));
        }
        let mut answers = Vec::with_capacity(waiting.len());
        for answer in waiting {
            answers.push(answer_to::<A>(answer.await??)?);
        }
        Ok(answers)
    }

    async fn one<A>(&mut self, op: A) -> Result<A::Answer>
    where
        A: Ask<Request = FileOp, Reply = Answer>,
    {
        let mut answers = self.all([op]).await?;
        answers.pop().ok_or_else(|| anyhow!("no answer"))
    }

    async fn fill(&mut self, first_dir: u64, files: u64) -> Result<()> {
        let begin = Instant::now();
        let mut made = 0;
        while made < files {
            let count = DIR_FILES.min(files - made);
            self.directory(first_dir + made / DIR_FILES, count).await?;
            made += count;
            if made.is_multiple_of(50 * DIR_FILES) {
                eprintln!("{made} files after {:.0} s", begin.elapsed().as_secs_f64());
            }
        }
        Ok(())
    }

    async fn directory(&mut self, number: u64, count: u64) -> Result<()> {
        let name = format!("dir-{number:06}").into_bytes();
        let dir = self.one(create(Ino::ROOT, name, Kind::Directory)).await?;
        let dir = dir.attr.ino;
        let block = self.block().await?;
        let creates = (0..count).map(|i| {
            let name = format!("file-{i:06}.eml").into_bytes();
            create(dir, name, Kind::File)
        });
        let answers = self.all(creates).await?;
        let chunks = self.chunks(block, count, number)?;
        let mut commits = Vec::with_capacity(chunks.len());
        for (answer, chunk) in answers.iter().zip(chunks) {
            commits.push(commit(answer.attr.ino, chunk));
        }
        self.all(commits).await?;
        self.one(CloseBlock { block }).await?;
        Ok(())
    }

    async fn block(&mut self) -> Result<BlockId> {
        let granted = self.one(GrantBlock).await?;
        ensure!(
            u64::from(granted.count) >= DIR_FILES,
            "a block of chunk ids is too small for a directory"
        );
        Ok(granted.block)
    }

    /// Writes that many chunks and returns them once all are on disk.
    fn chunks(&self, block: BlockId, count: u64, number: u64) -> Result<Vec<ChunkRef>> {
        let (sender, receiver) = mpsc::sync_channel(BLOCK_IDS as usize);
        let mut chunks = Vec::new();
        for index in 0..count as u16 {
            let mut data = vec![b'.'; FILE_LEN];
            let text = format!("directory {number} file {index}");
            data[..text.len()].copy_from_slice(text.as_bytes());
            let id = ChunkId::new(VolumeId::ONLY, self.set.id, block, index);
            let crcs = block_crcs(&data);
            chunks.push(ChunkRef {
                id,
                set_epoch: self.set.epoch,
                skip: 0,
                chunk_len: FILE_LEN as u32,
                chunk_crc: crc32fast::hash(&data),
            });
            let sender = sender.clone();
            let done = Box::new(move |result| {
                let _ = sender.send(result);
            });
            self.store.write(id, data.into(), &crcs, done);
        }
        for _ in 0..count {
            receiver.recv_timeout(DEADLINE).context("write chunk")??;
        }
        Ok(chunks)
    }

    async fn close(&mut self) -> Result<()> {
        self.one(CloseSession).await?;
        Ok(())
    }
}

fn create(parent: Ino, name: Vec<u8>, kind: Kind) -> Create {
    Create {
        parent,
        name,
        kind,
        mode: if kind == Kind::File { 0o644 } else { 0o755 },
        umask: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        target: Vec::new(),
        exclusive: true,
    }
}

fn commit(ino: Ino, chunk: ChunkRef) -> Commit {
    Commit {
        ino,
        edits: vec![Edit {
            offset: 0,
            len: u64::from(chunk.chunk_len),
            content: Some(chunk),
        }],
        append: false,
        size_min: 0,
        expect_version: None,
        kill_suid: false,
        mtime: None,
        inline: Inline::Stored,
    }
}
