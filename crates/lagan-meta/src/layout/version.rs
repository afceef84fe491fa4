//! Versions of rows: the first byte of a value says with which one it was written.
//!
//! A row type names its version and the row type before it. Rows are written in the
//! current version and read in any version of this chain, so an old row becomes a
//! new one when a command next changes it; nothing walks the tables.
//!
//! ```text
//!  InodeRow (3) --Previous--> InodeRowV2 (2) --Previous--> FirstVersion
//!     ^ written, read            ^ read                       nothing before
//! ```

use lagan_types::codec::{self, CodecError, Decode, Encode};

/// A row type with its version. Two types that one key may hold never share a version.
pub trait Versioned: Encode + Decode<()> {
    /// First byte of the row's values; higher than that of [`Versioned::Previous`].
    const VERSION: u8;
    /// The row of the version before, or [`FirstVersion`].
    type Previous: Readable;
    /// The row in this version.
    fn from_previous(previous: Self::Previous) -> Self;
}

/// A row that can be read: in its own version, and in those before it.
pub trait Readable: Sized {
    /// The oldest and the newest version that can be read; `None`: there is none.
    const VERSIONS: Option<(u8, u8)>;
    /// Reads a row that was written in `version`; `None` if that cannot be read.
    fn read(version: u8, body: &[u8]) -> Option<Result<Self, CodecError>>;
}

/// Stands before the first version of a row: no such row exists.
#[derive(Debug, Clone, Copy)]
pub enum FirstVersion {}

impl Readable for FirstVersion {
    const VERSIONS: Option<(u8, u8)> = None;

    fn read(_: u8, _: &[u8]) -> Option<Result<Self, CodecError>> {
        None
    }
}

impl<T: Versioned> Readable for T {
    const VERSIONS: Option<(u8, u8)> = match <T::Previous as Readable>::VERSIONS {
        None => Some((T::VERSION, T::VERSION)),
        Some((oldest, newest)) => {
            assert!(newest < T::VERSION, "the version of a row has to rise");
            Some((oldest, T::VERSION))
        }
    };

    fn read(version: u8, body: &[u8]) -> Option<Result<Self, CodecError>> {
        if version == T::VERSION {
            return Some(codec::decode(body));
        }
        let previous = <T::Previous as Readable>::read(version, body)?;
        Some(previous.map(T::from_previous))
    }
}

/// The oldest and the newest version in which a row can be read.
pub const fn versions<T: Versioned>() -> (u8, u8) {
    match <T as Readable>::VERSIONS {
        Some(versions) => versions,
        None => (T::VERSION, T::VERSION),
    }
}

/// States the version of rows that have no previous one.
macro_rules! first_version {
    ($version:literal: $($row:ty),+ $(,)?) => {$(
        impl $crate::layout::version::Versioned for $row {
            const VERSION: u8 = $version;
            type Previous = $crate::layout::version::FirstVersion;

            fn from_previous(previous: Self::Previous) -> Self {
                match previous {}
            }
        }
    )+};
}
pub(super) use first_version;
