//! Attributes in mutations: those of a file that is made, and those to set.

use crate::access::Times;
use crate::attr::{ArchiveState, Attr, Kind, Time};
use crate::codec::{Decode, Encode};
use crate::id::Ino;

/// A regular file whose name the leader promised to a session, before it is in the
/// replicated state.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct NewFile {
    /// Its number, granted to the leader by `GrantInos` and given to nobody else.
    pub ino: Ino,
    /// Its directory.
    pub parent: Ino,
    /// Its name there.
    pub name: Vec<u8>,
    /// Permission bits, after the umask.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group, unless the directory's setgid bit gives another.
    pub gid: u32,
    /// When the name was promised: when the file was born, and its directory's times.
    pub time: Time,
    /// The file's other times, if they were set since; `None`: they are that one, too.
    pub set: Option<Times>,
}

/// Set-group-id (inode(7)).
const S_ISGID: u16 = 0o2000;

impl NewFile {
    /// Sets attributes of the file before it is made in a directory that has these, as
    /// [`SetAttrs`](super::SetAttrs) does when it is. `now` is the leader's clock, or a little
    /// less. False, and nothing is changed: that does not set its length, setuid and setgid,
    /// the very time of now, nor a group where the directory's decides.
    pub fn set(&mut self, dir: &Attr, set: &SetAttr, now: Time) -> bool {
        /// Set-user-id and set-group-id (inode(7)).
        const SPECIAL: u16 = 0o6000;
        let special = (self.mode | set.mode.unwrap_or(0)) & SPECIAL != 0;
        let inherits = dir.mode & S_ISGID != 0 && set.gid.is_some();
        let old = self.times();
        let at = |set: Option<SetTime>, old| match set {
            None => Some(old),
            Some(SetTime::At(time)) => (time.nanos < 1_000_000_000).then_some(time),
            Some(SetTime::Now) => None,
        };
        let times = at(set.atime, old.atime).zip(at(set.mtime, old.mtime));
        let Some((atime, mtime)) = times.filter(|_| set.size.is_none() && !special && !inherits)
        else {
            return false;
        };
        self.mode = set.mode.unwrap_or(self.mode);
        self.uid = set.uid.unwrap_or(self.uid);
        self.gid = set.gid.unwrap_or(self.gid);
        self.set = Some(Times {
            atime,
            mtime,
            ctime: now.max(old.ctime.succ()),
        });
        true
    }

    fn times(&self) -> Times {
        self.set.unwrap_or(Times {
            atime: self.time,
            mtime: self.time,
            ctime: self.time,
        })
    }

    /// Returns its attributes when it is made in a directory that has these, and no default
    /// access control list.
    pub fn attr(&self, dir: &Attr) -> Attr {
        let inherits = dir.mode & S_ISGID != 0;
        let times = self.times();
        Attr {
            ino: self.ino,
            kind: Kind::File,
            mode: self.mode & 0o7777,
            uid: self.uid,
            gid: if inherits { dir.gid } else { self.gid },
            nlink: 1,
            size: 0,
            allocated: 0,
            rdev: 0,
            atime: times.atime,
            mtime: times.mtime,
            ctime: times.ctime,
            btime: self.time,
            version: 1,
            archive: ArchiveState::Local,
        }
    }
}

/// Attributes to change; `None` leaves one as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
pub struct SetAttr {
    /// Permission bits.
    pub mode: Option<u16>,
    /// Owner; clears setuid and setgid of files.
    pub uid: Option<u32>,
    /// Group; clears setuid and setgid of files.
    pub gid: Option<u32>,
    /// truncate(2): cuts extents and raises the data version.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of the content.
    pub mtime: Option<SetTime>,
    /// Clear setuid and setgid (a write or truncate by an unprivileged caller, a
    /// chown that names no owner).
    pub kill_suid: bool,
}

/// A time to set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub enum SetTime {
    /// The command's time.
    Now,
    /// A time that the caller gives.
    At(Time),
}
