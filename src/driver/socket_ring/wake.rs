//! Waking and being woken: the eventfd that the ring signals, and what wakes a thread that sleeps in it.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::RawFd;

use io_uring::opcode;
use io_uring::types::Fd;

use super::SocketRing;

impl SocketRing {
    /// Reads the counter of an eventfd once, when it is not 0.
    ///
    /// # Safety
    /// As for [`send`](Self::send), of what `count` points to.
    pub unsafe fn read_counter(&mut self, eventfd: RawFd, count: *mut u64, user_data: u64) {
        let entry = opcode::Read::new(Fd(eventfd), count.cast(), 8).build();
        // SAFETY: the caller keeps the counter.
        unsafe { self.push(entry.user_data(user_data)) }
    }

    /// Completes once when `fd` is readable.
    pub fn poll_once(&mut self, fd: RawFd, user_data: u64) {
        let entry = opcode::PollAdd::new(Fd(fd), libc::POLLIN as u32).build();
        // SAFETY: no memory is named.
        unsafe { self.push(entry.user_data(user_data)) }
    }

    /// Lets the kernel signal `eventfd` when there is something to enter for. Completions made
    /// inside an enter signal it too: disable it while the thread is awake.
    ///
    /// # Errors
    /// The kernel's.
    pub fn register_eventfd(&self, eventfd: RawFd) -> io::Result<()> {
        self.uring.submitter().register_eventfd(eventfd)
    }

    /// Stops the signals, while the thread is awake and enters anyway.
    pub fn disable_eventfd(&mut self) {
        self.uring.completion().disable_eventfd();
    }

    /// Starts the signals again. What came before raises none: enter once more, then look at
    /// [`has_deferred_work`](Self::has_deferred_work), then sleep.
    pub fn enable_eventfd(&mut self) {
        self.uring.completion().enable_eventfd();
    }
}
