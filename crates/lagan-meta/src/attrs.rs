//! Rules of attributes that several operations share.

use crate::layout::rows::{Due, InodeRow};
use lagan_types::attr::{Kind, Time};

/// Set-user-id.
pub(crate) const S_ISUID: u16 = 0o4000;
/// Set-group-id.
pub(crate) const S_ISGID: u16 = 0o2000;
/// Execute by the group.
const S_IXGRP: u16 = 0o010;

impl InodeRow {
    /// Raises ctime: to the command's time, but always.
    pub(crate) fn touch(&mut self, time: Time) {
        self.ctime = time.max(self.ctime.succ());
    }

    /// The content (of a directory: the entries) changed.
    pub(crate) fn touch_content(&mut self, time: Time) {
        self.touch(time);
        self.mtime = self.ctime;
        self.version = self.version.saturating_add(1);
    }

    /// A file's content changed: the archive has to take it again.
    pub(crate) fn touch_file(&mut self, time: Time) {
        self.touch_content(time);
        self.archive.attempt = None;
        self.archive.failed = false;
        if self.live_file() {
            self.archive.due = Some(Due::After(time.as_millis()));
        }
    }

    /// What a write or a change of owner by the unprivileged takes away.
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
