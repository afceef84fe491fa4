//! The program: arguments, logging, signals.

use crate::{Config, Server};
use clap::Parser;
use lagan_host::log::{LogFormat, Output, Setup};
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// A small S3 server for demonstrations and tests.
#[derive(Debug, Parser)]
#[command(name = "lagan-s3")]
struct Args {
    /// Configuration file (TOML).
    #[arg(long)]
    config: PathBuf,
}

/// Runs the program; `args` begins with its name.
///
/// Exit status: 0 after SIGTERM or SIGINT, 1 if it cannot run, 2 for wrong
/// arguments or a wrong configuration.
pub fn main_with_args(args: Vec<OsString>) -> ExitCode {
    let args = match Args::try_parse_from(args) {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { 2 } else { 0 });
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => return fail(1, &format!("start threads: {error}")),
    };
    runtime.block_on(run_server(&args.config))
}

fn fail(status: u8, message: &str) -> ExitCode {
    eprintln!("lagan-s3: {message}");
    ExitCode::from(status)
}

/// Starts logging, to a file or to standard error. The variable RUST_LOG has the filter, if
/// it holds one that can be understood.
fn start_log(file: Option<File>) {
    let wanted = std::env::var("RUST_LOG").ok();
    let wanted = wanted.filter(|filter| EnvFilter::try_new(filter).is_ok());
    // A second start in one process (tests) keeps the first log.
    let _ = lagan_host::log::start(Setup {
        filter: wanted.as_deref().unwrap_or("info,s3s=warn,hyper=warn"),
        quiet: &[],
        format: LogFormat::Text,
        is_flat: false,
        output: file.map_or(Output::Stderr, Output::File),
    });
}

async fn run_server(path: &Path) -> ExitCode {
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(message) => return fail(2, &message),
    };
    let log = match &config.log {
        None => None,
        Some(path) => match File::options().create(true).append(true).open(path) {
            Ok(file) => Some(file),
            Err(error) => return fail(1, &format!("open log {}: {error}", path.display())),
        },
    };
    start_log(log);
    let server = match Server::bind(&config).await {
        Ok(server) => server,
        Err(error) => return fail(1, &error.to_string()),
    };
    match server.local_addr() {
        Ok(addr) => tracing::info!(%addr, data = %config.data.display(), "listening"),
        Err(error) => return fail(1, &format!("listen on {}: {error}", config.listen)),
    }
    server.run(stop_signal()).await;
    tracing::info!("stopped");
    ExitCode::SUCCESS
}

/// Ready when the process is asked to end.
async fn stop_signal() {
    let (terminate, interrupt) = (
        signal(SignalKind::terminate()),
        signal(SignalKind::interrupt()),
    );
    match (terminate, interrupt) {
        (Ok(mut terminate), Ok(mut interrupt)) => {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        }
        _ => {
            let _ = tokio::signal::ctrl_c().await;
        }
    }
}
