//! What a mount uses alone: directories, and the files that it made there by itself.

use super::changes::Lost;
use lagan_types::Ino;
use lagan_types::lease::Name;
use std::collections::HashMap;

/// Most local files: all of them must be made at once when their directories are recalled.
pub const LOCAL_MAX: usize = 128;

/// A file that a mount makes by itself.
#[derive(Debug, Clone)]
pub struct Made<A> {
    /// Its number.
    pub ino: Ino,
    /// Its attributes.
    pub attr: A,
    /// Those of its directory, with it.
    pub dir: A,
}

/// What a mount uses alone.
#[derive(Debug)]
pub(super) struct Exclusives<A> {
    /// The directories, with their attributes, which nobody else changes or sees.
    pub dirs: HashMap<Ino, A>,
    /// Local files, and their names.
    pub local: HashMap<Ino, Name>,
    /// How often a directory was given up.
    pub dropped: u64,
    /// Directories in which a local file was given up that may yet be made: nothing is remembered
    /// of them.
    pub given_up: Lost,
}

impl<A> Default for Exclusives<A> {
    fn default() -> Self {
        Exclusives {
            dirs: HashMap::new(),
            local: HashMap::new(),
            dropped: 0,
            given_up: Lost::default(),
        }
    }
}
