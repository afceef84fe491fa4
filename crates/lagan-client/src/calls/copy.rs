//! copy_file_range: the servers share chunks; bytes that are only in the archive are
//! read and written.

use crate::Client;
use crate::file::handle::Handle;
use crate::leader::link::{data_error, fs_error};
use crate::options::Caller;
use lagan_types::FsError;
use lagan_types::op::CopyRange;
use tokio::time::Instant;

/// Commands of one call, at most: a file in many small pieces is copied by
/// several calls, each well within its deadline.
const COMMANDS_MAX: usize = 16;
/// Bytes that one call reads and writes, at most.
const THROUGH_MAX: u64 = 4 * 1024 * 1024;
/// Bytes read at a time.
const READ_LEN: u64 = 1024 * 1024;

/// A range of one open file, and its copy's place in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopySpan {
    /// The source: a handle.
    pub from: u64,
    /// First byte in it.
    pub from_offset: u64,
    /// The target: a handle.
    pub to: u64,
    /// First byte in it.
    pub to_offset: u64,
    /// Length.
    pub len: u64,
}

/// The effect of one command: bytes that it copied, and those that must be read and
/// written instead.
struct Step {
    len: u64,
    through: u64,
}

impl Client {
    /// copy_file_range(2), after all that this mount wrote to both files.
    /// Returns how many bytes were copied: fewer than asked at the end of the
    /// source, and wherever one call would take long; 0 only at the end.
    ///
    /// # Errors
    /// [`FsError::Invalid`] if both ranges are of one file and overlap;
    /// [`FsError::FileTooLarge`]; [`FsError::Corrupt`] for lost
    /// bytes; those of [`Client::fsync`]. After the first bytes an error is a
    /// short count. The kernel refuses targets that append now; one that was
    /// opened to append may not do so any more.
    pub async fn copy_file_range(&self, caller: Caller, span: CopySpan) -> Result<u64, FsError> {
        let (from, to) = (
            self.files.table().handle(span.from)?,
            self.files.table().handle(span.to)?,
        );
        from.check()?;
        to.check()?;
        let until = self.leader.deadline();
        self.files.flush_inode(from.inode(), until).await?;
        let flushed = self.files.flush_inode(to.inode(), until).await;
        to.take_error().and(flushed)?;
        // A copy within a file may move its end, and must not copy itself.
        let commands = if from.inode().ino == to.inode().ino {
            1
        } else {
            COMMANDS_MAX
        };
        let mut done = 0;
        for _ in 0..commands {
            let rest = span.after(done);
            let step = match self.share(caller, &from, &to, rest, until).await {
                Err(_) if done > 0 => break,
                step => step?,
            };
            done += step.len;
            if step.through > 0 && done == 0 {
                // The servers looked at its newest content; this mount may know older content.
                from.inode().forget_map();
                return self.copy_through(caller, rest, step.through).await;
            }
            if step.len == 0 || step.through > 0 || done == span.len {
                break;
            }
        }
        Ok(done)
    }

    /// Has the servers copy, by one command.
    async fn share(
        &self,
        caller: Caller,
        from: &Handle,
        to: &Handle,
        span: CopySpan,
        until: Instant,
    ) -> Result<Step, FsError> {
        let (source, target) = (from.inode().ino, to.inode().ino);
        let op = CopyRange {
            from: source,
            from_offset: span.from_offset,
            to: target,
            to_offset: span.to_offset,
            len: span.len,
            kill_suid: !caller.privileged(),
        };
        let copied = self.leader.mutate_by(op, None, until).await;
        let copied = copied.map_err(|refusal| data_error(fs_error(refusal)))?;
        if copied.len > 0 {
            self.files
                .note_copied(to.inode(), copied.before, &copied.attr);
        }
        Ok(Step {
            len: copied.len,
            through: copied.through,
        })
    }

    /// Copies bytes that no server has as a chunk; the target is flushed as
    /// after any write.
    async fn copy_through(
        &self,
        caller: Caller,
        span: CopySpan,
        through: u64,
    ) -> Result<u64, FsError> {
        let (mut done, len) = (0, through.min(span.len).min(THROUGH_MAX));
        while done < len {
            let at = span.after(done);
            let want = (len - done).min(READ_LEN) as u32;
            let written = match self.read_unnoted(span.from, at.from_offset, want).await {
                Ok(bytes) if bytes.is_empty() => break,
                Ok(bytes) => {
                    let place = Some(at.to_offset);
                    self.write_at(caller, span.to, place, bytes).await
                }
                Err(error) => Err(error),
            };
            match written {
                Ok(written) => done += u64::from(written),
                Err(_) if done > 0 => break,
                Err(error) => return Err(error),
            }
        }
        Ok(done)
    }
}

impl CopySpan {
    /// The span that is left after so many bytes.
    fn after(self, done: u64) -> Self {
        CopySpan {
            from_offset: self.from_offset.saturating_add(done),
            to_offset: self.to_offset.saturating_add(done),
            len: self.len - done,
            ..self
        }
    }
}
