//! The object store behind the archive.
//!
//! The mover uses S3 through [`ObjectStore`]: put, ranged get, head, delete, list.
//! [`S3Store`] speaks to any S3 endpoint. Tests of the mover's logic use a store in
//! memory (`lagan-testing`).
//!
//! # What must hold
//! - A put is all or nothing: an object is there with all its bytes or not at
//!   all. A failed multipart upload is aborted; if the abort fails too,
//!   [`ObjectStore::list_uploads`] finds the upload.
//! - A put or delete that failed may have happened. Callers never write two
//!   different contents to one key, so both calls may be repeated.
//! - Memory is bounded by the parts in flight, whatever the object's length.
//! - No secret is ever shown: see [`Secret`].
//!
//! # Retries
//! The client repeats an attempt a few times; above it the mover repeats for
//! ever, spaced by [`Backoff`] per file and [`Breaker`] per endpoint.

mod backoff;
mod body;
mod breaker;
mod config;
mod error;
mod owner;
mod probe;
mod s3;
mod store;

pub use backoff::Backoff;
pub use body::{Body, BodySource};
pub use breaker::{Breaker, BreakerConfig, BreakerState, Permit};
pub use config::{Checksum, Credentials, S3Config, Secret, Timeouts};
pub use error::{ErrorKind, ObjectError};
pub use owner::{OWNER_NAME, Owner, OwnerError, claim_owner, owner_key, read_owner};
pub use probe::probe_wrong_checksum;
pub use s3::S3Store;
pub use store::{ListedObject, ListedUpload, ObjectInfo, ObjectMeta, ObjectStore};
