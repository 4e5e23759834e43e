//! The driver's part, with memory instead of I/O: what `src/driver` does with a shard, done at once.
//!
//! In: packets as devices and consumers send them. Out: a [`Shard`] that is driven as the driver
//! drives it, and what it said. It allocates nothing itself once its buffers have grown: commit
//! buffers come from a pool that is made at the start, send buffers go back to their connection, as
//! in the driver. So whatever is allocated while it runs, the stations have allocated.

use std::rc::Rc;
use std::sync::Arc;

use tidegate::ingest::mqtt;
use tidegate::log::recovery::Recovered;
use tidegate::log::{self, Log, Needs, StreamOptions};
use tidegate::observe::ShardMetrics;
use tidegate::record::{
    Compression, Durability, PartitionBy, PartitionId, ShardId, StreamId, StreamName,
};
use tidegate::serve::kafka;
use tidegate::shard::{Clock, ConnId, Options, Protocol, Request, Shard};
use tidegate::transform::rules::tables::Text;
use tidegate::transform::rules::{self, Limits, Plan};
use tidegate::transform::{Rulebook, TopicTable};

pub const PARTITIONS: u32 = 4;
const MIB: usize = 1 << 20;

/// What a test chooses; the rest is as the engine's defaults have it, but smaller.
#[derive(Clone)]
pub struct Setup {
    /// Topic filter, durability and compression of each stream.
    pub streams: Vec<(&'static str, Durability, Compression)>,
    pub segment_bytes: usize,
    pub buffer_bytes: usize,
    pub batch_bytes_max: usize,
    /// Rules; each has a stream without a filter of its own among the last ones.
    pub rules: &'static str,
    /// What stands in the file of every lookup table.
    pub table: &'static str,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            streams: vec![("#", Durability::Fsync, Compression::None)],
            segment_bytes: 4 * MIB,
            buffer_bytes: MIB / 2,
            batch_bytes_max: MIB / 4,
            rules: "",
            table: "",
        }
    }
}

impl Setup {
    /// The most that a commit takes: the buffer, and what frames and headers cost beyond it.
    fn commit_bytes_max(&self) -> usize {
        self.buffer_bytes + MIB / 4
    }

    fn log(&self) -> Log {
        let stream = |&(_, durability, compression): &(_, _, _)| StreamOptions {
            durability,
            compression,
            retention_bytes: u64::MAX,
            retention_ms: u64::MAX,
            compaction: None,
        };
        let options = log::Options {
            generation: 1,
            shard: ShardId(0),
            shards: 1,
            partitions: PARTITIONS,
            leader_epoch: 1,
            block: 4096,
            segment_bytes: self.segment_bytes as u64,
            buffer_bytes: self.buffer_bytes,
            batch_bytes_max: self.batch_bytes_max,
            tail_cache_bytes: 3 * self.commit_bytes_max(),
            read_cache_bytes: MIB,
            read_bytes: MIB / 4,
            segments_ahead: 1,
            clean_live_max_percent: 0,
            compact_keys_max: 1,
            streams: self.streams.iter().map(stream).collect(),
        };
        let durabilities: Vec<_> = self.streams.iter().map(|stream| stream.1).collect();
        let mut recovered = Recovered::default();
        recovered.reserve(&durabilities, PARTITIONS);
        Log::new(options, &recovered, &Needs::default(), 7)
    }

    /// The streams of rules come last, the dead letters behind them.
    fn rulebook(&self, plan: &Arc<Plan>) -> Option<Rulebook> {
        let id = |from_end: usize| StreamId((self.streams.len() - from_end) as u32);
        let streams = (0..plan.rules.len()).rev().map(|rule| id(rule + 2)).collect();
        let limits = Limits { records_max: 512, bytes_max: self.batch_bytes_max / 2 };
        (!plan.rules.is_empty()).then(|| Rulebook::new(Arc::clone(plan), streams, id(1), limits))
    }

    fn options(&self, metrics: Arc<ShardMetrics>) -> Options {
        let name = |id: usize| StreamName::try_from(format!("s{id}")).expect("a valid name");
        let streams = (0..self.streams.len()).map(|id| kafka::Stream {
            id: StreamId(id as u32),
            name: name(id),
            uuid: uuid::Uuid::from_u128(id as u128 + 1),
        });
        let node = kafka::Node { shard: ShardId(0), host: "127.0.0.1".into(), port: 9092 };
        let here = ShardId(0);
        let filters = self.streams.iter().enumerate();
        let plan = Arc::new(
            rules::plan_with(&[("rules".to_owned(), self.rules.to_owned())], &[], &|_, _| {
                Ok(Text { bytes: self.table.into(), ..Text::default() })
            })
            .expect("rules that are right"),
        );
        Options {
            shard: here,
            shards: 1,
            partitions: PARTITIONS,
            mqtt: mqtt::Limits::default(),
            connect_timeout_ns: u64::MAX / 2,
            unacknowledged_max: 4096,
            mqtt_send_bytes_max: MIB / 4,
            held_bytes_max: MIB / 4,
            kafka: kafka::Limits::default(),
            kafka_send_bytes_max: 16 * MIB,
            rules: self.rulebook(&plan),
            topics: TopicTable::with_rules(
                filters
                    .filter(|(_, stream)| !stream.0.is_empty())
                    .map(|(id, stream)| (stream.0.to_owned(), StreamId(id as u32)))
                    .collect(),
                plan.filters(),
            ),
            partition_by: vec![PartitionBy::Client; self.streams.len()],
            ring_slots: 1024,
            ring_credit_bytes: 64 << 10,
            receive_buffers: 512,
            cluster: kafka::Cluster::new("c", here, vec![node], streams.collect(), PARTITIONS, 1),
            metrics,
        }
    }
}

/// What a socket of the driver keeps.
#[derive(Default)]
struct Socket {
    spare: Vec<u8>,
    /// Bytes sent to this peer, and the first few of the last time.
    sent_bytes: usize,
    closed: bool,
}

/// A shard, and everything that the driver keeps beside it.
pub struct Rig {
    pub shard: Shard,
    pub metrics: Arc<ShardMetrics>,
    pub segments_begun: usize,
    sockets: Vec<Socket>,
    requests: Vec<Request>,
    log_requests: Vec<log::Request>,
    /// Commit buffers; one is free when the log's tail has let go of it.
    buffers: Vec<Rc<Vec<u8>>>,
    clock: Clock,
}

impl Rig {
    pub fn new(setup: &Setup) -> Self {
        let metrics = Arc::new(ShardMetrics::new(1, setup.streams.len(), PARTITIONS as usize));
        let shard = Shard::new(setup.options(Arc::clone(&metrics)), setup.log(), Vec::new(), 1);
        let buffer = || Rc::new(vec![0; setup.commit_bytes_max()]);
        let mut rig = Self {
            shard,
            metrics,
            segments_begun: 0,
            sockets: Vec::new(),
            requests: Vec::new(),
            log_requests: Vec::new(),
            buffers: (0..6).map(|_| buffer()).collect(),
            clock: Clock { now_ns: 1, wall_ms: 1_700_000_000_000, age_ms: 0 },
        };
        rig.answer();
        rig
    }

    /// An accepted connection.
    pub fn accept(&mut self, protocol: Protocol) -> ConnId {
        let id = self.shard.on_accepted(protocol);
        self.sockets.resize_with(self.sockets.len().max(id.index() + 1), Socket::default);
        self.answer();
        id
    }

    /// A connected MQTT client; `version` is 4 or 5.
    pub fn connect(&mut self, version: u8, client_id: &str) -> ConnId {
        let id = self.accept(Protocol::Mqtt);
        self.receive(id, &connect(version, client_id), usize::MAX);
        assert!(self.sent_bytes(id) >= 4, "no CONNACK for {client_id}");
        id
    }

    /// Bytes come from a connection, in receive buffers of `buffer_bytes`.
    pub fn receive(&mut self, id: ConnId, bytes: &[u8], buffer_bytes: usize) {
        for buffer in bytes.chunks(buffer_bytes) {
            self.tick();
            self.shard.on_bytes(id, buffer);
        }
        self.answer();
    }

    /// Seals, writes and flushes what has gathered, if anything has.
    pub fn commit(&mut self) -> bool {
        self.tick();
        let Some(bytes) = self.shard.log().commit_bytes() else { return false };
        let buffer = self.buffers.iter_mut().find(|buffer| Rc::strong_count(buffer) == 1);
        let buffer = buffer.expect("the tail lets go of what is old");
        let out = Rc::get_mut(buffer).expect("nobody else holds it");
        let sealed = self.shard.seal(&mut out[..bytes]).expect("commit_bytes said so");
        self.segments_begun += usize::from(sealed.position == 0);
        let buffer = Rc::clone(buffer);
        self.shard.on_sealed(buffer);
        self.answer();
        if !self.shard.on_written() {
            self.shard.on_flushed();
        }
        self.answer();
        true
    }

    /// Commits until nothing waits.
    pub fn settle(&mut self) {
        while self.commit() {}
        assert!(self.shard.log().is_quiet());
    }

    /// What the driver's loop does now and then.
    pub fn keep_house(&mut self) {
        self.shard.on_timer();
        self.shard.publish_metrics();
        self.answer();
    }

    /// Bytes sent to a peer so far.
    pub fn sent_bytes(&self, id: ConnId) -> usize {
        assert!(!self.sockets[id.index()].closed, "the shard closed the connection");
        self.sockets[id.index()].sent_bytes
    }

    /// PUBLISH packets taken, and PUBACKs sent.
    pub fn messages(&self) -> (u64, u64) {
        let metrics = &self.metrics.mqtt;
        (metrics.messages.iter().map(|count| count.value()).sum(), metrics.pubacks.value())
    }

    /// The committed end of a partition.
    pub fn end(&mut self, stream: u32, partition: u32) -> u64 {
        let bounds = self.shard.log().bounds(StreamId(stream), PartitionId(partition));
        bounds.expect("the only shard owns it").committed.end().0
    }

    fn tick(&mut self) {
        self.clock.now_ns += 1_000;
        self.clock.age_ms = self.clock.now_ns / 1_000_000;
        self.shard.set_clock(self.clock);
    }

    /// Does at once what the shard and its log ask for.
    fn answer(&mut self) {
        loop {
            self.shard.take_requests(&mut self.requests);
            self.shard.log().take_requests(&mut self.log_requests);
            if self.requests.is_empty() && self.log_requests.is_empty() {
                return;
            }
            for request in self.requests.drain(..) {
                match request {
                    Request::Send(id) => send(&mut self.shard, &mut self.sockets[id.index()], id),
                    Request::Close(id) => self.sockets[id.index()].closed = true,
                    Request::HandOff { .. } => unreachable!("there is one shard"),
                    Request::ReceiveOnce(_) | Request::Receive(_) => {}
                    Request::StopReceiving(_) | Request::ShutDown(_) => {}
                }
            }
            for request in self.log_requests.drain(..) {
                let log = self.shard.log();
                match request {
                    log::Request::MakeSegment(key) => log.on_segment_ready(key),
                    log::Request::WriteIndex { key, .. } => log.on_index_written(key),
                    log::Request::Read(read) => panic!("read from disk: {read:?}"),
                    log::Request::Delete(_)
                    | log::Request::SaveStarts(_)
                    | log::Request::Clean(_) => {
                        panic!("nothing expires")
                    }
                }
            }
        }
    }
}

/// Sends, and gives the memory back, as the driver does.
fn send(shard: &mut Shard, socket: &mut Socket, id: ConnId) {
    let sent = shard.take_output(id, std::mem::take(&mut socket.spare));
    socket.sent_bytes += sent.len();
    shard.on_sent(id, sent.len());
    socket.spare = sent;
}

fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    let mut rest = body.len();
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
    out.extend_from_slice(body);
    out
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// A CONNECT with a clean session and no keep alive; `version` is 4 or 5.
pub fn connect(version: u8, client_id: &str) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, "MQTT");
    body.extend_from_slice(&[version, 2, 0, 0]);
    if version == 5 {
        body.push(0);
    }
    text(&mut body, client_id);
    packet(0x10, &body)
}

/// A PUBLISH; with `properties` (none: empty) it is MQTT 5's.
pub fn publish(topic: &str, qos: u8, properties: Option<&[u8]>, payload: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, topic);
    if qos > 0 {
        body.extend_from_slice(&7_u16.to_be_bytes());
    }
    if let Some(properties) = properties {
        assert!(properties.len() < 0x80, "one byte of length");
        body.push(properties.len() as u8);
        body.extend_from_slice(properties);
    }
    body.extend_from_slice(payload);
    packet(0x30 | qos << 1, &body)
}

/// MQTT 5 properties: a content type, two user properties, and a topic alias.
pub fn properties(alias: u8) -> Vec<u8> {
    let mut out = vec![0x03];
    text(&mut out, "application/json");
    for (name, value) in [("site", "plant-7"), ("unit", "celsius")] {
        out.push(0x26);
        text(&mut out, name);
        text(&mut out, value);
    }
    out.extend_from_slice(&[0x23, 0, alias]);
    out
}

/// A Fetch (version 11, what Debian's kcat asks with) of one partition of stream `s0`.
pub fn fetch(partition: u32, offset: u64, bytes_max: u32) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&[0, 1, 0, 11, 0, 0, 0, 9]); // Fetch, version, correlation id
    text(&mut body, "harness");
    let int = |out: &mut Vec<u8>, value: i32| out.extend_from_slice(&value.to_be_bytes());
    for value in [-1, 60_000, 1, i32::MAX] {
        int(&mut body, value); // replica, max wait, min bytes, max bytes
    }
    body.push(0); // isolation level
    for value in [0, -1, 1] {
        int(&mut body, value); // no session; one topic
    }
    text(&mut body, "s0");
    int(&mut body, 1);
    int(&mut body, partition as i32);
    int(&mut body, -1); // leader epoch
    body.extend_from_slice(&offset.to_be_bytes());
    body.extend_from_slice(&(-1_i64).to_be_bytes()); // log start
    int(&mut body, bytes_max as i32);
    int(&mut body, 0); // nothing forgotten
    text(&mut body, ""); // rack
    let mut out = (body.len() as u32).to_be_bytes().to_vec();
    out.extend_from_slice(&body);
    out
}
