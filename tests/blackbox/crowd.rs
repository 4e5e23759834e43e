//! A thousand connections that publish at once.

use std::time::Duration;

use crate::clients::{any_consumer, read_all, skipped_anyway};
use crate::engine::{Setup, scratch};
use crate::wire::{CONNACK, Connect, PUBACK, Publish, Version, Wire};

const CONNECTIONS: usize = 1000;
const MESSAGES: u16 = 5;

/// The soft limit of open files of this process.
pub fn open_files_max() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    let soft = line.and_then(|line| line.split_whitespace().nth(3));
    soft.and_then(|number| number.parse().ok()).unwrap_or(usize::MAX)
}

#[test]
fn a_thousand_connections_publish_at_once() {
    if open_files_max() < 2 * CONNECTIONS {
        skipped_anyway("needs 2,000 open files: ulimit -n 4096");
        return;
    }
    let scratch = scratch();
    let engine = Setup::new(scratch.path()).start();
    let port = engine.ports.mqtt;
    let mut wires: Vec<Wire> =
        (0..CONNECTIONS).map(|_| Wire::open(port, Version::V5).unwrap()).collect();
    for (i, wire) in wires.iter_mut().enumerate() {
        wire.send(&Connect::new(Version::V5, &format!("crowd-{i}")).bytes());
    }
    for wire in &mut wires {
        let answer = wire.packet();
        assert_eq!((answer.kind(), answer.reason()), (CONNACK, 0));
    }
    assert!(engine.metric("connections", "") >= CONNECTIONS as f64);
    for id in 1..=MESSAGES {
        for wire in &mut wires {
            wire.publish(&Publish::new("crowd", id, &id.to_be_bytes()));
        }
    }
    for wire in &mut wires {
        for id in 1..=MESSAGES {
            let answer = wire.packet();
            assert_eq!((answer.kind(), answer.id(), answer.reason()), (PUBACK, id, 0));
        }
        let more = wire.read(Duration::from_millis(0));
        assert!(more.is_err(), "nothing but the acknowledgements: {more:?}");
    }
    if let Some(consumer) = any_consumer() {
        let records = read_all(consumer, &engine, "telemetry");
        assert_eq!(records.len(), CONNECTIONS * usize::from(MESSAGES));
        for i in 0..CONNECTIONS {
            let key = format!("crowd-{i}");
            let own: Vec<&[u8]> =
                records.iter().filter(|r| r.key == key).map(|r| &r.value[..]).collect();
            assert_eq!(own, [[0, 1], [0, 2], [0, 3], [0, 4], [0, 5]]);
        }
    }
    engine.stop();
}
