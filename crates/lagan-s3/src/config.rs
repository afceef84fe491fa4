//! The configuration file.

use lagan_types::Mistake;
use serde::Deserialize;
use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The configuration file that `--config` names: TOML, mode 0600 since it holds the
/// secret key.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Address to listen on; port 0 takes any free one.
    pub listen: SocketAddr,
    /// Directory of the data; it is made if its parent exists.
    pub data: PathBuf,
    /// Name of the one key pair.
    pub access_key: String,
    /// Secret of the key pair.
    pub secret_key: String,
    /// Region to answer when asked for one.
    #[serde(default = "default_region")]
    pub region: String,
    /// Buckets to make at start.
    #[serde(default)]
    pub buckets: Vec<String>,
    /// Sync each object before its put is answered. Without, an object that was
    /// answered survives the death of the process but not that of the machine.
    #[serde(default = "default_sync")]
    pub sync: bool,
    /// Refuse bytes that do not fit their checksum. Without, the server stores
    /// anything, as some do: for tests.
    #[serde(default = "default_sync")]
    pub verify: bool,
    /// File that the log is appended to; absent: stderr.
    #[serde(default)]
    pub log: Option<PathBuf>,
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("listen", &self.listen)
            .field("data", &self.data)
            .field("access_key", &self.access_key)
            .field("region", &self.region)
            .field("buckets", &self.buckets)
            .field("sync", &self.sync)
            .field("verify", &self.verify)
            .field("log", &self.log)
            .finish_non_exhaustive()
    }
}

fn default_region() -> String {
    "us-east-1".into()
}

fn default_sync() -> bool {
    true
}

impl Config {
    /// A configuration with defaults for all but these.
    pub fn new(listen: SocketAddr, data: PathBuf, access_key: &str, secret_key: &str) -> Self {
        Config {
            listen,
            data,
            access_key: access_key.into(),
            secret_key: secret_key.into(),
            region: default_region(),
            buckets: Vec::new(),
            sync: default_sync(),
            verify: true,
            log: None,
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// One line: the file, and the line and key that are wrong.
    pub fn load(path: &Path) -> Result<Self, String> {
        let text = std::fs::read_to_string(path)
            .map_err(|e| format!("read configuration {}: {e}", path.display()))?;
        let config: Config = toml::from_str(&text).map_err(|e| {
            let at = e.span().map(|span| span.start);
            let mistake = Mistake::parsing(&text, at, e.message());
            format!("{}:{mistake}", path.display())
        })?;
        if config.access_key.is_empty() || config.secret_key.is_empty() {
            return Err(format!(
                "{}: access_key and secret_key must be set",
                path.display()
            ));
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, String> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("s3.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path)
    }

    #[test]
    fn a_mistake_is_named_with_its_line_and_not_its_text() {
        let error = load("listen = '127.0.0.1:0'\ndata = 'd'\nsecret_key = 5\naccess_key = 'a'\n");
        let error = error.unwrap_err();
        assert!(error.contains("s3.toml:3: "), "{error}");
        let error = load("listen = '127.0.0.1:0'\ndata = 'd'\nsecretkey = 'hush'\n").unwrap_err();
        assert!(
            error.contains("secretkey") && !error.contains("hush"),
            "{error}"
        );
    }

    #[test]
    fn the_secret_is_not_shown() {
        let text = "listen = '127.0.0.1:0'\ndata = 'd'\nsecret_key = 'hush'\naccess_key = 'a'\n";
        let config = load(text).unwrap();
        assert!(config.sync && config.region == "us-east-1");
        assert!(!format!("{config:?}").contains("hush"));
    }
}
