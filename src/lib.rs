//! Tidegate: the ingest tier of an IoT platform in one Linux process.
//!
//! The modules are the stations of the data path, in the order in which a message meets them.
//! Stations do no I/O, know no clock and do not import one another: the shard joins them, and the
//! driver moves the bytes. ARCHITECTURE.md is the map.

#[macro_use]
pub mod mutation;

pub mod record;

pub mod ingest;
pub mod log;
pub mod ring;
pub mod serve;
pub mod transform;

pub mod shard;

pub mod driver;

pub mod config;
pub mod control;
pub mod observe;

pub mod engine;

pub mod cli;
