//! Finds the cluster that a command is for.
//!
//! It looks in this order: `--cluster`; the mount that the first path, else the working
//! directory, is on; `./lagan-demo`; `/etc/lagan/client.toml`. It touches no mount without
//! a deadline, and none at all for the addresses of its servers: they are in the mount's
//! source (`addr,addr:/vol`), else in its `mount.json`.

use crate::exit::{Doing, Failure, Outcome};
use crate::hang;
use crate::layout::Layout;
use crate::record::Record;
use lagan_host::mounts::{self, Mount};
use lagan_host::servers;
use lagan_types::Mistake;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[cfg(test)]
mod tests;

/// Longest time to resolve a path, which may be on a mount that hangs.
const PATH_DEADLINE: Duration = Duration::from_secs(20);

/// A cluster's servers, and how they were found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Addresses of servers, `ip:port` or `name:port`.
    pub servers: Vec<String>,
    /// The place that named them, for messages.
    pub by: String,
    /// The record, if a directory of `lagan up` was named or found.
    pub record: Option<Record>,
}

/// The places to look at. Tests have their own.
#[derive(Debug, Clone)]
pub struct Places {
    /// The working directory.
    pub cwd: PathBuf,
    /// `/etc/lagan/client.toml`.
    pub client_toml: PathBuf,
    /// `/run/lagan`: a directory a mount, each with a `mount.json`.
    pub run_lagan: PathBuf,
    /// All mounts of the machine.
    pub mounts: Vec<Mount>,
}

impl Places {
    /// The places of this machine.
    ///
    /// # Errors
    /// When the working directory is gone, or /proc is not there.
    pub fn here() -> Outcome<Self> {
        Ok(Places {
            cwd: std::env::current_dir().doing(|| "find the working directory".into())?,
            client_toml: "/etc/lagan/client.toml".into(),
            run_lagan: "/run/lagan".into(),
            mounts: mounts::all().map_err(|e| Failure::error(e.to_string()))?,
        })
    }
}

/// Finds the cluster of a command with these arguments.
///
/// # Errors
/// Status 2 when there is no cluster, with what to do; status 1 when the one that was
/// found cannot be read.
pub fn find(cluster: Option<&str>, path: Option<&Path>, places: &Places) -> Outcome<Found> {
    if let Some(cluster) = cluster {
        return named(cluster);
    }
    let at = match path {
        Some(path) => resolve(&places.cwd.join(path))?,
        None => places.cwd.clone(),
    };
    if let Some(mount) = mounts::holding(&places.mounts, &at).filter(|m| m.is_lagan()) {
        return of_mount(mount, places);
    }
    let demo = places.cwd.join("lagan-demo");
    if demo.join("cluster.json").exists() {
        return of_directory(&demo);
    }
    if places.client_toml.exists() {
        return of_client_toml(&places.client_toml);
    }
    Err(Failure::usage(
        "no cluster found: name it by --cluster DIR or --cluster ip:port,ip:port, \
         or go to a mount of it",
    ))
}

/// The cluster of the mount that `path` is on.
///
/// # Errors
/// Status 2 when the path is on no mount: its inode number would mean another file.
pub fn of_path(path: &Path, places: &Places) -> Outcome<Found> {
    let at = resolve(&places.cwd.join(path))?;
    match mounts::holding(&places.mounts, &at).filter(|m| m.is_lagan()) {
        Some(mount) => of_mount(mount, places),
        None => Err(Failure::usage(format!(
            "{} is not on a mount of Lagan",
            path.display()
        ))),
    }
}

/// Makes a path absolute, without symbolic links, `.` and `..`.
fn resolve(path: &Path) -> Outcome<PathBuf> {
    let wanted = path.to_owned();
    match hang::within(PATH_DEADLINE, move || wanted.canonicalize()) {
        Some(found) => found.doing(|| path.display().to_string()),
        None => Err(Failure::error(format!(
            "{}: no answer from the mount",
            path.display()
        ))),
    }
}

fn named(cluster: &str) -> Outcome<Found> {
    let dir = Path::new(cluster);
    if dir.is_dir() {
        return of_directory(dir);
    }
    let servers = addresses(cluster);
    if servers.is_empty() {
        return Err(Failure::usage(format!(
            "--cluster {cluster}: neither a directory of `lagan up` nor ip:port,name:port"
        )));
    }
    Ok(Found {
        servers,
        by: format!("--cluster {cluster}"),
        record: None,
    })
}

fn of_directory(dir: &Path) -> Outcome<Found> {
    let layout = Layout::new(dir)?;
    let file = layout.cluster_json();
    if !file.exists() {
        return Err(Failure::usage(format!(
            "{} has no cluster.json: start it with `lagan up {}`",
            dir.display(),
            dir.display()
        )));
    }
    let record = Record::load(&file)?;
    Ok(Found {
        servers: record.servers(),
        by: file.display().to_string(),
        record: Some(record),
    })
}

fn of_mount(mount: &Mount, places: &Places) -> Outcome<Found> {
    let found = |servers, record| Found {
        servers,
        by: format!("the mount at {}", mount.point.display()),
        record,
    };
    let servers = addresses(mount.source.split(":/").next().unwrap_or(""));
    if !servers.is_empty() {
        return Ok(found(servers, None));
    }
    if let Some(servers) = of_mount_json(mount, &places.run_lagan) {
        return Ok(found(servers, None));
    }
    let record = mount.point.ancestors().skip(1).find_map(|dir| {
        let record = Record::load(&dir.join("cluster.json")).ok()?;
        record
            .mounts
            .iter()
            .any(|m| m.path == mount.point)
            .then_some(record)
    });
    match record {
        Some(record) => Ok(found(record.servers(), Some(record))),
        None => Err(Failure::error(format!(
            "the mount at {} does not say which servers it uses: name them by --cluster",
            mount.point.display()
        ))),
    }
}

fn of_mount_json(mount: &Mount, run_lagan: &Path) -> Option<Vec<String>> {
    for entry in std::fs::read_dir(run_lagan).ok()?.flatten() {
        let Ok(text) = std::fs::read(entry.path().join("mount.json")) else {
            continue;
        };
        let Ok(value) = serde_json::from_slice::<serde_json::Value>(&text) else {
            continue;
        };
        let point = value.get("mount_point").and_then(|p| p.as_str());
        if point.map(Path::new) != Some(mount.point.as_path()) {
            continue;
        }
        let servers: Vec<String> = value
            .get("servers")?
            .as_array()?
            .iter()
            .filter_map(|s| s.as_str().map(str::to_owned))
            .collect();
        return (!servers.is_empty()).then_some(servers);
    }
    None
}

/// `/etc/lagan/client.toml`: `servers = ["ip:port", ...]`.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ClientToml {
    servers: Vec<String>,
}

fn of_client_toml(path: &Path) -> Outcome<Found> {
    let text = std::fs::read_to_string(path).doing(|| format!("read {}", path.display()))?;
    let client: ClientToml = toml::from_str(&text).map_err(|e| toml_failure(path, &text, &e))?;
    Ok(Found {
        servers: client.servers,
        by: path.display().to_string(),
        record: None,
    })
}

/// Turns a TOML error into one line that names file and line.
pub fn toml_failure(path: &Path, text: &str, error: &toml::de::Error) -> Failure {
    let at = error.span().map(|span| span.start);
    let mistake = Mistake::parsing(text, at, error.message());
    Failure::usage(format!("{}:{mistake}", path.display()))
}

/// The addresses (`ip:port` or `name:port`) in a list with commas; empty if one part of the
/// list is no address.
fn addresses(list: &str) -> Vec<String> {
    let all: Vec<&str> = list.split(',').map(str::trim).collect();
    match all.iter().all(|a| servers::check(a).is_ok()) {
        true => all.into_iter().map(str::to_owned).collect(),
        false => Vec::new(),
    }
}
