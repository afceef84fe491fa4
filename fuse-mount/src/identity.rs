//! The identity of this mount in the cluster.

use lagan_types::op::SessionIdentity;
use std::fs;
use std::io::{self, Read};
use std::path::Path;

/// Makes the identity: machine, boot, mount point, and a number drawn for this process.
///
/// # Errors
/// The machine has no randomness or no boot id.
pub(crate) fn draw(mount_point: &Path) -> io::Result<SessionIdentity> {
    let mut instance = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut instance)?;
    Ok(SessionIdentity {
        machine: machine(),
        boot: fs::read_to_string("/proc/sys/kernel/random/boot_id")?
            .trim()
            .to_owned(),
        mount_point: mount_point.to_string_lossy().into_owned(),
        instance: u128::from_le_bytes(instance),
    })
}

/// The machine's id, or its host name where it has no id (containers).
fn machine() -> String {
    [
        "/etc/machine-id",
        "/var/lib/dbus/machine-id",
        "/proc/sys/kernel/hostname",
    ]
    .iter()
    .filter_map(|file| fs::read_to_string(file).ok())
    .map(|text| text.trim().to_owned())
    .find(|text| !text.is_empty())
    .unwrap_or_else(|| "unknown".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_processes_of_one_mount_point_differ_in_their_instance() {
        let one = draw(Path::new("/m")).unwrap();
        let two = draw(Path::new("/m")).unwrap();
        assert_ne!(one.instance, two.instance);
        assert_eq!((&one.machine, &one.boot), (&two.machine, &two.boot));
        assert!(!one.machine.is_empty() && !one.boot.is_empty());
    }
}
