//! Promises: names of created files that are not replicated yet.
//!
//! The leader answers a create from here, without a sync; the file becomes part of the
//! replicated state with its first commit, or before anybody else looks at it.
//! Pure: each call returns what its caller must propose or wait for.
//!
//! What must hold while this node leads in [`Names::enter`]'s term:
//! - A promised file can still be made: nobody else takes its name, and
//!   its directory stays. So a mutation that could be in the way is marked
//!   before it is proposed, the files that it touches are made first, and while it is
//!   under way its names are not promised.
//! - Nobody but the owner's session sees the state without a promised file: a
//!   read that touches one waits until it is made. (A read looks here before it
//!   takes its view of the state.)
//! - No inode number is given to two promises.
//!
//! After a crash nothing of this is left: the mount that holds a promise makes the file at
//! the new leader, which lets nobody take names before that (`hold`).

use lagan_types::op::{FileOp, NameEffect, NewFile};
use lagan_types::query::{Query, Sees};
use lagan_types::{Attr, Ino, QueryAnswer, SessionId, Time};
use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

/// A directory and a name in it.
pub type Name = (Ino, Vec<u8>);

/// Most promises at a time, of all sessions; further creates are replicated at once.
const PROMISES_MAX: usize = 16_384;
/// Inode numbers that the leader asks for at a time.
pub const INOS_GRANT: u32 = 16_384;
/// It asks for more when fewer than these are left.
const INOS_LOW: u64 = 4_096;
/// So many it keeps for its own promises.
const INOS_KEPT: u64 = 1_024;

/// How far a promise has come.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Not promised yet: its owner looks whether the name is free.
    New,
    /// Promised, and nobody makes it yet.
    Held(Attr),
    /// Promised, and a command that makes it is under way.
    Proposed(Attr),
    /// Such a command ended without an answer: the file may be made.
    Doubtful(Attr),
}

#[derive(Debug)]
struct Promise {
    /// The call that asked: session and sequence.
    asked: (SessionId, u64),
    file: NewFile,
    step: Step,
}

/// The answer to a wish for a name.
#[derive(Debug, PartialEq, Eq)]
pub enum Wish {
    /// Look whether the file can be made, then call [`Names::promise`] or [`Names::cancel`].
    Look(NewFile),
    /// The call came before, and this was its answer.
    Again(Attr),
    /// No promise: replicate the create.
    Not,
}

/// Promises that a read finds in its way.
#[derive(Debug, PartialEq, Eq)]
pub enum Touch {
    /// Nothing.
    None,
    /// The file is the asker's own, and this is the answer.
    Own(Attr),
    /// These files are to be made first.
    Make(Vec<Ino>),
}

/// The next step for a promise that must be made.
#[derive(Debug, PartialEq, Eq)]
pub enum Claim {
    /// The file is made, or the promise given up.
    Gone,
    /// Somebody else makes it: wait.
    Wait,
    /// Propose it, then call [`Names::made`].
    Propose(NewFile, (SessionId, u64)),
}

/// The effect that a mutation may have on directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Directories {
    /// It neither makes nor removes one.
    Keeps,
    /// It may bring one to a name.
    Makes,
    /// It may remove one.
    Removes,
}

/// A mutation under way; given back to [`Names::end`].
#[derive(Debug)]
pub struct Mark {
    term: u64,
    names: Vec<Name>,
    directories: Directories,
    own: Option<Ino>,
    /// Files that must be made before it is proposed.
    pub first: Vec<Ino>,
}

/// How a mutation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It was carried out.
    Done,
    /// It was refused and changed nothing.
    Refused,
    /// It was not proposed: this node does not lead just now, or has too much to do. It
    /// may go on leading in the same term.
    NotProposed,
    /// Nobody knows whether it was carried out.
    Unknown,
}

/// The promises of one term, and the mutations that could be in their way.
#[derive(Debug, Default)]
pub struct Names {
    term: u64,
    promises: HashMap<Ino, Promise>,
    by_name: HashMap<Name, Ino>,
    /// How many promises each directory has, and the time of the last one.
    directories: HashMap<Ino, (usize, Time)>,
    /// Names of mutations under way.
    busy: HashMap<Name, usize>,
    /// Mutations under way that may remove a directory.
    removing: usize,
    /// The same, and others that may bring a directory to a name.
    moving: usize,
    inos: Range<u64>,
    /// How often a promise was given or ended.
    version: u64,
}

impl Names {
    /// Whether nothing is promised.
    pub fn is_empty(&self) -> bool {
        self.promises.is_empty()
    }

    /// Notes the term in which this node leads; promises of another term are forgotten.
    pub fn enter(&mut self, term: u64) {
        if self.term != term {
            *self = Names {
                term,
                ..Names::default()
            };
        }
    }

    /// Returns the term of the promises.
    pub fn term(&self) -> u64 {
        self.term
    }

    /// Returns a number that rises within the term when what reads are shown changes.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Returns the attributes that a file was promised with; `None`: it is not promised.
    pub fn promised(&self, ino: Ino) -> Option<&Attr> {
        match &self.promises.get(&ino)?.step {
            Step::New => None,
            Step::Held(attr) | Step::Proposed(attr) | Step::Doubtful(attr) => Some(attr),
        }
    }

    /// Returns the time that the promises in a directory will give it; `None`: there are none.
    pub fn time_of(&self, directory: Ino) -> Option<Time> {
        self.directories.get(&directory).map(|(_, time)| *time)
    }

    // -- numbers ------------------------------------------------------------

    /// Whether to ask for more numbers.
    pub fn wants_inos(&self) -> bool {
        self.inos.end.saturating_sub(self.inos.start) < INOS_LOW
    }

    /// Takes inode numbers that were granted in that term.
    pub fn grant(&mut self, term: u64, first: Ino, count: u32) {
        if self.term == term {
            self.inos = first.0..first.0.saturating_add(u64::from(count));
        }
    }

    /// Takes that many numbers, or none if there are too few: the first, and how many.
    pub fn take_inos(&mut self, count: u32) -> (Ino, u32) {
        let first = self.inos.start;
        let left = self.inos.end.saturating_sub(first);
        if u64::from(count) + INOS_KEPT > left {
            return (Ino(0), 0);
        }
        self.inos.start += u64::from(count);
        (Ino(first), count)
    }

    // -- creates ------------------------------------------------------------

    /// Answers a session's wish for a name; [`Wish::Look`] has `file.ino` filled in.
    pub fn wish(&mut self, asked: (SessionId, u64), mut file: NewFile) -> Wish {
        let name = (file.parent, file.name.clone());
        if let Some(ino) = self.by_name.get(&name) {
            return match self.promises.get(ino) {
                Some(Promise {
                    asked: before,
                    step: Step::Held(attr) | Step::Proposed(attr),
                    ..
                }) if *before == asked => Wish::Again(attr.clone()),
                _ => Wish::Not,
            };
        }
        let full = self.promises.len() >= PROMISES_MAX;
        if full || self.removing > 0 || self.busy.contains_key(&name) {
            return Wish::Not;
        }
        let Some(ino) = self.inos.next() else {
            return Wish::Not;
        };
        file.ino = Ino(ino);
        self.by_name.insert(name, file.ino);
        let promise = Promise {
            asked,
            file: file.clone(),
            step: Step::New,
        };
        self.promises.insert(file.ino, promise);
        Wish::Look(file)
    }

    /// Promises a name that was found free. False: the promise is gone, since the term is
    /// over.
    pub fn promise(&mut self, ino: Ino, attr: Attr) -> bool {
        let Some(promise) = self.promises.get_mut(&ino) else {
            return false;
        };
        let time = attr.ctime;
        promise.file.time = attr.btime;
        promise.step = Step::Held(attr);
        self.version += 1;
        let directory = self.directories.entry(promise.file.parent);
        let directory = directory.or_insert((0, time));
        directory.0 += 1;
        directory.1 = directory.1.max(time);
        true
    }

    /// Gives up a name that is not free, or that nobody waits for any more.
    pub fn cancel(&mut self, ino: Ino) {
        if self.promises.get(&ino).is_some_and(|r| r.step == Step::New) {
            self.forget(ino);
        }
    }

    fn forget(&mut self, ino: Ino) {
        let Some(promise) = self.promises.remove(&ino) else {
            return;
        };
        self.version += 1;
        let NewFile { parent, name, .. } = promise.file;
        self.by_name.remove(&(parent, name));
        if promise.step != Step::New
            && let Some(directory) = self.directories.get_mut(&parent)
        {
            directory.0 -= 1;
            if directory.0 == 0 {
                self.directories.remove(&parent);
            }
        }
    }

    /// Gives up the promises of a session that is over: nobody holds them. Returns their
    /// directories.
    pub fn session_ended(&mut self, session: SessionId) -> BTreeSet<Ino> {
        let of = |r: &Promise| r.asked.0 == session && matches!(r.step, Step::Held(_));
        let held = self.promises.iter().filter(|(_, r)| of(r));
        let held: Vec<(Ino, Ino)> = held.map(|(ino, r)| (*ino, r.file.parent)).collect();
        for (ino, _) in &held {
            self.forget(*ino);
        }
        let touched: BTreeSet<Ino> = held.into_iter().map(|(_, parent)| parent).collect();
        for parent in &touched {
            // The last of those that are left.
            let times = self.promises.values().filter(|r| r.file.parent == *parent);
            let last = times.map(|r| r.file.time).max();
            if let (Some(directory), Some(last)) = (self.directories.get_mut(parent), last) {
                directory.1 = last;
            }
        }
        touched
    }

    // -- making them ----------------------------------------------------------

    /// Says what somebody must do who needs the file made.
    pub fn claim(&mut self, ino: Ino) -> Claim {
        let Some(promise) = self.promises.get_mut(&ino) else {
            return Claim::Gone;
        };
        match &promise.step {
            Step::New | Step::Proposed(_) => Claim::Wait,
            Step::Held(attr) | Step::Doubtful(attr) => {
                promise.step = Step::Proposed(attr.clone());
                Claim::Propose(promise.file.clone(), promise.asked)
            }
        }
    }

    /// Notes how the command ended that [`Names::claim`] wanted.
    pub fn made(&mut self, ino: Ino, end: End) {
        match end {
            // Refused: the name is lost, which must not happen. The owner hears of it.
            End::Done | End::Refused => self.forget(ino),
            End::NotProposed => self.keep(ino),
            End::Unknown => self.doubt(ino),
        }
    }

    fn doubt(&mut self, ino: Ino) {
        if let Some(promise) = self.promises.get_mut(&ino)
            && let Step::Held(attr) | Step::Proposed(attr) = &promise.step
        {
            promise.step = Step::Doubtful(attr.clone());
        }
    }

    // -- mutations ------------------------------------------------------------

    /// Whether a mutation under way may bring a directory to a name. If so, the state
    /// does not show what will be there when the next mutation is carried out.
    pub fn moves_directories(&self) -> bool {
        self.moving > 0
    }

    /// Marks a mutation that is about to be proposed.
    pub fn begin(&mut self, op: &FileOp, directories: Directories) -> Mark {
        let names = op.names().into_iter();
        let names: Vec<Name> = names
            .map(|(parent, name)| (parent, name.to_vec()))
            .collect();
        let own = match op.effect() {
            NameEffect::Own(ino) => Some(ino),
            _ => None,
        };
        let mut first: Vec<Ino> = if directories == Directories::Removes {
            self.promises.keys().copied().collect()
        } else {
            let by_name = names.iter().filter_map(|n| self.by_name.get(n).copied());
            by_name.collect()
        };
        for ino in op.inodes() {
            if self.promises.contains_key(&ino) {
                first.push(ino);
            } else if self.directories.contains_key(&ino) {
                // Its new times, mode and ACLs count only for files made after it.
                first.extend(self.held_in(ino));
            }
        }
        first.retain(|ino| Some(*ino) != own);
        for name in &names {
            *self.busy.entry(name.clone()).or_default() += 1;
        }
        self.removing += usize::from(directories == Directories::Removes);
        self.moving += usize::from(directories != Directories::Keeps);
        if let Some(promise) = own.and_then(|ino| self.promises.get_mut(&ino))
            && let Step::Held(attr) = &promise.step
        {
            promise.step = Step::Proposed(attr.clone());
        }
        Mark {
            term: self.term,
            names,
            directories,
            own,
            first,
        }
    }

    /// Ends a mutation. If nobody knows its outcome, its names stay busy, since it may yet be
    /// carried out: until the mark that is returned is given to [`Names::settle`], or the
    /// term ends.
    pub fn end(&mut self, mark: Mark, end: End) -> Option<Mark> {
        if mark.term != self.term {
            return None;
        }
        if let Some(ino) = mark.own {
            match end {
                End::Done => self.forget(ino),
                End::Refused | End::NotProposed => self.keep(ino),
                End::Unknown => self.doubt(ino),
            }
        }
        if end == End::Unknown {
            return Some(mark);
        }
        self.settle(mark);
        None
    }

    /// Takes the mark of a mutation away that was carried out, or never will be.
    pub fn settle(&mut self, mark: Mark) {
        if mark.term != self.term {
            return;
        }
        self.removing -= usize::from(mark.directories == Directories::Removes);
        self.moving -= usize::from(mark.directories != Directories::Keeps);
        for name in mark.names {
            if let Some(count) = self.busy.get_mut(&name) {
                *count -= 1;
                if *count == 0 {
                    self.busy.remove(&name);
                }
            }
        }
    }

    fn keep(&mut self, ino: Ino) {
        if let Some(promise) = self.promises.get_mut(&ino)
            && let Step::Proposed(attr) = &promise.step
        {
            promise.step = Step::Held(attr.clone());
        }
    }

    // -- reads ----------------------------------------------------------------

    /// Finds the promises in a read's way.
    pub fn touched(&self, session: SessionId, query: &Query) -> Touch {
        if self.promises.is_empty() {
            return Touch::None;
        }
        let sees = query.sees();
        let ino = match sees {
            Sees::Nothing => None,
            Sees::Name(parent, name) => self.by_name.get(&(parent, name.to_vec())).copied(),
            Sees::Entries(ino) => return self.touched_in(ino),
            Sees::Attr(ino) | Sees::Inode(ino) => Some(ino),
        };
        let found = ino.and_then(|ino| Some((ino, self.promises.get(&ino)?)));
        match found {
            None => Touch::None,
            Some((_, promise)) if promise.asked.0 == session => match (&promise.step, sees) {
                (Step::Held(attr) | Step::Proposed(attr), Sees::Name(..) | Sees::Attr(_)) => {
                    Touch::Own(attr.clone())
                }
                _ => Touch::Make(vec![promise.file.ino]),
            },
            Some((ino, _)) => Touch::Make(vec![ino]),
        }
    }

    /// Returns the files that are promised in a directory.
    fn held_in(&self, directory: Ino) -> impl Iterator<Item = Ino> {
        let all = self.promises.values().map(|r| &r.file);
        all.filter(move |f| f.parent == directory).map(|f| f.ino)
    }

    fn touched_in(&self, directory: Ino) -> Touch {
        let inos: Vec<Ino> = self.held_in(directory).collect();
        if inos.is_empty() {
            Touch::None
        } else {
            Touch::Make(inos)
        }
    }

    /// Gives directories in the answer the times that the promises in them will give them.
    pub fn show(&self, answer: &mut QueryAnswer) {
        if self.directories.is_empty() {
            return;
        }
        match answer {
            QueryAnswer::Attr(attr) => self.show_attr(attr),
            QueryAnswer::Attrs(attrs) => {
                let found = attrs.iter_mut().flatten();
                found.for_each(|attr| self.show_attr(attr));
            }
            QueryAnswer::Entries(page) => {
                let attrs = page.entries.iter_mut().filter_map(|e| e.attr.as_mut());
                attrs.for_each(|attr| self.show_attr(attr));
            }
            _ => {}
        }
    }

    fn show_attr(&self, attr: &mut Attr) {
        if let Some(time) = self.time_of(attr.ino) {
            attr.entry_made(time);
        }
    }
}

#[cfg(test)]
mod tests;
