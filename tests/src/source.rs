//! What the source tree looks like, read by a parser: which file uses which, how
//! long its functions are, what a crate shows outside, which documents are cited.
//!
//! Only product code is read: tests, examples and whatever is `#[cfg(test)]` are
//! left out. The rules themselves are in `tests/workspace.rs`; `cargo run -p
//! lagan-tests --bin circles` lists the circles.
//!
//! - [`Crate::load`] parses a crate from its root file.
//! - [`circles::of`] finds the files of a crate that use each other in a circle.
//! - [`visible::items`] lists what other crates can name.
//! - [`functions::all`] measures functions; [`calls::lines`] finds literals.
//! - [`cites::broken`] finds documents that are cited and do not exist.
//!
//! The view is that of the text: macros are not expanded (paths in their arguments
//! are seen), and a method call names no file. `#[path]` is refused.

pub mod calls;
pub mod circles;
pub mod cites;
pub mod functions;
pub mod load;
pub mod mentions;
pub mod resolve;
#[cfg(test)]
mod tests;
pub mod visible;

pub use load::{Crate, Module};

use anyhow::{Context, Result};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The workspace's directory.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("tests/ is in the workspace")
}

/// Every crate of the product in the workspace at `top`, by the name of its
/// directory: the library where there is one, else the program.
///
/// # Errors
/// The first file that cannot be read or parsed.
pub fn crates(top: &Path) -> Result<BTreeMap<String, Crate>> {
    let mut found = BTreeMap::new();
    for dir in crate_dirs(top)? {
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        for root in ["lib.rs", "main.rs"] {
            let src = dir.join("src");
            if src.join(root).is_file() {
                let read = |file: &Path| std::fs::read_to_string(src.join(file));
                let krate = Crate::load(Path::new(root), read);
                let krate = krate.with_context(|| format!("parse {}", src.display()))?;
                found.insert(name.into_owned(), krate);
                break;
            }
        }
    }
    Ok(found)
}

/// The directories of the product's crates.
///
/// # Errors
/// `crates` cannot be listed.
pub fn crate_dirs(top: &Path) -> Result<Vec<PathBuf>> {
    let mut dirs = vec![top.join("server"), top.join("fuse-mount")];
    let crates = top.join("crates");
    for entry in std::fs::read_dir(&crates).with_context(|| format!("list {}", crates.display()))? {
        dirs.push(entry?.path());
    }
    dirs.retain(|dir| dir.join("Cargo.toml").is_file());
    dirs.sort();
    Ok(dirs)
}
