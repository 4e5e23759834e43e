//! SIGTERM and SIGINT: the first asks the engine to stop, the second ends it at once. SIGHUP asks it to
//! read its rules again.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;

/// What a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// By the signal of this number.
    Stop(i32),
    Reload,
}

/// The signals, kept from every thread that is started from now on.
#[derive(Clone, Copy)]
pub struct Signals {
    set: libc::sigset_t,
}

impl Signals {
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
            libc::sigaddset(set.as_mut_ptr(), libc::SIGHUP);
            // Under nohup it is ignored, and then nobody can wait for it.
            libc::signal(libc::SIGHUP, libc::SIG_DFL);
            let result = libc::pthread_sigmask(libc::SIG_BLOCK, set.as_ptr(), std::ptr::null_mut());
            if result != 0 {
                return Err(io::Error::from_raw_os_error(result));
            }
            Ok(Self { set: set.assume_init() })
        }
    }

    /// Waits for one of them.
    pub fn wait(&self) -> Asked {
        let mut signal = 0;
        // SAFETY: both pointers are to live values of their types.
        unsafe { libc::sigwait(&self.set, &mut signal) };
        if signal == libc::SIGHUP { Asked::Reload } else { Asked::Stop(signal) }
    }
}
