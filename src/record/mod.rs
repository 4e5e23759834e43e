//! The words that every station shares: streams, partitions, offsets, durability, record batches.
//!
//! Nothing here does I/O or knows which station it is used in.

pub mod batch;
mod bytes;
mod name;
mod offset;
mod partition;
pub mod varint;

pub use bytes::{SharedBytes, StableBytes};
pub use name::{InvalidStreamName, StreamName};
pub use offset::{Committed, Offset};
pub use partition::{PartitionId, ShardId, murmur2, partition_of};

use serde::{Deserialize, Serialize};

/// Index of a stream in the engine's stream table; the same in every shard of one run, and stored
/// in the log (the manifest keeps the mapping to names).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StreamId(pub u32);

impl StreamId {
    /// The id as an index into tables that have one row a stream.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// What an acknowledgement promises for a stream. Ordered: a later variant promises more.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, Default,
)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// In this process's memory. Lost when the process dies.
    Memory,
    /// Written to the device, not flushed. Survives the process, not a power cut.
    Write,
    /// Written and flushed. Survives a power cut on an honest device.
    #[default]
    Fsync,
}

impl Durability {
    /// The name used in the configuration and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Write => "write",
            Self::Fsync => "fsync",
        }
    }
}

/// How the records of a batch are compressed in the log, and so on the wire to Kafka consumers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// As they are.
    #[default]
    None,
    /// One LZ4 frame a batch (Kafka's codec 3).
    Lz4,
}

impl Compression {
    /// The name used in the configuration and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Lz4 => "lz4",
        }
    }
}

/// What goes of a stream, and why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum CleanupPolicy {
    /// What is too old or too much.
    #[default]
    Delete,
    /// Of each key all records but the newest.
    Compact,
}

impl CleanupPolicy {
    /// The name used in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Compact => "compact",
        }
    }
}

/// What a record's key is, and so what partitions it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum PartitionBy {
    /// The client id: all records of a device are in order, and never leave the shard that owns it.
    #[default]
    Client,
    /// The MQTT topic: all records of a topic are in order, whichever client sends them.
    Topic,
    /// Nothing: a record has no key and lies in its publisher's own partition.
    None,
}

impl PartitionBy {
    /// The name used in the configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Topic => "topic",
            Self::None => "none",
        }
    }
}
