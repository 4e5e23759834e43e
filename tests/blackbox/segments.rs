//! A log of many small segments: read from the start while it is written, and again after a kill.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::clients::{Consumer, Record, has, read_all};
use crate::engine::{Engine, Setup, scratch, wait_until};
use crate::wire::{Publish, Version, Wire};

/// More segments of 1 MiB than a shard keeps files open.
const MESSAGES: u32 = 100 * 128;

/// A device: `payload_bytes` large messages, `window` of them in flight.
struct Device {
    name: &'static str,
    payload_bytes: usize,
    window: u32,
}

const FIRST: Device = Device { name: "first", payload_bytes: 8 << 10, window: 64 };
/// Slow enough that kcat, which waits half a second for more, finds an end to stop at.
const SECOND: Device = Device { name: "second", payload_bytes: 16, window: 1 };

impl Device {
    fn payload(&self, seq: u32) -> Vec<u8> {
        let mut payload = format!("{seq} ").into_bytes();
        payload.resize(self.payload_bytes, b'.');
        payload
    }
}

fn packet_id(seq: u32) -> u16 {
    (seq % 60_000) as u16 + 1
}

/// Publishes `count` messages, fewer when told to stop. Returns how many.
fn publish(engine: &Engine, device: &Device, count: u32, stop: &AtomicBool) -> u32 {
    let mut wire = Wire::connect_as(engine.ports.mqtt, Version::V5, device.name);
    let (mut sent, mut acknowledged) = (0, 0);
    loop {
        let end = if stop.load(Ordering::Relaxed) { sent } else { count };
        while sent < end && sent < acknowledged + device.window {
            wire.publish(&Publish::new("many", packet_id(sent), &device.payload(sent)));
            sent += 1;
        }
        if acknowledged == sent {
            return sent;
        }
        assert_eq!(wire.packet().id(), packet_id(acknowledged));
        acknowledged += 1;
        if device.window == 1 {
            let quiet = wire.read(Duration::from_millis(700));
            assert!(quiet.is_err(), "nothing but the acknowledgement is due: {quiet:?}");
        }
    }
}

/// The records of one device are its sequence from 0, at least `count` of them.
fn check(records: &[Record], device: &Device, count: u32) {
    let own: Vec<&Record> = records.iter().filter(|record| record.key == device.name).collect();
    let name = device.name;
    assert!(own.len() >= count as usize, "{name}: {} of {count} are there", own.len());
    for (seq, record) in own.iter().enumerate() {
        assert!(record.value == device.payload(seq as u32), "{name}: message {seq} is another");
    }
}

#[test]
fn many_segments_are_read_while_the_next_is_written() {
    if !has("kcat") {
        return;
    }
    let scratch = scratch();
    let mut setup = Setup::new(scratch.path());
    setup.arguments.clear();
    let setup = setup
        .argument(&["--log-segment-bytes", "1MiB", "--log-buffer-bytes", "256KiB"])
        .argument(&["--log-batch-bytes-max", "128KiB", "--mqtt-packet-bytes-max", "16KiB"])
        .argument(&["--shards", "1"]);
    let engine = setup.start();
    let never = AtomicBool::new(false);
    publish(&engine, &FIRST, MESSAGES, &never);
    wait_until("many segments to be counted", || {
        (engine.metric("log_segments", "") > 80.0).then_some(())
    });

    let stop = AtomicBool::new(false);
    let second = std::thread::scope(|scope| {
        let publisher = scope.spawn(|| publish(&engine, &SECOND, u32::MAX, &stop));
        for _ in 0..2 {
            check(&read_all(Consumer::Kcat, &engine, "telemetry"), &FIRST, MESSAGES);
        }
        stop.store(true, Ordering::Relaxed);
        publisher.join().unwrap()
    });

    let engine = engine.kill().start();
    let records = read_all(Consumer::Kcat, &engine, "telemetry");
    check(&records, &FIRST, MESSAGES);
    check(&records, &SECOND, second);
    engine.stop();
}
