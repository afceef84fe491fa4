use super::*;
use lagan_types::attr::ArchiveState;

fn s(secs: i64) -> Time {
    Time { secs, nanos: 0 }
}

/// Nobody has read it since its change in that second.
fn attr(ino: u64, kind: Kind, ctime: i64) -> Attr {
    Attr {
        ino: Ino(ino),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        nlink: 1,
        size: 0,
        allocated: 0,
        rdev: 0,
        atime: s(1),
        mtime: s(ctime),
        ctime: s(ctime),
        btime: s(1),
        version: 1,
        archive: ArchiveState::Local,
    }
}

fn read(attr: &Attr, at: i64) -> Access {
    Access {
        ino: attr.ino,
        ctime: attr.ctime,
        at: s(at),
    }
}

fn shown(accesses: &Accesses, mut attr: Attr) -> Attr {
    accesses.shown(&mut attr);
    attr
}

fn note(accesses: &Accesses, read: Access) {
    accesses.inner.lock().note(read);
}

#[test]
fn what_was_read_is_shown_until_something_changes() {
    let accesses = Accesses::new(AccessTimes::All);
    let file = attr(5, Kind::File, 100);
    assert!(accesses.is_due(&file));
    note(&accesses, read(&file, 200));
    assert_eq!(shown(&accesses, file.clone()).atime, s(200));
    assert!(!accesses.is_due(&file));
    // Told, and perhaps not in answers that are on their way.
    assert_eq!(accesses.take(), [read(&file, 200)]);
    assert_eq!(shown(&accesses, file.clone()).atime, s(200));
    // The leader, or another mount, was first.
    let mut newer = file.clone();
    newer.atime = s(150);
    assert_eq!(shown(&accesses, newer.clone()), newer);
    let changed = attr(5, Kind::File, 101);
    assert_eq!(shown(&accesses, changed.clone()), changed);
    assert!(accesses.is_due(&changed));
    accesses.forget_told();
    assert_eq!(shown(&accesses, file.clone()), file);
}

#[test]
fn read_is_told_once_and_again_after_a_change_or_a_loss() {
    let accesses = Accesses::new(AccessTimes::All);
    let file = attr(5, Kind::File, 100);
    note(&accesses, read(&file, 200));
    note(&accesses, read(&file, 201));
    assert_eq!(accesses.take(), [read(&file, 200)]);
    note(&accesses, read(&file, 202));
    assert_eq!(accesses.take(), []);
    accesses.lost(&[read(&file, 200)]);
    note(&accesses, read(&file, 203));
    let changed = attr(5, Kind::File, 300);
    note(&accesses, read(&changed, 301));
    note(&accesses, read(&file, 302));
    assert_eq!(accesses.take(), [read(&changed, 301)]);
    note(&accesses, read(&attr(6, Kind::File, 1), 2));
    accesses.lose_all();
    assert_eq!(accesses.take(), []);
}

#[test]
fn directories_and_links_are_known_by_what_the_kernel_got() {
    let accesses = Accesses::new(AccessTimes::All);
    let (dir, link) = (attr(5, Kind::Directory, 100), attr(6, Kind::Symlink, 90));
    accesses.note_known(dir.ino);
    assert_eq!(accesses.take(), []);
    shown(&accesses, dir.clone());
    shown(&accesses, link.clone());
    accesses.note_known(link.ino);
    accesses.note_known(dir.ino);
    accesses.note_known(dir.ino);
    let told: Vec<_> = accesses.take().iter().map(|r| (r.ino, r.ctime)).collect();
    assert_eq!(told, [(dir.ino, dir.ctime), (link.ino, link.ctime)]);
    // Read already, as the leader knows by now.
    let mut known = dir.clone();
    known.atime = wall_time();
    shown(&accesses, dir.clone());
    accesses.forget_told();
    shown(&accesses, known);
    accesses.note_known(dir.ino);
    assert_eq!(accesses.take(), []);
}

#[test]
fn inodes_that_share_a_place_are_not_taken_for_each_other() {
    let accesses = Accesses::new(AccessTimes::All);
    let (one, two) = (
        attr(5, Kind::Directory, 100),
        attr(5 + PLACES, Kind::Directory, 200),
    );
    shown(&accesses, one.clone());
    shown(&accesses, two.clone());
    accesses.note_known(one.ino);
    assert_eq!(accesses.take(), []);
    accesses.note_known(two.ino);
    assert_eq!(accesses.take().len(), 1);
}

#[test]
fn options_leave_out_directories_or_everything() {
    let (file, dir) = (attr(5, Kind::File, 100), attr(6, Kind::Directory, 100));
    let link = attr(7, Kind::Symlink, 100);
    for (whose, told) in [(AccessTimes::NoDirectories, 1), (AccessTimes::None, 0)] {
        let accesses = Accesses::new(whose);
        assert_eq!(accesses.is_due(&file), whose != AccessTimes::None);
        shown(&accesses, dir.clone());
        shown(&accesses, link.clone());
        accesses.note_known(dir.ino);
        accesses.note_known(link.ino);
        assert_eq!(accesses.take().len(), told, "{whose:?}");
    }
}

#[test]
fn memory_is_bounded_and_so_is_a_call() {
    let accesses = Accesses::new(AccessTimes::All);
    for ino in 0..WAITING_MAX as u64 + 10 {
        note(&accesses, read(&attr(ino, Kind::File, 100), 200));
    }
    let mut told = 0;
    loop {
        let reads = accesses.take();
        assert!(reads.len() <= ACCESSES_MAX && reads.is_sorted_by_key(|r| r.ino));
        if reads.is_empty() {
            break;
        }
        told += reads.len();
    }
    assert_eq!(told, WAITING_MAX);
    for ino in 0..2 * PLACES {
        shown(&accesses, attr(ino, Kind::Directory, 100));
    }
    assert_eq!(accesses.inner.lock().due.len() as u64, PLACES);
}
