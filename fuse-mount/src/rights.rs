//! The rights of a caller that decide over set-group-id bits.
//!
//! The kernel sends one group of the caller and not the others. Whether setting an access
//! control list has to clear set-group-id, it says only in an extension that the library
//! cannot read (FUSE_SETXATTR_EXT). But the caller waits in the kernel for its answer, so
//! `/proc/PID/status` (proc(5)) shows the rights that it calls with.

use lagan_client::Caller;

/// CAP_FSETID as a bit of the mask of capabilities (linux/capability.h).
const CAP_FSETID: u64 = 1 << 4;

/// The rights of one caller.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Rights {
    /// It has CAP_FSETID: set-group-id stays, whatever the groups are.
    pub fsetid: bool,
    /// All its groups.
    pub groups: Vec<u32>,
}

impl Rights {
    /// The rights of the thread that waits for its request. If this program cannot see that
    /// thread, only user and group are known: a bit is then cleared rather than kept. The same
    /// holds in a user namespace, where a capability counts for some inodes and not for others.
    pub fn of(caller: Caller) -> Self {
        let known = Rights {
            fsetid: caller.privileged(),
            groups: vec![caller.gid],
        };
        if caller.pid == 0 {
            return known;
        }
        let Ok(status) = std::fs::read_to_string(format!("/proc/{}/status", caller.pid)) else {
            return known;
        };
        let namespace = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/user")).ok();
        let theirs = namespace(&caller.pid.to_string());
        let ours = theirs.is_some() && theirs == namespace("self");
        let mut rights = parse(&status, caller.gid);
        rights.fsetid &= ours;
        rights
    }
}

/// Reads the text of the status; `gid` is the group that the call is made with.
fn parse(status: &str, gid: u32) -> Rights {
    let field = |name: &str| {
        let mut lines = status.lines();
        lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))
    };
    let effective = field("CapEff").and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    let groups = field("Groups").unwrap_or_default().split_whitespace();
    let groups = groups.filter_map(|group| group.parse().ok());
    Rights {
        fsetid: effective.unwrap_or(0) & CAP_FSETID != 0,
        groups: groups.chain([gid]).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_and_the_capability_are_read() {
        let status = "Name:\tx\nGroups:\t4 24 1000 \nCapPrm:\t0000000000000000\n\
                      CapEff:\t0000000000000010\n";
        let rights = parse(status, 7);
        assert_eq!(rights.groups, [4, 24, 1000, 7]);
        assert!(rights.fsetid);
        let without = status.replace("0000000010", "ffffffffef");
        assert!(!parse(&without, 7).fsetid);
    }

    #[test]
    fn nonsense_gives_no_rights() {
        let none = Rights {
            fsetid: false,
            groups: vec![7],
        };
        assert_eq!(parse("Groups\nCapEff:\tzz\n", 7), none);
    }

    #[test]
    fn who_cannot_be_seen_has_its_group() {
        let unseen = Caller {
            uid: 9,
            gid: 7,
            pid: 0,
        };
        let known = Rights {
            fsetid: false,
            groups: vec![7],
        };
        assert_eq!(Rights::of(unseen), known);
    }
}
