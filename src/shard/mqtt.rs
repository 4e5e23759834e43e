//! MQTT on a shard: packets into the log, commits into acknowledgements.

use super::connection::{Conn, MqttConn, Role, Stage, Unacknowledged};
use super::{ConnId, Core, Request, Shard, label_of};
use crate::ingest::mqtt as station;
use crate::ingest::mqtt::{Event, Publish, Qos, Reason};
use crate::log::Ticket;
use crate::observe::{Close, HoldCause, Reject};
use crate::record::batch::RecordParts;
use crate::record::{PartitionId, StreamId, partition_of};

/// How a pass over input ended.
enum Pass {
    /// Everything whole was taken.
    Done,
    /// There is no room for the packet at the front.
    Held(HoldCause),
    /// The connection goes to another shard, or has ended.
    Left,
}

impl Core {
    /// Takes what came from an MQTT connection.
    pub fn mqtt_bytes(&mut self, id: ConnId, conn: &mut Conn, mut bytes: &[u8]) {
        if is_held(conn) {
            self.hold_more(id, conn, bytes);
            return;
        }
        if !conn.assembly.is_empty() && !is_connected(conn) {
            // All at once: what stands behind a CONNECT moves with it to another shard, and nothing
            // may be received before it is known whether it moves.
            conn.assembly.extend_from_slice(bytes);
            self.mqtt_assembled(id, conn);
            return;
        }
        // First what completes the packet that has begun, and no more than that.
        while !conn.assembly.is_empty() {
            let known = conn.packet_bytes.max(conn.assembly.len() + 1);
            let missing = (known - conn.assembly.len()).min(bytes.len());
            if missing == 0 {
                return;
            }
            let (now, later) = bytes.split_at(missing);
            conn.assembly.extend_from_slice(now);
            bytes = later;
            if !self.mqtt_assembled(id, conn) {
                if is_held(conn) {
                    self.hold_more(id, conn, bytes);
                }
                return;
            }
        }
        let (consumed, pass) = self.mqtt_pass(id, conn, bytes);
        self.keep_rest(id, conn, &bytes[consumed..], &pass);
        self.after_input(id, conn);
    }

    /// Takes what it can of the assembly buffer. Whether the connection goes on without holding.
    pub fn mqtt_assembled(&mut self, id: ConnId, conn: &mut Conn) -> bool {
        let mut assembly = std::mem::take(&mut conn.assembly);
        let (consumed, pass) = self.mqtt_pass(id, conn, &assembly);
        if conn.stage != Stage::Open || matches!(pass, Pass::Left) {
            return false;
        }
        assembly.drain(..consumed);
        conn.assembly = assembly;
        if let Pass::Held(cause) = pass {
            self.hold(id, conn, cause);
        }
        self.after_input(id, conn);
        !is_held(conn) && conn.stage == Stage::Open
    }

    fn keep_rest(&mut self, id: ConnId, conn: &mut Conn, rest: &[u8], pass: &Pass) {
        match pass {
            Pass::Left => {}
            Pass::Done | Pass::Held(_) if rest.is_empty() => {}
            // It grows as bytes come: the packet's length is only claimed so far.
            Pass::Done => conn.assembly.extend_from_slice(rest),
            Pass::Held(cause) => {
                conn.assembly.extend_from_slice(rest);
                self.hold(id, conn, *cause);
            }
        }
    }

    /// Sends what came of the input; a peer that does not read is let go.
    fn after_input(&mut self, id: ConnId, conn: &mut Conn) {
        if conn.stage != Stage::Open {
            return;
        }
        if self.lets_go_of_slow_reader(id, conn) {
            return;
        }
        let Role::Mqtt(mqtt) = &conn.role else { return };
        if mqtt.machine.is_connected() {
            if mqtt.held.is_none() {
                self.receive(id, conn);
            }
        } else {
            self.requests.push(Request::ReceiveOnce(id));
        }
        self.send(id, conn);
    }

    /// Closes a connection that does not read what is sent to it. Whether it did.
    pub fn lets_go_of_slow_reader(&mut self, id: ConnId, conn: &mut Conn) -> bool {
        let slow = conn.unsent_bytes() > self.options.mqtt_send_bytes_max;
        if slow {
            self.options.metrics.mqtt.rejects.increment(Reject::SlowReader);
            conn.out.clear();
            self.close(id, conn, Close::SlowReader);
        }
        slow
    }

    /// Takes packets from the front of `input` until something ends it. Returns the bytes taken.
    fn mqtt_pass(&mut self, id: ConnId, conn: &mut Conn, input: &[u8]) -> (usize, Pass) {
        let mut at = 0;
        loop {
            let Role::Mqtt(mqtt) = &mut conn.role else { return (at, Pass::Left) };
            if mqtt.unacknowledged.len() >= self.options.unacknowledged_max as usize {
                return (at, Pass::Held(HoldCause::Unacknowledged));
            }
            match mqtt.machine.step(&self.options.mqtt, &input[at..], &mut conn.out) {
                Ok((_, Event::NeedMore { packet_bytes })) => {
                    conn.packet_bytes = packet_bytes.unwrap_or(0);
                    return (at, Pass::Done);
                }
                Ok((bytes, Event::Publish(publish))) => {
                    let qos = publish.qos;
                    let place = (&*mqtt.client_id, mqtt.partition);
                    match self.append(place, &publish, &mut mqtt.topics) {
                        Ok(appended) => {
                            let packet_id = publish.packet_id;
                            self.on_appended(id, mqtt, &mut conn.out, qos, packet_id, appended);
                            at += bytes;
                        }
                        Err(cause) => {
                            mqtt.machine.retract(qos);
                            return (at, Pass::Held(cause));
                        }
                    }
                }
                Ok((bytes, Event::Handled)) => at += bytes,
                Ok((bytes, Event::SubscribeRefused { .. })) => {
                    self.options.metrics.mqtt.rejects.increment(Reject::Subscription);
                    at += bytes;
                }
                Ok((bytes, Event::Connect(connect))) => {
                    let client_id = Box::from(connect.client_id);
                    if !self.on_connect(id, conn, client_id, &input[at..]) {
                        return (at, Pass::Left);
                    }
                    at += bytes;
                }
                Ok((_, Event::Disconnected { .. })) => {
                    self.close(id, conn, Close::Disconnect);
                    return (at, Pass::Left);
                }
                Err(violation) => {
                    self.reject(id, conn, &violation);
                    return (at, Pass::Left);
                }
            }
        }
    }

    fn reject(&mut self, id: ConnId, conn: &mut Conn, violation: &station::Violation) {
        let Role::Mqtt(mqtt) = &mut conn.role else { return };
        tracing::debug!(client = &*mqtt.client_id, "MQTT connection closed: {violation}");
        self.options.metrics.mqtt.rejects.increment(label_of(violation.reject));
        mqtt.machine.reply(violation, &mut conn.out);
        self.close(id, conn, Close::Rejected);
    }

    /// A client introduces itself: here, or it goes to the shard that owns its partition. Whether
    /// it stays.
    fn on_connect(
        &mut self,
        id: ConnId,
        conn: &mut Conn,
        mut client_id: Box<str>,
        input: &[u8],
    ) -> bool {
        let Role::Mqtt(mqtt) = &mut conn.role else { return false };
        if self.stopping {
            let text = "the server is stopping";
            mqtt.machine.refuse(Reason::ServerShuttingDown, text, &mut conn.out);
            self.close(id, conn, Close::ShuttingDown);
            return false;
        }
        let assigned = client_id.is_empty();
        if assigned {
            client_id = self.assign_client_id();
        }
        let partition = partition_of(client_id.as_bytes(), self.options.partitions);
        let owner = partition.owner(self.options.shards);
        if owner != self.options.shard {
            let bytes = input.to_vec();
            conn.stage = Stage::Closing;
            self.options.metrics.ring.hand_offs.increment();
            self.requests.push(Request::HandOff { conn: id, to: owner, bytes });
            return false;
        }
        let told = assigned.then_some(&*client_id);
        mqtt.machine.accept(&self.options.mqtt, told, &mut conn.out);
        mqtt.client_id = client_id.clone();
        mqtt.partition = partition;
        if let Some(old) = self.clients.insert(client_id, id) {
            self.taken_over.push(old);
        }
        if let Some(keep_alive) = mqtt.machine.keep_alive() {
            self.set_timer(id, conn, self.clock.now_ns + keep_alive);
        }
        true
    }

    /// A client identifier that nobody has, of a partition that this shard owns.
    fn assign_client_id(&mut self) -> Box<str> {
        loop {
            // Weyl sequence over a random start: all distinct, and not guessable one by one.
            self.assigned = self.assigned.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let name = format!("tidegate-{:016x}", self.assigned.rotate_left(17));
            let partition = partition_of(name.as_bytes(), self.options.partitions);
            if partition.owner(self.options.shards) == self.options.shard {
                return name.into();
            }
        }
    }

    /// Appends a message to every stream that wants it: to all, or to none when there is no room.
    fn append(
        &mut self,
        (client_id, partition): (&str, PartitionId),
        publish: &Publish<'_>,
        topics: &mut crate::transform::TopicCache,
    ) -> Result<(Ticket, bool), HoldCause> {
        let streams = self.options.topics.streams(publish.topic, topics);
        if streams.is_empty() {
            return Ok((Ticket::NOTHING, false));
        }
        let qos = [b'0' + publish.qos as u8];
        let retain = [b'0' + u8::from(publish.retain)];
        let fixed = [
            (b"mqtt.topic".as_slice(), publish.topic.as_bytes()),
            (b"mqtt.qos".as_slice(), qos.as_slice()),
            (b"mqtt.retain".as_slice(), retain.as_slice()),
        ];
        let content_type =
            publish.content_type.map(|v| (b"mqtt.content_type".as_slice(), v.as_bytes()));
        let user = publish.user_properties.iter().map(|(k, v)| (k.as_bytes(), v.as_bytes()));
        let headers = fixed.iter().copied().chain(content_type).chain(user);
        let record = RecordParts {
            key: Some(client_id.as_bytes()),
            value: publish.payload,
            timestamp_ms: self.clock.wall_ms,
            headers,
        };
        let bytes = record.parts_bytes_max() * streams.len();
        if !self.log.has_room(bytes, streams.len()) {
            return Err(self.full_cause());
        }
        let mut ticket = Ticket::NOTHING;
        for &stream in streams {
            match self.log.append(stream, partition, &record) {
                Ok(appended) => ticket = ticket.and(appended),
                Err(crate::log::Full) => return Err(HoldCause::LogBuffer),
            }
            let metrics = self.options.metrics.stream(stream);
            metrics.records.increment();
            metrics.bytes_in.add(publish.payload.len() as u64);
        }
        self.oldest_waiting_ns.get_or_insert(self.clock.now_ns);
        Ok((ticket, true))
    }

    fn full_cause(&self) -> HoldCause {
        if self.log.is_starved() { HoldCause::DiskFull } else { HoldCause::LogBuffer }
    }

    #[inline]
    fn on_appended(
        &mut self,
        id: ConnId,
        mqtt: &mut MqttConn,
        out: &mut Vec<u8>,
        qos: Qos,
        packet_id: u16,
        (ticket, matched): (Ticket, bool),
    ) {
        let metrics = &self.options.metrics.mqtt;
        metrics.messages[qos as usize].increment();
        if !matched {
            metrics.unmatched.increment();
        }
        if qos == Qos::AtMostOnce {
            return;
        }
        if mqtt.unacknowledged.is_empty() && self.log.progress().reached(ticket) {
            metrics.pubacks.increment();
            mqtt.machine.acknowledge(packet_id, matched, out);
            return;
        }
        mqtt.unacknowledged.push_back(Unacknowledged { ticket, packet_id, matched });
        if !mqtt.is_waiting {
            mqtt.is_waiting = true;
            self.waiting.push(id);
        }
    }

    /// Publishes where a partition begins and ends.
    pub fn publish_bounds(&self, stream: StreamId, partition: PartitionId) {
        if let Some(bounds) = self.log.bounds(stream, partition) {
            let row = partition.row(self.options.shards);
            let metrics = self.options.metrics.stream(stream).partition(row);
            metrics.log_start.set(bounds.start.0);
            metrics.high_watermark.set(bounds.committed.end().0);
        }
    }

    /// Publishes the state of the log.
    pub fn publish_log(&self) {
        let metrics = &self.options.metrics.log;
        metrics.segments.set(self.log.segment_count() as u64);
        metrics.segments_ready.set(self.log.ready_segments() as u64);
        let (appended, written, flushed) = self.log.positions();
        metrics.appended.set(appended);
        metrics.written.set(written);
        metrics.flushed.set(flushed);
        for (stream, stored) in self.options.metrics.streams.iter().zip(self.log.stored_bytes()) {
            stream.bytes_stored.publish(*stored);
        }
        let streams = 0..self.log.options().streams.len() as u32;
        for stream in streams {
            let first = self.options.shard.0;
            for partition in (first..self.options.partitions).step_by(self.options.shards as usize)
            {
                self.publish_bounds(StreamId(stream), PartitionId(partition));
            }
        }
    }
}

pub fn is_connected(conn: &Conn) -> bool {
    matches!(&conn.role, Role::Mqtt(mqtt) if mqtt.machine.is_connected())
}

pub fn is_held(conn: &Conn) -> bool {
    matches!(&conn.role, Role::Mqtt(mqtt) if mqtt.held.is_some())
}

impl Shard {
    /// Acknowledges every message whose commit has reached what its streams promise.
    pub(super) fn acknowledge(&mut self) {
        let Self { conns, core } = self;
        let mut waiting = std::mem::take(&mut core.waiting);
        waiting.retain(|&id| {
            let Some(conn) = conns.get_mut(id.index()) else { return false };
            let Role::Mqtt(mqtt) = &mut conn.role else { return false };
            let before = mqtt.unacknowledged.len();
            while let Some(oldest) = mqtt.unacknowledged.front() {
                if !core.log.progress().reached(oldest.ticket) {
                    break;
                }
                mqtt.machine.acknowledge(oldest.packet_id, oldest.matched, &mut conn.out);
                mqtt.unacknowledged.pop_front();
            }
            let acknowledged = before - mqtt.unacknowledged.len();
            mqtt.is_waiting = !mqtt.unacknowledged.is_empty();
            let waits = mqtt.is_waiting;
            if acknowledged > 0 {
                core.options.metrics.mqtt.pubacks.add(acknowledged as u64);
                core.send(id, conn);
            }
            waits
        });
        // Acknowledging appends nothing to `core.waiting`.
        core.waiting = waiting;
        self.resume_throttled();
    }

    /// Closes connections whose client has connected anew.
    pub(super) fn close_taken_over(&mut self) {
        while let Some(id) = self.core.taken_over.pop() {
            let Some(conn) = self.conns.get_mut(id.index()) else { continue };
            if let Role::Mqtt(mqtt) = &mut conn.role {
                let text = "the client connected again";
                mqtt.machine.disconnect(Reason::SessionTakenOver, text, &mut conn.out);
            }
            self.core.options.metrics.mqtt.taken_over.increment();
            self.core.close(id, conn, Close::TakenOver);
        }
    }
}
