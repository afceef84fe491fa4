//! The FUSE mount: `lagan-mount`, and the helper `mount.lagan` that mount(8) calls.
//!
//! ```text
//! cli, options, file, config   settings of the mount: arguments, -o, mount.toml
//! check, run_dir               can it be mounted there, and by this process alone?
//! daemon                       the caller of a daemon waits until the mount answers
//! life                         connect, mount, serve, unmount, flush
//! fs                           requests of the kernel -> calls of lagan-client
//! ```
//! A crash leaves a dead mount and a session: the next start at the same place
//! removes both. This crate alone names fuser, and alone turns errors into errnos.

mod check;
mod cli;
mod config;
mod daemon;
mod errno;
mod failure;
mod file;
mod fs;
mod identity;
mod kernel;
mod life;
mod log;
mod notify;
mod options;
mod rights;
mod run_dir;
mod sys;
mod waiter;

use cli::Action;
use std::ffi::OsString;
use std::process::ExitCode;

/// Runs the program; `args` begin with its name, `lagan-mount` or
/// `mount.lagan`. Returns when the mount is gone, or, in the process that
/// was called to make a daemon, when the mount answers.
///
/// Must be called while the process has a single thread and no files of its
/// own open: it may fork, and the daemon closes what it inherited.
///
/// Exit status: 0 unmounted in order (or the daemon's mount answers), 1 the
/// mount failed or what was written could not be flushed, 2 wrong arguments or configuration.
pub fn main_with_args(args: Vec<OsString>) -> ExitCode {
    match cli::parse(args) {
        Ok(Action::Mount(invocation)) => life::run(&invocation),
        Ok(Action::Fake) => ExitCode::SUCCESS,
        Ok(Action::Help) => {
            print!("{}", cli::help());
            ExitCode::SUCCESS
        }
        Ok(Action::Version) => {
            println!("lagan-mount {}", env!("CARGO_PKG_VERSION"));
            ExitCode::SUCCESS
        }
        Err(failure) => {
            eprintln!("lagan-mount: {failure}");
            failure.exit_code()
        }
    }
}
