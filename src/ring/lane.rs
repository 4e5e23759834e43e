//! The lane: a ring with credits, from one shard to one other.
//!
//! The receiver grants bytes, the sender spends them: a value goes into the ring with its price,
//! when there is a free slot and as much credit. What was granted and has not arrived yet is room
//! that the receiver keeps (in its log buffer), so that whatever arrives can be taken at once. Two
//! counts come back: of slots released, after which the sender may reuse what its values refer to,
//! and of values settled, which the sender may acknowledge. Both are single words that only grow,
//! so their way back needs no room and no credit, and two lanes cannot block one another.
//!
//! Conservation: granted = spent + refunded + free at the sender, granted = arrived + refunded +
//! outstanding at the receiver, and spent = arrived when the ring is empty.
//!
//! A sender that finds no credit says so ([`Outbound::want`]) before it looks for the last time,
//! and the receiver looks whether the sender wants anything after it gave something: between the
//! two steps each has a SeqCst fence, so that at least one of them sees the other. The same argument
//! as for the [`Door`](super::Door), which the one who is to be told may sleep behind.

use super::spsc::{Consumer, Padded, Producer, ring};
use super::sync::{Arc, AtomicBool, AtomicU64, Ordering, fence};

/// What both ends see. Each line is written by one side.
struct Words {
    receiver: Padded<ReceiverWords>,
    sender: Padded<SenderWords>,
}

struct ReceiverWords {
    /// Bytes granted so far.
    granted: AtomicU64,
    /// Values settled so far.
    settled: AtomicU64,
    /// Nothing is taken any more.
    gone: AtomicBool,
}

struct SenderWords {
    /// Bytes that the sender waits for; 0 when it does not wait.
    wanted: AtomicU64,
    /// Bytes of credit given back unspent so far.
    refunded: AtomicU64,
    /// Nothing is sent any more.
    closed: AtomicBool,
}

/// The sending end.
pub struct Outbound<T> {
    producer: Producer<T>,
    words: Arc<Words>,
    spent: u64,
    refunded: u64,
    /// What `granted` was when it was last looked at.
    seen_granted: u64,
    wanted: u64,
}

/// The receiving end.
pub struct Inbound<T> {
    consumer: Consumer<T>,
    words: Arc<Words>,
    arrived: u64,
    granted: u64,
    settled: u64,
    /// What was last stored of the two.
    told: (u64, u64),
}

/// A lane of `slots` slots, rounded up to a power of two, without any credit yet. Its memory is
/// touched by the calling thread, which is to be the receiver's.
pub fn lane<T: Send>(slots: usize) -> (Outbound<T>, Inbound<T>) {
    let words = Arc::new(Words {
        receiver: Padded(ReceiverWords {
            granted: AtomicU64::new(0),
            settled: AtomicU64::new(0),
            gone: AtomicBool::new(false),
        }),
        sender: Padded(SenderWords {
            wanted: AtomicU64::new(0),
            refunded: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        }),
    });
    let (producer, consumer) = ring(slots);
    let outbound = Outbound {
        producer,
        words: Arc::clone(&words),
        spent: 0,
        refunded: 0,
        seen_granted: 0,
        wanted: 0,
    };
    let inbound = Inbound { consumer, words, arrived: 0, granted: 0, settled: 0, told: (0, 0) };
    (outbound, inbound)
}

impl<T: Send> Outbound<T> {
    /// Whether `count` values that cost `bytes` in all can be sent now.
    #[inline]
    pub fn can_send(&mut self, count: usize, bytes: u64) -> bool {
        let used = self.spent + self.refunded + bytes;
        if used > self.seen_granted {
            self.look();
        }
        used <= self.seen_granted && self.producer.has_room(count)
    }

    fn look(&mut self) {
        // Relaxed: a number; nothing that the receiver wrote is read on its account.
        self.seen_granted = self.words.receiver.0.granted.load(Ordering::Relaxed);
    }

    /// Sends `value`, which costs `bytes`; it is seen after [`Outbound::publish`]. Returns its
    /// number, counted from 1.
    ///
    /// # Errors
    /// Hands the value back when there is no slot or not as much credit.
    #[inline]
    pub fn send(&mut self, value: T, bytes: u64) -> Result<u64, T> {
        if !self.can_send(1, bytes) {
            return Err(value);
        }
        self.producer.stage(value)?;
        self.spent += bytes;
        Ok(self.sent())
    }

    /// Lets the receiver see everything that was sent. Whether it must be told.
    #[inline]
    pub fn publish(&mut self) -> bool {
        self.producer.publish()
    }

    /// Says that the sender waits until it can spend `bytes`; 0 says that it does not wait. The
    /// credit must be looked at once more afterwards. Whether the receiver must be told.
    pub fn want(&mut self, bytes: u64) -> bool {
        if self.wanted == bytes {
            return false;
        }
        self.wanted = bytes;
        self.words.sender.0.wanted.store(bytes, Ordering::Relaxed);
        if bytes == 0 {
            // Seen late, it costs one wake-up for nothing.
            return false;
        }
        // Pairs with the fence in `Inbound::publish`.
        fence(Ordering::SeqCst);
        true
    }

    /// Gives back the credit beyond `keep` bytes: others may be waiting for the room. Whether that
    /// was anything, and the receiver must be told.
    pub fn give_back(&mut self, keep: u64) -> bool {
        self.look();
        let free = self.seen_granted - self.spent - self.refunded;
        if free <= keep {
            return false;
        }
        self.refunded += free - keep;
        // Relaxed: a number; nothing that the sender wrote is read on its account.
        self.words.sender.0.refunded.store(self.refunded, Ordering::Relaxed);
        true
    }

    /// Says that nothing more will be sent. The receiver must be told.
    pub fn close(&mut self) {
        // Release: pairs with the acquire of `Inbound::is_finished`, so that what was published
        // before is seen by who sees this.
        self.words.sender.0.closed.store(true, Ordering::Release);
    }

    /// Values sent so far.
    #[inline]
    pub fn sent(&self) -> u64 {
        self.producer.staged() as u64
    }

    /// Values whose slots came back: the receiver does not look at them any more.
    #[inline]
    pub fn returned(&mut self) -> u64 {
        self.producer.released() as u64
    }

    /// Values that are settled.
    #[inline]
    pub fn settled(&self) -> u64 {
        // Acquire: what settled them happened before.
        self.words.receiver.0.settled.load(Ordering::Acquire)
    }

    /// Whether the receiver takes nothing any more: what is not settled never will be, and nothing
    /// that was sent is looked at any more.
    pub fn is_abandoned(&self) -> bool {
        // Acquire: pairs with the release of `Inbound::abandon`, so that who sees it also sees the
        // last that was settled, and may reuse what the values refer to.
        self.words.receiver.0.gone.load(Ordering::Acquire)
    }

    /// Bytes granted so far, and those spent or given back.
    pub fn credit(&mut self) -> (u64, u64) {
        self.look();
        (self.seen_granted, self.spent + self.refunded)
    }
}

impl<T: Send> Inbound<T> {
    /// Takes values, oldest first, for as long as `take` tells what one cost. How many those were.
    /// What they refer to stays valid until [`Inbound::publish`].
    #[inline]
    pub fn take_while(&mut self, mut take: impl FnMut(&T) -> Option<u64>) -> u64 {
        let arrived = &mut self.arrived;
        let taken = self.consumer.take_while(|value| {
            let bytes = take(value);
            *arrived += bytes.unwrap_or_default();
            bytes.is_some()
        });
        taken as u64
    }

    /// Takes the oldest value, which cost `bytes`. What it refers to stays valid until
    /// [`Inbound::publish`].
    #[inline]
    pub fn take(&mut self, bytes: u64) -> Option<T> {
        let value = self.consumer.take()?;
        self.arrived += bytes;
        Some(value)
    }

    /// Whether nothing has arrived that was not taken.
    #[inline]
    pub fn is_empty(&mut self) -> bool {
        self.consumer.is_empty()
    }

    /// Bytes granted that have neither arrived nor been given back: room that must be kept.
    #[inline]
    pub fn outstanding(&self) -> u64 {
        self.granted - self.arrived - self.words.sender.0.refunded.load(Ordering::Relaxed)
    }

    /// Bytes that the sender waits for; 0 when it does not wait.
    #[inline]
    pub fn wanted(&self) -> u64 {
        self.words.sender.0.wanted.load(Ordering::Relaxed)
    }

    /// Grants `bytes` more; the sender sees it after [`Inbound::publish`].
    #[inline]
    pub fn grant(&mut self, bytes: u64) {
        self.granted += bytes;
    }

    /// The first `count` values that ever arrived are settled; the sender sees it after
    /// [`Inbound::publish`].
    #[inline]
    pub fn settle(&mut self, count: u64) {
        debug_assert!(count >= self.settled, "what is settled stays settled");
        self.settled = count;
    }

    /// Gives back the slots of what was taken and tells of grants and settlements. Whether the
    /// sender must be told: it has something to acknowledge, or it waits for credit.
    pub fn publish(&mut self) -> bool {
        let released = self.consumer.release();
        let (granted, settled) = (self.granted != self.told.0, self.settled != self.told.1);
        if !(released || granted || settled) {
            return false;
        }
        self.told = (self.granted, self.settled);
        let words = &self.words.receiver.0;
        words.granted.store(self.granted, Ordering::Relaxed);
        // Release: pairs with the acquire of `Outbound::settled`.
        words.settled.store(self.settled, Ordering::Release);
        // Pairs with the fence in `Outbound::want`.
        fence(Ordering::SeqCst);
        settled || self.wanted() > 0
    }

    /// Whether the sender has closed the lane and everything that it sent was taken.
    pub fn is_finished(&mut self) -> bool {
        // Acquire, and before looking at the ring: what was published before the close is seen.
        self.words.sender.0.closed.load(Ordering::Acquire) && self.consumer.is_empty()
    }

    /// Says that nothing more will be taken or settled, and that what was taken is not looked at any
    /// more. The sender must be told.
    pub fn abandon(&mut self) {
        // Release: pairs with the acquire of `Outbound::is_abandoned`.
        self.words.receiver.0.gone.store(true, Ordering::Release);
    }
}

#[cfg(test)]
#[cfg(not(feature = "loom"))]
mod tests {
    use super::*;

    #[test]
    fn credit_is_granted_spent_and_never_exceeded() {
        let (mut outbound, mut inbound) = lane(4);
        assert_eq!(outbound.send('a', 1), Err('a'), "nothing was granted");
        inbound.grant(10);
        assert_eq!(outbound.send('a', 1), Err('a'), "nothing was published");
        assert!(!inbound.publish(), "nobody waits");
        assert_eq!(outbound.send('a', 6), Ok(1));
        assert_eq!(outbound.send('b', 6), Err('b'));
        assert!(outbound.want(6), "the receiver must be told");
        assert!(!outbound.want(6), "it was told");
        assert!(outbound.publish());
        assert_eq!(inbound.take(6), Some('a'));
        assert_eq!((inbound.outstanding(), inbound.wanted()), (4, 6));
        inbound.grant(2);
        assert!(inbound.publish(), "the sender waits");
        assert_eq!(outbound.send('b', 6), Ok(2));
        assert!(!outbound.want(0));
        assert_eq!(outbound.credit(), (12, 12));
        assert_eq!((outbound.returned(), outbound.settled()), (1, 0));
        inbound.settle(1);
        assert!(inbound.publish(), "there is something to acknowledge");
        assert_eq!(outbound.settled(), 1);
    }

    #[test]
    fn what_is_not_needed_goes_back() {
        let (mut outbound, mut inbound) = lane(4);
        inbound.grant(100);
        inbound.publish();
        assert_eq!(outbound.send('a', 30), Ok(1));
        assert!(outbound.give_back(50));
        assert!(!outbound.give_back(50), "there is no more than that");
        assert_eq!(inbound.outstanding(), 80, "the record has not arrived");
        outbound.publish();
        inbound.take(30);
        assert_eq!(inbound.outstanding(), 50);
        assert!(outbound.can_send(1, 50) && !outbound.can_send(1, 51));
        assert_eq!(outbound.credit(), (100, 50));
    }

    #[test]
    fn slots_limit_as_bytes_do() {
        let (mut outbound, mut inbound) = lane(2);
        inbound.grant(100);
        inbound.publish();
        assert!(outbound.can_send(2, 2));
        assert!(!outbound.can_send(3, 3), "there are two slots");
        assert!(outbound.send(1, 1).is_ok() && outbound.send(2, 1).is_ok());
        assert_eq!(outbound.send(3, 1), Err(3));
        outbound.publish();
        assert_eq!(inbound.take(1), Some(1));
        assert_eq!(outbound.send(3, 1), Err(3), "the slot is not released");
        inbound.publish();
        assert_eq!(outbound.send(3, 1), Ok(3));
    }

    #[test]
    fn a_closed_lane_is_finished_when_it_is_empty() {
        let (mut outbound, mut inbound) = lane(2);
        inbound.grant(1);
        inbound.publish();
        assert!(outbound.send((), 1).is_ok());
        outbound.publish();
        outbound.close();
        assert!(!inbound.is_finished());
        inbound.take(1);
        assert!(inbound.is_finished());
        assert!(!outbound.is_abandoned());
        inbound.abandon();
        assert!(outbound.is_abandoned());
    }
}
