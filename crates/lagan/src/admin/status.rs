//! `lagan status`: asks for the state of the cluster and shows it.

use crate::admin::output::print_json;
use crate::discover::Found;
use crate::exit::{DEGRADED, Failure, NO_QUORUM, OK, Outcome};
use crate::net::Cluster;
use lagan_host::units;
use lagan_types::cluster::{NodeInfo, NodeState};
use lagan_types::message::{LeaseStatus, NodeStatus, Pong, Status};
use lagan_types::query;
use serde::Serialize;
use std::fmt::Write;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

#[cfg(test)]
mod tests;

/// Time for the leader alone, before all servers are asked too: one that is there answers
/// sooner.
const SOON: Duration = Duration::from_millis(1200);
/// Most files shown that S3 cannot take.
const TOO_LARGE_SHOWN: u32 = 5;

/// The output of `lagan status --json`. Scripts depend on the names. A number is null when
/// no process that answers knows it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Report {
    /// 1.
    pub schema: u32,
    /// `healthy`, `degraded` or `no quorum`.
    pub health: &'static str,
    /// The leader's name.
    pub leader: Option<String>,
    /// Raft's term.
    pub term: u64,
    /// Every server.
    pub servers: Vec<Server>,
    /// Chunks in sets with fewer live members than wanted.
    pub degraded_chunks: Option<u64>,
    /// The archive queue.
    pub archive: Archive,
    /// The way to S3.
    pub s3: S3,
    /// Number of registered mounts.
    pub sessions: Option<u64>,
    /// The registered mounts.
    pub mounts: Vec<Mount>,
    /// What mounts may remember, and what that cost since the leader's term began.
    pub leases: Option<LeaseStatus>,
    /// Extents whose bytes are known to be gone.
    pub lost_extents: Option<u64>,
    /// Chunks that servers found damaged since their start.
    pub damaged_chunks: Option<u64>,
    /// Inodes of the volume.
    pub files: Option<u64>,
    /// The cluster's id.
    pub cluster_id: String,
    /// The volume's name.
    pub volume: String,
    /// Replicas wanted.
    pub copies: Option<u8>,
    /// Replicas at least.
    pub min_copies: Option<u8>,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Server {
    /// Its name.
    pub name: String,
    /// `up`, `down`, `full`; without quorum `reachable` or `silent`.
    pub state: &'static str,
    /// `storage`.
    pub role: &'static str,
    /// Bytes in use.
    pub used_bytes: Option<u64>,
    /// Bytes free for chunks.
    pub free_bytes: Option<u64>,
    /// Number of chunks that it holds.
    pub chunks: Option<u64>,
    /// Whether it votes in Raft.
    pub voter: bool,
    /// Address for clients.
    pub addr: String,
    /// Milliseconds since the leader heard from it; null if it has not yet.
    pub silent_ms: Option<u64>,
    /// Its clock less the leader's, milliseconds.
    pub clock_skew_ms: i64,
}

/// The archive queue.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Archive {
    /// Number of files that wait.
    pub waiting: Option<u64>,
    /// Their bytes.
    pub bytes: Option<u64>,
    /// Seconds since the oldest of them was changed.
    pub oldest_s: Option<u64>,
    /// Files whose last upload failed.
    pub failed: Option<u64>,
    /// Files whose content is in S3.
    pub archived: Option<u64>,
    /// Uploads under way.
    pub uploading: Option<u64>,
    /// Files that S3 cannot take as they are.
    pub too_large: Option<u64>,
    /// The first of them.
    pub too_large_files: Vec<TooLarge>,
}

/// A file that S3 cannot take.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TooLarge {
    /// Path from the volume's root.
    pub path: String,
    /// Why.
    pub reason: &'static str,
}

/// The way to S3.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct S3 {
    /// `none`, `ok`, `error` (tried again by itself), `refused` (a person must act),
    /// or `unknown` without quorum.
    pub state: &'static str,
    /// The last error in words.
    pub error: Option<String>,
    /// The endpoint.
    pub endpoint: Option<String>,
    /// The bucket.
    pub bucket: Option<String>,
}

/// One registered mount.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Mount {
    /// Its session.
    pub session: u64,
    /// Its machine's id.
    pub machine: String,
    /// Its mount point.
    pub path: String,
}

/// Asks for the state and prints it.
///
/// # Errors
/// When the cluster refuses.
pub async fn run(cluster: &Cluster, found: &Found, json: bool) -> Outcome<u8> {
    let (status, opinions) = ask(cluster).await;
    let report = match status {
        Ok(status) => {
            let too_large = match status.counters.too_large_files {
                0 => Vec::new(),
                _ => too_large(cluster).await,
            };
            Report::new(&status, too_large)
        }
        Err(failure) if failure.status == NO_QUORUM => {
            let opinions = match opinions {
                Some(opinions) => opinions,
                None => cluster.opinions().await,
            };
            let report = without_quorum(&opinions, found);
            if json {
                print_json(&report)?;
            } else {
                print!("{}", report.text());
            }
            return Err(Failure::no_quorum(failure.message));
        }
        Err(failure) => return Err(failure),
    };
    if json {
        print_json(&report)?;
    } else {
        print!("{}", report.text());
    }
    Ok(report.exit_status())
}

/// Leader and term in the opinion of each server.
type Opinions = Vec<(SocketAddr, Option<Pong>)>;

/// Asks the leader, and if that takes long, all servers at the same time, so that a missing
/// quorum is reported within three seconds.
async fn ask(cluster: &Cluster) -> (Outcome<Status>, Option<Opinions>) {
    let mut status = pin!(cluster.status_now());
    match tokio::time::timeout(SOON, &mut status).await {
        Ok(status) => (status, None),
        Err(_) => {
            let (status, opinions) = tokio::join!(status, cluster.opinions());
            (status, Some(opinions))
        }
    }
}

impl Report {
    /// Makes the output of the leader's answer and the first files that S3 cannot take.
    pub fn new(status: &Status, too_large_files: Vec<TooLarge>) -> Self {
        let c = &status.counters;
        let config = &status.map.config;
        let servers: Vec<Server> = status.map.nodes.iter().map(|n| server(n, status)).collect();
        let mut report = Report {
            schema: 1,
            health: "healthy",
            leader: status.leader.map(|id| {
                status
                    .map
                    .node(id)
                    .map_or(id.to_string(), |n| n.name.clone())
            }),
            term: status.term,
            servers,
            degraded_chunks: Some(status.degraded_chunks),
            archive: Archive {
                waiting: Some(c.due_files),
                bytes: Some(c.due_bytes),
                oldest_s: Some(match c.oldest_change_ms {
                    0 => 0,
                    changed => status.time_ms.saturating_sub(changed) / 1000,
                }),
                failed: Some(c.failed_files),
                archived: Some(c.archived_files),
                uploading: Some(c.attempts),
                too_large: Some(c.too_large_files),
                too_large_files,
            },
            s3: s3(status),
            sessions: Some(status.sessions.len() as u64),
            mounts: status
                .sessions
                .iter()
                .map(|(id, who)| Mount {
                    session: id.0,
                    machine: who.machine.clone(),
                    path: who.mount_point.clone(),
                })
                .collect(),
            leases: Some(status.leases),
            lost_extents: Some(c.lost_extents),
            damaged_chunks: Some(status.nodes.iter().map(|n| n.damaged_chunks).sum()),
            files: Some(c.inodes),
            cluster_id: config.cluster.to_string(),
            volume: config.volume.clone(),
            copies: Some(config.copies),
            min_copies: Some(config.min_copies),
        };
        if report.leader.is_none() {
            report.health = "no quorum";
        } else if report.is_degraded() {
            report.health = "degraded";
        }
        report
    }

    fn is_degraded(&self) -> bool {
        let up = self.servers.iter().filter(|s| s.state == "up").count();
        self.degraded_chunks > Some(0)
            || self.lost_extents > Some(0)
            || self.s3.state == "refused"
            || self.servers.iter().any(|s| s.state == "down")
            || self.copies.is_some_and(|copies| up < usize::from(copies))
    }

    /// Exit status of the command.
    pub fn exit_status(&self) -> u8 {
        match self.health {
            "healthy" => OK,
            "no quorum" => NO_QUORUM,
            _ => DEGRADED,
        }
    }

    fn text_archive(&self, out: &mut String) {
        let a = &self.archive;
        let count = |n: Option<u64>| n.unwrap_or_default();
        let (waiting, bytes) = (count(a.waiting), units::bytes(count(a.bytes)));
        let _ = write!(out, "archive  {waiting} files wait ({bytes})");
        if waiting > 0 {
            let _ = write!(out, ", the oldest for {}", units::age(count(a.oldest_s)));
        }
        let (failed, archived) = (count(a.failed), count(a.archived));
        let _ = writeln!(out, "; {failed} failed, {archived} in S3");
        let too_large = count(a.too_large);
        if too_large > 0 {
            let _ = writeln!(out, "         {too_large} cannot go to S3 as they are:");
        }
        for file in &a.too_large_files {
            let _ = writeln!(out, "         {}: {}", file.path, file.reason);
        }
    }

    /// The text for people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        let _ = writeln!(
            out,
            "cluster {} ({}), volume {}",
            self.cluster_id, self.health, self.volume
        );
        let leader = self.leader.as_deref().unwrap_or("none");
        let _ = writeln!(out, "leader  {leader}, term {}\n", self.term);
        let _ = writeln!(
            out,
            "{:<12} {:<9} {:<7} {:>9} {:>9} {:>9}  address",
            "server", "state", "voter", "used", "free", "chunks"
        );
        for s in &self.servers {
            let voter = if s.voter { "yes" } else { "no" };
            let _ = write!(
                out,
                "{:<12} {:<9} {voter:<7} {:>9} {:>9} {:>9}  {}",
                s.name,
                s.state,
                s.used_bytes.map_or_else(unknown, units::bytes),
                s.free_bytes.map_or_else(unknown, units::bytes),
                s.chunks.map_or_else(unknown, |n| n.to_string()),
                s.addr
            );
            if s.clock_skew_ms.unsigned_abs() > 500 {
                let _ = write!(out, "  clock off by {} ms", s.clock_skew_ms);
            }
            out.push('\n');
        }
        self.text_rest(&mut out);
        out
    }

    fn text_rest(&self, out: &mut String) {
        let (Some(copies), Some(min_copies)) = (self.copies, self.min_copies) else {
            let _ = writeln!(out, "\nOnly a leader knows the rest.");
            return;
        };
        let count = |n: Option<u64>| n.unwrap_or_default();
        let _ = writeln!(
            out,
            "\ncopies   {copies} wanted, {min_copies} at least; {} chunks with fewer",
            count(self.degraded_chunks)
        );
        let (damaged, lost) = (count(self.damaged_chunks), count(self.lost_extents));
        if lost + damaged > 0 {
            let _ = writeln!(
                out,
                "damage   {damaged} chunks found damaged, {lost} extents lost: see `lagan check`"
            );
        }
        self.text_archive(out);
        let place = match (&self.s3.endpoint, &self.s3.bucket) {
            (Some(endpoint), Some(bucket)) => format!("  {endpoint} bucket {bucket}"),
            (None, Some(bucket)) => format!("  bucket {bucket}"),
            _ => String::new(),
        };
        let error = self.s3.error.as_ref().map(|e| format!(": {e}"));
        let _ = writeln!(
            out,
            "s3       {}{}{place}",
            self.s3.state,
            error.unwrap_or_default()
        );
        let _ = writeln!(out, "mounts   {}", count(self.sessions));
        for m in &self.mounts {
            let _ = writeln!(out, "         {} on {}", m.path, m.machine);
        }
    }
}

/// The word that stands for an unknown number.
fn unknown() -> String {
    "-".into()
}

fn server(node: &NodeInfo, status: &Status) -> Server {
    let mut said = status.nodes.iter();
    let said = said.find(|s| s.node == node.id && s.silent_ms != NodeStatus::NOT_HEARD);
    Server {
        name: node.name.clone(),
        state: match node.state {
            NodeState::Up => "up",
            NodeState::Down => "down",
            NodeState::Full => "full",
        },
        role: "storage",
        used_bytes: said.map(|s| s.used_bytes),
        free_bytes: said.map(|s| s.free_bytes),
        chunks: said.map(|s| s.chunks),
        voter: node.voter,
        addr: node.addr.clone(),
        silent_ms: said.map(|s| s.silent_ms),
        clock_skew_ms: said.map_or(0, |s| s.clock_skew_ms),
    }
}

/// The first files that S3 cannot take, as far as their paths are known.
async fn too_large(cluster: &Cluster) -> Vec<TooLarge> {
    let limit = TOO_LARGE_SHOWN;
    let Ok(Ok(inos)) = cluster.query(query::TooLarge { limit }).await else {
        return Vec::new();
    };
    let mut files = Vec::new();
    for ino in inos {
        let Ok(Ok(file)) = cluster.query(query::File { ino }).await else {
            continue;
        };
        let path = file.path.map(|p| String::from_utf8_lossy(&p).into_owned());
        files.push(TooLarge {
            path: path.unwrap_or_else(|| format!("inode {}", ino.0)),
            reason: file.attr.unfit_for_s3().unwrap_or("changed just now"),
        });
    }
    files
}

fn s3(status: &Status) -> S3 {
    let archive = status.map.config.archive.as_ref();
    let worst = status
        .nodes
        .iter()
        .filter(|n| !n.s3_error.is_empty())
        .max_by_key(|n| n.s3_permanent);
    S3 {
        state: match (archive, worst) {
            (None, _) => "none",
            (Some(_), None) => "ok",
            (Some(_), Some(n)) if n.s3_permanent => "refused",
            (Some(_), Some(_)) => "error",
        },
        error: archive.and(worst).map(|n| n.s3_error.clone()),
        endpoint: archive.and_then(|a| a.endpoint.clone()),
        bucket: archive.map(|a| a.bucket.clone()),
    }
}

/// The output when no leader answers.
fn without_quorum(opinions: &Opinions, found: &Found) -> Report {
    let name_of = |addr: &str| {
        let processes = found.record.iter().flat_map(|r| &r.processes);
        let mut named = processes.filter(|p| p.addr.as_deref() == Some(addr));
        named
            .next()
            .map_or_else(|| addr.to_owned(), |p| p.name.clone())
    };
    let servers = opinions
        .iter()
        .map(|(addr, opinion)| Server {
            name: name_of(&addr.to_string()),
            state: if opinion.is_some() {
                "reachable"
            } else {
                "silent"
            },
            role: "storage",
            used_bytes: None,
            free_bytes: None,
            chunks: None,
            voter: false,
            addr: addr.to_string(),
            silent_ms: None,
            clock_skew_ms: 0,
        })
        .collect();
    Report {
        schema: 1,
        health: "no quorum",
        leader: None,
        term: opinions
            .iter()
            .filter_map(|(_, o)| o.map(|o| o.term))
            .max()
            .unwrap_or(0),
        servers,
        degraded_chunks: None,
        archive: Archive::default(),
        s3: S3 {
            state: "unknown",
            error: None,
            endpoint: None,
            bucket: None,
        },
        sessions: None,
        mounts: Vec::new(),
        leases: None,
        lost_extents: None,
        damaged_chunks: None,
        files: None,
        cluster_id: found
            .record
            .as_ref()
            .map(|r| r.cluster_id.clone())
            .unwrap_or_default(),
        volume: found
            .record
            .as_ref()
            .map(|r| r.volume.clone())
            .unwrap_or_default(),
        copies: None,
        min_copies: None,
    }
}
