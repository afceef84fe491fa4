//! What a mount is told: from `mount.toml`, or from the command line and `-o`.
//!
//! Every default is here. Unknown keys are refused with the key and its line.

use crate::failure::Failure;
use lagan_client::AccessTimes;
use lagan_host::log::LogFormat;
use lagan_host::servers;
use lagan_host::units::{Size, Span};
use lagan_types::Mistake;
use serde::Deserialize;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[cfg(test)]
mod tests;

/// All settings of one mount, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MountConfig {
    /// Addresses of servers, `ip:port`; never empty.
    pub(crate) servers: Vec<String>,
    /// The volume's name.
    pub(crate) volume: String,
    /// Where to mount, as given.
    pub(crate) mount_point: PathBuf,
    /// For the lock, the session and mount.json; `None`: under /run/lagan.
    pub(crate) run_dir: Option<PathBuf>,
    /// Outgoing connections come from this address.
    pub(crate) bind: Option<IpAddr>,
    /// Within this time every call is answered.
    pub(crate) timeout: Duration,
    /// Bytes written that may wait for their commit, of the whole mount.
    pub(crate) write_buffer_bytes: u64,
    /// Locks known to this mount only.
    pub(crate) local_locks: bool,
    /// Other users than the mounting one may enter.
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
    /// Read-ahead and other requests that nobody waits for, at most.
    pub(crate) max_background: u16,
    /// The kernel's read-ahead.
    pub(crate) read_ahead_bytes: u64,
    /// Directory listings bring attributes along.
    pub(crate) readdirplus: bool,
    /// What is logged.
    pub(crate) log: LogConfig,
}

/// What is logged, and how.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct LogConfig {
    /// For people or for machines.
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
    /// The level as a filter of log lines has it.
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
            // With time-outs of zero the kernel asks again for each entry, so
            // attributes in a listing only cost.
            readdirplus: false,
            log: LogConfig::default(),
        }
    }

    /// Reads and checks a file.
    ///
    /// # Errors
    /// A line that names the file, the line and the key.
    pub(crate) fn load(path: &Path) -> Result<Self, Failure> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| Failure::usage(format!("read {}: {e}", path.display())))?;
        Self::parse(&text).map_err(|e| Failure::usage(format!("{}:{e}", path.display())))
    }

    /// Checks the text of a file. The error begins with the line's number.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let file: MountFile = toml::from_str(text).map_err(|e| {
            let at = e.span().map(|span| span.start);
            Mistake::parsing(text, at, e.message()).to_string()
        })?;
        let mut config = MountConfig::new(file.servers, file.volume, file.mount_point);
        config.run_dir = file.run_dir;
        config.bind = file.bind;
        config.log = file.log;
        set(&mut config.timeout, file.timeout.map(|t| t.0));
        set(
            &mut config.write_buffer_bytes,
            file.write_buffer.map(|s| s.0),
        );
        set(&mut config.read_ahead_bytes, file.read_ahead.map(|s| s.0));
        set(&mut config.local_locks, file.locallocks);
        set(&mut config.allow_other, file.allow_other);
        set(&mut config.read_only, file.read_only);
        set(&mut config.suid, file.suid);
        set(&mut config.dev, file.dev);
        set(&mut config.exec, file.exec);
        set(&mut config.no_atime, file.noatime);
        set(&mut config.no_dir_atime, file.nodiratime);
        set(&mut config.max_background, file.max_background);
        set(&mut config.readdirplus, file.readdirplus);
        config
            .check()
            .map_err(|(key, e)| Mistake::value(text, key, &e).to_string())?;
        Ok(config)
    }

    /// Checks values that have bounds. The error names the key.
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

    /// Whose access times reads move: through a mount that changes nothing, none.
    pub(crate) fn access_times(&self) -> AccessTimes {
        if self.no_atime || self.read_only {
            AccessTimes::None
        } else if self.no_dir_atime {
            AccessTimes::NoDirectories
        } else {
            AccessTimes::All
        }
    }

    /// The mount's source as /proc/self/mountinfo shows it: `addr,addr:/volume`.
    pub(crate) fn source(&self) -> String {
        format!("{}:/{}", self.servers.join(","), self.volume)
    }
}

/// `mount.toml` as written.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct MountFile {
    servers: Vec<String>,
    #[serde(default = "default_volume")]
    volume: String,
    mount_point: PathBuf,
    run_dir: Option<PathBuf>,
    bind: Option<IpAddr>,
    timeout: Option<Span>,
    write_buffer: Option<Size>,
    read_ahead: Option<Size>,
    locallocks: Option<bool>,
    allow_other: Option<bool>,
    read_only: Option<bool>,
    suid: Option<bool>,
    dev: Option<bool>,
    exec: Option<bool>,
    noatime: Option<bool>,
    nodiratime: Option<bool>,
    max_background: Option<u16>,
    readdirplus: Option<bool>,
    #[serde(default)]
    log: LogConfig,
}

fn default_volume() -> String {
    "vol".into()
}

fn set<T>(place: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *place = value;
    }
}
