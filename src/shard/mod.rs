//! The shard: joins the stations of one core.
//!
//! Comes in: what happened to its connections, its log and its rings, and the time. Goes out:
//! [`Request`]s to the driver, and commits that the driver writes. It runs on one pinned thread and
//! shares nothing. The invariant: a message is acknowledged only when [`Log::progress`] has reached
//! its ticket, and one connection's acknowledgements leave in the order of its messages.
//! Deliberately absent: sockets, files, clocks; a simulator can drive it as the driver does.

mod append;
mod arriving;
mod change;
mod clients;
mod connection;
mod crossing;
mod hold;
mod kafka;
mod lanes;
mod message;
mod mqtt;
mod options;
mod publish;
mod redrive;
mod stopping;
mod timers;

use std::collections::VecDeque;

use slab::Slab;

use crate::ingest::mqtt as station;
use crate::log::{Commit, Log, Needs};
use crate::observe::{Close, Label, Reject, ShardMetrics, Station, StationTimes};
use crate::record::{PartitionId, ShardId, SharedBytes, StreamId};
use crate::transform::Rulebook;
pub use change::{Change, Rules, Streams};
use clients::Clients;
use connection::{Conn, Role, Stage};
pub use crossing::{Crossing, OWNED_BYTES_MAX};
use lanes::Lanes;
pub use lanes::Way;
pub use options::Options;
use timers::Timers;

/// One connection of a shard. The number is used again only after [`Shard::on_closed`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u32);

impl ConnId {
    /// The id as an index.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    Mqtt,
    Kafka,
}

/// The time, as the driver read it.
#[derive(Debug, Clone, Copy, Default)]
pub struct Clock {
    /// Monotonic, nanoseconds.
    pub now_ns: u64,
    /// Wall clock, milliseconds since 1970.
    pub wall_ms: i64,
    /// Age clock, milliseconds; see `log`'s retention.
    pub age_ms: u64,
}

/// What the driver must do with a connection.
#[derive(Debug)]
pub enum Request {
    ReceiveOnce(ConnId),
    /// Receive until told otherwise.
    Receive(ConnId),
    /// Stop receiving; what still comes is to be passed on.
    StopReceiving(ConnId),
    /// [`Shard::take_output`] has bytes to send.
    Send(ConnId),
    /// When all is sent, end the sending side; go on receiving.
    ShutDown(ConnId),
    /// When all is sent, close, and report [`Shard::on_closed`].
    Close(ConnId),
    /// Forget the connection without closing its socket, which goes with `bytes` to another shard.
    HandOff {
        /// Which.
        conn: ConnId,
        /// To whom.
        to: ShardId,
        /// What was received and not consumed: all since the CONNECT.
        bytes: Vec<u8>,
        /// When it was accepted, nanoseconds of the monotonic clock that all shards share.
        accepted_ns: u64,
    },
}

/// One core's stations.
pub struct Shard {
    conns: Slab<Conn>,
    core: Core,
}

/// Everything of a shard but its connections, so that one connection and the rest can be borrowed
/// side by side.
pub(crate) struct Core {
    options: Options,
    log: Log,
    clock: Clock,
    requests: Vec<Request>,
    timers: Timers,
    /// Which connections speak for MQTT clients.
    clients: Clients,
    /// Connections whose client has connected anew.
    taken_over: Vec<ConnId>,
    /// Connections with messages that wait for their acknowledgement.
    waiting: Vec<ConnId>,
    /// Scratch of [`Shard::acknowledge`].
    acknowledged: Vec<ConnId>,
    /// Connections with input that waits for room in the log, in order.
    held: VecDeque<ConnId>,
    /// The ways to and from other shards.
    lanes: Lanes,
    rules: Option<Rulebook>,
    /// Parked Fetches by `stream × partitions + partition`.
    waiters: Vec<Vec<ConnId>>,
    /// Parked Kafka connections that wait for the disk.
    disk_waiters: Vec<ConnId>,
    advanced: Vec<(StreamId, PartitionId)>,
    /// Arrival of the oldest record that waits for the next commit, and of the one under way.
    oldest_waiting_ns: Option<u64>,
    oldest_committing_ns: Option<u64>,
    serial: u64,
    assigned: u64,
    times: StationTimes,
    stopping: bool,
}

impl Shard {
    /// A shard over its recovered log, with a way to every other shard.
    ///
    /// # Panics
    /// When there are more than 65,536 streams: the configuration is to refuse that.
    pub fn new(mut options: Options, log: Log, ways: Vec<Way>, assigned_seed: u64) -> Self {
        let streams = log.options().streams.len();
        assert!(streams <= 1 << 16, "a slot of a ring holds the number of a stream in 16 bits");
        let lanes = Lanes::new(ways, &options);
        let clients = Clients::new(options.connect_timeout_ns);
        let waiters = vec![Vec::new(); streams * options.partitions as usize];
        options.metrics.rules_version.set(1);
        Self {
            conns: Slab::new(),
            core: Core {
                rules: options.rules.take(),
                options,
                log,
                clock: Clock::default(),
                requests: Vec::new(),
                timers: Timers::default(),
                clients,
                taken_over: Vec::new(),
                waiting: Vec::new(),
                acknowledged: Vec::new(),
                held: VecDeque::new(),
                lanes,
                waiters,
                disk_waiters: Vec::new(),
                advanced: Vec::new(),
                oldest_waiting_ns: None,
                oldest_committing_ns: None,
                serial: 0,
                assigned: assigned_seed,
                times: StationTimes::new(),
                stopping: false,
            },
        }
    }

    /// Tells the time; to be called before anything that happened since.
    pub fn set_clock(&mut self, clock: Clock) {
        self.core.clock = clock;
    }

    /// The log, for what only the driver does with it.
    pub fn log(&mut self) -> &mut Log {
        &mut self.core.log
    }

    /// What it publishes.
    pub fn metrics(&self) -> &ShardMetrics {
        &self.core.options.metrics
    }

    /// Counts that a station took `ns`.
    pub fn record_time(&mut self, station: Station, ns: u64) {
        self.core.times.record(&self.core.options.metrics, station, ns);
    }

    /// Moves the requests since the last call behind those in `into`.
    pub fn take_requests(&mut self, into: &mut Vec<Request>) {
        into.append(&mut self.core.requests);
    }

    /// A connection was accepted here.
    pub fn on_accepted(&mut self, protocol: Protocol) -> ConnId {
        let id = self.insert(protocol);
        match protocol {
            Protocol::Mqtt => {
                self.core.options.metrics.mqtt.accepted.increment();
                self.core.requests.push(Request::ReceiveOnce(id));
            }
            Protocol::Kafka => {
                self.core.options.metrics.kafka.accepted.increment();
                self.core.requests.push(Request::Receive(id));
            }
        }
        id
    }

    /// An MQTT connection came from another shard, which accepted it at `accepted_ns`, with the bytes
    /// that it had sent so far.
    pub fn on_handed_over(&mut self, bytes: &[u8], accepted_ns: u64) -> ConnId {
        let id = self.insert(Protocol::Mqtt);
        self.conns[id.index()].accepted_ns = accepted_ns;
        self.on_bytes(id, bytes);
        id
    }

    fn insert(&mut self, protocol: Protocol) -> ConnId {
        let core = &mut self.core;
        core.serial += 1;
        let entry = self.conns.vacant_entry();
        let id = ConnId(entry.key() as u32);
        let conn = entry.insert(Conn::new(protocol, core.serial, core.clock.now_ns));
        match protocol {
            Protocol::Mqtt => {
                core.options.metrics.mqtt.connections.add(1);
                core.set_timer(id, conn, core.clock.now_ns + core.options.connect_timeout_ns);
            }
            Protocol::Kafka => core.options.metrics.kafka.connections.add(1),
        }
        id
    }

    /// As [`Shard::on_bytes`], with bytes that lie in receive buffer `buffer`. Whether records on
    /// their way to other shards refer to it: then it must be kept as it is, until
    /// [`Shard::take_free_buffers`] names it.
    pub fn on_received(&mut self, id: ConnId, bytes: &[u8], buffer: u16) -> bool {
        self.core.lanes.pins.begin_received(buffer);
        self.on_bytes(id, bytes);
        self.core.lanes.pins.end_received()
    }

    /// Receive buffers that nothing refers to any more.
    pub fn take_free_buffers(&mut self, into: &mut Vec<u16>) {
        self.core.lanes.pins.take_free(into);
    }

    /// Takes what other shards have sent, given back, granted and settled. Returns how much.
    pub fn take_from_others(&mut self) -> u64 {
        if self.core.options.shards == 1 {
            return 0;
        }
        let settled = self.core.lanes.take_returns();
        let taken = self.core.take_arrived();
        if settled {
            self.acknowledge();
        }
        self.resume_lanes();
        taken + u64::from(settled)
    }

    /// Lets other shards see what was sent, granted, given back and settled; adds those who must be
    /// told to `into`.
    pub fn publish_to_others(&mut self, into: &mut Vec<ShardId>) {
        self.core.lanes.publish(into);
    }

    /// Whether another shard has brought something. To be asked by a shard that has said that it
    /// sleeps (see `ring::Door`), before it does.
    pub fn has_news_from_others(&mut self) -> bool {
        let core = &mut self.core;
        core.lanes.has_news(&core.log)
    }

    /// Bytes came from a connection.
    pub fn on_bytes(&mut self, id: ConnId, bytes: &[u8]) {
        let Some(conn) = self.conns.get_mut(id.index()) else { return };
        conn.last_received_ns = self.core.clock.now_ns;
        // Nothing more is taken while stopping: each message would ask for one more commit.
        if conn.stage != Stage::Open || (self.core.stopping && mqtt::is_connected(conn)) {
            return;
        }
        match conn.role {
            Role::Mqtt(_) => {
                self.core.options.metrics.mqtt.bytes_in.add(bytes.len() as u64);
                self.core.mqtt_bytes(id, conn, bytes);
            }
            Role::Kafka(_) => {
                self.core.options.metrics.kafka.bytes_in.add(bytes.len() as u64);
                self.core.kafka_bytes(id, conn, bytes);
            }
        }
        self.close_taken_over();
    }

    /// The peer ended its side, or the connection broke.
    pub fn on_end(&mut self, id: ConnId) {
        let Some(conn) = self.conns.get_mut(id.index()) else { return };
        match conn.stage {
            // What it sent before is taken first; receiving again then meets the end again.
            Stage::Open if mqtt::is_held(conn) => conn.receiving = false,
            Stage::Open => self.core.close(id, conn, Close::Lost),
            Stage::Lingering => self.core.close_now(id, conn),
            Stage::Closing => {}
        }
    }

    /// `bytes` of what [`Shard::take_output`] gave are sent.
    pub fn on_sent(&mut self, id: ConnId, bytes: usize) {
        let Some(conn) = self.conns.get_mut(id.index()) else { return };
        conn.in_flight_bytes -= bytes.min(conn.in_flight_bytes);
        match conn.role {
            Role::Mqtt(_) => self.core.options.metrics.mqtt.bytes_out.add(bytes as u64),
            Role::Kafka(_) => {
                self.core.options.metrics.kafka.bytes_out.add(bytes as u64);
                if conn.stage == Stage::Open {
                    self.core.kafka_bytes(id, conn, &[]);
                }
            }
        }
    }

    /// The driver has closed the socket; its number may be used again.
    pub fn on_closed(&mut self, id: ConnId) {
        if let Some(conn) = self.conns.try_remove(id.index()) {
            match conn.role {
                Role::Mqtt(_) => self.core.options.metrics.mqtt.connections.sub(1),
                Role::Kafka(_) => self.core.options.metrics.kafka.connections.sub(1),
            }
        }
    }

    /// The bytes that wait to be sent to a connection; `spare` takes their place, its memory is
    /// used again.
    pub fn take_output(&mut self, id: ConnId, mut spare: Vec<u8>) -> Vec<u8> {
        spare.clear();
        let Some(conn) = self.conns.get_mut(id.index()) else { return spare };
        conn.send_asked = false;
        conn.in_flight_bytes += conn.out.len();
        std::mem::replace(&mut conn.out, spare)
    }

    /// When [`Shard::on_timer`] is due next, nanoseconds of the monotonic clock.
    pub fn next_timer_ns(&self) -> Option<u64> {
        self.core.timers.next_ns()
    }

    /// Does what is due by now.
    pub fn on_timer(&mut self) {
        while let Some((due_ns, id, serial)) = self.core.timers.pop_due(self.core.clock.now_ns) {
            let Some(conn) = self.conns.get_mut(id.index()) else { continue };
            // An entry that an earlier one has replaced is nobody's any more.
            if conn.serial == serial && conn.timer_ns == Some(due_ns) {
                self.core.on_due(id, conn);
            }
        }
    }

    /// Seals what waits into `out`; see [`Log::seal`].
    pub fn seal(&mut self, out: &mut [u8]) -> Option<Commit> {
        let core = &mut self.core;
        let commit = core.log.seal(out, core.clock.wall_ms, core.clock.age_ms)?;
        if commit.record_count > 0 {
            core.oldest_committing_ns = core.oldest_waiting_ns.take();
        }
        let metrics = &core.options.metrics.log;
        metrics.commit_bytes.record(commit.bytes as u64);
        metrics.commit_records.record(commit.record_count);
        Some(commit)
    }

    /// What was sealed stands in `bytes`; there is room again for those who are held.
    pub fn on_sealed(&mut self, bytes: SharedBytes) {
        self.core.log.keep_sealed(bytes);
        self.on_progress();
        // First what others sent, and what is kept for them: the shard's own connections take what
        // they find.
        self.core.take_arrived();
        self.resume_held();
    }

    /// The commit under way is written. Whether it is complete.
    pub fn on_written(&mut self) -> bool {
        let complete = self.core.log.on_written();
        if complete {
            self.on_committed();
        }
        self.on_progress();
        complete
    }

    /// The commit under way is flushed.
    pub fn on_flushed(&mut self) {
        self.core.log.on_flushed();
        self.core.options.metrics.log.flushes.increment();
        self.on_committed();
        self.on_progress();
    }

    fn on_committed(&mut self) {
        let core = &mut self.core;
        core.options.metrics.log.commits.increment();
        if let Some(oldest) = core.oldest_committing_ns.take() {
            let ns = core.clock.now_ns.saturating_sub(oldest);
            core.times.record(&core.options.metrics, Station::Commit, ns);
        }
    }

    /// Acknowledges and wakes whoever waited for what is committed now.
    fn on_progress(&mut self) {
        let mut advanced = std::mem::take(&mut self.core.advanced);
        self.core.log.take_advanced(&mut advanced);
        for (stream, partition) in advanced.drain(..) {
            self.core.publish_bounds(stream, partition);
            self.wake_fetches(stream, partition);
        }
        self.core.advanced = advanced;
        self.core.lanes.arriving.settle(&self.core.log);
        self.acknowledge();
    }

    /// Lets go of what retention no longer keeps, and has cleaned what is worth it.
    pub fn expire(&mut self, needs: &Needs) {
        let clock = self.core.clock;
        self.core.log.expire(clock.age_ms, needs);
        if !self.core.stopping {
            self.core.log.clean(clock.wall_ms, clock.age_ms, needs);
        }
        self.core.publish_log();
    }

    /// Publishes the lanes' state and the next station's quantiles; to be called every 200 ms or so.
    pub fn publish_metrics(&mut self) {
        self.core.lanes.publish_metrics(&self.core.options.metrics);
        self.core.times.publish_next(&self.core.options.metrics);
        if let Some(rules) = &mut self.core.rules {
            rules.refresh();
        }
    }

    /// Connections that are not closed yet.
    pub fn connections(&self) -> usize {
        self.conns.len()
    }
}

/// The label under which a violation is counted.
fn label_of(reject: station::Reject) -> Reject {
    Reject::from_label(reject.label()).unwrap_or(Reject::Other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_violation_has_a_label_of_its_own() {
        for reject in station::Reject::ALL {
            assert_ne!(label_of(reject), Reject::Other, "{}", reject.label());
        }
    }
}
