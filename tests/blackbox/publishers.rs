//! Devices that publish whatever happens to the engine: each keeps a window of messages in flight,
//! notes each PUBACK, and after a reconnect sends again from the first message without one, as MQTT
//! has it.
//!
//! Plain sockets (`wire`, not the product's codec), a thread a device. What they count as
//! acknowledged is what the engine has promised.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::engine::poll;
use crate::wire::{CONNACK, Connect, PUBACK, Publish, Version, Wire};

/// Messages of one device between two rounds, so that the whole stays readable in seconds.
pub const BUDGET: u64 = 600;

/// A device, which publishes 0, 1, 2, …
#[derive(Debug)]
pub struct Device {
    pub name: String,
    pub topic: String,
    pub version: Version,
    pub window: u64,
}

impl Device {
    /// The `i`th of a crowd of which no two neighbours are alike, with topics below `prefix`.
    pub fn of_crowd(i: usize, prefix: &str) -> Self {
        let name = format!("device-{i}");
        let topic = format!("{prefix}/{name}");
        let version = if i.is_multiple_of(2) { Version::V5 } else { Version::V311 };
        Self { name, topic, version, window: [1, 16, 64][i % 3] }
    }

    /// One device's life; returns how many messages were acknowledged.
    fn live(&self, port: u16, progress: &Progress) -> u64 {
        let mut acknowledged = 0;
        while !progress.done.load(Ordering::Relaxed) {
            let Some(wire) = self.connect(port) else {
                // Nobody listens while the engine is dead or recovers.
                poll(Duration::from_millis(5), || None::<()>);
                continue;
            };
            self.publish(wire, &mut acknowledged, progress);
        }
        acknowledged
    }

    fn connect(&self, port: u16) -> Option<Wire> {
        let mut wire = Wire::open(port, self.version).ok()?;
        let connect = Connect { clean: false, ..Connect::new(self.version, &self.name) };
        wire.send_unheard(&connect.bytes());
        let answer = wire.read(Duration::from_secs(10)).ok()??;
        assert_eq!((answer.kind(), answer.reason()), (CONNACK, 0), "{}: {answer:?}", self.name);
        Some(wire)
    }

    /// Publishes from the first unacknowledged message on until the connection ends.
    fn publish(&self, mut wire: Wire, acknowledged: &mut u64, progress: &Progress) {
        let packet_id = |seq: u64| (seq % 65_535) as u16 + 1;
        let round = progress.round.load(Ordering::Relaxed);
        let last = *acknowledged + BUDGET;
        let mut sent = *acknowledged;
        while progress.round.load(Ordering::Relaxed) == round {
            while sent < last && sent < *acknowledged + self.window {
                let text = sent.to_string();
                let message = Publish::new(&self.topic, packet_id(sent), text.as_bytes());
                wire.send_unheard(&message.bytes(wire.version));
                sent += 1;
            }
            // With the budget spent the connection stays open, and this waits for its end.
            match wire.read(Duration::from_millis(200)) {
                Ok(Some(answer)) => {
                    assert_eq!((answer.kind(), answer.reason()), (PUBACK, 0), "{answer:?}");
                    assert_eq!(answer.id(), packet_id(*acknowledged), "acknowledged out of order");
                    *acknowledged += 1;
                    progress.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                Err(error) if error.kind() == ErrorKind::TimedOut => {}
                Ok(None) | Err(_) => return,
            }
        }
    }
}

/// What the devices share with the test.
#[derive(Debug, Default)]
pub struct Progress {
    acknowledged: AtomicU64,
    round: AtomicU64,
    done: AtomicBool,
}

impl Progress {
    /// Messages of all devices that were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// A new connection and a new budget for every device.
    pub fn next_round(&self) {
        self.round.fetch_add(1, Ordering::Relaxed);
    }
}

/// Lets the devices publish while `work` runs; returns the name of each and how many messages of it
/// were acknowledged.
pub fn while_publishing(
    port: u16,
    devices: &[Device],
    work: impl FnOnce(&Progress),
) -> Vec<(String, u64)> {
    let progress = &Progress::default();
    std::thread::scope(|scope| {
        let lives: Vec<_> = devices
            .iter()
            .map(|device| (device, scope.spawn(move || device.live(port, progress))))
            .collect();
        let worked = catch_unwind(AssertUnwindSafe(|| work(progress)));
        // Whatever happened, the devices must end, or the scope would wait for ever.
        progress.done.store(true, Ordering::Relaxed);
        progress.next_round();
        let counts =
            lives.into_iter().map(|(device, life)| (device.name.clone(), life.join().unwrap()));
        let counts = counts.collect();
        if let Err(panic) = worked {
            resume_unwind(panic);
        }
        counts
    })
}
