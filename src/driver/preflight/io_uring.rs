//! Whether the kernel grants this process the io_uring that the socket ring is built on.
//!
//! A small ring is set up as the driver's are (SINGLE_ISSUER, DEFER_TASKRUN), its operations are
//! looked up, and one multishot receive into a provided-buffer ring is done over a socket pair.
#![allow(unsafe_code)]

use std::fs;
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::{BufRingEntry, Fd};
use io_uring::{IoUring, Probe, cqueue, opcode};

use super::Refusal;

/// The operations that the driver and glommio submit, with the names to print.
const OPERATIONS: [(u8, &str); 9] = [
    (opcode::Accept::CODE, "accept"),
    (opcode::Recv::CODE, "receive"),
    (opcode::Send::CODE, "send"),
    (opcode::Close::CODE, "close"),
    (opcode::AsyncCancel::CODE, "cancellation"),
    (opcode::Read::CODE, "read"),
    (opcode::Write::CODE, "write"),
    (opcode::Fsync::CODE, "fsync"),
    (opcode::Timeout::CODE, "timeouts"),
];

const MULTISHOT: &str = "multishot receive into provided-buffer rings";

/// Tries everything that the driver needs of io_uring.
pub fn kernel() -> Result<(), Refusal> {
    let ring = IoUring::builder().setup_single_issuer().setup_defer_taskrun().build(8);
    let mut ring = ring.map_err(|source| refused(source, &Surroundings::read()))?;
    let lacks = |lacks| Refusal::Old { release: Surroundings::read().release, lacks };
    let mut probe = Probe::new();
    ring.submitter().register_probe(&mut probe).map_err(|_| lacks("the operation probe"))?;
    if let Some((_, name)) = OPERATIONS.iter().find(|(code, _)| !probe.is_supported(*code)) {
        return Err(lacks(name));
    }
    match multishot_receive(&mut ring) {
        Ok(true) => Ok(()),
        Ok(false) => Err(lacks(MULTISHOT)),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Err(lacks(MULTISHOT)),
        Err(source) => Err(Refusal::Setup { source }),
    }
}

/// What tells the reasons for one error number apart.
struct Surroundings {
    /// kernel.io_uring_disabled: 0 for everyone, 1 for the privileged, 2 for no one.
    disabled: u8,
    /// Whether a seccomp filter is on this process.
    filtered: bool,
    /// The kernel's release, as uname(1) has it.
    release: String,
}

impl Surroundings {
    fn read() -> Self {
        let read = |path| fs::read_to_string(path).unwrap_or_default();
        let status = read("/proc/self/status");
        let seccomp = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
        let release = read("/proc/sys/kernel/osrelease");
        let disabled = read("/proc/sys/kernel/io_uring_disabled");
        Self {
            disabled: disabled.trim().parse().unwrap_or(0),
            filtered: seccomp.is_some_and(|mode| mode.trim() == "2"),
            release: release.trim().to_owned(),
        }
    }
}

fn refused(source: io::Error, around: &Surroundings) -> Refusal {
    let release = || around.release.clone();
    match source.raw_os_error() {
        Some(libc::EPERM) if around.disabled > 0 => Refusal::Disabled { value: around.disabled },
        Some(libc::EPERM | libc::EACCES | libc::ENOSYS) if around.filtered => Refusal::Filtered,
        Some(libc::EPERM | libc::EACCES) => Refusal::Forbidden { source },
        Some(libc::ENOSYS) => Refusal::Absent { release: release() },
        Some(libc::EINVAL) => {
            Refusal::Old { release: release(), lacks: "SINGLE_ISSUER and DEFER_TASKRUN" }
        }
        _ => Refusal::Setup { source },
    }
}

/// The memory of a provided-buffer ring: page-aligned, as the kernel wants it.
#[repr(C, align(4096))]
struct Page([u8; 4096]);

const GROUP: u16 = 0;
const BUFFERS: u16 = 2;
const BUFFER_BYTES: u32 = 64;

/// Receives one byte by a multishot receive; false where the kernel took it for a single one.
fn multishot_receive(ring: &mut IoUring) -> io::Result<bool> {
    let (receiver, mut sender) = UnixStream::pair()?;
    let mut page = Box::new(Page([0; 4096]));
    let mut buffers = vec![0u8; BUFFERS as usize * BUFFER_BYTES as usize];
    let entries = page.0.as_mut_ptr().cast::<BufRingEntry>();
    // SAFETY: the page holds more than BUFFERS entries of 16 bytes, is aligned to 4096, and lives
    // until the group is unregistered below, on every way out.
    unsafe {
        ring.submitter().register_buf_ring_with_flags(entries.addr() as u64, BUFFERS, GROUP, 0)?;
    }
    for (id, buffer) in buffers.chunks_exact_mut(BUFFER_BYTES as usize).enumerate() {
        // SAFETY: `id` is below BUFFERS, so the entry lies in the page; the kernel reads no entry
        // before the tail is stored below.
        let entry = unsafe { &mut *entries.add(id) };
        entry.set_addr(buffer.as_mut_ptr().addr() as u64);
        entry.set_len(BUFFER_BYTES);
        entry.set_bid(id as u16);
    }
    // SAFETY: the tail lies in the first entry of the page and is aligned; the kernel reads it
    // with acquire, which pairs with this release and shows it the entries.
    let tail = unsafe { AtomicU16::from_ptr(BufRingEntry::tail(entries).cast_mut()) };
    tail.store(BUFFERS, Ordering::Release);
    let outcome = receive_twice(ring, &receiver, &mut sender);
    // The peer is gone, so that a receive still armed ends before the memory does.
    drop(sender);
    let ended = if matches!(outcome, Ok(true)) { ring.submit_and_wait(1) } else { Ok(0) };
    ring.submitter().unregister_buf_ring(GROUP)?;
    ended.and(outcome)
}

fn receive_twice(
    ring: &mut IoUring,
    receiver: &UnixStream,
    sender: &mut UnixStream,
) -> io::Result<bool> {
    sender.write_all(b"?")?;
    let receive = opcode::RecvMulti::new(Fd(receiver.as_raw_fd()), GROUP).build();
    // SAFETY: the receive refers to no memory but the group's buffers, which outlive it.
    let pushed = unsafe { ring.submission().push(&receive) };
    pushed.map_err(|_| io::Error::other("a new submission queue is full"))?;
    ring.submit_and_wait(1)?;
    let completion = ring.completion().next().ok_or(io::ErrorKind::UnexpectedEof)?;
    if completion.result() < 0 {
        return Err(io::Error::from_raw_os_error(-completion.result()));
    }
    Ok(cqueue::more(completion.flags()) && cqueue::buffer_select(completion.flags()).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_names_its_remedy() {
        let check = |errno: i32, disabled: u8, filtered: bool, expected: &str| {
            let around = Surroundings { disabled, filtered, release: "5.10.0".to_owned() };
            let text = refused(io::Error::from_raw_os_error(errno), &around).to_string();
            assert!(text.contains(expected), "{text:?} does not contain {expected:?}");
        };
        check(libc::EPERM, 2, true, "kernel.io_uring_disabled = 2");
        check(libc::EPERM, 1, false, "`sysctl kernel.io_uring_disabled=0`");
        check(libc::EPERM, 0, true, "seccomp=unconfined");
        check(libc::EPERM, 0, false, "security module");
        check(libc::ENOSYS, 0, true, "seccomp=unconfined");
        check(libc::ENOSYS, 0, false, "this kernel (5.10.0) has no io_uring");
        check(libc::EINVAL, 0, false, "too old: its io_uring lacks SINGLE_ISSUER");
        check(libc::EMFILE, 0, false, "cannot be set up: Too many open files");
    }

    /// Where the tests run the engine can run: the same kernel grants both.
    #[test]
    fn this_kernel_grants_what_the_driver_needs() {
        for _ in 0..100 {
            kernel().unwrap();
        }
    }
}
