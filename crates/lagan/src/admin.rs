//! The admin command. All its subcommands but `up` and `down` ask a running cluster.

mod archive;
mod check;
mod config;
mod file;
mod init;
mod recall;
mod release;
mod remove;
mod status;
mod walk;

use crate::cli::{ArchiveCommand, Cli, Command};
use crate::discover::{self, Found, Places};
use crate::exit::{Doing, Failure, OK, Outcome, USAGE};
use crate::net::{self, Cluster};
use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

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

/// Prints a JSON document with its schema.
///
/// # Errors
/// Never for the values of this program.
pub fn print_json(value: &impl serde::Serialize) -> Outcome<()> {
    let text = serde_json::to_string_pretty(value).doing(|| "encode the answer".into())?;
    println!("{text}");
    Ok(())
}

/// A line on stderr that is written over, on terminals; elsewhere a line every
/// ten seconds. Silent with `--json`.
pub struct Progress {
    silent: bool,
    terminal: bool,
    every: Duration,
    last: Option<Instant>,
    shown: usize,
}

impl Progress {
    /// Of a command; `json`: show nothing.
    pub fn new(json: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Progress {
            silent: json,
            terminal,
            every: Duration::from_millis(if terminal { 200 } else { 10_000 }),
            last: None,
            shown: 0,
        }
    }

    /// Shows how far it is, if it is time to.
    pub fn show(&mut self, text: impl FnOnce() -> String) {
        let now = Instant::now();
        let last = *self.last.get_or_insert(now);
        if self.silent || now.duration_since(last) < self.every {
            return;
        }
        self.last = Some(now);
        let text = text();
        if self.terminal {
            eprint!("\r{text:<width$}", width = self.shown);
            let _ = std::io::stderr().flush();
            self.shown = text.len();
        } else {
            eprintln!("{text}");
        }
    }

    /// Wipes the line, before the result is printed.
    pub fn end(&mut self) {
        if self.shown > 0 {
            eprint!("\r{:<width$}\r", "", width = self.shown);
            self.shown = 0;
        }
    }
}
