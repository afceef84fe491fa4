//! Commands with a deadline.
//!
//! Output goes through files, so that a daemon that inherits it holds nobody up.

use crate::sys;
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A command that has ended.
#[derive(Debug, Clone)]
pub struct Done {
    /// The command line.
    pub line: String,
    /// Exit status; `None` if a signal ended the command.
    pub status: Option<i32>,
    /// Text that it wrote to stdout.
    pub out: String,
    /// Text that it wrote to stderr.
    pub err: String,
}

impl Done {
    /// Fails unless the exit status is this one.
    ///
    /// # Panics
    /// With all output, when it is another.
    #[track_caller]
    pub fn expect(self, status: i32) -> Done {
        assert!(
            self.status == Some(status),
            "expected status {status}: {self}"
        );
        self
    }

    /// The output as JSON.
    ///
    /// # Panics
    /// When it is none.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        match serde_json::from_str(&self.out) {
            Ok(value) => value,
            Err(error) => panic!("no JSON ({error}): {self}"),
        }
    }

    /// Lines of both outputs that are not empty.
    pub fn lines(&self) -> usize {
        let both = self.out.lines().chain(self.err.lines());
        both.filter(|line| !line.trim().is_empty()).count()
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "`{}` ended with {:?}\n--- output\n{}\n--- errors\n{}\n---",
            self.line,
            self.status,
            self.out.trim_end(),
            self.err.trim_end()
        )
    }
}

/// Runs a command to its end, without input, in a process group of its own.
///
/// # Errors
/// When it cannot be started, or is not done in time: then the group is killed.
pub fn run(command: &mut Command, limit: Duration) -> Result<Done> {
    let (mut out, mut err) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let line = line_of(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(out.try_clone()?)
        .stderr(err.try_clone()?)
        .process_group(0)
        .spawn()
        .with_context(|| format!("start `{line}`"))?;
    let end = Instant::now() + limit;
    let mut pause = Duration::from_millis(2);
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= end {
            sys::kill_group(child.id());
            // a process that waits for a dead mount may be there for ever
            let _ = child.try_wait();
            bail!(
                "`{line}` was not done within {limit:?}\n--- output\n{}\n--- errors\n{}",
                text(&mut out)?,
                text(&mut err)?
            );
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    };
    Ok(Done {
        line,
        status: status.code(),
        out: text(&mut out)?,
        err: text(&mut err)?,
    })
}

fn text(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn line_of(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(|w| w.to_string_lossy()).collect();
    words.join(" ")
}

/// Runs a program with arguments; it must end well.
///
/// # Panics
/// When it does not, or not in time.
#[track_caller]
pub fn must(program: &str, args: &[&str], limit: Duration) -> Done {
    match run(Command::new(program).args(args), limit) {
        Ok(done) => done.expect(0),
        Err(error) => panic!("{error:#}"),
    }
}
