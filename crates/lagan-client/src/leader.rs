//! What is said to the leader, and what is known of the cluster.

pub(crate) mod cluster;
pub(crate) mod heartbeat;
pub(crate) mod ids;
pub(crate) mod link;
pub(crate) mod placement;
pub(crate) mod promises;
pub(crate) mod session;
pub(crate) mod window;
