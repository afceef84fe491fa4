use super::*;
use crate::file::handle::Handle;
use crate::file::map::FileMap;
use crate::file::room::Taken;
use crate::leader::fake::{self, Leading, Said, Served, Servers};
use crate::leader::open_files::OpenFiles;
use crate::options::{Caller, OpenOptions};
use bytes::Bytes;
use lagan_types::answer::{Committed, GrantedBlock, NewSession};
use lagan_types::cluster::ClusterMap;
use lagan_types::message::{
    ChunkReply, ChunkRequest, LeaderRefusal, MetaReply, MetaRequest, Mutate,
};
use lagan_types::op::{Commit, FileOp, Op, SystemOp};
use lagan_types::{
    Answer, Attr, BlockId, ChunkId, Content, Extent, FsError, Incarnation, Ino, Refusal, SessionId,
    SetId, VolumeId,
};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

const INO: Ino = Ino(7);
const ROOM: usize = 1 << 20;
const USER: Caller = Caller {
    uid: 1000,
    gid: 1000,
    pid: 0,
};

/// Session 1 ends when a file is committed.
fn answers(request: &MetaRequest) -> MetaReply {
    let command = match request {
        MetaRequest::Mutate(Mutate { command, .. }) => command,
        MetaRequest::ReadState(_) => return MetaReply::Read(Err(FsError::Io.into()).into()),
        MetaRequest::GetMap(_) => return MetaReply::Map(None),
        MetaRequest::CreateFile(_) => panic!("{request:?}"),
    };
    let answer = match command.op {
        Op::File(FileOp::GrantBlock(_)) => {
            let (block, count) = (BlockId(1), 100);
            Ok(Answer::Block(GrantedBlock { block, count }))
        }
        Op::System(SystemOp::OpenSession(_)) => {
            let (session, incarnation) = (SessionId(2), Incarnation(1));
            Ok(Answer::Session(NewSession {
                session,
                incarnation,
            }))
        }
        _ => Err(Refusal::SessionEnded),
    };
    MetaReply::Mutated(answer.into())
}

fn files() -> Arc<Files> {
    files_over(Arc::new(Leading(answers)), fake::map(&[&[1]]))
}

fn files_over(servers: Arc<dyn Servers>, map: ClusterMap) -> Arc<Files> {
    let joined = fake::joined(servers, map);
    let tasks = Arc::new(Tasks::new());
    let limits = Limits {
        write_buffer_bytes: ROOM,
        read_ahead_bytes: 0,
    };
    Arc::new_cyclic(|me: &Weak<Files>| {
        let leader = Leader::new(joined, fake::options(), tasks.clone(), me.clone());
        let chunks = Chunks::new(leader.clone(), tasks.clone(), 0);
        Files::new(me.clone(), leader, chunks, tasks, limits)
    })
}

fn open(files: &Files, ino: Ino) -> Arc<Handle> {
    let inode = files.table.pin(ino);
    let fh = files.table.insert(inode, OpenOptions::default());
    files.table.handle(fh).unwrap()
}

async fn write(files: &Files, handle: &Handle, place: Option<u64>) -> Result<u32, FsError> {
    let data = Bytes::from_static(b"bytes");
    files.write(handle, USER, place, data).await
}

/// Whether no byte is held anywhere, and none was given back twice.
fn all_room_is_free(files: &Files) -> bool {
    let free = files.room.try_take(ROOM as u32);
    if free {
        files.room.give_back(ROOM as u64);
    }
    free && !files.room.try_take(ROOM as u32 + 1)
}

#[tokio::test]
async fn a_lost_session_ends_the_handles_first_and_drops_the_data_last() {
    let files = files();
    let handle = open(&files, INO);
    assert!(files.room.try_take(5));
    let lost = {
        // A write has found its handle good and is about to put its bytes.
        let mut state = handle.inode.state.lock();
        handle.check().unwrap();
        let losing = files.clone();
        let lost = std::thread::spawn(move || losing.session_lost(&HashSet::from([INO])));
        let until = Instant::now() + Duration::from_secs(60);
        while handle.check().is_ok() {
            assert!(Instant::now() < until, "data first: the lock is waited for");
            std::thread::sleep(Duration::from_millis(1));
        }
        state.buffer.write(0, &Bytes::from_static(b"bytes"));
        lost
    };
    lost.join().unwrap();
    assert!(!handle.inode.state.lock().is_dirty());
    assert!(all_room_is_free(&files));
    assert_eq!(write(&files, &handle, Some(0)).await, Err(FsError::Io));
    assert!(!handle.inode.state.lock().is_dirty());
    // Writes that found the handle good, and come to put their bytes when it is over.
    for place in [Some(0), None] {
        assert!(files.room.try_take(5));
        let mut taken = Taken::new(&files.room, 5);
        let data = Bytes::from_static(b"bytes");
        let put = files.put(&handle, USER, place, &data, &mut taken);
        assert_eq!(put.err(), Some(FsError::Io));
        drop(taken);
        assert!(!handle.inode.state.lock().is_dirty());
        assert!(all_room_is_free(&files));
    }
}

#[tokio::test]
async fn a_lost_session_takes_handles_with_data_or_locks_and_leaves_the_others() {
    let files = files();
    let [dirty, locked, clean] = [1, 2, 3].map(|n| open(&files, Ino(n)));
    write(&files, &dirty, Some(0)).await.unwrap();
    files.session_lost(&HashSet::from([Ino(2)]));
    assert_eq!(dirty.check(), Err(FsError::Io));
    assert_eq!(locked.check(), Err(FsError::Io));
    assert_eq!(clean.check(), Ok(()));
    assert!(all_room_is_free(&files));
    // Opened again it is as good as any.
    let again = open(&files, Ino(1));
    assert_eq!(write(&files, &again, Some(0)).await, Ok(5));
}

#[tokio::test]
async fn a_commit_that_finds_its_session_lost_fails_and_frees_its_room_once() {
    for place in [Some(0), None] {
        let files = files();
        let handle = open(&files, INO);
        write(&files, &handle, place).await.unwrap();
        let until = tokio::time::Instant::now() + Duration::from_secs(60);
        let flushed = files.flush_inode(&handle.inode, until).await;
        assert_eq!(flushed, Err(FsError::Io), "{place:?}");
        assert_eq!(files.leader.session(), SessionId(2));
        assert_eq!(handle.check(), Err(FsError::Io));
        assert!(!handle.inode.state.lock().is_dirty());
        assert!(all_room_is_free(&files));
    }
}

#[tokio::test]
async fn a_lost_promise_fails_its_handles_and_drops_their_data() {
    let files = files();
    let handle = open(&files, INO);
    write(&files, &handle, Some(0)).await.unwrap();
    files.promise_lost(INO);
    assert_eq!(handle.check(), Err(FsError::Io));
    assert_eq!(handle.take_error(), Err(FsError::Io));
    assert_eq!(handle.take_error(), Ok(()));
    assert!(!handle.inode.state.lock().is_dirty() && all_room_is_free(&files));
}

#[tokio::test]
async fn an_inode_counts_as_open_while_it_is_held() {
    let files = files();
    assert!(!files.is_open(INO));
    files.hold(INO);
    let handle = open(&files, INO);
    files.unpin(INO);
    assert!(files.is_open(INO), "the file is being made");
    files.let_go(INO);
    assert!(!files.is_open(INO));
    drop(handle);
}

/// Nodes 1 and 2 are silent; the leader takes each commit.
#[derive(Debug, Default)]
struct TwoSilent(Mutex<Vec<Commit>>);

impl Servers for TwoSilent {
    fn meta(&self, request: &MetaRequest) -> Said<Result<MetaReply, LeaderRefusal>> {
        let command = match request {
            MetaRequest::Mutate(Mutate { command, .. }) => command,
            MetaRequest::GetMap(_) => return Said::This(Ok(MetaReply::Map(None))),
            MetaRequest::ReadState(_) | MetaRequest::CreateFile(_) => {
                let refusal = LeaderRefusal::Refused(format!("{request:?}"));
                return Said::This(Err(refusal));
            }
        };
        let answer = match &command.op {
            Op::File(FileOp::GrantBlock(_)) => Answer::Block(GrantedBlock {
                block: BlockId(1),
                count: 100,
            }),
            Op::File(FileOp::Commit(commit)) => {
                self.0.lock().push(commit.clone());
                Answer::Committed(Committed {
                    before: 1,
                    appended_at: 100,
                    attr: fake::attr(INO),
                })
            }
            other => panic!("{other:?}"),
        };
        Said::This(Ok(MetaReply::Mutated(Ok(answer).into())))
    }

    fn chunk(&self, addr: SocketAddr, _: &ChunkRequest) -> Said<Served<ChunkRequest>> {
        match [1, 2].map(fake::address).contains(&addr.to_string()) {
            true => Said::Nothing,
            false => Said::This((Ok(ChunkReply::Done(())), Bytes::new())),
        }
    }
}

#[tokio::test]
async fn an_append_behind_a_tail_that_nobody_gives_goes_to_another_set_in_time() {
    let servers = Arc::new(TwoSilent::default());
    let files = files_over(servers.clone(), fake::map(&[&[1, 2], &[3, 4]]));
    let handle = open(&files, INO);
    let tail = Extent {
        offset: 0,
        len: 100,
        content: Content::Chunk {
            id: ChunkId::new(VolumeId::ONLY, SetId(1), BlockId(9), 1),
            skip: 0,
            chunk_len: 100,
            chunk_crc: 0,
        },
    };
    let attr = Attr {
        size: 100,
        ..fake::attr(INO)
    };
    let map = FileMap::page(attr.version, attr.size, 0, vec![tail], false);
    handle.inode.learn_both(&attr, map);
    write(&files, &handle, None).await.unwrap();
    let start = tokio::time::Instant::now();
    let until = start + Duration::from_secs(60);
    assert_eq!(files.flush_inode(&handle.inode, until).await, Ok(()));
    assert!(start.elapsed() < Duration::from_secs(30));
    let commits = servers.0.lock();
    let [commit] = commits.as_slice() else {
        panic!("{commits:?}");
    };
    assert!(commit.append && commit.expect_version.is_none());
    let [edit] = commit.edits.as_slice() else {
        panic!("{commit:?}");
    };
    assert_eq!(edit.len, 5);
    assert_eq!(edit.content.as_ref().unwrap().id.set(), SetId(2));
    assert!(all_room_is_free(&files));
}
