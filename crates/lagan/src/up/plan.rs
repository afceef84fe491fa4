//! The plan of the processes to run. The first start makes it and keeps it in `up.json`;
//! later starts compare it with their arguments. Pure but for [`Plan::load`] and
//! [`Plan::store`].

use crate::cli::UpArgs;
use crate::exit::{Doing, Failure, Outcome};
use crate::layout::{Layout, replace_private};
use crate::up::archive::{S3Plan, first_archive};
use crate::up::same::{differs, same};
use crate::up::servers::{Machine, ServerPlan, check_distinct, server, server_count};
use lagan_host::mounts::mounted_at;
use lagan_types::limits::SET_MEMBERS_MAX;
use lagan_types::{ClusterId, Incarnation};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

#[cfg(test)]
mod tests;

/// The version of `up.json`.
const SCHEMA: u32 = 1;

/// `up.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// The version of this layout.
    pub schema: u32,
    /// The cluster; `None` until it was made.
    pub cluster: Option<ClusterId>,
    /// The volume's name.
    pub volume: String,
    /// Replicas of a chunk.
    pub copies: u8,
    /// Fewest replicas of a chunk, while servers are away.
    pub min_copies: u8,
    /// Milliseconds from a file's last change to its upload, as given to the last `lagan up`.
    /// It counts when the cluster is made; `lagan set` changes it later.
    pub archive_after_ms: u64,
    /// The servers in order: the N-th is `server-N`.
    pub servers: Vec<ServerPlan>,
    /// Mount points, absolute: the N-th is `mount-N`.
    pub mounts: Vec<PathBuf>,
    /// The archive.
    pub s3: S3Plan,
}

impl Plan {
    /// The stored plan; `None` before the first start.
    ///
    /// # Errors
    /// When the file is damaged or of another version.
    pub fn load(layout: &Layout) -> Outcome<Option<Self>> {
        let path = layout.up_json();
        let text = match std::fs::read(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(e).doing(|| format!("read {}", path.display())),
        };
        let plan: Plan =
            serde_json::from_slice(&text).doing(|| format!("parse {}", path.display()))?;
        match plan.schema {
            SCHEMA => Ok(Some(plan)),
            other => Err(Failure::error(format!(
                "{} has schema {other}, this program knows {SCHEMA}",
                path.display()
            ))),
        }
    }

    /// Replaces the stored plan.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn store(&self, layout: &Layout) -> Outcome<()> {
        let mut text = serde_json::to_vec_pretty(self).doing(|| "encode up.json".into())?;
        text.push(b'\n');
        replace_private(&layout.up_json(), &text)
    }

    /// Makes the plan of a directory that has none yet.
    ///
    /// # Errors
    /// Status 2 for arguments that contradict each other, status 1 when no port is free.
    pub fn first(args: &UpArgs, layout: &Layout, machine: &dyn Machine) -> Outcome<Self> {
        let count = server_count(args)?;
        let (copies, min_copies) = copies(args, count)?;
        let servers = (1..=count)
            .map(|n| server(args, n, machine))
            .collect::<Outcome<Vec<_>>>()?;
        check_distinct(&servers)?;
        let s3 = first_archive(args, layout, &servers, machine)?;
        Ok(Plan {
            schema: SCHEMA,
            cluster: None,
            volume: "vol".into(),
            copies,
            min_copies,
            archive_after_ms: args.archive_after.map_or(600_000, |d| d.as_millis() as u64),
            servers,
            mounts: mounts(&args.mount)?.unwrap_or_else(|| vec![layout.default_mount()]),
            s3,
        })
    }

    /// The plan of a later start: `--mount` and `--archive-after` are applied.
    ///
    /// # Errors
    /// Status 2 for an argument that differs from the stored plan.
    pub fn again(mut self, args: &UpArgs) -> Outcome<Self> {
        same("--servers", args.servers, self.servers.len())?;
        same("--copies", args.copies, self.copies)?;
        same("--min-copies", args.min_copies, self.min_copies)?;
        let ips: Vec<IpAddr> = self.servers.iter().map(|s| s.listen.ip()).collect();
        if !args.addrs.is_empty() && args.addrs != ips {
            return Err(differs("--addrs"));
        }
        let names: Vec<&str> = self
            .servers
            .iter()
            .filter_map(|s| s.netns.as_deref())
            .collect();
        if !args.netns.is_empty() && args.netns != names {
            return Err(differs("--netns"));
        }
        self.s3.check_same(args)?;
        if let Some(mounts) = mounts(&args.mount)? {
            self.mounts = mounts;
        }
        if let Some(after) = args.archive_after {
            self.archive_after_ms = after.as_millis() as u64;
        }
        Ok(self)
    }

    /// The configuration for the cluster's first command. The caller draws the ids.
    pub fn config(
        &self,
        cluster: ClusterId,
        incarnation: Incarnation,
    ) -> lagan_types::cluster::Config {
        lagan_types::cluster::Config {
            cluster,
            incarnation,
            volume: self.volume.clone(),
            copies: self.copies,
            min_copies: self.min_copies,
            archive_after_ms: self.archive_after_ms,
            archive: self.s3.config(),
            ..lagan_types::cluster::Config::default()
        }
    }
}

/// The default for the fewest replicas: 1 up to two copies, else 2.
pub fn default_min_copies(copies: u8) -> u8 {
    if copies <= 2 { 1 } else { 2 }
}

fn copies(args: &UpArgs, servers: usize) -> Outcome<(u8, u8)> {
    let most = servers.min(SET_MEMBERS_MAX);
    let copies = args.copies.unwrap_or(most.min(2) as u8);
    if copies == 0 || usize::from(copies) > most {
        return Err(Failure::usage(format!(
            "--copies {copies}: 1 to {most} are possible with {servers} servers"
        )));
    }
    let min_copies = args.min_copies.unwrap_or(default_min_copies(copies));
    if min_copies == 0 || min_copies > copies {
        return Err(Failure::usage(format!(
            "--min-copies {min_copies}: 1 to {copies} are possible with {copies} copies"
        )));
    }
    Ok((copies, min_copies))
}

/// The given mount points as absolute paths; `None` without any.
fn mounts(given: &[PathBuf]) -> Outcome<Option<Vec<PathBuf>>> {
    let mut out: Vec<PathBuf> = Vec::new();
    for path in given {
        let path = absolute(path)?;
        if out.contains(&path) {
            return Err(Failure::usage(format!("--mount {} twice", path.display())));
        }
        out.push(path);
    }
    Ok((!out.is_empty()).then_some(out))
}

/// Makes a path absolute and without links, as the kernel will show it. The last part is
/// not touched if something is mounted there, which may be dead.
fn absolute(path: &Path) -> Outcome<PathBuf> {
    let path = std::path::absolute(path).doing(|| format!("find {}", path.display()))?;
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(Failure::usage(format!(
            "--mount {}: cannot be mounted on",
            path.display()
        )));
    };
    let Ok(parent) = parent.canonicalize() else {
        return Ok(path);
    };
    let path = parent.join(name);
    let mounted = mounted_at(&path).map_err(|e| Failure::error(e.to_string()))?;
    Ok(match mounted {
        Some(_) => path,
        None => path.canonicalize().unwrap_or(path),
    })
}
