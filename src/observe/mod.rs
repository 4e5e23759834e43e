//! What shards publish about themselves, for the control thread to read.
//!
//! In: counts and times from the one thread of each shard. Out: the same numbers, read at any
//! moment by the control thread. Every cell has one writer and no lock; a reader can never delay a
//! shard. Two shards never write to the same cache line. Everything is allocated at start, or by the
//! control plane when streams come: counting and timing allocate nothing.
//!
//! Absent on purpose: names and texts of the Prometheus format (control), clocks (the caller
//! passes nanoseconds), resetting (a counter only grows until the process ends).

mod cell;
mod distribution;
mod label;
mod registry;
mod rows;
mod shard;
mod station;
mod table;

pub use cell::{Counter, Gauge};
pub use distribution::{BYTES, Distribution, RECORDS, SECONDS, Scale};
pub use label::{ByLabel, Close, HoldCause, KafkaApi, Label, Reject};
pub use registry::{EngineInfo, Registry, Reloads, ShardState, StreamInfo};
pub use rows::Rows;
pub use shard::{
    KafkaMetrics, LogMetrics, LoopMetrics, MqttMetrics, PartitionMetrics, RingMetrics, RuleMetrics,
    ShardMetrics, StreamMetrics, WayMetrics,
};
pub use station::{QUANTILES, Station, StationSummary, StationTimes};
pub use table::TableMetrics;
