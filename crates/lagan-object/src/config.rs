//! Access to an endpoint: the `[s3]` table of a server's configuration.

use serde::Deserialize;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// A string that no log, status or error shows.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(secret: impl Into<String>) -> Self {
        Secret(secret.into())
    }

    /// The secret itself: only for the signer and for writing a 0600 file.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("\"...\"")
    }
}

/// The keys that requests are signed with.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(tag = "source", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Credentials {
    /// The credential chain: environment, profile files, container, instance.
    #[default]
    Chain,
    /// Fixed keys.
    Static {
        /// The key's name; not a secret.
        access_key: String,
        /// The key.
        secret_key: Secret,
        /// Session token that comes with temporary keys.
        #[serde(default)]
        session_token: Option<Secret>,
    },
}

/// The checksums by which an endpoint verifies what it receives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Checksum {
    /// CRC-32 of each object and part, in a header where it is known before.
    #[default]
    Crc32,
    /// The same headers, but no trailers and no checksums that S3 does not
    /// demand: for endpoints that know no `aws-chunked` encoding.
    WhenRequired,
    /// No checksums that S3 does not demand: for endpoints that refuse the
    /// headers. Uploads are then verified by reading back.
    None,
}

/// Time limits of the parts of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Timeouts {
    /// Milliseconds to connect.
    pub connect_ms: u64,
    /// Milliseconds for one attempt, besides the time that its bytes need.
    pub attempt_ms: u64,
    /// Slowest transfer, in bytes a second, that an attempt is given time for.
    pub rate_min_bytes: u64,
}

impl Default for Timeouts {
    /// 3 s, 30 s, 256 KiB/s: a slow line is no fault, a silent one is.
    fn default() -> Self {
        Timeouts {
            connect_ms: 3_000,
            attempt_ms: 30_000,
            rate_min_bytes: 256 * 1024,
        }
    }
}

impl Timeouts {
    /// Time to connect.
    pub fn connect(&self) -> Duration {
        Duration::from_millis(self.connect_ms.max(1))
    }

    /// Time for one attempt that moves `len` bytes.
    pub fn attempt(&self, len: u64) -> Duration {
        let transfer_ms = len.saturating_mul(1000) / self.rate_min_bytes.max(1);
        Duration::from_millis(self.attempt_ms.max(1).saturating_add(transfer_ms))
    }
}

/// An endpoint, a bucket in it and how to speak to it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct S3Config {
    /// URL of the endpoint (`http://127.0.0.1:9000`); absent: AWS of the region.
    #[serde(default)]
    pub endpoint: Option<String>,
    /// Region; absent: from the environment or profile, else `us-east-1`.
    #[serde(default)]
    pub region: Option<String>,
    /// Bucket.
    pub bucket: String,
    /// The keys that requests are signed with.
    #[serde(default)]
    pub credentials: Credentials,
    /// Bucket in the path instead of the host name; absent: when an endpoint is given.
    #[serde(default)]
    pub path_style: Option<bool>,
    /// PEM file of certificates to trust besides the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// Checksums that are sent with uploads.
    #[serde(default)]
    pub checksum: Checksum,
    /// Time limits of calls.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Parts of one multipart upload in flight.
    #[serde(default = "default_part_concurrency")]
    pub part_concurrency: usize,
    /// Attempts of one call before its error is returned.
    #[serde(default = "default_attempts_max")]
    pub attempts_max: u32,
}

/// Two 16 MiB parts keep a line busy; more would only cost memory.
fn default_part_concurrency() -> usize {
    2
}

/// Enough for a dropped connection; longer troubles are the caller's to space.
fn default_attempts_max() -> u32 {
    3
}

impl S3Config {
    /// A configuration with defaults for all but the bucket.
    pub fn new(bucket: impl Into<String>) -> Self {
        S3Config {
            endpoint: None,
            region: None,
            bucket: bucket.into(),
            credentials: Credentials::Chain,
            path_style: None,
            ca_file: None,
            checksum: Checksum::default(),
            timeouts: Timeouts::default(),
            part_concurrency: default_part_concurrency(),
            attempts_max: default_attempts_max(),
        }
    }

    /// True if the bucket goes into the path.
    pub fn uses_path_style(&self) -> bool {
        self.path_style.unwrap_or(self.endpoint.is_some())
    }

    /// Says what is wrong with the values, in one line for a user.
    ///
    /// # Errors
    /// The key and what it must be.
    pub fn check(&self) -> Result<(), String> {
        if self.bucket.is_empty() || self.bucket.contains('/') {
            return Err("s3.bucket: must be a bucket's name".into());
        }
        if let Some(url) = &self.endpoint {
            let rest = url
                .strip_prefix("http://")
                .or_else(|| url.strip_prefix("https://"));
            if rest.is_none_or(|r| r.is_empty() || r.starts_with('/')) {
                return Err(format!(
                    "s3.endpoint: {url:?} is no http:// or https:// URL"
                ));
            }
        }
        if !(1..=16).contains(&self.part_concurrency) {
            return Err("s3.part_concurrency: must be 1 to 16".into());
        }
        if !(1..=10).contains(&self.attempts_max) {
            return Err("s3.attempts_max: must be 1 to 10".into());
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
