//! Drawing of steps: the choice of calls, their frequencies and their arguments.

use super::{At, Flags, Flavour, Op, SLOTS, Step, When};
use crate::random::Random;

/// Draws steps by chance.
pub(super) struct Draw<'a> {
    pub random: &'a mut Random,
    pub flavour: Flavour,
}

const BLOCK: u64 = 4096;
const MODES: [i32; 9] = [
    0o644, 0o600, 0o666, 0o755, 0o777, 0o4755, 0o2775, 0o6777, 0o1777,
];
const TIMES: [When; 7] = [
    (0, libc::UTIME_NOW),
    (0, libc::UTIME_OMIT),
    (1_000_000_000, 123_456_789),
    (-1, 500_000_000),
    (0, 0),
    (4_102_444_800, 1),
    (1, 1_000_000_000),
];
const IDS: [u32; 4] = [0, 1, 2, u32::MAX];
const XATTRS: [&str; 8] = [
    "user.a",
    "user.a",
    "user.b",
    "trusted.c",
    "security.d",
    "user.",
    "none",
    "user.lagan-is-no-prefix",
];

impl Draw<'_> {
    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.random.below(from.len() as u64) as usize]
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.random.below(100) < percent
    }

    fn slot(&mut self) -> usize {
        self.random.below(SLOTS as u64) as usize
    }

    fn name(&mut self) -> String {
        self.pick(&["a", "a", "b", "b", "c", "d", "d", "e"]).into()
    }

    fn at(&mut self) -> At {
        let base = self.chance(8).then(|| self.slot());
        let path = match self.random.below(100) {
            0 => "x".repeat(255),
            1 => "x".repeat(256),
            2 => ".".into(),
            3 => String::new(),
            4 => format!("{}/", self.name()),
            5 => format!("d/../{}", self.name()),
            6 => format!("{}/.", self.name()),
            7..65 => self.name(),
            65..92 => format!("{}/{}", self.pick(&["d", "d", "e", "a"]), self.name()),
            _ => format!("d/e/{}", self.name()),
        };
        At { base, path }
    }

    fn offset(&mut self) -> i64 {
        let offset = match self.random.below(20) {
            0 => (5 << 30) + self.random.below(1 << 20),
            1..8 => self.random.below(6000),
            _ => self.random.below(400_000),
        };
        if self.flavour.aligned {
            return (offset / BLOCK * BLOCK) as i64;
        }
        offset as i64
    }

    fn len(&mut self) -> usize {
        let len = match self.random.below(12) {
            0 => 0,
            1 => self.random.below(300_000),
            _ => self.random.size(1, 40_000),
        };
        if self.flavour.aligned {
            return (len.div_ceil(BLOCK) * BLOCK) as usize;
        }
        len as usize
    }

    fn fill(&mut self) -> u8 {
        self.random.below(255) as u8 + 1
    }

    fn mode(&mut self) -> Flags {
        Flags(self.pick(&MODES))
    }

    fn times(&mut self) -> [When; 2] {
        [self.pick(&TIMES), self.pick(&TIMES)]
    }

    /// A lock's start and length, some of them wrong.
    fn range(&mut self) -> (i64, i64) {
        match self.random.below(20) {
            0 => (i64::MAX - 5, 100),
            1 => (-1, 1),
            2 => (10, -5),
            3 => (10, -20),
            4 => (i64::MAX - 5, 6),
            _ => (
                self.random.below(8) as i64 * 10,
                self.random.below(4) as i64 * 10,
            ),
        }
    }

    /// The next step.
    pub fn step(&mut self) -> Step {
        let op = match self.random.below(100) {
            0..42 => self.on_handle(),
            42..58 => self.open(),
            _ => self.on_path(),
        };
        // a mount cannot tell chown to nobody from a write that clears setuid
        let only_root = matches!(
            op,
            Op::Owner {
                uid: u32::MAX,
                gid: u32::MAX,
                ..
            } | Op::FdOwner {
                uid: u32::MAX,
                gid: u32::MAX,
                ..
            }
        );
        Step {
            mount: self.random.below(2) as usize,
            user: if only_root {
                0
            } else {
                self.pick(&[0, 0, 0, 1, 2])
            },
            op,
        }
    }

    fn open(&mut self) -> Op {
        let access = self.pick(&[libc::O_RDONLY, libc::O_RDWR, libc::O_RDWR, libc::O_WRONLY]);
        let mut flags = access | libc::O_NONBLOCK | libc::O_CLOEXEC;
        for (flag, percent) in [
            (libc::O_CREAT, 60),
            (libc::O_EXCL, 12),
            (libc::O_TRUNC, 15),
            (libc::O_APPEND, 15),
            (libc::O_DIRECTORY, 12),
            (libc::O_NOFOLLOW, 8),
            (libc::O_SYNC, 4),
            (libc::O_DSYNC, 4),
        ] {
            if self.chance(percent) {
                flags |= flag;
            }
        }
        Op::Open {
            slot: self.slot(),
            at: self.at(),
            flags: Flags(flags),
            mode: self.mode(),
        }
    }

    fn on_handle(&mut self) -> Op {
        let slot = self.slot();
        match self.random.below(24) {
            0 => Op::Close { slot },
            1 => Op::Dup {
                from: slot,
                to: self.slot(),
            },
            2 | 3 => Op::Read {
                slot,
                len: self.len(),
            },
            4..7 => Op::Write {
                slot,
                len: self.len(),
                fill: self.fill(),
            },
            7 | 8 => Op::ReadAt {
                slot,
                offset: self.offset(),
                len: self.len(),
            },
            9..12 => Op::WriteAt {
                slot,
                offset: self.offset(),
                len: self.len(),
                fill: self.fill(),
            },
            12 => Op::WriteTwo {
                slot,
                lens: [self.len(), self.len()],
                fill: self.fill(),
            },
            13 => Op::Seek {
                slot,
                offset: self.pick(&[0, 5, -5, 4096, 100_000]),
                whence: self.pick(&[libc::SEEK_SET, libc::SEEK_CUR, libc::SEEK_END, 17]),
            },
            14 => Op::Holes { slot },
            15 => Op::SetLen {
                slot,
                len: self.pick(&[-1, 0]).max(self.offset() - 4096),
            },
            16 | 17 => self.allocate(slot),
            18 => Op::Copy {
                from: slot,
                to: self.slot(),
                offsets: [self.offset(), self.offset()],
                len: self.len(),
            },
            _ => self.about_handle(slot),
        }
    }

    fn about_handle(&mut self, slot: usize) -> Op {
        match self.random.below(12) {
            0 => Op::Sync {
                slot,
                data: self.chance(50),
            },
            1 => Op::Append {
                slot,
                on: self.chance(50),
            },
            2..5 => self.lock(slot),
            5 => Op::FdMode {
                slot,
                mode: self.mode(),
            },
            6 => Op::FdOwner {
                slot,
                uid: self.pick(&IDS),
                gid: self.pick(&IDS),
            },
            7 => Op::FdTimes {
                slot,
                times: self.times(),
            },
            8 | 9 => Op::FdList { slot },
            _ => Op::FdStat { slot },
        }
    }

    fn allocate(&mut self, slot: usize) -> Op {
        let keep = libc::FALLOC_FL_KEEP_SIZE;
        if self.flavour.aligned {
            // whether what others reserve is data depends on the page cache
            return Op::Allocate {
                slot,
                mode: keep | libc::FALLOC_FL_PUNCH_HOLE,
                offset: self.offset(),
                len: self.len() as i64,
            };
        }
        let modes = [
            0,
            keep,
            keep | libc::FALLOC_FL_PUNCH_HOLE,
            keep | libc::FALLOC_FL_PUNCH_HOLE,
            libc::FALLOC_FL_ZERO_RANGE,
            keep | libc::FALLOC_FL_ZERO_RANGE,
            libc::FALLOC_FL_PUNCH_HOLE,
        ];
        Op::Allocate {
            slot,
            mode: self.pick(&modes),
            offset: self.random.below(400_000) as i64 / 4096 * 4096 + self.pick(&[0, 0, 1, -1]),
            len: self.len() as i64,
        }
    }

    fn lock(&mut self, slot: usize) -> Op {
        if self.flavour.flock {
            let operation = self.pick(&[libc::LOCK_SH, libc::LOCK_EX, libc::LOCK_UN]);
            return Op::Flock {
                slot,
                operation: operation | libc::LOCK_NB,
            };
        }
        let kind = self.pick(&[libc::F_RDLCK, libc::F_WRLCK, libc::F_UNLCK]);
        let range = self.range();
        if self.chance(30) {
            return Op::GetLock { slot, kind, range };
        }
        Op::Lock { slot, kind, range }
    }

    fn on_path(&mut self) -> Op {
        let at = self.at();
        match self.random.below(30) {
            0..3 => Op::Rename {
                from: at,
                to: self.at(),
                flags: self.pick(&[0, 0, libc::RENAME_NOREPLACE, libc::RENAME_EXCHANGE, 3]),
            },
            3..6 => Op::Unlink { at },
            6..9 => Op::MakeDir {
                at,
                mode: self.mode(),
            },
            9 | 10 => Op::RemoveDir { at },
            11 | 12 => Op::Link {
                from: at,
                to: self.at(),
                follow: self.chance(30),
            },
            13 | 14 => Op::Symlink {
                target: self
                    .pick(&["a", "b", "d", "d/a", "e/b", "none", ".", "d/e", ""])
                    .into(),
                at,
            },
            15 => Op::ReadLink { at },
            16 => self.node(at),
            17 => Op::Truncate {
                at,
                len: self.offset(),
            },
            18 | 19 => Op::Mode {
                at,
                mode: self.mode(),
            },
            20 => Op::Owner {
                at,
                uid: self.pick(&IDS),
                gid: self.pick(&IDS),
                follow: self.chance(60),
            },
            21 => Op::Times {
                at,
                times: self.times(),
                follow: self.chance(60),
            },
            22 => Op::Access {
                at,
                mode: self.random.below(8) as i32,
            },
            23 | 24 => Op::List { at },
            25 => Op::Stat { at },
            26 => Op::Space { at },
            _ => self.xattr(at),
        }
    }

    fn node(&mut self, at: At) -> Op {
        let kinds = [libc::S_IFIFO, libc::S_IFCHR, libc::S_IFSOCK, libc::S_IFREG];
        let kind = self.pick(&kinds);
        Op::MakeNode {
            at,
            mode: Flags(kind as i32 | self.pick(&MODES)),
            device: if kind == libc::S_IFCHR { 0x103 } else { 0 },
        }
    }

    fn xattr(&mut self, at: At) -> Op {
        let name = self.pick(&XATTRS).to_owned();
        let len = self.pick(&[0, 1, 5, 200]);
        match self.random.below(4) {
            0 => Op::SetXattr {
                at,
                name,
                len,
                flags: self.pick(&[0, 0, 1, 2, 8]),
            },
            1 => Op::GetXattr { at, name, len },
            2 => Op::RemoveXattr { at, name },
            _ => Op::ListXattrs { at, len },
        }
    }
}
