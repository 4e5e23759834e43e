//! The driver: sockets, files, timers and pinning; the only place that knows glommio and io_uring.

pub mod cores;
pub mod disk;
pub mod disk_files;
pub mod preflight;

pub mod cleaner;
pub mod data_dir;
pub mod launch;
pub mod listen;
pub mod mapped;
pub mod open_connections;
pub mod read_ahead;
pub mod tables;

pub mod alarm;
pub mod commits;
pub mod give_up;
pub mod shard_thread;
pub mod signal;
pub mod socket_ring;
pub mod sockets;
pub mod storage;
pub mod ways;

pub mod process_signals;
