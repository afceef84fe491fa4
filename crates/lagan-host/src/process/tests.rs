use super::*;
use crate::lock;
use std::path::Path;

mod sys;

#[test]
fn another_process_of_the_same_number_is_another() {
    let process = Process::find(std::process::id()).unwrap();
    assert!(!process.has_ended());
    let start = process.start + 1;
    assert!(Process { start, ..process }.has_ended());
}

#[test]
fn process_holds_its_lock_until_its_last_thread_has_ended() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("lock");
    let mut child = zombie_first_thread(&path);
    let stat = stat(child.id()).unwrap();
    assert!(stat.is_zombie && threads(child.id()) > 1);
    let found = lock::holding_process(&path).unwrap();
    assert_eq!((found.pid, found.has_ended()), (child.id(), false));
    child.kill().unwrap();
    while !found.has_ended() {
        std::thread::sleep(LOOK);
    }
    assert!(lock::take(&path).is_ok(), "ended, though nobody asked how");
    child.wait().unwrap();
    assert!(found.has_ended());
}

/// Starts a process that holds the lock, whose first thread has ended and another has
/// not: this very test program, running [`lives_on_in_a_thread`].
fn zombie_first_thread(lock: &Path) -> std::process::Child {
    let mut child = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "process::tests::lives_on_in_a_thread"])
        .env("LAGAN_TEST_LOCK", lock)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    while !stat(child.id()).is_some_and(|s| s.is_zombie) {
        assert!(child.try_wait().unwrap().is_none(), "it lives on");
        std::thread::sleep(LOOK);
    }
    child
}

#[test]
fn lives_on_in_a_thread() {
    let Some(lock) = std::env::var_os("LAGAN_TEST_LOCK") else {
        return;
    };
    let held = lock::take(Path::new(&lock)).unwrap();
    // Tests run in threads of their own.
    sys::end_first_thread();
    std::thread::sleep(Duration::from_secs(600));
    drop(held);
}
