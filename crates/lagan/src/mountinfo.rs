//! The mounts that the kernel knows, read without touching any of them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One line of /proc/self/mountinfo (proc_pid_mountinfo(5)).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Where it is mounted.
    pub point: PathBuf,
    /// Its type, as `fuse.lagan`.
    pub fs_type: String,
    /// Its source, as `addr1,addr2:/vol`.
    pub source: String,
}

impl Mount {
    /// Whether it is a mount of this file system.
    pub fn is_lagan(&self) -> bool {
        self.fs_type == "fuse.lagan"
            || (self.fs_type.starts_with("fuse") && self.source.starts_with("lagan"))
    }
}

/// All mounts that this process sees, in the order of mounting.
///
/// # Errors
/// When /proc is not there.
pub fn all() -> std::io::Result<Vec<Mount>> {
    Ok(parse(&std::fs::read("/proc/self/mountinfo")?))
}

/// The topmost mount at exactly that path.
pub fn at<'a>(mounts: &'a [Mount], point: &Path) -> Option<&'a Mount> {
    mounts.iter().rev().find(|m| m.point == point)
}

/// The mount that an absolute path lies on.
pub fn holding<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    mounts
        .iter()
        .rev()
        .filter(|m| path.starts_with(&m.point))
        .max_by_key(|m| m.point.as_os_str().len())
}

fn parse(table: &[u8]) -> Vec<Mount> {
    table
        .split(|&b| b == b'\n')
        .filter_map(parse_line)
        .collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&b| b == b' ');
    let point = fields.nth(4)?;
    let mut rest = fields.skip_while(|f| *f != b"-").skip(1);
    let fs_type = rest.next()?;
    let source = rest.next()?;
    Some(Mount {
        point: PathBuf::from(OsString::from_vec(unescape(point))),
        fs_type: String::from_utf8_lossy(fs_type).into_owned(),
        source: String::from_utf8_lossy(&unescape(source)).into_owned(),
    })
}

/// Undoes the octal escapes (`\040` for a blank).
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        let octal = tail
            .get(..3)
            .filter(|_| byte == b'\\')
            .and_then(|d| std::str::from_utf8(d).ok())
            .and_then(|d| u8::from_str_radix(d, 8).ok());
        match octal {
            Some(value) => {
                out.push(value);
                rest = &tail[3..];
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
        30 22 0:30 / /srv/my\\040mail rw,noatime shared:5 master:1 - fuse.lagan 127.77.1.1:7700,127.77.1.2:7700:/vol rw,user_id=0\n\
        broken line\n\
        31 22 0:31 / /srv rw - tmpfs none rw\n";

    #[test]
    fn points_types_and_sources_are_read() {
        let mounts = parse(TABLE);
        assert_eq!(mounts.len(), 3);
        assert_eq!(mounts[1].point, Path::new("/srv/my mail"));
        assert_eq!(mounts[1].source, "127.77.1.1:7700,127.77.1.2:7700:/vol");
        assert!(mounts[1].is_lagan());
        assert!(!mounts[0].is_lagan());
    }

    #[test]
    fn path_belongs_to_the_deepest_mount_above_it() {
        let mounts = parse(TABLE);
        let on = |p: &str| holding(&mounts, Path::new(p)).map(|m| m.fs_type.clone());
        assert_eq!(on("/srv/my mail/a/b").as_deref(), Some("fuse.lagan"));
        assert_eq!(on("/srv/my mailbox").as_deref(), Some("tmpfs"));
        assert_eq!(on("/etc").as_deref(), Some("ext4"));
        assert_eq!(at(&mounts, Path::new("/srv/my")), None);
    }
}
