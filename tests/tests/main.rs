//! Tests of whole clusters, one module an area. See the library for how they run.

mod acl;
mod archive;
mod coherence;
mod copy;
mod crash;
mod creates;
mod differential;
mod extents;
mod fsx;
mod full;
mod history;
mod limits;
mod locks;
mod mail;
mod members;
mod network;
mod objects;
mod pjdfstest;
mod posix;
mod production;
mod programs;
mod refusals;
mod shorthands;
mod up;
mod wire;
mod workspace;
