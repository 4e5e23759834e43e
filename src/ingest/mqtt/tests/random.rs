//! Random and broken input: never a panic, never more taken than there is, and the same events
//! however the input is cut. `PROPTEST_CASES` sets how many cases are tried; fuzz/ does the same
//! with coverage as its guide.

use proptest::collection::vec;
use proptest::prelude::*;

use super::*;

/// What a connection makes of `pieces` that arrive one after the other: every event, every reply,
/// and how it ended. Accepts each CONNECT and acknowledges each message at once.
fn run<'p>(pieces: impl Iterator<Item = &'p [u8]>) -> (Vec<String>, Vec<u8>) {
    let mut connection = Connection::new();
    let (mut events, mut out, mut held) = (Vec::new(), Vec::new(), Vec::new());
    for piece in pieces {
        held.extend_from_slice(piece);
        let mut done = 0;
        loop {
            let rest = &held[done..];
            let (bytes, acknowledge) = match connection.step(&LIMITS, rest, &mut out) {
                Ok((bytes, event)) => {
                    assert!(bytes <= rest.len());
                    let acknowledge = match event {
                        Event::NeedMore { packet_bytes } => {
                            assert!(packet_bytes.is_none_or(|bytes| {
                                (rest.len() + 1..=LIMITS.packet_bytes_max as usize).contains(&bytes)
                            }));
                            done += bytes;
                            break;
                        }
                        Event::Publish(publish) => publish.packet_id,
                        _ => 0,
                    };
                    assert!(bytes >= 2);
                    events.push(format!("{event:?}"));
                    (bytes, acknowledge)
                }
                Err(violation) => {
                    events.push(violation.to_string());
                    connection.reply(&violation, &mut out);
                    return (events, out);
                }
            };
            if events.last().is_some_and(|event| event.starts_with("Connect(")) {
                connection.accept(&LIMITS, Some("assigned"), &mut out);
            }
            if acknowledge > 0 && acknowledge % 2 == 0 {
                connection.acknowledge(acknowledge, acknowledge % 4 == 0, &mut out);
            }
            done += bytes;
        }
        held.drain(..done);
    }
    (events, out)
}

#[track_caller]
fn check_cuts(input: &[u8], cuts: &[usize]) {
    let mut cuts: Vec<_> = cuts.iter().map(|cut| cut % (input.len() + 1)).collect();
    cuts.extend([0, input.len()]);
    cuts.sort_unstable();
    let whole = run(std::iter::once(input));
    let pieces = run(cuts.windows(2).map(|ends| &input[ends[0]..ends[1]]));
    assert_eq!(whole, pieces);
}

/// Packets of a well-behaved client in MQTT 5, and some that it should not have sent.
const PACKETS: &[&[u8]] = &[
    CONNECT_V5,
    CONNECT_V311,
    b"\x10\x35\x00\x04MQTT\x05\x40\x00\x0A\x21\x11\x00\x00\x0E\x10\x21\x00\x14\x27\x00\x00\x10\x00\
      \x22\x00\x0A\x19\x01\x17\x00\x26\x00\x01k\x00\x01v\x26\x00\x01k\x00\x00\x00\x01c\x00\x04pass",
    b"\x10\x17\x00\x04MQTT\x04\xC2\x00\x0A\x00\x03dev\x00\x01u\x00\x03p\0w",
    b"\x30\x07\x00\x03a/bhi",
    b"\x30\x08\x00\x03a/b\x00hi",
    b"\x32\x09\x00\x03a/b\x00\x0Ahi",
    b"\x32\x0A\x00\x03a/b\x00\x0B\x00hi",
    b"\x32\x33\x00\x03a/b\x00\x0A\x29\x01\x01\x02\x00\x00\x00\x3C\x03\x00\x04text\x08\x00\x03r/t\
      \x09\x00\x02\x00\xFF\x23\x00\x02\x26\x00\x01k\x00\x01v\x26\x00\x01k\x00\x00hi",
    b"\x30\x0A\x00\x03a/b\x03\x23\x00\x011",
    b"\x30\x07\x00\x00\x03\x23\x00\x012",
    b"\x82\x0A\x00\x07\x00\x01#\x00\x00\x01+\x01",
    b"\x82\x12\x00\x07\x02\x0B\x05\x00\x0A$share/g/#\x29",
    b"\xA2\x09\x00\x07\x00\x00\x01#\x00\x01+",
    b"\xC0\x00",
    b"\xE0\x07\x80\x05\x1F\x00\x02oh",
];

#[test]
fn every_cut_of_every_packet() {
    for first in [CONNECT_V5, CONNECT_V311] {
        for packet in PACKETS {
            let input = [first, packet, b"\xC0\x00", packet].concat();
            for cut in 0..=input.len() {
                check_cuts(&input, &[cut]);
            }
            check_cuts(&input, &(0..input.len()).collect::<Vec<_>>());
        }
    }
}

fn packets() -> impl Strategy<Value = Vec<u8>> {
    let first = prop_oneof![Just(CONNECT_V5), Just(CONNECT_V311)];
    let others = vec(proptest::sample::select(PACKETS), 0..12);
    (first, others).prop_map(|(first, others)| [first, &others.concat()].concat())
}

proptest! {
    #[test]
    fn random_bytes(input in vec(any::<u8>(), 0..300), cuts in vec(any::<usize>(), 0..8)) {
        check_cuts(&input, &cuts);
    }

    #[test]
    fn random_bytes_after_connect(
        v5 in any::<bool>(),
        input in vec(any::<u8>(), 0..300),
        cuts in vec(any::<usize>(), 0..8),
    ) {
        let connect = if v5 { CONNECT_V5 } else { CONNECT_V311 };
        check_cuts(&[connect, &input].concat(), &cuts);
    }

    #[test]
    fn sequences_of_packets(input in packets(), cuts in vec(any::<usize>(), 0..8)) {
        check_cuts(&input, &cuts);
    }

    #[test]
    fn packets_with_wrong_bytes(
        mut input in packets(),
        wrong in vec((any::<usize>(), any::<u8>()), 1..4),
        cuts in vec(any::<usize>(), 0..8),
    ) {
        for (at, byte) in wrong {
            let at = at % input.len();
            input[at] = byte;
        }
        check_cuts(&input, &cuts);
    }

    #[test]
    fn packets_with_bytes_lost_or_added(
        mut input in packets(),
        at in any::<usize>(),
        lost in 0..5_usize,
        added in vec(any::<u8>(), 0..5),
        cuts in vec(any::<usize>(), 0..8),
    ) {
        let at = at % input.len();
        let end = (at + lost).min(input.len());
        input.splice(at..end, added);
        check_cuts(&input, &cuts);
    }
}
