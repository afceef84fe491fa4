//! Whether S3 has every object that the metadata names, and which objects nothing names.
//!
//! The servers ask S3 (this program has no keys), each for a part: one question without
//! bytes an object, which tells its length and, where S3 knows it, its CRC-32. What the
//! bytes themselves are, only `lagan recall` finds out.

use crate::admin::Progress;
use crate::admin::check::named::Names;
use crate::admin::check::report::{Finding, Report};
use crate::admin::check::unnamed;
use crate::exit::{Failure, Outcome};
use crate::net::{Cluster, ask_chunks, node_addr, unexpected};
use lagan_net::Pool;
use lagan_types::cluster::{ClusterMap, NodeState};
use lagan_types::message::{ChunkReply, ChunkRequest, ObjectHealth};
use lagan_types::query::Object;
use lagan_types::{Content, Ino, Query, QueryAnswer};
use std::collections::HashSet;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::task::JoinSet;

/// Objects in one answer of the metadata.
const PAGE: u32 = 4096;
/// Objects in one question to a server.
const BATCH: usize = 64;
/// Questions under way.
const ASKING: usize = 8;
/// For one question: a server asks for 16 objects at a time, and S3 may be slow.
const DEADLINE: Duration = Duration::from_secs(120);

/// A server that can ask S3.
#[derive(Debug, Clone)]
pub struct Asked {
    /// Its name.
    pub name: String,
    /// Where it listens.
    pub addr: SocketAddr,
}

/// Keys that the metadata names: 8 bytes of memory each. Two keys of one hash would
/// hide an object that nothing names, once in a very long time.
#[derive(Debug, Default)]
pub struct Keys(HashSet<u64>);

impl Keys {
    fn add(&mut self, key: &str) {
        self.0.insert(hash(key));
    }

    /// Whether the key is one of them.
    pub fn contains(&self, key: &str) -> bool {
        self.0.contains(&hash(key))
    }
}

fn hash(key: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    key.hash(&mut hasher);
    hasher.finish()
}

/// Checks both.
///
/// # Errors
/// The cluster's.
pub async fn check(
    cluster: &Cluster,
    map: &ClusterMap,
    names: &Names,
    report: &mut Report,
    progress: &mut Progress,
) -> Outcome<()> {
    let mut servers = Vec::new();
    for node in map.nodes.iter().filter(|n| n.state != NodeState::Down) {
        servers.push(Asked {
            name: node.name.clone(),
            addr: node_addr(node)?,
        });
    }
    if servers.is_empty() {
        report.leave_unchecked("objects", "no server is up", 0);
        return Ok(());
    }
    let keys = check_named(cluster, &servers, names, report, progress).await?;
    if map.config.archive.is_some() {
        unnamed::check(cluster, &servers, &keys, report, progress).await?;
    }
    Ok(())
}

/// Asks for every object that the metadata names; gives their keys.
async fn check_named(
    cluster: &Cluster,
    servers: &[Asked],
    names: &Names,
    report: &mut Report,
    progress: &mut Progress,
) -> Outcome<Keys> {
    let mut keys = Keys::default();
    let mut versions: HashSet<(Ino, u64)> = HashSet::new();
    let mut from = Some((Ino(0), 0));
    while let Some(at) = from {
        let (objects, next) = page(cluster, at).await?;
        for (ino, object) in &objects {
            keys.add(&object.key);
            versions.insert((*ino, object.version));
        }
        report.objects += objects.len() as u64;
        let wanted = objects.iter().map(|(_, object)| object.clone()).collect();
        for verdict in ask(cluster.pool(), servers, wanted).await {
            let Some((ino, object)) = objects.get(verdict.index) else {
                continue;
            };
            judge(cluster, (*ino, object), verdict, report).await?;
        }
        progress.show(|| format!("{} objects asked for", report.objects));
        from = next;
    }
    for &(ino, version, offset) in &names.objects {
        if !versions.contains(&(ino, version)) && dangles(cluster, ino, version, offset).await? {
            report.find(Finding {
                ino: Some(ino.0),
                offset: Some(offset),
                ..Finding::of("object", format!("no object of version {version} is known"))
            });
        }
    }
    Ok(keys)
}

/// Archived files and their objects, and where to go on.
///
/// # Errors
/// The cluster's.
pub async fn page(
    cluster: &Cluster,
    from: (Ino, u64),
) -> Outcome<(Vec<(Ino, Object)>, Option<(Ino, u64)>)> {
    let query = Query::Objects { from, limit: PAGE };
    match cluster.query(query).await? {
        Ok(QueryAnswer::Objects { next, .. }) if next.is_some_and(|next| next <= from) => Err(
            Failure::error("read the objects: the answer does not go on"),
        ),
        Ok(QueryAnswer::Objects { objects, next }) => Ok((objects, next)),
        other => Err(unexpected(&other)),
    }
}

/// What S3 has of one object.
#[derive(Debug)]
pub struct Verdict {
    /// Its place in the question.
    pub index: usize,
    /// Who asked S3.
    pub server: String,
    /// What it found.
    pub health: ObjectHealth,
}

/// Asks S3 for all of these, through all servers.
pub async fn ask(pool: &Pool, servers: &[Asked], objects: Vec<Object>) -> Vec<Verdict> {
    let mut verdicts = Vec::with_capacity(objects.len());
    let mut tasks = JoinSet::new();
    for (i, part) in objects.chunks(BATCH).enumerate() {
        if tasks.len() >= ASKING
            && let Some(Ok(done)) = tasks.join_next().await
        {
            verdicts.extend(done);
        }
        // two servers for each part, in turn
        let turn = servers.iter().cycle().skip(i % servers.len().max(1));
        let turn: Vec<Asked> = turn.take(servers.len().min(2)).cloned().collect();
        tasks.spawn(ask_part(pool.clone(), turn, part.to_vec(), i * BATCH));
    }
    while let Some(done) = tasks.join_next().await {
        verdicts.extend(done.into_iter().flatten());
    }
    verdicts
}

/// The first server that answers decides.
async fn ask_part(
    pool: Pool,
    servers: Vec<Asked>,
    objects: Vec<Object>,
    first: usize,
) -> Vec<Verdict> {
    let count = objects.len();
    let request = ChunkRequest::CheckObjects { objects };
    let (mut name, mut why) = (String::new(), String::new());
    for server in servers {
        why = match ask_chunks(&pool, server.addr, &request, DEADLINE).await {
            Ok(ChunkReply::Objects(found)) if found.len() == count => {
                let verdict = |(i, health)| Verdict {
                    index: first + i,
                    server: server.name.clone(),
                    health,
                };
                return found.into_iter().enumerate().map(verdict).collect();
            }
            Ok(ChunkReply::Failed(reason)) => reason,
            Ok(other) => unexpected(&other).message,
            Err(e) => e.to_string(),
        };
        name = server.name;
    }
    let unknown = |i| Verdict {
        index: first + i,
        server: name.clone(),
        health: ObjectHealth::Unknown(why.clone()),
    };
    (0..count).map(unknown).collect()
}

/// What looks wrong is asked again of the metadata: the file may have a newer object.
async fn judge(
    cluster: &Cluster,
    (ino, object): (Ino, &Object),
    verdict: Verdict,
    report: &mut Report,
) -> Outcome<()> {
    let why = match verdict.health {
        ObjectHealth::Healthy => return Ok(()),
        ObjectHealth::Unknown(why) => {
            report.leave_unchecked(&verdict.server, &why, 1);
            return Ok(());
        }
        ObjectHealth::Missing => "S3 does not have it".to_owned(),
        ObjectHealth::Differs { size, .. } if size != object.size => {
            format!("has {size} bytes, not {}", object.size)
        }
        ObjectHealth::Differs { crc, .. } => format!(
            "has the CRC-32 {:08x}, not {:08x}",
            crc.unwrap_or_default(),
            object.crc
        ),
    };
    if still_named(cluster, ino, &object.key).await? {
        report.find(Finding {
            ino: Some(ino.0),
            object: Some(object.key.clone()),
            ..Finding::of("object", why)
        });
    }
    Ok(())
}

async fn still_named(cluster: &Cluster, ino: Ino, key: &str) -> Outcome<bool> {
    match cluster.query(Query::File { ino }).await? {
        Ok(QueryAnswer::File { object, .. }) => Ok(object.is_some_and(|o| o.key == key)),
        _ => Ok(false),
    }
}

/// Whether bytes of the file are in an object of that version, and the metadata does not
/// know that object. The extent is read last: if it names the version now, it did when
/// the object was looked for.
async fn dangles(cluster: &Cluster, ino: Ino, version: u64, offset: u64) -> Outcome<bool> {
    match cluster.query(Query::File { ino }).await? {
        Ok(QueryAnswer::File { object, .. })
            if object.as_ref().is_none_or(|o| o.version != version) => {}
        _ => return Ok(false),
    }
    let query = Query::Extents {
        ino,
        offset,
        limit: 1,
    };
    match cluster.query(query).await? {
        Ok(QueryAnswer::Extents { extents, .. }) => Ok(extents
            .iter()
            .any(|e| matches!(e.content, Content::Object { version: v, .. } if v == version))),
        _ => Ok(false),
    }
}
