//! The engine on disks that fail: the real binary on small file systems of its own, and on a disk of
//! the tests that does what disks do at their worst.
//!
//! `images` mounts ext4 and XFS from image files, which needs root and loop devices. `faulty_disk`
//! is a FUSE file system that keeps what was not flushed in memory, and loses it when the power is
//! cut; it needs /dev/fuse. Where these are missing the tests say SKIPPED; where root has them and
//! TIDEGATE_REQUIRE_CLIENTS=1 is set (CI), they fail instead. What the engine promises in each case
//! stands in docs/durability.md.

#![allow(clippy::unwrap_used)] // a test's panic is its report
#![allow(dead_code)] // the modules of tests/blackbox serve more than these tests

#[path = "../blackbox/clients.rs"]
mod clients;
#[path = "../blackbox/engine.rs"]
mod engine;
#[path = "../blackbox/publishers.rs"]
mod publishers;
#[path = "../blackbox/random.rs"]
mod random;
#[path = "../blackbox/sequences.rs"]
mod sequences;
#[path = "../blackbox/wire.rs"]
mod wire;

mod faulty_disk;
mod sender;
mod volume;

mod images;
mod power_cuts;
mod troubles;

use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Skips a test that needs root and a device; where both are there CI has to run it.
fn skipped_for_want_of(device: &str, reason: &str) {
    let is_root = std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0);
    match is_root && Path::new(device).exists() {
        true => clients::skipped(reason),
        false => clients::skipped_anyway(reason),
    }
}
