//! The end of a process whose log cannot be written or flushed.
#![allow(unsafe_code)]

use std::fmt::Display;
use std::path::Path;

/// The exit code, EX_IOERR of sysexits.h: a service manager can tell it from others, and leave the
/// engine down until somebody has looked at the disk.
const IO_ERROR: i32 = 74;

/// Ends the process before it can acknowledge anything more.
pub fn give_up(what: &str, path: &Path, cause: impl Display) -> ! {
    eprintln!(
        "tidegate: {what} {} failed: {cause}\n\
         Nothing that was not acknowledged is lost silently: clients send it again.\n\
         Look at the device (dmesg, smartctl), then start again: recovery keeps what was \
         acknowledged (docs/durability.md).",
        path.display()
    );
    // Not `std::process::exit`: no destructor may run a shard further.
    // SAFETY: the call takes a number, touches no memory of this process and does not return.
    unsafe { libc::_exit(IO_ERROR) }
}
