//! SIGKILL at random moments while devices publish: what was acknowledged is there afterwards, each
//! device's sequence is in order, and an offset that a consumer has seen never means anything else.
//!
//! Each message goes to two streams: one keyed by the client, whose records stay on the device's
//! shard, and one keyed by the topic, whose records may cross to another; it is acknowledged when
//! both have it.
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
#[path = "blackbox/random.rs"]
mod random;
#[path = "blackbox/sequences.rs"]
mod sequences;
#[path = "blackbox/wire.rs"]
mod wire;

use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clients::{Record, any_consumer, read_all};
use engine::{Setup, poll, scratch};
use random::{Random, number, seed};
use wire::{CONNACK, Connect, PUBACK, Publish, Version, Wire};

const DEVICES: usize = 12;
/// Messages of one device between two kills, so that the whole stays readable in seconds.
const BUDGET: u64 = 600;

const STREAMS: [&str; 2] = ["by_client", "by_topic"];
const CONFIG: &str = r##"
[[stream]]
name = "by_client"

[[stream]]
name = "by_topic"
partition_by = "topic"
"##;

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
        publish(wire, name, &mut acknowledged, window, progress);
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
fn publish(mut wire: Wire, name: &str, acknowledged: &mut u64, window: u64, progress: &Progress) {
    let topic = format!("kill/{name}");
    let packet_id = |seq: u64| (seq % 65_535) as u16 + 1;
    let round = progress.round.load(Ordering::Relaxed);
    let last = *acknowledged + BUDGET;
    let mut sent = *acknowledged;
    while progress.round.load(Ordering::Relaxed) == round {
        while sent < last && sent < *acknowledged + window {
            let text = sent.to_string();
            let message = Publish::new(&topic, packet_id(sent), text.as_bytes());
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
    let mut seen: [Vec<Record>; 2] = Default::default();
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
                for (stream, seen) in STREAMS.iter().zip(&mut seen) {
                    *seen = keeps_what_was_seen(stream, seen, &engine);
                }
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
fn keeps_what_was_seen(stream: &str, seen: &[Record], engine: &engine::Engine) -> Vec<Record> {
    let consumer = any_consumer().unwrap();
    let now = read_all(consumer, engine, stream);
    let by_place: HashMap<(u32, i64), &Record> =
        now.iter().map(|record| ((record.partition, record.offset), record)).collect();
    for record in seen {
        let place = (record.partition, record.offset);
        assert_eq!(by_place.get(&place), Some(&record), "a record that a consumer had seen");
    }
    now
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
    for stream in STREAMS {
        let records = read_all(consumer, &engine, stream);
        sequences::check(&records, &acknowledged);
        let _ = writeln!(
            std::io::stderr(),
            "{rounds} kills, {total} acknowledged, {} found in {stream}, none lost, all in order",
            records.len()
        );
    }
    engine.stop();
}
