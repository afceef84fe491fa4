//! Behaviour of whole commands on a store in memory.

mod access;
mod acl;
mod archive;
mod capabilities;
mod cluster;
mod commit;
mod copy;
mod locks;
mod model;
mod names;
mod promise;
mod rewrite;
mod sessions;
pub(crate) mod world;
