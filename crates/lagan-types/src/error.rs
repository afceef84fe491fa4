//! The refusals: of file system calls, and of the protocol between mount and leader.

use crate::codec::{Decode, Encode};

/// Why a file system call did not do what it was asked. `fuse-mount` alone
/// turns it into an errno.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, thiserror::Error)]
pub enum FsError {
    /// ENOENT.
    #[error("no such file or directory")]
    NotFound,
    /// EEXIST.
    #[error("already exists")]
    Exists,
    /// ENOTEMPTY.
    #[error("directory not empty")]
    NotEmpty,
    /// ENOTDIR.
    #[error("not a directory")]
    NotDirectory,
    /// EISDIR.
    #[error("is a directory")]
    IsDirectory,
    /// ENAMETOOLONG.
    #[error("name too long")]
    NameTooLong,
    /// EINVAL.
    #[error("invalid argument")]
    Invalid,
    /// EPERM.
    #[error("operation not permitted")]
    NotPermitted,
    /// EACCES.
    #[error("permission denied")]
    Access,
    /// EFBIG.
    #[error("file too large")]
    FileTooLarge,
    /// EMLINK.
    #[error("too many links")]
    TooManyLinks,
    /// ENOSPC.
    #[error("no space left")]
    NoSpace,
    /// ENODATA.
    #[error("no such attribute")]
    NoAttribute,
    /// ERANGE.
    #[error("result too large for the buffer")]
    Range,
    /// E2BIG.
    #[error("value too large")]
    TooBig,
    /// EAGAIN.
    #[error("would block")]
    WouldBlock,
    /// EDEADLK.
    #[error("deadlock")]
    Deadlock,
    /// ENOLCK.
    #[error("no locks available")]
    NoLocks,
    /// EINTR.
    #[error("interrupted")]
    Interrupted,
    /// EOPNOTSUPP.
    #[error("not supported")]
    Unsupported,
    /// EBUSY.
    #[error("busy")]
    Busy,
    /// EXDEV.
    #[error("different volume")]
    CrossDevice,
    /// ENXIO: no data or hole beyond the offset (lseek).
    #[error("no such offset")]
    NoSuchOffset,
    /// ESTALE: the inode is gone.
    #[error("stale handle")]
    Stale,
    /// EIO: the bytes are known to be lost or wrong everywhere.
    #[error("corrupt or lost data")]
    Corrupt,
    /// EIO.
    #[error("input/output error")]
    Io,
    /// ETIMEDOUT for names, EIO for data: the deadline passed; a mutation's outcome is unknown.
    #[error("timed out, outcome unknown")]
    TimedOut,
}

/// Why the leader did not carry out a mutation or answer a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode, thiserror::Error)]
pub enum Refusal {
    /// The file system's own answer, which the caller sees.
    #[error(transparent)]
    Fs(#[from] FsError),
    /// The replica set's row changed or it takes no new chunks: take the new
    /// map and write the chunk again under a new id.
    #[error("stale replica set epoch")]
    StaleEpoch,
    /// The inode's data version is not the expected one.
    #[error("data version changed")]
    VersionChanged,
    /// The session was ended; what it had not committed is not there.
    #[error("session ended")]
    SessionEnded,
    /// The sequence is outside the window of remembered answers (a broken client).
    #[error("sequence outside the session's window")]
    OutsideWindow,
    /// The message asks for what makes no sense, or for what its sender may not ask.
    #[error("malformed request")]
    Malformed,
    /// The bytes cannot come with the commit now: store them as chunks under new ids first.
    #[error("bytes do not come with the commit")]
    NotInline,
}
