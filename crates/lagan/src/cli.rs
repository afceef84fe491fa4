//! The command line of `lagan`.

use crate::exit::HELP;
use clap::{Args, Parser, Subcommand};
use lagan_host::units::parse_duration;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// A replicated file system over a few servers, with S3 behind it.
#[derive(Debug, Parser)]
#[command(name = "lagan", version, after_help = HELP, disable_help_subcommand = true)]
pub struct Cli {
    /// The cluster: a directory of `lagan up`, or addresses of its servers.
    #[arg(long, global = true, value_name = "DIR|ADDR,ADDR")]
    pub cluster: Option<String>,
    /// Print one JSON document (schema 1) instead of text.
    #[arg(long, global = true)]
    pub json: bool,
    /// The command to run.
    #[command(subcommand)]
    pub command: Command,
}

/// One subcommand.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a whole cluster on this machine: servers, S3, mounts.
    #[command(after_help = HELP)]
    Up(UpArgs),
    /// Stop what `lagan up` started.
    #[command(after_help = HELP)]
    Down {
        /// The cluster's directory.
        #[arg(default_value = "./lagan-demo")]
        dir: PathBuf,
    },
    /// Show servers, leader, missing copies, archive backlog and the health of S3.
    #[command(after_help = HELP)]
    Status,
    /// Show where a file is: chunks, replicas, archive state, object key.
    #[command(after_help = HELP)]
    File {
        /// Files on a mount.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Show what the calls of programs on a mount cost it: time, requests to servers, bytes.
    #[command(after_help = HELP)]
    Profile {
        /// The mount point.
        mount: PathBuf,
        /// Watch for so many seconds; 0: show everything since the mount was made.
        #[arg(long, default_value_t = 10, value_name = "N")]
        seconds: u64,
    },
    /// Control the archive.
    #[command(subcommand, after_help = HELP)]
    Archive(ArchiveCommand),
    /// Drop the local copies of archived files.
    #[command(after_help = HELP)]
    Release {
        /// Files and directories on a mount.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Fetch released files from S3 ahead of their use.
    #[command(after_help = HELP)]
    Recall {
        /// Files and directories on a mount.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
    },
    /// Check that all data named by the metadata is there and intact, and find data that nothing names.
    #[command(after_help = HELP)]
    Check(CheckArgs),
    /// Make a cluster of one server, the one that this machine's `server.toml` describes.
    #[command(after_help = HELP)]
    Init(InitArgs),
    /// Add this machine's server to a cluster.
    #[command(after_help = HELP)]
    Join {
        /// Address of a server of that cluster.
        addr: String,
        /// The server that joins.
        #[command(flatten)]
        server: LocalServer,
    },
    /// Take a server that is gone for good out of the cluster, once others have its chunks.
    #[command(after_help = HELP)]
    Remove {
        /// The server's name, as `lagan status` shows it.
        #[arg(value_name = "NODE")]
        name: String,
        /// Remove it although it is up, or has the only replica of something, or too few servers
        /// are left; what cannot be saved is given up.
        #[arg(long)]
        force: bool,
    },
    /// Show or change the configuration that all servers share.
    #[command(after_help = HELP)]
    Set {
        /// Settings such as `archive_after=10m` or `copies=3`; without any, all are shown.
        #[arg(value_name = "KEY=VALUE")]
        changes: Vec<String>,
        /// Take another endpoint or bucket although files have their only copy in
        /// the present one.
        #[arg(long)]
        force: bool,
    },
    /// Look at a path in a process that can be given up (used by the program itself).
    #[command(hide = true)]
    ProbePath {
        /// The path to look at.
        path: PathBuf,
    },
}

/// `lagan archive ...`
#[derive(Debug, Subcommand)]
pub enum ArchiveCommand {
    /// Send files to S3 now, without waiting until they are due.
    Now {
        /// Files and directories on a mount.
        #[arg(required = true)]
        paths: Vec<PathBuf>,
        /// Return at once, without waiting until the files are in S3.
        #[arg(long)]
        no_wait: bool,
        /// Stop waiting after this long; the servers go on.
        #[arg(long, value_parser = parse_duration, value_name = "TIME")]
        timeout: Option<Duration>,
    },
}

/// `lagan up`
#[derive(Debug, Clone, Default, Args)]
pub struct UpArgs {
    /// Directory for everything: configuration, data, logs, cluster.json.
    #[arg(default_value = "./lagan-demo")]
    pub dir: PathBuf,
    /// Number of storage servers (3).
    #[arg(long, value_name = "N")]
    pub servers: Option<usize>,
    /// Replicas of each chunk (2, or 1 with one server).
    #[arg(long, value_name = "N")]
    pub copies: Option<u8>,
    /// Fewest replicas, while servers are away (1 with up to 2 copies, else 2).
    #[arg(long, value_name = "N")]
    pub min_copies: Option<u8>,
    /// Mount point; may be given several times (DIR/mnt).
    #[arg(long, value_name = "PATH")]
    pub mount: Vec<PathBuf>,
    /// The archive: `embedded`, `none`, or the URL of an endpoint (keys and region come from
    /// the AWS credential chain).
    #[arg(long, value_name = "embedded|none|URL")]
    pub s3: Option<String>,
    /// Bucket of the archive (lagan).
    #[arg(long, value_name = "B")]
    pub bucket: Option<String>,
    /// First part of each object's key.
    #[arg(long, value_name = "P")]
    pub s3_prefix: Option<String>,
    /// Time from a file's last change to its upload (10m).
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub archive_after: Option<Duration>,
    /// Addresses of the servers, instead of 127.77.X.N.
    #[arg(long, value_delimiter = ',', value_name = "A,B,C")]
    pub addrs: Vec<IpAddr>,
    /// Existing network namespaces for the servers.
    #[arg(long, value_delimiter = ',', value_name = "N1,N2,N3")]
    pub netns: Vec<String>,
    /// Return when all mounts answer.
    #[arg(long)]
    pub detach: bool,
}

/// `lagan check`
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct CheckArgs {
    /// Only look whether replicas are there, without reading them.
    #[arg(long)]
    pub fast: bool,
    /// Also ask S3 for each object, and look for objects that nothing names.
    #[arg(long)]
    pub objects: bool,
}

/// The server that a command is for: the one that this machine's configuration describes.
#[derive(Debug, Clone, Default, Args)]
pub struct LocalServer {
    /// Configuration file of the server.
    #[arg(long, default_value = "/etc/lagan/server.toml", value_name = "FILE")]
    pub config: PathBuf,
    /// Address of the server, instead of the one in its configuration.
    #[arg(long, value_name = "ADDR")]
    pub server: Option<String>,
}

/// `lagan init`
#[derive(Debug, Clone, Default, Args)]
pub struct InitArgs {
    /// The server of this machine.
    #[command(flatten)]
    pub server: LocalServer,
    /// Name of the volume.
    #[arg(long, default_value = "vol", value_name = "NAME")]
    pub volume: String,
    /// Shared configuration, as for `lagan set`.
    #[arg(value_name = "KEY=VALUE")]
    pub settings: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn up_takes_lists_and_durations() {
        let cli = Cli::try_parse_from([
            "lagan",
            "up",
            "d",
            "--addrs",
            "10.0.0.1,10.0.0.2",
            "--netns",
            "a,b",
            "--mount",
            "/m",
            "--mount",
            "/n",
            "--archive-after",
            "3s",
            "--detach",
        ])
        .unwrap();
        let Command::Up(up) = cli.command else {
            panic!("not up");
        };
        assert_eq!(up.addrs.len(), 2);
        assert_eq!(up.netns, ["a", "b"]);
        assert_eq!(up.mount.len(), 2);
        assert_eq!(up.archive_after, Some(Duration::from_secs(3)));
    }
}
