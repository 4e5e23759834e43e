//! SIGKILL at random moments while devices publish: what was acknowledged is there afterwards, each
//! device's sequence is in order, and an offset that a consumer has seen never means anything else.
//!
//! TIDEGATE_KILL9_ROUNDS sets the number of kills (20), TIDEGATE_KILL9_SEED repeats a run's choices.
//! Devices are plain sockets (tests/blackbox/wire.rs, not the product's codec) that keep a window of
//! messages in flight, note each PUBACK, and after a reconnect send again from the first message
//! without one, as MQTT has it. The records are read by a real Kafka client.

#![allow(clippy::unwrap_used)] // a test's panic is its report
#![allow(dead_code)] // the modules below serve tests/blackbox too

#[path = "blackbox/clients.rs"]
mod clients;
#[path = "blackbox/engine.rs"]
mod engine;
#[path = "blackbox/wire.rs"]
mod wire;

use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clients::{Record, any_consumer, read_all};
use engine::{Setup, poll, scratch};
use wire::{CONNACK, Connect, PUBACK, Publish, Version, Wire};

const DEVICES: usize = 12;
/// Messages of one device between two kills, so that the whole stays readable in seconds.
const BUDGET: u64 = 1200;

/// Xorshift: a run is repeated by its seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % bound
    }
}

/// What the devices and the killer share.
#[derive(Default)]
struct Progress {
    acknowledged: AtomicU64,
    round: AtomicU64,
    done: AtomicBool,
}

/// One device's life: publishes 0, 1, 2, … and returns how many were acknowledged.
fn device(port: u16, name: &str, version: Version, window: u64, progress: &Progress) -> u64 {
    let mut acknowledged = 0;
    while !progress.done.load(Ordering::Relaxed) {
        let Some(wire) = connect(port, name, version) else {
            // Nobody listens while the engine is dead or recovers.
            poll(Duration::from_millis(5), || None::<()>);
            continue;
        };
        publish(wire, &mut acknowledged, window, progress);
    }
    acknowledged
}

fn connect(port: u16, name: &str, version: Version) -> Option<Wire> {
    let mut wire = Wire::open(port, version).ok()?;
    wire.send_unheard(&Connect { clean: false, ..Connect::new(version, name) }.bytes());
    let answer = wire.read(Duration::from_secs(10)).ok()??;
    assert_eq!((answer.kind(), answer.reason()), (CONNACK, 0), "{name}: {answer:?}");
    Some(wire)
}

/// Publishes from the first unacknowledged message on until the connection ends.
fn publish(mut wire: Wire, acknowledged: &mut u64, window: u64, progress: &Progress) {
    let packet_id = |seq: u64| (seq % 65_535) as u16 + 1;
    let round = progress.round.load(Ordering::Relaxed);
    let last = *acknowledged + BUDGET;
    let mut sent = *acknowledged;
    while progress.round.load(Ordering::Relaxed) == round {
        while sent < last && sent < *acknowledged + window {
            let text = sent.to_string();
            let message = Publish::new("kill", packet_id(sent), text.as_bytes());
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
            Err(error) if error.kind() == std::io::ErrorKind::TimedOut => {}
            Ok(None) | Err(_) => return,
        }
    }
}

/// Starts and kills the engine `rounds` times on one directory.
fn kill_rounds(base: &Setup, rounds: u64, random: &mut Random, progress: &Progress) {
    let mut seen: Vec<Record> = Vec::new();
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
            engine.await_ready();
            if round % 5 == 0 {
                seen = keeps_what_was_seen(&seen, &engine);
                // Meanwhile the devices have sent all they may: a new connection, a new budget.
                progress.round.fetch_add(1, Ordering::Relaxed);
            }
            let before = progress.acknowledged.load(Ordering::Relaxed);
            let target = random.below(DEVICES as u64 * BUDGET * 9 / 10);
            let now = || progress.acknowledged.load(Ordering::Relaxed) - before;
            poll(Duration::from_secs(5), || (now() >= target).then_some(()));
            poll(Duration::from_micros(random.below(8000)), || None::<()>);
            format!("{} acknowledgements after its start", now())
        };
        engine.kill();
        progress.round.fetch_add(1, Ordering::Relaxed);
        let took = begun.elapsed();
        let _ = writeln!(
            std::io::stderr(),
            "kill {round} of {rounds}: {moment}, {took:.1?}{}",
            if shards.is_empty() { String::new() } else { format!(", {shards} shards") }
        );
    }
}

/// Reads everything; what an earlier reading saw must be there unchanged.
fn keeps_what_was_seen(seen: &[Record], engine: &engine::Engine) -> Vec<Record> {
    let consumer = any_consumer().unwrap();
    let now = read_all(consumer, engine, "telemetry");
    let by_place: HashMap<(u32, i64), &Record> =
        now.iter().map(|record| ((record.partition, record.offset), record)).collect();
    for record in seen {
        let place = (record.partition, record.offset);
        assert_eq!(by_place.get(&place), Some(&record), "a record that a consumer had seen");
    }
    now
}

/// Every device: all of `0..acknowledged` is there, and first occurrences ascend without a gap.
fn check(records: &[Record], acknowledged: &[(String, u64)]) {
    let mut by_key: HashMap<&str, Vec<u64>> = HashMap::new();
    for record in records {
        by_key.entry(&record.key).or_default().push(record.text().parse().unwrap());
    }
    for (device, count) in acknowledged {
        let found = by_key.remove(device.as_str()).unwrap_or_default();
        let mut next = 0;
        for seq in &found {
            assert!(*seq <= next, "{device}: {seq} comes where {next} is due: a gap or disorder");
            next = next.max(seq + 1);
        }
        assert!(next >= *count, "{device}: {count} were acknowledged, only {next} are there");
    }
    assert!(by_key.is_empty(), "records of nobody: {:?}", by_key.keys());
    for pair in records.windows(2).filter(|pair| pair[0].partition == pair[1].partition) {
        assert!(pair[0].offset < pair[1].offset, "{pair:#?}");
    }
}

fn number(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is not a number")))
}

#[test]
fn nothing_acknowledged_is_lost() {
    let Some(consumer) = any_consumer() else { return };
    let rounds = number("TIDEGATE_KILL9_ROUNDS").unwrap_or(20);
    let clock = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let seed = number("TIDEGATE_KILL9_SEED").unwrap_or(clock.as_nanos() as u64) | 1;
    let _ = writeln!(std::io::stderr(), "TIDEGATE_KILL9_SEED={seed}");
    let mut random = Random(seed);
    let scratch = scratch();
    let setup = Setup::new(scratch.path());
    let (port, progress) = (setup.ports.mqtt, Progress::default());

    let acknowledged = std::thread::scope(|scope| {
        let devices: Vec<_> = (0..DEVICES)
            .map(|i| {
                let version = if i % 2 == 0 { Version::V5 } else { Version::V311 };
                let (name, window) = (format!("device-{i}"), [1, 16, 64][i % 3]);
                let progress = &progress;
                scope.spawn(move || {
                    let count = device(port, &name, version, window, progress);
                    (name, count)
                })
            })
            .collect();
        let killed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            kill_rounds(&setup, rounds, &mut random, &progress);
        }));
        // Whatever happened, the devices must end, or the scope would wait for ever.
        progress.done.store(true, Ordering::Relaxed);
        progress.round.fetch_add(1, Ordering::Relaxed);
        let counts: Vec<_> = devices.into_iter().map(|device| device.join().unwrap()).collect();
        if let Err(panic) = killed {
            std::panic::resume_unwind(panic);
        }
        counts
    });

    let total: u64 = acknowledged.iter().map(|(_, count)| count).sum();
    assert!(total > rounds * 10, "only {total} acknowledgements: the devices were not at work");
    let engine = setup.start();
    let records = read_all(consumer, &engine, "telemetry");
    check(&records, &acknowledged);
    let _ = writeln!(
        std::io::stderr(),
        "{rounds} kills, {total} acknowledged, {} found, none lost, all in order",
        records.len()
    );
    engine.stop();
}

/// The checks find what they are for.
mod checks_can_fail {
    use super::*;

    fn record(offset: i64, seq: u64) -> Record {
        let (key, value) = ("device".to_owned(), seq.to_string().into_bytes());
        Record { partition: 0, offset, timestamp: 0, key, headers: Vec::new(), value }
    }

    fn check_sequence(sequence: &[u64], acknowledged: u64) {
        let records: Vec<Record> =
            sequence.iter().enumerate().map(|(i, seq)| record(i as i64, *seq)).collect();
        check(&records, &[("device".to_owned(), acknowledged)]);
    }

    #[test]
    fn duplicates_are_allowed() {
        check_sequence(&[0, 1, 2, 1, 2, 3], 3);
    }

    #[test]
    #[should_panic(expected = "only 2 are there")]
    fn a_loss_at_the_end() {
        check_sequence(&[0, 1], 3);
    }

    #[test]
    #[should_panic(expected = "a gap or disorder")]
    fn a_loss_within() {
        check_sequence(&[0, 2, 3], 3);
    }

    #[test]
    #[should_panic(expected = "a gap or disorder")]
    fn a_changed_order() {
        check_sequence(&[0, 2, 1, 3], 3);
    }
}
