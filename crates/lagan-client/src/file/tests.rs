use super::*;
use crate::file::handle::Handle;
use crate::leader::fake::{self, Leading};
use crate::leader::open_files::OpenFiles;
use crate::options::{Caller, OpenOptions};
use bytes::Bytes;
use lagan_types::message::{MetaReply, MetaRequest};
use lagan_types::op::{FileOp, Op, SystemOp};
use lagan_types::{Answer, BlockId, FsError, Incarnation, Ino, SessionId};
use std::collections::HashSet;
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
    let MetaRequest::Mutate(command) = request else {
        return MetaReply::Refused(format!("{request:?}"));
    };
    MetaReply::Answer(match command.op {
        Op::File(FileOp::GrantBlock(_)) => {
            let (block, count) = (BlockId(1), 100);
            Ok(Answer::Block { block, count })
        }
        Op::System(SystemOp::OpenSession(_)) => {
            let (session, incarnation) = (SessionId(2), Incarnation(1));
            Ok(Answer::Session {
                session,
                incarnation,
            })
        }
        _ => Err(FsError::SessionEnded),
    })
}

fn files() -> Arc<Files> {
    let joined = fake::joined(Arc::new(Leading(answers)), fake::map(&[&[1]]));
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

async fn write(files: &Files, handle: &Handle) -> Result<u32, FsError> {
    let data = Bytes::from_static(b"bytes");
    files.write(handle, USER, Some(0), data).await
}

/// Whether no byte is held anywhere.
fn all_room_is_free(files: &Files) -> bool {
    let free = files.room.try_take(ROOM as u32);
    if free {
        files.room.give_back(ROOM as u64);
    }
    free
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
    assert_eq!(write(&files, &handle).await, Err(FsError::SessionEnded));
    assert!(!handle.inode.state.lock().is_dirty());
}

#[tokio::test]
async fn a_lost_session_takes_handles_with_data_or_locks_and_leaves_the_others() {
    let files = files();
    let [dirty, locked, clean] = [1, 2, 3].map(|n| open(&files, Ino(n)));
    write(&files, &dirty).await.unwrap();
    files.session_lost(&HashSet::from([Ino(2)]));
    assert_eq!(dirty.check(), Err(FsError::SessionEnded));
    assert_eq!(locked.check(), Err(FsError::SessionEnded));
    assert_eq!(clean.check(), Ok(()));
    assert!(all_room_is_free(&files));
    // Opened again it is as good as any.
    let again = open(&files, Ino(1));
    assert_eq!(write(&files, &again).await, Ok(5));
}

#[tokio::test]
async fn a_commit_that_finds_its_session_lost_fails_and_frees_its_room_once() {
    let files = files();
    let handle = open(&files, INO);
    write(&files, &handle).await.unwrap();
    let until = tokio::time::Instant::now() + Duration::from_secs(60);
    let flushed = files.flush_inode(&handle.inode, until).await;
    assert_eq!(flushed, Err(FsError::SessionEnded));
    assert_eq!(files.leader.session(), SessionId(2));
    assert_eq!(handle.check(), Err(FsError::SessionEnded));
    assert!(!handle.inode.state.lock().is_dirty());
    assert!(all_room_is_free(&files));
    assert!(!files.room.try_take(ROOM as u32 + 1), "given back twice");
}

#[tokio::test]
async fn a_lost_promise_fails_its_handles_and_drops_their_data() {
    let files = files();
    let handle = open(&files, INO);
    write(&files, &handle).await.unwrap();
    files.promise_lost(INO);
    assert_eq!(handle.check(), Err(FsError::SessionEnded));
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
