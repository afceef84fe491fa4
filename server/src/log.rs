//! The log of a server: on standard error, as text or JSON.

use crate::config::Log;
use lagan_host::log::{LogError, Output, Setup};

/// Starts logging for the process.
///
/// # Errors
/// The level cannot be understood, or the process logs already.
pub(crate) fn start(log: &Log) -> Result<(), LogError> {
    // openraft reports every election at info. At error it reports each of the many tries
    // while a server is away, which our own pool reports once, and requests that come while
    // it stops. sled reports every flush. aws_config says by the kilobyte where credentials
    // come from, or why there are none; the mover says it in a line.
    let quiet = [
        "openraft=warn",
        "openraft::core::raft_core=off",
        "openraft::engine=error",
        "openraft::raft::raft_inner=off",
        "openraft::replication=off",
        "sled=warn",
        "aws_config=off",
        "aws_runtime=error",
        "aws_smithy_runtime=error",
        "aws_credential_types=error",
    ];
    lagan_host::log::start(Setup {
        filter: &log.level,
        quiet: &quiet,
        format: log.format,
        is_flat: false,
        output: Output::Terminal,
    })
}
