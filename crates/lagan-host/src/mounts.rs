//! The table of mounts that this process sees (proc_pid_mountinfo(5)).
//!
//! The rule for users: a mount that hangs holds up nobody who wants to know where it is,
//! since the table is read without touching any mount.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// One mount: a line of /proc/self/mountinfo.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// `major:minor` of the file system: tells this mount from a later one at its place.
    pub device: String,
    /// Where it is mounted.
    pub point: PathBuf,
    /// Type of the file system, such as `fuse.lagan`.
    pub fs_type: String,
    /// What is mounted, such as `addr1,addr2:/vol`.
    pub source: String,
}

impl Mount {
    /// Whether it is a mount of this file system.
    pub fn is_lagan(&self) -> bool {
        self.fs_type == "fuse.lagan"
            || (self.fs_type.starts_with("fuse") && self.source.starts_with("lagan"))
    }
}

/// All mounts, in the order of mounting.
///
/// # Errors
/// /proc is not there; the error names the file.
pub fn all() -> io::Result<Vec<Mount>> {
    const TABLE: &str = "/proc/self/mountinfo";
    let named = |e: io::Error| io::Error::new(e.kind(), format!("read {TABLE}: {e}"));
    Ok(parse(&std::fs::read(TABLE).map_err(named)?))
}

/// The topmost mount at exactly that path, if there is one.
///
/// # Errors
/// The same as those of [`all`].
pub fn mounted_at(point: &Path) -> io::Result<Option<Mount>> {
    Ok(at(&all()?, point).cloned())
}

/// The topmost of `mounts` at exactly that path.
pub fn at<'a>(mounts: &'a [Mount], point: &Path) -> Option<&'a Mount> {
    mounts.iter().rev().find(|m| m.point == point)
}

/// The one of `mounts` that an absolute path lies on.
pub fn holding<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    mounts
        .iter()
        .rev()
        .filter(|m| path.starts_with(&m.point))
        .max_by_key(|m| m.point.as_os_str().len())
}

/// Mounts of the text; lines that describe none are left out.
fn parse(table: &[u8]) -> Vec<Mount> {
    table
        .split(|&b| b == b'\n')
        .filter_map(parse_line)
        .collect()
}

fn parse_line(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|&b| b == b' ');
    let device = fields.nth(2)?;
    let point = fields.nth(1)?;
    let mut rest = fields.skip_while(|f| *f != b"-").skip(1);
    Some(Mount {
        device: text(device),
        point: PathBuf::from(OsString::from_vec(unescape(point))),
        fs_type: text(rest.next()?),
        source: text(rest.next()?),
    })
}

fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(field)).into_owned()
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
        assert_eq!(mounts[1].device, "0:30");
        assert_eq!(mounts[1].fs_type, "fuse.lagan");
        assert_eq!(mounts[1].source, "127.77.1.1:7700,127.77.1.2:7700:/vol");
        assert_eq!(mounts[2].fs_type, "tmpfs");
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

    #[test]
    fn the_root_is_mounted_and_a_new_directory_is_not() {
        assert!(mounted_at(Path::new("/")).unwrap().is_some());
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(mounted_at(dir.path()).unwrap(), None);
    }
}
