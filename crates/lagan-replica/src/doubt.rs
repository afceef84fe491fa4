//! A mark on disk: this node may lack chunks that it counts as a holder of.
//!
//! Chunks that come with commits lie in the log first. A node that gets the state by a
//! snapshot has not had what was in the entries that it lacked, and one whose chunk store
//! takes nothing cannot keep what its log forgets. Both raise the mark before they go on, so
//! that it outlives a crash; [`fill`](crate::fill) then compares this node's sets with all
//! their other members, fetches what is missing, and ends it.

use lagan_host::replace::sync_dir_of;
use parking_lot::Mutex;
use std::fs::{self, File};
use std::io;
use std::path::PathBuf;

/// The mark.
#[derive(Debug)]
pub struct Doubt {
    path: PathBuf,
    raised: Mutex<Raised>,
}

#[derive(Debug)]
struct Raised {
    /// Counts the raisings.
    number: u64,
    is_raised: bool,
}

impl Doubt {
    /// The mark at that path; raised if the file is there, or nobody can say.
    pub fn open(path: PathBuf) -> Doubt {
        let is_raised = path.try_exists().unwrap_or(true);
        Doubt {
            path,
            raised: Mutex::new(Raised {
                number: 0,
                is_raised,
            }),
        }
    }

    /// Raises it, durably. Waits for the disk.
    ///
    /// # Errors
    /// [`io::Error`]: a crash may lose the mark, which is raised until then.
    pub fn raise(&self) -> io::Result<()> {
        let mut raised = self.raised.lock();
        raised.number += 1;
        raised.is_raised = true;
        File::create(&self.path)?.sync_all()?;
        sync_dir_of(&self.path)
    }

    /// The number of its last raising, if it is raised: [`Doubt::end`] wants it.
    pub fn raised(&self) -> Option<u64> {
        let raised = self.raised.lock();
        raised.is_raised.then_some(raised.number)
    }

    /// Ends it, unless it was raised again since [`Doubt::raised`] gave that number. Waits for
    /// the disk.
    ///
    /// # Errors
    /// [`io::Error`]: it is raised still.
    pub fn end(&self, number: u64) -> io::Result<()> {
        let mut raised = self.raised.lock();
        if raised.number != number {
            return Ok(());
        }
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => sync_dir_of(&self.path)?,
        }
        raised.is_raised = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mark_outlives_a_restart_until_it_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        let open = || Doubt::open(dir.path().join("doubt"));
        let doubt = open();
        assert_eq!(doubt.raised(), None);
        doubt.raise().unwrap();
        assert!(doubt.raised().is_some());
        let doubt = open();
        let number = doubt.raised().expect("found raised");
        doubt.end(number).unwrap();
        assert_eq!((doubt.raised(), open().raised()), (None, None));
    }

    #[test]
    fn mark_that_was_raised_again_is_not_ended() {
        let dir = tempfile::tempdir().unwrap();
        let doubt = Doubt::open(dir.path().join("doubt"));
        doubt.raise().unwrap();
        let first = doubt.raised().unwrap();
        doubt.raise().unwrap();
        doubt.end(first).unwrap();
        assert!(doubt.raised().is_some_and(|again| again != first));
        assert!(Doubt::open(dir.path().join("doubt")).raised().is_some());
    }
}
