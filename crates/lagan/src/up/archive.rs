//! The place of the archive: the embedded S3 server, another endpoint, or none.

use crate::cli::UpArgs;
use crate::exit::{Failure, Outcome};
use crate::layout::Layout;
use crate::up::same::differs;
use crate::up::servers::{Machine, ServerPlan};
use lagan_types::cluster::ArchiveConfig;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// Bucket if nobody names one.
const BUCKET: &str = "lagan";
/// Region of the embedded S3 server.
const REGION: &str = "us-east-1";

/// The archive's part of the plan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", deny_unknown_fields)]
pub enum S3Plan {
    /// No archive.
    None,
    /// The embedded S3 server, in a process of its own.
    Embedded {
        /// Address that it listens on.
        listen: SocketAddr,
        /// Network namespace that it runs in: that of server 1.
        netns: Option<String>,
        /// The bucket.
        bucket: String,
        /// First part of each object's key.
        prefix: String,
        /// Drawn at the first start.
        access_key: String,
        /// Drawn at the first start.
        secret_key: String,
    },
    /// An S3 endpoint of somebody else.
    Url {
        /// `http://host:port`.
        endpoint: String,
        /// Region of the AWS configuration at the first start.
        region: String,
        /// The bucket, which must exist.
        bucket: String,
        /// First part of each object's key.
        prefix: String,
    },
}

/// The archive of a first start.
///
/// # Errors
/// Status 2 for options that do not fit.
pub fn first_archive(
    args: &UpArgs,
    layout: &Layout,
    servers: &[ServerPlan],
    machine: &dyn Machine,
) -> Outcome<S3Plan> {
    let _ = layout;
    let bucket = args.bucket.clone().unwrap_or_else(|| BUCKET.into());
    check_bucket(&bucket)?;
    let prefix = prefix(args)?.unwrap_or_default();
    match args.s3.as_deref().unwrap_or("embedded") {
        "none" if args.bucket.is_some() || args.s3_prefix.is_some() => Err(Failure::usage(
            "--s3 none goes with neither --bucket nor --s3-prefix",
        )),
        "none" => Ok(S3Plan::None),
        "embedded" => embedded(servers, machine, bucket, prefix),
        url => Ok(S3Plan::Url {
            endpoint: check_url(url)?,
            region: machine.aws_region(),
            bucket,
            prefix,
        }),
    }
}

fn embedded(
    servers: &[ServerPlan],
    machine: &dyn Machine,
    bucket: String,
    prefix: String,
) -> Outcome<S3Plan> {
    let netns = servers.first().and_then(|s| s.netns.clone());
    let ip = match (&netns, servers.first()) {
        (Some(_), Some(first)) => first.listen.ip(),
        _ => machine.own_ip(0),
    };
    let port = machine.ports(ip, 0, 1, netns.is_some())?;
    Ok(S3Plan::Embedded {
        listen: SocketAddr::new(ip, port.first().copied().unwrap_or(0)),
        netns,
        bucket,
        prefix,
        access_key: machine.random_key(20),
        secret_key: machine.random_key(40),
    })
}

impl S3Plan {
    /// The part that all servers must know.
    pub fn config(&self) -> Option<ArchiveConfig> {
        match self {
            S3Plan::None => None,
            S3Plan::Embedded {
                listen,
                bucket,
                prefix,
                ..
            } => Some(ArchiveConfig {
                endpoint: Some(format!("http://{listen}")),
                region: REGION.into(),
                bucket: bucket.clone(),
                prefix: prefix.clone(),
            }),
            S3Plan::Url {
                endpoint,
                region,
                bucket,
                prefix,
            } => Some(ArchiveConfig {
                endpoint: Some(endpoint.clone()),
                region: region.clone(),
                bucket: bucket.clone(),
                prefix: prefix.clone(),
            }),
        }
    }

    /// Access and secret key, unless they come from the credential chain.
    pub fn keys(&self) -> Option<(&str, &str)> {
        match self {
            S3Plan::Embedded {
                access_key,
                secret_key,
                ..
            } => Some((access_key, secret_key)),
            S3Plan::None | S3Plan::Url { .. } => None,
        }
    }

    /// Variables that servers need for the credential chain.
    pub fn env(&self) -> BTreeMap<String, String> {
        match self {
            S3Plan::Url { .. } => std::env::vars_os()
                .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
                .filter(|(k, _)| k.starts_with("AWS_") || k == "HOME")
                .collect(),
            S3Plan::None | S3Plan::Embedded { .. } => BTreeMap::new(),
        }
    }

    /// Compares later arguments with this.
    ///
    /// # Errors
    /// Status 2 for an argument that differs.
    pub fn check_same(&self, args: &UpArgs) -> Outcome<()> {
        let word = match self {
            S3Plan::None => "none",
            S3Plan::Embedded { .. } => "embedded",
            S3Plan::Url { endpoint, .. } => endpoint,
        };
        let given = args.s3.as_deref().map(|s| s.trim_end_matches('/'));
        if given.is_some_and(|s3| s3 != word) {
            return Err(differs("--s3"));
        }
        let config = self.config();
        let bucket = config.as_ref().map(|c| c.bucket.as_str());
        if args.bucket.is_some() && args.bucket.as_deref() != bucket {
            return Err(differs("--bucket"));
        }
        let stored = config.as_ref().map(|c| c.prefix.as_str());
        match prefix(args)? {
            Some(given) if Some(given.as_str()) != stored => Err(differs("--s3-prefix")),
            _ => Ok(()),
        }
    }
}

fn prefix(args: &UpArgs) -> Outcome<Option<String>> {
    let Some(prefix) = args.s3_prefix.as_deref() else {
        return Ok(None);
    };
    let prefix = prefix.trim_matches('/');
    if prefix.len() > 512 || prefix.chars().any(char::is_control) {
        return Err(Failure::usage(
            "--s3-prefix: at most 512 printable characters",
        ));
    }
    Ok(Some(prefix.to_owned()))
}

/// Whether a bucket's name follows the most important of Amazon's rules.
fn check_bucket(bucket: &str) -> Outcome<()> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_');
    if (1..=63).contains(&bucket.len()) && bucket.chars().all(plain) && !bucket.starts_with('.') {
        return Ok(());
    }
    Err(Failure::usage(format!("--bucket {bucket}: no bucket name")))
}

fn check_url(url: &str) -> Outcome<String> {
    let rest = url
        .strip_prefix("http://")
        .or_else(|| url.strip_prefix("https://"));
    let host = rest.map(|r| r.trim_end_matches('/'));
    match host {
        Some(host) if !host.is_empty() && !host.contains('@') => {
            Ok(url.trim_end_matches('/').to_owned())
        }
        _ => Err(Failure::usage(format!(
            "--s3 {url}: write embedded, none, or http(s)://host:port without keys"
        ))),
    }
}
