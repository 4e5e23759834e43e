//! What every accepted socket is told.
#![allow(unsafe_code)]

use std::os::fd::RawFd;

/// Small answers leave at once, and a peer whose host has vanished is found out, also where MQTT's
/// keep alive is off. A connection works without, so that a failure is no reason to refuse.
pub fn set_options(fd: RawFd) {
    const IDLE_S: libc::c_int = 300;
    for (level, option, value) in [
        (libc::IPPROTO_TCP, libc::TCP_NODELAY, 1),
        (libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1),
        (libc::IPPROTO_TCP, libc::TCP_KEEPIDLE, IDLE_S),
    ] {
        let size = size_of_val(&value) as libc::socklen_t;
        // SAFETY: the pointer and size are those of `value`, which lives during the call.
        unsafe { libc::setsockopt(fd, level, option, std::ptr::from_ref(&value).cast(), size) };
    }
}
