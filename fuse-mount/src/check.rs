//! Checks the mount point before anything is started.

use crate::failure::Failure;
use crate::sys::{self, ChildEnd};
use lagan_host::mounts::{Mount, mounted_at};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest wait for an answer of a mount that is there already.
const ANSWER: Duration = Duration::from_secs(10);
/// Most dead mounts on top of each other that are cleaned up.
const STALE_MAX: usize = 16;

/// Checks the mount point and the machine, and unmounts a mount whose process died. Returns
/// the mount point without links in its path.
///
/// # Errors
/// One line that says what to do.
pub(crate) fn mount_point(given: &Path) -> Result<PathBuf, Failure> {
    if !sys::is_root() {
        return Err(Failure::start("only root can mount: run it as root"));
    }
    if !Path::new("/dev/fuse").exists() {
        return Err(Failure::start(
            "/dev/fuse is missing: load the kernel's fuse module (modprobe fuse)",
        ));
    }
    let path = resolve(given)?;
    for _ in 0..STALE_MAX {
        let Some(mount) = mounted_at(&path).map_err(unreadable)? else {
            break;
        };
        clear(&path, &mount)?;
    }
    let meta = std::fs::metadata(&path).map_err(|_| missing(given))?;
    if !meta.is_dir() {
        return Err(Failure::start(format!(
            "mount point {} is not a directory",
            given.display()
        )));
    }
    Ok(path)
}

/// Resolves links in the path. The last component is left as it is if something is mounted
/// there: nothing here may touch that mount.
fn resolve(given: &Path) -> Result<PathBuf, Failure> {
    let absolute = std::path::absolute(given)
        .map_err(|e| failed(&format!("mount point {}", given.display()), &e))?;
    let (Some(parent), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        return Err(Failure::start(format!(
            "mount point {} cannot be mounted on",
            given.display()
        )));
    };
    let path = parent
        .canonicalize()
        .map_err(|_| missing(given))?
        .join(name);
    if mounted_at(&path).map_err(unreadable)?.is_some() {
        return Ok(path);
    }
    path.canonicalize().map_err(|_| missing(given))
}

/// Unmounts a dead mount; refuses a living one.
fn clear(path: &Path, mount: &Mount) -> Result<(), Failure> {
    let shown = path.display();
    match sys::ask_in_child(path, ANSWER).map_err(|e| failed("start a child process", &e))? {
        ChildEnd::Errno(libc::ENOTCONN | libc::ECONNABORTED) => {
            tracing::info!(mount_point = %shown, "unmount what a dead process left");
            match sys::unmount_in_child(path, true, ANSWER) {
                Ok(ChildEnd::Done | ChildEnd::Errno(libc::EINVAL)) => Ok(()),
                _ => Err(Failure::start(format!(
                    "mount point {shown} has a dead mount that cannot be removed: run umount -l {shown}"
                ))),
            }
        }
        ChildEnd::TimedOut => Err(Failure::start(format!(
            "mount point {shown} is busy: a mount of {} is there and does not answer, run umount -l {shown}",
            mount.source
        ))),
        ChildEnd::Done | ChildEnd::Errno(_) => Err(Failure::start(format!(
            "mount point {shown} is busy: {} ({}) is mounted there, run umount {shown} or choose another",
            mount.source, mount.fs_type
        ))),
    }
}

fn missing(given: &Path) -> Failure {
    let shown = given.display();
    Failure::start(format!(
        "mount point {shown} does not exist: make it (mkdir -p {shown})"
    ))
}

/// The failure to read the table of mounts.
fn unreadable(error: std::io::Error) -> Failure {
    Failure::start(error.to_string())
}

fn failed(what: &str, error: &std::io::Error) -> Failure {
    Failure::start(format!("{what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &Path) -> String {
        mount_point(path).unwrap_err().to_string()
    }

    #[test]
    fn unusable_mount_points_are_refused_in_one_line() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "x").unwrap();
        assert!(refused(&dir.path().join("none")).contains("does not exist"));
        assert!(refused(&dir.path().join("none/deeper")).contains("does not exist"));
        assert!(refused(&file).contains("not a directory"));
        assert!(refused(Path::new("/proc")).contains("busy"));
        assert!(refused(Path::new("/")).contains("cannot be mounted on"));
    }

    #[test]
    fn links_are_resolved() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        std::fs::create_dir(&real).unwrap();
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(mount_point(&link).unwrap(), real.canonicalize().unwrap());
    }
}
