//! `lagan file`: shows where a file is.

use crate::admin::output::print_json;
use crate::exit::{DEGRADED, Doing, Failure, OK, Outcome};
use crate::hang;
use crate::net::Cluster;
use lagan_host::units;
use lagan_types::attr::{ArchiveState, Kind};
use lagan_types::cluster::{ClusterMap, NodeState};
use lagan_types::limits::EXTENTS_PAGE_MAX;
use lagan_types::query::{Extents, File, Object};
use lagan_types::{Attr, Content, Extent, Ino, Refusal};
use serde::Serialize;
use std::fmt::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[cfg(test)]
mod tests;

/// Longest wait for the mount: it answers within its own time-out (120 s by default), or
/// not at all.
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
    /// Extents whose chunks have fewer replicas than wanted.
    short_extents: u64,
    /// Extents whose bytes are gone.
    lost_extents: u64,
    /// `bucket/key` of the newest archived version.
    object: Option<String>,
    object_version: Option<u64>,
    object_crc32: Option<String>,
    extents: Vec<ExtentReport>,
    /// Number of all extents, of which `extents` shows the first. The counts above are of all.
    extent_count: u64,
}

/// Totals over all extents of a file.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
struct Tally {
    extents: u64,
    /// Healthy replicas of the chunk that has fewest.
    healthy: Option<usize>,
    short: u64,
    lost: u64,
}

impl Tally {
    fn add(&mut self, extents: &[Extent], map: &ClusterMap) {
        self.extents += extents.len() as u64;
        for report in extents.iter().map(|e| extent(e, map)) {
            let up = report.replicas.iter().filter(|r| r.up).count();
            match report.place {
                "chunk" => {
                    self.healthy = Some(self.healthy.map_or(up, |h| h.min(up)));
                    self.short += u64::from(up < usize::from(map.config.copies));
                }
                "lost" => self.lost += 1,
                _ => {}
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
struct Copies {
    healthy: Option<usize>,
    wanted: u8,
}

/// One range of a file.
#[derive(Debug, Clone, PartialEq, Serialize)]
struct ExtentReport {
    offset: u64,
    len: u64,
    /// `chunk`, `object` or `lost`.
    place: &'static str,
    chunk: Option<String>,
    set: Option<u32>,
    /// Servers that have the chunk: names, and whether each is up.
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
/// The first path that does not exist, or those of the cluster.
pub async fn run(cluster: &Cluster, paths: &[PathBuf], json: bool) -> Outcome<u8> {
    let map = cluster.map().await?;
    let mut files = Vec::new();
    for path in paths {
        files.push(file(cluster, &map, path).await?);
    }
    let degraded = files.iter().any(|f| f.lost_extents + f.short_extents > 0);
    if json {
        print_json(&Report { schema: 1, files })?;
    } else {
        files.iter().for_each(|f| print!("{}", f.text()));
    }
    Ok(if degraded { DEGRADED } else { OK })
}

async fn file(cluster: &Cluster, map: &ClusterMap, path: &Path) -> Outcome<FileReport> {
    let ino = ino_of(path)?;
    let answer = cluster.query(File { ino }).await?;
    let info = answer.doing(|| path.display().to_string())?;
    let mut tally = Tally::default();
    tally.add(&info.extents, map);
    if info.extent_count > tally.extents {
        let from = info.extents.last().map_or(0, Extent::end);
        add_rest(cluster, map, (ino, from), &mut tally)
            .await?
            .doing(|| path.display().to_string())?;
    }
    Ok(FileReport::new(
        path,
        map,
        &info.attr,
        &info.extents,
        tally,
        info.object.as_ref(),
    ))
}

/// Counts the extents from an offset on, page by page. If the file changes meanwhile, each
/// page counts as it is when it is read. The inner error is the leader's.
async fn add_rest(
    cluster: &Cluster,
    map: &ClusterMap,
    from: (Ino, u64),
    tally: &mut Tally,
) -> Outcome<Result<(), Refusal>> {
    let (ino, mut offset) = from;
    loop {
        let query = Extents {
            ino,
            offset,
            limit: EXTENTS_PAGE_MAX as u32,
        };
        let page = match cluster.query(query).await? {
            Ok(page) => page,
            Err(e) => return Ok(Err(e)),
        };
        tally.add(&page.extents, map);
        match page.extents.last() {
            Some(last) if page.more => offset = last.end(),
            _ => return Ok(Ok(())),
        }
    }
}

fn ino_of(path: &Path) -> Outcome<Ino> {
    let wanted = path.to_owned();
    match hang::within(STAT_DEADLINE, move || std::fs::symlink_metadata(wanted)) {
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
        tally: Tally,
        object: Option<&Object>,
    ) -> Self {
        let extents: Vec<ExtentReport> = extents.iter().map(|e| extent(e, map)).collect();
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
                healthy: tally.healthy,
                wanted: map.config.copies,
            },
            short_extents: tally.short,
            lost_extents: tally.lost,
            object: object.map(|o| format!("{bucket}/{}", o.key)),
            object_version: object.map(|o| o.version),
            object_crc32: object.map(|o| format!("{:08x}", o.crc)),
            extents,
            extent_count: tally.extents,
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
        let _ = write!(out, "  extents  {}", self.extent_count);
        for (count, what) in [
            (self.short_extents, "with fewer copies"),
            (self.lost_extents, "lost"),
        ] {
            if count > 0 {
                let _ = write!(out, ", {count} {what}");
            }
        }
        out.push('\n');
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
