//! Processes that a test starts itself and must end itself.

use crate::leftover;
use crate::sys;
use crate::wait::until;
use anyhow::{Context, Result, ensure};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// Children, to be reaped; killed when this is dropped.
#[derive(Debug, Default)]
pub struct Children(Mutex<Vec<Child>>);

/// A program to start.
#[derive(Debug, Clone, Copy)]
pub struct Start<'a> {
    /// Program and arguments.
    pub argv: &'a [String],
    /// Variables on top of this process' own.
    pub env: &'a BTreeMap<String, String>,
    /// Working directory.
    pub cwd: &'a Path,
    /// File that its output is appended to.
    pub log: &'a Path,
}

impl Children {
    /// Starts one in the background; gives its process id.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(&self, start: Start<'_>) -> Result<u32> {
        ensure!(!start.argv.is_empty(), "no program");
        let log = File::options().create(true).append(true).open(start.log)?;
        let child = Command::new(&start.argv[0])
            .args(&start.argv[1..])
            .envs(start.env)
            .current_dir(start.cwd)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}", start.argv.join(" ")))?;
        let pid = child.id();
        self.lock().push(child);
        Ok(pid)
    }

    /// Asks how those that have ended did, so that they leave no zombies.
    pub fn reap(&self) {
        self.lock()
            .retain_mut(|child| !matches!(child.try_wait(), Ok(Some(_))));
    }

    /// The exit status of a child that has ended.
    pub fn status(&self, pid: u32) -> Option<Option<i32>> {
        let mut children = self.lock();
        let child = children.iter_mut().find(|c| c.id() == pid)?;
        child.try_wait().ok().flatten().map(|status| status.code())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Child>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Children {
    fn drop(&mut self) {
        for child in self.lock().iter_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A process that was stopped (SIGSTOP); it goes on when this is dropped.
#[derive(Debug)]
pub struct Frozen(u32);

impl Frozen {
    /// Stops it.
    ///
    /// # Panics
    /// When it is gone.
    pub fn new(pid: u32) -> Self {
        sys::kill(pid, libc::SIGSTOP).expect("stop a live process");
        Frozen(pid)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = sys::kill(self.0, libc::SIGCONT);
    }
}

/// Waits until a process is gone.
///
/// # Panics
/// When it stays.
#[track_caller]
pub fn wait_gone(pid: u32, children: &Children, limit: Duration) {
    until(&format!("end of process {pid}"), limit, || {
        children.reap();
        (!leftover::is_alive(pid)).then_some(())
    });
}
