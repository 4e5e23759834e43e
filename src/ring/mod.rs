//! Rings: bounded lock-free queues from one shard to one other.
//!
//! A value is pushed by the one producer and popped by the one consumer; nothing is allocated after
//! the ring was made. Head and tail lie 128 bytes apart (a pair of cache lines, which the CPU
//! fetches together), and each side keeps a copy of the other's index, so that the common case
//! touches no shared line but its own. Deliberately absent: waking the consumer; a shard that goes
//! to sleep says so at its [`Door`] and looks at its rings once more.
#![allow(unsafe_code)]

mod door;

pub use door::Door;

use std::cell::UnsafeCell;
use std::mem::MaybeUninit;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

#[repr(align(128))]
struct Padded<T>(T);

struct Shared<T> {
    /// Next slot to be popped; only the consumer stores it.
    head: Padded<AtomicUsize>,
    /// Next slot to be pushed; only the producer stores it.
    tail: Padded<AtomicUsize>,
    /// A power of two of slots; the indices count on and are masked.
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: slots between head and tail are only read by the one consumer, the others only written by
// the one producer; the two indices, published with release and read with acquire, hand them over.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above; dropping the last reference drops the values that are left.
unsafe impl<T: Send> Send for Shared<T> {}

/// The pushing end.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    tail: usize,
    /// What `head` was when it was last looked at; never ahead of it.
    seen_head: usize,
}

/// The popping end.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    /// What `tail` was when it was last looked at; never ahead of it.
    seen_tail: usize,
}

/// A ring with room for `capacity` values, rounded up to a power of two.
pub fn ring<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let slots =
        (0..capacity.next_power_of_two()).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    let shared = Arc::new(Shared {
        head: Padded(AtomicUsize::new(0)),
        tail: Padded(AtomicUsize::new(0)),
        slots,
    });
    let producer = Producer { shared: Arc::clone(&shared), tail: 0, seen_head: 0 };
    (producer, Consumer { shared, head: 0, seen_tail: 0 })
}

impl<T: Send> Producer<T> {
    /// Pushes `value` and publishes it.
    ///
    /// # Errors
    /// Hands the value back when the ring is full.
    pub fn push(&mut self, value: T) -> Result<(), T> {
        let capacity = self.shared.slots.len();
        if self.tail.wrapping_sub(self.seen_head) == capacity {
            // Acquire: pairs with the release of `pop`, so that the slot's old value has been read
            // before it is written again.
            self.seen_head = self.shared.head.0.load(Ordering::Acquire);
            if self.tail.wrapping_sub(self.seen_head) == capacity {
                return Err(value);
            }
        }
        let slot = &self.shared.slots[self.tail & (capacity - 1)];
        // SAFETY: the slot lies outside head..tail, so it is this producer's alone, and it holds no
        // value that would have to be dropped.
        unsafe { (*slot.get()).write(value) };
        self.tail = self.tail.wrapping_add(1);
        // Release: pairs with the acquire of `pop`, so that the value is there when it is seen.
        self.shared.tail.0.store(self.tail, Ordering::Release);
        Ok(())
    }
}

impl<T: Send> Consumer<T> {
    /// Pops the oldest value.
    pub fn pop(&mut self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        let slot = &self.shared.slots[self.head & (self.shared.slots.len() - 1)];
        // SAFETY: `head` lies before the published tail, so the producer has written the slot and
        // does not touch it until `head` has moved on; it is read once.
        let value = unsafe { (*slot.get()).assume_init_read() };
        self.head = self.head.wrapping_add(1);
        // Release: pairs with the acquire of `push`: the slot has been read.
        self.shared.head.0.store(self.head, Ordering::Release);
        Some(value)
    }

    /// Whether nothing is there to be popped.
    pub fn is_empty(&mut self) -> bool {
        if self.head == self.seen_tail {
            // Acquire: pairs with the release of `push`.
            self.seen_tail = self.shared.tail.0.load(Ordering::Acquire);
        }
        self.head == self.seen_tail
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        let (head, tail) = (*self.head.0.get_mut(), *self.tail.0.get_mut());
        let mask = self.slots.len() - 1;
        let mut at = head;
        while at != tail {
            // SAFETY: both ends are gone, and head..tail hold values that nobody has read.
            unsafe { self.slots[at & mask].get_mut().assume_init_drop() };
            at = at.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_out_in_order_and_full_hands_back() {
        let (mut producer, mut consumer) = ring(3);
        for i in 0..4 {
            assert_eq!(producer.push(i), Ok(()));
        }
        assert_eq!(producer.push(4), Err(4));
        assert_eq!(consumer.pop(), Some(0));
        assert_eq!(producer.push(4), Ok(()));
        assert_eq!((1..5).map(|_| consumer.pop()).collect::<Vec<_>>(), [1, 2, 3, 4].map(Some));
        assert_eq!(consumer.pop(), None);
    }

    #[test]
    fn two_threads_lose_and_double_nothing() {
        let (mut producer, mut consumer) = ring(16);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for i in 0..100_000_u64 {
                    let mut value = Box::new(i);
                    while let Err(back) = producer.push(value) {
                        value = back;
                        std::thread::yield_now();
                    }
                }
            });
            let mut expected = 0;
            while expected < 100_000 {
                match consumer.pop() {
                    Some(value) => {
                        assert_eq!(*value, expected);
                        expected += 1;
                    }
                    None => std::thread::yield_now(),
                }
            }
        });
    }

    #[test]
    fn values_that_nobody_popped_are_dropped() {
        let value = Arc::new(());
        let (mut producer, consumer) = ring(4);
        for _ in 0..3 {
            assert!(producer.push(Arc::clone(&value)).is_ok());
        }
        drop((producer, consumer));
        assert_eq!(Arc::strong_count(&value), 1);
    }
}
