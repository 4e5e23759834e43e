//! A group of provided buffers: the memory that the kernel receives into, and the small ring that
//! tells it which buffers are free.
//!
//! It runs on the ring's thread. The invariant: `lent` is true for exactly those buffers that a
//! completion has named and nobody has given back; only those may be read, only the others are
//! known to the kernel. Absent: incremental consumption and bundles of buffers (Linux 6.10 and
//! later).
#![allow(unsafe_code)]

use std::alloc::{self, Layout};
use std::io;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU16, Ordering};

use io_uring::types::BufRingEntry;

use super::BufferId;

/// Alignment of what the kernel maps. 64 KiB is a multiple of every page size on Linux.
const PAGE_BYTES: usize = 1 << 16;

/// One provided-buffer ring and its buffers.
pub(super) struct BufferGroup {
    /// The [`BufferId`] of slot 0.
    first: usize,
    count: u16,
    bytes: u32,
    /// `count` entries of the kernel's ring.
    entries: ZeroedPages,
    /// `count * bytes` of buffers.
    memory: ZeroedPages,
    /// By slot: held by the caller.
    lent: Vec<bool>,
    /// Where the next buffer goes; the kernel sees it when published.
    tail: u16,
}

impl BufferGroup {
    /// `first + count` must be at most [`BUFFER_COUNT_MAX`](super::BUFFER_COUNT_MAX).
    pub(super) fn new(first: usize, count: u16, bytes: u32) -> io::Result<Self> {
        let slots = usize::from(count);
        let mut group = Self {
            first,
            count,
            bytes,
            entries: ZeroedPages::new(slots * size_of::<BufRingEntry>())?,
            memory: ZeroedPages::new(slots * bytes as usize)?,
            lent: vec![true; slots],
            tail: 0,
        };
        for slot in 0..slots {
            // `first + slot` is below BUFFER_COUNT_MAX: checked by the caller.
            group.take_back(BufferId((first + slot) as u16));
        }
        group.publish();
        Ok(group)
    }

    /// The first id after this group's.
    pub(super) fn end(&self) -> usize {
        self.first + usize::from(self.count)
    }

    /// Where the kernel finds the entries.
    pub(super) fn entries_address(&self) -> u64 {
        self.entries.pointer.as_ptr() as u64
    }

    #[inline]
    pub(super) fn holds(&self, id: BufferId) -> bool {
        (self.first..self.end()).contains(&id.index())
    }

    #[inline]
    fn slot(&self, id: BufferId) -> usize {
        id.index() - self.first
    }

    #[inline]
    fn address(&self, slot: usize) -> *mut u8 {
        debug_assert!(slot < usize::from(self.count));
        // SAFETY: inside the allocation of count * bytes.
        unsafe { self.memory.pointer.as_ptr().add(slot * self.bytes as usize) }
    }

    /// The first `len` bytes of a lent buffer.
    #[inline]
    pub(super) fn bytes_of(&self, id: BufferId, len: u32) -> &[u8] {
        let slot = self.slot(id);
        assert!(self.lent[slot], "buffer {} is with the kernel", id.0);
        assert!(len <= self.bytes, "buffer {} has {} bytes, not {len}", id.0, self.bytes);
        // SAFETY: inside the allocation (slot < count, len <= bytes), initialised when it was made;
        // the kernel does not write to a lent buffer, and it can only be given back through
        // `&mut self`, when this borrow is over.
        unsafe { std::slice::from_raw_parts(self.address(slot), len as usize) }
    }

    /// The kernel has handed the buffer out.
    #[inline]
    pub(super) fn lend(&mut self, id: BufferId) {
        let slot = self.slot(id);
        debug_assert!(!self.lent[slot], "the kernel named buffer {} twice", id.0);
        self.lent[slot] = true;
    }

    /// The caller gives the buffer back; the kernel sees it after [`publish`](Self::publish).
    #[inline]
    pub(super) fn take_back(&mut self, id: BufferId) {
        let slot = self.slot(id);
        assert!(self.lent[slot], "buffer {} was recycled twice", id.0);
        self.lent[slot] = false;
        let (address, bytes) = (self.address(slot) as u64, self.bytes);
        let position = usize::from(self.tail & (self.count - 1));
        // SAFETY: position < count entries, aligned for them; the kernel reads entries only below
        // the published tail, and this slot's previous entry it has consumed: a buffer is lent.
        // Only the three fields are written: entry 0 overlaps the tail.
        unsafe {
            let entry = &mut *self.entries.pointer.as_ptr().cast::<BufRingEntry>().add(position);
            entry.set_addr(address);
            entry.set_len(bytes);
            entry.set_bid(id.0);
        }
        self.tail = self.tail.wrapping_add(1);
    }

    #[inline]
    pub(super) fn publish(&mut self) {
        // SAFETY: the first entry is where `tail` wants it, and the tail field is a u16 inside the
        // allocation that both sides access atomically.
        let tail = unsafe {
            let entries = self.entries.pointer.as_ptr().cast::<BufRingEntry>();
            &*BufRingEntry::tail(entries).cast::<AtomicU16>()
        };
        // Release: the entries before the tail; partner is the kernel's acquire load when it
        // selects a buffer.
        tail.store(self.tail, Ordering::Release);
    }
}

/// Page-aligned zeroed memory.
struct ZeroedPages {
    pointer: NonNull<u8>,
    layout: Layout,
}

impl ZeroedPages {
    fn new(bytes: usize) -> io::Result<Self> {
        let layout = Layout::from_size_align(bytes, PAGE_BYTES).map_err(io::Error::other)?;
        assert!(layout.size() > 0, "no empty groups");
        // SAFETY: the size is not 0.
        let pointer = unsafe { alloc::alloc_zeroed(layout) };
        let pointer = NonNull::new(pointer).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self { pointer, layout })
    }
}

impl Drop for ZeroedPages {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { alloc::dealloc(self.pointer.as_ptr(), self.layout) }
    }
}
