use super::*;
use crate::layout::make_dir;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};

/// A directory of `up` in which nothing ran yet.
fn directory() -> (tempfile::TempDir, Layout) {
    let dir = tempfile::tempdir().unwrap();
    let layout = Layout::new(dir.path()).unwrap();
    layout.create().unwrap();
    make_dir(&layout.run("up")).unwrap();
    (dir, layout)
}

/// A process that has its lock open as a daemon has, and does what `script` says.
fn daemon(layout: &Layout, role: Role, name: &str, script: &str) -> Child {
    let lock = layout.lock(role, name);
    make_dir(lock.parent().unwrap()).unwrap();
    let script = format!("exec 9>'{}'; echo $$ >&9; {script}", lock.display());
    let child = Command::new("/bin/sh")
        .args(["-c", &script])
        .stdin(Stdio::null())
        .process_group(0)
        .spawn()
        .unwrap();
    while lagan_host::lock::holder(&lock) != Some(child.id()) {
        std::thread::sleep(Duration::from_millis(5));
    }
    child
}

#[test]
fn processes_are_stopped_whoever_started_them() {
    let (_dir, layout) = directory();
    let mut server = daemon(&layout, Role::Server, "server-1", "exec sleep 60");
    let mut s3 = daemon(&layout, Role::S3, "s3", "exec sleep 60");
    assert_eq!(stop(&layout, false), Ok(OK));
    assert!(server.wait().is_ok() && s3.wait().is_ok());
    assert!(layout.stopped_mark().exists());
    assert_eq!(stop(&layout, true), Ok(OK), "again: nothing runs");
}

#[test]
fn process_that_has_let_go_of_its_lock_is_waited_for() {
    let (_dir, layout) = directory();
    let script = "trap 'exec 9>&-; sleep 1; exit 0' TERM; while :; do sleep 0.05; done";
    let mut server = daemon(&layout, Role::Server, "server-1", script);
    assert_eq!(stop(&layout, false), Ok(OK));
    assert!(server.try_wait().unwrap().is_some(), "it has ended");
}

#[test]
fn stopped_process_is_ended_too() {
    let (_dir, layout) = directory();
    let mut server = daemon(&layout, Role::Server, "server-1", "exec sleep 60");
    sys::kill(server.id(), libc::SIGSTOP).unwrap();
    assert_eq!(stop(&layout, false), Ok(OK));
    assert!(server.wait().is_ok());
}

#[test]
fn pid_in_a_stale_lock_is_left_alone() {
    let (_dir, layout) = directory();
    let mut bystander = Command::new("/bin/sleep").arg("60").spawn().unwrap();
    let lock = layout.lock(Role::Server, "server-1");
    make_dir(lock.parent().unwrap()).unwrap();
    std::fs::write(&lock, format!("{}\n", bystander.id())).unwrap();
    assert_eq!(stop(&layout, false), Ok(OK));
    assert_eq!(bystander.try_wait().unwrap(), None);
    bystander.kill().unwrap();
    bystander.wait().unwrap();
}

#[test]
fn mount_points_come_from_every_file_that_knows_one() {
    let (_dir, layout) = directory();
    make_dir(&layout.run("mount-2")).unwrap();
    std::fs::write(layout.config("mount-2"), "mount_point = '/m2'\n").unwrap();
    let points = mount_points(&layout);
    assert!(points.contains(&PathBuf::from("/m2")));
    assert!(points.contains(&layout.default_mount()));
}

#[test]
fn directory_without_a_cluster_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(run(dir.path(), false).unwrap_err().status, 1);
    assert!(!dir.path().join("run").exists());
}
