//! Sleeping in the ring of the sockets, and what ends it beside them: the bell that other threads
//! ring, and the ring of the commits.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use super::{Op, Sockets, user_data};
use crate::driver::socket_ring::Wait;
use crate::shard::ConnId;

/// The eventfd that wakes the thread, and where its counter is read to.
pub struct Wake {
    fd: OwnedFd,
    count: Box<u64>,
}

impl Sockets {
    /// From now on, whoever writes to `eventfd` ends a [`wait`](Self::wait).
    pub fn wake_on(&mut self, eventfd: OwnedFd) {
        self.wake = Some(Wake { fd: eventfd, count: Box::new(0) });
        self.arm_wake();
    }

    pub(super) fn arm_wake(&mut self) {
        let Some(wake) = &mut self.wake else { return };
        let (fd, count) = (wake.fd.as_raw_fd(), std::ptr::from_mut(&mut *wake.count));
        // SAFETY: nobody else looks at the counter, and `ring` is dropped before `wake`.
        unsafe { self.ring.read_counter(fd, count, user_data(Op::Wake, ConnId(0))) };
    }

    /// The next completion in `ring`, another io_uring, ends a [`wait`](Self::wait).
    pub fn wake_on_completion(&mut self, ring: RawFd) {
        if !std::mem::replace(&mut self.polls_commits, true) {
            self.ring.poll_once(ring, user_data(Op::Committed, ConnId(0)));
        }
    }

    /// Sleeps until the ring has something for the next turn, `limit` at the most.
    ///
    /// # Errors
    /// Those of [`SocketRing::enter`].
    pub fn wait(&mut self, limit: Duration) -> io::Result<()> {
        self.entered = true;
        self.ring.enter(Wait::For { count: 1, timeout: Some(limit) })
    }
}
