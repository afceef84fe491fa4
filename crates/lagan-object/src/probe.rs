//! Does an endpoint verify what it receives?

use crate::{Body, ErrorKind, ObjectError, ObjectMeta, ObjectStore};
use bytes::Bytes;

const PROBE: &[u8] = b"lagan checksum probe\n";

/// Puts a small object with a wrong CRC-32 under `PREFIX/.lagan-probe`.
/// `true`: the endpoint refused it, so an upload that it accepted is what was
/// sent. `false`: it accepted it, so uploads must be read back and compared.
/// The object is removed again.
///
/// # Errors
/// The endpoint's, if it answered neither.
pub async fn probe_wrong_checksum(
    store: &dyn ObjectStore,
    prefix: &str,
) -> Result<bool, ObjectError> {
    let key = crate::owner::join(prefix, ".lagan-probe");
    let wrong = !crc32fast::hash(PROBE);
    let body = Body::from(Bytes::from_static(PROBE));
    match store
        .put(&key, body, &ObjectMeta::default(), Some(wrong))
        .await
    {
        Err(error) if error.kind == ErrorKind::ChecksumMismatch => Ok(true),
        Err(error) => Err(error),
        Ok(()) => {
            store.delete(&[key]).await?;
            Ok(false)
        }
    }
}
