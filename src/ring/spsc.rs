//! The ring: a bounded lock-free queue from one thread to one other.
//!
//! A value is staged by the one producer and taken by the one consumer; what was staged is seen by
//! the other side when it is published, a batch at a time, and the slots of what was taken are free
//! again when they are released. Head and tail lie 128 bytes apart (a pair of cache lines, which
//! the CPU fetches together), and each side keeps a copy of the other's index, so that the common
//! case touches no shared line but its own. Deliberately absent: waking the other side; who goes to
//! sleep says so at its [`Door`](super::Door) and looks at its rings once more.
#![allow(unsafe_code)]

use std::mem::MaybeUninit;

use super::sync::{Arc, AtomicUsize, Ordering, UnsafeCell};

/// Begins on a pair of cache lines of its own.
#[repr(align(128))]
pub struct Padded<T>(pub T);

struct Shared<T> {
    /// First slot that is not released; only the consumer stores it.
    head: Padded<AtomicUsize>,
    /// First slot that is not published; only the producer stores it.
    tail: Padded<AtomicUsize>,
    /// A power of two of slots; the indices count on and are masked.
    slots: Box<[UnsafeCell<MaybeUninit<T>>]>,
}

// SAFETY: slots between head and tail are only read by the one consumer, the others only written by
// the one producer; the two indices, published with release and read with acquire, hand them over.
unsafe impl<T: Send> Sync for Shared<T> {}
// SAFETY: as above; dropping the last reference drops the values that are left.
unsafe impl<T: Send> Send for Shared<T> {}

impl<T> Shared<T> {
    #[inline]
    fn slot(&self, index: usize) -> &UnsafeCell<MaybeUninit<T>> {
        &self.slots[index & (self.slots.len() - 1)]
    }

    /// Slots from `index` on that lie one behind the other: `count`, or as many as there are before
    /// the last one.
    #[inline]
    fn run(&self, index: usize, count: usize) -> &[UnsafeCell<MaybeUninit<T>>] {
        let rest = &self.slots[index & (self.slots.len() - 1)..];
        &rest[..count.min(rest.len())]
    }
}

/// The pushing end.
pub struct Producer<T> {
    shared: Arc<Shared<T>>,
    /// Next slot to be staged.
    next: usize,
    /// What `tail` is.
    published: usize,
    /// What `head` was when it was last looked at; never ahead of it.
    seen_head: usize,
}

/// The popping end.
pub struct Consumer<T> {
    shared: Arc<Shared<T>>,
    /// Next slot to be taken.
    next: usize,
    /// What `head` is.
    released: usize,
    /// What `tail` was when it was last looked at; never ahead of it.
    seen_tail: usize,
}

/// A ring with room for `capacity` values, rounded up to a power of two. Its memory is touched by
/// the calling thread.
pub fn ring<T: Send>(capacity: usize) -> (Producer<T>, Consumer<T>) {
    let slots: Box<[UnsafeCell<MaybeUninit<T>>]> =
        (0..capacity.next_power_of_two()).map(|_| UnsafeCell::new(MaybeUninit::uninit())).collect();
    for slot in slots.iter().filter(|_| size_of::<T>() > 0) {
        // SAFETY: the slot is nobody else's yet, and its first byte may hold anything. Volatile: else
        // the compiler leaves the write out, and the pages belong to whoever pushes first.
        slot.with_mut(|slot| unsafe { slot.cast::<u8>().write_volatile(0) });
    }
    let shared = Arc::new(Shared {
        head: Padded(AtomicUsize::new(0)),
        tail: Padded(AtomicUsize::new(0)),
        slots,
    });
    let producer = Producer { shared: Arc::clone(&shared), next: 0, published: 0, seen_head: 0 };
    (producer, Consumer { shared, next: 0, released: 0, seen_tail: 0 })
}

impl<T: Send> Producer<T> {
    /// Slots in all.
    pub fn capacity(&self) -> usize {
        self.shared.slots.len()
    }

    /// Whether `count` values can be staged now.
    #[inline]
    pub fn has_room(&mut self, count: usize) -> bool {
        let used_max = self.capacity().wrapping_sub(count);
        if count > self.capacity() {
            return false;
        }
        if self.next.wrapping_sub(self.seen_head) > used_max {
            self.look();
        }
        self.next.wrapping_sub(self.seen_head) <= used_max
    }

    #[inline]
    fn look(&mut self) {
        // Acquire: pairs with the release of `Consumer::release`, so that a slot's old value has
        // been read before it is written again.
        self.seen_head = self.shared.head.0.load(Ordering::Acquire);
    }

    /// Puts `value` into the next slot, where it is not seen before [`Producer::publish`].
    ///
    /// # Errors
    /// Hands the value back when the ring is full.
    #[inline]
    pub fn stage(&mut self, value: T) -> Result<(), T> {
        if !self.has_room(1) {
            return Err(value);
        }
        // SAFETY: the slot lies outside head..tail, so it is this producer's alone, and it holds no
        // value that would have to be dropped.
        self.shared.slot(self.next).with_mut(|slot| unsafe { (*slot).write(value) });
        self.next = self.next.wrapping_add(1);
        Ok(())
    }

    /// Stages values as long as there are some and there is room; how many those were. What found no
    /// room stays in `values`.
    #[inline]
    pub fn stage_from(&mut self, values: &mut impl Iterator<Item = T>) -> usize {
        let first = self.next;
        while self.has_room(1) {
            let free = self.capacity() - self.next.wrapping_sub(self.seen_head);
            let mut staged = 0;
            for slot in self.shared.run(self.next, free) {
                let Some(value) = values.next() else { break };
                // SAFETY: as in `stage`; should `next` have panicked, what lies here is forgotten.
                slot.with_mut(|slot| unsafe { (*slot).write(value) });
                staged += 1;
            }
            self.next = self.next.wrapping_add(staged);
            if staged == 0 {
                break;
            }
        }
        self.next.wrapping_sub(first)
    }

    /// Lets the consumer see everything that was staged. Whether that was anything.
    #[inline]
    pub fn publish(&mut self) -> bool {
        if self.published == self.next {
            return false;
        }
        self.published = self.next;
        // Release: pairs with the acquire of `Consumer::is_empty`, so that the values are there
        // when they are seen.
        self.shared.tail.0.store(self.next, Ordering::Release);
        true
    }

    /// Stages and publishes.
    ///
    /// # Errors
    /// Hands the value back when the ring is full.
    #[inline]
    pub fn push(&mut self, value: T) -> Result<(), T> {
        self.stage(value)?;
        self.publish();
        Ok(())
    }

    /// How many values were staged so far; wraps around.
    #[inline]
    pub fn staged(&self) -> usize {
        self.next
    }

    /// How many values the consumer has released so far; wraps around.
    #[inline]
    pub fn released(&mut self) -> usize {
        self.look();
        self.seen_head
    }
}

impl<T: Send> Consumer<T> {
    /// Takes the oldest value; its slot is the producer's again after [`Consumer::release`].
    #[inline]
    pub fn take(&mut self) -> Option<T> {
        if self.is_empty() {
            return None;
        }
        // SAFETY: `next` lies before the published tail, so the producer has written the slot and
        // does not touch it until it is released; `next` moves on, so that it is read once.
        let value = self.shared.slot(self.next).with(|slot| unsafe { (*slot).assume_init_read() });
        self.next = self.next.wrapping_add(1);
        Some(value)
    }

    /// Takes values, oldest first, for as long as `take` says that it has taken one, and drops them
    /// where they lie: a large one is not moved. How many those were. What is published meanwhile is
    /// taken by the next call.
    #[inline]
    pub fn take_while(&mut self, mut take: impl FnMut(&T) -> bool) -> usize {
        if self.is_empty() {
            return 0;
        }
        let first = self.next;
        let Self { shared, next, seen_tail, .. } = self;
        let mut taken = Advancing { next, count: 0 };
        // Two runs at most: what lies before the end of the slots, and what goes on at their start.
        for _ in 0..2 {
            let at = first.wrapping_add(taken.count);
            for slot in shared.run(at, seen_tail.wrapping_sub(at)) {
                // SAFETY: as in `take`; the slot is released by `&mut self`, so after `take` is done.
                if !take(slot.with(|slot| unsafe { (*slot).assume_init_ref() })) {
                    return taken.count;
                }
                // First, so that a value whose drop panics is not dropped again.
                taken.count += 1;
                if std::mem::needs_drop::<T>() {
                    // SAFETY: the value is counted as taken, so that it is dropped once; its slot is
                    // this consumer's until it is released.
                    slot.with_mut(|slot| unsafe { (*slot).assume_init_drop() });
                }
            }
        }
        taken.count
    }

    /// Gives the slots of everything that was taken back. Whether that was anything.
    #[inline]
    pub fn release(&mut self) -> bool {
        if self.released == self.next {
            return false;
        }
        self.released = self.next;
        // Release: pairs with the acquire of `Producer::look`: the slots have been read.
        self.shared.head.0.store(self.next, Ordering::Release);
        true
    }

    /// Takes the oldest value and gives its slot back.
    #[inline]
    pub fn pop(&mut self) -> Option<T> {
        let value = self.take()?;
        self.release();
        Some(value)
    }

    /// Whether nothing is there to be taken.
    #[inline]
    pub fn is_empty(&mut self) -> bool {
        if self.next == self.seen_tail {
            // Acquire: pairs with the release of `Producer::publish`.
            self.seen_tail = self.shared.tail.0.load(Ordering::Acquire);
        }
        self.next == self.seen_tail
    }
}

/// Moves an index on by what was counted, also when whoever counts panics.
struct Advancing<'a> {
    next: &'a mut usize,
    count: usize,
}

impl Drop for Advancing<'_> {
    #[inline]
    fn drop(&mut self) {
        *self.next = self.next.wrapping_add(self.count);
    }
}

impl<T> Drop for Consumer<T> {
    fn drop(&mut self) {
        // What was taken is not in its slot any more: nobody may drop it there.
        self.shared.head.0.store(self.next, Ordering::Release);
    }
}

impl<T> Drop for Producer<T> {
    fn drop(&mut self) {
        while self.published != self.next {
            self.next = self.next.wrapping_sub(1);
            // SAFETY: staged and never published: it is this producer's alone.
            self.shared.slot(self.next).with_mut(|slot| unsafe { (*slot).assume_init_drop() });
        }
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // Relaxed: both ends have dropped their reference, and whoever drops the last one sees what
        // happened before (`Arc`).
        let (head, tail) =
            (self.head.0.load(Ordering::Relaxed), self.tail.0.load(Ordering::Relaxed));
        let mut at = head;
        while at != tail {
            // SAFETY: both ends are gone, and head..tail hold values that nobody has taken.
            self.slot(at).with_mut(|slot| unsafe { (*slot).assume_init_drop() });
            at = at.wrapping_add(1);
        }
    }
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
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
    fn batches_end_where_room_or_values_do() {
        let (mut producer, mut consumer) = ring(4);
        let mut values = 0..7;
        assert_eq!(producer.stage_from(&mut values), 4);
        assert_eq!(consumer.take_while(|_| true), 0, "nothing is published");
        producer.publish();
        let mut taken = Vec::new();
        let mut take = |value: &i32| {
            let wanted = *value != 2;
            taken.extend(wanted.then_some(*value));
            wanted
        };
        assert_eq!((consumer.take_while(&mut take), consumer.take_while(&mut take)), (2, 0));
        assert_eq!(taken, [0, 1]);
        assert_eq!(producer.stage_from(&mut values), 0, "nothing is released");
        consumer.release();
        assert_eq!(producer.stage_from(&mut values), 2);
        assert_eq!((values.next(), consumer.pop()), (Some(6), Some(2)));
        producer.publish();
        assert_eq!(producer.stage_from(&mut values), 0, "there are no more values");
        assert_eq!((consumer.pop(), consumer.take_while(|value| *value > 3)), (Some(3), 2));
    }

    #[test]
    fn values_taken_in_place_are_dropped_once() {
        let value = Arc::new(());
        let (mut producer, mut consumer) = ring(4);
        assert_eq!(producer.stage_from(&mut (0..3).map(|_| Arc::clone(&value))), 3);
        producer.publish();
        let mut left = 2;
        consumer.take_while(|_| {
            left -= 1;
            left >= 0
        });
        assert_eq!(Arc::strong_count(&value), 2);
        drop((producer, consumer));
        assert_eq!(Arc::strong_count(&value), 1);
    }

    #[test]
    fn two_threads_lose_and_double_nothing() {
        const COUNT: u64 = if cfg!(miri) { 300 } else { 100_000 };
        let (mut producer, mut consumer) = ring(16);
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for i in 0..COUNT {
                    let mut value = Box::new(i);
                    while let Err(back) = producer.push(value) {
                        value = back;
                        std::thread::yield_now();
                    }
                }
            });
            let mut expected = 0;
            while expected < COUNT {
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
