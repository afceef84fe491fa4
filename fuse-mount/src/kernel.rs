//! Makes the mount, tells it from others at the same path, and removes it.

use crate::config::MountConfig;
use crate::failure::Failure;
use crate::sys::{self, ChildEnd};
use lagan_host::mounts::mounted_at;
use std::fs::File;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Wait for the users of a busy mount before it is unmounted lazily.
const BUSY: Duration = Duration::from_secs(10);
/// Longest time for one try to unmount: the kernel may write mapped pages first.
const ONE_TRY: Duration = Duration::from_secs(30);

/// A mount of this process. Dropping it unmounts lazily, unless the mount is gone.
#[derive(Debug)]
pub(crate) struct Mounted {
    point: PathBuf,
    /// `major:minor`: tells this mount from a later one at the same path.
    device: String,
}

/// Outcome of [`Mounted::leave`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Left {
    /// Nobody used the mount, or somebody had unmounted it.
    Clean,
    /// Files are still open: their users get errors.
    Lazily,
}

impl Mounted {
    /// Mounts at `point`. The kernel's requests are read from the returned descriptor.
    ///
    /// # Errors
    /// One line that says what to do.
    pub(crate) fn mount(config: &MountConfig, point: &Path) -> Result<(Self, OwnedFd), Failure> {
        let device = File::options()
            .read(true)
            .write(true)
            .open("/dev/fuse")
            .map_err(|e| {
                Failure::start(format!(
                    "open /dev/fuse: {e}: load the kernel's fuse module (modprobe fuse)"
                ))
            })?;
        let mut options = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions",
            device.as_raw_fd()
        );
        if config.allow_other {
            options.push_str(",allow_other");
        }
        sys::mount_fuse(&config.source(), point, flags(config), &options)
            .map_err(|e| Failure::start(format!("mount on {}: {e}", point.display())))?;
        let mount = mounted_at(point)
            .ok()
            .flatten()
            .filter(|mount| mount.fs_type == "fuse.lagan");
        let Some(mount) = mount else {
            drop(sys::unmount_in_child(point, true, ONE_TRY));
            return Err(Failure::start(format!(
                "mount on {}: it is not in /proc/self/mountinfo",
                point.display()
            )));
        };
        let mounted = Mounted {
            point: point.to_path_buf(),
            device: mount.device,
        };
        Ok((mounted, OwnedFd::from(device)))
    }

    /// `major:minor` of the mount.
    pub(crate) fn device(&self) -> &str {
        &self.device
    }

    /// Unmounts, lazily after ten seconds of being busy. Blocks.
    pub(crate) fn leave(&self) -> Left {
        let end = Instant::now() + BUSY;
        while self.is_there() {
            match sys::unmount_in_child(&self.point, false, ONE_TRY) {
                Ok(ChildEnd::Done | ChildEnd::Errno(libc::EINVAL)) => return Left::Clean,
                Ok(ChildEnd::Errno(libc::EBUSY)) if Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(100));
                }
                other => {
                    tracing::warn!(mount_point = %self.point.display(), ?other, "busy: unmount lazily");
                    self.detach();
                    return Left::Lazily;
                }
            }
        }
        Left::Clean
    }

    fn detach(&self) {
        if self.is_there() {
            let end = sys::unmount_in_child(&self.point, true, ONE_TRY);
            if !matches!(end, Ok(ChildEnd::Done)) {
                tracing::error!(mount_point = %self.point.display(), ?end, "cannot unmount");
            }
        }
    }

    /// Whether it is still mounted, and on top.
    fn is_there(&self) -> bool {
        mounted_at(&self.point)
            .ok()
            .flatten()
            .is_some_and(|mount| mount.device == self.device)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        self.detach();
    }
}

fn flags(config: &MountConfig) -> libc::c_ulong {
    // The kernel moves no access times of FUSE files. These flags say what we do, for
    // people who look at /proc/mounts; without them the kernel shows relatime.
    let mut flags = 0;
    for (set, flag) in [
        (config.no_atime, libc::MS_NOATIME),
        (config.no_dir_atime, libc::MS_NODIRATIME),
        (config.read_only, libc::MS_RDONLY),
        (!config.suid, libc::MS_NOSUID),
        (!config.dev, libc::MS_NODEV),
        (!config.exec, libc::MS_NOEXEC),
    ] {
        if set {
            flags |= flag;
        }
    }
    flags
}

/// Sets how far the kernel reads ahead on that mount. A failure is only logged: reading is
/// slower then.
pub(crate) fn set_read_ahead(device: &str, bytes: u64) {
    let file = format!("/sys/class/bdi/{device}/read_ahead_kb");
    if let Err(e) = std::fs::write(&file, (bytes / 1024).to_string()) {
        tracing::warn!(file, error = %e, "set the kernel's read-ahead");
    }
}
