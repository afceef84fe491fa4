//! The ordered key-value store under the state machine, as the state machine sees it.
//!
//! `lagan-raft` implements it over redb transactions, [`memory`](crate::memory)
//! over ordered maps for tests. Keys are compared as bytes.

/// The tables. A table's number is the first byte of a key where all tables share one
/// space, and never changes. [`crate::layout`] has the keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
#[allow(missing_docs, reason = "the table in layout.rs explains them")]
pub enum Table {
    Config = 1,
    Node = 2,
    Set = 3,
    Inode = 10,
    Dentry = 11,
    Cookie = 12,
    Extent = 13,
    Xattr = 14,
    Symlink = 15,
    Due = 16,
    Object = 17,
    Attempt = 18,
    Orphan = 19,
    ReapChunk = 20,
    ReapObject = 21,
    Session = 22,
    Answer = 23,
    Block = 24,
    Lock = 25,
    Counter = 26,
    Releasable = 27,
    SetUse = 28,
    Shared = 29,
}

impl Table {
    /// Every table, in order of number.
    pub const ALL: [Table; 23] = [
        Table::Config,
        Table::Node,
        Table::Set,
        Table::Inode,
        Table::Dentry,
        Table::Cookie,
        Table::Extent,
        Table::Xattr,
        Table::Symlink,
        Table::Due,
        Table::Object,
        Table::Attempt,
        Table::Orphan,
        Table::ReapChunk,
        Table::ReapObject,
        Table::Session,
        Table::Answer,
        Table::Block,
        Table::Lock,
        Table::Counter,
        Table::Releasable,
        Table::SetUse,
        Table::Shared,
    ];
}

/// The store below failed: the node must stop, and the command has no answer.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk or the database.
    #[error("state store: {0}")]
    Io(String),
    /// A row of a version that this build does not read.
    #[error(
        "rows of table {table:?} have version {found}, this build reads {}: {}",
        versions(*.oldest, *.newest),
        advice(*.found < *.oldest)
    )]
    Version {
        /// Where the row is.
        table: Table,
        /// Its version.
        found: u8,
        /// The oldest version that is read.
        oldest: u8,
        /// The newest version that is read, and the one that is written.
        newest: u8,
    },
    /// A key or value that this build did not write.
    #[error("state store holds a malformed row in {0:?}: {1}")]
    Malformed(Table, String),
}

fn versions(oldest: u8, newest: u8) -> String {
    match oldest == newest {
        true => format!("version {newest}"),
        false => format!("versions {oldest} to {newest}"),
    }
}

fn advice(older: bool) -> &'static str {
    match older {
        true => "an older build wrote them, start that build or begin with an empty data directory",
        false => "a newer build wrote them, start that build",
    }
}

/// A key and its value.
pub type Row = (Vec<u8>, Vec<u8>);

/// Reads of one consistent state.
pub trait Read {
    /// The value of a key.
    ///
    /// # Errors
    /// [`StoreError`] stops the node.
    fn get(&self, table: Table, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Rows with `start <= key < end` (no end: to the table's end) in order, at most `limit`.
    ///
    /// # Errors
    /// [`StoreError`] stops the node.
    fn scan(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<Row>, StoreError>;

    /// The last row with `start <= key < end`.
    ///
    /// # Errors
    /// [`StoreError`] stops the node.
    fn last(
        &self,
        table: Table,
        start: &[u8],
        end: Option<&[u8]>,
    ) -> Result<Option<Row>, StoreError>;
}

/// Reads and changes; a read sees the changes before it.
pub trait Write: Read {
    /// Sets a key.
    ///
    /// # Errors
    /// [`StoreError`] stops the node.
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) -> Result<(), StoreError>;

    /// Removes a key, if it is there.
    ///
    /// # Errors
    /// [`StoreError`] stops the node.
    fn delete(&mut self, table: Table, key: &[u8]) -> Result<(), StoreError>;
}
