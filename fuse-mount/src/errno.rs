//! The one place where a [`FsError`] becomes an errno.

use fuser::Errno;
use lagan_types::FsError;

/// Whether a call was about names and attributes, or about a file's bytes: a
/// deadline that passed is ETIMEDOUT for the first and EIO for the second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    /// The call was about names and attributes.
    Names,
    /// The call was about a file's bytes.
    Data,
}

/// The errno that a user sees.
pub(crate) fn errno(error: FsError, about: About) -> Errno {
    match error {
        FsError::NotFound => Errno::ENOENT,
        FsError::Exists => Errno::EEXIST,
        FsError::NotEmpty => Errno::ENOTEMPTY,
        FsError::NotDirectory => Errno::ENOTDIR,
        FsError::IsDirectory => Errno::EISDIR,
        FsError::NameTooLong => Errno::ENAMETOOLONG,
        FsError::Invalid => Errno::EINVAL,
        FsError::NotPermitted => Errno::EPERM,
        FsError::Access => Errno::EACCES,
        FsError::FileTooLarge => Errno::EFBIG,
        FsError::TooManyLinks => Errno::EMLINK,
        FsError::NoSpace => Errno::ENOSPC,
        FsError::NoAttribute => Errno::ENODATA,
        FsError::Range => Errno::ERANGE,
        FsError::TooBig => Errno::E2BIG,
        FsError::WouldBlock => Errno::EAGAIN,
        FsError::Deadlock => Errno::EDEADLK,
        FsError::NoLocks => Errno::ENOLCK,
        FsError::Interrupted => Errno::EINTR,
        FsError::Unsupported => Errno::EOPNOTSUPP,
        FsError::Busy => Errno::EBUSY,
        FsError::CrossDevice => Errno::EXDEV,
        FsError::NoSuchOffset => Errno::ENXIO,
        FsError::Stale => Errno::from_i32(libc::ESTALE),
        FsError::TimedOut => match about {
            About::Names => Errno::from_i32(libc::ETIMEDOUT),
            About::Data => Errno::EIO,
        },
        FsError::Corrupt | FsError::Io => Errno::EIO,
    }
}

/// Whether the error is worth a log line, since it is no ordinary answer.
pub(crate) fn unexpected(error: FsError) -> bool {
    matches!(error, FsError::Corrupt | FsError::Io | FsError::TimedOut)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(error: FsError, about: About) -> i32 {
        errno(error, about).code()
    }

    #[test]
    fn answers_are_those_of_posix() {
        for (error, expected) in [
            (FsError::NotFound, libc::ENOENT),
            (FsError::NotEmpty, libc::ENOTEMPTY),
            (FsError::NoAttribute, libc::ENODATA),
            (FsError::NoSpace, libc::ENOSPC),
            (FsError::Stale, libc::ESTALE),
            (FsError::Unsupported, libc::EOPNOTSUPP),
            (FsError::NoSuchOffset, libc::ENXIO),
            (FsError::Corrupt, libc::EIO),
            (FsError::Io, libc::EIO),
        ] {
            assert_eq!(code(error, About::Names), expected, "{error}");
            assert_eq!(code(error, About::Data), expected, "{error}");
        }
    }

    #[test]
    fn a_deadline_is_etimedout_for_names_and_eio_for_bytes() {
        assert_eq!(code(FsError::TimedOut, About::Names), libc::ETIMEDOUT);
        assert_eq!(code(FsError::TimedOut, About::Data), libc::EIO);
    }

    #[test]
    fn ordinary_answers_are_not_logged() {
        assert!(!unexpected(FsError::NotFound));
        assert!(!unexpected(FsError::NoSpace));
        assert!(unexpected(FsError::Corrupt));
    }
}
