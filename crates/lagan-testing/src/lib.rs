//! Stand-ins for S3 that tests of several crates use. This crate is for development
//! only: no part of the product depends on it.
//!
//! - [`proxy`] stands between a client and an S3 server and breaks requests on
//!   demand; the program `s3-proxy` runs it beside a cluster.
//! - [`memory`] is an object store in memory, with faults on demand.

pub mod memory;
pub mod proxy;
