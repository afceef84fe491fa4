//! The metadata state machine: pure, deterministic, without I/O.
//!
//! [`apply()`] carries out one command, [`query()`] answers one read. Both see the
//! state through [`kv`]; what they do depends on that state and the command
//! alone, so that all nodes reach the same bytes.

pub mod kv;
