//! Which files are open here: their attributes in a listing must contain what
//! was written and not yet committed, or the kernel would cut mapped pages.

use lagan_types::Ino;
use parking_lot::Mutex;
use std::collections::HashMap;

/// Counts of open handles by inode.
#[derive(Debug, Default)]
pub(crate) struct OpenFiles(Mutex<HashMap<Ino, u32>>);

impl OpenFiles {
    /// One more handle.
    pub(crate) fn opened(&self, ino: Ino) {
        *self.0.lock().entry(ino).or_default() += 1;
    }

    /// One less.
    pub(crate) fn released(&self, ino: Ino) {
        let mut counts = self.0.lock();
        if let Some(count) = counts.get_mut(&ino) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&ino);
            }
        }
    }

    /// Whether there is any.
    pub(crate) fn is_open(&self, ino: Ino) -> bool {
        self.0.lock().contains_key(&ino)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_open_until_its_last_handle_went() {
        let opens = OpenFiles::default();
        opens.opened(Ino(5));
        opens.opened(Ino(5));
        opens.released(Ino(5));
        assert!(opens.is_open(Ino(5)));
        opens.released(Ino(5));
        opens.released(Ino(5));
        assert!(!opens.is_open(Ino(5)));
        assert!(opens.0.lock().is_empty());
    }
}
