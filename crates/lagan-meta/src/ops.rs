//! The operations, by area. Each validates all, then changes.

pub(crate) mod access;
pub(crate) mod acl;
pub(crate) mod archive;
pub(crate) mod attr;
pub(crate) mod cluster;
pub(crate) mod commit;
pub(crate) mod copy;
pub(crate) mod lock;
pub(crate) mod names;
pub(crate) mod orphan;
pub(crate) mod promise;
pub(crate) mod rename;
pub(crate) mod rewrite;
pub(crate) mod session;
pub(crate) mod xattr;
