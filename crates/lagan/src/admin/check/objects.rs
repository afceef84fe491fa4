//! Whether S3 has every object that the metadata names, and which objects nothing names.
//!
//! The servers ask S3 (this program has no keys), each for a part: one question without
//! bytes an object, which tells its length and, where S3 knows it, its CRC-32. Only
//! `lagan recall` reads the bytes themselves.

use crate::admin::check::named::Names;
use crate::admin::check::report::{Finding, Report};
use crate::admin::check::stored::{Asked, Keys, Verdict, ask, page};
use crate::admin::check::unnamed;
use crate::admin::output::Progress;
use crate::exit::Outcome;
use crate::net::{Cluster, node_addr};
use lagan_types::cluster::{ClusterMap, NodeState};
use lagan_types::message::ObjectHealth;
use lagan_types::query::{Extents, File, Object, ObjectsPage};
use lagan_types::{Content, Ino};
use std::collections::HashSet;

/// Checks the named objects, then looks for objects that nothing names.
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
        let ObjectsPage { objects, next } = page(cluster, at).await?;
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

/// Asks the metadata again about an object that looks wrong: the file may have a newer
/// one.
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
    let file = cluster.query(File { ino }).await?.ok();
    Ok(file.and_then(|f| f.object).is_some_and(|o| o.key == key))
}

/// Whether bytes of the file are in an object of that version, and the metadata does not
/// know that object. The extent is read last: if it names the version now, it did when
/// the object was looked for.
async fn dangles(cluster: &Cluster, ino: Ino, version: u64, offset: u64) -> Outcome<bool> {
    let file = cluster.query(File { ino }).await?;
    if !file.is_ok_and(|f| f.object.is_none_or(|o| o.version != version)) {
        return Ok(false);
    }
    let query = Extents {
        ino,
        offset,
        limit: 1,
    };
    Ok(cluster.query(query).await?.is_ok_and(|page| {
        page.extents
            .iter()
            .any(|e| matches!(e.content, Content::Object { version: v, .. } if v == version))
    }))
}
