//! The log of a mount: lines on standard error, as text or JSON.

use crate::config::{LogConfig, LogLevel};
use lagan_host::log::{Output, Setup};

/// Starts logging for the process. A second call changes nothing.
pub(crate) fn start(config: &LogConfig) {
    let level = config.level.name();
    // The FUSE library calls it an error when a reply comes too late for a request that
    // the kernel gave up (a signal, an unmount): that is ordinary.
    let library = match config.level {
        LogLevel::Error => "fuser=error",
        _ => "fuser=warn",
    };
    let started = lagan_host::log::start(Setup {
        filter: level,
        quiet: &[library, "fuser::reply=off"],
        format: config.format,
        is_flat: true,
        output: Output::Stderr,
    });
    // The levels are ours and can be understood; the program may have started logging before.
    drop(started);
}
