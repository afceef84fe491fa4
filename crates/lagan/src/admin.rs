//! The admin command. All its subcommands but `up` and `down` ask a running cluster.

mod archive;
mod check;
mod config;
mod file;
mod init;
mod output;
mod profile;
mod recall;
mod release;
mod remove;
mod status;
mod walk;

use crate::cli::{ArchiveCommand, Cli, Command};
use crate::discover::{self, Found, Places};
use crate::exit::{Failure, OK, Outcome, USAGE};
use crate::net::{self, Cluster};
use std::path::{Path, PathBuf};

/// Runs a command line; returns its exit status.
///
/// # Errors
/// One line, and the status.
pub fn run(cli: Cli) -> Outcome<u8> {
    let cluster = cli.cluster.as_deref();
    let json = cli.json;
    match cli.command {
        Command::Up(args) => crate::up::run(&args, json),
        Command::Down { dir } => crate::down::run(&dir, json),
        Command::ProbePath { path } => {
            println!("{}", crate::hang::child(&path));
            Ok(OK)
        }
        Command::Init(args) => init::init(&args, json),
        Command::Join { addr, server } => init::join(&addr, &server, json),
        Command::Profile { mount, seconds } => profile::run(&mount, seconds, json),
        Command::Status => with(cluster, None, async |c, found| {
            status::run(&c, &found, json).await
        }),
        Command::Check(args) => with(cluster, None, async |c, _| check::run(&c, args, json).await),
        Command::Remove { name, force } => with(cluster, None, async |c, _| {
            remove::run(&c, &name, force, json).await
        }),
        Command::Set { changes, force } => with(cluster, None, async |c, _| {
            config::run(&c, &changes, force, json).await
        }),
        Command::File { paths } => {
            on_paths(cluster, &paths, async |c| file::run(&c, &paths, json).await)
        }
        Command::Archive(ArchiveCommand::Now {
            paths,
            no_wait,
            timeout,
        }) => on_paths(cluster, &paths, async |c| {
            archive::run(&c, &paths, (!no_wait).then_some(timeout), json).await
        }),
        Command::Release { paths } => on_paths(cluster, &paths, async |c| {
            release::run(&c, &paths, json).await
        }),
        Command::Recall { paths } => on_paths(cluster, &paths, async |c| {
            recall::run(&c, &paths, json).await
        }),
    }
}

fn with(
    cluster: Option<&str>,
    path: Option<&Path>,
    work: impl AsyncFnOnce(Cluster, Found) -> Outcome<u8>,
) -> Outcome<u8> {
    let found = discover::find(cluster, path, &Places::here()?)?;
    let client = found.servers.clone();
    net::run(async move { work(Cluster::new(&client).await?, found).await })
}

fn on_paths(
    cluster: Option<&str>,
    paths: &[PathBuf],
    work: impl AsyncFnOnce(Cluster) -> Outcome<u8>,
) -> Outcome<u8> {
    let first = paths.first().map(PathBuf::as_path);
    with(cluster, first, async |c, found| {
        check_paths(paths, &c, &found).await?;
        work(c).await
    })
}

/// Checks that every path is on a mount of that very cluster: elsewhere its inode number
/// means another file.
async fn check_paths(paths: &[PathBuf], cluster: &Cluster, found: &Found) -> Outcome<()> {
    let places = Places::here()?;
    for path in paths {
        let of_path = match discover::of_path(path, &places) {
            Ok(of_path) => of_path,
            // The mount does not tell its cluster, but --cluster did.
            Err(e) if e.status != USAGE => continue,
            Err(e) => return Err(e),
        };
        if of_path.servers.iter().any(|s| found.servers.contains(s)) {
            continue;
        }
        let theirs = Cluster::new(&of_path.servers)
            .await?
            .map()
            .await?
            .config
            .cluster;
        if theirs != cluster.map().await?.config.cluster {
            return Err(Failure::usage(format!(
                "{} is on a mount of another cluster",
                path.display()
            )));
        }
    }
    Ok(())
}
