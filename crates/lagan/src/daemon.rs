//! The daemons of the multi-call program, and the step before each starts.
//!
//! A daemon of `lagan up` has its configuration at `DIR/etc/NAME.toml`. Whoever starts it
//! with that file, it first puts its pid into `DIR/cluster.json`. With a configuration
//! anywhere else there is no such step.

use crate::layout::{Layout, Role, make_private_dir};
use crate::record::Record;
use lagan_host::lock;
use lagan_host::process::LEAVING_PATIENCE;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

/// The daemon that this program is, by the name that it was called.
pub fn by_name(argv0: &OsStr) -> Option<Role> {
    match Path::new(argv0).file_name()?.to_str()? {
        "lagan-server" => Some(Role::Server),
        "lagan-mount" | "mount.lagan" => Some(Role::Mount),
        "lagan-s3" => Some(Role::S3),
        _ => None,
    }
}

/// Runs the daemon until it ends.
pub fn run(role: Role, args: Vec<OsString>) -> ExitCode {
    let _held = match note_start(role, &args, LEAVING_PATIENCE) {
        Ok(held) => held,
        Err(reason) => {
            eprintln!("{}: {reason}", role.program());
            return ExitCode::from(crate::exit::ERROR);
        }
    };
    call(role, args)
}

fn call(role: Role, args: Vec<OsString>) -> ExitCode {
    crate::sys::keep_freed_memory();
    match role {
        Role::Server => lagan_server::main_with_args(args),
        Role::Mount => lagan_mount::main_with_args(args),
        Role::S3 => lagan_s3::main_with_args(args),
    }
}

/// Puts the pid into the cluster's record, if there is one, and takes the lock if the
/// daemon does not take it itself. A predecessor that leaves gets the time to do so.
fn note_start(role: Role, args: &[OsString], patience: Duration) -> Result<Option<File>, String> {
    let Some((layout, name)) = place(args) else {
        return Ok(None);
    };
    let lock = layout.lock(role, &name);
    if let Some(pid) = lock::staying_holder(&lock, patience) {
        return Err(format!("{name} runs already, as process {pid}"));
    }
    let held = match role {
        Role::S3 => Some(take_lock(&lock, patience)?),
        Role::Server | Role::Mount => None,
    };
    let record = layout.cluster_json();
    if record.exists()
        && let Err(e) = Record::set_pid(&record, &name, std::process::id())
    {
        eprintln!("{name}: {e}");
    }
    Ok(held)
}

fn take_lock(lock: &Path, patience: Duration) -> Result<File, String> {
    if let Some(dir) = lock.parent() {
        make_private_dir(dir).map_err(|e| e.to_string())?;
    }
    lock::take_within(lock, patience).map_err(|e| format!("lock {}: {e}", lock.display()))
}

/// The directory of `lagan up` and the process's name, if the configuration
/// given in the arguments lies in one.
fn place(args: &[OsString]) -> Option<(Layout, String)> {
    let config = config_of(args)?.canonicalize().ok()?;
    let name = config.file_stem()?.to_str()?.to_owned();
    let etc = config.parent().filter(|p| p.ends_with("etc"))?;
    let layout = Layout {
        root: etc.parent()?.to_owned(),
    };
    // `up` makes it before anything starts.
    layout.run("up").is_dir().then_some((layout, name))
}

fn config_of(args: &[OsString]) -> Option<PathBuf> {
    let mut args = args.iter().skip(1);
    while let Some(arg) = args.next() {
        if arg == "--config" || arg == "-c" {
            return args.next().map(PathBuf::from);
        }
        if let Some(value) = arg.to_str().and_then(|a| a.strip_prefix("--config=")) {
            return Some(PathBuf::from(value));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn program_is_chosen_by_its_name() {
        let role = |name: &str| by_name(OsStr::new(name));
        assert_eq!(role("/x/bin/lagan-server"), Some(Role::Server));
        assert_eq!(role("mount.lagan"), Some(Role::Mount));
        assert_eq!(role("lagan-s3"), Some(Role::S3));
        assert_eq!(role("lagan"), None);
        assert_eq!(role("/"), None);
    }

    #[test]
    fn only_a_configuration_of_up_has_a_place() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path()).unwrap();
        layout.create().unwrap();
        std::fs::write(layout.config("server-2"), "").unwrap();
        let args: Vec<OsString> = vec![
            "lagan-server".into(),
            "--config".into(),
            layout.config("server-2").into(),
        ];
        assert_eq!(place(&args), None);
        make_private_dir(&layout.run("up")).unwrap();
        assert_eq!(place(&args), Some((layout, "server-2".into())));
        assert_eq!(place(&args[..1]), None);
    }

    #[test]
    fn second_process_of_a_name_is_refused_before_it_touches_the_record() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::new(dir.path()).unwrap();
        layout.create().unwrap();
        make_private_dir(&layout.run("up")).unwrap();
        std::fs::write(layout.config("s3"), "").unwrap();
        let args: Vec<OsString> = vec![
            "lagan-s3".into(),
            "--config".into(),
            layout.config("s3").into(),
        ];
        let held = note_start(Role::S3, &args, Duration::ZERO).unwrap();
        assert!(held.is_some());
        let error = note_start(Role::S3, &args, Duration::ZERO).unwrap_err();
        assert!(error.contains("runs already"), "{error}");
    }
}
