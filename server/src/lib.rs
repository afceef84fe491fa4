//! The storage server: chunk service, metadata service, mover.
//!
//! ```text
//!             listen, peer_listen                 http
//!                    |                              |
//!                handler  ------------------->  http (/health, /metrics)
//!     meta |       chunk |        raft |
//!   leader service   ChunkService    Raft            Mover -> S3
//!     (leader only)      |             |               |
//!                      Store        log, redb       recall cache
//! ```
//!
//! A server starts as [`start`] says: data directory and identity first, then
//! the listeners; what belongs to a cluster ([`member`]) starts once it has one,
//! at `lagan init` or `lagan join`. The order of stopping is in [`shutdown`].

pub mod config;
pub mod fitness;
pub mod handler;
pub mod heartbeat;
pub mod http;
pub mod identity;
pub mod live;
pub mod log;
pub mod member;
pub mod meta_edge;
pub mod metrics;
pub mod mover_edge;
pub mod s3;
pub mod shutdown;
pub mod start;
pub mod transport;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// `lagan-server --config FILE`.
#[derive(Debug, clap::Parser)]
#[command(name = "lagan-server", version, about = "Lagan storage server")]
struct Args {
    /// Configuration file (TOML).
    #[arg(long, value_name = "FILE", default_value = "/etc/lagan/server.toml")]
    config: PathBuf,
}

/// Runs a server in the foreground until SIGTERM or SIGINT.
///
/// Exit status: 0 stopped in order, 1 could not start or had to stop, 2 wrong
/// arguments or configuration.
pub fn main_with_args(args: Vec<OsString>) -> ExitCode {
    let args = match <Args as clap::Parser>::try_parse_from(args) {
        Ok(args) => args,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(if e.use_stderr() { 2 } else { 0 });
        }
    };
    let config = match config::Config::load(&args.config) {
        Ok(config) => config,
        Err(e) => {
            eprintln!("lagan-server: {e}");
            return ExitCode::from(2);
        }
    };
    if let Err(e) = log::start(&config.log) {
        eprintln!("lagan-server: log: {e}");
        return ExitCode::from(2);
    }
    match start::run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            tracing::error!(error = format!("{e:#}"), "server stopped");
            eprintln!("lagan-server: {e:#}");
            ExitCode::FAILURE
        }
    }
}
