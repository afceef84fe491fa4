//! Workload tables.
