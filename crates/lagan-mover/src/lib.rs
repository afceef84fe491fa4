//! The mover: archive to S3, release, recall, delete.
