use super::*;

/// Turns seconds and nanoseconds of the kernel into a time, as the library does.
fn as_the_library(secs: i64, nanos: u32) -> SystemTime {
    let whole = Duration::new(secs.unsigned_abs(), nanos);
    if secs < 0 {
        UNIX_EPOCH - whole
    } else {
        UNIX_EPOCH + whole
    }
}

#[test]
fn times_before_1970_arrive_as_the_kernel_sent_them() {
    for (secs, nanos) in [
        (0, 0),
        (5, 7),
        (-1, 0),
        (-2, 500_000_000),
        (-86_400, 1),
        (i64::MIN, 0),
        (i64::MAX, 0),
    ] {
        let set = set_time(TimeOrNow::SpecificTime(as_the_library(secs, nanos)));
        assert_eq!(set, SetTime::At(Time { secs, nanos }));
    }
    assert_eq!(set_time(TimeOrNow::Now), SetTime::Now);
}

#[test]
fn times_before_1970_are_shown_as_they_are() {
    let shown = |secs, nanos| system_time(Time { secs, nanos });
    assert_eq!(shown(-2, 0), UNIX_EPOCH - Duration::from_secs(2));
    assert_eq!(
        shown(-2, 500_000_000),
        UNIX_EPOCH - Duration::from_millis(1500)
    );
    assert_eq!(shown(3, 1), UNIX_EPOCH + Duration::new(3, 1));
}

#[test]
fn long_names_are_refused() {
    assert_eq!(name(OsStr::new(&"x".repeat(255))).unwrap().len(), 255);
    let long = "x".repeat(256);
    assert_eq!(name(OsStr::new(&long)), Err(FsError::NameTooLong));
}

#[test]
fn open_flags_are_understood() {
    let caller = Caller {
        uid: 1000,
        gid: 1000,
        pid: 1,
    };
    let o = open_options(caller, libc::O_WRONLY | libc::O_APPEND | libc::O_SYNC);
    assert!(!o.read && o.write && o.append && o.sync && !o.truncate && !o.direct);
    let o = open_options(
        caller,
        libc::O_RDWR | libc::O_TRUNC | libc::O_DSYNC | libc::O_DIRECT,
    );
    assert!(o.read && o.write && o.truncate && o.sync && o.direct);
    let o = open_options(caller, libc::O_RDONLY);
    assert!(o.read && !o.write && !o.sync && o.kill_suid);
    assert!(!o.no_atime && open_options(caller, libc::O_NOATIME).no_atime);
    let root = Caller { uid: 0, ..caller };
    assert!(!open_options(root, libc::O_TRUNC).kill_suid);
}

#[test]
fn locks_to_the_end_have_one_end() {
    let whole = lock(9, (0, i64::MAX as u64), libc::F_WRLCK, 5).unwrap();
    assert_eq!((whole.end, whole.kind), (u64::MAX, LockKind::Write));
    let reply = lock_reply(Some(whole));
    assert_eq!(reply, (0, i64::MAX as u64, libc::F_WRLCK, 5));
    let part = lock(9, (3, 7), libc::F_RDLCK, 5).unwrap();
    assert_eq!(lock_reply(Some(part)), (3, 7, libc::F_RDLCK, 5));
    assert_eq!(lock_reply(None).2, libc::F_UNLCK);
    assert_eq!(lock(9, (3, 7), 77, 5), Err(FsError::Invalid));
    assert_eq!(lock(9, (7, 3), libc::F_RDLCK, 5), Err(FsError::Invalid));
}

#[test]
fn only_nodes_can_be_made_by_mknod() {
    assert_eq!(node_kind(0o644), Ok(Kind::File));
    assert_eq!(node_kind(libc::S_IFIFO | 0o600), Ok(Kind::Fifo));
    assert_eq!(node_kind(libc::S_IFDIR), Err(FsError::Invalid));
    assert_eq!(permissions(libc::S_IFREG | 0o4755), 0o4755);
}

#[test]
fn attribute_names_end_with_nul() {
    let names = [b"user.a".to_vec(), b"user.bc".to_vec()];
    assert_eq!(xattr_list(&names), b"user.a\0user.bc\0");
    assert_eq!(xattr_list(&[]), b"");
}

#[test]
fn xattr_flags_exclude_each_other() {
    assert_eq!(xattr_mode(libc::XATTR_CREATE), Ok(XattrMode::Create));
    assert_eq!(xattr_mode(3), Err(FsError::Invalid));
}
