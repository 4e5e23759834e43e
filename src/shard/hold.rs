//! Holding: a connection whose next message has no room waits, and loses nothing.
//!
//! Credits start at the log (bytes free in the buffer that gathers the next commit) and end at the
//! socket: a held connection is read on up to a limit, so that a PINGREQ within it is answered;
//! beyond the limit it is not received from, and TCP pushes back on the device. When a commit was
//! sealed there is room again, and the held go on in the order in which they came.

use super::connection::{Conn, Role, Stage};
use super::{ConnId, Core, Shard};
use crate::ingest::mqtt as station;
use crate::observe::HoldCause;

impl Core {
    /// Holds a connection: what it sent and was not taken stands in its assembly buffer.
    pub(super) fn hold(&mut self, id: ConnId, conn: &mut Conn, cause: HoldCause) {
        let Role::Mqtt(mqtt) = &mut conn.role else { return };
        if mqtt.held.replace(cause).is_none() {
            self.options.metrics.mqtt.held.add(1);
            self.options.metrics.mqtt.holds.increment(cause);
            mqtt.looked_ahead = 0;
            self.held.push_back(id);
        }
        self.look_ahead(id, conn);
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
    /// Lets the held go on while there is room.
    pub(super) fn resume_held(&mut self) {
        let count = self.core.held.len();
        for _ in 0..count {
            let Some(id) = self.core.held.pop_front() else { return };
            let cause = self.release(id);
            if matches!(cause, Some(HoldCause::LogBuffer | HoldCause::DiskFull)) {
                return;
            }
        }
        self.close_taken_over();
    }

    /// Lets those go on that waited for acknowledgements.
    pub(super) fn resume_throttled(&mut self) {
        let throttled = |mqtt: &super::connection::MqttConn, max: u32| {
            mqtt.held == Some(HoldCause::Unacknowledged) && mqtt.unacknowledged.len() < max as usize
        };
        let max = self.core.options.unacknowledged_max;
        let count = self.core.held.len();
        for _ in 0..count {
            let Some(id) = self.core.held.pop_front() else { return };
            let ready = self
                .conns
                .get(id.index())
                .is_some_and(|conn| matches!(&conn.role, Role::Mqtt(mqtt) if throttled(mqtt, max)));
            if ready {
                self.release(id);
            } else {
                self.core.held.push_back(id);
            }
        }
        self.close_taken_over();
    }

    /// Takes a connection out of hold and lets it go on; why it is held again, if it is.
    fn release(&mut self, id: ConnId) -> Option<HoldCause> {
        let conn = self.conns.get_mut(id.index())?;
        let Role::Mqtt(mqtt) = &mut conn.role else { return None };
        mqtt.held.take()?;
        self.core.options.metrics.mqtt.held.sub(1);
        if conn.stage != Stage::Open || self.core.stopping {
            return None;
        }
        self.core.mqtt_assembled(id, conn);
        match &conn.role {
            Role::Mqtt(mqtt) => mqtt.held,
            Role::Kafka(_) => None,
        }
    }
}
