//! Several shards driven from memory, on one thread, in any order: what is acknowledged is in its
//! logs, exactly as it was sent; nothing is lost or doubled; nobody waits for ever.
//!
//! `PROPTEST_CASES` sets how many schedules are tried; a failing one is shrunk and printed.

#![allow(unsafe_code)] // a global allocator is an unsafe trait
#![allow(dead_code)] // the world can do more than either of the two asks of it (see `tests/simulator`)

mod commits;
mod compaction;
mod devices;
mod disk;
mod disk_files;
mod faults;
mod ledger;
mod memory;
mod node;
mod packets;
mod random;
mod reading;
mod records;
mod schedule;
mod setup;
mod sockets;
mod storage;
mod world;

#[global_allocator]
static HEAP: memory::Poisoning = memory::Poisoning;
