//! Knows the files that are open here. Their attributes in a listing must include
//! uncommitted writes, or the kernel would cut off mapped pages.

use lagan_types::Ino;
use parking_lot::Mutex;
use std::collections::HashMap;

/// The number of open handles of each inode.
#[derive(Debug, Default)]
pub(crate) struct OpenFiles(Mutex<HashMap<Ino, u32>>);

impl OpenFiles {
    /// Counts a new handle.
    pub(crate) fn opened(&self, ino: Ino) {
        *self.0.lock().entry(ino).or_default() += 1;
    }

    /// Counts a closed handle.
    pub(crate) fn released(&self, ino: Ino) {
        let mut counts = self.0.lock();
        if let Some(count) = counts.get_mut(&ino) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&ino);
            }
        }
    }

    /// Whether the inode has an open handle.
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
