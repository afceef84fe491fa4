//! What tests of several crates put in the place of S3, or between S3 and its
//! clients. For development only: no part of the product depends on it.
//!
//! - [`proxy`] stands between a client and an S3 server and breaks requests on
//!   demand; the program `s3-proxy` runs it beside a cluster.
//! - [`memory`] is an object store in memory, with faults on demand.

pub mod memory;
pub mod proxy;
