//! Bytes that are not what was written: found, fenced and told; everything else goes on.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use crate::clients::{
    Consumer, Passage, Record, any_consumer, has, has_python, kcat_from, read_all, read_through,
};
use crate::engine::{Engine, Setup, scratch, wait_until};
use crate::wire::{Publish, Version, Wire};

const STREAMS: &str = r##"
[[stream]]
name = "harmed"
topics = ["harmed"]

[[stream]]
name = "other"
topics = ["other"]
"##;

/// Large enough that they fill several segments of 1 MiB.
const MESSAGES: u16 = 500;
const PAYLOAD_BYTES: usize = 8 << 10;

fn setup(scratch: &tempfile::TempDir) -> Setup {
    let mut setup = Setup::new(scratch.path()).config(STREAMS);
    setup.arguments.clear();
    setup
        .argument(&["--log-segment-bytes", "1MiB", "--log-buffer-bytes", "256KiB"])
        .argument(&["--log-batch-bytes-max", "128KiB", "--mqtt-packet-bytes-max", "16KiB"])
        .argument(&["--shards", "1", "--partitions", "1"])
}

/// Every tenth message is for the other stream. Returns how many each got.
fn publish(engine: &Engine) -> (u64, u64) {
    let mut wire = Wire::connect_as(engine.ports.mqtt, Version::V5, "device");
    let payload = [b'.'; PAYLOAD_BYTES];
    for id in 1..=MESSAGES {
        let topic = if id % 10 == 0 { "other" } else { "harmed" };
        wire.publish_acknowledged(&Publish::new(topic, id, &payload));
    }
    (u64::from(MESSAGES - MESSAGES / 10), u64::from(MESSAGES / 10))
}

/// The segments of the first start, in order.
fn segments(setup: &Setup) -> Vec<PathBuf> {
    let log = setup.data_dir.join("g000001/s0000");
    let mut files: Vec<_> = std::fs::read_dir(log).unwrap().map(|e| e.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "log"));
    files.sort();
    files
}

fn count(engine: &Engine, topic: &str) -> usize {
    let consumer = any_consumer().expect("the test asked for one");
    let records: Vec<Record> = read_all(consumer, engine, topic);
    records.len()
}

#[test]
fn a_flipped_bit_costs_a_batch_and_consumers_go_on_behind_it() {
    if !has_python() {
        return;
    }
    let scratch = scratch();
    let engine = setup(&scratch).start();
    let (harmed, other) = publish(&engine);
    let setup = engine.stop();
    // In the payload of a record: one of many that are alike.
    let segment = &segments(&setup)[1];
    let file = File::options().read(true).write(true).open(segment).unwrap();
    let mut bytes = vec![0; 512 << 10];
    file.read_exact_at(&mut bytes, 0).unwrap();
    let run = [b'.'; 1024];
    let at = bytes.windows(run.len()).rposition(|window| window == run).expect("a payload");
    file.write_all_at(&[b'.' ^ 1], at as u64 + 512).unwrap();

    let engine = setup.start();
    let passages = read_through(Consumer::Confluent, &engine, "harmed", 0, 1);
    assert_eq!(passages, read_through(Consumer::KafkaPython, &engine, "harmed", 0, 1));
    let errors: Vec<_> = passages.iter().filter_map(Passage::error).collect();
    assert!(!errors.is_empty(), "nothing was wrong");
    assert!(errors.iter().all(|(code, _)| *code == 2), "CORRUPT_MESSAGE: {errors:?}");
    let read = passages.iter().filter(|passage| passage.error().is_none()).count() as u64;
    assert_eq!(read + errors.len() as u64, harmed, "one batch is lost, no more: {errors:?}");
    assert!(errors.len() <= 16, "a batch has no more than 128 KiB: {errors:?}");
    let first = errors[0].1;
    let expected: Vec<_> = (first..first + errors.len() as u64).collect();
    assert_eq!(errors.iter().map(|(_, at)| *at).collect::<Vec<_>>(), expected);
    assert_eq!(count(&engine, "other") as u64, other, "the other stream is whole");
    let behind = first + errors.len() as u64;
    if has("kcat") {
        let (offsets, said) = kcat_from(&engine, "harmed", 0, 0);
        assert_eq!(offsets, (0..first).collect::<Vec<_>>());
        assert!(said.is_some_and(|said| said.contains("Invalid message")), "kcat ends there");
        let (offsets, said) = kcat_from(&engine, "harmed", 0, behind);
        assert_eq!((offsets, said), ((behind..harmed).collect(), None));
    }
    wait_until("the damage to be counted", || {
        (engine.metric("log_damages_total", "") > 0.0).then_some(())
    });
    let said = engine.said();
    assert!(said.contains("segment g000001/s0000/0000000001"), "{said}");
    let place = format!(
        "consumers of harmed, partition 0, get CORRUPT_MESSAGE among the offsets {first} to {} and \
         can go on at {behind} ",
        behind - 1
    );
    assert!(said.contains(&place), "{said}");
    engine.stop();
}

#[test]
fn a_missing_segment_is_a_hole_that_is_told_at_each_start() {
    if !has_python() {
        return;
    }
    let scratch = scratch();
    let engine = setup(&scratch).start();
    let (harmed, other) = publish(&engine);
    let mut setup = engine.stop();
    std::fs::remove_file(&segments(&setup)[1]).unwrap();
    for start in 0..2 {
        let engine = setup.start();
        let said = engine.said();
        assert!(said.contains("0000000001"), "start {start}: {said}");
        let lost = said.lines().rfind(|line| line.contains("of harmed, partition 0, are lost"));
        let lost = lost.unwrap_or_else(|| panic!("start {start}: {said}"));
        let fenced = engine.metric("partition_fenced_offsets", "stream=\"harmed\"");
        assert!(fenced > 0.0 && fenced < harmed as f64, "{fenced} of {harmed}: {lost}");
        let passages = read_through(Consumer::Confluent, &engine, "harmed", 0, fenced as u64);
        let errors: Vec<_> = passages.iter().filter_map(Passage::error).collect();
        assert_eq!(errors.len(), 1, "{errors:?}");
        assert_eq!(errors[0].0, 2, "CORRUPT_MESSAGE");
        assert!(lost.contains(&format!("offsets {} to ", errors[0].1)), "{lost}");
        assert_eq!(passages.len() as f64 - 1.0, harmed as f64 - fenced);
        let fenced_of_other = engine.metric("partition_fenced_offsets", "stream=\"other\"");
        assert!(fenced_of_other < other as f64);
        setup = engine.stop();
    }
}
