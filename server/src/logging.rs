//! Logs to standard error, as text or JSON.

use crate::config::{Log, LogFormat};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Sets up logging for the process.
///
/// # Errors
/// The filter cannot be parsed, or logging was set up before.
pub(crate) fn init(log: &Log) -> Result<(), String> {
    let filter = EnvFilter::try_new(&log.level).map_err(|e| format!("level: {e}"))?;
    // openraft logs every election at info. At error it logs each of the many tries
    // while a server is away, which our own pool logs once, and every request that comes
    // while it stops. sled logs every flush. aws_config writes kilobytes about where
    // credentials come from, or why there are none; the mover says it in a line.
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
    let quiet = quiet
        .into_iter()
        .filter_map(|d| d.parse().ok())
        .fold(filter, EnvFilter::add_directive);
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(quiet)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal());
    match log.format {
        LogFormat::Text => subscriber.try_init(),
        LogFormat::Json => subscriber.json().try_init(),
    }
    .map_err(|e| e.to_string())
}
