//! The settings of a mount, their defaults and their bounds.
//!
//! They come from `mount.toml` ([`crate::file`]) or from the command line, and from `-o`;
//! [`crate::options`] says which option sets which field.

use lagan_client::AccessTimes;
use lagan_host::log::LogFormat;
use lagan_host::servers;
use serde::Deserialize;
use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

/// All settings of one mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountConfig {
    /// Addresses of servers, `ip:port`; never empty.
    pub(crate) servers: Vec<String>,
    /// The volume's name.
    pub(crate) volume: String,
    /// The mount point as given.
    pub(crate) mount_point: PathBuf,
    /// Directory of lock, session and mount.json; `None`: one under /run/lagan.
    pub(crate) run_dir: Option<PathBuf>,
    /// Address that outgoing connections come from; `None`: the kernel chooses.
    pub(crate) bind: Option<IpAddr>,
    /// Every call is answered within this time.
    pub(crate) timeout: Duration,
    /// Written bytes of the whole mount that may wait for their commit.
    pub(crate) write_buffer_bytes: u64,
    /// Names and attributes are remembered while nobody else changes them.
    pub(crate) lease: bool,
    /// Locks known to this mount only.
    pub(crate) local_locks: bool,
    /// Users other than the mounting one may enter.
    pub(crate) allow_other: bool,
    /// Nothing can be changed through this mount.
    pub(crate) read_only: bool,
    /// Set-user-id bits work.
    pub(crate) suid: bool,
    /// Device nodes work.
    pub(crate) dev: bool,
    /// Files can be executed.
    pub(crate) exec: bool,
    /// Reading moves no access times.
    pub(crate) no_atime: bool,
    /// Reading moves no access times of directories.
    pub(crate) no_dir_atime: bool,
    /// Most requests at a time that nobody waits for, such as read-ahead.
    pub(crate) max_background: u16,
    /// The kernel's read-ahead.
    pub(crate) read_ahead_bytes: u64,
    /// Directory listings bring attributes along.
    pub(crate) readdirplus: bool,
    /// What is logged.
    pub(crate) log: LogConfig,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LogConfig {
    /// How a line looks.
    pub(crate) format: LogFormat,
    /// The least important lines shown.
    pub(crate) level: LogLevel,
}

/// How much is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum LogLevel {
    /// A person must act.
    Error,
    /// Wrong but survived.
    Warn,
    /// State changes.
    #[default]
    Info,
    /// Each request.
    Debug,
    /// Everything.
    Trace,
}

impl LogLevel {
    /// The level's name in a filter of log lines.
    pub(crate) fn name(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

impl MountConfig {
    /// The defaults for that cluster, volume and mount point.
    pub(crate) fn new(servers: Vec<String>, volume: String, mount_point: PathBuf) -> Self {
        MountConfig {
            servers,
            volume,
            mount_point,
            run_dir: None,
            bind: None,
            timeout: Duration::from_secs(120),
            write_buffer_bytes: 64 << 20,
            lease: true,
            local_locks: false,
            allow_other: true,
            read_only: false,
            suid: true,
            dev: true,
            exec: true,
            no_atime: false,
            no_dir_atime: false,
            // The kernel's 16 is too few for read-ahead over a network.
            max_background: 64,
            // Eight times fewer requests than with the kernel's 128 KiB.
            read_ahead_bytes: 1 << 20,
            // Without time-outs for names the kernel asks again for each entry,
            // so attributes in a listing only cost.
            readdirplus: false,
            log: LogConfig::default(),
        }
    }

    /// Checks values that have bounds. The error holds the key, and why.
    pub(crate) fn check(&self) -> Result<(), (&'static str, String)> {
        if self.servers.is_empty() {
            return Err(("servers", "name at least one server".into()));
        }
        for server in &self.servers {
            servers::check(server).map_err(|e| ("servers", e.to_string()))?;
        }
        if self.volume.is_empty() || self.volume.contains(['/', ',', '\0']) {
            return Err((
                "volume",
                format!("`{}` is not a volume's name", self.volume),
            ));
        }
        if self.mount_point.as_os_str().is_empty() {
            return Err(("mount_point", "is empty".into()));
        }
        if self.timeout < Duration::from_secs(1) || self.timeout > Duration::from_secs(86_400) {
            return Err(("timeout", "must be from 1s to 24h".into()));
        }
        if !(4 << 20..=16 << 30).contains(&self.write_buffer_bytes) {
            return Err(("write_buffer", "must be from 4MiB to 16GiB".into()));
        }
        if !(4 << 10..=64 << 20).contains(&self.read_ahead_bytes) {
            return Err(("read_ahead", "must be from 4KiB to 64MiB".into()));
        }
        if self.max_background == 0 {
            return Err(("max_background", "must be 1 or more".into()));
        }
        Ok(())
    }

    /// The access times that reads through this mount move; a read-only mount moves none.
    pub(crate) fn access_times(&self) -> AccessTimes {
        if self.no_atime || self.read_only {
            AccessTimes::None
        } else if self.no_dir_atime {
            AccessTimes::NoDirectories
        } else {
            AccessTimes::All
        }
    }

    /// The source that /proc/self/mountinfo shows for the mount: `addr,addr:/volume`.
    pub(crate) fn source(&self) -> String {
        format!("{}:/{}", self.servers.join(","), self.volume)
    }
}
