//! Checks everything that can be refused before anything starts.

use crate::exit::{Doing, Failure, Outcome};
use crate::hang::{self, Look};
use crate::layout::{Layout, make_dir};
use crate::sys;
use crate::up::archive::S3Plan;
use crate::up::plan::Plan;
use lagan_host::mounts::Mount;
use lagan_host::process::LEAVING_PATIENCE;
use lagan_host::{mounts, port};
use std::fs::File;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

/// Longest time for one look at a mount point.
const LOOK_DEADLINE: Duration = Duration::from_secs(5);

/// Checks root, /dev/fuse, mount points, namespaces and ports.
///
/// # Errors
/// One line that says what to do; status 2 for what the arguments name.
pub fn machine(layout: &Layout, plan: &Plan) -> Outcome<()> {
    if !sys::is_root() {
        return Err(Failure::error("mounting needs root: run it with sudo"));
    }
    File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .map_err(|e| Failure::error(format!("/dev/fuse: {e}: load the kernel module `fuse`")))?;
    for point in &plan.mounts {
        mount_point(layout, point)?;
    }
    let until = Instant::now() + LEAVING_PATIENCE;
    for server in &plan.servers {
        if let Some(netns) = &server.netns {
            if !Path::new("/run/netns").join(netns).exists() {
                return Err(Failure::usage(format!(
                    "--netns {netns}: no such network namespace, make it with `ip netns add {netns}`"
                )));
            }
        } else {
            for addr in [server.listen, server.peer_listen, server.http] {
                bindable(addr, until)?;
            }
        }
    }
    match &plan.s3 {
        S3Plan::Embedded {
            listen,
            netns: None,
            ..
        } => bindable(*listen, until),
        _ => Ok(()),
    }
}

/// Checks that the mount point is a directory with nothing mounted on it. A dead mount is
/// cleaned up.
fn mount_point(layout: &Layout, point: &Path) -> Outcome<()> {
    let shown = point.display();
    if point == layout.default_mount() && mounted_at(point)?.is_none() {
        make_dir(point)?;
    }
    for _ in 0..8 {
        let Some(mount) = mounted_at(point)? else {
            break;
        };
        let dead = hang::look(point, LOOK_DEADLINE) == Look::Error(libc::ENOTCONN);
        if !mount.is_lagan() || !dead {
            return Err(Failure::error(format!(
                "{shown} is busy: {} is mounted there, unmount it or take another mount point",
                mount.fs_type
            )));
        }
        sys::unmount(point, true).doing(|| format!("unmount the dead mount at {shown}"))?;
    }
    match hang::look(point, LOOK_DEADLINE) {
        Look::Directory => Ok(()),
        Look::Error(libc::ENOENT) => Err(Failure::error(format!(
            "mount point {shown} is missing: make it with `mkdir -p {shown}`"
        ))),
        Look::Other | Look::Error(libc::ENOTDIR) => Err(Failure::error(format!(
            "mount point {shown} is not a directory"
        ))),
        Look::Silent => Err(Failure::error(format!("{shown} does not answer"))),
        Look::Error(errno) => Err(Failure::error(format!(
            "mount point {shown}: {}",
            std::io::Error::from_raw_os_error(errno)
        ))),
    }
}

/// The topmost mount at exactly that path.
///
/// # Errors
/// When /proc is not there.
pub fn mounted_at(point: &Path) -> Outcome<Option<Mount>> {
    mounts::mounted_at(point).map_err(|e| Failure::error(e.to_string()))
}

/// Checks that a server can be given that address, in this network namespace. Waits until
/// then for a process that was killed and still has it.
///
/// # Errors
/// One line that names the address and the reason.
fn bindable(addr: SocketAddr, until: Instant) -> Outcome<()> {
    port::check_free(addr, until).map_err(|e| match e.kind() {
        ErrorKind::AddrInUse => Failure::error(format!(
            "{addr} is taken by another program: stop it, or take another directory"
        )),
        _ => Failure::error(format!("listen on {addr}: {e}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_in_use_is_named() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let addr = taken.local_addr().unwrap();
        let error = bindable(addr, Instant::now()).unwrap_err();
        assert!(error.message.contains(&addr.to_string()), "{error}");
    }
}
