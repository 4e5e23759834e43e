//! MQTT on a shard: packets into the log, commits into acknowledgements.

use std::rc::Rc;

use super::append::Publisher;
use super::clients::Entry;
use super::connection::{Conn, Due, MqttConn, Role, Stage, Unacknowledged, WaitFor};
use super::{ConnId, Core, Request, Shard, label_of};
use crate::ingest::mqtt as station;
use crate::ingest::mqtt::{Event, Qos, Reason};
use crate::log::Ticket;
use crate::observe::{Close, Reject};
use crate::record::partition_of;

/// How a pass over input ended.
pub(super) enum Pass {
    /// Everything whole was taken.
    Done,
    /// There is no room for the packet at the front.
    Held(WaitFor),
    /// The packet at the front goes to another shard, and cannot be kept where it lies: it must be
    /// moved to the assembly buffer.
    Passing,
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
        let assembly = std::mem::take(&mut conn.assembly);
        let before = self.lanes.pins.begin_assembled(assembly.capacity());
        let (consumed, pass) = self.mqtt_pass(id, conn, &assembly);
        let rest = self.lanes.pins.end_assembled(before, assembly, consumed);
        if conn.stage != Stage::Open || matches!(pass, Pass::Left) {
            return false;
        }
        conn.assembly = rest;
        if let Pass::Held(wait) = pass {
            self.hold(id, conn, wait);
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
            Pass::Passing => {
                conn.assembly.extend_from_slice(rest);
                self.mqtt_assembled(id, conn);
            }
            Pass::Held(wait) => {
                conn.assembly.extend_from_slice(rest);
                self.hold(id, conn, *wait);
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
            if mqtt.unacknowledged_messages >= self.options.unacknowledged_max as usize {
                return (at, Pass::Held(WaitFor::Acknowledgements));
            }
            match mqtt.machine.step(&self.options.mqtt, &input[at..], &mut conn.out) {
                Ok((_, Event::NeedMore { packet_bytes })) => {
                    conn.packet_bytes = packet_bytes.unwrap_or(0);
                    return (at, Pass::Done);
                }
                Ok((bytes, Event::Publish(publish))) => {
                    let (qos, packet_id) = (publish.qos, publish.packet_id);
                    let in_packet = input.as_ptr_range().contains(&publish.topic.as_ptr());
                    let from = Publisher {
                        conn: id,
                        client_id: &mqtt.client_id,
                        partition: mqtt.partition,
                        username: mqtt.username.as_deref(),
                        topic_is_elsewhere: !in_packet,
                    };
                    match self.append(&from, &publish, &mut mqtt.topics) {
                        Ok(appended) => {
                            self.on_appended(id, mqtt, &mut conn.out, qos, packet_id, appended);
                            at += bytes;
                        }
                        Err(pass) => {
                            mqtt.machine.retract(qos);
                            return (at, pass);
                        }
                    }
                }
                Ok((bytes, Event::Handled)) => at += bytes,
                Ok((bytes, Event::SubscribeRefused { .. })) => {
                    self.options.metrics.mqtt.rejects.increment(Reject::Subscription);
                    at += bytes;
                }
                Ok((bytes, Event::Connect(connect))) => {
                    let client_id = Rc::from(connect.client_id);
                    mqtt.username = connect.username.map(Box::from);
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
        mut client_id: Rc<str>,
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
            let accepted_ns = conn.accepted_ns;
            self.requests.push(Request::HandOff { conn: id, to: owner, bytes, accepted_ns });
            return false;
        }
        let told = assigned.then_some(&*client_id);
        mqtt.machine.accept(&self.options.mqtt, told, &mut conn.out);
        mqtt.client_id = client_id.clone();
        mqtt.partition = partition;
        match self.clients.enter(&client_id, id, conn.accepted_ns, self.clock.now_ns) {
            Entry::Alone => {}
            Entry::TakesOver(_) if mutated!(OldConnectionStays) => {}
            Entry::TakesOver(old) => self.taken_over.push(old),
            Entry::Late => {
                self.taken_over.push(id);
                self.send(id, conn);
                return false;
            }
        }
        if let Some(keep_alive) = mqtt.machine.keep_alive() {
            self.set_timer(id, conn, self.clock.now_ns + keep_alive);
        }
        true
    }

    /// A client identifier that nobody has, of a partition that this shard owns.
    fn assign_client_id(&mut self) -> Rc<str> {
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
        let crossed = self.lanes.sent();
        let reached = self.log.progress().reached(ticket);
        if mqtt.unacknowledged.is_empty() && reached && crossed.is_empty() {
            metrics.pubacks.increment();
            mqtt.machine.acknowledge(packet_id, matched, out);
            return;
        }
        mqtt.unacknowledged_messages += 1;
        for &(to, number) in crossed {
            let due = Due::Lane(to, number);
            mqtt.unacknowledged.push_back(Unacknowledged { due, packet_id: 0, matched });
        }
        match mqtt.unacknowledged.back_mut() {
            Some(last) if reached && !crossed.is_empty() => last.packet_id = packet_id,
            _ => {
                let due = Due::Log(ticket);
                mqtt.unacknowledged.push_back(Unacknowledged { due, packet_id, matched });
            }
        }
        if !mqtt.is_waiting {
            mqtt.is_waiting = true;
            self.waiting.push(id);
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
    /// Acknowledges every message whose commits have reached what its streams promise.
    pub(super) fn acknowledge(&mut self) {
        let Self { conns, core } = self;
        let mut waiting = std::mem::take(&mut core.waiting);
        let mut acknowledged = std::mem::take(&mut core.acknowledged);
        waiting.retain(|&id| {
            let Some(conn) = conns.get_mut(id.index()) else { return false };
            let Role::Mqtt(mqtt) = &mut conn.role else { return false };
            let mut count = 0;
            let before = mqtt.unacknowledged.len();
            if mutated!(AcknowledgedOutOfOrder) {
                mqtt.unacknowledged.rotate_left(1.min(before));
            }
            while let Some(oldest) = mqtt.unacknowledged.front() {
                let reached = match oldest.due {
                    Due::Log(ticket) => core.log.progress().reached(ticket),
                    Due::Lane(to, number) => core.lanes.is_settled(to, number),
                };
                if !reached {
                    break;
                }
                if oldest.packet_id != 0 {
                    mqtt.unacknowledged_messages -= 1;
                    mqtt.machine.acknowledge(oldest.packet_id, oldest.matched, &mut conn.out);
                    count += 1;
                }
                mqtt.unacknowledged.pop_front();
            }
            if mqtt.unacknowledged.len() < before && mqtt.held == Some(WaitFor::Acknowledgements) {
                acknowledged.push(id);
            }
            mqtt.is_waiting = !mqtt.unacknowledged.is_empty();
            let waits = mqtt.is_waiting;
            if count > 0 {
                core.options.metrics.mqtt.pubacks.add(count);
                core.send(id, conn);
            }
            waits
        });
        // Acknowledging appends nothing to `core.waiting`.
        core.waiting = waiting;
        self.resume_throttled(&acknowledged);
        acknowledged.clear();
        self.core.acknowledged = acknowledged;
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
