//! Small disks: images with a file system of their own.

use crate::command::must;
use crate::sys;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(60);

/// A mounted image; unmounted and removed when this is dropped.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    point: PathBuf,
}

impl Disk {
    /// Makes an ext4 of `mib` MiB in the file `image`, and mounts it on `point`,
    /// which is made.
    ///
    /// # Panics
    /// When the machine has no loop devices, or no `mkfs.ext4`.
    pub fn mount(image: &Path, point: &Path, mib: u64) -> Self {
        let file = File::create_new(image).expect("make an image");
        file.set_len(mib << 20).expect("give the image its length");
        let (image, point) = (image.to_owned(), point.to_owned());
        std::fs::create_dir_all(&point).expect("make a mount point");
        let (from, to) = (text(&image), text(&point));
        must("mkfs.ext4", &["-q", "-F", "-m", "0", &from], LIMIT);
        must("mount", &["-o", "loop", &from, &to], LIMIT);
        Disk { image, point }
    }
}

fn text(path: &Path) -> String {
    path.to_str().expect("paths of tests are text").to_owned()
}

impl Drop for Disk {
    fn drop(&mut self) {
        // the loop device goes with the last user of the mount
        let _ = sys::unmount(&self.point, true);
        let _ = std::fs::remove_file(&self.image);
    }
}
