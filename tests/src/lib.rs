//! Tests of whole clusters: real processes, real mounts, a real S3 server.
//!
//! The tests are in `tests/`, one module an area; this library is what they
//! share. A test asks for a [`Cluster`], which is `lagan up --detach` in a
//! temporary directory; its body runs on a thread of its own with a deadline,
//! so that a mount that hangs fails the test and not the run.
//!
//! What must hold: when a test is over, no process, mount or file of it is
//! left, whether it passed, failed or hung; and a cluster whose test passed
//! logged no ERROR that the test did not announce.
//!
//! The program under test is `lagan` beside the test program's directory (the
//! same build), or what the variable `LAGAN_BIN` names. `LAGAN_TEST_KEEP=1`
//! keeps the directories of failed tests, `LAGAN_LONG_TESTS=1` makes slow tests
//! run and others larger, `LAGAN_TEST_CLUSTERS=N` lets N clusters run at once.

pub mod binary;
pub mod cluster;
pub mod command;
pub mod corpus;
pub mod differ;
pub mod disk;
pub mod forgetful;
pub mod gauges;
pub mod history;
pub mod http;
pub mod leftover;
pub mod manifest;
pub mod namespaces;
pub mod network;
pub mod options;
pub mod power;
pub mod processes;
pub mod random;
pub mod record;
pub mod rot;
pub mod run;
pub mod s3;
pub mod saver;
pub mod slots;
pub mod source;
pub mod sys;
pub mod wait;
pub mod writer;

pub use cluster::Cluster;
pub use manifest::Manifest;
pub use options::Options;
pub use run::{with_cluster, with_shared};

/// Whether slow tests were asked for.
pub fn long() -> bool {
    std::env::var_os("LAGAN_LONG_TESTS").is_some_and(|v| v != "0" && !v.is_empty())
}

/// The first number, or the second where slow tests were asked for.
pub fn sized(short: usize, long_size: usize) -> usize {
    if long() { long_size } else { short }
}
