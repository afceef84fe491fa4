//! A whole client against servers in this process: the real state machine and
//! chunks in memory, behind real connections on loopback.

#![allow(clippy::unwrap_used, reason = "a test that meets the unexpected ends")]

mod atime;
mod calls;
mod cluster;
mod coherence;
mod content;
mod copy;
mod faults;
mod inline;
mod model;
mod names;
mod promises;
