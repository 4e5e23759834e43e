//! A disk that fills: publishers are held back unacknowledged, consumers are served, and all goes
//! on when there is room. On a small ext4 image of its own, which needs root and loop devices.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::clients::{any_consumer, read_all, skipped_anyway};
use crate::engine::{Setup, scratch, wait_until};
use crate::wire::{PINGRESP, PUBACK, Publish, Version, Wire};

const IMAGE_BYTES: u64 = 256 << 20;
const BALLAST_BYTES: usize = 150 << 20;

/// A mounted image; unmounted with the value.
#[derive(Debug)]
struct Disk(PathBuf);

impl Disk {
    fn mount(scratch: &Path) -> Result<Self, String> {
        let (image, point) = (scratch.join("disk.img"), scratch.join("disk"));
        let file = std::fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(IMAGE_BYTES).map_err(|error| error.to_string())?;
        std::fs::create_dir(&point).map_err(|error| error.to_string())?;
        let (image, place) = (image.to_string_lossy(), point.to_string_lossy());
        shell(&["mkfs.ext4", "-q", "-F", "-m", "0", &image])?;
        shell(&["mount", "-o", "loop", &image, &place])?;
        Ok(Self(point))
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = shell(&["umount", "-l", &self.0.to_string_lossy()]);
    }
}

fn shell(words: &[&str]) -> Result<(), String> {
    let output = Command::new(words[0]).args(&words[1..]).output();
    let output = output.map_err(|error| format!("{}: {error}", words[0]))?;
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(format!("{words:?}: {said}")) }
}

/// A device that keeps two messages in flight, so that a held one and a PINGREQ fit what a held
/// connection is read.
#[derive(Debug)]
struct Device {
    wire: Wire,
    sent: u16,
    acknowledged: u16,
}

impl Device {
    fn new(port: u16) -> Self {
        Self { wire: Wire::connect_as(port, Version::V5, "filler"), sent: 0, acknowledged: 0 }
    }

    fn send(&mut self) {
        self.sent += 1;
        // The number in front, then bytes that take room.
        let mut payload = self.sent.to_string().into_bytes();
        payload.resize(32 << 10, b'.');
        self.wire.publish(&Publish::new("fill", self.sent, &payload));
    }

    /// Waits for the next acknowledgement; false when none comes.
    fn acknowledged(&mut self, within: Duration) -> bool {
        match self.wire.read(within) {
            Ok(Some(answer)) => {
                assert_eq!((answer.kind(), answer.reason()), (PUBACK, 0), "{answer:?}");
                self.acknowledged += 1;
                assert_eq!(answer.id(), self.acknowledged);
                true
            }
            Ok(None) => panic!("a full disk must not close the connection"),
            Err(_) => false,
        }
    }
}

#[test]
fn a_full_disk_holds_publishers_and_serves_consumers() {
    let Some(consumer) = any_consumer() else { return };
    let scratch = scratch();
    let disk = match Disk::mount(scratch.path()) {
        Ok(disk) => disk,
        Err(reason) => {
            skipped_anyway(&format!("no disk of its own (needs root and loop devices): {reason}"));
            return;
        }
    };
    let ballast = disk.0.join("ballast");
    std::fs::write(&ballast, vec![1; BALLAST_BYTES]).unwrap();
    let mut setup = Setup::new(&disk.0);
    setup.arguments.clear();
    // The streams may take the whole disk, so that it is the ballast that fills it, not retention
    // that makes room.
    let setup = setup
        .argument(&["--log-segment-bytes", "8MiB", "--log-segments-ahead", "1"])
        .argument(&["--log-reserve-bytes", "8MiB", "--log-disk-share", "1.0"])
        .argument(&["--log-buffer-bytes", "4MiB", "--shards", "1"]);
    let engine = setup.start();

    let mut device = Device::new(engine.ports.mqtt);
    device.send();
    device.send();
    while device.acknowledged(Duration::from_secs(4)) {
        device.send();
        assert!(device.sent < 8000, "the disk does not fill");
    }
    assert!(device.acknowledged > 100, "only {} before it was full", device.acknowledged);

    // Held back: counted, said, unacknowledged, alive.
    assert!(engine.metric("disk_full", "") >= 1.0, "not counted");
    assert_eq!(engine.get("/healthz").unwrap().0, 503);
    let said = engine.said();
    assert!(said.contains("held back"), "nothing in the log:\n{said}");
    assert!(said.lines().count() < 40, "a flood in the log:\n{said}");
    device.wire.send(&[0xc0, 0]);
    assert_eq!(device.wire.packet().kind(), PINGRESP);

    // Consumers are served all that was acknowledged, and nothing else.
    let numbers = |engine: &crate::engine::Engine| -> Vec<u16> {
        let records = read_all(consumer, engine, "telemetry");
        records.iter().map(|r| r.text().trim_end_matches('.').parse().unwrap()).collect()
    };
    assert_eq!(numbers(&engine), (1..=device.acknowledged).collect::<Vec<_>>());

    // Room: what was held is acknowledged, and new messages are taken.
    std::fs::remove_file(&ballast).unwrap();
    wait_until("the held messages to be acknowledged", || {
        device.acknowledged(Duration::from_secs(1)).then_some(())
    });
    for _ in 0..50 {
        device.send();
        assert!(device.acknowledged(Duration::from_secs(20)));
    }
    let setup = engine.stop();
    let engine = setup.start();
    let found = numbers(&engine);
    assert_eq!(
        found[..usize::from(device.acknowledged)],
        (1..=device.acknowledged).collect::<Vec<_>>()
    );
    engine.stop();
}
