//! Arbitrary bytes, in arbitrary pieces, into one MQTT connection: no panic, never more taken than
//! there is, and the same events and replies as when the bytes come in one piece.
//!
//! The first byte of the fuzzer's data chooses what comes before it (nothing, or a CONNECT, so that
//! the fuzzer need not find one), the next two how the bytes are cut.

#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate::ingest::mqtt::{Connection, Event, Limits};

const PREAMBLES: [&[u8]; 3] = [
    b"",
    b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x3C\x00\x01c",
    b"\x10\x0E\x00\x04MQTT\x05\x02\x00\x3C\x00\x00\x01c",
];

const LIMITS: Limits = Limits {
    packet_bytes_max: 2048,
    receive_maximum: 3,
    topic_alias_maximum: 4,
    topic_alias_bytes_max: 64,
    user_properties_max: 8,
    client_id_bytes_max: 16,
    keep_alive_s_max: 600,
};

/// Every event and every reply, and how it ended. Each CONNECT is accepted at once, and every other
/// message acknowledged.
fn run<'p>(pieces: impl Iterator<Item = &'p [u8]>) -> (Vec<String>, Vec<u8>) {
    let mut connection = Connection::new();
    let (mut events, mut out, mut held) = (Vec::new(), Vec::new(), Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        let mut done = 0;
        loop {
            let rest = &held[done..];
            let (bytes, event) = match connection.step(&LIMITS, rest, &mut out) {
                Ok(found) => found,
                Err(violation) => {
                    events.push(violation.to_string());
                    connection.reply(&violation, &mut out);
                    return (events, out);
                }
            };
            assert!(bytes <= rest.len());
            done += bytes;
            if let Event::NeedMore { packet_bytes } = event {
                assert!(packet_bytes.is_none_or(|bytes| {
                    rest.len() < bytes && bytes <= LIMITS.packet_bytes_max as usize
                }));
                break;
            }
            assert!(bytes >= 2);
            events.push(format!("{event:?}"));
            match event {
                Event::Connect(_) => connection.accept(&LIMITS, Some("assigned"), &mut out),
                Event::Publish(publish) if publish.packet_id > 0 && publish.packet_id % 2 == 0 => {
                    let packet_id = publish.packet_id;
                    connection.acknowledge(packet_id, packet_id % 4 == 0, &mut out);
                }
                _ => {}
            }
        }
        held.drain(..done);
    }
    (events, out)
}

fuzz_target!(|data: &[u8]| {
    let [preamble, even, odd, input @ ..] = data else { return };
    let input = [PREAMBLES[usize::from(*preamble) % PREAMBLES.len()], input].concat();
    let mut rest = &input[..];
    let mut sizes = [usize::from(*even) + 1, usize::from(*odd) + 1].into_iter().cycle();
    let pieces = std::iter::from_fn(|| {
        let (piece, after) = rest.split_at(sizes.next()?.min(rest.len()));
        rest = after;
        (!piece.is_empty()).then_some(piece)
    });
    assert_eq!(run(pieces), run(std::iter::once(&input[..])));
});
