//! The data versions that the kernel's pages of each inode may be from.
//!
//! The kernel drops an inode's pages by itself when it sees another size or
//! mtime (FUSE_AUTO_INVAL_DATA). Both can be set back, so the data version
//! decides: if it changed and they did not, the pages must be dropped by
//! notification before the attributes are answered.
//!
//! Nor does the kernel take every answer: it discards one if it has taken another since it
//! asked (`fuse_change_attributes` in Linux' fs/fuse/inode.c), though that may be the older
//! one. So of answers that come close together it may have either.

use lagan_lease::KERNEL_SLACK_MS;
use lagan_types::{Attr, Ino, Time};
use parking_lot::Mutex;
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// Inodes remembered, at most.
const INODES_MAX: usize = 32 * 1024;
/// Inodes not opened whose last shown attributes are remembered, at most: a
/// lookup comes right before its open.
const SHOWN_MAX: usize = 4096;

/// Answers within this time may overtake each other on their way to programs.
const CLOSE: Duration = Duration::from_millis(KERNEL_SLACK_MS);

/// The version of no inode.
const NO_VERSION: u64 = u64::MAX;

/// The condition under which attributes may be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// They may be answered now.
    Fine,
    /// The kernel's pages of the inode must go first; then [`KernelPages::dropped`] takes this.
    Stale(Doubt),
}

/// The last reason why an inode's pages may be wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt(u64);

/// The version, size and mtime that the kernel knows of each inode that was opened.
#[derive(Debug, Default)]
pub struct KernelPages {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    known: HashMap<Ino, Known>,
    by_age: BTreeMap<u64, Ino>,
    clock: u64,
    /// Size and mtime of inodes that are not in `known`; each has one place by its number.
    shown: HashMap<u64, (Ino, Shown)>,
}

/// Size and mtime.
type Shown = (u64, Time);

impl Inner {
    fn note_shown(&mut self, ino: Ino, shown: Shown) {
        self.shown.insert(ino.0 % SHOWN_MAX as u64, (ino, shown));
    }

    fn take_shown(&mut self, ino: Ino) -> Option<Shown> {
        let place = ino.0 % SHOWN_MAX as u64;
        self.shown.get(&place).filter(|(i, _)| *i == ino)?;
        self.shown.remove(&place).map(|(_, shown)| shown)
    }
}

#[derive(Debug, Clone, Copy)]
struct Known {
    version: u64,
    /// Size and mtime as the kernel has them; `None`: not seen by us.
    shown: Option<Shown>,
    /// What was answered before that, and what the kernel may still have though it was answered
    /// something else since: that answer was discarded.
    before: Option<Shown>,
    perhaps: Option<Shown>,
    /// When it was answered anything last.
    at: Option<Instant>,
    /// Counts the reasons for [`NO_VERSION`].
    doubt: u64,
    age: u64,
}

impl Known {
    /// Notes an answer. Returns whether the kernel may go on with the pages that it has: it
    /// may take the answer for what it had, or discard it. One that it discards leaves the size
    /// as it was, and so would telling it about pages; then the next answer must do.
    fn show(&mut self, shown: Shown, now: Instant) -> bool {
        let close = self.at.is_some_and(|at| now - at < CLOSE);
        self.at = Some(now);
        let Some(old) = self.shown.replace(shown) else {
            return true;
        };
        let same = old == shown || self.perhaps == Some(shown);
        if old != shown {
            self.before = Some(old);
            self.perhaps = self.before.filter(|_| close).or(self.perhaps);
        }
        same || (close && old.0 == shown.0)
    }

    /// Notes that the pages may be wrong, until they were dropped after this.
    fn doubt(&mut self) -> Doubt {
        self.version = NO_VERSION;
        self.doubt += 1;
        Doubt(self.doubt)
    }
}

impl KernelPages {
    /// An inode is opened at those attributes, which the kernel gets with the
    /// answer only if `shown`. Returns whether the pages that the kernel has
    /// are still right, and an inode that is remembered no longer: its pages
    /// must go.
    pub fn opened(&self, attr: &Attr, shown: bool) -> (bool, Option<Ino>) {
        let mut inner = self.inner.lock();
        inner.clock += 1;
        let age = inner.clock;
        let old = inner.known.get(&attr.ino).copied();
        let looked_up = inner.take_shown(attr.ino);
        let known = Known {
            version: attr.version,
            shown: if shown {
                Some((attr.size, attr.mtime))
            } else {
                // Telling the kernel makes it ignore the attributes that are
                // on their way to it: only if it may have the same already.
                old.map_or(looked_up, |o| o.shown)
            },
            before: old.and_then(|o| o.before),
            perhaps: old.and_then(|o| o.perhaps),
            at: old.and_then(|o| o.at),
            doubt: old.map_or(0, |o| o.doubt),
            age,
        };
        inner.known.insert(attr.ino, known);
        if let Some(old) = old {
            inner.by_age.remove(&old.age);
        }
        inner.by_age.insert(age, attr.ino);
        let evicted = if inner.known.len() > INODES_MAX {
            inner.by_age.pop_first().map(|(_, ino)| ino)
        } else {
            None
        };
        let gone = evicted.and_then(|ino| Some((ino, inner.known.remove(&ino)?.shown?)));
        if let Some((ino, shown)) = gone {
            inner.note_shown(ino, shown);
        }
        (old.is_some_and(|o| o.version == attr.version), evicted)
    }

    /// Attributes are about to be answered. A caller that gets [`Seen::Stale`] must have
    /// the kernel's pages dropped first. Until it has, every caller gets `Stale`: nobody
    /// may see new attributes and old pages.
    pub fn answered(&self, attr: &Attr) -> Seen {
        self.answered_at(attr, Instant::now())
    }

    fn answered_at(&self, attr: &Attr, now: Instant) -> Seen {
        let mut inner = self.inner.lock();
        let shown = (attr.size, attr.mtime);
        let Some(known) = inner.known.get_mut(&attr.ino) else {
            inner.note_shown(attr.ino, shown);
            return Seen::Fine;
        };
        let same = known.show(shown, now);
        if same && known.version == NO_VERSION {
            // Somebody has them dropped just now. If that doubt were renewed, those who look
            // all the time would never come to an end.
            return Seen::Stale(Doubt(known.doubt));
        }
        if same && known.version != attr.version {
            return Seen::Stale(known.doubt());
        }
        known.version = attr.version;
        Seen::Fine
    }

    /// Notes that the kernel has dropped the inode's pages since that doubt; it reads
    /// this version or a later one from now on. Nothing changes if there is a newer doubt.
    pub fn dropped(&self, attr: &Attr, doubt: Doubt) {
        if let Some(known) = self.inner.lock().known.get_mut(&attr.ino)
            && known.version == NO_VERSION
            && known.doubt == doubt.0
        {
            known.version = attr.version;
        }
    }

    /// Attributes are about to be answered to a call that set some. The kernel
    /// takes size and mtime from such an answer without dropping pages, so they
    /// go at the next look if they may be older. (Not now: the kernel holds
    /// locks of the inode that writing its mapped pages may need.)
    pub fn answered_set(&self, attr: &Attr) {
        let mut inner = self.inner.lock();
        let shown = (attr.size, attr.mtime);
        let Some(known) = inner.known.get_mut(&attr.ino) else {
            inner.note_shown(attr.ino, shown);
            return;
        };
        if known.version != attr.version {
            known.doubt();
        }
        known.show(shown, Instant::now());
    }

    /// Notes that the kernel is told to forget attributes: the last answer on its way may be
    /// discarded, so that it goes on with what it had before.
    pub fn overtaken(&self, ino: Ino) {
        if let Some(known) = self.inner.lock().known.get_mut(&ino) {
            known.perhaps = known.before;
        }
    }

    /// Notes that bytes which this mount wrote to the inode are lost; the kernel's pages show them.
    pub fn lost(&self, ino: Ino) {
        if let Some(known) = self.inner.lock().known.get_mut(&ino) {
            known.doubt();
        }
    }

    /// Notes that this mount's own commit changed the content from `before` to `after`
    /// in a way that the kernel's pages already show.
    pub fn committed(&self, ino: Ino, before: u64, after: u64) {
        if let Some(known) = self.inner.lock().known.get_mut(&ino)
            && known.version == before
        {
            known.version = after;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lagan_types::Kind;
    use lagan_types::attr::ArchiveState;

    fn attr(ino: u64, version: u64, size: u64, mtime_s: i64) -> Attr {
        let time = Time {
            secs: mtime_s,
            nanos: 0,
        };
        Attr {
            ino: Ino(ino),
            kind: Kind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            nlink: 1,
            size,
            allocated: size,
            rdev: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            version,
            archive: ArchiveState::Local,
        }
    }

    #[test]
    fn pages_are_kept_only_at_the_version_they_were_read_at() {
        let pages = KernelPages::default();
        assert_eq!(pages.opened(&attr(5, 1, 10, 1), true), (false, None));
        assert_eq!(pages.opened(&attr(5, 1, 10, 1), true), (true, None));
        assert_eq!(pages.opened(&attr(5, 2, 10, 1), true), (false, None));
    }

    #[test]
    fn a_change_behind_the_same_size_and_mtime_is_told() {
        let pages = KernelPages::default();
        assert_eq!(pages.answered(&attr(5, 1, 10, 1)), Seen::Fine);
        pages.opened(&attr(5, 1, 10, 1), true);
        assert_eq!(pages.answered(&attr(5, 2, 10, 2)), Seen::Fine);
        drop_stale(&pages, &attr(5, 3, 10, 2));
        assert_eq!(pages.answered(&attr(5, 3, 10, 2)), Seen::Fine);
    }

    fn doubt(pages: &KernelPages, attr: &Attr) -> Doubt {
        match pages.answered(attr) {
            Seen::Stale(doubt) => doubt,
            Seen::Fine => panic!("its pages are stale"),
        }
    }

    fn drop_stale(pages: &KernelPages, attr: &Attr) {
        let doubt = doubt(pages, attr);
        pages.dropped(attr, doubt);
    }

    #[test]
    fn pages_are_stale_for_everybody_until_they_are_dropped() {
        let pages = KernelPages::default();
        pages.opened(&attr(5, 1, 10, 1), true);
        let changed = attr(5, 2, 10, 1);
        let first = doubt(&pages, &changed);
        assert_eq!(doubt(&pages, &changed), first);
        pages.dropped(&changed, first);
        assert_eq!(pages.answered(&changed), Seen::Fine);
        let again = attr(5, 3, 10, 1);
        assert_ne!(doubt(&pages, &again), first, "an old drop does not count");
    }

    #[test]
    fn what_is_lost_while_pages_are_dropped_is_not_forgotten() {
        let pages = KernelPages::default();
        pages.opened(&attr(5, 1, 10, 1), true);
        let changed = attr(5, 2, 10, 1);
        let before = doubt(&pages, &changed);
        pages.lost(Ino(5));
        pages.dropped(&changed, before);
        drop_stale(&pages, &changed);
        assert_eq!(pages.answered(&changed), Seen::Fine);
        assert!(pages.opened(&changed, true).0, "they are kept");
    }

    #[test]
    fn attributes_that_open_did_not_show_do_not_count_as_known() {
        let pages = KernelPages::default();
        pages.opened(&attr(5, 1, 10, 1), true);
        pages.opened(&attr(5, 2, 10, 2), false);
        drop_stale(&pages, &attr(5, 3, 10, 1));
        pages.opened(&attr(6, 1, 10, 1), false);
        drop_stale(&pages, &attr(6, 2, 11, 2));
    }

    #[test]
    fn what_lookup_showed_before_the_open_counts_as_known() {
        let pages = KernelPages::default();
        assert_eq!(pages.answered(&attr(5, 1, 10, 1)), Seen::Fine);
        pages.opened(&attr(5, 1, 10, 1), false);
        assert_eq!(pages.answered(&attr(5, 2, 30, 2)), Seen::Fine);
        assert_eq!(pages.answered(&attr(6, 1, 10, 1)), Seen::Fine);
        pages.opened(&attr(6, 1, 10, 1), false);
        drop_stale(&pages, &attr(6, 2, 10, 1));
    }

    #[test]
    fn answer_that_was_overtaken_may_not_have_arrived() {
        for overtaken in [false, true] {
            let (pages, mut now) = (KernelPages::default(), Instant::now());
            pages.opened(&attr(5, 1, 10, 1), true);
            assert_eq!(pages.answered_at(&attr(5, 1, 10, 1), now), Seen::Fine);
            now += CLOSE;
            assert_eq!(pages.answered_at(&attr(5, 2, 10, 2), now), Seen::Fine);
            if overtaken {
                pages.overtaken(Ino(5));
            }
            now += CLOSE;
            // Somebody sets the time back: for the kernel nothing may have changed.
            let back = pages.answered_at(&attr(5, 3, 10, 1), now);
            assert_eq!(back != Seen::Fine, overtaken);
        }
    }

    #[test]
    fn answers_that_come_close_together_may_overtake_each_other() {
        let (pages, mut now) = (KernelPages::default(), Instant::now());
        pages.opened(&attr(5, 1, 10, 1), true);
        assert_eq!(pages.answered_at(&attr(5, 1, 10, 1), now), Seen::Fine);
        now += CLOSE / 2;
        let close = attr(5, 2, 10, 2);
        assert_ne!(pages.answered_at(&close, now), Seen::Fine, "pages go first");
        pages.opened(&close, true);
        // Of another size the kernel hears in time or at the next look.
        assert_eq!(pages.answered_at(&attr(5, 3, 11, 3), now), Seen::Fine);
        now += CLOSE;
        let back = attr(5, 4, 10, 2);
        assert_ne!(
            pages.answered_at(&back, now),
            Seen::Fine,
            "it may have missed one"
        );
    }

    #[test]
    fn own_commits_leave_pages_right_unless_someone_came_between() {
        let pages = KernelPages::default();
        pages.opened(&attr(5, 1, 10, 1), true);
        pages.committed(Ino(5), 1, 2);
        assert!(pages.opened(&attr(5, 2, 10, 1), true).0);
        pages.committed(Ino(5), 3, 4);
        assert!(!pages.opened(&attr(5, 4, 10, 1), true).0);
    }

    #[test]
    fn memory_is_bounded_and_the_forgotten_is_named() {
        let pages = KernelPages::default();
        for ino in 0..INODES_MAX as u64 {
            assert_eq!(pages.opened(&attr(ino, 1, 0, 0), true).1, None);
        }
        let (_, evicted) = pages.opened(&attr(u64::MAX, 1, 0, 0), true);
        assert_eq!(evicted, Some(Ino(0)));
    }
}
