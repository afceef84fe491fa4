//! All that a mount remembers between calls, and why it is never stale.
//!
//! - [`FileMap`]: a file's extents at one data version, used only while no
//!   newer version was seen. The kernel asks for attributes before each read,
//!   so what another mount has closed is seen.
//! - [`BlockCache`]: bytes of chunks, which never change.
//! - [`KernelPages`]: which data version the kernel's pages of an inode may be
//!   from. Not a cache itself: it says when the kernel's must go.

mod blocks;
mod map;
mod pages;

pub use blocks::{BlockCache, UNIT_LEN};
pub use map::{FileMap, Part, Source};
pub use pages::{KernelPages, Seen};
