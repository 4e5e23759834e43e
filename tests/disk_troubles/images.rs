//! ext4 and XFS on image files of their own, which needs root and loop devices: a disk that fills
//! holds publishers back unacknowledged, serves consumers, and goes on when there is room; a file
//! system that shuts down under load ends the engine, and nothing acknowledged is lost.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::clients::{any_consumer, read_all};
use crate::engine::{Setup, scratch, wait_until};
use crate::publishers::{BUDGET, Device, while_publishing};
use crate::random::{Random, seed};
use crate::sender::{Sender, numbers};
use crate::sequences;
use crate::skipped_for_want_of;

/// What is not free of it when it is filled to where a test begins.
const BALLAST_BYTES: usize = 150 << 20;

/// A kind of file system: how it is made, and on how many bytes (XFS takes no less, and a fifth of
/// them for itself).
#[derive(Debug, Clone, Copy)]
struct Kind {
    make: &'static [&'static str],
    bytes: u64,
}

const EXT4: Kind = Kind { make: &["mkfs.ext4", "-q", "-F", "-m", "0"], bytes: 256 << 20 };
const XFS: Kind = Kind { make: &["mkfs.xfs", "-q", "-f"], bytes: 320 << 20 };

/// A mounted image; unmounted with the value.
#[derive(Debug)]
struct Disk {
    image: String,
    point: PathBuf,
}

impl Disk {
    fn new(kind: Kind, scratch: &Path) -> Result<Self, String> {
        let (image, point) = (scratch.join("disk.img"), scratch.join("disk"));
        let file = std::fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(kind.bytes).map_err(|error| error.to_string())?;
        std::fs::create_dir(&point).map_err(|error| error.to_string())?;
        let image = image.to_string_lossy().into_owned();
        shell(&[kind.make, &[&image]].concat())?;
        let disk = Self { image, point };
        disk.mount()?;
        Ok(disk)
    }

    /// A new one for a test, which is skipped where there are no loop devices.
    fn new_or_skip(kind: Kind, scratch: &Path) -> Option<Self> {
        let refused = |reason| {
            let reason = format!("no disk of its own (needs root and loop devices): {reason}");
            skipped_for_want_of("/dev/loop-control", &reason);
        };
        Self::new(kind, scratch).map_err(refused).ok()
    }

    fn mount(&self) -> Result<(), String> {
        shell(&["mount", "-o", "loop", &self.image, &self.point.to_string_lossy()])
    }

    fn unmount(&self) -> Result<(), String> {
        shell(&["umount", &self.point.to_string_lossy()])
    }

    /// The file system fails from now on, as when its device is gone. What its journal holds in
    /// memory is lost.
    fn shut_down(&self) {
        shell(&["xfs_io", "-x", "-c", "shutdown", &self.point.to_string_lossy()]).unwrap();
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = shell(&["umount", "-l", &self.point.to_string_lossy()]);
    }
}

fn shell(words: &[&str]) -> Result<(), String> {
    // Not everybody's path has what root needs.
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/sbin:/sbin";
    let output = Command::new("env").arg(format!("PATH={path}")).args(words).output();
    let output = output.map_err(|error| format!("{}: {error}", words[0]))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{words:?}: {said}")) }
}

fn a_disk_fills_and_has_room_again(kind: Kind) {
    let Some(consumer) = any_consumer() else { return };
    let scratch = scratch();
    let Some(disk) = Disk::new_or_skip(kind, scratch.path()) else { return };
    let ballast = disk.point.join("ballast");
    std::fs::write(&ballast, vec![1; BALLAST_BYTES]).unwrap();
    let mut setup = Setup::new(&disk.point);
    setup.arguments.clear();
    // The streams may take the whole disk, so that it is the ballast that fills it, not retention
    // that makes room.
    let setup = setup
        .argument(&["--log-segment-bytes", "8MiB", "--log-segments-ahead", "1"])
        .argument(&["--log-reserve-bytes", "8MiB", "--log-disk-share", "1.0"])
        .argument(&["--log-buffer-bytes", "4MiB", "--shards", "1"]);
    let engine = setup.start();

    // Two messages in flight, so that a held one and a PINGREQ fit what a held connection is read.
    let mut device = Sender::new(engine.ports.mqtt, 32 << 10);
    device.send();
    device.send();
    device.fill(&engine);
    assert!(device.acknowledged > 100, "only {} before it was full", device.acknowledged);

    // Held back: counted, said, unacknowledged, alive.
    assert!(engine.metric("disk_full", "") >= 1.0, "not counted");
    assert_eq!(engine.get("/healthz").unwrap().0, 503);
    let said = engine.said();
    assert!(said.lines().count() < 40, "a flood in the log:\n{said}");
    device.ping();

    // Consumers are served all that was acknowledged, and nothing else.
    assert_eq!(numbers(consumer, &engine), (1..=device.acknowledged).collect::<Vec<_>>());

    // Room: what was held is acknowledged, and new messages are taken.
    std::fs::remove_file(&ballast).unwrap();
    device.catch_up();
    device.publish(50);
    let setup = engine.stop();
    let engine = setup.start();
    assert_eq!(numbers(consumer, &engine), (1..=device.acknowledged).collect::<Vec<_>>());
    engine.stop();
}

#[test]
fn a_full_ext4_holds_publishers_and_serves_consumers() {
    a_disk_fills_and_has_room_again(EXT4);
}

#[test]
fn a_full_xfs_holds_publishers_and_serves_consumers() {
    a_disk_fills_and_has_room_again(XFS);
}

const SHUTDOWNS: u64 = 3;
const DEVICES: usize = 6;

fn a_file_system_shuts_down_under_load(kind: Kind) {
    let Some(consumer) = any_consumer() else { return };
    let scratch = scratch();
    let Some(disk) = Disk::new_or_skip(kind, scratch.path()) else { return };
    // What it says must not be on the disk that fails.
    let mut setup = Setup::new(scratch.path());
    setup.data_dir.clone_from(&disk.point);
    let setup = setup.argument(&["--log-reserve-bytes", "0", "--shards", "2"]);
    let (port, mut random) = (setup.ports.mqtt, Random::new(seed("TIDEGATE_SHUTDOWN_SEED")));
    let devices: Vec<_> = (0..DEVICES).map(|i| Device::of_crowd(i, "shutdown")).collect();
    let acknowledged = while_publishing(port, &devices, |progress| {
        for _ in 0..SHUTDOWNS {
            let mut engine = setup.start();
            let target = progress.acknowledged() + random.below(DEVICES as u64 * BUDGET / 2);
            wait_until("the load", || (progress.acknowledged() >= target).then_some(()));
            disk.shut_down();
            // A device whose budget is spent sends nothing that could fail.
            progress.next_round();
            let status = engine.await_exit();
            assert_eq!(status.code(), Some(74), "{status}: {}", engine.said());
            drop(engine);
            disk.unmount().unwrap();
            disk.mount().unwrap();
            progress.next_round();
        }
    });
    let engine = setup.start();
    sequences::check(&read_all(consumer, &engine, "telemetry"), &acknowledged);
    engine.stop();
}

#[test]
fn nothing_acknowledged_is_lost_when_ext4_shuts_down() {
    a_file_system_shuts_down_under_load(EXT4);
}

#[test]
fn nothing_acknowledged_is_lost_when_xfs_shuts_down() {
    a_file_system_shuts_down_under_load(XFS);
}
