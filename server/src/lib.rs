//! The storage server: it reads the configuration, joins the parts and stops them again.
//!
//! ```text
//!             listen, peer_listen                    http
//!                    |                                |
//!                 handler                     http (/health, /metrics)
//!      meta |      chunk |       raft |
//!   MetaService   ChunkService      Raft             Mover -> S3
//!   lagan-leader  lagan-replica   lagan-raft       lagan-mover
//!                      |              |                |
//!                    Store        log, redb       recall cache
//! ```
//!
//! A server starts as `start` says: data directory and identity first, then
//! the listeners. A `member` starts once the server belongs to a cluster: after
//! `lagan init` or `lagan join` (`birth`), or at once if it was one before. `shutdown`
//! says in which order all of it stops.

mod along;
mod birth;
mod config;
mod fitness;
mod handler;
mod heartbeat;
mod hints;
mod http;
mod identity;
mod live;
mod log;
mod member;
mod meta_edge;
mod metrics;
mod mover_edge;
mod node;
mod parts;
mod registration;
mod s3;
mod shutdown;
mod staged;
mod start;
mod transport;

pub use identity::refusal;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

/// The arguments: `lagan-server --config FILE`.
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
