use super::*;
use crate::leader::fake::{Leading, Servers};
use lagan_types::answer::{Created, NewSession};
use lagan_types::message::{MetaReply, MetaRequest, Mutate, Mutated};
use lagan_types::op::{Create, CreatePromised, FileOp, GrantBlock, Op, SystemOp};
use lagan_types::query::GetAttr;
use lagan_types::{Answer, Attr, FsError, Incarnation, Ino, Kind, Refusal};
use parking_lot::Mutex;
use std::collections::HashSet;
use std::sync::OnceLock;

const PROMISED: Ino = Ino(7);
const LOCKED: Ino = Ino(5);
const CLEAN: Ino = Ino(3);

/// Files of which one is told that the session is lost.
#[derive(Default)]
struct Files {
    leader: OnceLock<Weak<Leader>>,
    told: Mutex<Vec<Told>>,
    events: Arc<Mutex<Vec<Event>>>,
}

/// What happens while a promised file is made.
#[derive(Debug, PartialEq)]
enum Event {
    Held(Ino),
    Asked(Ino),
    LetGo(Ino),
}

/// How things were when it was told.
#[derive(Debug, PartialEq)]
struct Told {
    lost: HashSet<Ino>,
    session: SessionId,
    promises: bool,
    locks: bool,
}

impl OpenFiles for Files {
    fn is_open(&self, _: Ino) -> bool {
        true
    }
    fn hold(&self, ino: Ino) {
        self.events.lock().push(Event::Held(ino));
    }
    fn let_go(&self, ino: Ino) {
        self.events.lock().push(Event::LetGo(ino));
    }
    fn promise_made(&self, _: &Attr, _: &Attr) {}
    fn promise_lost(&self, _: Ino) {}
    fn attributes_forgotten(&self, _: Ino) {}
    fn brought(&self, _: Vec<crate::leader::brought::Brought>) {}

    fn session_lost(&self, lost: &HashSet<Ino>) {
        let leader = self.leader.get().unwrap().upgrade().unwrap();
        self.told.lock().push(Told {
            lost: lost.clone(),
            session: leader.session(),
            promises: leader.promise_of(PROMISED).is_some(),
            locks: leader.locks().has(LOCKED, 1),
        });
    }
}

/// Session 1 was ended; any other is as good as new.
fn answers(request: &MetaRequest) -> MetaReply {
    match request {
        MetaRequest::ReadState(ask) if ask.session == SessionId(1) => {
            MetaReply::Read(Err(Refusal::SessionEnded).into())
        }
        MetaRequest::ReadState(_) => MetaReply::Read(Err(FsError::NotFound.into()).into()),
        MetaRequest::Mutate(Mutate { command, .. }) => {
            MetaReply::Mutated(Mutated::from(match &command.op {
                Op::System(SystemOp::OpenSession(open)) => {
                    assert_eq!(open.predecessor, Some(SessionId(1)));
                    let (session, incarnation) = (SessionId(2), Incarnation(1));
                    Ok(Answer::Session(NewSession {
                        session,
                        incarnation,
                    }))
                }
                _ => Err(Refusal::SessionEnded),
            }))
        }
        other => panic!("{other:?}"),
    }
}

fn leader() -> (Arc<Files>, Arc<Leader>) {
    let files = Arc::new(Files::default());
    let leader = leader_below(&files, Arc::new(Leading(answers)));
    (files, leader)
}

fn leader_below(files: &Arc<Files>, servers: Arc<dyn Servers>) -> Arc<Leader> {
    let joined = fake::joined(servers, fake::map(&[&[1]]));
    let above: Weak<Files> = Arc::downgrade(files);
    let tasks = Arc::new(Tasks::new());
    let leader = Leader::new(joined, fake::options(), tasks, above);
    files.leader.set(Arc::downgrade(&leader)).unwrap();
    leader
}

/// The leader promised a file to that session.
fn promise(leader: &Leader, session: SessionId) -> bool {
    let op = Create {
        parent: Ino::ROOT,
        name: b"f".to_vec(),
        kind: Kind::File,
        mode: 0o644,
        umask: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        target: Vec::new(),
        exclusive: true,
    };
    leader.take_promise((&op, session), &fake::attr(PROMISED), 1)
}

#[tokio::test]
async fn files_hear_of_a_lost_session_once_when_the_new_one_is_there_and_the_tables_are_empty() {
    let (files, leader) = leader();
    leader.locks().note(LOCKED, 1);
    assert!(promise(&leader, SessionId(1)) && leader.promise_of(PROMISED).is_some());
    let ask = || leader.query(GetAttr { ino: CLEAN });
    let asked = tokio::join!(ask(), ask(), ask());
    let gone = || Err(FsError::NotFound);
    assert_eq!(asked, (gone(), gone(), gone()));
    let told = Told {
        lost: HashSet::from([PROMISED, LOCKED]),
        session: SessionId(2),
        promises: false,
        locks: false,
    };
    assert_eq!(*files.told.lock(), [told]);
}

#[tokio::test]
async fn a_promise_that_comes_after_its_session_ended_is_not_kept() {
    let (_files, leader) = leader();
    let asked = leader.query(GetAttr { ino: CLEAN });
    assert_eq!(asked.await, Err(FsError::NotFound));
    promise(&leader, SessionId(1));
    assert!(leader.promise_of(PROMISED).is_none());
    promise(&leader, SessionId(2));
    assert!(leader.promise_of(PROMISED).is_some());
}

#[tokio::test]
async fn no_session_follows_one_that_is_being_closed() {
    let (files, leader) = leader();
    leader.closing();
    let asked = leader.query(GetAttr { ino: CLEAN });
    assert_eq!(asked.await, Err(FsError::Io));
    let changed = leader.mutate_now(GrantBlock, None, leader.deadline());
    assert_eq!(changed.await, Err(Refusal::SessionEnded));
    assert_eq!(leader.session(), SessionId(1));
    assert!(files.told.lock().is_empty());
}

#[tokio::test]
async fn a_promised_file_is_held_from_before_it_is_asked_for_until_the_answer() {
    let files = Arc::new(Files::default());
    let events = files.events.clone();
    let made = move |request: &MetaRequest| {
        let MetaRequest::Mutate(Mutate { command, .. }) = request else {
            return answers(request);
        };
        let Op::File(FileOp::CreatePromised(CreatePromised { file })) = &command.op else {
            return answers(request);
        };
        events.lock().push(Event::Asked(file.ino));
        let attr = fake::attr(file.ino);
        let created = true;
        MetaReply::Mutated(Ok(Answer::Created(Created { attr, created })).into())
    };
    let leader = leader_below(&files, Arc::new(Leading(made)));
    // No sweep makes it meanwhile.
    assert!(leader.promises.begin_sweep());
    assert!(promise(&leader, SessionId(1)));
    let made = leader.make_promised(PROMISED, leader.deadline());
    assert_eq!(made.await, Ok(()));
    assert!(leader.promise_of(PROMISED).is_none());
    let [held, asked, let_go] = [Event::Held, Event::Asked, Event::LetGo].map(|e| e(PROMISED));
    assert_eq!(*files.events.lock(), [held, asked, let_go]);
}

#[tokio::test]
async fn a_promise_keeps_the_files_from_the_moment_it_is_taken() {
    let (files, leader) = leader();
    assert!(promise(&leader, SessionId(1)));
    // The sweep has not run yet.
    let dropped = Arc::downgrade(&files);
    drop(files);
    assert!(dropped.upgrade().is_some());
}
