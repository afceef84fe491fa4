//! The owner object: says which cluster a prefix of a bucket belongs to.
//!
//! `PREFIX/.lagan-owner` is JSON: `{"lagan_owner":1,"incarnation":"...","cluster":"..."}`.
//! A mover reads it before each batch of deletes and stops when it names
//! another incarnation (INV-13). It is claimed once, when a cluster
//! first uses a prefix; S3 has no reliable test-and-set, so a claim is read
//! back, and a prefix that holds objects but no owner is refused.

use crate::{Body, ObjectError, ObjectMeta, ObjectStore};
use bytes::Bytes;
use lagan_types::{ClusterId, Incarnation};
use serde::{Deserialize, Serialize};

/// The owner object's name under the prefix.
pub const OWNER_NAME: &str = ".lagan-owner";

/// Bytes of an owner object, at most; Lagan writes no larger ones.
const OWNER_LEN_MAX: u64 = 4096;

/// The cluster that a prefix belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// Version of the layout: 1.
    lagan_owner: u32,
    /// The incarnation that may write and delete there.
    pub incarnation: Incarnation,
    /// Cluster of that incarnation.
    pub cluster: ClusterId,
}

impl Owner {
    /// An owner.
    pub fn new(incarnation: Incarnation, cluster: ClusterId) -> Self {
        Owner {
            lagan_owner: 1,
            incarnation,
            cluster,
        }
    }
}

/// Why a prefix cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OwnerError {
    /// The store did not answer as needed.
    #[error(transparent)]
    Store(#[from] ObjectError),
    /// Another incarnation owns it.
    #[error("prefix belongs to another cluster (incarnation {0})")]
    Other(Incarnation),
    /// The owner object cannot be read as one.
    #[error("{key} is not an owner object: {message}")]
    Malformed {
        /// Key of the owner object.
        key: String,
        /// The parser's message.
        message: String,
    },
    /// There are objects, but no owner object.
    #[error("prefix is not empty and has no owner, first object {0}")]
    NotEmpty(String),
}

/// The owner object's key under a prefix (which may be empty).
pub fn owner_key(prefix: &str) -> String {
    join(prefix, OWNER_NAME)
}

/// `PREFIX/NAME`, without empty components.
pub(crate) fn join(prefix: &str, name: &str) -> String {
    match prefix.trim_matches('/') {
        "" => name.to_string(),
        prefix => format!("{prefix}/{name}"),
    }
}

/// Reads whom the prefix belongs to; `None`: nobody.
///
/// # Errors
/// The store's, or `Malformed`.
pub async fn read_owner(
    store: &dyn ObjectStore,
    prefix: &str,
) -> Result<Option<Owner>, OwnerError> {
    let key = owner_key(prefix);
    let info = match store.head(&key).await {
        Ok(info) => info,
        Err(error) if error.is_not_found() => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let malformed = |message: String| OwnerError::Malformed {
        key: key.clone(),
        message,
    };
    if info.len == 0 || info.len > OWNER_LEN_MAX {
        return Err(malformed(format!("{} bytes", info.len)));
    }
    let bytes = store.get_range(&key, 0, info.len).await?;
    let owner: Owner = serde_json::from_slice(&bytes).map_err(|e| malformed(e.to_string()))?;
    if owner.lagan_owner != 1 {
        return Err(malformed(format!(
            "layout {} is newer than this program",
            owner.lagan_owner
        )));
    }
    Ok(Some(owner))
}

/// Makes the prefix ours, or finds that it already is. May be repeated.
///
/// # Errors
/// `Other` or `NotEmpty` if it is somebody else's; the store's.
pub async fn claim_owner(
    store: &dyn ObjectStore,
    prefix: &str,
    owner: Owner,
) -> Result<(), OwnerError> {
    match read_owner(store, prefix).await? {
        Some(found) => return check(found, owner),
        None => refuse_foreign_objects(store, prefix).await?,
    }
    let json = serde_json::to_vec(&owner).map_err(|e| OwnerError::Malformed {
        key: owner_key(prefix),
        message: e.to_string(),
    })?;
    let crc = crc32fast::hash(&json);
    let meta = ObjectMeta {
        content_type: Some("application/json".into()),
        ..ObjectMeta::default()
    };
    store
        .put(
            &owner_key(prefix),
            Body::from(Bytes::from(json)),
            &meta,
            Some(crc),
        )
        .await?;
    match read_owner(store, prefix).await? {
        Some(found) => check(found, owner),
        None => Err(OwnerError::Malformed {
            key: owner_key(prefix),
            message: "written, but not there".into(),
        }),
    }
}

fn check(found: Owner, ours: Owner) -> Result<(), OwnerError> {
    if found.incarnation == ours.incarnation {
        Ok(())
    } else {
        Err(OwnerError::Other(found.incarnation))
    }
}

async fn refuse_foreign_objects(store: &dyn ObjectStore, prefix: &str) -> Result<(), OwnerError> {
    let folder = match prefix.trim_matches('/') {
        "" => String::new(),
        prefix => format!("{prefix}/"),
    };
    let found = store.list(&folder, None, 2).await?;
    let foreign = found.into_iter().find(|o| {
        let name = o.key.strip_prefix(&folder).unwrap_or(&o.key);
        name != OWNER_NAME && name != ".lagan-probe"
    });
    foreign.map_or(Ok(()), |o| Err(OwnerError::NotEmpty(o.key)))
}
