//! What a shard is told once, from the configuration.

use std::sync::Arc;

use crate::ingest::mqtt as station;
use crate::observe::ShardMetrics;
use crate::record::{PartitionBy, ShardId};
use crate::serve::kafka as node;
use crate::transform::{Rulebook, TopicTable};

/// What a shard is told once.
pub struct Options {
    /// Which shard.
    pub shard: ShardId,
    /// Shards of this run.
    pub shards: u32,
    /// Partitions of every stream.
    pub partitions: u32,
    /// Limits of the MQTT station.
    pub mqtt: station::Limits,
    /// A connection without a CONNECT for so long is closed, nanoseconds.
    pub connect_timeout_ns: u64,
    /// Unacknowledged messages of one connection above which it is not read.
    pub unacknowledged_max: u32,
    /// Bytes that may wait to be sent to an MQTT connection.
    pub mqtt_send_bytes_max: usize,
    /// Bytes read from a held connection.
    pub held_bytes_max: usize,
    /// Limits of the Kafka station.
    pub kafka: node::Limits,
    /// Bytes that may wait to be sent to a Kafka connection before its next request is looked at.
    pub kafka_send_bytes_max: usize,
    /// Which topics go to which streams.
    pub topics: TopicTable,
    /// The rules, where there are any; the shard takes them.
    pub rules: Option<Rulebook>,
    /// What the key of a stream's records is, by `StreamId::index`.
    pub partition_by: Vec<PartitionBy>,
    /// Records that may be under way to one other shard.
    pub ring_slots: usize,
    /// Bytes that each other shard is always granted ahead.
    pub ring_credit_bytes: u64,
    /// Receive buffers for MQTT connections, which records on their way to other shards refer to.
    pub receive_buffers: u32,
    /// Nodes and streams, as Kafka clients are told.
    pub cluster: node::Cluster,
    /// What it publishes.
    pub metrics: Arc<ShardMetrics>,
}
