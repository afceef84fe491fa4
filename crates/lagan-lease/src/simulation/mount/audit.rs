//! Whether what a mount may answer by itself is true.

use super::{Doing, Mount};
use crate::simulation::cx::Cx;
use crate::simulation::message::{DIRS, FILES, NAMES, Value};
use lagan_types::Ino;
use lagan_types::lease::{Found, Key};

impl Mount {
    /// Whatever may be answered from the cache now must be so now.
    pub fn audit(&mut self, cx: &mut Cx, quiet: bool) {
        self.kernel.audit(cx, self.index);
        if self.dead {
            return;
        }
        let (now, now_ms, index) = (cx.now, self.now_ms(cx), self.index);
        for ino in DIRS.into_iter().chain(FILES) {
            let value = cx.truth.true_value(ino);
            if let Some(kept) = self.holder.inode(ino, now_ms).copied()
                && (!self.is_true(cx, ino, kept, now) || (quiet && kept.1 != value.1))
            {
                cx.wrong.push(format!(
                    "{now} us: mount {index} keeps {kept:?} of {ino}, which is {value:?}"
                ));
            }
        }
        for dir in DIRS {
            for byte in NAMES {
                let target: Found = cx.truth.true_target((dir, byte)).into();
                if let Some(found) = self.holder.name(dir, &[byte], now_ms)
                    && found != target
                {
                    cx.wrong.push(format!(
                        "{now} us: mount {index} keeps {found:?} of {dir} {byte}, which is {target:?}"
                    ));
                }
            }
        }
    }

    /// Whether an inode had these attributes at some time since then, as far as this mount can
    /// know. Those of a directory that it uses alone may be of before an own change in it that is
    /// under way: nobody else is shown newer ones.
    pub(super) fn is_true(&mut self, cx: &Cx, ino: Ino, value: Value, since_us: u64) -> bool {
        let (mut since_us, mut alone) = (since_us, false);
        self.holder.shows(ino, 0, self.now_ms(cx), |_| alone = true);
        if alone {
            let key = Key::Inode(ino);
            let begun = self.doing.iter().filter_map(|doing| match doing {
                Doing::Change(c) if c.change.keys().contains(&key) => Some(c.begun_us),
                _ => None,
            });
            since_us = begun.min().unwrap_or(since_us).min(since_us);
        }
        cx.truth.was_value(ino, value, (since_us, cx.now))
    }
}
