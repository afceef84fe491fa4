//! Atomic replacement of small files.
//!
//! The rule for users: whoever reads such a file, also after a crash or a loss of power,
//! finds its old or its new content, never a part of one.
//!
//! The content goes to `NAME.new` beside the file, is synced, and takes the file's name by
//! rename(2); then the directory is synced. `NAME.new` is made anew with the given mode
//! (O_EXCL), so that neither a symbolic link nor an open or readable file that somebody put
//! there gets the content.
//!
//! A crash leaves `NAME.new`, and the next replacement removes it. What must hold: only one
//! process at a time replaces a file, as the holder of a lock.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Mode of files that only their owner may read.
pub const PRIVATE: u32 = 0o600;
/// Mode of files that everybody may read.
pub const PUBLIC: u32 = 0o644;

/// Replaces the content of the file at `path`, or makes it; it is on disk afterwards. The
/// file gets `mode`, less the process's umask.
///
/// # Errors
/// Those of the file system. The file then has its old content, unless only the sync of the
/// directory failed: it has the new one, which a crash may undo.
pub fn replace_file(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let new = new_name(path)?;
    remove_left(&new)?;
    let written = write_new(&new, content, mode).and_then(|()| fs::rename(&new, path));
    finish(path, &new, written)
}

/// Replaces, or makes, the symbolic link at `path`: it leads to `target` afterwards.
///
/// # Errors
/// The same as those of [`replace_file`].
pub fn replace_link(path: &Path, target: &Path) -> io::Result<()> {
    let new = new_name(path)?;
    remove_left(&new)?;
    let linked = std::os::unix::fs::symlink(target, &new).and_then(|()| fs::rename(&new, path));
    finish(path, &new, linked)
}

/// Where the new content of the file is until it has its name: `NAME.new`.
///
/// # Errors
/// `InvalidInput` for a path without a name.
pub fn new_name(path: &Path) -> io::Result<PathBuf> {
    let name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?;
    let mut new = OsString::from(name);
    new.push(".new");
    Ok(path.with_file_name(new))
}

fn remove_left(new: &Path) -> io::Result<()> {
    match fs::remove_file(new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn write_new(new: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .custom_flags(libc::O_NOFOLLOW)
        .open(new)?;
    file.write_all(content)?;
    file.sync_all()
}

fn finish(path: &Path, new: &Path, renamed: io::Result<()>) -> io::Result<()> {
    if let Err(e) = renamed {
        // What stays is removed by the next replacement.
        let _ = fs::remove_file(new);
        return Err(e);
    }
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    File::open(dir.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().permissions().mode() & 0o7777
    }

    #[test]
    fn replaced_file_is_private_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        replace_file(&path, b"a longer old one", PRIVATE).unwrap();
        replace_file(&path, b"new", PRIVATE).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(mode(&path), PRIVATE);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_a_crash_left_is_replaced_with_its_mode() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let new = new_name(&path).unwrap();
        fs::write(&new, "half of a lo").unwrap();
        fs::set_permissions(&new, fs::Permissions::from_mode(0o666)).unwrap();
        replace_file(&path, b"whole", PRIVATE).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"whole");
        assert_eq!(mode(&path), PRIVATE);
        assert!(!new.exists());
    }

    #[test]
    fn no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let victim = dir.path().join("victim");
        fs::write(&victim, "mine").unwrap();
        let path = dir.path().join("x");
        symlink(&victim, new_name(&path).unwrap()).unwrap();
        symlink(&victim, &path).unwrap();
        replace_file(&path, b"secret", PRIVATE).unwrap();
        assert_eq!(fs::read(&victim).unwrap(), b"mine");
        assert!(path.symlink_metadata().unwrap().is_file());
    }

    #[test]
    fn failure_leaves_the_old_and_nothing_beside_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        // a file cannot take the name of a directory that is not empty
        fs::create_dir_all(path.join("old")).unwrap();
        replace_file(&path, b"new", PRIVATE).unwrap_err();
        assert!(path.join("old").exists());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        let nowhere = replace_file(Path::new("/"), b"", PRIVATE).unwrap_err();
        assert_eq!(nowhere.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn replaced_link_leads_to_its_new_target() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("program");
        replace_link(&path, Path::new("/old")).unwrap();
        replace_link(&path, Path::new("/new")).unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), Path::new("/new"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
