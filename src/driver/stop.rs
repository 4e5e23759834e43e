//! SIGTERM and SIGINT: the first asks the engine to stop, the second ends it at once.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;

/// The two signals, kept from every thread that is started from now on.
#[derive(Clone, Copy)]
pub struct StopSignals {
    set: libc::sigset_t,
}

impl StopSignals {
    /// Blocks the signals for the calling thread and all that it starts.
    ///
    /// # Errors
    /// The kernel's.
    pub fn block() -> io::Result<Self> {
        let mut set = MaybeUninit::<libc::sigset_t>::uninit();
        // SAFETY: the set is initialised by the first call, before the others use it; no pointer is
        // kept.
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), libc::SIGINT);
            libc::sigaddset(set.as_mut_ptr(), libc::SIGTERM);
            let result = libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
            if result != 0 {
                return Err(io::Error::from_raw_os_error(result));
            }
            Ok(Self { set: set.assume_init() })
        }
    }

    /// Waits for one of them and returns its number.
    pub fn wait(&self) -> i32 {
        let mut signal = 0;
        // SAFETY: both pointers are to live values of their types.
        unsafe { libc::sigwait(&self.set, &mut signal) };
        signal
    }
}
