//! A plain concurrent uploader of a directory tree: no queue, no metadata, no
//! attempts, only the same client and the same checksums as the mover's.

use anyhow::{Context, Result, ensure};
use async_trait::async_trait;
use bytes::Bytes;
use lagan_object::{
    Body, BodySource, Credentials, ObjectMeta, ObjectStore, S3Config, S3Store, Secret,
};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// Files up to this length are read into memory whole.
const WHOLE_LEN_MAX: u64 = 1024 * 1024;

/// Files and bytes that an upload of a tree moved, and its time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Uploaded {
    /// Number of files.
    pub files: u64,
    /// Bytes of all files.
    pub bytes: u64,
    /// From the first request to the last answer.
    pub elapsed: Duration,
}

impl Uploaded {
    /// One JSON line: `files`, `bytes`, `seconds`, `files_s`, `mb_s` (10^6 bytes a second).
    pub fn to_json(&self) -> serde_json::Value {
        let seconds = self.elapsed.as_secs_f64().max(1e-9);
        serde_json::json!({
            "files": self.files,
            "bytes": self.bytes,
            "seconds": round(seconds),
            "files_s": round(self.files as f64 / seconds),
            "mb_s": round(self.bytes as f64 / seconds / 1e6),
        })
    }
}

fn round(x: f64) -> f64 {
    (x * 1000.0).round() / 1000.0
}

/// The endpoint that a `cluster.json` names.
///
/// # Errors
/// The file cannot be read, or its cluster has no S3.
pub fn endpoint_of(cluster_json: &Path) -> Result<S3Config> {
    let shown = cluster_json.display();
    let text = std::fs::read(cluster_json).with_context(|| format!("read {shown}"))?;
    let record: serde_json::Value =
        serde_json::from_slice(&text).with_context(|| format!("parse {shown}"))?;
    let part = |name: &str| record["s3"][name].as_str().unwrap_or("").to_owned();
    let mut config = S3Config::new(part("bucket"));
    ensure!(!config.bucket.is_empty(), "{shown}: the cluster has no s3");
    config.endpoint = Some(part("endpoint")).filter(|e| !e.is_empty());
    config.region = Some(part("region")).filter(|r| !r.is_empty());
    if !part("access_key").is_empty() {
        config.credentials = Credentials::Static {
            access_key: part("access_key"),
            secret_key: Secret::new(part("secret_key")),
            session_token: None,
        };
    }
    Ok(config)
}

/// Regular files under `dir`, by their paths relative to it, in order.
///
/// # Errors
/// A directory cannot be read.
pub fn files_under(dir: &Path) -> Result<Vec<(PathBuf, u64)>> {
    let mut found = Vec::new();
    let mut open = vec![PathBuf::new()];
    while let Some(relative) = open.pop() {
        let path = dir.join(&relative);
        let entries =
            std::fs::read_dir(&path).with_context(|| format!("list {}", path.display()))?;
        for entry in entries {
            let entry = entry.with_context(|| format!("list {}", path.display()))?;
            let meta = entry.metadata().with_context(|| "read attributes")?;
            let name = relative.join(entry.file_name());
            if meta.is_dir() {
                open.push(name);
            } else if meta.is_file() {
                found.push((name, meta.len()));
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Uploads all files under `dir`, `jobs` at once, under keys that begin with `prefix`.
///
/// # Errors
/// The first file that cannot be read or stored.
pub async fn upload(config: &S3Config, dir: &Path, prefix: &str, jobs: usize) -> Result<Uploaded> {
    let store: Arc<dyn ObjectStore> = Arc::new(S3Store::open(config).await?);
    let files = Arc::new(files_under(dir)?);
    let (count, bytes) = (files.len() as u64, files.iter().map(|f| f.1).sum());
    let next = Arc::new(AtomicUsize::new(0));
    let begin = Instant::now();
    let mut workers = JoinSet::new();
    for _ in 0..jobs {
        let (store, files, next) = (store.clone(), files.clone(), next.clone());
        let (dir, prefix) = (dir.to_owned(), prefix.to_owned());
        workers.spawn(async move {
            while let Some((name, len)) = files.get(next.fetch_add(1, Ordering::Relaxed)) {
                let key = format!("{prefix}/{}", name.display());
                put(store.as_ref(), &dir.join(name), *len, &key).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended.context("upload")??;
    }
    Ok(Uploaded {
        files: count,
        bytes,
        elapsed: begin.elapsed(),
    })
}

async fn put(store: &dyn ObjectStore, path: &Path, len: u64, key: &str) -> Result<()> {
    let shown = || format!("read {}", path.display());
    let file = Arc::new(File::open(path).with_context(shown)?);
    let meta = ObjectMeta::default();
    let (body, crc) = if len <= WHOLE_LEN_MAX {
        let bytes = read(file, 0, len as usize).await.with_context(shown)?;
        let crc = crc32fast::hash(&bytes);
        (Body::from(bytes), crc)
    } else {
        let crc = crc_of(&file, len).await.with_context(shown)?;
        (Body::from_source(len, Arc::new(Source(file))), crc)
    };
    store.put(key, body, &meta, Some(crc)).await?;
    Ok(())
}

async fn read(file: Arc<File>, offset: u64, len: usize) -> Result<Bytes> {
    let bytes = tokio::task::spawn_blocking(move || {
        let mut buffer = vec![0; len];
        file.read_exact_at(&mut buffer, offset).map(|()| buffer)
    });
    Ok(bytes.await??.into())
}

async fn crc_of(file: &Arc<File>, len: u64) -> Result<u32> {
    let mut hasher = crc32fast::Hasher::new();
    let mut at = 0;
    while at < len {
        let step = (len - at).min(WHOLE_LEN_MAX);
        hasher.update(&read(file.clone(), at, step as usize).await?);
        at += step;
    }
    Ok(hasher.finalize())
}

/// A file that is read while it is sent.
struct Source(Arc<File>);

#[async_trait]
impl BodySource for Source {
    async fn read_at(&self, offset: u64, len: usize) -> Result<Bytes, String> {
        let bytes = read(self.0.clone(), offset, len).await;
        bytes.map_err(|e| format!("{e:#}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_per_second() {
        let done = Uploaded {
            files: 10,
            bytes: 4_000_000,
            elapsed: Duration::from_secs(2),
        };
        let json = done.to_json();
        assert_eq!(json["files_s"], 5.0);
        assert_eq!(json["mb_s"], 2.0);
    }

    #[test]
    fn a_cluster_without_s3_is_refused() {
        let dir = std::env::temp_dir().join(format!("lagan-benches-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let path = dir.join("cluster.json");
        std::fs::write(&path, r#"{"schema":1,"s3":null}"#).unwrap();
        assert!(endpoint_of(&path).is_err());
        let named = r#"{"s3":{"endpoint":"http://h:1","bucket":"b","region":"r","access_key":"a","secret_key":"s"}}"#;
        std::fs::write(&path, named).unwrap();
        let config = endpoint_of(&path).unwrap();
        assert_eq!(config.bucket, "b");
        assert_eq!(config.endpoint.as_deref(), Some("http://h:1"));
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
