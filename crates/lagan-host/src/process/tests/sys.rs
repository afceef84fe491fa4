//! System calls of the tests.

#![allow(unsafe_code, reason = "calls into libc")]

/// Ends the process's first thread alone; the others go on.
pub(super) fn end_first_thread() {
    extern "C" fn end(_: libc::c_int) {
        // SAFETY: a plain integer; what the thread owns is left as it is.
        unsafe {
            libc::syscall(libc::SYS_exit, 0);
        }
    }
    // SAFETY: the handler makes one system call; the first thread has the process's number.
    unsafe {
        libc::signal(libc::SIGUSR1, end as *const () as libc::sighandler_t);
        let pid = libc::getpid();
        libc::syscall(libc::SYS_tgkill, pid, pid, libc::SIGUSR1);
    }
}
