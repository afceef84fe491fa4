//! How much room a key takes.

use lagan_types::lease::Key;

/// Returns about how many bytes a table spends on the key.
pub(crate) fn bytes_of(key: &Key) -> usize {
    /// A row of the map, one of the order, and their share of free space.
    const ROW_BYTES: usize = 160;
    match key {
        Key::Name(name) => ROW_BYTES + name.name.len(),
        Key::Inode(_) | Key::Directory(_) | Key::Exclusive(_) => ROW_BYTES,
    }
}
