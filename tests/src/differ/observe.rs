//! The observations after a step, in words that two file systems can share.
//!
//! Inode numbers, device, block counts and directories' sizes are left out.
//! Times that a step set are compared exactly; of all others, whether they
//! changed since the last look at the same place.

use super::plan::{Op, SLOTS, Step};
use super::world::{World, paths_of, slot_of};
use super::{said, sys};
use std::collections::HashMap;
use std::os::fd::{AsRawFd, RawFd};
use std::path::Path;

/// Larger files are read at both ends only.
const WHOLE_MAX: i64 = 1 << 20;

/// One thing that was seen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// Words that must be the same in both.
    pub text: String,
    /// The place and the inode's times there; only whether the times changed must be the
    /// same in both.
    pub stamp: Option<(String, Stamp)>,
}

/// An inode and its times at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    ino: u64,
    mtime: (i64, i64),
    ctime: (i64, i64),
}

impl Seen {
    /// Words only.
    pub(super) fn text(text: String) -> Self {
        Seen { text, stamp: None }
    }
}

/// The times seen last, by place: the local file system's and the mounts'.
#[derive(Debug, Default)]
pub(super) struct Relations {
    last: HashMap<String, (Stamp, Stamp)>,
}

impl Relations {
    /// Whether times changed in one and not in the other since the last look at
    /// the place, unless it is another inode now: the mounts', whose numbers
    /// are not used again, tell.
    pub(super) fn differ(&mut self, local: &Seen, mounts: &Seen) -> Option<String> {
        let (Some((place, one)), Some((_, two))) = (&local.stamp, &mounts.stamp) else {
            return None;
        };
        let old = self.last.insert(place.clone(), (*one, *two))?;
        if old.1.ino != two.ino {
            return None;
        }
        let changed = |a: (i64, i64), b: (i64, i64)| if a == b { "as before" } else { "changed" };
        let said = |old: Stamp, new: &Stamp| {
            let mtime = changed(old.mtime, new.mtime);
            let ctime = changed(old.ctime, new.ctime);
            format!("{place}: mtime {mtime}, ctime {ctime}")
        };
        let (one, two) = (said(old.0, one), said(old.1, two));
        (one != two).then(|| format!("local {one}; mounts {two}"))
    }
}

/// Describes the fields of a stat that are compared.
fn describe(place: &str, stat: Result<libc::stat, i32>, atime: bool) -> Seen {
    let stat = match stat {
        Ok(stat) => stat,
        Err(errno) => return Seen::text(format!("{place}: {}", said(Err(errno)))),
    };
    let stamp = Stamp {
        ino: stat.st_ino,
        mtime: (stat.st_mtime, stat.st_mtime_nsec),
        ctime: (stat.st_ctime, stat.st_ctime_nsec),
    };
    let size = match stat.st_mode & libc::S_IFMT {
        libc::S_IFDIR => String::new(),
        _ => format!(" size {}", stat.st_size),
    };
    // A walk through a symbolic link reads it; the kernel tells no FUSE file system.
    let atime = match atime && stat.st_mode & libc::S_IFMT != libc::S_IFLNK {
        true => format!(" atime {}", told((stat.st_atime, stat.st_atime_nsec))),
        false => String::new(),
    };
    let text = format!(
        "{place}: 0o{:o} links {} owner {}:{}{size} device {:x} mtime {}{atime}",
        stat.st_mode,
        stat.st_nlink,
        stat.st_uid,
        stat.st_gid,
        stat.st_rdev,
        told(stamp.mtime)
    );
    Seen {
        text,
        stamp: Some((place.to_owned(), stamp)),
    }
}

/// Shows a time that a step set as it is. A time of these years is the clock's, and
/// differs between the two.
fn told(time: (i64, i64)) -> String {
    match time.0 {
        1_500_000_000..4_000_000_000 => "of now".into(),
        _ => format!("{}.{:09}", time.0, time.1),
    }
}

impl World {
    /// Looks at what the step was about, as root, through the other mount where
    /// that is possible, and at one open file more.
    pub(super) fn observe(&self, number: usize, step: &Step, seen: &mut Vec<Seen>) {
        let timed = match &step.op {
            // reading may have changed it where it was not set
            Op::Times { times, .. } | Op::FdTimes { times, .. } => {
                seen[0].text == "0" && times[0].1 != libc::UTIME_OMIT
            }
            _ => false,
        };
        for at in paths_of(&step.op) {
            let based = at.base.is_some_and(|slot| self.slots[slot].is_some());
            let mount = match based {
                true => self.mount_of(at, step.mount),
                false => 1 - step.mount,
            };
            let stat = sys::stat(libc::AT_FDCWD, &self.path(at, mount));
            let place = format!("{:?}/{}", at.base.filter(|_| based), at.path);
            seen.push(describe(&place, stat, timed));
            if !based {
                self.observe_parent(&at.path, mount, seen);
            }
        }
        if let Some(slot) = slot_of(&step.op) {
            self.observe_slot(slot, timed, seen);
        }
        self.observe_slot(number % SLOTS, false, seen);
    }

    fn observe_parent(&self, path: &str, mount: usize, seen: &mut Vec<Seen>) {
        let parent = match path.trim_end_matches('/').rsplit_once('/') {
            Some((parent, _)) => parent,
            None => ".",
        };
        let at = super::plan::At {
            base: None,
            path: parent.to_owned(),
        };
        let stat = sys::stat(libc::AT_FDCWD, &self.path(&at, mount));
        seen.push(describe(parent, stat, false));
    }

    fn observe_slot(&self, slot: usize, atime: bool, seen: &mut Vec<Seen>) {
        let place = format!("handle {slot}");
        let Some(fd) = self.fd(slot) else {
            return;
        };
        let stat = sys::stat(fd, Path::new(""));
        seen.push(describe(&place, stat, atime));
        if let Ok(stat) = stat
            && stat.st_mode & libc::S_IFMT == libc::S_IFREG
        {
            let position = said(sys::seek(fd, 0, libc::SEEK_CUR));
            let content = content(fd, stat.st_size);
            seen.push(Seen::text(format!(
                "{place}: at {position}, content {content}"
            )));
        }
    }

    /// The whole tree below the top, through one mount.
    pub fn dump(&self, mount: usize) -> Vec<Seen> {
        let mut found = Vec::new();
        let mut numbers = HashMap::new();
        walk(&self.top(mount), "", &mut numbers, &mut found);
        for slot in 0..SLOTS {
            if let Some(fd) = self.fd(slot)
                && let Ok(stat) = sys::stat(fd, Path::new(""))
            {
                let name = numbers.get(&stat.st_ino);
                found.push(format!("handle {slot} is {name:?}"));
            }
        }
        found.into_iter().map(Seen::text).collect()
    }
}

fn content(fd: RawFd, size: i64) -> String {
    let ranges = match size {
        ..=WHOLE_MAX => vec![(0, size)],
        _ => vec![(0, 1 << 16), (size - (1 << 16), size)],
    };
    let mut text = String::new();
    for (from, to) in ranges {
        let mut bytes = vec![0; (to - from) as usize];
        match sys::read(fd, &mut bytes, Some(from)) {
            Ok(got) => {
                let crc = crc32fast::hash(&bytes[..got as usize]);
                text.push_str(&format!("{got} bytes {crc:x} "));
            }
            Err(errno) => text.push_str(&said(Err(errno))),
        }
    }
    text
}

/// One line for each entry; hard links name the first path of the same inode.
fn walk(dir: &Path, shown: &str, numbers: &mut HashMap<u64, String>, found: &mut Vec<String>) {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<_> = entries.map(|e| e.file_name()).collect();
    names.sort();
    for name in names {
        let path = dir.join(&name);
        let shown = format!("{shown}/{}", name.to_string_lossy());
        let stat = match sys::stat(libc::AT_FDCWD, &path) {
            Ok(stat) => stat,
            Err(errno) => {
                found.push(format!("{shown}: {}", said(Err(errno))));
                continue;
            }
        };
        let same = numbers.entry(stat.st_ino).or_insert_with(|| shown.clone());
        let mut line = describe(&shown, Ok(stat), false).text;
        line.push_str(&format!(" same as {same}"));
        line.push_str(&detail(&path, &stat));
        found.push(line);
        if stat.st_mode & libc::S_IFMT == libc::S_IFDIR {
            walk(&path, &shown, numbers, found);
        }
    }
}

fn detail(path: &Path, stat: &libc::stat) -> String {
    let mut text = match stat.st_mode & libc::S_IFMT {
        libc::S_IFREG => match sys::open(path, libc::O_RDONLY | libc::O_CLOEXEC, 0) {
            Ok(fd) => format!(" content {}", content(fd.as_raw_fd(), stat.st_size)),
            Err(errno) => said(Err(errno)),
        },
        libc::S_IFLNK => match sys::read_link(path) {
            Ok(target) => format!(" to {:?}", String::from_utf8_lossy(&target)),
            Err(errno) => said(Err(errno)),
        },
        _ => String::new(),
    };
    let names = sys::on_xattr(path, "", sys::OnXattr::List(4096)).map(|(_, names)| names);
    let names = String::from_utf8_lossy(&names.unwrap_or_default()).into_owned();
    let mut names: Vec<&str> = names.split('\0').filter(|n| !n.is_empty()).collect();
    names.sort_unstable();
    for name in names {
        let value = sys::on_xattr(path, name, sys::OnXattr::Get(4096)).map(|(_, value)| value);
        text.push_str(&format!(" {name}={}", value.map_or(-1, |v| v.len() as i64)));
    }
    text
}
