//! The alarm of a shard: one kernel timer that wakes its loop when something is due.
//!
//! In: when the next thing is due. Out: a descriptor that becomes readable then. glommio has timers
//! too, but each of them costs system calls at every sleep; this one is set only when what is due
//! comes sooner than what it is set for, or when it has gone off.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::time::{Duration, Instant};

/// A timerfd and what it is set for.
pub struct Alarm {
    timer: OwnedFd,
    due: Option<Instant>,
}

impl Alarm {
    /// An alarm that is not set.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new() -> io::Result<Self> {
        // SAFETY: no pointers.
        let raw = unsafe { libc::timerfd_create(libc::CLOCK_MONOTONIC, libc::TFD_CLOEXEC) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the descriptor is new and owned by nothing else.
        Ok(Self { timer: unsafe { OwnedFd::from_raw_fd(raw) }, due: None })
    }

    /// The timer, to be read.
    ///
    /// # Errors
    /// The kernel's.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.timer.try_clone()
    }

    /// Goes off `after` from now at the latest.
    ///
    /// # Errors
    /// The kernel's.
    pub fn set(&mut self, after: Duration) -> io::Result<()> {
        let now = Instant::now();
        let due = now + after;
        if self.due.is_some_and(|set| set > now && set <= due) {
            return Ok(());
        }
        self.due = Some(due);
        // Zero would turn it off.
        let after = after.max(Duration::from_nanos(1));
        let value = libc::timespec {
            tv_sec: after.as_secs() as libc::time_t,
            tv_nsec: i64::from(after.subsec_nanos()),
        };
        let never = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        let setting = libc::itimerspec { it_interval: never, it_value: value };
        // SAFETY: the setting lives during the call; the old one is not asked for.
        let result = unsafe {
            libc::timerfd_settime(self.timer.as_raw_fd(), 0, &setting, std::ptr::null_mut())
        };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Read;

    use super::*;

    #[test]
    fn it_goes_off_for_the_earliest_and_can_be_set_again() {
        let mut alarm = Alarm::new().unwrap();
        let mut timer = File::from(alarm.descriptor().unwrap());
        alarm.set(Duration::from_secs(3600)).unwrap();
        alarm.set(Duration::from_millis(1)).unwrap();
        alarm.set(Duration::from_secs(3600)).unwrap();
        let mut count = [0; 8];
        timer.read_exact(&mut count).unwrap();
        alarm.set(Duration::from_millis(1)).unwrap();
        timer.read_exact(&mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 1);
    }
}
