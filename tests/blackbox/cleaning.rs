//! The cleaner from outside: what it frees on disk, and what a Kafka consumer sees of it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use crate::clients::{Consumer, Record, any_consumer, read_all};
use crate::engine::{Engine, Setup, run, scratch, wait_within};
use crate::wire::{Publish, Version, Wire};

const MIB: usize = 1 << 20;
/// A consumer is started again and again while it is waited, and the cleaner gives way to others.
const PATIENCE: Duration = Duration::from_secs(180);

/// One shard with small segments.
fn small(scratch: &Path, config: &str) -> Setup {
    let mut setup = Setup::new(scratch).config(config);
    setup.arguments.clear();
    setup
        .argument(&["--log-segment-bytes", "1MiB", "--log-buffer-bytes", "256KiB"])
        .argument(&["--log-batch-bytes-max", "128KiB", "--mqtt-packet-bytes-max", "16KiB"])
        .argument(&["--shards", "1"])
}

/// Publishes to each topic in turn, some of it in flight at a time.
fn publish(wire: &mut Wire, messages: &[(String, Vec<u8>)]) {
    for group in messages.chunks(64) {
        for (id, (topic, payload)) in group.iter().enumerate() {
            wire.publish(&Publish::new(topic, id as u16 + 1, payload));
        }
        for id in 0..group.len() {
            assert_eq!(wire.packet().id(), id as u16 + 1);
        }
    }
}

/// Segments of all logs under a data directory: how many of chains, and how many moved.
fn segments(data_dir: &Path) -> (usize, usize) {
    let within = |dir: &Path| {
        let entries = std::fs::read_dir(dir).into_iter().flatten().filter_map(Result::ok);
        entries.map(|entry| entry.path()).collect::<Vec<_>>()
    };
    let (mut chain, mut moved) = (0, 0);
    let logs = within(data_dir).into_iter().filter(|dir| dir.is_dir()).flat_map(|dir| within(&dir));
    for file in logs.filter(|dir| dir.is_dir()).flat_map(|dir| within(&dir)) {
        let name = file.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        match name.strip_suffix(".log") {
            Some(stem) if stem.starts_with('m') => moved += 1,
            Some(_) => chain += 1,
            None => {}
        }
    }
    (chain, moved)
}

fn texts(consumer: Consumer, engine: &Engine, topic: &str) -> Vec<String> {
    let mut texts: Vec<_> =
        read_all(consumer, engine, topic).iter().map(|record| record.text().to_owned()).collect();
    texts.sort();
    texts
}

#[test]
fn a_small_stream_that_is_kept_pins_no_segments_of_a_big_one_that_is_not() {
    let Some(consumer) = any_consumer() else { return };
    let scratch = scratch();
    let streams = "[[stream]]\nname = \"big\"\ntopics = [\"big\"]\nretention = \"1s\"\n\
                   [[stream]]\nname = \"kept\"\ntopics = [\"kept\"]\nretention = \"forever\"\n";
    let setup = small(scratch.path(), streams);
    let engine = setup.start();
    let mut wire = Wire::connect_as(engine.ports.mqtt, Version::V5, "device");
    let mut kept = Vec::new();
    for round in 0..24 {
        let mut messages = vec![("big".to_owned(), vec![b'.'; 8 << 10]); MIB / (8 << 10)];
        kept.push(format!("round {round:02}"));
        messages.push(("kept".to_owned(), kept[round].clone().into_bytes()));
        publish(&mut wire, &messages);
    }
    // Two are ready ahead, one is written, and one may be the last whose header is durable.
    wait_within(PATIENCE, "the segments to be let go of", || {
        let (chain, moved) = segments(&setup.data_dir);
        (chain <= 5 && moved >= 1).then_some(())
    });
    assert!(engine.metric("log_moved_segments", "") >= 1.0);
    assert!(engine.metric("log_clean_written_bytes", "") > 0.0);
    assert_eq!(engine.metric("log_clean_failures", ""), 0.0);
    assert_eq!(texts(consumer, &engine, "kept"), kept);
    let engine = engine.kill().start();
    assert_eq!(texts(consumer, &engine, "kept"), kept, "after a kill");
    engine.stop();
    let dir = setup.data_dir.to_str().unwrap();
    let (code, out, error) = run(&["log", "verify", dir]);
    assert_eq!(code, 0, "{out}{error}");
}

const KEYS: usize = 40;
const DELETED: usize = 7;
/// How often each of the others is published.
const ROUNDS: usize = 30;

fn topic(key: usize) -> String {
    format!("state/{key}")
}

/// The newest record of each key.
fn newest(records: &[Record]) -> BTreeMap<&str, &Record> {
    records.iter().map(|record| (record.key.as_str(), record)).collect()
}

#[test]
fn of_a_compacted_stream_a_consumer_sees_the_newest_of_each_key() {
    let Some(consumer) = any_consumer() else { return };
    let scratch = scratch();
    let streams = "[[stream]]\nname = \"state\"\ntopics = [\"state/#\"]\npartition_by = \"topic\"\n\
                   cleanup_policy = \"compact\"\ntombstone_retention = \"1s\"\n";
    let setup = small(scratch.path(), streams).argument(&["--log-compact-keys-max", "3"]);
    let engine = setup.start();
    let mut wire = Wire::connect_as(engine.ports.mqtt, Version::V5, "device");
    let payload = |round: usize| {
        let mut payload = format!("{round} ").into_bytes();
        payload.resize(8 << 10, b'.');
        payload
    };
    let round = |round: usize, keys: &mut dyn Iterator<Item = usize>| {
        keys.map(|key| (topic(key), payload(round))).collect::<Vec<_>>()
    };
    publish(&mut wire, &round(0, &mut (0..KEYS)));
    publish(&mut wire, &[(topic(DELETED), Vec::new())]);
    let first = read_all(consumer, &engine, "state");
    let tombstone = newest(&first)[topic(DELETED).as_str()].clone();
    assert!(tombstone.value.is_empty() && tombstone.offset > 0, "a consumer sees the deletion");

    let mut last = 0;
    wait_within(PATIENCE, "the deleted key to be gone, and most of what is superseded", || {
        // So many rounds and no more: a slow machine must not be given ever more to clean.
        if last < ROUNDS {
            last += 1;
            publish(&mut wire, &round(last, &mut (0..KEYS).filter(|key| *key != DELETED)));
        }
        let records = read_all(consumer, &engine, "state");
        let newest = newest(&records);
        let there = newest.len() - usize::from(newest.contains_key(topic(DELETED).as_str()));
        assert_eq!(there, KEYS - 1, "every other key is there");
        for (key, record) in &newest {
            let current = record.value == payload(last);
            assert!(current || *key == topic(DELETED), "{key}: not the newest");
        }
        let gone = !newest.contains_key(topic(DELETED).as_str());
        (gone && last == ROUNDS && records.len() < KEYS * last / 2).then_some(())
    });
    assert!(engine.metric("log_compacted_records", "") > 0.0);
    assert_eq!(engine.metric("log_clean_failures", ""), 0.0);

    let before = read_all(consumer, &engine, "state");
    let engine = engine.kill().start();
    let after = read_all(consumer, &engine, "state");
    let known: BTreeMap<_, _> =
        before.iter().map(|record| ((record.partition, record.offset), record)).collect();
    for record in &after {
        let same = known.get(&(record.partition, record.offset));
        assert_eq!(same, Some(&record), "each record keeps its offset");
    }
    assert_eq!(newest(&after), newest(&before));
    engine.stop();
    let (code, out, error) = run(&["log", "verify", setup.data_dir.to_str().unwrap()]);
    assert_eq!(code, 0, "{out}{error}");
}
