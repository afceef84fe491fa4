//! `server.toml`: the settings of one server. Settings that all servers must agree on are
//! in the replicated configuration instead (`lagan set`).

use crate::s3::S3Secrets;
use lagan_host::log::LogFormat;
use lagan_host::units::Size;
use lagan_types::Mistake;
use serde::Deserialize;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// A server's configuration file. Unknown keys are refused.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// The name that people see; unique in the cluster.
    pub(crate) name: String,
    /// Data directory.
    pub(crate) data: PathBuf,
    /// Where mounts and the admin command connect.
    pub(crate) listen: SocketAddr,
    /// Where the other servers connect.
    pub(crate) peer_listen: SocketAddr,
    /// Where /health and /metrics are.
    pub(crate) http: SocketAddr,
    /// Address that outgoing connections come from; default: that of `peer_listen`.
    pub(crate) bind: Option<IpAddr>,
    /// Credentials for the archive; default: the AWS credential chain.
    #[serde(default)]
    pub(crate) s3: S3Secrets,
    /// Bytes of a chunk segment file.
    #[serde(default = "default_segment_len")]
    pub(crate) segment_len: Size,
    /// Bytes of a metadata log segment, written ahead with zeros.
    #[serde(default = "default_log_segment_len")]
    pub(crate) log_segment_len: Size,
    /// Write zeros ahead of small records: faster syncs for twice their bandwidth.
    #[serde(default = "default_true")]
    pub(crate) prewrite: bool,
    /// Bytes of memory for the metadata's cache.
    #[serde(default = "default_cache")]
    pub(crate) cache: Size,
    /// Bytes that chunks may take; default: what the disk has.
    pub(crate) capacity: Option<Size>,
    /// Bytes of disk for recalled files.
    #[serde(default = "default_recall_cache")]
    pub(crate) recall_cache: Size,
    /// Most files uploaded at the same time.
    #[serde(default = "default_uploads")]
    pub(crate) uploads: usize,
    /// How the server logs.
    #[serde(default)]
    pub(crate) log: Log,
}

/// The table `[log]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct Log {
    /// `text` or `json`.
    pub(crate) format: LogFormat,
    /// A level, or a filter as tracing-subscriber's `EnvFilter` reads it.
    pub(crate) level: String,
}

impl Default for Log {
    fn default() -> Self {
        Log {
            format: LogFormat::Text,
            level: "info".into(),
        }
    }
}

fn default_segment_len() -> Size {
    Size(64 << 20)
}

fn default_log_segment_len() -> Size {
    Size(32 << 20)
}

fn default_cache() -> Size {
    Size(64 << 20)
}

fn default_recall_cache() -> Size {
    Size(1 << 30)
}

fn default_uploads() -> usize {
    8
}

fn default_true() -> bool {
    true
}

impl Config {
    /// Reads and checks a configuration file.
    ///
    /// # Errors
    /// One line that names the file, the line and the key.
    pub(crate) fn load(path: &Path) -> Result<Config, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| format!("read configuration {}: {e}", path.display()))?;
        Self::parse(&text).map_err(|e| format!("{}:{e}", path.display()))
    }

    /// Parses and checks the text of a configuration file.
    ///
    /// # Errors
    /// One line that begins with the line's number and names the key, never the
    /// line's text, which may hold a secret.
    pub(crate) fn parse(text: &str) -> Result<Config, String> {
        let config: Config = toml::from_str(text).map_err(|e| {
            let at = e.span().map(|span| span.start);
            Mistake::parsing(text, at, e.message()).to_string()
        })?;
        let checked = config.check();
        checked.map_err(|(key, why)| Mistake::value(text, key, &why).to_string())?;
        Ok(config)
    }

    /// Checks values that have bounds. The error is the key, and why.
    fn check(&self) -> Result<(), (&'static str, String)> {
        let wrong = |key, why: &str| Err((key, why.to_owned()));
        if self.name.is_empty() || self.name.len() > 64 {
            return wrong("name", "must have 1 to 64 characters");
        }
        let addresses = [
            ("listen", self.listen),
            ("peer_listen", self.peer_listen),
            ("http", self.http),
        ];
        for (i, &(key, addr)) in addresses.iter().enumerate() {
            if addr.ip().is_unspecified() {
                let why = format!("{addr} would listen on all addresses: name the one to use");
                return Err((key, why));
            }
            if let Some((other, _)) = addresses[..i].iter().find(|(_, a)| *a == addr) {
                return Err((key, format!("{addr} is the address of {other}, too")));
            }
        }
        if !(1 << 20..=1 << 40).contains(&self.segment_len.0) {
            return wrong("segment_len", "must be between 1MiB and 1TiB");
        }
        if !(1 << 20..=1 << 30).contains(&self.log_segment_len.0) {
            return wrong("log_segment_len", "must be between 1MiB and 1GiB");
        }
        if !(1..=256).contains(&self.uploads) {
            return wrong("uploads", "must be between 1 and 256");
        }
        self.s3.check().map_err(|(key, why)| (key, why.to_owned()))
    }

    /// Returns the address that outgoing connections come from.
    pub(crate) fn bind_from(&self) -> IpAddr {
        self.bind.unwrap_or(self.peer_listen.ip())
    }
}

#[cfg(test)]
mod tests;
