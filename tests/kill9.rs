//! SIGKILL at random moments while devices publish: what was acknowledged is there afterwards, each
//! device's sequence is in order, and an offset that a consumer has seen never means anything else.
//!
//! Each message goes to two streams: one keyed by the client, whose records stay on the device's
//! shard, and one keyed by the topic, whose records may cross to another; it is acknowledged when
//! both have it.
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

use std::io::Write;
use std::time::{Duration, Instant};

use clients::{Record, any_consumer, read_all};
use engine::{Setup, poll, scratch};
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
                    let now = read_all(any_consumer().unwrap(), &engine, stream);
                    sequences::check_kept(seen, &now);
                    *seen = now;
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
        };
        engine.kill();
        progress.next_round();
        let took = begun.elapsed();
        let _ = writeln!(
            std::io::stderr(),
            "kill {round} of {rounds}: {moment}, {took:.1?}{}",
            if shards.is_empty() { String::new() } else { format!(", {shards} shards") }
        );
    }
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
    let devices: Vec<_> = (0..DEVICES).map(|i| Device::of_crowd(i, "kill")).collect();

    let acknowledged = while_publishing(setup.ports.mqtt, &devices, |progress| {
        kill_rounds(&setup, rounds, &mut random, progress);
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
