//! One publisher: what it has in flight, what it may send, when each message was meant to go.
//!
//! In: messages that are due, acknowledgements, sends that ended. Out: PUBLISH packets appended to
//! a send buffer, and for each acknowledgement the time that its latency counts from. No I/O; times
//! are nanoseconds of the generator's clock. The invariant: `origins[id - 1]` is not 0 exactly for
//! the packet identifiers in flight, `in_flight` counts them.

use std::collections::VecDeque;
use std::sync::Arc;

use super::consume;
use super::payload::Payloads;
use super::schedule::Schedule;
use super::wire::{PublishHead, Reassembly, packet};

/// Where a message's latency counts from.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// Closed loop: as many as the window has room for, counted from the send.
    Window,
    /// Open loop: its own messages of the schedule, each counted from its intended time.
    Schedule(Schedule),
}

/// What is sent, and what answers it.
#[derive(Debug, Clone)]
pub enum Content {
    /// QoS 1: a PUBACK answers each.
    Acknowledged(PublishHead, Arc<Payloads>),
    /// QoS 0: a PINGREQ follows what is sent at once, and its answer says that the broker has read
    /// all of it. Without that, what is measured were the kernel's buffers.
    Unacknowledged(PublishHead, Arc<Payloads>),
    /// Nothing but PINGREQ.
    KeepAlive,
}

impl Content {
    /// Bytes of one message on the wire.
    pub fn message_bytes(&self) -> usize {
        match self {
            Self::Acknowledged(head, payloads) | Self::Unacknowledged(head, payloads) => {
                head.size() + payloads.bytes_each()
            }
            Self::KeepAlive => 0,
        }
    }

    fn has_pubacks(&self) -> bool {
        matches!(self, Self::Acknowledged(..))
    }
}

/// A PINGREQ.
pub const PING: [u8; 2] = [packet::PINGREQ, 0];

/// What an acknowledgement ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Acknowledged {
    /// When the message was sent or meant to be sent.
    pub origin_ns: u64,
}

/// One client of the broker.
#[derive(Debug)]
pub struct Connection {
    index: u64,
    pace: Pace,
    content: Content,
    next_payload: usize,
    /// The tag that payloads carry, with their origin, for a consumer.
    stamp: Option<u64>,
    /// Without PUBACKs: how many messages each PINGREQ that is under way stands for.
    asked: VecDeque<u32>,
    /// Without PUBACKs: the first packet identifier that they stand for.
    oldest_packet_id: u16,
    /// What arrives, cut into packets.
    pub reassembly: Reassembly,
    /// By packet identifier - 1: what its latency counts from; 0: not in flight.
    origins: Box<[u64]>,
    next_packet_id: u16,
    in_flight: u32,
    /// Open loop: messages of this connection whose time has come.
    due: u64,
    /// Messages handed to the socket.
    sent: u64,
    /// Since when the connection has been able to send.
    ready_since_ns: u64,
    /// A send is with the kernel.
    pub sending: bool,
    /// The broker accepted it.
    pub accepted: bool,
    /// It broke; nothing more is sent.
    pub lost: bool,
    /// It stands in the generator's list of connections to look at.
    pub listed: bool,
}

impl Connection {
    /// A connection that keeps at most `in_flight_max` (1..=65535) messages in flight.
    pub fn new(index: u64, pace: Pace, content: Content, in_flight_max: u16) -> Self {
        let asked = if content.has_pubacks() { 0 } else { usize::from(in_flight_max.max(1)) };
        Self {
            index,
            pace,
            content,
            // So that connections do not send the same at once.
            next_payload: index as usize * 7919,
            stamp: None,
            asked: VecDeque::with_capacity(asked),
            oldest_packet_id: 1,
            reassembly: Reassembly::with_capacity(256),
            origins: vec![0; usize::from(in_flight_max.max(1))].into(),
            next_packet_id: 1,
            in_flight: 0,
            due: 0,
            sent: 0,
            ready_since_ns: 0,
            sending: false,
            accepted: false,
            lost: false,
            listed: false,
        }
    }

    /// Payloads, which have room for it, carry this tag and their origin.
    pub fn stamped(mut self, tag: Option<u64>) -> Self {
        self.stamp = tag;
        self
    }

    /// The broker takes no more than this at once (MQTT 5's Receive Maximum). QoS 0 has no limit.
    pub fn limit_in_flight(&mut self, receive_max: u16) {
        if !self.content.has_pubacks() {
            return;
        }
        let limit = self.origins.len().min(usize::from(receive_max.max(1)));
        self.origins = vec![0; limit].into();
    }

    /// How many it may have in flight.
    pub fn in_flight_max(&self) -> usize {
        self.origins.len()
    }

    /// Open loop: the time of its next message has come.
    #[inline]
    pub fn message_due(&mut self) {
        self.due += 1;
    }

    /// Appends what may be sent now, until `out` holds `bytes_max`. Tells `lag` how long each
    /// message waited for the generator. Returns how many went.
    #[inline]
    pub fn fill(
        &mut self,
        out: &mut Vec<u8>,
        bytes_max: usize,
        now_ns: u64,
        mut lag: impl FnMut(u64, u64),
    ) -> u32 {
        let mut count = 0;
        let message_bytes = self.content.message_bytes();
        while out.len() + message_bytes <= bytes_max || count == 0 {
            let position = usize::from(self.next_packet_id) - 1;
            if self.origins[position] != 0 {
                break;
            }
            let origin_ns = match self.pace {
                Pace::Window => now_ns,
                Pace::Schedule(_) if self.sent == self.due => break,
                Pace::Schedule(schedule) => {
                    let number = schedule.number_of(self.index, self.sent);
                    let intended = schedule.intended_ns(number);
                    lag(intended, now_ns.saturating_sub(intended.max(self.ready_since_ns)));
                    intended
                }
            };
            // 0 means free; a nanosecond does not matter.
            self.origins[position] = origin_ns.max(1);
            self.append(out, origin_ns);
            self.next_packet_id = self.after(self.next_packet_id);
            self.sent += 1;
            count += 1;
        }
        if count > 0 && !self.content.has_pubacks() {
            out.extend_from_slice(&PING);
            self.asked.push_back(count);
        }
        self.in_flight += count;
        count
    }

    #[inline]
    fn append(&mut self, out: &mut Vec<u8>, origin_ns: u64) {
        if let Content::Acknowledged(head, payloads) | Content::Unacknowledged(head, payloads) =
            &self.content
        {
            head.append(out, self.next_packet_id);
            let payload_at = out.len();
            out.extend_from_slice(payloads.at(self.next_payload));
            if let Some(tag) = self.stamp {
                consume::stamp(&mut out[payload_at..], tag, origin_ns);
            }
            self.next_payload = self.next_payload.wrapping_add(1);
        }
    }

    #[inline]
    fn after(&self, packet_id: u16) -> u16 {
        if usize::from(packet_id) == self.origins.len() { 1 } else { packet_id + 1 }
    }

    /// Whether messages wait for an acknowledgement or for the end of a send.
    #[inline]
    pub fn is_held_back(&self) -> bool {
        self.sending || self.origins[usize::from(self.next_packet_id) - 1] != 0
    }

    /// A send has ended: the connection can send again.
    #[inline]
    pub fn send_ended(&mut self, now_ns: u64) {
        self.sending = false;
        self.ready_since_ns = now_ns;
    }

    /// A PUBACK came. `None`: for nothing that is in flight.
    #[inline]
    pub fn acknowledge(&mut self, packet_id: u16, now_ns: u64) -> Option<Acknowledged> {
        let position = usize::from(packet_id).checked_sub(1)?;
        let origin_ns = std::mem::take(self.origins.get_mut(position)?);
        if origin_ns == 0 {
            return None;
        }
        if packet_id == self.next_packet_id {
            self.ready_since_ns = now_ns;
        }
        self.in_flight -= 1;
        Some(Acknowledged { origin_ns })
    }

    /// A PINGRESP came: the broker has read what went before its PINGREQ. Calls `each` with each
    /// message's origin. With PUBACKs there is nothing to tell.
    #[inline]
    pub fn read_by_broker(&mut self, now_ns: u64, mut each: impl FnMut(u64)) {
        for _ in 0..self.asked.pop_front().unwrap_or(0) {
            let packet_id = self.oldest_packet_id;
            self.oldest_packet_id = self.after(packet_id);
            if let Some(done) = self.acknowledge(packet_id, now_ns) {
                each(done.origin_ns);
            }
        }
    }

    /// Messages without an acknowledgement.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// The origins of every message that is in flight, or due and not even sent.
    pub fn unacknowledged(&self) -> impl Iterator<Item = u64> {
        let in_flight = self.origins.iter().copied().filter(|&o| o != 0);
        let unsent = (self.sent..self.due.max(self.sent)).filter_map(|number| match self.pace {
            Pace::Window => None,
            Pace::Schedule(schedule) => {
                Some(schedule.intended_ns(schedule.number_of(self.index, number)))
            }
        });
        in_flight.chain(unsent)
    }
}

#[cfg(test)]
mod tests {
    use super::super::payload::Kind;
    use super::super::wire::Version;
    use super::*;

    fn connection(pace: Pace, in_flight_max: u16) -> Connection {
        let head = PublishHead::new(Version::V311, 1, "t", 7);
        let content = Content::Acknowledged(head, Arc::new(Payloads::new(Kind::Random, 7)));
        Connection::new(1, pace, content, in_flight_max)
    }

    fn fill(connection: &mut Connection, now_ns: u64) -> u32 {
        connection.fill(&mut Vec::new(), 1 << 20, now_ns, |_, _| ())
    }

    #[test]
    fn a_window_is_kept_full_and_identifiers_are_reused_when_free() {
        let mut it = connection(Pace::Window, 3);
        assert_eq!(fill(&mut it, 10), 3);
        assert_eq!(fill(&mut it, 11), 0);
        assert_eq!(it.acknowledge(2, 20), Some(Acknowledged { origin_ns: 10 }));
        assert_eq!(it.acknowledge(2, 20), None, "acknowledged twice");
        assert_eq!(it.acknowledge(0, 20), None);
        assert_eq!(it.acknowledge(4, 20), None);
        assert_eq!(fill(&mut it, 21), 0, "identifier 1 is next and in flight");
        assert_eq!(it.acknowledge(1, 22), Some(Acknowledged { origin_ns: 10 }));
        assert_eq!(fill(&mut it, 23), 2);
        assert_eq!(it.in_flight(), 3);
        assert_eq!(it.acknowledge(1, 30), Some(Acknowledged { origin_ns: 23 }));
    }

    #[test]
    fn a_send_buffer_has_its_limit_but_takes_one_message_at_least() {
        let mut it = connection(Pace::Window, 100);
        let size = it.content.message_bytes();
        let mut out = Vec::new();
        assert_eq!(it.fill(&mut out, 3 * size + 1, 0, |_, _| ()), 3);
        assert_eq!(out.len(), 3 * size);
        assert_eq!(it.fill(&mut Vec::new(), 1, 0, |_, _| ()), 1);
    }

    #[test]
    fn latency_counts_from_the_intended_time_and_lag_from_when_it_could_be_sent() {
        let mut it = connection(Pace::Schedule(Schedule::even(1_000, 10)), 2);
        let mut lags = Vec::new();
        assert_eq!(fill(&mut it, 5_000_000), 0, "nothing is due");
        // Messages 1, 11 and 21 of the schedule: meant for 1, 11 and 21 ms.
        for _ in 0..3 {
            it.message_due();
        }
        let count = it.fill(&mut Vec::new(), 1 << 20, 22_000_000, |i, l| lags.push((i, l)));
        assert_eq!(count, 2, "the third is held back by the limit");
        assert_eq!(lags, [(1_000_000, 21_000_000), (11_000_000, 11_000_000)]);
        assert!(it.is_held_back());
        let waiting: Vec<_> = it.unacknowledged().collect();
        assert_eq!(waiting, [1_000_000, 11_000_000, 21_000_000]);
        assert_eq!(it.acknowledge(1, 30_000_000).unwrap().origin_ns, 1_000_000);
        lags.clear();
        let count = it.fill(&mut Vec::new(), 1 << 20, 30_000_500, |i, l| lags.push((i, l)));
        assert_eq!(count, 1, "held back, never skipped");
        assert_eq!(lags, [(21_000_000, 500)], "the broker's delay is not the generator's lag");
        assert_eq!(it.acknowledge(2, 31_000_000).unwrap().origin_ns, 11_000_000);
        assert_eq!(it.acknowledge(1, 32_000_000).unwrap().origin_ns, 21_000_000);
        assert_eq!(it.unacknowledged().count(), 0);
    }

    #[test]
    fn without_pubacks_an_answered_ping_ends_what_was_sent_before_it() {
        let head = PublishHead::new(Version::V311, 0, "t", 7);
        let content = Content::Unacknowledged(head, Arc::new(Payloads::new(Kind::Zeros, 7)));
        let mut it = Connection::new(0, Pace::Window, content, 3);
        it.limit_in_flight(1);
        let (mut out, message_bytes) = (Vec::new(), it.content.message_bytes());
        assert_eq!(it.fill(&mut out, 2 * message_bytes, 10, |_, _| ()), 2);
        assert_eq!(out.len(), 2 * message_bytes + PING.len());
        assert_eq!(out[2 * message_bytes..], PING);
        assert_eq!(fill(&mut it, 20), 1);
        assert!(it.is_held_back());
        let mut ended = Vec::new();
        it.read_by_broker(30, |origin_ns| ended.push(origin_ns));
        assert_eq!((ended.as_slice(), it.in_flight()), ([10, 10].as_slice(), 1));
        assert_eq!(fill(&mut it, 40), 2, "identifiers 1 and 2 are free again");
        it.read_by_broker(50, |origin_ns| ended.push(origin_ns));
        it.read_by_broker(60, |origin_ns| ended.push(origin_ns));
        it.read_by_broker(70, |origin_ns| ended.push(origin_ns));
        assert_eq!((ended.as_slice(), it.in_flight()), ([10, 10, 20, 40, 40].as_slice(), 0));
    }

    #[test]
    fn keeping_alive_is_one_ping_a_time() {
        let pace = Pace::Schedule(Schedule::even(1_000, 1));
        let mut it = Connection::new(0, pace, Content::KeepAlive, 1);
        it.message_due();
        let mut out = Vec::new();
        assert_eq!(it.fill(&mut out, 100, 10, |_, _| ()), 1);
        assert_eq!(out, PING);
    }
}
