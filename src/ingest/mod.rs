//! Ingest: what devices say, decoded where it lies.
//!
//! Bytes of one connection come in, events that borrow from those bytes go out, and replies are
//! appended to the connection's output. Runs on the shard that holds the connection. No I/O, no
//! clock, no knowledge of streams: the shard decides what an event means.

pub mod mqtt;
