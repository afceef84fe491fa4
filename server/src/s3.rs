//! How this server speaks to the archive: the replicated part of the
//! configuration joined with the secrets of its own file.

use lagan_object::{Checksum, Credentials, S3Config, Secret};
use lagan_types::cluster::ArchiveConfig;
use serde::Deserialize;
use std::path::PathBuf;

/// The table `[s3]` of `server.toml`. Never shown in logs, status or metrics.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct S3Secrets {
    /// Access key; without one the AWS credential chain is asked.
    pub(crate) access_key: Option<String>,
    /// Secret key.
    pub(crate) secret_key: Option<Secret>,
    /// Token of temporary keys.
    pub(crate) session_token: Option<Secret>,
    /// PEM file of certificates to trust besides the system's.
    pub(crate) ca_file: Option<PathBuf>,
    /// How uploads are verified.
    pub(crate) checksum: Checksum,
    /// Bucket in the path; default: when an endpoint is configured.
    pub(crate) path_style: Option<bool>,
}

impl S3Secrets {
    /// Checks that there are both keys or none.
    ///
    /// # Errors
    /// The name of the key, and what is wrong with it.
    pub(crate) fn check(&self) -> Result<(), (&'static str, &'static str)> {
        match (&self.access_key, &self.secret_key) {
            (Some(_), None) => Err(("s3.access_key", "has no secret_key beside it")),
            (None, Some(_)) => Err(("s3.secret_key", "has no access_key beside it")),
            _ => Ok(()),
        }
    }

    /// Joins the secrets with the replicated part into the endpoint's configuration.
    pub(crate) fn join(&self, archive: &ArchiveConfig) -> S3Config {
        let mut config = S3Config::new(archive.bucket.clone());
        config.endpoint.clone_from(&archive.endpoint);
        config.region = Some(archive.region.clone());
        config.ca_file.clone_from(&self.ca_file);
        config.checksum = self.checksum;
        config.path_style = self.path_style;
        if let (Some(access_key), Some(secret_key)) = (&self.access_key, &self.secret_key) {
            config.credentials = Credentials::Static {
                access_key: access_key.clone(),
                secret_key: secret_key.clone(),
                session_token: self.session_token.clone(),
            };
        }
        config
    }
}
