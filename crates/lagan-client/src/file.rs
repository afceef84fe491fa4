//! The file storey: inodes and handles that are open, what was written to them, and
//! what is known of their content.
//!
//! ```text
//!   write --> buffer (runs, pieces), appends --> flush --> chunks: store --> commit --> leader
//!               room for bytes                      `--> place (appends)        |
//!                                                                               v
//!   read <-- map (extents) over chunks, objects and holes          pages, tidy (regions)
//!        <-- buffer
//! ```
//!
//! `table`, `inode`, `handle`, `buffer`, `appends`, `map`, `pages`, `regions` and
//! `room` are data without I/O; the other files are [`Files`]' methods over them.
//! This storey uses the chunks storey and the leader storey, and speaks to no
//! other. It implements [`OpenFiles`], by which the leader storey asks which files
//! are open and tells that a promise or the session is lost (`open_files.rs`).
//!
//! A mount uses nothing stale of what it remembers of a file:
//! - [`map::FileMap`] has a file's extents at one data version, used only while no newer
//!   version was seen. The kernel asks for attributes before each read, so that
//!   what another mount has closed is seen.
//! - [`KernelPages`] says which data version the kernel's pages of an inode may be from, and so
//!   when they must go.
//! - Bytes of chunks never change.
//!
//! [`OpenFiles`]: crate::leader::open_files::OpenFiles

use crate::chunks::Chunks;
use crate::file::pages::KernelPages;
use crate::file::regions::Regions;
use crate::file::room::Room;
use crate::file::table::Table;
use crate::leader::Leader;
use crate::tasks::Tasks;
use std::sync::{Arc, Weak};

pub(crate) mod allocate;
mod appends;
mod buffer;
mod commit;
pub(crate) mod flush;
pub(crate) mod handle;
pub(crate) mod inode;
pub(crate) mod map;
mod open_files;
pub(crate) mod pages;
pub(crate) mod pin;
mod place;
mod read;
mod regions;
mod rehome;
mod room;
mod seek;
pub(crate) mod table;
mod tidy;
mod write;

#[cfg(test)]
mod tests;

/// Limits of what this storey holds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Limits {
    /// Bytes of written data that all files together hold until they are committed.
    pub write_buffer_bytes: usize,
    /// Bytes that a sequential reader is ahead of the kernel; 0: none.
    pub read_ahead_bytes: usize,
}

/// The open files of a mount.
pub(crate) struct Files {
    me: Weak<Files>,
    leader: Arc<Leader>,
    chunks: Arc<Chunks>,
    tasks: Arc<Tasks>,
    table: Table,
    pages: KernelPages,
    regions: Regions,
    room: Room,
    read_ahead_bytes: u64,
}

impl Files {
    /// Builds the storey over the two below it.
    pub fn new(
        me: Weak<Files>,
        leader: Arc<Leader>,
        chunks: Arc<Chunks>,
        tasks: Arc<Tasks>,
        limits: Limits,
    ) -> Self {
        Files {
            me,
            leader,
            chunks,
            tasks,
            table: Table::default(),
            pages: KernelPages::default(),
            regions: Regions::default(),
            room: Room::new(limits.write_buffer_bytes),
            read_ahead_bytes: limits.read_ahead_bytes as u64,
        }
    }

    /// The leader storey.
    pub fn leader(&self) -> &Arc<Leader> {
        &self.leader
    }

    /// The open inodes and handles.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// The data versions that the kernel's pages may be from.
    pub fn pages(&self) -> &KernelPages {
        &self.pages
    }
}
