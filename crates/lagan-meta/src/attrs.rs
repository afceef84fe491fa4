//! Rules for attributes that several operations share.

use crate::layout::rows::{Due, InodeRow};
use lagan_types::attr::{Kind, Time};

/// Set-user-id.
pub(crate) const S_ISUID: u16 = 0o4000;
/// Set-group-id.
pub(crate) const S_ISGID: u16 = 0o2000;
/// Execute by the group.
const S_IXGRP: u16 = 0o010;

impl InodeRow {
    /// Raises ctime to the command's time, or by the least step if that is not later.
    pub(crate) fn touch(&mut self, time: Time) {
        self.ctime = time.max(self.ctime.succ());
    }

    /// Notes a change of the content (of a directory: the entries).
    pub(crate) fn touch_content(&mut self, time: Time) {
        self.touch(time);
        self.mtime = self.ctime;
        self.version = self.version.saturating_add(1);
    }

    /// Notes a change of a file's content: the archive has to take it again.
    pub(crate) fn touch_file(&mut self, time: Time) {
        self.touch_content(time);
        self.archive.attempt = None;
        self.archive.failed = false;
        if self.live_file() {
            self.archive.due = Some(Due::After(time.as_millis()));
        }
    }

    /// Clears the bits that a write or a change of owner by the unprivileged takes away.
    pub(crate) fn clear_suid(&mut self) {
        if self.kind == Kind::Directory {
            return;
        }
        self.mode &= !S_ISUID;
        if self.mode & S_IXGRP != 0 {
            self.mode &= !S_ISGID;
        }
    }

    /// Whether its name hint is that one.
    pub(crate) fn hint_is(&self, parent: lagan_types::Ino, name: &[u8]) -> bool {
        self.parent == parent && self.name == name
    }
}
