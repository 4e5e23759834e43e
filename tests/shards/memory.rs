//! The heap of these tests: what is freed is overwritten at once, so that whoever still looks at it
//! sees garbage; and what a thread holds is counted.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// What freed memory is filled with; no message has it.
const FREED: u8 = 0xDB;

thread_local! {
    // Constant and without destructors: reaching them allocates nothing.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static MOST: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    let held = HELD.get() + bytes;
    HELD.set(held);
    MOST.set(MOST.get().max(held));
}

/// The most bytes that this thread held during `work`, beyond what it held before.
pub fn most_held(work: impl FnOnce()) -> usize {
    let before = HELD.get();
    MOST.set(before);
    work();
    (MOST.get() - before).unsigned_abs()
}

pub struct Poisoning;

// SAFETY: every call is passed on unchanged to the system's allocator, which keeps the contract.
// What is given back is written to before, while it is still the caller's. Counting allocates
// nothing and does not unwind.
unsafe impl GlobalAlloc for Poisoning {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: the block has so many bytes and is the caller's until the call below.
        unsafe { place.write_bytes(FREED, layout.size()) };
        // Else the compiler may leave out writes that nobody can see.
        std::hint::black_box(place);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(place, layout) }
    }

    // `realloc` is the trait's own: it takes a new block and gives the old one back.
}
