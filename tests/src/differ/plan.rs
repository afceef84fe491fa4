//! The steps of a comparison, drawn from a seed. There are few names, so that steps
//! collide.
//!
//! A step does not depend on what the ones before came to, so any of them can be
//! left out when a failure is made small.

mod draw;

use crate::random::Random;
use draw::Draw;
use std::fmt;

/// Places for open files.
pub const SLOTS: usize = 6;

/// A path: relative to the directory open in a slot, or to the top.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At {
    /// The slot; the top when there is none, or nothing is open in it.
    pub base: Option<usize>,
    /// The path below.
    pub path: String,
}

/// Flags of a call, shown in octal as headers write them.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Flags(pub i32);

impl fmt::Debug for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "0o{:o}", self.0)
    }
}

/// A time for utimensat(2): seconds and nanoseconds (or UTIME_NOW, UTIME_OMIT).
pub type When = (i64, i64);

/// One call. Sizes and offsets are bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(missing_docs)] // the fields are the arguments of the call of that name
pub enum Op {
    Open {
        slot: usize,
        at: At,
        flags: Flags,
        mode: Flags,
    },
    Close {
        slot: usize,
    },
    Dup {
        from: usize,
        to: usize,
    },
    Read {
        slot: usize,
        len: usize,
    },
    Write {
        slot: usize,
        len: usize,
        fill: u8,
    },
    ReadAt {
        slot: usize,
        offset: i64,
        len: usize,
    },
    WriteAt {
        slot: usize,
        offset: i64,
        len: usize,
        fill: u8,
    },
    WriteTwo {
        slot: usize,
        lens: [usize; 2],
        fill: u8,
    },
    Seek {
        slot: usize,
        offset: i64,
        whence: i32,
    },
    Holes {
        slot: usize,
    },
    SetLen {
        slot: usize,
        len: i64,
    },
    Allocate {
        slot: usize,
        mode: i32,
        offset: i64,
        len: i64,
    },
    Copy {
        from: usize,
        to: usize,
        offsets: [i64; 2],
        len: usize,
    },
    Sync {
        slot: usize,
        data: bool,
    },
    Append {
        slot: usize,
        on: bool,
    },
    Flock {
        slot: usize,
        operation: i32,
    },
    Lock {
        slot: usize,
        kind: i32,
        range: (i64, i64),
    },
    GetLock {
        slot: usize,
        kind: i32,
        range: (i64, i64),
    },
    FdStat {
        slot: usize,
    },
    FdMode {
        slot: usize,
        mode: Flags,
    },
    FdOwner {
        slot: usize,
        uid: u32,
        gid: u32,
    },
    FdTimes {
        slot: usize,
        times: [When; 2],
    },
    FdList {
        slot: usize,
    },
    Stat {
        at: At,
    },
    Truncate {
        at: At,
        len: i64,
    },
    Mode {
        at: At,
        mode: Flags,
    },
    Owner {
        at: At,
        uid: u32,
        gid: u32,
        follow: bool,
    },
    Times {
        at: At,
        times: [When; 2],
        follow: bool,
    },
    Access {
        at: At,
        mode: i32,
    },
    Link {
        from: At,
        to: At,
        follow: bool,
    },
    Symlink {
        target: String,
        at: At,
    },
    ReadLink {
        at: At,
    },
    Rename {
        from: At,
        to: At,
        flags: u32,
    },
    Unlink {
        at: At,
    },
    MakeDir {
        at: At,
        mode: Flags,
    },
    RemoveDir {
        at: At,
    },
    MakeNode {
        at: At,
        mode: Flags,
        device: u64,
    },
    List {
        at: At,
    },
    SetXattr {
        at: At,
        name: String,
        len: usize,
        flags: i32,
    },
    GetXattr {
        at: At,
        name: String,
        len: usize,
    },
    RemoveXattr {
        at: At,
        name: String,
    },
    ListXattrs {
        at: At,
        len: usize,
    },
    Space {
        at: At,
    },
}

/// One call, by whom and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// The mount; a call on an open file is on the mount that it was opened on.
    pub mount: usize,
    /// User and group: 0 is root.
    pub user: u32,
    /// The call.
    pub op: Op,
}

/// Properties that all steps of one seed share.
#[derive(Debug, Clone, Copy)]
struct Flavour {
    /// All offsets and lengths are whole blocks: then holes must agree exactly.
    aligned: bool,
    /// flock(2), not fcntl(2): the two share one space on a mount.
    flock: bool,
}

/// Whether the steps of a seed deal in whole blocks only.
pub fn is_aligned(seed: u64) -> bool {
    seed % 4 == 3
}

/// The steps of a seed.
pub fn steps(seed: u64, count: usize) -> Vec<Step> {
    let mut random = Random::new(seed);
    let flavour = Flavour {
        aligned: is_aligned(seed),
        flock: seed.is_multiple_of(2),
    };
    let mut draw = Draw {
        random: &mut random,
        flavour,
    };
    (0..count).map(|_| draw.step()).collect()
}
