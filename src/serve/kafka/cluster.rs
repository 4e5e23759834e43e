//! The cluster as Kafka clients see it: every shard a node, every stream a topic.
//!
//! Made by the engine, read by every connection of the shard. Only streams come in the run: then the
//! engine makes another one, in which those that there were have their places.

use std::collections::HashMap;

use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::record::{PartitionId, ShardId, StreamId, StreamName};

/// One shard as a Kafka node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The shard; its number is the node id.
    pub shard: ShardId,
    /// Host that clients are told to connect to (`--kafka-advertise`).
    pub host: StrBytes,
    /// Port of this shard's Kafka listener.
    pub port: u16,
}

/// One stream as a Kafka topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stream {
    /// The engine's id.
    pub id: StreamId,
    /// The topic's name.
    pub name: StreamName,
    /// The topic's id, the same in every run.
    pub uuid: Uuid,
}

/// What Metadata tells, and what names and ids are looked up in.
#[derive(Debug, Clone)]
pub struct Cluster {
    id: StrBytes,
    here: ShardId,
    nodes: Vec<Node>,
    streams: Vec<Stream>,
    partitions: u32,
    leader_epoch: i32,
    by_name: HashMap<String, usize>,
    by_uuid: HashMap<Uuid, usize>,
}

impl Cluster {
    /// `nodes` in the order of their shards, at least one; `here` is the shard that answers;
    /// `leader_epoch` counts starts.
    pub fn new(
        id: &str,
        here: ShardId,
        nodes: Vec<Node>,
        streams: Vec<Stream>,
        partitions: u32,
        leader_epoch: u32,
    ) -> Self {
        assert!(nodes.iter().enumerate().all(|(i, node)| node.shard.index() == i));
        assert!(here.index() < nodes.len());
        let by_name = streams.iter().enumerate();
        let by_name = by_name.map(|(i, stream)| (stream.name.as_str().to_owned(), i)).collect();
        let by_uuid = streams.iter().enumerate().map(|(i, stream)| (stream.uuid, i)).collect();
        Self {
            id: StrBytes::from_string(id.to_owned()),
            here,
            nodes,
            streams,
            partitions,
            leader_epoch: i32::try_from(leader_epoch).unwrap_or(i32::MAX),
            by_name,
            by_uuid,
        }
    }

    /// The cluster id.
    pub fn id(&self) -> &StrBytes {
        &self.id
    }

    /// The shard that answers.
    pub fn here(&self) -> ShardId {
        self.here
    }

    /// Every shard, by its number.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// Every stream.
    pub fn streams(&self) -> &[Stream] {
        &self.streams
    }

    /// Partitions of every stream.
    pub fn partitions(&self) -> u32 {
        self.partitions
    }

    /// The leader epoch of every partition.
    pub fn leader_epoch(&self) -> i32 {
        self.leader_epoch
    }

    /// The node that leads a partition.
    pub fn leader(&self, partition: PartitionId) -> &Node {
        &self.nodes[partition.owner(self.nodes.len() as u32).index()]
    }

    /// The row in [`Self::streams`] of a topic name.
    pub fn by_name(&self, name: &str) -> Option<usize> {
        self.by_name.get(name).copied()
    }

    /// The row in [`Self::streams`] of a topic id.
    pub fn by_uuid(&self, uuid: Uuid) -> Option<usize> {
        self.by_uuid.get(&uuid).copied()
    }

    /// A partition number from the wire, when there is such a partition.
    pub fn partition(&self, wire: i32) -> Option<PartitionId> {
        u32::try_from(wire).ok().filter(|p| *p < self.partitions).map(PartitionId)
    }
}
