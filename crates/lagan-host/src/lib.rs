//! What a process needs of its machine, whatever its role: one file for one thing.
//!
//! | module | holds | the rule that a user meets |
//! | --- | --- | --- |
//! | [`lock`] | lock files | one process for a directory; a stale pid keeps nobody out |
//! | [`process`] | processes that leave | a killed predecessor is waited for |
//! | [`port`] | ports of those that leave | the same for its addresses |
//! | [`replace`] | atomic replacement of files | a crash leaves the old or the new file |
//! | [`mounts`] | the mount table | it is read without touching a mount |
//! | [`servers`] | addresses of servers | `ip:port` or `name:port`, everywhere |
//! | [`units`] | sizes and durations | one dialect in files, options and commands |
//! | [`boot`] | the clock of the machine's run | it goes on while the machine sleeps |
//! | [`wall`] | the wall clock | 1970 where the clock is before it |
//! | [`log`] | log lines | `text` or `json`, to standard error |

pub mod boot;
pub mod lock;
pub mod log;
pub mod mounts;
pub mod port;
pub mod process;
pub mod replace;
pub mod servers;
pub mod units;
pub mod wall;
