//! The system calls that the standard library does not offer.

#![allow(unsafe_code, reason = "calls into libc")]

use std::fs::File;
use std::io::{self, IoSlice};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

/// Slices that one call takes (Linux UIO_MAXIOV).
const SLICES_MAX: usize = 1024;

/// Writes all of `slices` at `offset`.
pub(crate) fn write_all_at(
    file: &File,
    mut slices: &mut [IoSlice<'_>],
    mut offset: u64,
) -> io::Result<()> {
    while !slices.is_empty() {
        let count = slices.len().min(SLICES_MAX);
        // SAFETY: IoSlice has the layout of iovec; the slices outlive the call.
        let written = unsafe {
            libc::pwritev(
                file.as_raw_fd(),
                slices.as_ptr().cast(),
                count as libc::c_int,
                offset as libc::off_t,
            )
        };
        match written {
            -1 => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => {
                offset += n as u64;
                IoSlice::advance_slices(&mut slices, n as usize);
            }
        }
    }
    Ok(())
}

/// Whether the file system has said that it cannot drop pages behind a write.
static NO_PASSING: AtomicBool = AtomicBool::new(false);

/// Writes all of `bytes` at `offset`; the disk begins at once, and the pages are not
/// kept. A file system that cannot drop them keeps them.
pub(crate) fn write_passing_at(file: &File, mut bytes: &[u8], mut offset: u64) -> io::Result<()> {
    let (from, len) = (offset, bytes.len() as u64);
    while !bytes.is_empty() && !NO_PASSING.load(Ordering::Relaxed) {
        let slice = IoSlice::new(bytes);
        // SAFETY: IoSlice has the layout of iovec; the slice outlives the call.
        let written = unsafe {
            libc::pwritev2(
                file.as_raw_fd(),
                (&raw const slice).cast(),
                1,
                offset as libc::off_t,
                libc::RWF_DONTCACHE,
            )
        };
        match written {
            -1 => match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::Interrupted => {}
                e if matches!(e.raw_os_error(), Some(libc::EOPNOTSUPP | libc::ENOSYS)) => {
                    NO_PASSING.store(true, Ordering::Relaxed);
                }
                e => return Err(e),
            },
            0 => return Err(io::ErrorKind::WriteZero.into()),
            n => {
                offset += n as u64;
                bytes = &bytes[n as usize..];
            }
        }
    }
    if !bytes.is_empty() {
        write_all_at(file, &mut [IoSlice::new(bytes)], offset)?;
        start_write_back(file, from, len);
    }
    Ok(())
}

/// Reads exactly `len` bytes at `offset` if all of them are in memory.
///
/// # Errors
/// `WouldBlock` otherwise, `UnexpectedEof` at the file's end.
pub(crate) fn read_now_at(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut out: Vec<u8> = Vec::with_capacity(len);
    let slice = libc::iovec {
        iov_base: out.as_mut_ptr().cast(),
        iov_len: len,
    };
    // SAFETY: the vector has room for `len` bytes and outlives the call.
    let read = unsafe {
        libc::preadv2(
            file.as_raw_fd(),
            &raw const slice,
            1,
            offset as libc::off_t,
            libc::RWF_NOWAIT,
        )
    };
    match read {
        -1 => Err(io::Error::last_os_error()),
        n if n as usize == len => {
            // SAFETY: the kernel has set these bytes.
            unsafe { out.set_len(len) };
            Ok(out)
        }
        0 if len > 0 => Err(io::ErrorKind::UnexpectedEof.into()),
        // A part of it is in memory.
        _ => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// Reads up to `len` bytes at `offset`, fewer only at the file's end.
pub(crate) fn read_at(file: &File, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut out: Vec<u8> = Vec::with_capacity(len);
    while out.len() < len {
        let have = out.len();
        // SAFETY: the vector has room for `len` bytes; `have` of them are set.
        let read = unsafe {
            libc::pread(
                file.as_raw_fd(),
                out.as_mut_ptr().add(have).cast(),
                len - have,
                (offset + have as u64) as libc::off_t,
            )
        };
        match read {
            -1 => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
            0 => break,
            // SAFETY: the kernel has set these bytes.
            n => unsafe { out.set_len(have + n as usize) },
        }
    }
    Ok(out)
}

/// Reserves `len` bytes on disk for `file` and makes it that long.
pub(crate) fn allocate(file: &File, len: u64) -> io::Result<()> {
    // SAFETY: plain system call on an open file.
    match unsafe { libc::fallocate(file.as_raw_fd(), 0, 0, len as libc::off_t) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Starts writing a range to disk without waiting: a hint, so errors are
/// ignored; the sync that follows reports them.
pub(crate) fn start_write_back(file: &File, offset: u64, len: u64) {
    // SAFETY: plain system call on an open file.
    unsafe {
        libc::sync_file_range(
            file.as_raw_fd(),
            offset as libc::off64_t,
            len as libc::off64_t,
            libc::SYNC_FILE_RANGE_WRITE,
        );
    }
}

/// Bytes that an unprivileged writer may still take on the disk of `path`.
pub(crate) fn available_bytes(path: &Path) -> io::Result<u64> {
    let path = std::ffi::CString::new(path.as_os_str().as_bytes())?;
    let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
    // SAFETY: the path ends with NUL and `stat` is large enough.
    if unsafe { libc::statvfs(path.as_ptr(), stat.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call succeeded, so it has set all fields.
    let stat = unsafe { stat.assume_init() };
    Ok(stat.f_bavail * stat.f_frsize)
}
