//! Names that the leader has reserved for files which are not replicated yet.
//!
//! A create is answered from here, without a sync; the file becomes part of the
//! replicated state with its first commit, or before anybody else looks at it.
//! Pure: what is to be proposed or waited for is returned.
//!
//! What must hold while this node leads in [`Names::enter`]'s term:
//! - A promised file can still be made: its name is taken by nobody else and
//!   its directory stays. So a mutation that could be in the way is marked
//!   before it is proposed, the files that it touches are made first, and while it is
//!   under way its names are not reserved.
//! - Nobody but the owner's session sees the state without a promised file: a
//!   read that touches one waits until it is made. (A read looks here before it
//!   takes its view of the state.)
//! - A number is given to one reservation only.
//!
//! A crash leaves nothing of this: the mount that holds a promise makes the file at
//! the new leader, which lets nobody take names before that (`hold`).

use lagan_types::op::NewFile;
use lagan_types::query::Query;
use lagan_types::{Attr, Ino, Op, QueryAnswer, SessionId, Time};
use std::collections::HashMap;
use std::ops::Range;

/// A directory and a name in it.
pub type Name = (Ino, Vec<u8>);

/// Reservations at a time, of all sessions: more are replicated at once.
const HELD_MAX: usize = 16_384;
/// Numbers asked for at a time, and when to ask again.
pub const INOS_GRANT: u32 = 16_384;
const INOS_LOW: u64 = 4_096;

/// Where a reservation is.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Step {
    /// Not promised: it is being looked whether the name is free.
    New,
    /// Promised.
    Held(Attr),
    /// Promised, and a command that makes it is under way.
    Proposed(Attr),
    /// Such a command ended without an answer: it may be made.
    Doubtful(Attr),
}

#[derive(Debug)]
struct Reserved {
    /// The call that asked.
    asked: (SessionId, u64),
    file: NewFile,
    step: Step,
}

/// What comes of a wish for a name.
#[derive(Debug, PartialEq, Eq)]
pub enum Wish {
    /// Look whether it can be made, then [`Names::promise`] or [`Names::cancel`].
    Look(NewFile),
    /// The call came before: this was its answer.
    Again(Attr),
    /// Replicate the create.
    Not,
}

/// What a read finds in its way.
#[derive(Debug, PartialEq, Eq)]
pub enum Touch {
    /// Nothing.
    None,
    /// The asker's own file: this is the answer.
    Own(Attr),
    /// These are to be made first.
    Make(Vec<Ino>),
}

/// What to do about a reservation that must be made.
#[derive(Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is made, or given up.
    Gone,
    /// Somebody is at it.
    Wait,
    /// Propose it, then call [`Names::made`].
    Propose(NewFile, (SessionId, u64)),
}

/// What a mutation may do to directories.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Directories {
    /// Nothing.
    Keeps,
    /// Bring one to a name.
    Makes,
    /// Remove one.
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
    /// Unknown.
    Unknown,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Names {
    term: u64,
    reserved: HashMap<Ino, Reserved>,
    by_name: HashMap<Name, Ino>,
    /// Of directories with reservations: how many, and the time of the last.
    directories: HashMap<Ino, (usize, Time)>,
    /// Names of mutations under way.
    busy: HashMap<Name, usize>,
    /// Mutations under way that may remove a directory.
    removing: usize,
    /// Those, and others that may bring a directory to a name.
    moving: usize,
    inos: Range<u64>,
}

impl Names {
    /// Whether nothing is reserved.
    pub fn is_empty(&self) -> bool {
        self.reserved.is_empty()
    }

    /// The term in which this node leads; what is from another is forgotten.
    pub fn enter(&mut self, term: u64) {
        if self.term != term {
            *self = Names {
                term,
                ..Names::default()
            };
        }
    }

    /// The term of what is reserved.
    pub fn term(&self) -> u64 {
        self.term
    }

    // -- numbers ------------------------------------------------------------

    /// Whether to ask for more numbers.
    pub fn wants_inos(&self) -> bool {
        self.inos.end.saturating_sub(self.inos.start) < INOS_LOW
    }

    /// Numbers that were granted in that term.
    pub fn grant(&mut self, term: u64, first: Ino, count: u32) {
        if self.term == term {
            self.inos = first.0..first.0.saturating_add(u64::from(count));
        }
    }

    // -- creates ------------------------------------------------------------

    /// A session wishes a name; `file.ino` is filled in.
    pub fn reserve(&mut self, asked: (SessionId, u64), mut file: NewFile) -> Wish {
        let name = (file.parent, file.name.clone());
        if let Some(ino) = self.by_name.get(&name) {
            return match self.reserved.get(ino) {
                Some(Reserved {
                    asked: before,
                    step: Step::Held(attr) | Step::Proposed(attr),
                    ..
                }) if *before == asked => Wish::Again(attr.clone()),
                _ => Wish::Not,
            };
        }
        let full = self.reserved.len() >= HELD_MAX;
        if full || self.removing > 0 || self.busy.contains_key(&name) {
            return Wish::Not;
        }
        let Some(ino) = self.inos.next() else {
            return Wish::Not;
        };
        file.ino = Ino(ino);
        self.by_name.insert(name, file.ino);
        let reserved = Reserved {
            asked,
            file: file.clone(),
            step: Step::New,
        };
        self.reserved.insert(file.ino, reserved);
        Wish::Look(file)
    }

    /// The name is free: promised, unless the term is over.
    pub fn promise(&mut self, ino: Ino, attr: Attr) -> bool {
        let Some(reserved) = self.reserved.get_mut(&ino) else {
            return false;
        };
        let time = attr.ctime;
        reserved.step = Step::Held(attr);
        let directory = self.directories.entry(reserved.file.parent);
        let directory = directory.or_insert((0, time));
        directory.0 += 1;
        directory.1 = directory.1.max(time);
        true
    }

    /// The name is not free, or nobody waits for it any more.
    pub fn cancel(&mut self, ino: Ino) {
        if self.reserved.get(&ino).is_some_and(|r| r.step == Step::New) {
            self.forget(ino);
        }
    }

    fn forget(&mut self, ino: Ino) {
        let Some(reserved) = self.reserved.remove(&ino) else {
            return;
        };
        let NewFile { parent, name, .. } = reserved.file;
        self.by_name.remove(&(parent, name));
        if reserved.step != Step::New
            && let Some(directory) = self.directories.get_mut(&parent)
        {
            directory.0 -= 1;
            if directory.0 == 0 {
                self.directories.remove(&parent);
            }
        }
    }

    /// The session is over: nobody holds its promises.
    pub fn session_ended(&mut self, session: SessionId) {
        let of = |r: &Reserved| r.asked.0 == session && matches!(r.step, Step::Held(_));
        let held = self.reserved.iter().filter(|(_, r)| of(r));
        let inos: Vec<Ino> = held.map(|(ino, _)| *ino).collect();
        for ino in inos {
            self.forget(ino);
        }
    }

    // -- making them ----------------------------------------------------------

    /// Somebody needs the file made.
    pub fn claim(&mut self, ino: Ino) -> Claim {
        let Some(reserved) = self.reserved.get_mut(&ino) else {
            return Claim::Gone;
        };
        match &reserved.step {
            Step::New | Step::Proposed(_) => Claim::Wait,
            Step::Held(attr) | Step::Doubtful(attr) => {
                reserved.step = Step::Proposed(attr.clone());
                Claim::Propose(reserved.file.clone(), reserved.asked)
            }
        }
    }

    /// The command that [`Names::claim`] wanted has ended.
    pub fn made(&mut self, ino: Ino, end: End) {
        match end {
            // Refused: the name is lost, which must not be. The owner hears of it.
            End::Done | End::Refused => self.forget(ino),
            End::NotProposed => self.hold_again(ino),
            End::Unknown => self.doubt(ino),
        }
    }

    fn doubt(&mut self, ino: Ino) {
        if let Some(reserved) = self.reserved.get_mut(&ino)
            && let Step::Held(attr) | Step::Proposed(attr) = &reserved.step
        {
            reserved.step = Step::Doubtful(attr.clone());
        }
    }

    // -- mutations ------------------------------------------------------------

    /// Whether a mutation under way may bring a directory to a name: what is
    /// seen there in the state may be another thing by then.
    pub fn moves_directories(&self) -> bool {
        self.moving > 0
    }

    /// A mutation is about to be proposed.
    pub fn begin(&mut self, op: &Op, directories: Directories) -> Mark {
        let names = op.names().into_iter();
        let names: Vec<Name> = names
            .map(|(parent, name)| (parent, name.to_vec()))
            .collect();
        let own = match op {
            Op::CreateReserved { file, .. } | Op::CreateCommit { file, .. } => Some(file.ino),
            _ => None,
        };
        let mut first: Vec<Ino> = if directories == Directories::Removes {
            self.reserved.keys().copied().collect()
        } else {
            let by_name = names.iter().filter_map(|n| self.by_name.get(n).copied());
            by_name.collect()
        };
        for ino in op.inodes() {
            if self.reserved.contains_key(&ino) {
                first.push(ino);
            } else if self.directories.contains_key(&ino) {
                // Its times, mode and lists count for what is made after it only.
                first.extend(self.held_in(ino));
            }
        }
        first.retain(|ino| Some(*ino) != own);
        for name in &names {
            *self.busy.entry(name.clone()).or_default() += 1;
        }
        self.removing += usize::from(directories == Directories::Removes);
        self.moving += usize::from(directories != Directories::Keeps);
        if let Some(reserved) = own.and_then(|ino| self.reserved.get_mut(&ino))
            && let Step::Held(attr) = &reserved.step
        {
            reserved.step = Step::Proposed(attr.clone());
        }
        Mark {
            term: self.term,
            names,
            directories,
            own,
            first,
        }
    }

    /// The mutation has ended. Of unknown outcome, its names stay busy in this
    /// term: it may yet be carried out.
    pub fn end(&mut self, mark: Mark, end: End) {
        if mark.term != self.term {
            return;
        }
        if let Some(ino) = mark.own {
            match end {
                End::Done => self.forget(ino),
                End::Refused | End::NotProposed => self.hold_again(ino),
                End::Unknown => self.doubt(ino),
            }
        }
        if end == End::Unknown {
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

    fn hold_again(&mut self, ino: Ino) {
        if let Some(reserved) = self.reserved.get_mut(&ino)
            && let Step::Proposed(attr) = &reserved.step
        {
            reserved.step = Step::Held(attr.clone());
        }
    }

    // -- reads ----------------------------------------------------------------

    /// What is in a read's way.
    pub fn touched(&self, session: SessionId, query: &Query) -> Touch {
        if self.reserved.is_empty() {
            return Touch::None;
        }
        let ino = match query {
            Query::Lookup { parent, name } => self.by_name.get(&(*parent, name.clone())).copied(),
            Query::ReadDir { ino, .. } => return self.touched_in(*ino),
            other => other.inode(),
        };
        let found = ino.and_then(|ino| Some((ino, self.reserved.get(&ino)?)));
        match found {
            None => Touch::None,
            Some((_, reserved)) if reserved.asked.0 == session => match (&reserved.step, query) {
                (
                    Step::Held(attr) | Step::Proposed(attr),
                    Query::Lookup { .. } | Query::GetAttr { .. },
                ) => Touch::Own(attr.clone()),
                _ => Touch::Make(vec![reserved.file.ino]),
            },
            Some((ino, _)) => Touch::Make(vec![ino]),
        }
    }

    /// The files that are reserved in a directory.
    fn held_in(&self, directory: Ino) -> impl Iterator<Item = Ino> {
        let all = self.reserved.values().map(|r| &r.file);
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

    /// Shows directories as changed by what is reserved in them.
    pub fn show(&self, answer: &mut QueryAnswer) {
        if self.directories.is_empty() {
            return;
        }
        match answer {
            QueryAnswer::Attr(attr) => self.show_attr(attr),
            QueryAnswer::Entries { entries, .. } => {
                let attrs = entries.iter_mut().filter_map(|e| e.attr.as_mut());
                attrs.for_each(|attr| self.show_attr(attr));
            }
            _ => {}
        }
    }

    fn show_attr(&self, attr: &mut Attr) {
        if let Some((_, time)) = self.directories.get(&attr.ino) {
            // As it will be when the file is made.
            if *time > attr.ctime {
                attr.mtime = *time;
                attr.ctime = *time;
            } else {
                attr.mtime = attr.mtime.max(*time);
            }
        }
    }
}

#[cfg(test)]
mod tests;
