//! Configuration files of the daemons, as in production.

use crate::exit::{Doing, Outcome};
use crate::layout::{Layout, Role};
use crate::up::archive::S3Plan;
use crate::up::plan::Plan;
use crate::up::servers::ServerPlan;
use serde::Serialize;
use std::path::{Path, PathBuf};

#[derive(Serialize)]
struct ServerToml<'a> {
    name: &'a str,
    data: PathBuf,
    listen: String,
    peer_listen: String,
    http: String,
    bind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    s3: Option<KeysToml<'a>>,
    log: LogToml,
}

#[derive(Serialize)]
struct KeysToml<'a> {
    access_key: &'a str,
    secret_key: &'a str,
}

#[derive(Serialize)]
struct LogToml {
    format: &'static str,
    level: &'static str,
}

#[derive(Serialize)]
struct MountToml<'a> {
    servers: Vec<String>,
    volume: &'a str,
    mount_point: &'a Path,
    run_dir: PathBuf,
    log: LogToml,
}

#[derive(Serialize)]
struct S3Toml<'a> {
    listen: String,
    data: PathBuf,
    access_key: &'a str,
    secret_key: &'a str,
    region: String,
    buckets: Vec<&'a str>,
}

const LOG: LogToml = LogToml {
    format: "text",
    level: "info",
};

/// The text of a server's `server.toml`.
///
/// # Errors
/// When a path is not UTF-8.
pub fn server(layout: &Layout, plan: &Plan, server: &ServerPlan) -> Outcome<String> {
    render(&ServerToml {
        name: &server.name,
        data: layout.data(Role::Server, &server.name),
        listen: server.listen.to_string(),
        peer_listen: server.peer_listen.to_string(),
        http: server.http.to_string(),
        bind: server.listen.ip().to_string(),
        s3: plan.s3.keys().map(|(access_key, secret_key)| KeysToml {
            access_key,
            secret_key,
        }),
        log: LOG,
    })
}

/// The text of a mount's `mount.toml`.
///
/// # Errors
/// When a path is not UTF-8.
pub fn mount(layout: &Layout, plan: &Plan, name: &str, point: &Path) -> Outcome<String> {
    render(&MountToml {
        servers: plan.servers.iter().map(|s| s.listen.to_string()).collect(),
        volume: &plan.volume,
        mount_point: point,
        run_dir: layout.data(Role::Mount, name),
        log: LOG,
    })
}

/// The configuration of the embedded S3 server; `None` without one.
///
/// # Errors
/// When a path is not UTF-8.
pub fn s3(layout: &Layout, plan: &Plan) -> Outcome<Option<String>> {
    let S3Plan::Embedded {
        listen,
        bucket,
        access_key,
        secret_key,
        ..
    } = &plan.s3
    else {
        return Ok(None);
    };
    let region = plan.s3.config().map(|c| c.region).unwrap_or_default();
    render(&S3Toml {
        listen: listen.to_string(),
        data: layout.data(Role::S3, "s3"),
        access_key,
        secret_key,
        region,
        buckets: vec![bucket],
    })
    .map(Some)
}

fn render(value: &impl Serialize) -> Outcome<String> {
    toml::to_string(value).doing(|| "write configuration".into())
}
