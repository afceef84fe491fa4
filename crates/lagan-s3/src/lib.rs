//! The embedded S3 server for demonstrations and tests.
