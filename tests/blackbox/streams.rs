//! Several streams from a configuration file: filters, compression, durability, no match.

use crate::clients::{CONSUMERS, Record, any_consumer, has_consumer, read_all};
use crate::engine::{Engine, Setup, scratch};
use crate::wire::{Publish, Version, Wire};

const STREAMS: &str = r##"
[[stream]]
name = "temperatures"
topics = ["plant/+/temp", "lab/temp"]

[[stream]]
name = "plant.all"
topics = ["plant/#"]
compression = "lz4"
durability = "write"

[[stream]]
name = "scratch_pad"
topics = ["scratch/#"]
durability = "memory"
"##;

const NO_MATCHING_SUBSCRIBERS: u8 = 0x10;

fn texts(engine: &Engine, topic: &str) -> Vec<String> {
    let Some(consumer) = any_consumer() else { return Vec::new() };
    let mut texts: Vec<String> =
        read_all(consumer, engine, topic).iter().map(|r| r.text().to_owned()).collect();
    texts.sort();
    texts
}

#[test]
fn filters_choose_the_streams() {
    let scratch = scratch();
    let engine = Setup::new(scratch.path()).config(STREAMS).start();
    let mut wire = Wire::connect_as(engine.ports.mqtt, Version::V5, "device");
    let topics = [
        ("plant/1/temp", 0),
        ("plant/1/hum", 0),
        ("plant", 0), // `plant/#` takes its parent level as well
        ("plant/1/temp/raw", 0),
        ("lab/temp", 0),
        ("scratch/x", 0),
        ("lab/temp/x", NO_MATCHING_SUBSCRIBERS),
        ("elsewhere", NO_MATCHING_SUBSCRIBERS),
        ("plants/1/temp", NO_MATCHING_SUBSCRIBERS),
    ];
    for (i, (topic, reason)) in topics.into_iter().enumerate() {
        let publish = Publish::new(topic, i as u16 + 1, topic.as_bytes());
        assert_eq!(wire.publish_acknowledged(&publish), reason, "{topic}");
    }
    // 3.1.1 has no reason codes: acknowledged all the same.
    let mut old = Wire::connect_as(engine.ports.mqtt, Version::V311, "old device");
    assert_eq!(old.publish_acknowledged(&Publish::new("elsewhere", 1, b"x")), 0);
    let (_, metrics) = engine.get("/metrics").unwrap();
    let unmatched: Vec<&str> = metrics.lines().filter(|line| line.contains("unmatched")).collect();
    assert!(!unmatched.is_empty(), "messages that match no stream are counted:\n{metrics}");
    assert_eq!(engine.metric("unmatched", ""), 4.0, "{unmatched:#?}");
    if any_consumer().is_some() {
        assert_eq!(texts(&engine, "temperatures"), ["lab/temp", "plant/1/temp"]);
        let plant = ["plant", "plant/1/hum", "plant/1/temp", "plant/1/temp/raw"];
        assert_eq!(texts(&engine, "plant.all"), plant);
        assert_eq!(texts(&engine, "scratch_pad"), ["scratch/x"]);
    }
    engine.stop();
}

#[test]
fn every_consumer_reads_compressed_batches() {
    let scratch = scratch();
    let engine = Setup::new(scratch.path()).config(STREAMS).start();
    let mut wire = Wire::connect_as(engine.ports.mqtt, Version::V5, "device");
    let expected: Vec<Vec<u8>> =
        (0..500_u16).map(|i| format!("{i} ").repeat(usize::from(i) % 300).into_bytes()).collect();
    for (i, payload) in expected.iter().enumerate() {
        wire.publish(&Publish::new("plant/x", i as u16 + 1, payload));
    }
    for id in 1..=500 {
        assert_eq!(wire.packet().id(), id);
    }
    for consumer in CONSUMERS.into_iter().filter(|consumer| has_consumer(*consumer)) {
        let records = read_all(consumer, &engine, "plant.all");
        let values: Vec<&Vec<u8>> = records.iter().map(|record| &record.value).collect();
        assert!(values == expected.iter().collect::<Vec<_>>(), "{consumer:?}");
    }
    engine.stop();
}

#[test]
fn what_is_written_survives_the_process() {
    let Some(consumer) = any_consumer() else { return };
    let scratch = scratch();
    let engine = Setup::new(scratch.path()).config(STREAMS).start();
    let mut wire = Wire::connect_as(engine.ports.mqtt, Version::V5, "device");
    for id in 1..=300 {
        assert_eq!(wire.publish_acknowledged(&Publish::new("plant/1/temp", id, b"t")), 0);
        assert_eq!(wire.publish_acknowledged(&Publish::new("scratch/1", id, b"s")), 0);
    }
    let pads: Vec<Record> = read_all(consumer, &engine, "scratch_pad");
    assert_eq!(pads.len(), 300);
    let engine = engine.kill().start();
    // A message of two streams is acknowledged when both have it.
    assert_eq!(read_all(consumer, &engine, "temperatures").len(), 300, "fsync");
    assert_eq!(read_all(consumer, &engine, "plant.all").len(), 300, "write");
    // A memory stream may have lost records; what comes now must not take an offset again.
    let mut wire = Wire::connect_as(engine.ports.mqtt, Version::V5, "device");
    assert_eq!(wire.publish_acknowledged(&Publish::new("scratch/1", 1, b"later")), 0);
    let now = read_all(consumer, &engine, "scratch_pad");
    let last = now.last().unwrap();
    assert_eq!(last.text(), "later");
    assert!(last.offset > pads.last().unwrap().offset, "{last:?} takes an offset again");
    engine.stop();
}

#[test]
fn a_stream_may_be_added_and_left_out() {
    let Some(consumer) = any_consumer() else { return };
    let scratch = scratch();
    let one = "[[stream]]\nname = \"one\"\ntopics = [\"one/#\"]\n";
    let two = "[[stream]]\nname = \"two\"\ntopics = [\"two/#\"]\n";
    let publish = |engine: &Engine, topic: &str| {
        let mut wire = Wire::connect_as(engine.ports.mqtt, Version::V5, "device");
        assert_eq!(wire.publish_acknowledged(&Publish::new(topic, 1, topic.as_bytes())), 0);
    };
    let setup = Setup::new(scratch.path()).config(one);
    let engine = setup.start();
    publish(&engine, "one/1");
    // The new one comes first in the file: a stream is known by its name, not by its place.
    let engine = engine.stop().config(&format!("{two}{one}")).start();
    publish(&engine, "two/1");
    publish(&engine, "one/2");
    assert_eq!(texts(&engine, "one"), ["one/1", "one/2"]);
    assert_eq!(texts(&engine, "two"), ["two/1"]);
    let engine = engine.stop().config(two).start();
    publish(&engine, "two/2");
    let engine = engine.stop().config(&format!("{one}{two}")).start();
    assert_eq!(texts(&engine, "two"), ["two/1", "two/2"]);
    let records = read_all(consumer, &engine, "one");
    assert_eq!(records.iter().map(|r| r.offset).collect::<Vec<_>>(), [0, 1]);
    engine.stop();
}
