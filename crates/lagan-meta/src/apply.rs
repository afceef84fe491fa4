//! One command: exactly once, all or nothing.

use crate::kv::{Read, StoreError, Table, Write};
use crate::layout::rows::AnswerFloor;
use crate::layout::{self, key1, key2};
use crate::ops;
use crate::txn::{Changes, Fail, Outcome, Txn};
use lagan_types::ask::Ask;
use lagan_types::limits::SESSION_WINDOW;
use lagan_types::{Answer, Command, FileOp, FsError, Op, Refusal, SessionId, SystemOp, VolumeId};

/// Answers that are forgotten at a time, so that not each command rewrites the row that
/// says which are remembered.
const FORGET_BATCH: u64 = 32;

/// Carries out one command.
///
/// A sequence that the session has had answered returns that answer again and
/// changes nothing. A command that fails changes nothing but that its answer
/// is remembered.
///
/// # Errors
/// The outer one stops the node: the store is broken, `store` may hold part of
/// the command. The inner one is the command's answer.
pub fn apply<W: Write>(
    store: &mut W,
    command: &Command,
) -> Result<Result<Answer, Refusal>, StoreError> {
    let floor = match recall(store, command)? {
        Recalled::Answer(answer) => return Ok(answer),
        Recalled::New { floor } => floor,
    };
    let (answer, changes) = run(store, command)?;
    for (table, rows) in changes {
        for (key, value) in rows {
            match value {
                Some(value) => store.put(table, &key, &value)?,
                None => store.delete(table, &key)?,
            }
        }
    }
    if let Some(floor) = floor {
        remember(store, command, &answer, floor)?;
    }
    if let Op::System(op) = &command.op
        && let Some(call) = op.answers_call()
    {
        answer_asked(store, call, &answer)?;
    }
    Ok(answer)
}

/// Remembers the answer for the call that a promise answered before: if the call is sent
/// again to a leader that does not know the promise, it finds the file's creation as its
/// answer.
fn answer_asked<W: Write>(
    store: &mut W,
    (session, seq): (SessionId, u64),
    answer: &Result<Answer, Refusal>,
) -> Result<(), StoreError> {
    let key = key2(session.0, seq);
    let gone = !crate::session_exists(store, session)?;
    if gone || answer.is_err() || seq < floor(store, session.0)?.max(1) {
        return Ok(());
    }
    if store.get(Table::Answer, &key)?.is_none() {
        store.put(Table::Answer, &key, &layout::encode(answer))?;
    }
    Ok(())
}

/// The knowledge of a command before it is carried out.
enum Recalled {
    /// It is not to be carried out (again).
    Answer(Result<Answer, Refusal>),
    /// Carry it out. `floor`: the lowest sequence still remembered; `None`: its answer
    /// is not remembered.
    New { floor: Option<u64> },
}

type Outcomes = (Result<Answer, Refusal>, Changes);

fn run(base: &dyn Read, command: &Command) -> Result<Outcomes, StoreError> {
    let mut txn = Txn::new(base, command.time)?;
    match dispatch(&mut txn, command) {
        Ok(answer) => Ok((Ok(answer), txn.finish()?)),
        Err(Fail::Refused(refusal)) => Ok((Err(refusal), Changes::new())),
        Err(Fail::Store(e)) => Err(e),
    }
}

fn recall(store: &dyn Read, command: &Command) -> Result<Recalled, StoreError> {
    let of_system = command.session == SessionId::SYSTEM;
    match &command.op {
        // What a session asks for needs one, and that is none.
        Op::File(_) if of_system => return Ok(Recalled::Answer(Err(Refusal::SessionEnded))),
        Op::File(op) if !op.is_remembered() => return Ok(Recalled::New { floor: None }),
        Op::System(_) if of_system => return Ok(Recalled::New { floor: None }),
        Op::File(_) | Op::System(_) => {}
    }
    let session = command.session.0;
    if store.get(Table::Session, &key1(session))?.is_none() {
        return Ok(Recalled::Answer(Err(Refusal::SessionEnded)));
    }
    if command.seq == 0 {
        return Ok(Recalled::Answer(Err(Refusal::OutsideWindow)));
    }
    if let Some(value) = store.get(Table::Answer, &key2(session, command.seq))? {
        return layout::decode(Table::Answer, &value).map(Recalled::Answer);
    }
    let floor = floor(store, session)?;
    let start = floor.max(command.unanswered);
    let window = start..start.saturating_add(SESSION_WINDOW);
    if !window.contains(&command.seq) {
        return Ok(Recalled::Answer(Err(Refusal::OutsideWindow)));
    }
    Ok(Recalled::New { floor: Some(floor) })
}

/// The lowest sequence that is still remembered.
fn floor(store: &dyn Read, session: u64) -> Result<u64, StoreError> {
    store
        .get(Table::Answer, &key2(session, 0))?
        .map_or(Ok(AnswerFloor(1)), |value| {
            layout::decode(Table::Answer, &value)
        })
        .map(|floor| floor.0)
}

/// The session still lives: only `CloseSession` could have ended it.
fn remember<W: Write>(
    store: &mut W,
    command: &Command,
    answer: &Result<Answer, Refusal>,
    floor: u64,
) -> Result<(), StoreError> {
    let session = command.session.0;
    let value = layout::encode(answer);
    store.put(Table::Answer, &key2(session, command.seq), &value)?;
    if command.unanswered < floor.saturating_add(FORGET_BATCH) {
        return Ok(());
    }
    let (start, end) = (
        key2(session, floor.max(1)),
        key2(session, command.unanswered),
    );
    let limit = 2 * SESSION_WINDOW as usize;
    for (key, _) in store.scan(Table::Answer, &start, Some(&end), limit)? {
        store.delete(Table::Answer, &key)?;
    }
    let value = layout::encode(&AnswerFloor(command.unanswered));
    store.put(Table::Answer, &key2(session, 0), &value)
}

fn dispatch(txn: &mut Txn<'_>, command: &Command) -> Outcome<Answer> {
    match &command.op {
        Op::File(_) if command.volume != VolumeId::ONLY => Err(FsError::CrossDevice.into()),
        Op::File(op) => dispatch_file(txn, command.session, op),
        Op::System(_) if command.session != SessionId::SYSTEM => Err(FsError::NotPermitted.into()),
        Op::System(op) => dispatch_system(txn, op),
    }
}

fn dispatch_file(txn: &mut Txn<'_>, session: SessionId, op: &FileOp) -> Outcome<Answer> {
    match op {
        FileOp::CloseSession(op) => done(op, ops::session::end(txn, session)),
        FileOp::GrantBlock(op) => done(op, ops::session::grant_block(txn, session)),
        FileOp::CloseBlock(op) => done(op, ops::session::close_block(txn, session, op.block)),
        FileOp::Create(op) => done(op, ops::names::create(txn, op)),
        FileOp::CreatePromised(op) => done(op, ops::promise::create(txn, &op.file)),
        FileOp::CreateCommit(op) => done(op, ops::promise::create_commit(txn, session, op)),
        FileOp::Link(op) => done(op, ops::names::link(txn, op.ino, op.parent, &op.name)),
        FileOp::Unlink(op) => done(op, ops::names::unlink(txn, op.parent, &op.name)),
        FileOp::Rmdir(op) => done(op, ops::names::rmdir(txn, op.parent, &op.name)),
        FileOp::Rename(op) => done(op, ops::rename::rename(txn, op)),
        FileOp::SetAttrs(op) => done(op, ops::attr::set_attr(txn, op.ino, &op.set)),
        FileOp::SetXattr(op) => done(op, ops::attr::set_xattr(txn, op)),
        FileOp::SetListAsOther(op) => done(op, ops::acl::set_as_other(txn, op.ino, &op.value)),
        FileOp::RemoveXattr(op) => done(op, ops::attr::remove_xattr(txn, op.ino, &op.name)),
        FileOp::NoteAccesses(op) => done(op, ops::access::note(txn, &op.reads)),
        FileOp::Commit(op) => done(op, ops::commit::commit(txn, session, op)),
        FileOp::CopyRange(op) => done(op, ops::copy::copy(txn, op)),
        FileOp::Rewrite(op) => done(op, ops::rewrite::rewrite(txn, session, op)),
        FileOp::SetLock(op) => done(op, ops::lock::set_lock(txn, session, op.ino, &op.lock)),
        FileOp::DropLocks(op) => done(op, ops::lock::drop_locks(txn, session, op.ino, op.owner)),
    }
}

fn dispatch_system(txn: &mut Txn<'_>, op: &SystemOp) -> Outcome<Answer> {
    match op {
        SystemOp::Init(op) => done(op, ops::cluster::init(txn, &op.config)),
        SystemOp::SetConfig(op) => done(op, ops::cluster::set_config(txn, &op.config)),
        SystemOp::RegisterNode(op) => done(op, ops::cluster::register(txn, &op.info)),
        SystemOp::SetNodeState(op) => done(op, ops::cluster::set_state(txn, op.node, op.state)),
        SystemOp::SetVoter(op) => done(op, ops::cluster::set_voter(txn, op.node, op.voter)),
        SystemOp::RemoveNode(op) => done(op, ops::cluster::remove_node(txn, op.node, op.force)),
        SystemOp::ChangeSets(op) => done(op, ops::cluster::change_sets(txn, &op.changes)),
        SystemOp::OpenSession(op) => done(
            op,
            ops::session::open(txn, op.nonce, &op.identity, op.predecessor),
        ),
        SystemOp::EndSession(op) => done(op, ops::session::end(txn, op.session)),
        SystemOp::GrantInos(op) => done(op, ops::promise::grant_inos(txn, op.count)),
        SystemOp::MakePromised(op) => done(op, ops::promise::create(txn, &op.file)),
        SystemOp::ReapOrphans(op) => done(op, ops::orphan::reap(txn, &op.inos)),
        SystemOp::ChunksReaped(op) => {
            done(op, ops::orphan::chunks_reaped(txn, op.node, op.through))
        }
        SystemOp::ObjectsDeleted(op) => done(op, ops::orphan::objects_deleted(txn, &op.rows)),
        SystemOp::StartArchive(op) => done(op, ops::archive::start(txn, &op.files)),
        SystemOp::FinishArchive(op) => done(op, ops::archive::finish(txn, &op.files)),
        SystemOp::FailArchive(op) => done(op, ops::archive::fail(txn, &op.files)),
        SystemOp::ArchiveNow(op) => done(op, ops::archive::now(txn, &op.inos)),
        SystemOp::Release(op) => done(op, ops::archive::release(txn, &op.files)),
        SystemOp::ReleaseExtent(op) => done(
            op,
            ops::archive::release_extent(txn, (op.ino, op.version), op.offset, op.chunk),
        ),
        SystemOp::MarkLost(op) => done(
            op,
            ops::archive::mark_lost(txn, op.ino, op.offset, op.chunk),
        ),
    }
}

/// The reply to a mutation, whichever it is.
fn done<A: Ask<Reply = Answer>>(op: &A, answer: Outcome<A::Answer>) -> Outcome<Answer> {
    Ok(op.reply(answer?))
}
