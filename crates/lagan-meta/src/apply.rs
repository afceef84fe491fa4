//! One command: exactly once, all or nothing.

use crate::kv::{Read, StoreError, Table, Write};
use crate::layout::rows::AnswerFloor;
use crate::layout::{self, key1, key2};
use crate::ops;
use crate::txn::{Changes, Fail, Outcome, Txn};
use lagan_types::limits::SESSION_WINDOW;
use lagan_types::{Answer, Command, FsError, Op, SessionId, VolumeId};

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
) -> Result<Result<Answer, FsError>, StoreError> {
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
    if let Op::CreateReserved {
        asked: Some(asked), ..
    } = &command.op
    {
        answer_asked(store, *asked, &answer)?;
    }
    Ok(answer)
}

/// Remembers the answer for the call that a promise answered before: if the call is sent
/// again to a leader that does not know the promise, it finds the file's creation as its
/// answer.
fn answer_asked<W: Write>(
    store: &mut W,
    (session, seq): (SessionId, u64),
    answer: &Result<Answer, FsError>,
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
    Answer(Result<Answer, FsError>),
    /// It is. Where its answer is to be remembered: the lowest sequence that is.
    New { floor: Option<u64> },
}

type Outcomes = (Result<Answer, FsError>, Changes);

fn run(base: &dyn Read, command: &Command) -> Result<Outcomes, StoreError> {
    let mut txn = Txn::new(base, command.time)?;
    match dispatch(&mut txn, command) {
        Ok(answer) => Ok((Ok(answer), txn.finish()?)),
        Err(Fail::Fs(e)) => Ok((Err(e), Changes::new())),
        Err(Fail::Store(e)) => Err(e),
    }
}

/// `CloseSession` removes what could remember it; it is idempotent instead.
fn remembered(op: &Op) -> bool {
    !matches!(op, Op::CloseSession { .. })
}

fn recall(store: &dyn Read, command: &Command) -> Result<Recalled, StoreError> {
    if command.session == SessionId::SYSTEM || !remembered(&command.op) {
        return Ok(Recalled::New { floor: None });
    }
    let session = command.session.0;
    if store.get(Table::Session, &key1(session))?.is_none() {
        return Ok(Recalled::Answer(Err(FsError::SessionEnded)));
    }
    if command.seq == 0 {
        return Ok(Recalled::Answer(Err(FsError::OutsideWindow)));
    }
    if let Some(value) = store.get(Table::Answer, &key2(session, command.seq))? {
        return layout::decode(Table::Answer, &value).map(Recalled::Answer);
    }
    let floor = floor(store, session)?;
    let start = floor.max(command.unanswered);
    let window = start..start.saturating_add(SESSION_WINDOW);
    if !window.contains(&command.seq) {
        return Ok(Recalled::Answer(Err(FsError::OutsideWindow)));
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
    answer: &Result<Answer, FsError>,
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
    if is_system(&command.op) {
        let own = matches!(command.op, Op::CloseSession { session } if session == command.session);
        if command.session != SessionId::SYSTEM && !own {
            return Err(FsError::NotPermitted.into());
        }
        return dispatch_system(txn, &command.op);
    }
    if command.volume != VolumeId::ONLY {
        return Err(FsError::CrossDevice.into());
    }
    dispatch_files(txn, command)
}

fn is_system(op: &Op) -> bool {
    !matches!(
        op,
        Op::GrantBlock
            | Op::CloseBlock { .. }
            | Op::Create { .. }
            | Op::Link { .. }
            | Op::Unlink { .. }
            | Op::Rmdir { .. }
            | Op::Rename { .. }
            | Op::SetAttr { .. }
            | Op::SetXattr { .. }
            | Op::SetListAsOther { .. }
            | Op::RemoveXattr { .. }
            | Op::Commit(_)
            | Op::CopyRange(_)
            | Op::Rewrite(_)
            | Op::Accesses(_)
            | Op::CreateMasked { .. }
            | Op::SetLock { .. }
            | Op::DropLocks { .. }
            | Op::CreateReserved { .. }
            | Op::CreateCommit { .. }
    )
}

fn dispatch_files(txn: &mut Txn<'_>, command: &Command) -> Outcome<Answer> {
    let session = command.session;
    match &command.op {
        Op::GrantBlock => ops::session::grant_block(txn, session),
        Op::CloseBlock { block } => ops::session::close_block(txn, session, *block),
        Op::Create { .. } => ops::names::create(txn, &command.op, false),
        Op::CreateMasked { .. } => ops::names::create_masked(txn, &command.op),
        Op::Link { ino, parent, name } => ops::names::link(txn, *ino, *parent, name),
        Op::Unlink { parent, name } => ops::names::unlink(txn, *parent, name),
        Op::Rmdir { parent, name } => ops::names::rmdir(txn, *parent, name),
        Op::Rename {
            parent,
            name,
            new_parent,
            new_name,
            no_replace,
            exchange,
        } => {
            let rename = ops::rename::Rename {
                from: (*parent, name),
                to: (*new_parent, new_name),
                no_replace: *no_replace,
                exchange: *exchange,
            };
            ops::rename::rename(txn, &rename)
        }
        Op::SetAttr { ino, set } => ops::attr::set_attr(txn, *ino, set),
        Op::SetXattr {
            ino,
            name,
            value,
            mode,
        } => ops::attr::set_xattr(txn, *ino, name, value, *mode),
        Op::SetListAsOther { ino, value } => ops::acl::set_as_other(txn, *ino, value),
        Op::RemoveXattr { ino, name } => ops::attr::remove_xattr(txn, *ino, name),
        Op::Commit(commit) => ops::commit::commit(txn, session, commit),
        Op::CopyRange(copy) => ops::copy::copy(txn, copy),
        Op::Rewrite(rewrite) => ops::rewrite::rewrite(txn, session, rewrite),
        Op::Accesses(reads) => ops::access::note(txn, reads),
        Op::SetLock { ino, lock } => ops::lock::set_lock(txn, session, *ino, lock),
        Op::DropLocks { ino, owner } => ops::lock::drop_locks(txn, session, *ino, *owner),
        Op::CreateReserved { file, .. } => ops::reserve::create(txn, file),
        Op::CreateCommit { file, commit } => {
            ops::reserve::create_commit(txn, session, file, commit)
        }
        _ => Err(FsError::Malformed.into()),
    }
}

fn dispatch_system(txn: &mut Txn<'_>, op: &Op) -> Outcome<Answer> {
    match op {
        Op::OpenSession {
            nonce,
            identity,
            predecessor,
        } => ops::session::open(txn, *nonce, identity, *predecessor),
        Op::CloseSession { session } | Op::EndSession { session } => {
            ops::session::end(txn, *session)
        }
        Op::Init { config } => ops::cluster::init(txn, config),
        Op::SetConfig { config } => ops::cluster::set_config(txn, config),
        Op::RegisterNode { info } => ops::cluster::register(txn, info),
        Op::SetNodeState { node, state } => ops::cluster::set_state(txn, *node, *state),
        Op::SetVoter { node, voter } => ops::cluster::set_voter(txn, *node, *voter),
        Op::RemoveNode { node, force } => ops::cluster::remove_node(txn, *node, *force),
        Op::ChangeSets { changes } => ops::cluster::change_sets(txn, changes),
        Op::ReapOrphans { inos } => ops::orphan::reap(txn, inos),
        Op::ChunksReaped { node, through } => ops::orphan::chunks_reaped(txn, *node, *through),
        Op::StartArchive { files } => ops::archive::start(txn, files),
        Op::FinishArchive { files } => ops::archive::finish(txn, files),
        Op::FailArchive { files } => ops::archive::fail(txn, files),
        Op::ArchiveNow { inos } => ops::archive::now(txn, inos),
        Op::Release { files } => ops::archive::release(txn, files),
        Op::ObjectsDeleted { rows } => ops::orphan::objects_deleted(txn, rows),
        Op::MarkLost { ino, offset, chunk } => ops::archive::mark_lost(txn, *ino, *offset, *chunk),
        Op::ReleaseExtent {
            ino,
            version,
            offset,
            chunk,
        } => ops::archive::release_extent(txn, (*ino, *version), *offset, *chunk),
        Op::GrantInos { count } => ops::reserve::grant_inos(txn, *count),
        _ => Err(FsError::Malformed.into()),
    }
}
