//! The cells of one shard. Written by its thread, read by the control thread.
//!
//! Everything here begins on a line of its own (128 bytes: processors fetch lines in pairs), also
//! the rows on the heap, so that counting on one core never takes a line away from another.

use super::station::{Station, StationSummary};
use super::{
    BYTES, ByLabel, Close, Counter, Distribution, Gauge, HoldCause, KafkaApi, RECORDS, Reject,
    Rows, ShardState,
};
use crate::record::StreamId;

/// What one shard publishes.
#[derive(Debug)]
#[repr(align(128))]
pub struct ShardMetrics {
    /// MQTT connections and messages.
    pub mqtt: MqttMetrics,
    /// The shard's log.
    pub log: LogMetrics,
    /// The shard's Kafka node.
    pub kafka: KafkaMetrics,
    /// The ways between this shard and others.
    pub ring: RingMetrics,
    /// The shard's own loop.
    pub turns: LoopMetrics,
    /// By `Station::index`.
    pub stations: [StationSummary; Station::COUNT],
    /// By `StreamId::index`.
    pub streams: Rows<StreamMetrics>,
    /// Partitions that it owns of each stream.
    partitions: usize,
    /// Changes of streams and rules that it has taken.
    pub changes: Counter,
    /// Which rules it runs: 1 for those of the start, one more at each reload.
    pub rules_version: Gauge,
    state: Gauge,
}

/// MQTT connections and messages of one shard.
#[derive(Debug, Default)]
pub struct MqttMetrics {
    /// Connections open now.
    pub connections: Gauge,
    /// Sockets accepted by this shard.
    pub accepted: Counter,
    /// Connections closed, by reason.
    pub closed: ByLabel<Close, { Close::COUNT }>,
    /// Input rejected, by reason.
    pub rejects: ByLabel<Reject, { Reject::COUNT }>,
    /// Sessions that a second CONNECT took over.
    pub taken_over: Counter,
    /// PUBLISH packets taken in, by QoS 0, 1, 2.
    pub messages: [Counter; 3],
    /// Bytes received.
    pub bytes_in: Counter,
    /// Bytes sent.
    pub bytes_out: Counter,
    /// Messages that no stream wanted.
    pub unmatched: Counter,
    /// QoS 0 messages shed because the configuration says so.
    pub shed: Counter,
    /// PUBACKs sent.
    pub pubacks: Counter,
    /// Connections not read now.
    pub held: Gauge,
    /// How often a connection was held, by cause.
    pub holds: ByLabel<HoldCause, { HoldCause::COUNT }>,
}

/// One shard's log. Positions are bytes since the log's beginning.
#[derive(Debug)]
pub struct LogMetrics {
    /// Commits that are durable.
    pub commits: Counter,
    /// Bytes of each commit as written, padding included.
    pub commit_bytes: Distribution,
    /// Records of each commit.
    pub commit_records: Distribution,
    /// Flushes (fdatasync) that completed.
    pub flushes: Counter,
    /// Position up to which bytes are given to the log.
    pub appended: Gauge,
    /// Position up to which bytes are written.
    pub written: Gauge,
    /// Position up to which bytes are flushed.
    pub flushed: Gauge,
    /// Segments that hold data.
    pub segments: Gauge,
    /// Segments zero-filled and waiting.
    pub segments_ready: Gauge,
    /// How often the disk became full.
    pub disk_full_episodes: Counter,
    /// Places in which readers found something else than was written.
    pub damages: Counter,
    /// Moved segments that the cleaner wrote.
    pub moved_segments: Counter,
    /// Bytes that it read.
    pub clean_read_bytes: Counter,
    /// Bytes that it wrote.
    pub clean_written_bytes: Counter,
    /// Keys that compactions looked at.
    pub compacted_keys: Counter,
    /// Records that compactions took out.
    pub compacted_records: Counter,
    /// Jobs of the cleaner that ended early.
    pub clean_failures: Counter,
    /// Fetches that read from the disk.
    pub cold_reads: Counter,
    /// Bytes read from the disk for fetches.
    pub cold_read_bytes: Counter,
}

impl Default for LogMetrics {
    fn default() -> Self {
        Self {
            commits: Counter::new(),
            commit_bytes: Distribution::new(&BYTES),
            commit_records: Distribution::new(&RECORDS),
            flushes: Counter::new(),
            appended: Gauge::new(),
            written: Gauge::new(),
            flushed: Gauge::new(),
            segments: Gauge::new(),
            segments_ready: Gauge::new(),
            disk_full_episodes: Counter::new(),
            damages: Counter::new(),
            moved_segments: Counter::new(),
            clean_read_bytes: Counter::new(),
            clean_written_bytes: Counter::new(),
            compacted_keys: Counter::new(),
            compacted_records: Counter::new(),
            clean_failures: Counter::new(),
            cold_reads: Counter::new(),
            cold_read_bytes: Counter::new(),
        }
    }
}

/// One shard's Kafka node.
#[derive(Debug, Default)]
pub struct KafkaMetrics {
    /// Connections open now.
    pub connections: Gauge,
    /// Sockets accepted.
    pub accepted: Counter,
    /// Requests, by API.
    pub requests: ByLabel<KafkaApi, { KafkaApi::COUNT }>,
    /// Responses that carry an error code, by API; also requests that could not be read.
    pub errors: ByLabel<KafkaApi, { KafkaApi::COUNT }>,
    /// Bytes received.
    pub bytes_in: Counter,
    /// Bytes sent.
    pub bytes_out: Counter,
    /// Fetches that wait for data now.
    pub parked_fetches: Gauge,
}

/// The ways between this shard and others.
#[derive(Debug)]
pub struct RingMetrics {
    /// Connections handed to another shard.
    pub hand_offs: Counter,
    /// Wake-ups sent to a sleeping shard.
    pub wakes_sent: Counter,
    /// Records that came from other shards.
    pub arrived: Counter,
    /// Receive buffers that records on their way to other shards refer to.
    pub pinned_buffers: Gauge,
    /// The sender's side, by `ShardId::index` of the receiver; the shard's own row stays at 0.
    pub ways: Box<[WayMetrics]>,
}

/// The way from this shard to one other, as its sender sees it.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct WayMetrics {
    /// Records sent.
    pub records: Counter,
    /// Bytes of credit granted so far, as far as the sender has seen.
    pub granted_bytes: Counter,
    /// Bytes of credit spent so far.
    pub spent_bytes: Counter,
    /// How often a connection had to wait for credit or a slot.
    pub waits: Counter,
    /// Connections that wait now.
    pub held: Gauge,
    /// Records settled so far: the other shard has them as safe as their streams promise.
    pub settled: Counter,
}

impl RingMetrics {
    fn new(shards: u32) -> Self {
        Self {
            hand_offs: Counter::new(),
            wakes_sent: Counter::new(),
            arrived: Counter::new(),
            pinned_buffers: Gauge::new(),
            ways: (0..shards).map(|_| WayMetrics::default()).collect(),
        }
    }
}

/// The shard's own loop.
#[derive(Debug, Default)]
pub struct LoopMetrics {
    /// Turns of the loop.
    pub turns: Counter,
    /// How often the shard went to sleep.
    pub sleeps: Counter,
    /// How often it was woken by something else than its own timer.
    pub wakes: Counter,
    /// How often receive buffers ran out (ENOBUFS).
    pub buffers_exhausted: Counter,
}

/// One shard's part of one stream.
#[derive(Debug)]
#[repr(align(128))]
pub struct StreamMetrics {
    /// Records appended.
    pub records: Counter,
    /// Payload bytes appended.
    pub bytes_in: Counter,
    /// Bytes of record batches as stored, after compression.
    pub bytes_stored: Counter,
    /// What its rule does, where it has one.
    pub rule: RuleMetrics,
    /// By `PartitionId::row`.
    partitions: Box<[PartitionLine]>,
    partition_count: usize,
}

/// One rule on the shard where messages arrive.
#[derive(Debug, Default)]
pub struct RuleMetrics {
    /// Messages on its topics, or records of the stream that it reads.
    pub matched: Counter,
    /// Records that it made.
    pub passed: Counter,
    /// Messages and expressions that it could not evaluate.
    pub errors: Counter,
}

/// One partition of a stream, on the shard that owns it.
#[derive(Debug, Default)]
pub struct PartitionMetrics {
    /// First offset that can be read.
    pub log_start: Gauge,
    /// Offsets that damage took.
    pub fenced_offsets: Gauge,
    /// First offset that is not committed.
    pub high_watermark: Gauge,
}

/// As many partitions as fit a line.
#[derive(Debug, Default)]
#[repr(align(128))]
struct PartitionLine([PartitionMetrics; PARTITIONS_A_LINE]);

const PARTITIONS_A_LINE: usize = 5;

impl StreamMetrics {
    fn new(partition_count: usize) -> Self {
        let lines = partition_count.div_ceil(PARTITIONS_A_LINE);
        Self {
            records: Counter::new(),
            bytes_in: Counter::new(),
            bytes_stored: Counter::new(),
            rule: RuleMetrics::default(),
            partitions: (0..lines).map(|_| PartitionLine::default()).collect(),
            partition_count,
        }
    }

    /// The partition in `row` (`PartitionId::row`) of those that the shard owns.
    #[inline]
    pub fn partition(&self, row: usize) -> &PartitionMetrics {
        debug_assert!(row < self.partition_count);
        &self.partitions[row / PARTITIONS_A_LINE].0[row % PARTITIONS_A_LINE]
    }

    /// The partitions that the shard owns, by row.
    pub fn partitions(&self) -> impl Iterator<Item = &PartitionMetrics> {
        self.partitions.iter().flat_map(|line| &line.0).take(self.partition_count)
    }
}

impl ShardMetrics {
    /// Cells of one of `shards` shards for `streams` streams, of which it owns `partitions`
    /// partitions each.
    pub fn new(shards: u32, streams: usize, partitions: usize) -> Self {
        Self {
            mqtt: MqttMetrics::default(),
            log: LogMetrics::default(),
            kafka: KafkaMetrics::default(),
            ring: RingMetrics::new(shards),
            turns: LoopMetrics::default(),
            stations: std::array::from_fn(|_| StationSummary::default()),
            streams: Rows::new(streams, || StreamMetrics::new(partitions)),
            partitions,
            changes: Counter::new(),
            rules_version: Gauge::new(),
            state: Gauge::new(),
        }
    }

    /// Makes cells for so many streams; only ever called by the control plane.
    pub fn grow(&self, streams: usize) {
        self.streams.grow(streams, || StreamMetrics::new(self.partitions));
    }

    /// The cells of one stream.
    #[inline]
    pub fn stream(&self, stream: StreamId) -> &StreamMetrics {
        &self.streams[stream.index()]
    }

    /// Says what the shard is doing; only ever called on the shard's thread.
    pub fn enter(&self, state: ShardState) {
        self.state.set(state as u64);
    }

    /// What the shard said last.
    pub fn state(&self) -> ShardState {
        ShardState::from_cell(self.state.value())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_shards_share_a_line() {
        const LINE: usize = 128;
        assert_eq!(align_of::<ShardMetrics>() % LINE, 0);
        assert_eq!(align_of::<StreamMetrics>() % LINE, 0);
        assert_eq!(align_of::<WayMetrics>(), LINE);
        assert_eq!(size_of::<WayMetrics>(), LINE);
        assert_eq!(align_of::<PartitionLine>(), LINE);
        assert_eq!(size_of::<PartitionLine>(), LINE);
    }

    #[test]
    fn partitions_are_found_by_row() {
        let metrics = ShardMetrics::new(1, 2, 11);
        let stream = metrics.stream(StreamId(1));
        (0..11).for_each(|row| stream.partition(row).high_watermark.set(row as u64 + 100));
        let marks: Vec<u64> = stream.partitions().map(|p| p.high_watermark.value()).collect();
        assert_eq!(marks, (100..111).collect::<Vec<u64>>());
        assert!(metrics.stream(StreamId(0)).partitions().all(|p| p.high_watermark.value() == 0));
    }
}
