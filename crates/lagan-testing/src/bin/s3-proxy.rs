//! `s3-proxy` stands between clients and an S3 server and breaks requests on
//! demand, until it is killed.

use clap::Parser;
use lagan_testing::proxy::{Control, Proxy};
use std::net::SocketAddr;
use std::path::PathBuf;
use tracing_subscriber::EnvFilter;

/// Stand between clients and an S3 server and break things on demand
#[derive(Debug, Parser)]
struct Args {
    /// Address to listen on
    #[arg(long)]
    listen: SocketAddr,
    /// Address of the server
    #[arg(long)]
    to: SocketAddr,
    /// File whose content is the fault of each request; absent or empty: none
    #[arg(long)]
    control: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,hyper=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let proxy = Proxy::bind(args.listen, args.to, Control::File(args.control)).await?;
    tracing::info!(addr = %proxy.local_addr(), to = %args.to, "listening");
    proxy.run(std::future::pending()).await;
    Ok(())
}
