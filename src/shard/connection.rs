//! What a shard keeps of each connection, and how one ends.

use std::collections::VecDeque;
use std::rc::Rc;

use super::{ConnId, Core, Protocol, Request};
use crate::ingest::mqtt as station;
use crate::log::Ticket;
use crate::observe::{Close, Reject};
use crate::record::{PartitionId, ShardId};
use crate::serve::kafka as node;
use crate::transform::TopicCache;

/// How long a peer may take to read our last word, nanoseconds.
const LINGER_NS: u64 = 2_000_000_000;
/// Memory that an idle connection's buffers keep.
const IDLE_BUFFER_BYTES: usize = 4096;

/// One connection.
pub struct Conn {
    pub serial: u64,
    /// When the first shard accepted it.
    pub accepted_ns: u64,
    pub stage: Stage,
    pub role: Role,
    /// To be sent.
    pub out: Vec<u8>,
    /// With the driver, and not sent yet.
    pub in_flight_bytes: usize,
    pub send_asked: bool,
    /// Whether the driver was asked to receive until told otherwise.
    pub receiving: bool,
    pub last_received_ns: u64,
    /// The earliest timer that is set for it: one is enough, it sets the next.
    pub timer_ns: Option<u64>,
    /// Received and not consumed: a part of a packet, or what is held.
    pub assembly: Vec<u8>,
    /// Bytes of the packet at the front of `assembly`, 0 while unknown.
    pub packet_bytes: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    Open,
    /// Our last word is said; what still comes is ignored until the peer ends or a little time
    /// has passed. A close at once would make the kernel reset the connection, and the peer might
    /// never read the last word.
    Lingering,
    /// The driver closes it.
    Closing,
}

pub enum Role {
    Mqtt(MqttConn),
    Kafka(KafkaConn),
}

/// An MQTT client.
pub struct MqttConn {
    pub machine: station::Connection,
    pub client_id: Rc<str>,
    /// As it said when it connected; nobody has checked it.
    pub username: Option<Box<str>>,
    /// Of the client id.
    pub partition: PartitionId,
    pub topics: TopicCache,
    /// Messages that wait for their acknowledgement, in the order of their arrival.
    pub unacknowledged: VecDeque<Unacknowledged>,
    /// Of how many messages these are.
    pub unacknowledged_messages: usize,
    /// Whether it is among the shard's `waiting`.
    pub is_waiting: bool,
    /// What it waits for before its input is looked at again.
    pub held: Option<WaitFor>,
    /// Bytes of the held input in which PINGREQs were looked for.
    pub looked_ahead: usize,
}

/// What a held connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitFor {
    /// Room in this shard's log.
    Log,
    /// Credit for the way to another shard.
    Lane(ShardId),
    /// Acknowledgements of its own messages.
    Acknowledgements,
}

/// One thing that must have happened before a message is acknowledged.
#[derive(Debug, Clone, Copy)]
pub struct Unacknowledged {
    pub due: Due,
    /// What to acknowledge then; 0 where more is due for the same message, behind this.
    pub packet_id: u16,
    pub matched: bool,
}

#[derive(Debug, Clone, Copy)]
pub enum Due {
    /// A commit of this shard's log.
    Log(Ticket),
    /// The settlement of a record sent to another shard.
    Lane(ShardId, u64),
}

/// A Kafka client.
#[derive(Default)]
pub struct KafkaConn {
    pub machine: node::Connection,
    /// Partitions whose waiters it is among.
    pub registered: Vec<usize>,
    pub waits_for_disk: bool,
    /// When the parked request arrived, nanoseconds.
    pub parked_ns: u64,
}

impl Conn {
    pub fn new(protocol: Protocol, serial: u64, now_ns: u64) -> Self {
        let role = match protocol {
            Protocol::Mqtt => Role::Mqtt(MqttConn {
                machine: station::Connection::new(),
                client_id: Rc::default(),
                partition: PartitionId(0),
                username: None,
                topics: TopicCache::default(),
                unacknowledged: VecDeque::new(),
                unacknowledged_messages: 0,
                is_waiting: false,
                held: None,
                looked_ahead: 0,
            }),
            Protocol::Kafka => Role::Kafka(KafkaConn::default()),
        };
        Self {
            serial,
            accepted_ns: now_ns,
            stage: Stage::Open,
            role,
            out: Vec::new(),
            in_flight_bytes: 0,
            send_asked: false,
            receiving: protocol == Protocol::Kafka,
            last_received_ns: now_ns,
            timer_ns: None,
            assembly: Vec::new(),
            packet_bytes: 0,
        }
    }

    /// Bytes that wait to be sent, here and with the driver.
    pub fn unsent_bytes(&self) -> usize {
        self.out.len() + self.in_flight_bytes
    }

    /// Gives back memory that a burst or a large packet took.
    pub fn shrink(&mut self) {
        if self.assembly.is_empty() && self.assembly.capacity() > IDLE_BUFFER_BYTES {
            self.assembly = Vec::new();
        }
        if self.out.is_empty() && self.out.capacity() > IDLE_BUFFER_BYTES {
            self.out = Vec::new();
        }
    }
}

impl Core {
    /// Asks the driver to send what `conn` has to say.
    pub fn send(&mut self, id: ConnId, conn: &mut Conn) {
        if !conn.out.is_empty() && !conn.send_asked && conn.stage != Stage::Closing {
            conn.send_asked = true;
            self.requests.push(Request::Send(id));
        }
    }

    /// Asks the driver to receive until told otherwise.
    pub fn receive(&mut self, id: ConnId, conn: &mut Conn) {
        if !conn.receiving {
            conn.receiving = true;
            // The keep-alive clock stood still meanwhile.
            conn.last_received_ns = self.clock.now_ns;
            self.requests.push(Request::Receive(id));
        }
    }

    /// Asks the driver to stop receiving.
    pub fn stop_receiving(&mut self, id: ConnId, conn: &mut Conn) {
        if conn.receiving {
            conn.receiving = false;
            self.requests.push(Request::StopReceiving(id));
        }
    }

    /// Looks at the connection at `due_ns` at the latest.
    pub fn set_timer(&mut self, id: ConnId, conn: &mut Conn, due_ns: u64) {
        if conn.timer_ns.is_none_or(|set| set > due_ns) {
            conn.timer_ns = Some(due_ns);
            self.timers.set(due_ns, id, conn.serial);
        }
    }

    /// Takes a connection out of service; what it still has to say is sent.
    pub fn close(&mut self, id: ConnId, conn: &mut Conn, why: Close) {
        if conn.stage != Stage::Open {
            return;
        }
        self.leave(id, conn, why);
        // At a stop the last acknowledgements may still be with the kernel.
        if why == Close::Lost || (why != Close::ShuttingDown && conn.unsent_bytes() == 0) {
            self.close_now(id, conn);
            return;
        }
        conn.stage = Stage::Lingering;
        self.send(id, conn);
        self.requests.push(Request::ShutDown(id));
        self.receive(id, conn);
        // Whatever was due for an open connection no longer is.
        conn.timer_ns = None;
        self.set_timer(id, conn, self.clock.now_ns + LINGER_NS);
    }

    /// Ends a connection without further words.
    pub fn close_now(&mut self, id: ConnId, conn: &mut Conn) {
        conn.stage = Stage::Closing;
        self.requests.push(Request::Close(id));
    }

    /// Forgets everything that waits for a connection or on its behalf.
    fn leave(&mut self, id: ConnId, conn: &mut Conn, why: Close) {
        conn.assembly = Vec::new();
        match &mut conn.role {
            Role::Mqtt(mqtt) => {
                self.options.metrics.mqtt.closed.increment(why);
                self.clients.leave(&mqtt.client_id, id, self.clock.now_ns);
                mqtt.unacknowledged.clear();
                mqtt.unacknowledged_messages = 0;
                if let Some(wait) = mqtt.held.take() {
                    self.options.metrics.mqtt.held.sub(1);
                    match wait {
                        WaitFor::Log => self.held.retain(|held| *held != id),
                        WaitFor::Lane(to) => self.lanes.forget(id, to),
                        WaitFor::Acknowledgements => {}
                    }
                }
            }
            Role::Kafka(_) => self.unpark(id, conn),
        }
    }

    /// The timer of a connection has come up.
    pub fn on_due(&mut self, id: ConnId, conn: &mut Conn) {
        conn.timer_ns = None;
        match (conn.stage, &conn.role) {
            (Stage::Lingering, _) => self.close_now(id, conn),
            (Stage::Closing, _) => {}
            (Stage::Open, Role::Kafka(_)) => self.resume_parked(id, conn),
            (Stage::Open, Role::Mqtt(_)) => self.on_mqtt_due(id, conn),
        }
    }

    fn on_mqtt_due(&mut self, id: ConnId, conn: &mut Conn) {
        let Role::Mqtt(mqtt) = &mut conn.role else { return };
        let now = self.clock.now_ns;
        if !mqtt.machine.is_connected() {
            self.options.metrics.mqtt.rejects.increment(Reject::ConnectTimeout);
            self.close(id, conn, Close::Rejected);
            return;
        }
        let Some(keep_alive) = mqtt.machine.keep_alive() else { return };
        // The clock stands still for a connection that is not read.
        let since = if conn.receiving { conn.last_received_ns } else { now };
        let due = since + keep_alive;
        if due > now {
            self.set_timer(id, conn, due);
            conn.shrink();
            return;
        }
        let text = "nothing came for one and a half keep-alive intervals";
        mqtt.machine.disconnect(station::Reason::KeepAliveTimeout, text, &mut conn.out);
        self.options.metrics.mqtt.rejects.increment(Reject::KeepAlive);
        self.close(id, conn, Close::KeepAlive);
    }
}
