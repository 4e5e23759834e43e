//! Payloads from nothing to the largest packet, and one byte more.

use crate::clients::{CONSUMERS, has_consumer, read_all};
use crate::engine::{Setup, scratch};
use crate::wire::{Connect, Publish, Version, Wire};

const PACKET_BYTES_MAX: usize = 1 << 20;
const MAXIMUM_PACKET_SIZE: u8 = 0x27;

/// Bytes that do not compress and are no UTF-8, different for every length.
fn payload(bytes: usize) -> Vec<u8> {
    let mut state = bytes as u32 | 1;
    let step = |state: &mut u32| {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (*state >> 24) as u8
    };
    (0..bytes).map(|_| step(&mut state)).collect()
}

/// The payload with which a publish to `topic` is a packet of `packet_bytes`.
fn filling(version: Version, topic: &str, packet_bytes: usize) -> Vec<u8> {
    let around = Publish::new(topic, 1, &payload(packet_bytes / 2)).bytes(version).len();
    // The remaining length of half the packet takes as many bytes as that of the whole.
    payload(packet_bytes - (around - packet_bytes / 2))
}

#[test]
fn every_size_comes_back_unchanged() {
    let scratch = scratch();
    let engine = Setup::new(scratch.path()).start();
    let mut expected = Vec::new();
    for version in [Version::V311, Version::V5] {
        let id = format!("sizes-{version:?}");
        let (mut wire, connack) = Wire::connect(engine.ports.mqtt, &Connect::new(version, &id));
        if version == Version::V5 {
            let maximum = connack.connack_number(MAXIMUM_PACKET_SIZE);
            assert_eq!(maximum, Some(PACKET_BYTES_MAX as u32));
        }
        let largest = filling(version, "size", PACKET_BYTES_MAX);
        let sizes = [payload(0), payload(1), payload(4096), payload(64 << 10), largest];
        for (i, bytes) in sizes.into_iter().enumerate() {
            let publish = Publish::new("size", i as u16 + 1, &bytes);
            if i == 4 {
                assert_eq!(publish.bytes(version).len(), PACKET_BYTES_MAX);
            }
            assert_eq!(wire.publish_acknowledged(&publish), 0);
            expected.push((id.clone(), bytes));
        }
    }
    for consumer in CONSUMERS.into_iter().filter(|consumer| has_consumer(*consumer)) {
        let records = read_all(consumer, &engine, "telemetry");
        for id in ["sizes-V311", "sizes-V5"] {
            let read: Vec<&[u8]> =
                records.iter().filter(|r| r.key == id).map(|r| &r.value[..]).collect();
            let sent: Vec<&[u8]> =
                expected.iter().filter(|(key, _)| key == id).map(|(_, v)| &v[..]).collect();
            assert!(
                read == sent,
                "{consumer:?}: lengths {:?} where {:?} were sent, or other bytes",
                read.iter().map(|value| value.len()).collect::<Vec<_>>(),
                sent.iter().map(|value| value.len()).collect::<Vec<_>>()
            );
        }
    }
    engine.stop();
}

#[test]
fn one_byte_too_many_is_refused() {
    let scratch = scratch();
    let engine = Setup::new(scratch.path()).start();
    for (version, reason) in [(Version::V5, Some(0x95)), (Version::V311, None)] {
        let mut wire = Wire::connect_as(engine.ports.mqtt, version, "too-large");
        let bytes = filling(version, "size", PACKET_BYTES_MAX + 1);
        let publish = Publish::new("size", 1, &bytes).bytes(version);
        assert_eq!(publish.len(), PACKET_BYTES_MAX + 1);
        // The header is enough: the engine must not wait for a megabyte that it will not take.
        wire.send(&publish[..64]);
        assert_eq!(wire.closed(), reason, "{version:?}");
    }
    assert!(engine.metric("reject", "packet_too_large") >= 2.0);
    engine.stop();
}

#[test]
fn a_packet_in_many_pieces_is_one_message() {
    let scratch = scratch();
    let engine = Setup::new(scratch.path()).start();
    let mut wire = Wire::connect_as(engine.ports.mqtt, Version::V311, "pieces");
    let bytes = payload(1000);
    for id in 1..=3 {
        let packet = Publish::new("pieces", id, &bytes).bytes(Version::V311);
        for piece in packet.chunks(7) {
            wire.send(piece);
        }
        assert_eq!(wire.packet().id(), id);
    }
    engine.stop();
}
