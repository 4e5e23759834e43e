//! What a test chooses, and what the shards are told: as the configuration would allow it, but as
//! small as its relations let it be, so that whatever can run out does.

use std::sync::Arc;

use tidegate::ingest::mqtt;
use tidegate::log::start::{StreamWanted, Wanted};
use tidegate::log::{self, Log, StreamOptions};
use tidegate::observe::ShardMetrics;
use tidegate::record::{
    Compression, Durability, PartitionBy, PartitionId, ShardId, StreamId, StreamName, partition_of,
};
use tidegate::serve::kafka;
use tidegate::shard::{Change, Options, Rules, Shard, Way};
use tidegate::transform::rules::{Limits, plan};
use tidegate::transform::{Rulebook, TopicTable};

use crate::random::Random;
use crate::world::Begun;

/// Bytes that a record costs beyond its packet at the most: the topic and the client identifier are
/// short here, the properties few.
const RECORD_OVERHEAD: usize = 384;
pub const BLOCK: usize = 512;

/// One stream.
#[derive(Debug, Clone, Copy)]
pub struct Stream {
    pub filter: &'static str,
    pub by: PartitionBy,
    pub durability: Durability,
    pub compression: Compression,
    /// At the start a rule fills it; with the same records as the stream's own filter would.
    pub by_rule: bool,
}

/// A stream's partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place {
    pub stream: usize,
    pub partition: u32,
}

#[derive(Debug, Clone)]
pub struct Setup {
    pub shards: u32,
    /// Partitions of a directory that there is; else they follow from the shards.
    pub partitions_there: Option<u32>,
    pub streams: Vec<Stream>,
    pub packet_bytes_max: usize,
    pub ring_slots: usize,
    pub credit_bytes: usize,
    /// Bytes of the log's buffer beyond the least that the configuration allows.
    pub log_slack: usize,
    /// Segments are so many times as large as they have to be.
    pub segment_factor: u64,
    /// Segments are filled with zeros ahead, and used again.
    pub zeros: bool,
    /// What a shard keeps of each stream, in bytes and milliseconds; `None` is all. The last of
    /// several streams is kept whole.
    pub retention: Option<(u64, u64)>,
    /// The first stream is compacted, and keeps tombstones so many milliseconds.
    pub compaction: Option<u64>,
    /// Keys that a compaction looks at in one pass.
    pub compact_keys_max: usize,
    /// Of what is cleaned at most so much is alive, in percent.
    pub clean_live_max_percent: u32,
    /// Sealed bytes stay in memory for readers at the tail.
    pub tail_cache: bool,
    /// Receive buffers: so many times four for each other shard.
    pub receive_factor: u16,
    pub receive_bytes: usize,
    pub receive_maximum: u16,
    /// Unacknowledged messages beyond the window of MQTT 5.
    pub unacknowledged_slack: u32,
    pub held_bytes_max: usize,
}

impl Default for Setup {
    fn default() -> Self {
        let stream = |filter, by, durability| Stream {
            filter,
            by,
            durability,
            compression: Compression::None,
            by_rule: false,
        };
        Self {
            shards: 2,
            partitions_there: None,
            streams: vec![stream("#", PartitionBy::Topic, Durability::Fsync)],
            packet_bytes_max: 2048,
            ring_slots: 8,
            credit_bytes: 1024,
            log_slack: 0,
            segment_factor: 3,
            zeros: true,
            retention: None,
            compaction: None,
            compact_keys_max: 1,
            clean_live_max_percent: 90,
            tail_cache: true,
            receive_factor: 1,
            receive_bytes: 256,
            receive_maximum: 16,
            unacknowledged_slack: 0,
            held_bytes_max: 1024,
        }
    }
}

impl Setup {
    pub fn partitions(&self) -> u32 {
        self.partitions_there.unwrap_or((4 * self.shards).next_power_of_two().max(8))
    }

    /// What a start wants of the directory.
    pub fn wanted(&self, wall_ms: i64) -> Wanted {
        let streams = self.streams.iter().enumerate().map(|(id, stream)| StreamWanted {
            name: stream_name(id),
            durability: stream.durability,
        });
        Wanted {
            shards: self.shards,
            partitions: None,
            partitions_of_new: self.partitions(),
            streams: streams.collect(),
            block: BLOCK,
            wall_ms,
        }
    }

    fn others(&self) -> usize {
        self.shards as usize - 1
    }

    /// The most that one record may cost; as `Config::record_bytes_max`.
    pub fn record_bytes_max(&self) -> usize {
        self.packet_bytes_max + self.packet_bytes_max / 128 + RECORD_OVERHEAD
    }

    /// As the configuration checks it: what is granted ahead and the largest message for all
    /// streams fit half of the buffer.
    pub fn log_buffer_bytes(&self) -> usize {
        let message = self.streams.len() * self.record_bytes_max();
        let alone = message.max(self.record_bytes_max() + 2 * BLOCK);
        let shared = match self.others() {
            0 => 0,
            others => 2 * (others * self.credit_bytes + message),
        };
        alone.max(shared) + self.log_slack
    }

    /// A power of two, as the kernel wants it.
    pub fn receive_buffers(&self) -> u16 {
        (4 * self.receive_factor * self.others().max(1) as u16).next_power_of_two()
    }

    /// Receive buffers that records on their way may keep.
    pub fn pinned_buffers_max(&self) -> usize {
        let others = self.others().max(1);
        (usize::from(self.receive_buffers()) / 2 / others).max(1) * others
    }

    pub fn unacknowledged_max(&self) -> u32 {
        u32::from(self.receive_maximum) + self.unacknowledged_slack
    }

    /// Where a message belongs.
    pub fn places(&self, client_id: &str, topic: &str) -> Vec<Place> {
        let streams = self.streams.iter().enumerate();
        let wanted = streams.filter(|(_, stream)| matches(stream.filter, topic));
        let place = |(index, stream): (usize, &Stream)| {
            let key = if stream.by == PartitionBy::Topic { topic } else { client_id };
            let partition = partition_of(key.as_bytes(), self.partitions()).0;
            Place { stream: index, partition }
        };
        wanted.map(place).collect()
    }

    /// Whether of a stream only the newest record of each key is kept.
    pub fn is_compacted(&self, stream: usize) -> bool {
        self.compaction.is_some() && stream == 0
    }

    /// Which shard owns a place.
    pub fn owner(&self, place: Place) -> usize {
        PartitionId(place.partition).owner(self.shards).index()
    }

    /// What the log of a shard is told.
    pub fn log(&self, shard: u32, begun: &Begun) -> log::Options {
        let stream = |(number, stream): (usize, &Stream)| {
            // The last of several is kept for ever: what is left of it is copied forward.
            let all = number > 0 && number + 1 == self.streams.len();
            let compaction = self.compaction.filter(|_| self.is_compacted(number));
            let limited = !all && compaction.is_none();
            let kept = self.retention.filter(|_| limited).unwrap_or((u64::MAX, u64::MAX));
            StreamOptions {
                durability: stream.durability,
                compression: stream.compression,
                retention_bytes: kept.0,
                retention_ms: kept.1,
                compaction,
            }
        };
        let mut options = log::Options {
            generation: begun.generation,
            shard: ShardId(shard),
            shards: self.shards,
            partitions: self.partitions(),
            leader_epoch: begun.starts,
            block: BLOCK,
            segment_bytes: 0,
            buffer_bytes: self.log_buffer_bytes(),
            batch_bytes_max: self.record_bytes_max(),
            tail_cache_bytes: if self.tail_cache { self.log_buffer_bytes() } else { 0 },
            read_cache_bytes: self.log_buffer_bytes(),
            read_bytes: 4 * BLOCK,
            segments_ahead: 1,
            clean_live_max_percent: self.clean_live_max_percent,
            compact_keys_max: self.compact_keys_max,
            streams: self.streams.iter().enumerate().map(stream).collect(),
        };
        options.segment_bytes = options.segment_bytes_min() * self.segment_factor;
        options
    }

    pub fn limits(&self) -> mqtt::Limits {
        mqtt::Limits {
            packet_bytes_max: self.packet_bytes_max as u32,
            receive_maximum: self.receive_maximum,
            ..mqtt::Limits::default()
        }
    }

    /// A shard with its ways to the others.
    pub fn shard(&self, shard: u32, ways: Vec<Way>, begun: &Begun) -> (Shard, Arc<ShardMetrics>) {
        let here = ShardId(shard);
        let metrics =
            ShardMetrics::new(self.shards, self.streams.len(), self.partitions() as usize);
        let metrics = Arc::new(metrics);
        let nodes = (0..self.shards).map(|shard| kafka::Node {
            shard: ShardId(shard),
            host: "127.0.0.1".into(),
            port: 9092 + shard as u16,
        });
        let streams = (0..self.streams.len()).map(|id| kafka::Stream {
            id: StreamId(id as u32),
            name: stream_name(id),
            uuid: uuid::Uuid::from_u128(id as u128 + 1),
        });
        let cluster = kafka::Cluster::new(
            "c",
            here,
            nodes.collect(),
            streams.collect(),
            self.partitions(),
            begun.starts,
        );
        let by_rule: Vec<_> = self.streams.iter().map(|stream| stream.by_rule).collect();
        let (topics, rules) = self.topics(&by_rule);
        let options = Options {
            shard: here,
            shards: self.shards,
            partitions: self.partitions(),
            mqtt: self.limits(),
            connect_timeout_ns: u64::MAX / 2,
            unacknowledged_max: self.unacknowledged_max(),
            mqtt_send_bytes_max: 1 << 20,
            held_bytes_max: self.held_bytes_max,
            kafka: kafka::Limits::default(),
            kafka_send_bytes_max: 1 << 20,
            rules,
            topics: topics.of_version(1),
            partition_by: self.streams.iter().map(|stream| stream.by).collect(),
            ring_slots: self.ring_slots,
            ring_credit_bytes: self.credit_bytes as u64,
            receive_buffers: u32::from(self.receive_buffers()),
            cluster,
            metrics: Arc::clone(&metrics),
        };
        let log = Log::new(self.log(shard, begun), &begun.recovered, &begun.needs, begun.seed);
        (Shard::new(options, log, ways, u64::from(shard)), metrics)
    }
}

impl Setup {
    /// What feeds each stream: its own filter, or a rule that makes the same records.
    fn topics(&self, by_rule: &[bool]) -> (TopicTable, Option<Rulebook>) {
        let streams = || self.streams.iter().zip(by_rule).enumerate();
        let filters = streams().filter(|(_, (_, by_rule))| !**by_rule);
        let filters = filters.map(|(id, (s, _))| (s.filter.to_owned(), StreamId(id as u32)));
        let ruled: Vec<_> = streams().filter(|(_, (_, by_rule))| **by_rule).collect();
        let rule = |(id, (stream, _)): &(usize, (&Stream, &bool))| {
            let (with, by) = match stream.by {
                PartitionBy::Client => ("", ""),
                PartitionBy::Topic => ("", " PARTITION BY topic()"),
                PartitionBy::None => (" WITH (key = NULL)", ""),
            };
            format!("CREATE STREAM s{id}{with} AS SELECT * FROM '{}'{by};", stream.filter)
        };
        let sql = ruled.iter().map(rule).collect();
        let plan = plan(&[("rules".to_owned(), sql)], &[]).expect("right rules");
        let topics = TopicTable::with_rules(filters.collect(), plan.filters());
        let streams = ruled.iter().map(|(id, _)| StreamId(*id as u32)).collect();
        let limits = Limits { records_max: usize::MAX, bytes_max: usize::MAX };
        // No rule fails, so nothing is a dead letter.
        let rules = Rulebook::new(Arc::new(plan), streams, StreamId(u32::MAX), limits);
        (topics, (!ruled.is_empty()).then_some(rules))
    }

    /// Other rules for a shard, which make the same records: which streams rules fill, at random.
    pub fn rules(&self, version: u64, random: &mut Random) -> Change {
        let by_rule: Vec<_> = self.streams.iter().map(|_| random.one_in(2)).collect();
        let (topics, rules) = self.topics(&by_rule);
        Change::Rules(Box::new(Rules { topics: topics.of_version(version), rules, version }))
    }
}

fn stream_name(id: usize) -> StreamName {
    StreamName::try_from(format!("s{id}")).expect("a valid name")
}

/// Whether a filter wants a topic of as many levels; `#` stands last.
fn matches(filter: &str, topic: &str) -> bool {
    let levels: Vec<_> = topic.split('/').collect();
    let patterns: Vec<_> = filter.split('/').collect();
    let whole = patterns.last() == Some(&"#") || patterns.len() == levels.len();
    whole && patterns.iter().zip(&levels).all(|(p, l)| ["#", "+", l].contains(p))
}
