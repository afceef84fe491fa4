//! Uploads a directory tree to an S3 endpoint, as plainly as can be: the base
//! that the mover's archive rate is compared with.

use anyhow::{Result, ensure};
use clap::Parser;
use lagan_object::S3Config;
use std::path::PathBuf;

/// Uploads a directory tree to an S3 endpoint, many files at once, and prints the rate as JSON
#[derive(Debug, Parser)]
struct Args {
    /// The tree
    tree: PathBuf,
    /// Directory of a `lagan up`: endpoint, bucket and keys of its cluster
    #[arg(long, value_name = "DIR")]
    cluster: Option<PathBuf>,
    /// URL of an endpoint; keys come from the AWS credential chain
    #[arg(long, value_name = "URL", conflicts_with = "cluster")]
    endpoint: Option<String>,
    /// Bucket, with --endpoint
    #[arg(long, default_value = "lagan")]
    bucket: String,
    /// First part of each key
    #[arg(long, default_value = "plain")]
    prefix: String,
    /// Files at once
    #[arg(long, default_value_t = 16)]
    jobs: usize,
}

#[tokio::main]
async fn main() -> Result<()> {
    let args = Args::parse();
    ensure!((1..=1024).contains(&args.jobs), "--jobs: must be 1 to 1024");
    let config = match &args.cluster {
        Some(dir) => lagan_benches::upload::endpoint_of(&dir.join("cluster.json"))?,
        None => S3Config {
            endpoint: args.endpoint.clone(),
            ..S3Config::new(&args.bucket)
        },
    };
    let done = lagan_benches::upload::upload(&config, &args.tree, &args.prefix, args.jobs).await?;
    println!("{}", done.to_json());
    Ok(())
}
