//! Tests of whole clusters: real processes, real mounts, a real S3 server.
