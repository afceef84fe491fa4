//! Atomic replacement of small files, and names that are on disk.
//!
//! The rule for users: whoever reads such a file, also after a crash or a loss of power,
//! finds its old or its new content, never a part of one. A file that [`replace_volatile`]
//! wrote is the exception: it may be empty after a loss of power.
//!
//! The content goes to `NAME.new` beside the file, is synced, and takes the file's name by
//! rename(2); then the directory is synced, if its file system can do that. `NAME.new` is made
//! anew with the given mode (O_EXCL), so that neither a symbolic link nor an open or readable
//! file that somebody put there gets the content.
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
    rename_to(path, |new| write_new(new, content, mode)?.sync_all())?;
    sync_dir_of(path)
}

/// Replaces the content of the file at `path`, or makes it, without waiting for the disk: for
/// files that only describe a running process. The file gets `mode`, less the process's umask.
///
/// # Errors
/// Those of the file system. The file then has its old content.
pub fn replace_volatile(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    rename_to(path, |new| write_new(new, content, mode).map(drop))
}

/// Replaces, or makes, the symbolic link at `path`: it leads to `target` afterwards.
///
/// # Errors
/// The same as those of [`replace_file`].
pub fn replace_link(path: &Path, target: &Path) -> io::Result<()> {
    rename_to(path, |new| std::os::unix::fs::symlink(target, new))?;
    sync_dir_of(path)
}

/// Makes the directory at `path`, and those above it that are missing; their names are on disk
/// afterwards. So is the name of one that was there: whoever made it may have lost power, or
/// have been killed, before it was.
///
/// # Errors
/// Those of the file system.
pub fn make_dirs(path: &Path) -> io::Result<()> {
    let is_missing = |dir: &&Path| !dir.as_os_str().is_empty() && !dir.is_dir();
    let missing: Vec<&Path> = path.ancestors().skip(1).take_while(is_missing).collect();
    fs::create_dir_all(path)?;
    sync_dir_of(path)?;
    missing.into_iter().try_for_each(sync_dir_of)
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

/// Makes the new file with `make`, and gives it the name `path`.
fn rename_to(path: &Path, make: impl FnOnce(&Path) -> io::Result<()>) -> io::Result<()> {
    let new = new_name(path)?;
    remove_left(&new)?;
    let renamed = make(&new).and_then(|()| fs::rename(&new, path));
    if renamed.is_err() {
        // What stays is removed by the next replacement.
        let _ = fs::remove_file(&new);
    }
    renamed
}

fn remove_left(new: &Path) -> io::Result<()> {
    match fs::remove_file(new) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

fn write_new(new: &Path, content: &[u8], mode: u32) -> io::Result<File> {
    let mut file = File::options()
        .write(true)
        .create_new(true)
        .mode(mode)
        .custom_flags(libc::O_NOFOLLOW)
        .open(new)?;
    file.write_all(content)?;
    Ok(file)
}

/// Makes the name of the file durable, or that it has none any more, as [`sync_dir`] does.
///
/// # Errors
/// Those of the file system.
pub fn sync_dir_of(path: &Path) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty());
    sync_dir(dir.unwrap_or(Path::new(".")))
}

/// Makes the names in the directory durable, if its file system can: some refuse.
///
/// # Errors
/// Those of the file system.
pub fn sync_dir(dir: &Path) -> io::Result<()> {
    match File::open(dir)?.sync_all() {
        Err(e) if matches!(e.raw_os_error(), Some(libc::EINVAL | libc::ENOTSUP)) => Ok(()),
        synced => synced,
    }
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
    fn directories_are_made_where_they_are_missing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/c");
        make_dirs(&path).unwrap();
        assert!(path.is_dir());
        fs::write(path.join("x"), "kept").unwrap();
        make_dirs(&path).unwrap();
        assert_eq!(fs::read(path.join("x")).unwrap(), b"kept");
        make_dirs(&path.join("x/y")).unwrap_err();
    }

    #[test]
    fn volatile_file_is_replaced_as_well() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("pid");
        replace_volatile(&path, b"a longer old one", PRIVATE).unwrap();
        fs::write(new_name(&path).unwrap(), "half of a lo").unwrap();
        replace_volatile(&path, b"new", PRIVATE).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new");
        assert_eq!(mode(&path), PRIVATE);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn file_system_that_syncs_no_directories_is_no_error() {
        let proc = Path::new("/proc");
        let refused = File::open(proc).unwrap().sync_all().unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EINVAL));
        sync_dir(proc).unwrap();
        let missing = sync_dir(Path::new("/proc/missing")).unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
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
