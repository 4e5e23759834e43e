//! What stays over an end and a start: records, offsets, order; also with another number of shards
//! and under load.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clients::{Record, any_consumer, read_all};
use crate::engine::{Engine, Setup, scratch, wait_until};
use crate::partitioning::names_on;
use crate::sequences;
use crate::wire::{Connect, PUBACK, Publish, Version, Wire};

/// With two shards and more, half of the records and more cross.
const BY_TOPIC: &str = "[[stream]]\nname = \"telemetry\"\npartition_by = \"topic\"\n";

/// Publishes the sequences `from..to` from each of 16 devices, each to a topic of its own, and waits
/// for all acknowledgements.
fn publish(engine: &Engine, from: u16, to: u16) {
    for device in 0..16 {
        let (id, topic) = (format!("device-{device}"), format!("restart/{device}"));
        let mut wire = Wire::connect_as(engine.ports.mqtt, Version::V5, &id);
        for seq in from..to {
            let text = format!("{seq}");
            wire.publish(&Publish::new(&topic, seq + 1, text.as_bytes()));
        }
        for seq in from..to {
            assert_eq!(wire.packet().id(), seq + 1);
        }
    }
}

/// Every device has `0..to` once and in order.
fn check(records: &[Record], to: u16) {
    let devices: Vec<_> = (0..16).map(|i| (format!("device-{i}"), u64::from(to))).collect();
    sequences::check(records, &devices);
    assert_eq!(records.len(), devices.len() * usize::from(to), "nothing was sent twice");
}

/// What was read earlier is still there, record for record, at the same offsets.
fn keeps(earlier: &[Record], now: &[Record]) {
    let now: std::collections::BTreeSet<&Record> = now.iter().collect();
    let gone: Vec<&Record> = earlier.iter().filter(|record| !now.contains(record)).collect();
    assert!(gone.is_empty(), "{} records are gone or changed, first {:#?}", gone.len(), gone[0]);
}

#[test]
fn a_restart_keeps_offsets() {
    let Some(consumer) = any_consumer() else { return };
    let scratch = scratch();
    let mut engine = Setup::new(scratch.path()).start();
    let mut earlier = Vec::new();
    for round in 0..4 {
        publish(&engine, round * 50, (round + 1) * 50);
        let records = read_all(consumer, &engine, "telemetry");
        check(&records, (round + 1) * 50);
        keeps(&earlier, &records);
        let setup = if round % 2 == 0 { engine.stop() } else { engine.kill() };
        engine = setup.start();
        let again = read_all(consumer, &engine, "telemetry");
        assert!(records == again, "round {round}: other records after the restart");
        earlier = records;
    }
    engine.stop();
}

fn other_numbers_of_shards(config: &str) {
    let Some(consumer) = any_consumer() else { return };
    let scratch = scratch();
    let base = Setup::new(scratch.path()).config(config);
    let mut earlier = Vec::new();
    for (round, shards) in ["1", "2", "1", "4", "3"].into_iter().enumerate() {
        let engine = base.clone().argument(&["--shards", shards]).start();
        let (from, to) = (round as u16 * 40, (round as u16 + 1) * 40);
        if round > 0 {
            let records = read_all(consumer, &engine, "telemetry");
            assert!(earlier == records, "{shards} shards read something else");
        }
        publish(&engine, from, to);
        let records = read_all(consumer, &engine, "telemetry");
        check(&records, to);
        keeps(&earlier, &records);
        let crossed = engine.metric("ring_arrived_records_total", "") > 0.0;
        assert_eq!(crossed, shards != "1" && config == BY_TOPIC, "{shards} shards");
        earlier = records;
        engine.stop();
    }
}

#[test]
fn another_number_of_shards_reads_the_same() {
    other_numbers_of_shards("");
}

#[test]
fn another_number_of_shards_reads_the_same_by_topic() {
    other_numbers_of_shards(BY_TOPIC);
}

#[test]
fn sigterm_under_load_keeps_every_acknowledged_message() {
    stop_under_load("", &[]);
}

#[test]
fn sigterm_keeps_what_is_on_its_way_to_other_shards() {
    stop_under_load(BY_TOPIC, &[]);
}

#[test]
fn sigterm_waits_for_a_slow_shard() {
    stop_under_load(BY_TOPIC, &["--inject-commit-delay", "1=100ms"]);
}

/// Four devices on each of two shards publish to topics of the other one until the engine, which
/// is told to stop meanwhile, has gone.
fn stop_under_load(config: &str, fault: &[&str]) {
    let Some(consumer) = any_consumer() else { return };
    let scratch = scratch();
    let base = Setup::new(scratch.path()).config(config).argument(&["--shards", "2"]);
    let mut engine = base.clone().argument(fault).start();
    let port = engine.ports.mqtt;
    let loads: Vec<Load> = (0..2).flat_map(|shard| Load::on(shard).take(4)).collect();
    std::thread::scope(|scope| {
        for load in &loads {
            scope.spawn(|| load.publish_until_closed(port));
        }
        wait_until("publishers to be at work", || {
            loads.iter().all(|load| load.acknowledged() > 250).then_some(())
        });
        engine.signal("TERM");
        let status = engine.await_exit();
        assert_eq!(status.code(), Some(0), "SIGTERM under load:\n{}", engine.said());
    });
    assert!(!engine.said().contains("panicked"), "{}", engine.said());
    drop(engine);
    let again = base.start();
    let records = read_all(consumer, &again, "telemetry");
    let acknowledged: Vec<(String, u64)> =
        loads.iter().map(|load| (load.client.clone(), load.acknowledged())).collect();
    sequences::check(&records, &acknowledged);
    again.stop();
}

/// A device that publishes with 64 messages in flight.
struct Load {
    client: String,
    topic: String,
    acknowledged: AtomicU64,
}

impl Load {
    /// Devices of one of two shards, with topics of the other one.
    fn on(shard: u32) -> impl Iterator<Item = Self> {
        let topics = names_on(1 - shard, 2, "load/");
        names_on(shard, 2, "load-").zip(topics).map(|(client, topic)| Self {
            client,
            topic,
            acknowledged: AtomicU64::new(0),
        })
    }

    fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Publishes until the engine ends the connection.
    fn publish_until_closed(&self, port: u16) {
        let (mut wire, _) = Wire::connect(port, &Connect::new(Version::V5, &self.client));
        let packet_id = |seq: u64| (seq % 60_000) as u16 + 1;
        let mut sent = 0;
        loop {
            while sent < self.acknowledged() + 64 {
                let text = sent.to_string();
                let message = Publish::new(&self.topic, packet_id(sent), text.as_bytes());
                wire.send_unheard(&message.bytes(Version::V5));
                sent += 1;
            }
            match wire.read(Duration::from_secs(30)) {
                Ok(Some(answer)) if answer.kind() == PUBACK => {
                    let due = packet_id(self.acknowledged());
                    assert_eq!(answer.id(), due, "acknowledgements keep the order");
                    self.acknowledged.fetch_add(1, Ordering::Relaxed);
                }
                // DISCONNECT, the end of the stream or a reset: the engine has gone.
                _ => return,
            }
        }
    }
}

#[test]
fn a_connection_is_told_that_the_engine_goes() {
    let scratch = scratch();
    let engine = Setup::new(scratch.path()).start();
    let mut wire = Wire::connect_as(engine.ports.mqtt, Version::V5, "told");
    assert_eq!(wire.publish_acknowledged(&Publish::new("t", 1, b"x")), 0);
    engine.stop();
    assert_eq!(wire.closed(), Some(0x8b), "server shutting down");
}
