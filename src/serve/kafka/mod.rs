//! The Kafka wire protocol, server side, one state machine a client connection.
//!
//! What comes in: the bytes of one connection, the time, and the shard's log behind [`Store`]. What
//! goes out: the bytes of the responses, and what a parked request waits for. Runs on the shard
//! that owns the partitions asked for: every shard is one Kafka node. Invariant: no byte from the
//! wire reaches the message decoders before [`guard`] has walked it. Deliberately absent: consumer
//! groups and producing (issues of their own), fetch sessions, and any I/O or clock.

mod cluster;
mod connection;
mod store;

mod guard;
mod wire;

mod api_versions;
mod fetch;
mod list_offsets;
mod metadata;
mod produce;

#[cfg(test)]
mod fake;

pub use cluster::{Cluster, Node, Stream};
pub use connection::{Connection, Limits, Parked, Resume, Step, StepState, Violation};
pub use guard::Malformed;
pub use store::{Bounds, Read, Store, TimeLookup};
