//! Replication of the metadata: log, state store, snapshots, consensus.
