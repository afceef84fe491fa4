//! Attributes on their way to the kernel, with the time for which it may believe them.

use lagan_client::Client;
use lagan_types::{Attr, FsError, Ino};
use std::sync::LazyLock;
use std::time::Duration;

/// The first release in which the kernel is known to discard attributes of an answer to LOOKUP if
/// it has dropped any inode from its cache since it asked (`evict_ctr` in fs/fuse/inode.c; 6.1
/// does not). Else it could forget a loan, drop the inode, and learn of both again from an older
/// answer.
const COUNTS_EVICTIONS: (u32, u32) = (6, 12);

/// Whether the kernel may be lent attributes with a name.
static LENDS_NAMES: LazyLock<bool> =
    LazyLock::new(|| of_release(&release()) >= Some(COUNTS_EVICTIONS));

/// The kernel's release; empty if it is not known.
pub(super) fn release() -> String {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease");
    release.unwrap_or_default().trim().to_owned()
}

/// Whether the kernel is lent attributes with answers to look-ups.
pub(super) fn lends_names() -> bool {
    *LENDS_NAMES
}

/// The first two numbers of a release such as `6.12.5-amd64`.
fn of_release(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

/// Attributes, and how long the kernel may believe them.
pub(super) type Lent = (Attr, Duration);

/// Answers LOOKUP.
pub(super) async fn look_up(client: &Client, dir: Ino, at: &[u8]) -> Result<Lent, FsError> {
    let attr = client.lookup(dir, at).await?;
    let lasts = match lends_names() {
        true => client.lend(&attr, Some((dir, at))),
        false => Duration::ZERO,
    };
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn release_is_read_from_its_first_two_numbers() {
        assert_eq!(of_release("6.12.5-amd64\n"), Some((6, 12)));
        assert_eq!(of_release("6.1.0-31-cloud-amd64"), Some((6, 1)));
        assert!(of_release("6.1.192") < Some(COUNTS_EVICTIONS));
        assert!(of_release("10.0-rc1") >= Some(COUNTS_EVICTIONS));
        assert_eq!(of_release("unknown"), None);
    }
}
