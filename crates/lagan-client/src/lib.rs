//! The file system of a mount, without FUSE.
