//! SIGKILL at random moments while devices publish: what was acknowledged is there afterwards, each
//! device's sequence is in order, and an offset that a consumer has seen never means anything else.
//!
//! Each message goes to two streams: one keyed by the client, whose records stay on the device's
//! shard, and one keyed by the topic, whose records may cross to another; it is acknowledged when
//! both have it.
//!
//! A consumer reads on every fifth time; in the end everything is read once more, and what was seen
//! on the way must stand where it was.
//!
//! TIDEGATE_KILL9_ROUNDS sets the number of kills (20), TIDEGATE_KILL9_SEED repeats a run's choices.
//! The records are read by a real Kafka client.

#![allow(clippy::unwrap_used)] // a test's panic is its report
#![allow(dead_code)] // the modules below serve tests/blackbox too

#[path = "blackbox/clients.rs"]
mod clients;
#[path = "blackbox/engine.rs"]
mod engine;
#[path = "blackbox/publishers.rs"]
mod publishers;
#[path = "blackbox/random.rs"]
mod random;
#[path = "blackbox/sequences.rs"]
mod sequences;
#[path = "blackbox/wire.rs"]
mod wire;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Write;
use std::time::{Duration, Instant};

use clients::{Record, any_consumer, read_all, read_on};
use engine::{Engine, Setup, poll, scratch};
use publishers::{BUDGET, Device, Progress, while_publishing};
use random::{Random, number, seed};

const DEVICES: usize = 12;

const STREAMS: [&str; 2] = ["by_client", "by_topic"];
const CONFIG: &str = r##"
[[stream]]
name = "by_client"

[[stream]]
name = "by_topic"
partition_by = "topic"
"##;

/// What a consumer has read of a stream while the engine was killed.
#[derive(Debug, Default)]
struct Reader {
    /// By place, a hash of the record: a long run has millions.
    seen: HashMap<(u32, i64), u64>,
    /// Where each partition is read on.
    next: BTreeMap<u32, i64>,
}

impl Reader {
    /// Reads what has come since the last time.
    fn read_on(&mut self, engine: &Engine, stream: &str) {
        let new = read_on(any_consumer().unwrap(), engine, stream, &self.next);
        sequences::check_rest(&new, &none_acknowledged());
        for record in &new {
            self.next.insert(record.partition, record.offset + 1);
            self.seen.insert((record.partition, record.offset), hash(record));
        }
    }

    /// All that was seen is in `records`, and unchanged.
    fn check_kept(mut self, records: &[Record]) {
        for record in records {
            let seen = self.seen.remove(&(record.partition, record.offset));
            assert!(
                seen.is_none_or(|seen| seen == hash(record)),
                "another one was there: {record:?}"
            );
        }
        let gone = self.seen.keys().min();
        assert!(gone.is_none(), "a consumer had seen a record at {gone:?} (partition, offset)");
    }
}

fn hash(record: &Record) -> u64 {
    let mut hasher = DefaultHasher::new();
    record.hash(&mut hasher);
    hasher.finish()
}

/// Of each device nothing: its records are in order, however many there are.
fn none_acknowledged() -> Vec<(String, u64)> {
    devices().into_iter().map(|device| (device.name, 0)).collect()
}

fn devices() -> Vec<Device> {
    (0..DEVICES).map(|i| Device::of_crowd(i, "kill")).collect()
}

/// One life of the engine that ends when devices have got some of what they wait for; says when.
fn live(
    engine: &mut Engine,
    reads: bool,
    readers: &mut [Reader; 2],
    random: &mut Random,
    progress: &Progress,
) -> String {
    engine.await_ready();
    if reads {
        for (stream, reader) in STREAMS.iter().zip(readers) {
            reader.read_on(engine, stream);
        }
        // Meanwhile the devices have sent all they may: a new connection, a new budget.
        progress.next_round();
    }
    let before = progress.acknowledged();
    let target = random.below(DEVICES as u64 * BUDGET * 9 / 10);
    let now = || progress.acknowledged() - before;
    poll(Duration::from_secs(5), || (now() >= target).then_some(()));
    poll(Duration::from_micros(random.below(8000)), || None::<()>);
    format!("{} acknowledgements after its start", now())
}

/// Starts and kills the engine `rounds` times on one directory; returns what was read meanwhile.
fn kill_rounds(base: &Setup, rounds: u64, random: &mut Random, progress: &Progress) -> [Reader; 2] {
    let mut readers: [Reader; 2] = Default::default();
    let all = Instant::now();
    for round in 1..=rounds {
        let begun = Instant::now();
        // Mostly a shard a core, now and then one or three: partitions change their owners.
        let shards = ["", "", "1", "3"][random.below(4) as usize];
        let setup = match shards {
            "" => base.clone(),
            shards => base.clone().argument(&["--shards", shards]),
        };
        let mut engine = setup.spawn();
        // Some die young, in the middle of recovery; then one lives.
        let young = round > 1 && random.below(4) == 0;
        let moment = if young {
            let life = Duration::from_millis(random.below(150));
            poll(life, || None::<()>);
            engine.assert_running();
            format!("{life:?} after its start")
        } else {
            live(&mut engine, round % 5 == 0, &mut readers, random, progress)
        };
        engine.kill();
        progress.next_round();
        let _ = writeln!(
            std::io::stderr(),
            "kill {round} of {rounds}: {moment}{}, {:.1?}; {} acknowledged in all, {:.0?}",
            if shards.is_empty() { String::new() } else { format!(", {shards} shards") },
            begun.elapsed(),
            progress.acknowledged(),
            all.elapsed(),
        );
    }
    readers
}

#[test]
fn nothing_acknowledged_is_lost() {
    let Some(consumer) = any_consumer() else { return };
    let rounds = number("TIDEGATE_KILL9_ROUNDS").unwrap_or(20);
    let seed = seed("TIDEGATE_KILL9_SEED");
    let _ = writeln!(std::io::stderr(), "TIDEGATE_KILL9_SEED={seed}");
    let mut random = Random::new(seed);
    let scratch = scratch();
    let setup = Setup::new(scratch.path()).config(CONFIG);
    let begun = Instant::now();
    let mut readers = Default::default();
    let acknowledged = while_publishing(setup.ports.mqtt, &devices(), |progress| {
        readers = kill_rounds(&setup, rounds, &mut random, progress);
    });

    let total: u64 = acknowledged.iter().map(|(_, count)| count).sum();
    assert!(total > rounds * 10, "only {total} acknowledgements: the devices were not at work");
    let engine = setup.start();
    for (stream, reader) in STREAMS.iter().zip(readers) {
        let records = read_all(consumer, &engine, stream);
        reader.check_kept(&records);
        sequences::check(&records, &acknowledged);
        let _ = writeln!(
            std::io::stderr(),
            "{rounds} kills, {total} acknowledged: {} records in {stream}, {} of them sent twice; \
             0 lost, all in order, {:.0?}",
            records.len(),
            records.len() - distinct(&records),
            begun.elapsed()
        );
    }
    engine.stop();
}

/// Messages that are there, however often.
fn distinct(records: &[Record]) -> usize {
    let messages =
        records.iter().map(|record| (sequences::client_of(record), sequences::number_of(record)));
    messages.collect::<HashSet<_>>().len()
}
