//! `lagan profile`: shows what the calls of programs on a mount cost it.
//!
//! The mount counts all the time; its root tells by an extended attribute. Two looks at it, some
//! seconds apart, are what happened in between.

use crate::admin::output::print_json;
use crate::exit::{Doing, Failure, OK, Outcome};
use crate::{hang, sys};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Longest wait for the mount, which answers from memory.
const DEADLINE: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Profile {
    schema: u32,
    /// The time that it is about.
    seconds: f64,
    kernel: Kernel,
    calls: BTreeMap<String, Calls>,
    others: Others,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Kernel {
    release: String,
    loans_by_name: bool,
}

/// The calls of one kind.
#[derive(Debug, Default, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Calls {
    count: u64,
    us: u64,
    requests: u64,
    bytes: u64,
}

/// What tasks have sent that calls and the mount itself started.
#[derive(Debug, Default, Clone, Copy, PartialEq, Serialize, Deserialize)]
struct Others {
    requests: u64,
    bytes: u64,
}

impl Profile {
    /// What happened since that earlier look.
    fn since(mut self, before: &Profile) -> Profile {
        self.seconds -= before.seconds;
        for (op, calls) in &mut self.calls {
            if let Some(old) = before.calls.get(op) {
                calls.count = calls.count.saturating_sub(old.count);
                calls.us = calls.us.saturating_sub(old.us);
                calls.requests = calls.requests.saturating_sub(old.requests);
                calls.bytes = calls.bytes.saturating_sub(old.bytes);
            }
        }
        self.calls
            .retain(|_, calls| calls.count + calls.requests > 0);
        let (now, old) = (&mut self.others, before.others);
        now.requests = now.requests.saturating_sub(old.requests);
        now.bytes = now.bytes.saturating_sub(old.bytes);
        self
    }
}

/// Shows what happens on the mount for so many seconds; 0: what happened since it was made.
///
/// # Errors
/// The path is no root of a mount, or the mount does not answer.
pub fn run(mount: &Path, seconds: u64, json: bool) -> Outcome<u8> {
    let mut profile = look(mount)?;
    if seconds > 0 {
        std::thread::sleep(Duration::from_secs(seconds));
        let later = look(mount)?;
        if later.seconds < profile.seconds + seconds as f64 {
            let mount = mount.display();
            return Err(Failure::error(format!(
                "{mount} was mounted anew meanwhile"
            )));
        }
        profile = later.since(&profile);
    }
    match json {
        true => print_json(&profile)?,
        false => print!("{}", table(&profile)),
    }
    Ok(OK)
}

fn look(mount: &Path) -> Outcome<Profile> {
    let (path, shown) = (mount.to_owned(), mount.display());
    let read = hang::within(DEADLINE, move || sys::xattr(&path, c"user.lagan.profile"));
    let value = match read {
        None => return Err(Failure::error(format!("{shown} does not answer"))),
        Some(Ok(value)) => value,
        Some(Err(e)) => {
            return Err(match e.raw_os_error() {
                Some(libc::ENODATA | libc::EOPNOTSUPP) => Failure::usage(format!(
                    "{shown} is not the root of a Lagan mount of this version: name the mount point"
                )),
                _ => Failure::error(format!("look at {shown}: {e}")),
            });
        }
    };
    serde_json::from_slice(&value).doing(|| format!("read the profile of {shown}"))
}

/// The profile in words, dearest calls first.
fn table(profile: &Profile) -> String {
    let mut rows: Vec<(&String, &Calls)> = profile.calls.iter().collect();
    rows.sort_by_key(|(op, calls)| (std::cmp::Reverse(calls.us), *op));
    let mut out = format!(
        "{:.1} seconds, Linux {}; attributes are lent with {}\n",
        profile.seconds,
        profile.kernel.release,
        match profile.kernel.loans_by_name {
            true => "GETATTR and LOOKUP",
            false => "GETATTR alone: this kernel does not count evictions",
        }
    );
    out += &format!(
        "{:<16} {:>10} {:>12} {:>10} {:>12} {:>14}\n",
        "call", "count", "mean us", "requests", "req/call", "bytes"
    );
    for (op, calls) in rows {
        let each = |n: u64| n as f64 / calls.count.max(1) as f64;
        out += &format!(
            "{op:<16} {:>10} {:>12.1} {:>10} {:>12.2} {:>14}\n",
            calls.count,
            each(calls.us),
            calls.requests,
            each(calls.requests),
            calls.bytes
        );
    }
    let Others { requests, bytes } = profile.others;
    out += &format!(
        "{:<16} {:>10} {:>12} {:>10} {:>12} {:>14}\n",
        "(no call)", "", "", requests, "", bytes
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn profile(seconds: f64, calls: &[(&str, [u64; 4])]) -> Profile {
        let calls = calls.iter().map(|(op, [count, us, requests, bytes])| {
            let calls = Calls {
                count: *count,
                us: *us,
                requests: *requests,
                bytes: *bytes,
            };
            ((*op).to_owned(), calls)
        });
        Profile {
            schema: 1,
            seconds,
            kernel: Kernel {
                release: "6.12.1".into(),
                loans_by_name: true,
            },
            calls: calls.collect(),
            others: Others::default(),
        }
    }

    #[test]
    fn two_looks_show_what_happened_between_them() {
        let before = profile(10.0, &[("open", [5, 50, 5, 500]), ("read", [1, 1, 0, 0])]);
        let all = [
            ("open", [7, 90, 6, 700]),
            ("read", [1, 1, 0, 0]),
            ("write", [2, 4, 0, 0]),
        ];
        let between = profile(12.0, &all).since(&before);
        let right = [("open", [2, 40, 1, 200]), ("write", [2, 4, 0, 0])];
        assert_eq!(between, profile(2.0, &right));
    }

    #[test]
    fn dearest_calls_come_first() {
        let text = table(&profile(1.0, &[("a", [4, 10, 2, 7]), ("b", [1, 20, 0, 0])]));
        let ops: Vec<&str> = text
            .lines()
            .skip(2)
            .map(|l| l.split(' ').next().unwrap())
            .collect();
        assert_eq!(ops, ["b", "a", "(no"]);
        assert!(text.contains("0.50"), "{text}");
    }
}
