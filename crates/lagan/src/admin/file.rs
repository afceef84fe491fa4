//! `lagan file`: where a file is.

use crate::admin::print_json;
use crate::exit::{DEGRADED, Doing, Failure, OK, Outcome};
use crate::net::Cluster;
use crate::{probe, units};
use lagan_types::attr::{ArchiveState, Kind};
use lagan_types::cluster::{ClusterMap, NodeState};
use lagan_types::query::Object;
use lagan_types::{Attr, Content, Extent, Ino, Query, QueryAnswer};
use serde::Serialize;
use std::fmt::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[cfg(test)]
mod tests;

/// The mount answers within its own time-out (120 s by default) or not at all.
const STAT_DEADLINE: Duration = Duration::from_secs(150);

#[derive(Debug, Serialize)]
struct Report {
    schema: u32,
    files: Vec<FileReport>,
}

/// One file.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct FileReport {
    path: String,
    ino: u64,
    kind: Kind,
    size: u64,
    version: u64,
    state: ArchiveState,
    /// Lowest number of healthy replicas of its chunks, and how many are wanted.
    copies: Copies,
    /// `bucket/key` of the newest archived version.
    object: Option<String>,
    object_version: Option<u64>,
    object_crc32: Option<String>,
    extents: Vec<ExtentReport>,
    /// Of which `extents` shows the first.
    extent_count: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Copies {
    healthy: Option<usize>,
    wanted: u8,
}

/// One range of it.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct ExtentReport {
    offset: u64,
    len: u64,
    /// `chunk`, `object` or `lost`.
    place: &'static str,
    chunk: Option<String>,
    set: Option<u32>,
    /// Where the chunk is: names, and whether each is up.
    replicas: Vec<Replica>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
struct Replica {
    server: String,
    up: bool,
}

/// Shows each path.
///
/// # Errors
/// The first that is not there, or the cluster's.
pub async fn run(cluster: &Cluster, paths: &[PathBuf], json: bool) -> Outcome<u8> {
    let map = cluster.map().await?;
    let mut files = Vec::new();
    for path in paths {
        files.push(file(cluster, &map, path).await?);
    }
    let lost = |f: &FileReport| f.extents.iter().any(|e| e.place == "lost");
    let short = |f: &FileReport| f.copies.healthy.is_some_and(|h| h < f.copies.wanted.into());
    let degraded = files.iter().any(|f| lost(f) || short(f));
    if json {
        print_json(&Report { schema: 1, files })?;
    } else {
        files.iter().for_each(|f| print!("{}", f.text()));
    }
    Ok(if degraded { DEGRADED } else { OK })
}

async fn file(cluster: &Cluster, map: &ClusterMap, path: &Path) -> Outcome<FileReport> {
    let ino = ino_of(path)?;
    let answer = cluster.query(Query::File { ino }).await?;
    match answer.doing(|| path.display().to_string())? {
        QueryAnswer::File {
            attr,
            extents,
            extent_count,
            object,
            ..
        } => Ok(FileReport::new(
            path,
            map,
            &attr,
            &extents,
            extent_count,
            object.as_ref(),
        )),
        other => Err(crate::net::unexpected(&other)),
    }
}

fn ino_of(path: &Path) -> Outcome<Ino> {
    let wanted = path.to_owned();
    match probe::within(STAT_DEADLINE, move || std::fs::symlink_metadata(wanted)) {
        Some(meta) => Ok(Ino(meta.doing(|| path.display().to_string())?.ino())),
        None => Err(Failure::error(format!(
            "{}: no answer from the mount",
            path.display()
        ))),
    }
}

impl FileReport {
    fn new(
        path: &Path,
        map: &ClusterMap,
        attr: &Attr,
        extents: &[Extent],
        extent_count: u64,
        object: Option<&Object>,
    ) -> Self {
        let extents: Vec<ExtentReport> = extents.iter().map(|e| extent(e, map)).collect();
        let chunks = extents.iter().filter(|e| e.place == "chunk");
        let healthy = chunks.map(|e| e.replicas.iter().filter(|r| r.up).count());
        let bucket = map
            .config
            .archive
            .as_ref()
            .map_or("", |a| a.bucket.as_str());
        FileReport {
            path: path.display().to_string(),
            ino: attr.ino.0,
            kind: attr.kind,
            size: attr.size,
            version: attr.version,
            state: attr.archive,
            copies: Copies {
                healthy: healthy.min(),
                wanted: map.config.copies,
            },
            object: object.map(|o| format!("{bucket}/{}", o.key)),
            object_version: object.map(|o| o.version),
            object_crc32: object.map(|o| format!("{:08x}", o.crc)),
            extents,
            extent_count,
        }
    }

    fn text(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "{}\n  inode    {}, {:?}, {}, version {}",
            self.path,
            self.ino,
            self.kind,
            units::bytes(self.size),
            self.version
        );
        if self.kind != Kind::File {
            return out;
        }
        let _ = writeln!(out, "  state    {}", self.state.as_str());
        if let Some(healthy) = self.copies.healthy {
            let _ = writeln!(out, "  copies   {healthy}/{}", self.copies.wanted);
        }
        match &self.object {
            Some(object) => {
                let old = self.object_version.is_some_and(|v| v != self.version);
                let note = if old { " (an older version)" } else { "" };
                let _ = writeln!(out, "  object   {object}{note}");
            }
            None => out.push_str("  object   none\n"),
        }
        let _ = writeln!(out, "  extents  {}", self.extent_count);
        for e in &self.extents {
            let _ = write!(out, "  {:>12} +{:<10} {}", e.offset, e.len, e.place);
            if let Some(chunk) = &e.chunk {
                let _ = write!(out, " {chunk} on");
            }
            for r in &e.replicas {
                let _ = write!(out, " {}{}", r.server, if r.up { "" } else { "(down)" });
            }
            out.push('\n');
        }
        let more = self.extent_count.saturating_sub(self.extents.len() as u64);
        if more > 0 {
            let _ = writeln!(out, "  ... and {more} extents more");
        }
        out
    }
}

fn extent(extent: &Extent, map: &ClusterMap) -> ExtentReport {
    let mut report = ExtentReport {
        offset: extent.offset,
        len: extent.len,
        place: "lost",
        chunk: None,
        set: None,
        replicas: Vec::new(),
    };
    match &extent.content {
        Content::Lost => {}
        Content::Object { .. } => report.place = "object",
        Content::Chunk { id, .. } => {
            report.place = "chunk";
            report.chunk = Some(id.to_string());
            report.set = Some(id.set().0);
            let members = map.set(id.set()).map_or(&[][..], |s| &s.nodes);
            report.replicas = members
                .iter()
                .map(|&id| Replica {
                    server: map.node(id).map_or(id.to_string(), |n| n.name.clone()),
                    up: map.node(id).is_some_and(|n| n.state != NodeState::Down),
                })
                .collect();
        }
    }
    report
}
