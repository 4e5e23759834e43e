//! One publisher: what it has in flight, what it may send, when each message was meant to go.
//!
//! In: messages that are due, acknowledgements, sends that ended. Out: PUBLISH packets appended to
//! a send buffer, and for each acknowledgement the time that its latency counts from. No I/O; times
//! are nanoseconds of the generator's clock. The invariant: `origins[id - 1]` is not 0 exactly for
//! the packet identifiers in flight, `in_flight` counts them.

use super::schedule::Schedule;
use super::wire::{PublishTemplate, Reassembly};

/// Where a message's latency counts from.
#[derive(Debug, Clone, Copy)]
pub enum Pace {
    /// Closed loop: as many as the window has room for, counted from the send.
    Window,
    /// Open loop: message `index + n * connections` of the schedule, counted from its intended time.
    Schedule {
        /// The schedule of all connections together.
        schedule: Schedule,
        /// How many share it, in turn.
        connections: u64,
    },
}

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
    template: PublishTemplate,
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
    pub fn new(index: u64, pace: Pace, template: PublishTemplate, in_flight_max: u16) -> Self {
        Self {
            index,
            pace,
            template,
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

    /// The broker takes no more than this at once (MQTT 5's Receive Maximum).
    pub fn limit_in_flight(&mut self, receive_max: u16) {
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
        while out.len() + self.template.bytes.len() <= bytes_max || count == 0 {
            let position = usize::from(self.next_packet_id) - 1;
            if self.origins[position] != 0 {
                break;
            }
            let origin_ns = match self.pace {
                Pace::Window => now_ns,
                Pace::Schedule { .. } if self.sent == self.due => break,
                Pace::Schedule { schedule, connections } => {
                    let intended = schedule.intended_ns(self.index + self.sent * connections);
                    lag(intended, now_ns.saturating_sub(intended.max(self.ready_since_ns)));
                    intended
                }
            };
            // 0 means free; a nanosecond does not matter.
            self.origins[position] = origin_ns.max(1);
            self.template.append(out, self.next_packet_id);
            let last = usize::from(self.next_packet_id) == self.origins.len();
            self.next_packet_id = if last { 1 } else { self.next_packet_id + 1 };
            self.sent += 1;
            count += 1;
        }
        self.in_flight += count;
        count
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

    /// Messages without an acknowledgement.
    pub fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// The origins of every message that is in flight, or due and not even sent.
    pub fn unacknowledged(&self) -> impl Iterator<Item = u64> {
        let in_flight = self.origins.iter().copied().filter(|&o| o != 0);
        let unsent = (self.sent..self.due.max(self.sent)).filter_map(|number| match self.pace {
            Pace::Window => None,
            Pace::Schedule { schedule, connections } => {
                Some(schedule.intended_ns(self.index + number * connections))
            }
        });
        in_flight.chain(unsent)
    }
}

#[cfg(test)]
mod tests {
    use super::super::wire::Version;
    use super::*;

    fn connection(pace: Pace, in_flight_max: u16) -> Connection {
        let template = PublishTemplate::new(Version::V311, "t", b"payload");
        Connection::new(1, pace, template, in_flight_max)
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
        let size = it.template.bytes.len();
        let mut out = Vec::new();
        assert_eq!(it.fill(&mut out, 3 * size + 1, 0, |_, _| ()), 3);
        assert_eq!(out.len(), 3 * size);
        assert_eq!(it.fill(&mut Vec::new(), 1, 0, |_, _| ()), 1);
    }

    #[test]
    fn latency_counts_from_the_intended_time_and_lag_from_when_it_could_be_sent() {
        let schedule = Schedule::new(1_000);
        let mut it = connection(Pace::Schedule { schedule, connections: 10 }, 2);
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
}
