//! What goes between the parts of a run.

use crate::holder::{Attributes, Fact, Loan};
use crate::leader::{ClaimId, Recalls};
use lagan_types::lease::{Found, Key, Name};
use lagan_types::{Ino, SessionId};

/// Attributes: the number of the last change, and that of the last quiet one.
pub(super) type Value = (u64, u64);

impl Attributes for Value {
    /// Numbers rise with each change.
    fn over(self, shown: &Self) -> Self {
        (self.0.max(shown.0), self.1.max(shown.1))
    }
}

/// Directories, other inodes, names.
pub(super) const DIRS: [Ino; 2] = [Ino(1), Ino(2)];
pub(super) const FILES: [Ino; 4] = [Ino(11), Ino(12), Ino(13), Ino(14)];
pub(super) const NAMES: [u8; 3] = [b'a', b'b', b'c'];

/// A rule of those who use the tables, which a run may break.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UseRule {
    /// Register before the state is read.
    RegisterThenRead,
    /// Renew a lease only after a read barrier that began after the receipt.
    BarrierBeforeRenewal,
    /// Read the inodes that a change touches again when its claim is ready.
    VictimsReadAgain,
    /// Propose in the term of the claim or not at all.
    ProposeInTerm,
    /// End or replace a session only when its lease has run out.
    RetireFirst,
    /// No lease from an answer that was remembered.
    RememberedIsNoLease,
    /// Resolve a doubt only by a command that is proposed after it.
    BarrierAfterDoubt,
    /// End a hold early only by the sessions of a linearizable state.
    SettledAreAll,
    /// Acknowledge only what is closed.
    CloseThenAcknowledge,
    /// A listing in pages is registered for before its first page.
    ListingRegisteredFirst,
    /// Recall after a quiet change.
    QuietRecalled,
    /// Loans come back before a recall is acknowledged.
    LoansBackThenAcknowledge,
    /// Loans come back before an own change is sent.
    LoansBackThenSend,
    /// Loans come back before a new leader is told that nothing is held.
    LoansBackThenSettle,
    /// A kernel that does not know an inode is told again when it may have come to know it.
    ArrivingWaitedFor,
    /// Orphans are made before the recall of a directory that was used alone is acknowledged.
    OrphansMadeThenAcknowledge,
    /// Orphans are made before a leader is asked for anything.
    OrphansMadeThenAsk,
    /// Local files are made before a leader is asked for their names.
    LocalsMadeThenAsk,
    /// Local files of earlier terms are made before a new leader is told that nothing is held.
    LocalsMadeThenSettle,
    /// What a leader shows of a directory that this mount uses alone is corrected.
    ShownCorrected,
    /// Whoever is shown a directory waits until nobody else uses it alone.
    VisitorsWait,
    /// In a new term nobody hears that something is not there before the hold is over.
    AbsentAfterHold,
    /// Nor is shown the attributes of a directory. (A leader shows them, and they may lack what was
    /// made and not closed in the term before: docs/SEMANTICS.md says so.)
    DirectoriesAfterHold,
}

pub(super) const USE_RULES: [UseRule; 15] = [
    UseRule::RegisterThenRead,
    UseRule::BarrierBeforeRenewal,
    UseRule::VictimsReadAgain,
    UseRule::ProposeInTerm,
    UseRule::RetireFirst,
    UseRule::RememberedIsNoLease,
    UseRule::BarrierAfterDoubt,
    UseRule::SettledAreAll,
    UseRule::CloseThenAcknowledge,
    UseRule::ListingRegisteredFirst,
    UseRule::QuietRecalled,
    UseRule::LoansBackThenAcknowledge,
    UseRule::LoansBackThenSend,
    UseRule::LoansBackThenSettle,
    UseRule::ArrivingWaitedFor,
];

/// Those about directories that a mount uses alone.
pub(super) const ALONE_RULES: [UseRule; 8] = [
    UseRule::OrphansMadeThenAcknowledge,
    UseRule::OrphansMadeThenAsk,
    UseRule::LocalsMadeThenAsk,
    UseRule::LocalsMadeThenSettle,
    UseRule::ShownCorrected,
    UseRule::VisitorsWait,
    UseRule::AbsentAfterHold,
    UseRule::DirectoriesAfterHold,
];

/// A change.
#[derive(Debug, Clone)]
pub(super) enum Cmd {
    Set(Ino),
    Link(Ino, (Ino, u8)),
    Unlink((Ino, u8)),
    Rename((Ino, u8), (Ino, u8)),
    Atime(Ino),
    /// Makes a file that its mount has made by itself, with the number that its directory got.
    Make {
        ino: Ino,
        at: (Ino, u8),
        value: u64,
    },
    Barrier,
}

pub(super) fn name((dir, byte): (Ino, u8)) -> Name {
    Name::new(dir, &[byte])
}

impl Cmd {
    /// The keys that it touches by its own words.
    pub fn keys(&self) -> Vec<Key> {
        match *self {
            Cmd::Set(ino) | Cmd::Make { ino, .. } => vec![Key::Inode(ino)],
            Cmd::Link(ino, at) => {
                let (of, dir) = (Key::Inode(ino), Key::Inode(at.0));
                vec![Key::Name(name(at)), dir, of]
            }
            Cmd::Unlink(at) => vec![Key::Name(name(at)), Key::Inode(at.0)],
            Cmd::Rename(from, to) => vec![
                Key::Name(name(from)),
                Key::Name(name(to)),
                Key::Inode(from.0),
                Key::Inode(to.0),
            ],
            Cmd::Atime(_) | Cmd::Barrier => Vec::new(),
        }
    }

    /// The names that it changes, of which nobody may have made one by itself.
    pub fn changes(&self) -> Vec<(Ino, u8)> {
        match *self {
            Cmd::Link(_, at) => vec![at],
            _ => self.names(),
        }
    }

    /// The names whose inodes it touches.
    pub fn names(&self) -> Vec<(Ino, u8)> {
        match *self {
            Cmd::Unlink(at) => vec![at],
            Cmd::Rename(from, to) => vec![from, to],
            _ => Vec::new(),
        }
    }
}

/// A read.
#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    Attr(Ino),
    Name((Ino, u8)),
    /// A page of a directory: the first name alone, or the others.
    Page(Ino, u8),
}

impl What {
    pub fn key(&self) -> Key {
        match *self {
            What::Attr(ino) => Key::Inode(ino),
            What::Name(at) => Key::Name(name(at)),
            What::Page(dir, _) => Key::Directory(dir),
        }
    }
}

/// What a read shows.
#[derive(Debug, Clone)]
pub(super) enum Shown {
    Attr(Value),
    Name(Found),
    Page(Vec<(u8, Ino)>),
}

/// A query of a mount.
#[derive(Debug, Clone, Copy)]
pub(super) struct Query {
    pub session: SessionId,
    pub asked: u64,
    /// The mount wants to remember the answer.
    pub wants: bool,
    pub what: What,
}

#[derive(Debug, Clone)]
pub(super) enum ToServer {
    Query(Query),
    Change {
        session: SessionId,
        seq: u64,
        began: u64,
        closed: Vec<Key>,
        /// It was not sent before.
        first: bool,
        /// The directory that the mount wants to use alone.
        alone: Option<Ino>,
        cmd: Cmd,
    },
    Beat {
        session: SessionId,
        /// The term that is known, and the one of which no local file is of an earlier one.
        said: (u64, u64),
    },
    Poll {
        session: SessionId,
        term: u64,
        acked: u64,
    },
    Open {
        new: SessionId,
        old: Option<SessionId>,
    },
}

#[derive(Debug, Clone)]
pub(super) enum ToMount {
    NotLeader,
    Shown {
        term: u64,
        leased: bool,
        shown: Shown,
    },
    Changed {
        term: u64,
        leased: Vec<Key>,
        /// `None`: refused.
        facts: Option<Vec<Fact<Value>>>,
        exclusive: Option<Ino>,
    },
    Beat {
        term: u64,
        leased: bool,
        alive: bool,
    },
    Recalls {
        session: SessionId,
        term: u64,
        recalls: Recalls,
    },
    Opened,
}

/// Where an answer goes: mount and call.
pub(super) type From = (usize, u64);

/// What a table said when a query began.
#[derive(Debug, Clone, Copy)]
pub(super) struct Grant {
    pub leased: bool,
    /// [`crate::Table::read_begins`].
    pub began: u64,
}

#[derive(Debug, Clone)]
pub(super) enum AtServer {
    Lead(u64),
    Deposed(u64),
    /// A query that had to wait begins again.
    Query {
        term: u64,
        to: From,
        query: Query,
    },
    Read {
        term: u64,
        to: From,
        query: Query,
        grant: Grant,
    },
    /// Register after the read: a broken rule.
    Late {
        term: u64,
        to: From,
        query: Query,
        grant: Grant,
        shown: Shown,
    },
    Answer {
        term: u64,
        to: From,
        query: Query,
        grant: Grant,
        shown: Shown,
    },
    Confirm {
        term: u64,
        to: From,
        session: SessionId,
        said: (u64, u64),
        received_ms: u64,
    },
    Wake,
    Propose {
        term: u64,
        claim: ClaimId,
    },
    Outcome {
        term: u64,
        claim: ClaimId,
        applied: Option<Applied>,
    },
    OpenNow {
        term: u64,
        to: From,
        new: SessionId,
        old: Option<SessionId>,
    },
    Resolved {
        term: u64,
        doubt: u64,
    },
    Quiet {
        term: u64,
        ino: Ino,
    },
}

/// The result of a command.
#[derive(Debug, Clone)]
pub(super) struct Applied {
    /// `None`: refused.
    pub facts: Option<Vec<Fact<Value>>>,
    pub remembered: bool,
}

#[derive(Debug, Clone)]
pub(super) enum AtMount {
    Act(usize),
    TimedOut(u64),
    Beat,
    Poll,
    /// Closes keys later than they are acknowledged: a broken rule.
    Close(SessionId, u64, Vec<Key>),
    /// Tells the kernel to forget loans, and goes on when it has.
    Back(Vec<Loan>, After),
    /// Has a local file made that is there for a while.
    Make(Ino),
}

/// What waits for loans, or for local files to be made.
#[derive(Debug, Clone)]
pub(super) enum After {
    /// Nothing does.
    Nothing,
    /// To have local files made, and then to acknowledge recalls.
    Recalled(SessionId, u64, u64),
    /// To send the query of a program.
    Ask(usize),
    /// To begin the change of a program, which goes on until that time.
    Change(usize, Cmd, u64),
    /// To make a file for a program.
    Create(usize, (Ino, u8), u64),
    /// To acknowledge recalls up to that number.
    Acknowledge(SessionId, u64, u64),
    /// To send the change of a program.
    Send(usize),
    /// To say that nothing is held of terms before this one.
    Settle(u64),
}

/// An answer with a loan that a program processes.
#[derive(Debug, Clone)]
pub(super) struct AtKernel {
    pub lent: (Ino, Value),
    /// The kernel's newest version when it asked.
    pub asked: u64,
    /// How many inodes it had dropped then.
    pub evicted: u64,
    /// The inode stays in the cache until then.
    pub holds: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Election,
    PauseServer,
    PauseMount,
    CutMount,
    /// What it is told comes late, and what it says is lost.
    SlowMount,
    /// The leader with one mount against the rest.
    Split,
    /// A mount is cut off, another process takes its place, and the leader changes.
    Remount,
    Restart,
    Takeover,
}

#[derive(Debug, Clone)]
pub(super) enum Event {
    ToServer(usize, From, ToServer),
    ToMount(From, ToMount),
    Server(usize, AtServer),
    Mount(usize, AtMount),
    Kernel(usize, AtKernel),
    Commit,
    Fault(Fault),
    Heal,
}
