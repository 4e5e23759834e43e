//! Why a ring could not be made, in words for the operator. In: the kernel's error. Out: an
//! [`io::Error`] that holds a [`RingUnavailable`].

use std::io;

/// Why there is no ring, for a person. It is the source inside the [`io::Error`].
#[derive(Debug, thiserror::Error)]
pub enum RingUnavailable {
    /// Linux before 6.1.
    #[error(
        "the kernel is too old: Linux 6.1 or newer is needed (io_uring with SINGLE_ISSUER and \
         DEFER_TASKRUN), this is {release}"
    )]
    KernelTooOld {
        /// What `uname -r` says.
        release: String,
    },
    /// No io_uring in this kernel or behind this seccomp filter.
    #[error(
        "the kernel offers no io_uring (this is {release}); it was compiled without it, or a \
         container's seccomp profile hides it"
    )]
    Missing {
        /// What `uname -r` says.
        release: String,
    },
    /// Forbidden by sysctl or seccomp.
    #[error(
        "the kernel forbids io_uring to this process: set sysctl kernel.io_uring_disabled=0, or \
         allow io_uring_setup, io_uring_enter and io_uring_register in the container's seccomp \
         profile"
    )]
    Forbidden,
    /// The limit of locked memory or of memory.
    #[error("not enough (locked) memory for the socket ring: raise `ulimit -l` (RLIMIT_MEMLOCK)")]
    OutOfMemory,
}

/// For errors of io_uring_setup.
pub fn explain(error: io::Error) -> io::Error {
    let release = || {
        std::fs::read_to_string("/proc/sys/kernel/osrelease")
            .map_or_else(|_| "unknown".to_owned(), |r| r.trim().to_owned())
    };
    match error.raw_os_error() {
        // An unknown setup flag is the one thing that can be invalid here.
        Some(libc::EINVAL) => io::Error::new(
            io::ErrorKind::Unsupported,
            RingUnavailable::KernelTooOld { release: release() },
        ),
        Some(libc::ENOSYS) => io::Error::new(
            io::ErrorKind::Unsupported,
            RingUnavailable::Missing { release: release() },
        ),
        Some(libc::EPERM | libc::EACCES) => {
            io::Error::new(io::ErrorKind::PermissionDenied, RingUnavailable::Forbidden)
        }
        _ => explain_memory(error),
    }
}

/// For errors of registering memory.
pub(super) fn explain_memory(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::ENOMEM) => {
            io::Error::new(io::ErrorKind::OutOfMemory, RingUnavailable::OutOfMemory)
        }
        _ => error,
    }
}
