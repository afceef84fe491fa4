//! Looks at paths that may lie on a mount which hangs.
//!
//! A call into a mount whose process hangs cannot be interrupted. So a child process, or
//! a thread, makes the call and is left behind after a deadline.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// The kind of thing that a path leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// A directory.
    Directory,
    /// Anything but a directory.
    Other,
    /// The look failed with this errno, such as ENOENT.
    Error(i32),
    /// No answer within the deadline.
    Silent,
}

/// The answer that the child process of [`look`] (`lagan probe-path`) prints: a number.
pub fn child(path: &Path) -> String {
    match std::fs::metadata(path) {
        Ok(meta) if meta.is_dir() => "0".into(),
        Ok(_) => "-1".into(),
        Err(e) => e.raw_os_error().unwrap_or(libc::EIO).to_string(),
    }
}

/// Looks at `path` from a child process of this program, for `deadline` at most.
pub fn look(path: &Path, deadline: Duration) -> Look {
    let started = std::env::current_exe().and_then(|exe| {
        Command::new(exe)
            .arg("probe-path")
            .arg(path)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
    });
    let Ok(mut child) = started else {
        return Look::Error(libc::EAGAIN);
    };
    let end = Instant::now() + deadline;
    loop {
        match child.try_wait() {
            Ok(Some(_)) => break,
            Ok(None) if Instant::now() < end => std::thread::sleep(Duration::from_millis(10)),
            _ => {
                // It may be stuck in the kernel, so nobody waits for it.
                let _ = child.kill();
                return Look::Silent;
            }
        }
    }
    let mut text = String::new();
    if let Some(out) = child.stdout.as_mut() {
        let _ = out.take(32).read_to_string(&mut text);
    }
    match text.trim().parse() {
        Ok(0) => Look::Directory,
        Ok(-1) => Look::Other,
        Ok(errno) => Look::Error(errno),
        Err(_) => Look::Error(libc::EIO),
    }
}

/// Runs `work` on a thread of its own. `None` after the deadline; the thread is left behind.
pub fn within<T: Send + 'static>(
    deadline: Duration,
    work: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (done, wait) = mpsc::sync_channel(1);
    std::thread::Builder::new()
        .name("bounded".into())
        .spawn(move || {
            let _ = done.send(work());
        })
        .ok()?;
    wait.recv_timeout(deadline).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn work_that_does_not_end_is_given_up() {
        assert_eq!(within(Duration::from_secs(60), || 7), Some(7));
        let (_keep, wait) = mpsc::channel::<()>();
        assert_eq!(
            within(Duration::from_millis(20), move || wait.recv().is_ok()),
            None
        );
    }
}
