//! A message into the log: which records it becomes, whether there is room for all of them, and then
//! each into its partition, here or on its way to the shard that owns it.
//!
//! Comes in: a message of a connection, or what other shards have sent. Goes out: a ticket. The
//! invariant: a message is taken whole or not at all, with everything that rules make of it.

use std::rc::Rc;

use super::connection::WaitFor;
use super::message::{Message, input};
use super::mqtt::Pass;
use super::redrive::Again;
use super::{ConnId, Core, Options};
use crate::ingest::mqtt::Publish;
use crate::log::{Log, Ticket};
use crate::record::{PartitionBy, PartitionId, StreamId, partition_of};
use crate::transform::rules::Key;
use crate::transform::{Rulebook, TopicCache};

/// Who publishes, as far as its record needs it.
pub(super) struct Publisher<'a> {
    pub conn: ConnId,
    pub client_id: &'a Rc<str>,
    /// Of the client identifier.
    pub partition: PartitionId,
    pub username: Option<&'a str>,
    /// The topic does not lie in the packet: an alias stands for it.
    pub topic_is_elsewhere: bool,
}

impl Publisher<'_> {
    /// The partition of its message in a stream that is partitioned by `by`; without a key the
    /// client's own, which is local, so that a device's order is kept all the same.
    fn partition_in(&self, by: PartitionBy, message: &Message<'_>, partitions: u32) -> PartitionId {
        match (message.extras.key(), by) {
            (Key::Is(key), _) => partition_of(key, partitions),
            (_, PartitionBy::Client | PartitionBy::None) => self.partition,
            (_, PartitionBy::Topic) => partition_of(message.topic, partitions),
        }
    }
}

/// A message, and what was found out of it.
pub(super) struct Taken<'a> {
    pub topic: &'a str,
    pub message: Message<'a>,
    /// Who wants it.
    pub topics: &'a TopicCache,
    /// Bytes of its topic that must be copied for another shard.
    pub topic_copied: usize,
    /// The streams that want it have it already.
    pub for_rules_only: bool,
}

/// Calls `take` for every record that a message becomes: as it is in the streams that want it, and
/// what rules have made of it.
#[inline]
fn each_record<'a>(
    options: &Options,
    rules: Option<&'a Rulebook>,
    taken: &Taken<'a>,
    mut take: impl FnMut(StreamId, &Message<'a>) -> Result<(), Pass>,
) -> Result<(), Pass> {
    let streams = match taken.for_rules_only {
        true => &[],
        false => options.topics.streams(taken.topic, taken.topics),
    };
    for stream in streams {
        take(*stream, &taken.message)?;
    }
    let Some(rules) = rules else { return Ok(()) };
    for made in rules.made() {
        take(made.stream, &taken.message.made(&made))?;
    }
    Ok(())
}

fn count_record(options: &Options, stream: StreamId, payload_bytes: usize) {
    let metrics = options.metrics.stream(stream);
    metrics.records.increment();
    metrics.bytes_in.add(payload_bytes as u64);
}

impl Core {
    /// Appends what other shards have sent for partitions of this one. Returns how many records.
    pub fn take_arrived(&mut self) -> u64 {
        let Self { lanes, log, options, clock, oldest_waiting_ns, .. } = self;
        let taken = lanes.arriving.take_arrived(log, |log, crossing| {
            let (stream, partition) = crossing.place();
            crossing.look(|message| {
                let keying = (options.partition_by[stream.index()], log.is_compacted(stream));
                let record = message.record(keying, clock.wall_ms);
                let bytes = Log::price(record.parts_bytes_max()) as u64;
                // The room that was kept for it.
                let kept = log.kept_room();
                log.keep_room(kept.saturating_sub(bytes));
                let Ok(ticket) = log.append(stream, partition, &record) else {
                    log.keep_room(kept);
                    return None;
                };
                count_record(options, stream, message.payload.len());
                oldest_waiting_ns.get_or_insert(clock.now_ns);
                Some((ticket, bytes))
            })
        });
        options.metrics.ring.arrived.add(taken);
        taken
    }

    /// Appends a message to every stream that wants it, and what rules make of it to theirs, here or
    /// on its way to the shard that owns its partition: all, or nothing when there is no room.
    pub(super) fn append(
        &mut self,
        from: &Publisher<'_>,
        publish: &Publish<'_>,
        topics: &mut TopicCache,
    ) -> Result<(Ticket, bool), Pass> {
        if publish.topic.starts_with('$')
            && let Some(again) = Again::of(publish)
        {
            return self.append_again(from, &again, topics);
        }
        self.options.topics.look(publish.topic, topics);
        self.lanes.begin();
        if let Some(rules) = &mut self.rules {
            rules.begin();
            if !topics.rules().is_empty() {
                let publisher = (&**from.client_id, from.username);
                let wall_ms = self.clock.wall_ms;
                rules.run(topics, &input(publish, publisher, &publish.user_properties, wall_ms));
            }
        }
        let wanted = !self.options.topics.streams(publish.topic, topics).is_empty();
        if !wanted && topics.rules().is_empty() {
            return Ok((Ticket::NOTHING, false));
        }
        let message = Message::of(from.client_id, publish);
        let topic_copied = if from.topic_is_elsewhere { message.topic.len() } else { 0 };
        let topic = publish.topic;
        let taken = Taken { topic, message, topics, topic_copied, for_rules_only: false };
        self.append_taken(from, &taken).map(|ticket| (ticket, true))
    }

    /// Appends or sends all records of a message, or none.
    pub(super) fn append_taken(
        &mut self,
        from: &Publisher<'_>,
        taken: &Taken<'_>,
    ) -> Result<Ticket, Pass> {
        self.find_room(from, taken)?;
        let ticket = self.put(from, taken)?;
        self.count_rules();
        Ok(ticket)
    }

    /// Whether all records of a message have room, here and on their ways.
    fn find_room(&mut self, from: &Publisher<'_>, taken: &Taken<'_>) -> Result<(), Pass> {
        let Self { options, rules, lanes, log, clock, .. } = self;
        let options = &*options;
        let (mut here_bytes, mut here, mut crosses) = (0, 0, false);
        each_record(options, rules.as_ref(), taken, |stream, message| {
            let by = options.partition_by[stream.index()];
            let record = message.record((by, log.is_compacted(stream)), clock.wall_ms);
            let bytes = record.parts_bytes_max();
            let owner = from.partition_in(by, message, options.partitions).owner(options.shards);
            if owner == options.shard {
                here_bytes += bytes;
                here += 1;
            } else {
                lanes.need(owner, Log::price(bytes), message.made_bytes());
                crosses = true;
            }
            Ok(())
        })?;
        // The log first: no other shard keeps room for a message that waits for this one.
        if here > 0 && !log.has_room(here_bytes, here) {
            return Err(Pass::Held(WaitFor::Log));
        }
        if crosses {
            if lanes.pins.is_passing() {
                return Err(Pass::Passing);
            }
            lanes
                .check(from.conn, taken.topic_copied)
                .map_err(|to| Pass::Held(WaitFor::Lane(to)))?;
        }
        Ok(())
    }

    /// Appends or sends all records of a message, for which there is room.
    fn put(&mut self, from: &Publisher<'_>, taken: &Taken<'_>) -> Result<Ticket, Pass> {
        let Self { options, rules, lanes, log, clock, oldest_waiting_ns, .. } = self;
        let options = &*options;
        let mut ticket = Ticket::NOTHING;
        each_record(options, rules.as_ref(), taken, |stream, message| {
            let by = options.partition_by[stream.index()];
            let partition = from.partition_in(by, message, options.partitions);
            let owner = partition.owner(options.shards);
            let record = message.record((by, log.is_compacted(stream)), clock.wall_ms);
            if owner == options.shard {
                let appended = log.append(stream, partition, &record);
                ticket = ticket.and(appended.map_err(|_| Pass::Held(WaitFor::Log))?);
                count_record(options, stream, message.payload.len());
                oldest_waiting_ns.get_or_insert(clock.now_ns);
            } else {
                let (bytes, place) =
                    (Log::price(record.parts_bytes_max()), (stream, partition, owner));
                lanes.send(from.conn, message, place, from.client_id, taken.topic_copied, bytes);
            }
            Ok(())
        })?;
        Ok(ticket)
    }

    fn count_rules(&self) {
        let Some(rules) = &self.rules else { return };
        for (stream, tally) in rules.tallies() {
            let metrics = &self.options.metrics.stream(stream).rule;
            metrics.matched.increment();
            metrics.passed.add(u64::from(tally.passed));
            metrics.errors.add(u64::from(tally.failed));
        }
    }
}
