//! The embedded S3 server for demonstrations and tests.
//!
//! `lagan-s3 --config FILE` serves S3 over HTTP from a directory; `s3s` brings
//! the protocol (signatures, XML, chunked encoding), [`Store`] the disk.
//!
//! It is not part of a production cluster: no versions, no access rules, one
//! key pair, and an index in memory that grows with the number of objects.
//!
//! # What a crash leaves
//! Objects are written aside, synced and renamed: after any crash each object
//! is there whole or not at all. See [`Store`].

mod api;
mod body;
mod config;
mod record;
mod run;
mod server;
mod store;
mod upload;

pub use config::Config;
pub use run::main_with_args;
pub use server::{Server, ServerError};
pub use store::{Store, StoreError};
