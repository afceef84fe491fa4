//! Finds objects in S3 that nothing names.
//!
//! Only the keys under this life of the cluster are listed, where nobody else writes. Most
//! unnamed objects are on their way: an upload is recorded before it begins, and an object
//! waits for its deletion. So the check looks for them again, in this order, so that no
//! change in between makes an object look like garbage: among the uploads, among the named
//! ones, in the queue of deletions, and at last in S3.

use crate::admin::check::report::{Finding, Report};
use crate::admin::check::stored::{Asked, Keys, ask, page};
use crate::admin::output::Progress;
use crate::exit::{Doing, Outcome};
use crate::net::{Cluster, ask_at};
use lagan_types::Ino;
use lagan_types::message::{ListObjects, ObjectHealth, ObjectList};
use lagan_types::query::{Attempts, Object, ObjectsToDelete};
use std::collections::BTreeMap;
use std::time::Duration;

/// Most objects in one answer: S3 lists no more at once.
const LIST: u32 = 1000;
const LIST_DEADLINE: Duration = Duration::from_secs(60);
/// Most rows in one answer of the metadata.
const ROWS: u32 = 4096;
/// Most suspects that are kept before the check looks for them again: some ten megabytes.
const SUSPECTS_MAX: usize = 100_000;

/// Lists all objects and finds those that nothing names. `named` was read before.
///
/// # Errors
/// Those of the cluster.
pub async fn check(
    cluster: &Cluster,
    servers: &[Asked],
    named: &Keys,
    report: &mut Report,
    progress: &mut Progress,
) -> Outcome<()> {
    let mut suspects = BTreeMap::new();
    let mut after = None;
    loop {
        let ObjectList { objects, last } = match list(cluster, servers, after.clone()).await {
            Ok(page) => page,
            Err(why) => {
                report.leave_unchecked("the list of objects", &why, 0);
                return Ok(());
            }
        };
        report.listed_objects += objects.len() as u64;
        progress.show(|| format!("{} objects listed", report.listed_objects));
        let end = objects.last().map(|(key, _)| key.clone());
        let goes_on = end > after;
        after = end;
        suspects.extend(objects.into_iter().filter(|(key, _)| !named.contains(key)));
        if suspects.len() >= SUSPECTS_MAX || last {
            look_again(cluster, servers, std::mem::take(&mut suspects), report).await?;
        }
        if last || !goes_on {
            return Ok(());
        }
    }
}

/// Fetches one page from the first server that gives it.
async fn list(
    cluster: &Cluster,
    servers: &[Asked],
    after: Option<String>,
) -> Result<ObjectList, String> {
    let request = ListObjects { after, limit: LIST };
    let mut why = String::new();
    for server in servers {
        match ask_at(cluster.pool(), server.addr, request.clone(), LIST_DEADLINE).await {
            Ok(page) => return Ok(page),
            Err(reason) => why = format!("{}: {reason}", server.name),
        }
    }
    Err(why)
}

async fn look_again(
    cluster: &Cluster,
    servers: &[Asked],
    mut suspects: BTreeMap<String, u64>,
    report: &mut Report,
) -> Outcome<()> {
    if suspects.is_empty() {
        return Ok(());
    }
    let uploading = take_attempts(cluster, &mut suspects).await?;
    take_named(cluster, &mut suspects).await?;
    let leaving = take_leaving(cluster, &mut suspects).await?;
    report.pending_objects += uploading + leaving;
    let objects: Vec<Object> = suspects
        .into_iter()
        .map(|(key, size)| Object {
            version: 0,
            key,
            size,
            crc: 0,
        })
        .collect();
    for verdict in ask(cluster.pool(), servers, objects.clone()).await {
        let Some(object) = objects.get(verdict.index) else {
            continue;
        };
        match verdict.health {
            ObjectHealth::Missing => {}
            ObjectHealth::Unknown(why) => report.leave_unchecked(&verdict.server, &why, 1),
            ObjectHealth::Healthy | ObjectHealth::Differs { .. } => report.find(Finding {
                object: Some(object.key.clone()),
                ..Finding::of("stray", "nothing names it, and nothing deletes it".into())
            }),
        }
    }
    Ok(())
}

/// Removes suspects whose upload may be under way; returns how many.
async fn take_attempts(cluster: &Cluster, suspects: &mut BTreeMap<String, u64>) -> Outcome<u64> {
    let (mut taken, mut from) = (0, 0);
    loop {
        let answer = cluster.query(Attempts { from, limit: ROWS }).await?;
        let rows = answer.doing(|| "read the uploads".into())?;
        let Some(last) = rows.last().map(|row| row.number) else {
            return Ok(taken);
        };
        taken += take(suspects, rows.iter().map(|row| row.key.as_str()));
        from = last + 1;
    }
}

/// Removes suspects that are named by now.
async fn take_named(cluster: &Cluster, suspects: &mut BTreeMap<String, u64>) -> Outcome<()> {
    let mut from = Some((Ino(0), 0));
    while let Some(at) = from {
        let page = page(cluster, at).await?;
        take(suspects, page.objects.iter().map(|(_, o)| o.key.as_str()));
        from = page.next;
    }
    Ok(())
}

/// Removes suspects that wait for their deletion; returns how many.
async fn take_leaving(cluster: &Cluster, suspects: &mut BTreeMap<String, u64>) -> Outcome<u64> {
    let (mut taken, mut from) = (0, 0);
    loop {
        let answer = cluster.query(ObjectsToDelete { from, limit: ROWS }).await?;
        let rows = answer.doing(|| "read what is to be deleted".into())?;
        let Some(last) = rows.last().map(|(row, _)| *row) else {
            return Ok(taken);
        };
        taken += take(suspects, rows.iter().map(|(_, key)| key.as_str()));
        from = last + 1;
    }
}

fn take<'a>(suspects: &mut BTreeMap<String, u64>, known: impl Iterator<Item = &'a str>) -> u64 {
    known.filter(|key| suspects.remove(*key).is_some()).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_keys_are_taken_from_the_suspects_and_counted() {
        let mut suspects = BTreeMap::from([("a".to_owned(), 1), ("b".to_owned(), 2)]);
        assert_eq!(take(&mut suspects, ["b", "x", "b"].into_iter()), 1);
        assert_eq!(suspects.into_keys().collect::<Vec<_>>(), ["a"]);
    }
}
