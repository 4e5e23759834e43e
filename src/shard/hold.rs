//! Holding: a connection whose next message has no room waits, and loses nothing.
//!
//! Credits start at the log (bytes free in the buffer that gathers the next commit, of which other
//! shards' credits are a part) and end at the socket: a held connection is read on up to a limit, so
//! that a PINGREQ within it is answered; beyond the limit it is not received from, and TCP pushes
//! back on the device. Who waits for the own log and who waits for another shard stand in queues of
//! their own: a slow shard holds only those who have something for it. Each queue goes on in the
//! order in which its connections came.

use super::connection::{Conn, MqttConn, Role, Stage, WaitFor};
use super::{ConnId, Core, Shard};
use crate::ingest::mqtt as station;
use crate::observe::HoldCause;

impl Core {
    /// Holds a connection: what it sent and was not taken stands in its assembly buffer.
    pub(super) fn hold(&mut self, id: ConnId, conn: &mut Conn, wait: WaitFor) {
        let Role::Mqtt(mqtt) = &mut conn.role else { return };
        if mqtt.held.replace(wait).is_none() {
            self.options.metrics.mqtt.held.add(1);
            self.options.metrics.mqtt.holds.increment(self.cause(wait));
            mqtt.looked_ahead = 0;
            match wait {
                WaitFor::Log => self.held.push_back(id),
                WaitFor::Lane(to) => {
                    self.options.metrics.ring.ways[to.index()].waits.increment();
                    self.lanes.hold(id, to);
                }
                // Its own acknowledgements let it go on.
                WaitFor::Acknowledgements => {}
            }
        }
        self.look_ahead(id, conn);
    }

    fn cause(&self, wait: WaitFor) -> HoldCause {
        match wait {
            WaitFor::Log if self.log.is_starved() => HoldCause::DiskFull,
            WaitFor::Log => HoldCause::LogBuffer,
            WaitFor::Lane(_) => HoldCause::Ring,
            WaitFor::Acknowledgements => HoldCause::Unacknowledged,
        }
    }

    /// Keeps what came from a held connection.
    pub(super) fn hold_more(&mut self, id: ConnId, conn: &mut Conn, bytes: &[u8]) {
        conn.assembly.extend_from_slice(bytes);
        self.look_ahead(id, conn);
    }

    /// Answers PINGREQs in held input, and stops receiving where there is enough of it.
    fn look_ahead(&mut self, id: ConnId, conn: &mut Conn) {
        let Role::Mqtt(mqtt) = &mut conn.role else { return };
        if mqtt.machine.is_connected() {
            let looked = &mut mqtt.looked_ahead;
            station::answer_pings(&mut conn.assembly, looked, &mut conn.out);
        }
        if self.lets_go_of_slow_reader(id, conn) {
            return;
        }
        let Role::Mqtt(mqtt) = &conn.role else { return };
        if conn.assembly.len() >= self.options.held_bytes_max {
            self.stop_receiving(id, conn);
        } else if mqtt.machine.is_connected() {
            self.receive(id, conn);
        }
        self.send(id, conn);
    }
}

impl Shard {
    /// Lets those go on that wait for the log, while there is room.
    pub(super) fn resume_held(&mut self) {
        let count = self.core.held.len();
        for _ in 0..count {
            let Some(id) = self.core.held.pop_front() else { return };
            if self.release(id, WaitFor::Log) == Some(WaitFor::Log) {
                return;
            }
        }
        self.close_taken_over();
    }

    /// Lets those go on that wait for other shards, while there is credit.
    pub(super) fn resume_lanes(&mut self) {
        while let Some((id, to)) = self.core.lanes.next_to_resume() {
            self.release(id, WaitFor::Lane(to));
            self.core.lanes.end_resuming();
        }
        self.close_taken_over();
    }

    /// Lets those of `acknowledged` go on that waited for acknowledgements.
    pub(super) fn resume_throttled(&mut self, acknowledged: &[ConnId]) {
        let max = self.core.options.unacknowledged_max as usize;
        let throttled = |mqtt: &MqttConn| {
            mqtt.held == Some(WaitFor::Acknowledgements) && mqtt.unacknowledged_messages < max
        };
        for &id in acknowledged {
            let conn = self.conns.get(id.index());
            if conn.is_some_and(|conn| matches!(&conn.role, Role::Mqtt(mqtt) if throttled(mqtt))) {
                self.release(id, WaitFor::Acknowledgements);
            }
        }
        self.close_taken_over();
    }

    /// Takes a connection out of hold, if it waits for this, and lets it go on; what it waits for
    /// then, if it is held again.
    fn release(&mut self, id: ConnId, waited_for: WaitFor) -> Option<WaitFor> {
        let conn = self.conns.get_mut(id.index())?;
        let Role::Mqtt(mqtt) = &mut conn.role else { return None };
        if mqtt.held != Some(waited_for) {
            // The number is another connection's by now.
            return None;
        }
        mqtt.held = None;
        self.core.options.metrics.mqtt.held.sub(1);
        if conn.stage == Stage::Open && !self.core.stopping {
            self.core.mqtt_assembled(id, conn);
        }
        let held = match &conn.role {
            Role::Mqtt(mqtt) => mqtt.held,
            Role::Kafka(_) => None,
        };
        if !matches!(held, Some(WaitFor::Lane(_))) {
            // It has what it wanted, or waits for something else now.
            self.core.lanes.withdraw(id);
        }
        held
    }
}
