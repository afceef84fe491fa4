//! The storage server: chunk service, metadata service, mover.
