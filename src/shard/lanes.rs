//! The ways to and from other shards, as one shard sees them.
//!
//! Credits begin at the log: what is granted to others is room kept in the buffer that gathers the
//! next commit (see `arriving`), and what this shard may send was granted by others likewise. Records
//! are sent with the credit that was granted; a connection without credit waits in the queue of that
//! lane alone.
//!
//! The invariants: a message for several shards takes all its credits or none, and asks the lanes in
//! the order of the shards; the message at the head of a lane's queue is not overtaken by those of
//! other connections; a want stands only while its message waits for that lane, and what was granted
//! for it and is not needed any more goes back.

use std::collections::VecDeque;
use std::rc::Rc;

use super::ConnId;
use super::arriving::Arriving;
use super::crossing::{Crossing, Kept, OWNED_BYTES_MAX, Pins};
use super::message::Message;
use crate::log::Log;
use crate::observe::ShardMetrics;
use crate::record::{PartitionId, ShardId, StreamId};
use crate::ring::{Inbound, Outbound};

/// The two lanes between this shard and another one.
pub struct Way {
    /// The other shard.
    pub peer: ShardId,
    /// To it.
    pub to: Outbound<Crossing>,
    /// From it.
    pub from: Inbound<Crossing>,
}

struct Sending {
    lane: Outbound<Crossing>,
    /// What the slots keep in place that have not come back, oldest first.
    kept: VecDeque<Kept>,
    returned: u64,
    settled: u64,
    /// Buffers that records on this way keep; see [`Kept::row`].
    buffers: usize,
    /// Bytes of detached buffers and of topic copies among them.
    owned_bytes: usize,
    /// Connections that wait, in order.
    held: VecDeque<ConnId>,
    /// For whom the lane's want stands.
    wanter: Option<Wanter>,
}

/// A connection that waits, and for what.
#[derive(Debug, Clone, Copy)]
struct Wanter {
    conn: ConnId,
    need: Need,
}

/// A connection that is being let go on.
#[derive(Debug, Clone, Copy)]
struct Resumed {
    conn: ConnId,
    to: ShardId,
    /// Records sent on that lane before.
    sent: u64,
}

/// What a message needs of one lane.
#[derive(Debug, Clone, Copy, Default)]
struct Need {
    slots: usize,
    bytes: u64,
    /// Bytes of memory that would be kept beside receive buffers.
    owned: usize,
}

/// All lanes of a shard, by the other shard's number.
pub struct Lanes {
    sending: Vec<Option<Sending>>,
    pub arriving: Arriving,
    pub pins: Pins,
    /// Credit that every lane to this shard has at least.
    standing: u64,
    /// Receive buffers that the records of one lane may keep.
    buffers_max: usize,
    /// Other memory that they may keep. One message always may.
    owned_bytes_max: usize,
    /// What the message needs that is looked at.
    needs: Vec<Need>,
    /// There is something in `needs`.
    counted: bool,
    /// Shards to which something was sent for the message that was looked at last, with the number
    /// of its last record there.
    sent: Vec<(ShardId, u64)>,
    /// The connection that is being let go on: the queue of its lane does not stop it.
    resumed: Option<Resumed>,
    /// What the last check missed.
    missing: Option<Wanter>,
    /// Shards that must be told.
    tell: Vec<ShardId>,
}

impl Sending {
    /// Whether what the first in the queue waits for is there.
    fn may_go_on(&mut self, buffers_max: usize, owned_bytes_max: usize) -> bool {
        let unknown = Need { slots: 1, bytes: 1, owned: 0 };
        let need = self.wanter.map_or(unknown, |wanter| wanter.need);
        !self.held.is_empty() && self.has_room(need, 1, buffers_max, owned_bytes_max)
    }

    /// Whether there are the slots, the credit and the memory that a message needs.
    fn has_room(
        &mut self,
        need: Need,
        buffers: usize,
        buffers_max: usize,
        owned_bytes_max: usize,
    ) -> bool {
        self.buffers + buffers <= buffers_max
            && (self.owned_bytes == 0 || self.owned_bytes + need.owned <= owned_bytes_max)
            && self.lane.can_send(need.slots, need.bytes)
    }

    /// Whether there is credit that goes back: more than `standing`, and nobody waits to spend it.
    fn has_too_much(&mut self, standing: u64) -> bool {
        let (granted, used) = self.lane.credit();
        self.wanter.is_none() && granted - used > standing
    }

    /// Takes the oldest slot's memory back.
    fn take_back(&mut self, kept: Kept, pins: &mut Pins) {
        if let Some(bytes) = kept.row {
            // The next one of the row keeps the buffer from now on.
            match self.kept.front_mut() {
                Some(next) if next.packet == kept.packet => next.row = kept.row,
                _ => {
                    self.buffers -= 1;
                    self.owned_bytes -= bytes;
                }
            }
        }
        pins.unpin(kept.packet);
        for (copy, bytes) in kept.topic.into_iter().chain(kept.made) {
            self.owned_bytes -= bytes;
            pins.unpin(copy);
        }
    }
}

impl Lanes {
    pub fn new(ways: Vec<Way>, options: &super::Options) -> Self {
        let shards = options.shards as usize;
        let mut sending: Vec<_> = (0..shards).map(|_| None).collect();
        let mut from = Vec::new();
        let others = ways.len().max(1);
        for way in ways {
            sending[way.peer.index()] = Some(Sending {
                lane: way.to,
                kept: VecDeque::with_capacity(options.ring_slots),
                returned: 0,
                settled: 0,
                buffers: 0,
                owned_bytes: 0,
                held: VecDeque::new(),
                wanter: None,
            });
            from.push((way.peer, way.from));
        }
        Self {
            sending,
            arriving: Arriving::new(from, shards, options.ring_credit_bytes),
            pins: Pins::new(),
            standing: options.ring_credit_bytes,
            buffers_max: (options.receive_buffers as usize / 2 / others).max(1),
            owned_bytes_max: OWNED_BYTES_MAX / others,
            needs: vec![Need::default(); shards],
            counted: false,
            sent: Vec::new(),
            resumed: None,
            missing: None,
            tell: Vec::new(),
        }
    }

    /// Begins to count what a message needs.
    pub fn begin(&mut self) {
        if std::mem::take(&mut self.counted) {
            self.needs.fill(Need::default());
            self.sent.clear();
        }
    }

    /// The message needs a slot to `to`, `bytes` there, and a copy of `made` bytes here.
    pub fn need(&mut self, to: ShardId, bytes: usize, made: usize) {
        self.counted = true;
        let need = &mut self.needs[to.index()];
        need.slots += 1;
        need.bytes += bytes as u64;
        need.owned += made;
    }

    /// Whether everything that the message needs is there; else for which shard it must wait.
    /// `topic_copied` bytes of its topic would be copied.
    pub fn check(&mut self, conn: ConnId, topic_copied: usize) -> Result<(), ShardId> {
        let (pin, assembled) = (self.pins.current(), self.pins.assembly_bytes());
        for (index, need) in self.needs.iter_mut().enumerate() {
            let Some(sending) = self.sending[index].as_mut().filter(|_| need.slots > 0) else {
                continue;
            };
            let to = ShardId(index as u32);
            let resumed = self.resumed.is_some_and(|r| r.conn == conn && r.to == to);
            let overtakes = !resumed && !sending.held.is_empty();
            let another = pin.is_none() || sending.kept.back().map(|kept| kept.packet) != pin;
            need.owned += need.slots * topic_copied + if another { assembled } else { 0 };
            let (buffers, owned) = (self.buffers_max, self.owned_bytes_max);
            if overtakes || !sending.has_room(*need, usize::from(another), buffers, owned) {
                self.missing = Some(Wanter { conn, need: *need });
                return Err(to);
            }
        }
        Ok(())
    }

    /// Sends `message` of `conn`, for which [`Lanes::check`] found everything.
    ///
    /// # Panics
    /// When something was not there after all: acknowledging it would lose it.
    pub fn send(
        &mut self,
        conn: ConnId,
        message: &Message<'_>,
        (stream, partition, to): (StreamId, PartitionId, ShardId),
        client_id: &Rc<str>,
        topic_copied: usize,
        bytes: usize,
    ) {
        let sending = self.sending[to.index()].as_mut();
        let (Some(sending), Some(packet)) = (sending, self.pins.pin()) else {
            panic!("a record for shard {} has no way there", to.0);
        };
        let (mut topic, mut made) = (None, None);
        let Some(mut crossing) = Crossing::new(message, stream, partition) else {
            panic!("a record does not fit a slot: stream {}, partition {}", stream.0, partition.0);
        };
        if topic_copied > 0 {
            let (copy, pin) = self.pins.keep_copy(message.topic);
            crossing.take_topic_from(copy);
            sending.owned_bytes += topic_copied;
            topic = Some((pin, topic_copied));
        }
        if message.is_made {
            let (copy, pin) = self.pins.keep_made([message.payload, message.extras.bytes()]);
            crossing.take_payload_from(copy);
            sending.owned_bytes += message.made_bytes();
            made = Some((pin, message.made_bytes()));
        }
        let Ok(number) = sending.lane.send(crossing, bytes as u64) else {
            panic!("credit for shard {} was there and is not", to.0);
        };
        let goes_on = sending.kept.back().is_some_and(|kept| kept.packet == packet);
        let row = (!goes_on).then(|| self.pins.assembly_bytes());
        if let Some(bytes) = row {
            sending.buffers += 1;
            sending.owned_bytes += bytes;
        }
        sending.kept.push_back(Kept { packet, row, topic, made, client_id: Rc::clone(client_id) });
        if sending.wanter.is_some_and(|wanter| wanter.conn == conn) {
            sending.wanter = None;
        }
        match self.sent.iter_mut().find(|(shard, _)| *shard == to) {
            Some((_, last)) => *last = number,
            None => self.sent.push((to, number)),
        }
    }

    /// Where the message went that was looked at last.
    pub fn sent(&self) -> &[(ShardId, u64)] {
        &self.sent
    }

    /// Whether the record with this number, sent to `to`, is settled.
    pub fn is_settled(&self, to: ShardId, number: u64) -> bool {
        self.sending[to.index()].as_ref().is_some_and(|sending| sending.settled >= number)
    }

    /// Queues a connection whose message found no credit to `to`; with it at the head of the queue,
    /// the lane waits for what the message needs. Who was let go on and sent something stands in line
    /// again.
    pub fn hold(&mut self, conn: ConnId, to: ShardId) {
        let Some(sending) = self.sending[to.index()].as_mut() else { return };
        let missing = self.missing.take().filter(|missing| missing.conn == conn);
        let sent = sending.lane.sent();
        if self.resumed.is_some_and(|r| r.conn == conn && r.to == to && r.sent == sent) {
            sending.held.push_front(conn);
        } else {
            sending.held.push_back(conn);
        }
        if let Some(missing) = missing.filter(|_| sending.held.front() == Some(&conn)) {
            sending.wanter = Some(missing);
            if sending.lane.want(missing.need.bytes.max(1)) {
                self.tell.push(to);
            }
        }
    }

    /// Nothing is wanted for a connection any more.
    pub fn withdraw(&mut self, conn: ConnId) {
        for sending in self.sending.iter_mut().flatten() {
            if sending.wanter.is_some_and(|wanter| wanter.conn == conn) {
                sending.wanter = None;
            }
        }
    }

    /// A connection that waited for `to` is gone.
    pub fn forget(&mut self, conn: ConnId, to: ShardId) {
        self.withdraw(conn);
        if let Some(sending) = self.sending[to.index()].as_mut() {
            sending.held.retain(|held| *held != conn);
        }
    }

    /// The next connection that may go on, as what it waited for is there; until
    /// [`Lanes::end_resuming`] the queue does not stop it.
    pub fn next_to_resume(&mut self) -> Option<(ConnId, ShardId)> {
        let (buffers_max, owned_max) = (self.buffers_max, self.owned_bytes_max);
        for (index, sending) in self.sending.iter_mut().enumerate() {
            let Some(sending) = sending else { continue };
            if sending.may_go_on(buffers_max, owned_max)
                && let Some(conn) = sending.held.pop_front()
            {
                let to = ShardId(index as u32);
                self.resumed = Some(Resumed { conn, to, sent: sending.lane.sent() });
                return Some((conn, to));
            }
        }
        None
    }

    /// The connection has been let go on.
    pub fn end_resuming(&mut self) {
        self.resumed = None;
    }

    /// Takes note of what came back: slots, and settlements. Whether anything was settled.
    pub fn take_returns(&mut self) -> bool {
        let mut progress = false;
        for (index, sending) in self.sending.iter_mut().enumerate() {
            let Some(sending) = sending else { continue };
            let settled = sending.lane.settled();
            progress |= settled != sending.settled;
            sending.settled = settled;
            if sending.wanter.is_none() {
                // Who is next says what it needs when it has been looked at.
                let told = sending.lane.want(u64::from(!sending.held.is_empty()));
                let kept = mutated!(CreditKept);
                if (!kept && sending.lane.give_back(self.standing)) || told {
                    self.tell.push(ShardId(index as u32));
                }
            }
            if sending.kept.is_empty() {
                continue;
            }
            let returned = sending.lane.returned();
            for _ in sending.returned..returned {
                let Some(kept) = sending.kept.pop_front() else { break };
                sending.take_back(kept, &mut self.pins);
            }
            sending.returned = returned;
        }
        progress
    }

    /// Lets the others see what was sent, granted, given back and settled; adds those who must be
    /// told to `into`.
    pub fn publish(&mut self, into: &mut Vec<ShardId>) {
        into.append(&mut self.tell);
        for (index, sending) in self.sending.iter_mut().enumerate() {
            if sending.as_mut().is_some_and(|sending| sending.lane.publish()) {
                into.push(ShardId(index as u32));
            }
        }
        self.arriving.publish(into);
    }

    /// Whether another shard has brought something that can be acted on; to be asked by a shard that
    /// has said that it sleeps.
    pub fn has_news(&mut self, log: &Log) -> bool {
        self.arriving.has_news(log)
            || self.sending.iter_mut().flatten().any(|sending| {
                sending.lane.settled() != sending.settled
                    || sending.may_go_on(self.buffers_max, self.owned_bytes_max)
                    || sending.has_too_much(self.standing)
                    || (sending.wanter.is_some() && sending.lane.returned() != sending.returned)
            })
    }

    /// Nothing more will be sent. Everybody must be told.
    pub fn close(&mut self) {
        for (index, sending) in self.sending.iter_mut().enumerate() {
            let Some(sending) = sending else { continue };
            sending.lane.publish();
            sending.lane.close();
            self.tell.push(ShardId(index as u32));
        }
    }

    /// Nothing more will be taken. Everybody must be told.
    pub fn abandon(&mut self) {
        self.arriving.abandon(&mut self.tell);
    }

    /// Whether all that was sent is settled, and taken note of, or never will be.
    pub fn is_settled_everywhere(&self) -> bool {
        self.sending.iter().flatten().all(|sending| {
            // In this order: what was settled before the other gave up counts.
            let abandoned = sending.lane.is_abandoned();
            sending.settled == sending.lane.settled()
                && (abandoned || sending.settled == sending.lane.sent())
        })
    }

    /// Whether no other shard looks at what was sent any more.
    pub fn is_let_go(&self) -> bool {
        let mut sending = self.sending.iter().flatten();
        sending.all(|sending| sending.kept.is_empty() || sending.lane.is_abandoned())
    }

    /// Publishes the state of every lane.
    pub fn publish_metrics(&mut self, metrics: &ShardMetrics) {
        metrics.ring.pinned_buffers.set(self.pins.receive_buffers() as u64);
        for (sending, way) in self.sending.iter_mut().zip(&metrics.ring.ways) {
            let Some(sending) = sending else { continue };
            let (granted, spent) = sending.lane.credit();
            way.records.publish(sending.lane.sent());
            way.granted_bytes.publish(granted);
            way.spent_bytes.publish(spent);
            way.held.set(sending.held.len() as u64);
            way.settled.publish(sending.settled);
        }
    }
}
