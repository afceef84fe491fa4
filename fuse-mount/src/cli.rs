//! The command line of `lagan-mount`, and of the helper that mount(8) calls.
//!
//! ```text
//! lagan-mount --config mount.toml [--foreground | --background]
//! lagan-mount addr,addr:/vol /mnt [-o options] [-f]
//! mount.lagan addr,addr:/vol /mnt [-sfnvrw] [-t type] [-o options]
//! ```

use crate::config::{LogLevel, MountConfig};
use crate::failure::Failure;
use crate::file;
use crate::options;
use lagan_host::servers;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

#[cfg(test)]
mod tests;

/// The first part of the help, before the options.
const USAGE: &str = "\
usage: lagan-mount --config FILE [--foreground | --background]
       lagan-mount ADDR[,ADDR...]:/VOLUME DIR [-o OPTION[,OPTION...]] [-f]
       mount -t lagan ADDR[,ADDR...]:/VOLUME DIR [-o OPTION[,OPTION...]]

ADDR is ip:port or name:port of a server; one that answers is enough.

  -c, --config FILE  read everything from a TOML file; stays in the foreground
  -f, --foreground   do not become a daemon
  -b, --background   become a daemon once the mount answers
  -o OPTION,...      set options, see below; of two the later one wins
  -r, -w             the same as -o ro, -o rw
  -v                 log each request too: the same as -o log_level=debug
  -n, -s             nothing: mount(8) gives them
  -h, --help         print this
  -V, --version      print the version

As mount.lagan, the helper of mount(8), -f only checks the arguments, and -t TYPE
and -N NAMESPACE are accepted.

options, with their defaults in brackets; the file has a key for each:
";

/// The last part of the help.
const STATUS: &str = "
sizes: 65536, 64KiB, 64MiB, 1GiB (powers of 1024); times: 500ms, 30s, 2min, 1h, 1d

exit status: 0 unmounted in order (or mounted, as a daemon), 1 the mount failed,
2 the command line or the configuration is wrong
";

/// The text of `--help`.
pub(crate) fn help() -> String {
    format!("{USAGE}{}{STATUS}", options::help())
}

/// The action that the arguments ask for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Mount.
    Mount(Box<Invocation>),
    /// Only check the arguments (mount -f).
    Fake,
    /// Print [`help`].
    Help,
    /// Print the version.
    Version,
}

/// A mount that was asked for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Invocation {
    /// Settings of the mount.
    pub(crate) config: MountConfig,
    /// Stay in the foreground.
    pub(crate) foreground: bool,
}

/// The arguments one by one, before they are put together.
#[derive(Default)]
struct Said {
    config: Option<PathBuf>,
    foreground: Option<bool>,
    fake: bool,
    read_only: Option<bool>,
    verbose: bool,
    options: Vec<String>,
    plain: Vec<OsString>,
}

/// Reads the arguments; the first is the program's name.
///
/// # Errors
/// One line that names the argument.
pub(crate) fn parse(args: Vec<OsString>) -> Result<Action, Failure> {
    let mut args = args.into_iter();
    let program = args.next().unwrap_or_default();
    let helper = Path::new(&program).file_name() == Some(OsStr::new("mount.lagan"));
    let mut said = Said::default();
    while let Some(arg) = args.next() {
        match arg.to_str() {
            Some("-h" | "--help") => return Ok(Action::Help),
            Some("-V" | "--version") => return Ok(Action::Version),
            Some("-c" | "--config") => said.config = Some(value(&arg, &mut args)?.into()),
            Some("--foreground") => said.foreground = Some(true),
            Some("-b" | "--background") => said.foreground = Some(false),
            Some("-o") => said.options.push(text(value(&arg, &mut args)?)?),
            Some("-t" | "-N") if helper => drop(value(&arg, &mut args)?),
            Some(long) if long.starts_with("--") => return Err(unknown(long)),
            Some(short) if short.len() > 1 && short.starts_with('-') => {
                flags(&short[1..], helper, &mut said)?;
            }
            _ => said.plain.push(arg),
        }
    }
    said.put_together()
}

/// Reads single letters, of which an argument may have several (`-nv`); `-o` may hold its
/// value (`-oro`).
fn flags(letters: &str, helper: bool, said: &mut Said) -> Result<(), Failure> {
    if let Some(options) = letters.strip_prefix('o') {
        said.options.push(options.to_owned());
        return Ok(());
    }
    for letter in letters.chars() {
        match letter {
            'f' if helper => said.fake = true,
            'f' => said.foreground = Some(true),
            'r' => said.read_only = Some(true),
            'w' => said.read_only = Some(false),
            'v' => said.verbose = true,
            // There is no mtab to write, and unknown options are never ignored.
            'n' | 's' => {}
            _ => return Err(unknown(&format!("-{letter}"))),
        }
    }
    Ok(())
}

impl Said {
    fn put_together(self) -> Result<Action, Failure> {
        let mut config = match (&self.config, self.plain.as_slice()) {
            (Some(file), []) => file::load(file)?,
            (Some(_), [extra, ..]) => {
                return Err(unknown(&extra.to_string_lossy()));
            }
            (None, [source, dir]) => from_source(source, dir)?,
            (None, [_, _, extra, ..]) => return Err(unknown(&extra.to_string_lossy())),
            (None, _) => {
                return Err(Failure::usage(
                    "say what to mount and where: ADDR[,ADDR...]:/VOLUME DIR, or --config FILE \
                     (see --help)",
                ));
            }
        };
        for list in &self.options {
            options::apply(&mut config, list)?;
        }
        if let Some(read_only) = self.read_only {
            config.read_only = read_only;
        }
        if self.verbose && config.log.level == LogLevel::Info {
            config.log.level = LogLevel::Debug;
        }
        config
            .check()
            .map_err(|(key, e)| Failure::usage(format!("{key}: {e}")))?;
        if self.fake {
            return Ok(Action::Fake);
        }
        let foreground = self.foreground.unwrap_or(self.config.is_some());
        Ok(Action::Mount(Box::new(Invocation { config, foreground })))
    }
}

/// Makes settings of `addr,addr:/volume` and the mount point.
fn from_source(source: &OsStr, dir: &OsStr) -> Result<MountConfig, Failure> {
    let wrong = || {
        Failure::usage(format!(
            "`{}` is not ADDR[,ADDR...]:/VOLUME, as in 10.0.0.1:7000,10.0.0.2:7000:/vol",
            source.to_string_lossy()
        ))
    };
    let (servers, volume) = source
        .to_str()
        .and_then(|s| s.rsplit_once(":/"))
        .ok_or_else(wrong)?;
    let servers: Vec<String> = servers.split(',').map(str::to_owned).collect();
    for server in &servers {
        servers::check(server).map_err(|e| Failure::usage(e.to_string()))?;
    }
    if volume.is_empty() {
        return Err(wrong());
    }
    let dir = PathBuf::from(OsStr::from_bytes(dir.as_bytes()));
    Ok(MountConfig::new(servers, volume.to_owned(), dir))
}

fn value(name: &OsStr, rest: &mut impl Iterator<Item = OsString>) -> Result<OsString, Failure> {
    rest.next()
        .ok_or_else(|| Failure::usage(format!("{} needs a value", name.to_string_lossy())))
}

fn text(value: OsString) -> Result<String, Failure> {
    value
        .into_string()
        .map_err(|v| Failure::usage(format!("`{}` is not text", v.to_string_lossy())))
}

fn unknown(what: &str) -> Failure {
    Failure::usage(format!("unknown argument `{what}` (see --help)"))
}
