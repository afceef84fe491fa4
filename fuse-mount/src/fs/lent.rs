//! Attributes on their way to the kernel, with the time for which it may believe them.

use lagan_client::Client;
use lagan_types::{Attr, FsError, Ino};
use std::time::Duration;

/// Attributes, and how long the kernel may believe them.
pub(super) type Lent = (Attr, Duration);

/// Answers LOOKUP.
pub(super) async fn look_up(client: &Client, dir: Ino, at: &[u8]) -> Result<Lent, FsError> {
    let attr = client.lookup(dir, at).await?;
    let lasts = client.lend(&attr, Some((dir, at)));
    Ok((attr, lasts))
}

/// Answers GETATTR.
pub(super) async fn look_at(client: &Client, node: Ino) -> Result<Lent, FsError> {
    let attr = client.getattr(node).await?;
    let lasts = client.lend(&attr, None);
    Ok((attr, lasts))
}

/// The kernel asks again.
pub(super) fn unlent(attr: Attr) -> Lent {
    (attr, Duration::ZERO)
}
