//! What stays over an end and a start: records, offsets, order; also with another number of shards
//! and under load.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::clients::{Record, any_consumer, read_all};
use crate::engine::{Engine, Setup, scratch, wait_until};
use crate::wire::{Connect, PUBACK, Publish, Version, Wire};

/// Publishes the sequences `from..to` from each of 16 devices and waits for all acknowledgements.
fn publish(engine: &Engine, from: u16, to: u16) {
    for device in 0..16 {
        let id = format!("device-{device}");
        let mut wire = Wire::connect_as(engine.ports.mqtt, Version::V5, &id);
        for seq in from..to {
            let text = format!("{seq}");
            wire.publish(&Publish::new("restart", seq + 1, text.as_bytes()));
        }
        for seq in from..to {
            assert_eq!(wire.packet().id(), seq + 1);
        }
    }
}

/// Every device has `0..to` in order, and offsets within each partition ascend.
fn check(records: &[Record], to: u16) {
    for device in 0..16 {
        let id = format!("device-{device}");
        let own: Vec<String> =
            records.iter().filter(|r| r.key == id).map(|r| r.text().to_owned()).collect();
        assert_eq!(own, (0..to).map(|seq| seq.to_string()).collect::<Vec<_>>(), "{id}");
    }
    for pair in records.windows(2).filter(|pair| pair[0].partition == pair[1].partition) {
        assert!(pair[0].offset < pair[1].offset, "{pair:#?}");
    }
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

#[test]
fn another_number_of_shards_reads_the_same() {
    let Some(consumer) = any_consumer() else { return };
    let scratch = scratch();
    let base = Setup::new(scratch.path());
    let mut earlier = Vec::new();
    for (round, shards) in ["1", "2", "1", "3"].into_iter().enumerate() {
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
        earlier = records;
        engine.stop();
    }
}

#[test]
fn sigterm_under_load_keeps_every_acknowledged_message() {
    let Some(consumer) = any_consumer() else { return };
    let scratch = scratch();
    let mut engine = Setup::new(scratch.path()).start();
    let port = engine.ports.mqtt;
    let acknowledged = AtomicUsize::new(0);
    let counts: Vec<u32> = std::thread::scope(|scope| {
        let publishers: Vec<_> = (0..8)
            .map(|device| {
                let acknowledged = &acknowledged;
                scope.spawn(move || publish_until_closed(port, device, acknowledged))
            })
            .collect();
        wait_until("publishers to be at work", || {
            (acknowledged.load(Ordering::Relaxed) > 2000).then_some(())
        });
        engine.signal("TERM");
        let status = engine.await_exit();
        assert_eq!(status.code(), Some(0), "SIGTERM under load:\n{}", engine.said());
        publishers.into_iter().map(|publisher| publisher.join().unwrap()).collect()
    });
    assert!(!engine.said().contains("panicked"), "{}", engine.said());
    drop(engine);
    let mut again = Setup::new(scratch.path()).start();
    again.await_ready();
    let records = read_all(consumer, &again, "telemetry");
    for (device, count) in counts.into_iter().enumerate() {
        let id = format!("load-{device}");
        let own: Vec<u32> =
            records.iter().filter(|r| r.key == id).map(|r| r.text().parse().unwrap()).collect();
        assert!(own.len() as u32 >= count, "{id}: {count} acknowledged, {} found", own.len());
        assert!(own.iter().enumerate().all(|(i, seq)| i as u32 == *seq), "{id} in order");
    }
    again.stop();
}

/// Publishes with 16 in flight until the engine ends the connection. Returns how many messages
/// were acknowledged.
fn publish_until_closed(port: u16, device: usize, acknowledged: &AtomicUsize) -> u32 {
    let id = format!("load-{device}");
    let (mut wire, _) = Wire::connect(port, &Connect::new(Version::V5, &id));
    let packet_id = |seq: u32| (seq % 60_000) as u16 + 1;
    let (mut sent, mut seen) = (0_u32, 0_u32);
    loop {
        while sent < seen + 16 {
            let text = sent.to_string();
            wire.send_unheard(
                &Publish::new("load", packet_id(sent), text.as_bytes()).bytes(Version::V5),
            );
            sent += 1;
        }
        match wire.read(Duration::from_secs(30)) {
            Ok(Some(answer)) if answer.kind() == PUBACK => {
                assert_eq!(answer.id(), packet_id(seen), "acknowledgements keep the order");
                seen += 1;
                acknowledged.fetch_add(1, Ordering::Relaxed);
            }
            // DISCONNECT, the end of the stream or a reset: the engine has gone.
            _ => return seen,
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
