//! The table of mounts, read without touching any of them (proc(5), mountinfo).

use std::ffi::OsString;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// One row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    /// `major:minor` of the file system.
    pub(crate) device: String,
    /// Where it is mounted.
    pub(crate) mount_point: PathBuf,
    /// As in `fuse.lagan`.
    pub(crate) kind: String,
    /// What is mounted.
    pub(crate) source: String,
}

/// The topmost mount exactly at that path.
///
/// # Errors
/// /proc is not there.
pub(crate) fn at(path: &Path) -> std::io::Result<Option<Row>> {
    let table = std::fs::read("/proc/self/mountinfo")?;
    Ok(parse(&table).filter(|row| row.mount_point == path).last())
}

/// The rows of the text, in order; lines that are none are left out.
fn parse(table: &[u8]) -> impl Iterator<Item = Row> + '_ {
    table.split(|&b| b == b'\n').filter_map(row)
}

fn row(line: &[u8]) -> Option<Row> {
    let mut fields = line.split(|&b| b == b' ');
    let device = text(fields.nth(2)?);
    let mount_point = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    let mut rest = fields.skip_while(|f| f != b"-").skip(1);
    Some(Row {
        device,
        mount_point,
        kind: text(rest.next()?),
        source: text(rest.next()?),
    })
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&unescape(bytes)).into_owned()
}

/// Resolves `\040` and the like.
fn unescape(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, tail)) = rest.split_first() {
        let octal = (first == b'\\').then(|| tail.get(..3)).flatten();
        let value = octal
            .and_then(|o| std::str::from_utf8(o).ok())
            .and_then(|o| u8::from_str_radix(o, 8).ok());
        match value {
            Some(value) => {
                out.push(value);
                rest = &tail[3..];
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    out
}

/// A path as one name without slashes, as systemd's units do it.
pub(crate) fn escape(path: &Path) -> String {
    let bytes = path.as_os_str().as_bytes();
    let trimmed: Vec<u8> = bytes.strip_prefix(b"/").unwrap_or(bytes).to_vec();
    if trimmed.is_empty() {
        return "-".into();
    }
    let mut out = String::new();
    for (at, byte) in trimmed.into_iter().enumerate() {
        match byte {
            b'/' => out.push('-'),
            b'.' if at > 0 => out.push('.'),
            b'_' | b':' | b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' => out.push(byte as char),
            _ => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"22 1 254:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n\
        36 35 0:47 / /mnt/a\\040b rw,nosuid shared:2 master:1 - fuse.lagan 10.0.0.1:7,10.0.0.2:7:/vol rw\n\
        nonsense\n\
        37 35 0:48 / /mnt/c rw - tmpfs none rw\n";

    #[test]
    fn rows_are_read_with_their_escapes() {
        let rows: Vec<Row> = parse(TABLE).collect();
        assert_eq!(rows.len(), 3);
        assert_eq!(rows[1].mount_point, Path::new("/mnt/a b"));
        assert_eq!(rows[1].device, "0:47");
        assert_eq!(rows[1].kind, "fuse.lagan");
        assert_eq!(rows[1].source, "10.0.0.1:7,10.0.0.2:7:/vol");
        assert_eq!(rows[2].kind, "tmpfs");
    }

    #[test]
    fn the_root_is_mounted_and_a_new_directory_is_not() {
        assert!(at(Path::new("/")).unwrap().is_some());
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(at(dir.path()).unwrap(), None);
    }

    #[test]
    fn paths_become_one_name() {
        assert_eq!(escape(Path::new("/srv/mail")), "srv-mail");
        assert_eq!(escape(Path::new("/srv/a-b c")), "srv-a\\x2db\\x20c");
        assert_eq!(escape(Path::new("/.x")), "\\x2ex");
        assert_eq!(escape(Path::new("/")), "-");
    }
}
