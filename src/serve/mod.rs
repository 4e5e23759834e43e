//! Serve: what consumers see of the log.
//!
//! Bytes of client connections come in, bytes for them go out; reads are asked of the shard through
//! a trait. Runs on every shard. Deliberately absent: sockets, files, clocks.

pub mod kafka;
