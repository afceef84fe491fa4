//! `lagan up`: a whole cluster on one machine.
//!
//! ```text
//! arguments + up.json --plan--> what is to run --files--> etc/, bin/
//!   --start--> S3, servers, (init or join), mounts --> cluster.json --> wait, or return
//! ```
//! Every process runs as in production: under its own program name, with its own
//! configuration file, in a process group of its own. A start that fails stops what it
//! started; a first start that fails also removes the data that it made.

pub mod address;
pub mod archive;
pub mod check;
pub mod config;
pub mod files;
pub mod foreground;
pub mod plan;
pub mod process;
pub mod same;
pub mod servers;
pub mod start;
pub mod verdict;

pub use start::run;
