//! Whole voters in one process, with a transport of function calls.

mod cluster;
mod confirm;
mod consensus;
mod disks;
mod single;
mod staging;
mod suite;
mod terms;
