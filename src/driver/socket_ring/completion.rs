//! What the kernel says of a request: in its queue entry, out the fields that callers look at.

use io_uring::cqueue;

use super::BufferId;

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Completion {
    /// As given with the request. The top bit is reserved for the ring.
    pub user_data: u64,
    /// Bytes moved, or the new descriptor of an accept; otherwise the errno.
    pub result: Result<u32, i32>,
    /// A multishot request goes on. Without it the request is over, whatever the result: an accept
    /// or receive has to be armed again (ENOBUFS: once buffers were recycled).
    pub more: bool,
    /// The buffer that holds what was received. Whenever it is there it must be recycled, also
    /// when the result is 0 bytes or an error.
    pub buffer: Option<BufferId>,
    /// The socket had more to read when this completion was made.
    pub socket_nonempty: bool,
}

impl Completion {
    /// Reads an entry. The user data is as the kernel has it.
    #[inline]
    pub(super) fn from_entry(entry: &cqueue::Entry) -> Self {
        let flags = entry.flags();
        Self {
            user_data: entry.user_data(),
            result: u32::try_from(entry.result()).map_err(|_| -entry.result()),
            more: cqueue::more(flags),
            buffer: cqueue::buffer_select(flags).map(BufferId),
            socket_nonempty: cqueue::sock_nonempty(flags),
        }
    }
}
