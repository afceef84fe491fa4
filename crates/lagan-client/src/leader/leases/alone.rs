//! Directories that this mount uses alone: it makes regular files there by itself.
//!
//! Such a file is a promise of this mount's own, until it is made for everybody.

use super::{Leases, Shown, now_ms};
use crate::leader::promises::Promise;
use lagan_lease::{Attributes, Holder, Loan, Made};
use lagan_types::lease::Name;
use lagan_types::op::{Create, FileOp, NameEffect, NewFile};
use lagan_types::query::QueryAnswer;
use lagan_types::{Attr, Ino, Kind, Time};
use tokio::time::Instant;

impl Attributes for Shown {
    fn over(mut self, shown: &Self) -> Self {
        self.made = shown.made;
        if let Some(time) = shown.made {
            self.attr.entry_made(time);
        }
        self
    }
}

impl Leases {
    /// Whether the leader is to be told with a change that this mount wants to use a directory
    /// alone, and how many inode numbers it needs.
    pub(super) fn wish_alone(
        &self,
        holder: &mut Holder<Shown>,
        op: &FileOp,
        now_ms: u64,
    ) -> Option<u32> {
        let FileOp::Create(op) = op else {
            return None;
        };
        let wants = match op.kind {
            Kind::File => holder.wants_alone(op.parent, now_ms),
            // It will be empty, and nobody else knows it.
            kind => kind == Kind::Directory && holder.is_valid(now_ms),
        };
        wants.then(|| self.supply.lock().wanted())
    }

    /// Makes the regular file that a create wants, if its directory is this mount's alone, and
    /// gives the promise of it to `promise`; false: it cannot be taken, and the file is not made.
    /// Returns its attributes; `None`: ask the leader.
    ///
    /// # Errors
    /// These loans must come back first.
    pub fn make(
        &self,
        create: &Create,
        promise: impl FnOnce(Promise) -> bool,
    ) -> Result<Option<Attr>, Vec<Loan>> {
        let Some(holder) = &self.holder else {
            return Ok(None);
        };
        let (mut holder, now_ms) = (holder.lock(), now_ms());
        if !holder.is_alone(create.parent, now_ms) {
            return Ok(None);
        }
        let loans = holder.loans_of_local(create.parent, now_ms);
        if !loans.is_empty() {
            return Err(loans);
        }
        let (session, term) = (holder.session(), holder.term());
        let mut made = None;
        holder.make(&Name::new(create.parent, &create.name), now_ms, |dir| {
            // A default access control list would take the umask's place.
            let plain = dir.attr.kind == Kind::Directory && !dir.attr.has_xattrs();
            let mut supply = self.supply.lock();
            let now = supply.now().filter(|_| plain && dir.attr.nlink > 0)?;
            let time = now.max(dir.attr.ctime.succ());
            let file = NewFile::promised(create, supply.ino()?, time);
            let (ino, attr) = (file.ino, file.attr(&dir.attr));
            let taken = promise(Promise {
                file,
                session,
                attr: attr.clone(),
                term,
                since: Instant::now(),
                told: false,
            });
            let mut dir = Shown::from(&dir.attr);
            dir.attr.entry_made(time);
            dir.attr.version = dir.attr.version.saturating_add(1);
            dir.made = Some(time);
            made = taken.then(|| attr.clone());
            taken.then(|| Made {
                ino,
                attr: Shown::from(&attr),
                dir,
            })
        });
        drop(holder);
        self.note_use(now_ms);
        Ok(made)
    }

    /// Gives a file that was made here, and for nobody else yet, other attributes. `set` is given
    /// those of its directory and the leader's clock, and returns them. `None`: ask the leader.
    ///
    /// # Errors
    /// These loans must come back first.
    pub fn set_local(
        &self,
        ino: Ino,
        set: impl FnOnce(&Attr, Time) -> Option<Attr>,
    ) -> Result<Option<Attr>, Vec<Loan>> {
        let Some(holder) = &self.holder else {
            return Ok(None);
        };
        let (mut holder, now_ms) = (holder.lock(), now_ms());
        if !holder.is_local(ino) {
            return Ok(None);
        }
        let loans = holder.loans_of_local(ino, now_ms);
        if !loans.is_empty() {
            return Err(loans);
        }
        let mut attr = None;
        holder.set_local(ino, now_ms, |dir| {
            attr = set(&dir.attr, self.supply.lock().now()?);
            attr.as_ref().map(Shown::from)
        });
        Ok(attr)
    }

    /// Whether a change makes a file for everybody that was made here.
    pub fn is_own_local(&self, op: &FileOp) -> bool {
        match op.effect() {
            NameEffect::Own(ino) => self.is_local(ino),
            _ => false,
        }
    }

    /// Whether a change is about a file that was made here, and for nobody else yet.
    pub fn touches_local(&self, op: &FileOp) -> bool {
        let own = matches!(op.effect(), NameEffect::Own(_));
        let holder = self.holder.as_ref().filter(|_| !own);
        holder.is_some_and(|holder| holder.lock().is_any_local(&op.names(), &op.inodes()))
    }

    /// Whether the file was made here, and for nobody else yet.
    pub fn is_local(&self, ino: Ino) -> bool {
        let holder = self.holder.as_ref();
        holder.is_some_and(|holder| holder.lock().is_local(ino))
    }

    /// Returns the files to make for everybody before a leader is asked for anything.
    pub fn orphans(&self) -> Vec<Ino> {
        let holder = self.holder.as_ref();
        holder.map_or_else(Vec::new, |holder| holder.lock().orphans(now_ms()))
    }

    /// Notes that a file was made for everybody, or is lost.
    pub fn made(&self, ino: Ino) {
        if let Some(holder) = &self.holder {
            holder.lock().made(ino);
        }
    }

    /// Notes that nobody wants a file any more, which may yet be made.
    pub fn give_up(&self, ino: Ino) {
        if let Some(holder) = &self.holder {
            holder.lock().give_up(ino);
        }
    }

    /// Returns the number to give to [`Leases::shows`], before a query is sent.
    pub fn alone_number(&self) -> u64 {
        let holder = self.holder.as_ref();
        holder.map_or(0, |holder| holder.lock().alone_number())
    }

    /// Puts into an answer what only this mount knows of its directories. False: one of them was
    /// its alone when the query with that number began, and is so no more; ask again.
    pub fn shows(&self, answer: &mut QueryAnswer, number: u64) -> bool {
        let Some(holder) = &self.holder else {
            return true;
        };
        let (holder, now_ms) = (holder.lock(), now_ms());
        let shows = |attr: &mut Attr| {
            let ino = attr.ino;
            attr.kind != Kind::Directory
                || holder.shows(ino, number, now_ms, |known| *attr = known.attr.clone())
        };
        match answer {
            QueryAnswer::Attr(attr) => shows(attr),
            QueryAnswer::Attrs(attrs) => attrs.iter_mut().flatten().all(shows),
            QueryAnswer::Entries(page) => {
                let mut attrs = page.entries.iter_mut().filter_map(|e| e.attr.as_mut());
                attrs.all(shows)
            }
            _ => true,
        }
    }
}
