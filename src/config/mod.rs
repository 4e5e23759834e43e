//! What may be set, with defaults, limits and their relations.
//!
//! In: flags, the environment, a TOML file. Out: one checked [`Config`]. Runs once, at start; no
//! station sees the whole of it, each takes its own options. Units: amounts of bytes are `u64` on
//! disk and `usize` in memory, counts are `u16` or `u32`, times are `Duration`.
//!
//! Invariant: every limit of the engine is a key here, with its default, and [`Config::check`]
//! holds the relations between them. Deliberately absent: what only a running machine can tell
//! (cores present, ports taken, the disk, limits of the process); the engine asks for these.

mod check;
pub mod keys;
pub mod load;
pub mod print;
pub mod problem;
pub mod rules;
pub mod section;
mod setting;
mod values;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use section::section;

pub use check::BLOCK_BYTES;
pub use load::{Loaded, Origins, Sources, load};
pub use problem::Problem;
pub use rules::{Mistake, RuleSource};
pub use setting::{parse_duration, show_duration, show_size};
pub use values::{CoreSet, Prepare, Retention, Spin, TopicFilter};

use crate::record::{CleanupPolicy, Compression, Durability, PartitionBy, StreamName};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
const GIB: usize = 1 << 30;
const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

const fn loopback(port: u16) -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
}

section! {
    /// The engine as a whole.
    Config in "" {
        /// Directory of the logs. It is made where it is missing; a relative path starts at the
        /// directory in which tidegate is started.
        data_dir: PathBuf = PathBuf::from("tidegate-data"),
        /// Cores that run a shard each: `auto` (all that the process may use, physical cores first,
        /// affinity mask and cgroup quota obeyed) or a list such as `0,2-5`.
        cores: CoreSet = CoreSet::Auto,
        /// Number of shards, where it is not to be the number of cores: more shards than cores
        /// share them, for tests.
        shards: Option<u32> = None; Some(1)..=Some(256),
        /// Number of partitions of every stream. Fixed when the data directory is created. Not set:
        /// the power of two at or above 4 × shards, at least 8.
        partitions: Option<u32> = None; Some(1)..=Some(4096),
        /// How long a shard polls before it sleeps: `off`, a duration such as `50us`, or `always`
        /// (the core is then always busy).
        spin: Spin = Spin::Off,
        /// Files of rules (docs/rules.md), such as `rules/*.sql`; a relative path starts at the
        /// directory of the configuration file. Their streams stand beside those named here. SIGHUP
        /// reads the files again.
        rules: Vec<String> = Vec::new(),
    }
    tables {
        /// The MQTT side.
        mqtt: Mqtt = Mqtt::default(),
        /// The Kafka side.
        kafka: Kafka = Kafka::default(),
        /// The control plane.
        http: Http = Http::default(),
        /// The logs.
        log: Log = Log::default(),
        /// The rings between shards.
        ring: Ring = Ring::default(),
        /// The receive buffers.
        receive: Receive = Receive::default(),
        /// The streams, at least one, each name once. A stream's index here is not its `StreamId`.
        streams: Vec<Stream> = vec![Stream::default()],
    }
}

section! {
    /// MQTT: where devices connect, and what one connection may use.
    Mqtt in "mqtt" {
        /// Address and port. Anyone who reaches it may publish: there is no authentication yet.
        listen: SocketAddr = loopback(1883),
        /// Connections at a time, in the whole engine; further ones are refused.
        connections_max: u32 = 20_000; 1..=10_000_000,
        /// Largest MQTT packet in bytes; a larger one closes its connection.
        packet_bytes_max: usize = MIB; KIB..=256 * MIB,
        /// A connection that has sent no CONNECT within this time is closed.
        connect_timeout: Duration = 10 * SECOND; SECOND..=600 * SECOND,
        /// Longest keep-alive, in whole seconds. A device that asks for more, or for none, gets this
        /// one (MQTT 5: Server Keep Alive); `0s` allows any.
        keep_alive_max: Duration = Duration::ZERO; Duration::ZERO..=65_535 * SECOND,
        /// MQTT 5 Receive Maximum: messages of one connection that may wait for their
        /// acknowledgement; one more closes it, as the specification has it.
        receive_maximum: u16 = 1024; 1..=65_535,
        /// The same for MQTT 3.1.1, which has no Receive Maximum: at this number of unacknowledged
        /// messages nothing more is taken from the connection until some are acknowledged.
        unacknowledged_max: u32 = 4096; 1..=1_000_000,
        /// MQTT 5 Topic Alias Maximum: aliases that one connection may set; 0 allows none.
        topic_alias_maximum: u16 = 16,
        /// Bytes that may wait to be sent to one connection that does not read; beyond it is closed.
        send_bytes_max: usize = 256 * KIB; KIB..=64 * MIB,
        /// Bytes read from a connection whose messages wait for room in the log, so that its
        /// PINGREQ is seen; beyond, it is not read until there is room.
        held_bytes_max: usize = 256 * KIB; KIB..=256 * MIB,
    }
}

section! {
    /// Kafka: where consumers connect, and what one connection may use.
    Kafka in "kafka" {
        /// Address and first port: shard s listens on port + s, each shard a Kafka node of its own.
        listen: SocketAddr = loopback(9092),
        /// Host name or address that clients are told to connect to, without a port, for clients on
        /// other hosts. Not set: the address of `listen`.
        advertise: Option<String> = None,
        /// Connections at a time, in the whole engine; further ones are closed.
        connections_max: u32 = 1000; 1..=1_000_000,
        /// Largest request in bytes; a larger one closes its connection.
        request_bytes_max: usize = MIB; 4 * KIB..=100 * MIB,
        /// Largest answer to one Fetch in bytes, whatever the consumer asks for.
        fetch_bytes_max: usize = 8 * MIB; 64 * KIB..=GIB,
        /// Bytes that may wait to be sent to one connection; beyond, its further requests wait.
        send_bytes_max: usize = 16 * MIB; 64 * KIB..=2 * GIB,
    }
}

section! {
    /// HTTP: health, readiness and metrics.
    Http in "http" {
        /// Address and port of /healthz, /readyz, /metrics and /api.
        listen: SocketAddr = loopback(8080),
    }
}

section! {
    /// The log, one a shard: sizes on disk and in memory. Memory amounts are for each shard.
    Log in "log" {
        /// Size of a segment file in bytes, a multiple of 4096. Disk space comes free by segments.
        segment_bytes: u64 = 64 * MIB as u64; MIB as u64..=2 * GIB as u64,
        /// Segments made ready ahead of the one that is written.
        segments_ahead: u32 = 2; 1..=64,
        /// How segments are made ready: `zero` (filled with zeros ahead, a commit overwrites),
        /// `append` (a commit extends the file), or `auto` (what the probe at start finds faster).
        prepare: Prepare = Prepare::Auto,
        /// Bytes of records gathered for the next commit while one is under way; when it is full,
        /// publishers are held back.
        buffer_bytes: usize = 16 * MIB; 256 * KIB..=GIB,
        /// Largest record batch in bytes, headers included.
        batch_bytes_max: usize = 2 * MIB; 64 * KIB..=GIB,
        /// Bytes of the newest batches kept in memory for consumers that follow live.
        tail_cache_bytes: usize = 32 * MIB; 64 * KIB..=64 * GIB,
        /// Bytes of older batches read from disk that are kept for consumers that catch up.
        read_cache_bytes: usize = 16 * MIB; 64 * KIB..=64 * GIB,
        /// Space on the file system that is always left free: no segment is made that would take it.
        reserve_bytes: u64 = 256 * MIB as u64; 0..=1 << 50,
        /// Share of the file system that all streams without `retention_bytes` may take together.
        disk_share: f64 = 0.5; 0.01..=1.0,
        /// Segments of which no more than this percentage is still needed are cleaned: what is needed
        /// is copied, and their space comes free. 0 copies nothing: then one old record keeps every
        /// segment behind it.
        clean_live_max_percent: u32 = 50; 0..=90,
        /// Bytes a second that the cleaner reads and writes at the most, in the whole engine.
        clean_bytes_per_second: u64 = 32 * MIB as u64; 64 * KIB as u64..=1 << 40,
        /// Keys that compaction keeps in memory at a time, some 50 bytes each, once in the engine.
        /// More keys take more passes over the partition.
        compact_keys_max: u32 = 1_000_000; 1..=1_000_000_000,
    }
}

section! {
    /// Rings between shards, one for each ordered pair: what goes to a partition that another shard
    /// owns (`partition_by`) crosses one. With one shard there are none.
    Ring in "ring" {
        /// Records that may be under way from one shard to one other, a power of two.
        slots: u32 = 1024; 16..=65_536,
        /// Bytes of records that a shard always grants each other shard ahead: so much room of its
        /// log buffer is kept for each. A larger record is granted when there is room.
        credit_bytes: usize = 64 * KIB; 4 * KIB..=64 * MIB,
    }
}

section! {
    /// Receive buffers that the kernel fills, for each shard; an idle connection holds none.
    Receive in "receive" {
        /// Size of one buffer in bytes.
        buffer_bytes: usize = 16 * KIB; KIB..=MIB,
        /// Buffers for MQTT connections, a power of two.
        buffers: u32 = 512; 1..=32_768,
        /// Buffers for Kafka connections, a power of two.
        kafka_buffers: u32 = 32; 1..=32_768,
    }
}

section! {
    /// A stream: a Kafka topic that is fed by MQTT topics. Without any there is one, `telemetry`,
    /// fed by every topic.
    Stream in "stream" {
        /// Name: 1 to 249 letters, digits, `.`, `_` or `-`.
        name: StreamName = default_stream_name(),
        /// MQTT topic filters that feed it: `+` stands for one level, a last `#` for the rest.
        topics: Vec<TopicFilter> = vec![TopicFilter::all()],
        /// What an acknowledgement promises: `fsync` (written and flushed, survives a power cut),
        /// `write` (written, survives the process) or `memory` (neither).
        durability: Durability = Durability::Fsync,
        /// Compression of its batches in the log and to consumers: `none` or `lz4`.
        compression: Compression = Compression::None,
        /// What the key of its records is, and so what decides on their partition, within which they
        /// are in order: `client` (the client id), `topic` (the MQTT topic, whichever client sends
        /// it) or `none` (no key, and the partition of the client that sends it).
        partition_by: PartitionBy = PartitionBy::Client,
        /// What goes: `delete` (what is older or more than is kept) or `compact` (of each key all
        /// records but the newest, whatever their age). In a compacted stream a message without
        /// payload deletes its key: it is a tombstone.
        cleanup_policy: CleanupPolicy = CleanupPolicy::Delete,
        /// How long a compacted stream keeps tombstones, so that consumers see them.
        tombstone_retention: Duration = DAY; SECOND..=3650 * DAY,
        /// Age at which records may go, or `forever`.
        retention: Retention = Retention::Age(7 * DAY);
            Retention::Age(SECOND)..=Retention::Forever,
        /// Bytes on disk above which the oldest records go, all partitions together. Not set: its
        /// part of `log.disk_share`.
        retention_bytes: Option<u64> = None; Some(MIB as u64)..=Some(1 << 50),
    }
}

/// The stream that there is when the configuration names none.
fn default_stream_name() -> StreamName {
    match StreamName::try_from("telemetry".to_owned()) {
        Ok(name) => name,
        Err(error) => unreachable!("{error}"),
    }
}

/// Bytes that a record can need beyond the packet that it came in: the client id as key (at most
/// 65,535), batch header, framing and the fixed record headers.
const RECORD_OVERHEAD: usize = 65_535 + KIB;

impl Config {
    /// The number of partitions of a new data directory for this number of shards.
    pub fn partitions_for(&self, shards: u32) -> u32 {
        self.partitions.unwrap_or_else(|| (4 * shards).next_power_of_two().max(8))
    }

    /// Upper bound on the bytes of a batch that holds one record made from the largest packet. The
    /// 1/128 covers longer length fields of Kafka headers, and LZ4 on bytes that do not compress.
    pub fn record_bytes_max(&self) -> usize {
        let packet = self.mqtt.packet_bytes_max;
        packet + packet / 128 + RECORD_OVERHEAD
    }

    /// The host that Kafka clients are told to connect to.
    pub fn kafka_host(&self) -> String {
        match (&self.kafka.advertise, self.kafka.listen.ip()) {
            (Some(host), _) => host.clone(),
            (None, IpAddr::V4(ip)) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.to_string(),
            (None, IpAddr::V6(ip)) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.to_string(),
            (None, ip) => ip.to_string(),
        }
    }
}
