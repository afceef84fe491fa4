//! Tests of whole clusters, one module an area. See the library for how they run.

mod archive;
mod coherence;
mod copy;
mod crash;
mod differential;
mod creates;
mod fsx;
mod full;
mod locks;
mod mail;
mod members;
mod network;
mod pjdfstest;
mod posix;
mod production;
mod refusals;
mod shorthands;
mod up;
mod wire;
mod workspace;
