//! Questions about objects: to the metadata, which it names; to S3, through the servers,
//! which it has.

use crate::exit::{Doing, Failure, Outcome};
use crate::net::{Cluster, ask_at, one_for_each};
use lagan_net::Pool;
use lagan_types::Ino;
use lagan_types::message::{CheckObjects, ObjectHealth};
use lagan_types::query::{Object, Objects, ObjectsPage};
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
    /// Adds a key.
    pub fn add(&mut self, key: &str) {
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

/// Archived files and their objects, and where to go on.
///
/// # Errors
/// The cluster's.
pub async fn page(cluster: &Cluster, from: (Ino, u64)) -> Outcome<ObjectsPage> {
    let answer = cluster.query(Objects { from, limit: PAGE }).await?;
    let page = answer.doing(|| "read the objects".into())?;
    match page.next.is_some_and(|next| next <= from) {
        true => Err(Failure::error(
            "read the objects: the answer does not go on",
        )),
        false => Ok(page),
    }
}

/// What S3 has of one object.
#[derive(Debug)]
pub struct Verdict {
    /// Its place in the question.
    pub index: usize,
    /// The server that asked S3.
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
    let request = CheckObjects { objects };
    let (mut name, mut why) = (String::new(), String::new());
    for server in servers {
        let answer = ask_at(&pool, server.addr, request.clone(), DEADLINE).await;
        why = match answer.and_then(|found| one_for_each(found, count)) {
            Ok(found) => {
                let verdict = |(i, health)| Verdict {
                    index: first + i,
                    server: server.name.clone(),
                    health,
                };
                return found.into_iter().enumerate().map(verdict).collect();
            }
            Err(reason) => reason,
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
