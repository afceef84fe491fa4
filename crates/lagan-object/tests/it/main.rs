//! The client against a real server over HTTP, and against one that misbehaves;
//! what is built on a store, on one in memory.

// the bench, too, is a test, which clippy cannot see
#![allow(clippy::unwrap_used)]

mod bench;
mod faults;
mod objects;
mod owner;
mod probe;
mod tls;
