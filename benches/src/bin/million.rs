//! Fills a stopped server's data directory with files and chunks, to measure
//! how long a start with them takes.

use anyhow::Result;
use clap::Parser;
use lagan_benches::million::{End, generate};
use std::path::PathBuf;

/// Fills the stopped server of a cluster of one with files, each of one chunk
#[derive(Debug, Parser)]
struct Args {
    /// The server's data directory (DIR/server-1 of a `lagan up DIR --servers 1`)
    data: PathBuf,
    /// Number of files
    #[arg(long, default_value_t = 1_000_000)]
    files: u64,
    /// Number of the first file, a multiple of 1,000: to add more to an earlier run
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Leave the stores as a killed server would: the program aborts at its end
    #[arg(long)]
    kill: bool,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    let end = if args.kill { End::Killed } else { End::Closed };
    generate(&args.data, args.first, args.files, end).await
}
