//! What MQTT promises and forbids, byte by byte: CONNACK's properties, aliases, windows, takeover,
//! keep alive, refusals (docs/mqtt.md), and input that is no MQTT at all.

use std::time::{Duration, Instant};

use crate::clients::{any_consumer, read_all};
use crate::engine::{Engine, Setup, scratch, wait_until};
use crate::wire::{
    CONNACK, Connect, PINGRESP, PUBACK, Publish, SUBACK, Version, Wire, packet, push_text,
};

const ASSIGNED_CLIENT_ID: u8 = 0x12;
const SERVER_KEEP_ALIVE: u8 = 0x13;
const RECEIVE_MAXIMUM: u8 = 0x21;
const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
const MAXIMUM_QOS: u8 = 0x24;

/// An engine with nothing but defaults, and its directory.
fn engine() -> (tempfile::TempDir, Engine) {
    let scratch = scratch();
    let engine = Setup::new(scratch.path()).start();
    (scratch, engine)
}

/// The property Topic Alias.
fn alias(alias: u16) -> [u8; 3] {
    let [high, low] = alias.to_be_bytes();
    [0x23, high, low]
}

#[test]
fn a_topic_alias_stands_for_its_topic() {
    let (_scratch, engine) = engine();
    let connect = Connect::new(Version::V5, "alias");
    let (mut wire, connack) = Wire::connect(engine.ports.mqtt, &connect);
    let maximum = connack.connack_number(TOPIC_ALIAS_MAXIMUM).expect("aliases are allowed");
    assert!(maximum >= 1);
    let one = alias(1);
    for (id, topic, payload) in
        [(1, "plant/a", "a1"), (2, "", "a2"), (3, "plant/b", "b1"), (4, "", "b2")]
    {
        let publish = Publish { properties: &one, ..Publish::new(topic, id, payload.as_bytes()) };
        assert_eq!(wire.publish_acknowledged(&publish), 0);
    }
    if let Some(consumer) = any_consumer() {
        let records = read_all(consumer, &engine, "telemetry");
        let read: Vec<_> =
            records.iter().map(|r| (r.text(), r.header("mqtt.topic").unwrap())).collect();
        let expected = [("a1", "plant/a"), ("a2", "plant/a"), ("b1", "plant/b"), ("b2", "plant/b")];
        assert_eq!(read, expected);
    }
    let above = alias(maximum as u16 + 1);
    wire.publish(&Publish { properties: &above, ..Publish::new("plant/c", 5, b"c") });
    assert_eq!(wire.closed(), Some(0x94), "an alias above the maximum");

    let mut wire = Wire::connect_as(engine.ports.mqtt, Version::V5, "alias");
    wire.publish(&Publish { properties: &one, ..Publish::new("", 1, b"x") });
    assert_eq!(wire.closed(), Some(0x82), "an alias of an earlier connection means nothing");
    engine.stop();
}

/// Whichever shard accepts and whichever owns the client: nothing that was sent is left behind.
#[test]
fn a_connect_in_pieces_takes_along_what_follows() {
    let scratch = scratch();
    let engine = Setup::new(scratch.path()).argument(&["--shards", "2"]).start();
    for (client, cut) in (0..12).flat_map(|client| [(client, 1), (client, 2), (client, 11)]) {
        let client_id = format!("pieces-{client}-{cut}");
        let mut bytes = Connect::new(Version::V5, &client_id).bytes();
        bytes.extend(Publish::new("plant/a", 7, b"x").bytes(Version::V5));
        let mut wire = Wire::open(engine.ports.mqtt, Version::V5).unwrap();
        let before = engine.metric("mqtt_received_bytes_total", "");
        wire.send(&bytes[..cut]);
        wait_until("the first piece to be received", || {
            let received = engine.metric("mqtt_received_bytes_total", "") - before;
            (received >= cut as f64).then_some(())
        });
        wire.send(&bytes[cut..]);
        assert_eq!(wire.packet().kind(), CONNACK, "{client_id}");
        let puback = wire.packet();
        assert_eq!((puback.kind(), puback.id()), (PUBACK, 7), "{client_id}");
    }
    engine.stop();
}

#[test]
fn a_whole_receive_maximum_is_acknowledged_in_order() {
    let (_scratch, engine) = engine();
    let connect = Connect::new(Version::V5, "window");
    let (mut wire, connack) = Wire::connect(engine.ports.mqtt, &connect);
    let window = connack.connack_number(RECEIVE_MAXIMUM).unwrap_or(65_535) as u16;
    assert!(window >= 16, "a window of {window} is no window");
    let mut burst = Vec::new();
    for id in 1..=window {
        burst.extend(Publish::new("burst", id, &id.to_be_bytes()).bytes(Version::V5));
    }
    wire.send(&burst);
    for id in 1..=window {
        let answer = wire.packet();
        assert_eq!((answer.kind(), answer.id()), (PUBACK, id), "acknowledgements keep the order");
    }
    engine.stop();
}

#[test]
fn a_client_without_an_id_is_given_one() {
    let (_scratch, engine) = engine();
    let (mut wire, connack) = Wire::connect(engine.ports.mqtt, &Connect::new(Version::V5, ""));
    let id = connack.connack_text(ASSIGNED_CLIENT_ID).expect("an assigned client id");
    assert!(!id.is_empty());
    assert_eq!(wire.publish_acknowledged(&Publish::new("t", 1, b"five")), 0);
    let (_other, connack) = Wire::connect(engine.ports.mqtt, &Connect::new(Version::V5, ""));
    assert_ne!(connack.connack_text(ASSIGNED_CLIENT_ID).as_ref(), Some(&id));

    let (mut old, _) = Wire::connect(engine.ports.mqtt, &Connect::new(Version::V311, ""));
    assert_eq!(old.publish_acknowledged(&Publish::new("t", 1, b"three")), 0);
    if let Some(consumer) = any_consumer() {
        let records = read_all(consumer, &engine, "telemetry");
        let five = records.iter().find(|record| record.text() == "five").unwrap();
        assert_eq!(five.key, id);
        let three = records.iter().find(|record| record.text() == "three").unwrap();
        assert!(!three.key.is_empty() && three.key != id, "{three:?}");
    }
    // MQTT 3.1.1, 3.1.3.1: without an id only a clean session can be had.
    let mut wire = Wire::open(engine.ports.mqtt, Version::V311).unwrap();
    wire.send(&Connect { clean: false, ..Connect::new(Version::V311, "") }.bytes());
    let answer = wire.packet();
    assert_eq!((answer.kind(), answer.reason()), (CONNACK, 2));
    engine.stop();
}

#[test]
fn the_server_keep_alive_is_told_and_holds() {
    let scratch = scratch();
    let engine = Setup::new(scratch.path()).argument(&["--mqtt-keep-alive-max", "1s"]).start();
    let (mut wire, connack) = Wire::connect(engine.ports.mqtt, &Connect::new(Version::V5, "keen"));
    assert_eq!(connack.connack_number(SERVER_KEEP_ALIVE), Some(1));
    let begun = Instant::now();
    assert_eq!(wire.closed(), Some(0x8d), "silent for longer than the server's keep alive");
    let silent = begun.elapsed();
    assert!(silent >= Duration::from_millis(1400), "closed after {silent:?}");
    engine.stop();
}

#[test]
fn a_silent_client_is_closed_and_one_that_pings_is_not() {
    let (_scratch, engine) = engine();
    let port = engine.ports.mqtt;
    let connect = |version, id| Connect { keep_alive_s: 1, ..Connect::new(version, id) };
    let begun = Instant::now();
    let (mut silent, _) = Wire::connect(port, &connect(Version::V5, "silent"));
    let (mut silent_old, _) = Wire::connect(port, &connect(Version::V311, "silent-old"));
    let (mut lively, _) = Wire::connect(port, &connect(Version::V5, "lively"));
    let pinging = std::thread::spawn(move || {
        // Ping at every half second for three keep-alive times; each wait is for an answer.
        let until = Instant::now() + Duration::from_millis(3500);
        while Instant::now() < until {
            lively.send(&[0xc0, 0]);
            assert_eq!(lively.packet().kind(), PINGRESP);
            let quiet = lively.read(Duration::from_millis(500));
            assert!(quiet.is_err(), "nothing but the answers comes: {quiet:?}");
        }
        assert_eq!(lively.publish_acknowledged(&Publish::new("t", 1, b"still here")), 0);
    });
    assert_eq!(silent.closed(), Some(0x8d));
    let after = begun.elapsed();
    assert!(after >= Duration::from_millis(1400), "closed after {after:?}, keep alive is 1 s");
    assert!(after < Duration::from_secs(10), "closed after {after:?}, keep alive is 1 s");
    assert_eq!(silent_old.closed(), None);
    pinging.join().expect("the lively client stays");
    assert!(engine.metric("", "keep_alive") >= 2.0);
    engine.stop();
}

#[test]
fn who_never_says_connect_is_closed() {
    let scratch = scratch();
    let engine = Setup::new(scratch.path()).argument(&["--mqtt-connect-timeout", "1s"]).start();
    let mut wire = Wire::open(engine.ports.mqtt, Version::V5).unwrap();
    assert_eq!(wire.closed(), None);
    assert!(engine.metric("reject", "connect_timeout") >= 1.0);
    engine.stop();
}

#[test]
fn the_second_connect_takes_the_first_over() {
    let (_scratch, engine) = engine();
    // Many times: each connection is accepted by any shard.
    for round in 0..8_u16 {
        let id = format!("double-{round}");
        let mut first = Wire::connect_as(engine.ports.mqtt, Version::V5, &id);
        assert_eq!(first.publish_acknowledged(&Publish::new("t", 1, b"first")), 0);
        let mut second = Wire::connect_as(engine.ports.mqtt, Version::V5, &id);
        assert_eq!(first.closed(), Some(0x8e), "the first is told");
        assert_eq!(second.publish_acknowledged(&Publish::new("t", 1, b"second")), 0);
        let mut third = Wire::connect_as(engine.ports.mqtt, Version::V311, &id);
        assert_eq!(second.closed(), Some(0x8e));
        assert_eq!(third.publish_acknowledged(&Publish::new("t", 1, b"third")), 0);
    }
    if let Some(consumer) = any_consumer() {
        let records = read_all(consumer, &engine, "telemetry");
        for round in 0..8 {
            let id = format!("double-{round}");
            let own: Vec<&str> = records.iter().filter(|r| r.key == id).map(|r| r.text()).collect();
            assert_eq!(own, ["first", "second", "third"]);
        }
    }
    engine.stop();
}

#[test]
fn a_will_is_refused() {
    let (_scratch, engine) = engine();
    for (version, reason) in [(Version::V5, 0x83), (Version::V311, 3)] {
        let mut extra = Vec::new();
        if version == Version::V5 {
            extra.push(0);
        }
        push_text(&mut extra, "will/topic");
        push_text(&mut extra, "gone");
        let connect = Connect { flags: 4, extra: &extra, ..Connect::new(version, "mortal") };
        let mut wire = Wire::open(engine.ports.mqtt, version).unwrap();
        wire.send(&connect.bytes());
        assert_eq!(wire.closed(), Some(reason), "{version:?}");
    }
    engine.stop();
}

#[test]
fn a_subscription_is_refused_and_the_connection_goes_on() {
    let (_scratch, engine) = engine();
    for (version, reason) in [(Version::V5, 0x83), (Version::V311, 0x80)] {
        let mut wire = Wire::connect_as(engine.ports.mqtt, version, "listener");
        let mut body = vec![0, 9];
        if version == Version::V5 {
            body.push(0);
        }
        for filter in ["a/+", "b/#"] {
            push_text(&mut body, filter);
            body.push(1);
        }
        wire.send(&packet(0x82, &body));
        let answer = wire.packet();
        assert_eq!((answer.kind(), answer.id()), (SUBACK, 9));
        assert_eq!(answer.body[answer.body.len() - 2..], [reason, reason], "{version:?}");
        assert_eq!(wire.publish_acknowledged(&Publish::new("t", 1, b"x")), 0);
    }
    engine.stop();
}

#[test]
fn qos_2_is_refused() {
    let (_scratch, engine) = engine();
    let connect = Connect::new(Version::V5, "twice");
    let (mut wire, connack) = Wire::connect(engine.ports.mqtt, &connect);
    assert_eq!(connack.connack_number(MAXIMUM_QOS), Some(1), "CONNACK says what is allowed");
    wire.publish(&Publish { qos: 2, ..Publish::new("t", 1, b"x") });
    assert_eq!(wire.closed(), Some(0x9b));
    let mut wire = Wire::connect_as(engine.ports.mqtt, Version::V311, "twice");
    wire.publish(&Publish { qos: 2, ..Publish::new("t", 1, b"x") });
    assert_eq!(wire.closed(), None);
    engine.stop();
}

#[test]
fn nonsense_closes_its_own_connection_only() {
    let (_scratch, mut engine) = engine();
    let mut good = Wire::connect_as(engine.ports.mqtt, Version::V5, "good");
    assert_eq!(good.publish_acknowledged(&Publish::new("t", 1, b"before")), 0);
    let before = engine.metric("reject", "");

    // Before any CONNECT.
    let openings: [&[u8]; 7] = [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3],
        &[0x10, 0xff, 0xff, 0xff, 0xff, 0xff],
        &[0x30, 5, 0, 1, b't', b'x', b'y'],
        &[0x10, 12, 0, 4, b'M', b'Q', b'T', b'X', 5, 2, 0, 60, 0, 0],
        &[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 9, 2, 0, 60, 0, 0, 0],
        &[0x00, 0x00],
    ];
    for bytes in openings {
        let mut wire = Wire::open(engine.ports.mqtt, Version::V5).unwrap();
        wire.send_unheard(bytes);
        wire.closed();
    }
    // After a CONNECT, with the reason that the specification gives.
    let bad_text = packet(0x32, &[0, 2, 0xc3, 0x28, 0, 1, 0]);
    let wildcard = Publish::new("a/+/b", 1, b"x").bytes(Version::V5);
    let id_0 = Publish::new("t", 0, b"x").bytes(Version::V5);
    let violations: [(&[u8], &[u8]); 7] = [
        (&[0x36, 5, 0, 1, b't', 0, 1], &[0x81, 0x9b]), // QoS 3
        (&[0x00, 0x00], &[0x81, 0x82]),                // packet type 0
        (&[0xc1, 0x00], &[0x81]),                      // PINGREQ with flags
        (&[0x32, 0xff, 0xff, 0xff, 0xff, 0x01], &[0x81]), // remaining length of five bytes
        (&bad_text, &[0x81]),                          // a topic that is no UTF-8
        (&wildcard, &[0x90, 0x81, 0x82]),              // a topic name with a wildcard
        (&id_0, &[0x81, 0x82]),                        // packet identifier 0
    ];
    for (bytes, reasons) in violations {
        let mut wire = Wire::connect_as(engine.ports.mqtt, Version::V5, "bad");
        wire.send_unheard(bytes);
        let reason = wire.closed();
        assert!(
            reason.is_some_and(|reason| reasons.contains(&reason)),
            "{bytes:02x?}: {reason:02x?} where one of {reasons:02x?} is due"
        );
    }
    assert_eq!(good.publish_acknowledged(&Publish::new("t", 2, b"after")), 0);
    wait_until("every reject to be counted", || {
        (engine.metric("reject", "") >= before + 14.0).then_some(())
    });
    engine.assert_running();
    engine.stop();
}

#[test]
fn a_clean_disconnect_ends_both_sides() {
    let (_scratch, engine) = engine();
    for version in [Version::V311, Version::V5] {
        let mut wire = Wire::connect_as(engine.ports.mqtt, version, "polite");
        assert_eq!(wire.publish_acknowledged(&Publish::new("t", 1, b"x")), 0);
        wire.send(&[0xe0, 0]);
        assert_eq!(wire.closed(), None, "the server says nothing after the client's goodbye");
    }
    engine.stop();
}
