//! From the configuration to what each station is told: a station never sees the whole of it.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::Ground;
use crate::config::{Config, Retention, rules};
use crate::driver::open_connections::OpenConnections;
use crate::driver::sockets;
use crate::ingest::mqtt;
use crate::log::manifest::{Manifest, ManifestStream};
use crate::log::{self, StreamOptions};
use crate::observe::{ShardMetrics, StreamInfo};
use crate::record::{
    CleanupPolicy, Compression, Durability, PartitionBy, ShardId, StreamId, StreamName,
};
use crate::serve::kafka;
use crate::shard;
use crate::transform::rules::{DEAD_LETTERS, Limits, Plan};
use crate::transform::{Rulebook, TopicTable};

/// Bytes read from disk at once for a consumer that lags.
const READ_BYTES: usize = 256 << 10;
/// How long a stream is kept that the configuration does not name any more.
const UNNAMED_RETENTION_MS: u64 = 7 * 86_400_000;

/// The streams by id: those of the configuration, and those that earlier starts had.
pub fn streams(config: &Config, ground: &Ground) -> Vec<StreamOptions> {
    let manifest = &ground.data.manifest;
    let share = ground.disk.total_bytes as f64 * config.log.disk_share;
    let named = config.streams.iter().filter(|s| s.retention_bytes.is_some()).count();
    let sharing = manifest.streams.len().saturating_sub(named).max(1);
    let part = share as u64 / sharing as u64;
    manifest
        .streams
        .iter()
        .map(|known| match config.streams.iter().find(|s| s.name == known.name) {
            Some(stream) if stream.cleanup_policy == CleanupPolicy::Compact => StreamOptions {
                durability: stream.durability,
                compression: stream.compression,
                retention_bytes: u64::MAX,
                retention_ms: u64::MAX,
                compaction: Some(stream.tombstone_retention.as_millis() as u64),
            },
            Some(stream) => StreamOptions {
                durability: stream.durability,
                compression: stream.compression,
                retention_bytes: stream.retention_bytes.unwrap_or(part) / u64::from(ground.shards),
                retention_ms: retention_ms(stream.retention),
                compaction: None,
            },
            None => StreamOptions {
                durability: Durability::Fsync,
                compression: Compression::None,
                retention_bytes: part / u64::from(ground.shards),
                retention_ms: UNNAMED_RETENTION_MS,
                compaction: None,
            },
        })
        .collect()
}

fn retention_ms(retention: Retention) -> u64 {
    retention.age_ms().and_then(|ms| u64::try_from(ms).ok()).unwrap_or(u64::MAX)
}

/// The streams as metrics name them.
pub fn stream_infos(config: &Config, manifest: &Manifest, plan: &Plan) -> Vec<StreamInfo> {
    let durability = |name: &StreamName| {
        let named = config.streams.iter().find(|stream| stream.name == *name);
        named.map_or(Durability::Fsync, |stream| stream.durability)
    };
    manifest
        .streams
        .iter()
        .map(|s| StreamInfo {
            name: s.name.clone(),
            durability: durability(&s.name),
            is_rule: plan.rules.iter().any(|rule| *rule.name == *s.name.as_str()),
        })
        .collect()
}

/// What a shard is told.
pub fn shard(
    config: &Config,
    ground: &Ground,
    id: ShardId,
    metrics: Arc<ShardMetrics>,
) -> shard::Options {
    shard::Options {
        shard: id,
        shards: ground.shards,
        partitions: ground.data.manifest.partitions,
        mqtt: mqtt::Limits {
            packet_bytes_max: config.mqtt.packet_bytes_max as u32,
            receive_maximum: config.mqtt.receive_maximum,
            topic_alias_maximum: config.mqtt.topic_alias_maximum,
            keep_alive_s_max: config.mqtt.keep_alive_max.as_secs() as u16,
            ..mqtt::Limits::default()
        },
        connect_timeout_ns: config.mqtt.connect_timeout.as_nanos() as u64,
        unacknowledged_max: config.mqtt.unacknowledged_max,
        mqtt_send_bytes_max: config.mqtt.send_bytes_max,
        held_bytes_max: config.mqtt.held_bytes_max,
        kafka: kafka::Limits {
            request_bytes_max: config.kafka.request_bytes_max,
            fetch_bytes_max: config.kafka.fetch_bytes_max,
            ..kafka::Limits::default()
        },
        kafka_send_bytes_max: config.kafka.send_bytes_max,
        topics: topics(config, &ground.data.manifest, &ground.plan).of_version(1),
        rules: rulebook(config, &ground.data.manifest, &ground.plan),
        partition_by: partition_by(config, &ground.data.manifest.streams),
        cluster: cluster(config, ground, id),
        ring_slots: config.ring.slots as usize,
        ring_credit_bytes: config.ring.credit_bytes as u64,
        receive_buffers: config.receive.buffers,
        metrics,
    }
}

/// The rules for a shard, where there are any. What one message may make of them fits the log's
/// buffer and the rings beside the message itself, or it would wait for ever.
pub fn rulebook(config: &Config, manifest: &Manifest, plan: &Arc<Plan>) -> Option<Rulebook> {
    let id = |name: &str| {
        let at = manifest.streams.iter().position(|known| known.name.as_str() == name);
        at.map(|at| StreamId(at as u32))
    };
    let dead_letters = id(DEAD_LETTERS).filter(|_| !plan.rules.is_empty())?;
    // Every stream of a rule is in the manifest: it was written with them.
    let streams = plan.rules.iter().map(|rule| id(&rule.name)).collect::<Option<_>>()?;
    let limits = Limits {
        records_max: config.ring.slots as usize / 2,
        bytes_max: rules::message_bytes_max(config),
    };
    Some(Rulebook::new(Arc::clone(plan), streams, dead_letters, limits))
}

pub fn topics(config: &Config, manifest: &Manifest, plan: &Plan) -> TopicTable {
    let mut filters = Vec::new();
    for stream in &config.streams {
        let id = manifest.streams.iter().position(|known| known.name == stream.name);
        let Some(id) = id.map(|id| StreamId(id as u32)) else { continue };
        filters.extend(stream.topics.iter().map(|filter| (filter.as_str().to_owned(), id)));
    }
    TopicTable::with_rules(filters, plan.filters())
}

/// By stream; nothing is published to a stream that the configuration does not name any more.
pub fn partition_by(config: &Config, known: &[ManifestStream]) -> Vec<PartitionBy> {
    let named = |name: &StreamName| config.streams.iter().find(|stream| stream.name == *name);
    let by = |name| named(name).map_or(PartitionBy::Client, |stream| stream.partition_by);
    known.iter().map(|stream| by(&stream.name)).collect()
}

pub fn cluster(config: &Config, ground: &Ground, here: ShardId) -> kafka::Cluster {
    let manifest = &ground.data.manifest;
    let nodes = (0..ground.shards)
        .map(|shard| kafka::Node {
            shard: ShardId(shard),
            host: config.kafka_host().into(),
            port: config.kafka.listen.port() + shard as u16,
        })
        .collect();
    let streams = manifest
        .streams
        .iter()
        .enumerate()
        .map(|(id, stream)| kafka::Stream {
            id: StreamId(id as u32),
            name: stream.name.clone(),
            uuid: stream.topic_id,
        })
        .collect();
    let (id, epoch) = (&manifest.cluster_id, manifest.starts);
    kafka::Cluster::new(id, here, nodes, streams, manifest.partitions, epoch)
}

/// What a log is told.
pub fn log(
    config: &Config,
    ground: &Ground,
    shard: ShardId,
    streams: &[StreamOptions],
) -> log::Options {
    let manifest = &ground.data.manifest;
    log::Options {
        generation: manifest.current.generation,
        shard,
        shards: ground.shards,
        partitions: manifest.partitions,
        leader_epoch: manifest.starts,
        block: ground.disk.alignment.log_block as usize,
        segment_bytes: config.log.segment_bytes,
        buffer_bytes: config.log.buffer_bytes,
        batch_bytes_max: config.log.batch_bytes_max,
        tail_cache_bytes: config.log.tail_cache_bytes,
        read_cache_bytes: config.log.read_cache_bytes,
        read_bytes: READ_BYTES,
        segments_ahead: config.log.segments_ahead as usize,
        clean_live_max_percent: config.log.clean_live_max_percent,
        compact_keys_max: config.log.compact_keys_max as usize,
        streams: streams.to_vec(),
    }
}

/// What a shard's sockets are told.
pub fn sockets(
    config: &Config,
    (mqtt, kafka): (OwnedFd, OwnedFd),
    open: Arc<OpenConnections>,
) -> sockets::Options {
    sockets::Options {
        mqtt,
        kafka,
        buffer_bytes: config.receive.buffer_bytes as u32,
        mqtt_buffers: config.receive.buffers as u16,
        kafka_buffers: config.receive.kafka_buffers as u16,
        open,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Stream;

    #[test]
    fn streams_are_known_by_name() {
        let name = |text: &str| StreamName::try_from(text.to_owned()).unwrap();
        let known = ["a", "gone", "b", "c"]
            .map(|text| ManifestStream { name: name(text), topic_id: uuid::Uuid::nil() });
        let stream =
            |text, partition_by| Stream { name: name(text), partition_by, ..Stream::default() };
        // In the file's order, which is not that of the ids.
        let streams = vec![
            stream("c", PartitionBy::None),
            stream("a", PartitionBy::Topic),
            stream("b", PartitionBy::Client),
        ];
        let config = Config { streams, ..Config::default() };
        let (client, topic, none) = (PartitionBy::Client, PartitionBy::Topic, PartitionBy::None);
        assert_eq!(partition_by(&config, &known), [topic, client, client, none]);
    }
}
