//! The bytes of chunks, there and back.

pub(crate) mod blocks;
pub(crate) mod fetch;
pub(crate) mod report;
pub(crate) mod store;
