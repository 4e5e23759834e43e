//! The socket ring: one io_uring for every socket of one thread.
//!
//! In: accepts, receives, sends, connects, cancels and closes, each with the caller's `user_data`.
//! Out: [`Completion`]s, and the bytes received, which lie in provided buffers that the ring owns.
//! It runs on the thread that creates it (SINGLE_ISSUER) and moves bytes only inside
//! [`SocketRing::enter`] (DEFER_TASKRUN): one system call submits everything pending and runs what
//! the network has made ready. Both the engine's driver and the load generator use it.
//!
//! The invariant: a provided buffer belongs either to the kernel or, from the completion that names
//! it until [`SocketRing::recycle`], to the caller; `lent` says which.
//!
//! Deliberately absent: connections and their generations, timers, files (glommio has those), and
//! any policy of when to sleep or to arm again.
#![allow(unsafe_code)]

mod address;
mod buffers;
mod completion;
mod outgoing;
mod unavailable;
mod wake;

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, RawFd};
use std::ptr;
use std::time::Duration;

use io_uring::types::{CancelBuilder, Fd, SubmitArgs, Timespec};
use io_uring::{EnterFlags, IoUring, opcode, squeue};

use address::SocketAddressBytes;
pub use address::set_nodelay;
use buffers::BufferGroup;
pub use completion::Completion;
use outgoing::SendSlots;
pub use outgoing::SlotId;
pub use unavailable::{RingUnavailable, explain};

/// Buffers of all groups together: a completion names its buffer in 16 bits.
pub const BUFFER_COUNT_MAX: usize = 1 << 16;

/// The kernel's limit for one group.
pub const GROUP_BUFFER_COUNT_MAX: u16 = 1 << 15;

/// Sizes of the ring, fixed when it is made. The kernel rounds up to powers of two and clamps.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Submission entries: how many requests fit between two enters without an extra system call.
    pub entries: u32,
    /// Completion entries; more completions than this at once are kept by the kernel (CQ_OVERFLOW)
    /// and cost more.
    pub cq_entries: u32,
}

/// A buffer of this ring that the caller holds. Unique over all groups of one ring.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct BufferId(u16);

impl From<u16> for BufferId {
    fn from(id: u16) -> Self {
        Self(id)
    }
}

impl From<BufferId> for u16 {
    fn from(id: BufferId) -> Self {
        id.0
    }
}

impl BufferId {
    /// The id as an index below [`BUFFER_COUNT_MAX`].
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// How long [`SocketRing::enter`] may block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    No,
    /// Until so many completions are there to take, or the time is over.
    For {
        /// Completions, those not yet taken included.
        count: u32,
        /// `None`: for ever.
        timeout: Option<Duration>,
    },
}

/// An io_uring with its provided buffers. Neither Send nor Sync.
pub struct SocketRing {
    // Dropped before `groups`, whose memory the kernel writes to while requests are alive.
    uring: IoUring,
    groups: Vec<BufferGroup>,
    slots: SendSlots,
    /// Requests that found the submission queue full and the kernel unable to take it.
    spilled: VecDeque<squeue::Entry>,
    /// Addresses of connects that the kernel has not read yet: it copies one when it takes the
    /// request.
    #[allow(clippy::vec_box)] // the kernel holds their addresses while the vector grows
    connect_addresses: Vec<Box<SocketAddressBytes>>,
}

impl SocketRing {
    /// Makes the ring. The calling thread is the only one that can use it.
    ///
    /// # Errors
    /// [`RingUnavailable`] inside the error where the kernel is too old or forbids io_uring.
    pub fn new(options: Options) -> io::Result<Self> {
        let uring = IoUring::builder()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_taskrun_flag()
            .setup_submit_all()
            .setup_clamp()
            .setup_cqsize(options.cq_entries.max(options.entries))
            .build(options.entries.max(1))
            .map_err(explain)?;
        Ok(Self {
            uring,
            groups: Vec::new(),
            slots: SendSlots::default(),
            spilled: VecDeque::new(),
            connect_addresses: Vec::new(),
        })
    }

    /// Gives the kernel `count` (a power of two) buffers of `bytes` each as `group`.
    ///
    /// # Errors
    /// The kernel's, when it does not take the group (the id exists already, or locked memory is
    /// too small), and `InvalidInput` when the sizes are not as said or all groups together have
    /// more than [`BUFFER_COUNT_MAX`] buffers.
    pub fn add_buffers(&mut self, group: u16, count: u16, bytes: u32) -> io::Result<()> {
        let first = self.groups.last().map_or(0, BufferGroup::end);
        let fits = first + usize::from(count) <= BUFFER_COUNT_MAX;
        if !count.is_power_of_two() || count > GROUP_BUFFER_COUNT_MAX || bytes == 0 || !fits {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a buffer group cannot have {count} buffers of {bytes} bytes"),
            ));
        }
        let buffers = BufferGroup::new(first, count, bytes)?;
        // SAFETY: the entries are page aligned, `count` of them are allocated, and they live until
        // the ring is gone: `drop` ends every request before `groups` is freed.
        unsafe {
            self.uring.submitter().register_buf_ring_with_flags(
                buffers.entries_address(),
                count,
                group,
                0,
            )
        }
        .map_err(unavailable::explain_memory)?;
        self.groups.push(buffers);
        Ok(())
    }

    /// Accepts until cancelled: each completion's result is a new descriptor (close-on-exec, blocking
    /// mode, as the ring wants it), owned by the caller.
    pub fn accept_multishot(&mut self, listener: RawFd, user_data: u64) {
        let entry = opcode::AcceptMulti::new(Fd(listener)).flags(libc::SOCK_CLOEXEC).build();
        // SAFETY: no memory is named.
        unsafe { self.push(entry.user_data(user_data)) }
    }

    /// Receives once into a buffer of `group`. 0 bytes: the peer has ended its stream.
    pub fn recv_once(&mut self, fd: RawFd, group: u16, user_data: u64) {
        let entry = opcode::Recv::new(Fd(fd), ptr::null_mut(), 0)
            .buf_group(group)
            .build()
            .flags(squeue::Flags::BUFFER_SELECT);
        // SAFETY: the memory is that of the group, which lives as long as the ring.
        unsafe { self.push(entry.user_data(user_data)) }
    }

    /// Receives into buffers of `group`, one a completion, until cancelled, the stream's end, an
    /// error, or ENOBUFS when the group is used up.
    pub fn recv_multishot(&mut self, fd: RawFd, group: u16, user_data: u64) {
        let entry = opcode::RecvMulti::new(Fd(fd), group).build();
        // SAFETY: the memory is that of the group, which lives as long as the ring.
        unsafe { self.push(entry.user_data(user_data)) }
    }

    /// Makes a slot whose bytes the ring keeps while they are sent. They may grow beyond
    /// `bytes_max`, which is allocated now.
    pub fn add_send_slot(&mut self, bytes_max: usize) -> SlotId {
        self.slots.add(bytes_max)
    }

    /// The slot's bytes, to be filled. `None` while they are being sent.
    #[inline]
    pub fn slot_mut(&mut self, slot: SlotId) -> Option<&mut Vec<u8>> {
        self.slots.bytes_mut(slot)
    }

    /// Sends the slot's bytes as [`send`](Self::send) does; the slot is free again when the
    /// completion was taken.
    ///
    /// # Panics
    /// When the slot is in flight.
    #[inline]
    pub fn send_slot(&mut self, fd: RawFd, slot: SlotId, user_data: u64) {
        let outgoing = self.slots.start(slot, user_data);
        let entry = opcode::Send::new(Fd(fd), outgoing.bytes, outgoing.len)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        // SAFETY: nobody reaches a slot's bytes before `next_completion` has taken this send's
        // completion, and `drop` ends the send before they are freed.
        unsafe { self.push_entry(entry.user_data(outgoing.user_data)) }
    }

    /// Sends all of `len` bytes (MSG_WAITALL, MSG_NOSIGNAL): a completion with fewer means that the
    /// connection broke. One send a socket at a time, or their bytes may interleave.
    ///
    /// # Safety
    /// The bytes must stay valid and unchanged until the completion of this request was taken, or
    /// the ring is dropped.
    pub unsafe fn send(&mut self, fd: RawFd, bytes: *const u8, len: u32, user_data: u64) {
        let entry = opcode::Send::new(Fd(fd), bytes, len)
            .flags(libc::MSG_NOSIGNAL | libc::MSG_WAITALL)
            .build();
        // SAFETY: the caller keeps the bytes.
        unsafe { self.push(entry.user_data(user_data)) }
    }

    /// As [`send`](Self::send), gathered from several places.
    ///
    /// # Safety
    /// The message header, its vector and the bytes that it names must stay valid and unchanged
    /// until the completion of this request was taken, or the ring is dropped.
    pub unsafe fn send_vectored(
        &mut self,
        fd: RawFd,
        message: *const libc::msghdr,
        user_data: u64,
    ) {
        let entry = opcode::SendMsg::new(Fd(fd), message)
            .flags((libc::MSG_NOSIGNAL | libc::MSG_WAITALL).cast_unsigned())
            .build();
        // SAFETY: the caller keeps header, vector and bytes.
        unsafe { self.push(entry.user_data(user_data)) }
    }

    /// Connects a socket of the address's family (blocking mode).
    pub fn connect(&mut self, fd: RawFd, address: SocketAddr, user_data: u64) {
        let address = Box::new(SocketAddressBytes::new(address));
        let pointer = ptr::from_ref(&address.storage).cast::<libc::sockaddr>();
        let entry = opcode::Connect::new(Fd(fd), pointer, address.len).build();
        self.connect_addresses.push(address);
        // SAFETY: the box is kept in `connect_addresses` until the kernel has taken the request,
        // which is when it copies the address.
        unsafe { self.push(entry.user_data(user_data)) }
    }

    /// Cancels every request on `fd`. Each still completes (ECANCELED or what it had reached); the
    /// result of this one is how many there were, 0 included.
    pub fn cancel_fd(&mut self, fd: RawFd, user_data: u64) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::fd(Fd(fd)).all()).build();
        // SAFETY: no memory is named.
        unsafe { self.push(entry.user_data(user_data)) }
    }

    /// Cancels every request that was made with `target` as its user data; see
    /// [`cancel_fd`](Self::cancel_fd).
    pub fn cancel(&mut self, target: u64, user_data: u64) {
        let entry = opcode::AsyncCancel2::new(CancelBuilder::user_data(target).all()).build();
        // SAFETY: no memory is named.
        unsafe { self.push(entry.user_data(user_data)) }
    }

    /// Shuts a socket down; `how` is one of libc's `SHUT_*`.
    pub fn shutdown(&mut self, fd: RawFd, how: i32, user_data: u64) {
        let entry = opcode::Shutdown::new(Fd(fd), how).build();
        // SAFETY: no memory is named.
        unsafe { self.push(entry.user_data(user_data)) }
    }

    /// Closes a descriptor. Requests on it must have had their last completion: they would keep the
    /// socket open, and a new connection could get the same number.
    pub fn close(&mut self, fd: RawFd, user_data: u64) {
        let entry = opcode::Close::new(Fd(fd)).build();
        // SAFETY: no memory is named.
        unsafe { self.push(entry.user_data(user_data)) }
    }

    /// One system call: makes recycled buffers visible, submits what is pending and runs deferred
    /// work (the kernel runs a limited number of items a call: see
    /// [`has_deferred_work`](Self::has_deferred_work)). A signal, a timeout or a kernel that is
    /// short of memory for the moment ends it early without an error; what was not submitted goes
    /// with the next enter.
    ///
    /// # Errors
    /// Those of a ring that cannot be used: a bug, or another thread.
    pub fn enter(&mut self, wait: Wait) -> io::Result<()> {
        for group in &mut self.groups {
            group.publish();
        }
        while !self.spilled.is_empty() && self.unspill() && !self.spilled.is_empty() {
            self.enter_once(EnterFlags::GETEVENTS, Wait::No)?;
        }
        self.enter_once(EnterFlags::GETEVENTS, wait)?;
        if !self.connect_addresses.is_empty() && !self.has_unsubmitted() {
            self.connect_addresses.clear();
        }
        Ok(())
    }

    /// The next completion, if one is there. Nothing is waited for; only
    /// [`enter`](Self::enter) brings new ones.
    #[inline]
    pub fn next_completion(&mut self) -> Option<Completion> {
        let entry = self.uring.completion().next()?;
        let mut completion = Completion::from_entry(&entry);
        if let Some(id) = completion.buffer {
            self.group_mut(id).lend(id);
        }
        if outgoing::is_reserved(completion.user_data) {
            completion.user_data = self.slots.finish(completion.user_data);
        }
        Some(completion)
    }

    /// The first `len` bytes of a buffer that the caller holds.
    ///
    /// # Panics
    /// When the caller does not hold it, or it is shorter.
    #[inline]
    pub fn buffer(&self, id: BufferId, len: u32) -> &[u8] {
        self.group(id).bytes_of(id, len)
    }

    /// Gives a buffer back. The kernel sees it at the next enter.
    ///
    /// # Panics
    /// When the caller does not hold it.
    #[inline]
    pub fn recycle(&mut self, id: BufferId) {
        self.group_mut(id).take_back(id);
    }

    /// The kernel has work for this ring that only an enter runs, and for which it raises no new
    /// event (TASKRUN), or completions that found no room (CQ_OVERFLOW).
    #[inline]
    pub fn has_deferred_work(&self) -> bool {
        // SAFETY: `self` is neither Send nor Sync, and no other view of the queue is alive.
        let submission = unsafe { self.uring.submission_shared() };
        submission.taskrun() || submission.cq_overflow()
    }

    /// Requests wait for an enter.
    #[inline]
    pub fn has_unsubmitted(&self) -> bool {
        // SAFETY: as in `has_deferred_work`.
        !self.spilled.is_empty() || !unsafe { self.uring.submission_shared() }.is_empty()
    }

    /// # Safety
    /// What the entry names must live until its completion.
    #[inline]
    unsafe fn push(&mut self, entry: squeue::Entry) {
        assert!(!outgoing::is_reserved(entry.get_user_data()), "the top bit is the ring's");
        // SAFETY: as for this function.
        unsafe { self.push_entry(entry) }
    }

    /// # Safety
    /// As [`push`](Self::push).
    #[inline]
    unsafe fn push_entry(&mut self, entry: squeue::Entry) {
        if self.spilled.is_empty() {
            // SAFETY: as for this function.
            if unsafe { self.uring.submission().push(&entry) }.is_ok() {
                return;
            }
            // The queue is full: let the kernel take it, without running deferred work.
            let taken = self.enter_once(EnterFlags::empty(), Wait::No).is_ok();
            // SAFETY: as for this function.
            if taken && unsafe { self.uring.submission().push(&entry) }.is_ok() {
                return;
            }
        }
        self.spilled.push_back(entry);
    }

    /// Moves spilled entries into the submission queue; whether any moved.
    fn unspill(&mut self) -> bool {
        let mut submission = self.uring.submission();
        let before = submission.len();
        while let Some(entry) = self.spilled.front() {
            // SAFETY: what it names lives, as its `push` was promised.
            if unsafe { submission.push(entry) }.is_err() {
                break;
            }
            self.spilled.pop_front();
        }
        submission.len() > before
    }

    #[inline]
    fn enter_once(&mut self, flags: EnterFlags, wait: Wait) -> io::Result<()> {
        let submitted = u32::try_from(self.uring.submission().len()).unwrap_or(u32::MAX);
        let submitter = self.uring.submitter();
        let result = match wait {
            // SAFETY: as many entries as the queue holds; no argument.
            Wait::No => unsafe {
                submitter.enter::<libc::sigset_t>(submitted, 0, flags.bits(), None)
            },
            // SAFETY: as above.
            Wait::For { count, timeout: None } => unsafe {
                submitter.enter::<libc::sigset_t>(submitted, count, flags.bits(), None)
            },
            Wait::For { count, timeout: Some(timeout) } => {
                let timeout = Timespec::from(timeout);
                let arguments = SubmitArgs::new().timespec(&timeout);
                let flags = flags | EnterFlags::EXT_ARG;
                // SAFETY: as above, and the arguments live during the call.
                unsafe { submitter.enter(submitted, count, flags.bits(), Some(&arguments)) }
            }
        };
        match result {
            Ok(_) => Ok(()),
            Err(error) => match error.raw_os_error() {
                Some(libc::EINTR | libc::ETIME | libc::EAGAIN | libc::EBUSY) => Ok(()),
                _ => Err(error),
            },
        }
    }

    #[inline]
    fn group(&self, id: BufferId) -> &BufferGroup {
        let group = self.groups.iter().find(|g| g.holds(id));
        group.unwrap_or_else(|| panic!("buffer {} is of no group of this ring", id.0))
    }

    #[inline]
    fn group_mut(&mut self, id: BufferId) -> &mut BufferGroup {
        let group = self.groups.iter_mut().find(|g| g.holds(id));
        group.unwrap_or_else(|| panic!("buffer {} is of no group of this ring", id.0))
    }
}

impl AsRawFd for SocketRing {
    fn as_raw_fd(&self) -> RawFd {
        self.uring.as_raw_fd()
    }
}

impl Drop for SocketRing {
    /// Ends every request first, so that nothing is written to memory that is about to be freed
    /// (ours, and what callers passed to `send`).
    fn drop(&mut self) {
        let timeout = Timespec::from(Duration::from_secs(5));
        let ended =
            self.uring.submitter().register_sync_cancel(Some(timeout), CancelBuilder::any());
        let alive = ended.is_err_and(|e| e.kind() != io::ErrorKind::NotFound);
        if alive {
            // A leak is harmless, a write into reused memory is not.
            std::mem::forget(std::mem::take(&mut self.groups));
            std::mem::forget(std::mem::take(&mut self.slots));
        }
    }
}

#[cfg(test)]
mod tests;
