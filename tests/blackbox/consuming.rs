//! Kafka consumers: following live, reading at a time, asking for what is not there.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::clients::{Consumer, Follower, has, has_consumer, has_python, offsets_at, read_all};
use crate::engine::{Setup, scratch, wait_until};
use crate::wire::{Publish, Version, Wire};

fn now_ms() -> i64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64
}

#[test]
fn a_follower_gets_each_message_as_it_is_committed() {
    if !has_python() {
        return;
    }
    let scratch = scratch();
    let engine = Setup::new(scratch.path()).start();
    let port = engine.ports.mqtt;
    for consumer in [Consumer::Confluent, Consumer::KafkaPython] {
        // Devices spread over partitions, and so over shards.
        let devices: Vec<String> = (0..8).map(|i| format!("{consumer:?}-{i}")).collect();
        let mut follower = Follower::start(consumer, &engine, "telemetry", devices.len() * 3);
        for round in 0..3 {
            for device in &devices {
                let mut wire = Wire::connect_as(port, Version::V5, device);
                let text = format!("{device} {round}");
                assert_eq!(wire.publish_acknowledged(&Publish::new("live", 1, text.as_bytes())), 0);
                // One at a time: a follower that is only woken by the next message would hang.
                assert_eq!(follower.record().text(), text);
            }
        }
    }
    engine.stop();
}

#[test]
fn list_offsets_finds_a_time() {
    if !has_python() {
        return;
    }
    let scratch = scratch();
    let engine = Setup::new(scratch.path()).start();
    let mut wire = Wire::connect_as(engine.ports.mqtt, Version::V5, "clock");
    let mut id = 0;
    let mut burst = |wire: &mut Wire| {
        for _ in 0..100 {
            id += 1;
            assert_eq!(wire.publish_acknowledged(&Publish::new("t", id, b"x")), 0);
        }
    };
    burst(&mut wire);
    let between = now_ms() + 2;
    wait_until("the clock to move on", || (now_ms() > between + 2).then_some(()));
    burst(&mut wire);
    let records = read_all(Consumer::Confluent, &engine, "telemetry");
    assert_eq!(records.len(), 200);
    let (partition, second) = (records[0].partition as usize, &records[100]);
    assert!(records[99].timestamp < between && second.timestamp >= between);
    for consumer in [Consumer::Confluent, Consumer::KafkaPython] {
        let at = |time_ms| offsets_at(consumer, &engine, "telemetry", time_ms)[partition];
        assert_eq!(at(0), records[0].offset, "{consumer:?}: before everything");
        assert_eq!(at(between), second.offset, "{consumer:?}: the first at or after");
        assert_eq!(
            at(second.timestamp),
            second.offset,
            "{consumer:?}: exactly then, or the \
            first of the same millisecond"
        );
        assert_eq!(at(now_ms() + 60_000), -1, "{consumer:?}: nothing is that late");
    }
    engine.stop();
}

#[test]
fn a_topic_that_is_not_there_is_named_in_the_error() {
    if !has("kcat") {
        return;
    }
    let scratch = scratch();
    let engine = Setup::new(scratch.path()).start();
    let output = Command::new("kcat")
        .args(["-C", "-e", "-b", &engine.bootstrap(), "-t", "nowhere", "-o", "beginning"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("Unknown topic"), "{said}");
    engine.stop();
}

#[test]
fn kcat_lists_one_broker_a_shard() {
    if !has("kcat") {
        return;
    }
    let scratch = scratch();
    let engine = Setup::new(scratch.path()).argument(&["--shards", "2"]).start();
    let output = Command::new("kcat").args(["-L", "-b", &engine.bootstrap()]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(said.contains("2 brokers"), "{said}");
    assert!(said.contains("topic \"telemetry\" with 8 partitions"), "{said}");
    engine.stop();
}

#[test]
fn nonsense_on_the_kafka_port_hurts_nobody() {
    if !has_consumer(Consumer::Kcat) {
        return;
    }
    let scratch = scratch();
    let engine = Setup::new(scratch.path()).start();
    let mut device = Wire::connect_as(engine.ports.mqtt, Version::V5, "device");
    assert_eq!(device.publish_acknowledged(&Publish::new("t", 1, b"x")), 0);
    let openings: [&[u8]; 4] = [
        b"GET / HTTP/1.1\r\n\r\n",
        &[0xff; 64],
        &[0, 0, 0, 0],
        &[0, 0, 0, 12, 0x7f, 0xff, 0, 0, 0, 0, 0, 1, 0xff, 0xff, 0, 0],
    ];
    for bytes in openings {
        let mut wire = Wire::open(engine.ports.kafka, Version::V5).unwrap();
        wire.send_unheard(bytes);
        let _ = wire.stream.shutdown(std::net::Shutdown::Write);
    }
    assert_eq!(read_all(Consumer::Kcat, &engine, "telemetry").len(), 1);
    engine.stop();
}
