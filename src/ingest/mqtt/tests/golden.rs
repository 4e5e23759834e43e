//! Bytes written by hand from the standards, one packet at a time: what they mean, and what is
//! answered.

use super::*;

/// The user properties of the packets below.
const USER: [(&[u8], &[u8]); 2] = [(b"k", b"v"), (b"k", b"")];

/// A CONNECT on a fresh connection: cut anywhere it waits for the rest, whole it meets `expect`.
#[track_caller]
fn check_connect(packet: &[u8], expect: impl Fn(Connect<'_>)) {
    let mut out = Vec::new();
    for cut in 0..packet.len() {
        let mut connection = Connection::new();
        let (bytes, event) = connection.step(&LIMITS, &packet[..cut], &mut out).unwrap();
        let packet_bytes = (cut >= 2).then_some(packet.len());
        assert_eq!((bytes, event), (0, Event::NeedMore { packet_bytes }), "cut at {cut}");
    }
    let mut connection = Connection::new();
    let with_more = [packet, b"\xC0\x00"].concat();
    let (bytes, event) = connection.step(&LIMITS, &with_more, &mut out).unwrap();
    assert_eq!(bytes, packet.len());
    let Event::Connect(connect) = event else { panic!("{event:?}") };
    expect(connect);
    assert!(out.is_empty(), "nothing is said before the shard decides");
    // What follows a CONNECT waits for the answer.
    let waiting = connection.step(&LIMITS, b"\xC0\x00", &mut out).unwrap();
    assert_eq!(waiting, (0, Event::NeedMore { packet_bytes: None }));
}

/// One packet on an accepted connection: its event, and what is appended to the output.
#[track_caller]
fn check(connect: &[u8], packet: &[u8], expected: Event<'_>, reply: &[u8]) {
    for cut in 0..packet.len() {
        let mut connection = connected(connect, &LIMITS);
        let mut out = Vec::new();
        let (bytes, event) = connection.step(&LIMITS, &packet[..cut], &mut out).unwrap();
        let packet_bytes = (cut >= 2).then_some(packet.len());
        assert_eq!((bytes, event), (0, Event::NeedMore { packet_bytes }), "cut at {cut}");
        assert!(out.is_empty());
    }
    let mut connection = connected(connect, &LIMITS);
    let mut out = Vec::new();
    let with_more = [packet, b"\xC0\x00"].concat();
    let found = connection.step(&LIMITS, &with_more, &mut out).unwrap();
    assert_eq!(found, (packet.len(), expected));
    assert_eq!(out, reply);
}

const MESSAGE: Publish<'_> = Publish {
    topic: "a/b",
    payload: b"hi",
    qos: Qos::AtMostOnce,
    retain: false,
    dup: false,
    packet_id: 0,
    payload_is_text: false,
    message_expiry_s: None,
    content_type: None,
    response_topic: None,
    correlation_data: None,
    user_properties: UserProperties::NONE,
};

#[test]
fn connect_of_v311() {
    // 3.1.1 section 3.1.2, and its figure 3.6: user name, password, clean session, keep alive 10.
    let packet = b"\x10\x17\x00\x04MQTT\x04\xC2\x00\x0A\x00\x03dev\x00\x01u\x00\x03p\0w";
    check_connect(packet, |connect| {
        assert_eq!(connect.version, Version::V311);
        assert_eq!(connect.client_id, "dev");
        assert!(connect.clean);
        assert_eq!(connect.keep_alive_s, 10);
        assert_eq!(connect.username, Some("u"));
        assert_eq!(connect.password, Some(&b"p\0w"[..]));
        assert_eq!(connect.receive_maximum, 65_535);
        assert_eq!(connect.maximum_packet_size, None);
        assert!(!format!("{connect:?}").contains("p\\0w"), "a log line shows no password");
    });
    // Clean session 0, no user name, no keep alive.
    check_connect(b"\x10\x0D\x00\x04MQTT\x04\x00\x00\x00\x00\x01c", |connect| {
        assert!(!connect.clean);
        assert_eq!((connect.username, connect.password), (None, None));
        assert_eq!(connect.keep_alive_s, 0);
    });
    // The longest client identifier that these limits allow.
    check_connect(b"\x10\x14\x00\x04MQTT\x04\x02\x00\x3C\x00\x0812345678", |connect| {
        assert_eq!(connect.client_id, "12345678");
    });
    // MQTT-3.1.3-7: an empty identifier with a clean session.
    check_connect(b"\x10\x0C\x00\x04MQTT\x04\x02\x00\x3C\x00\x00", |connect| {
        assert_eq!(connect.client_id, "");
    });
}

#[test]
fn connect_of_v5() {
    // Section 3.1.2.11: each property that is supported, then a password without a user name,
    // which 5 allows (section 3.1.2.9).
    let packet = b"\x10\x35\x00\x04MQTT\x05\x40\x00\x0A\x21\
        \x11\x00\x00\x0E\x10\x21\x00\x14\x27\x00\x00\x10\x00\x22\x00\x0A\x19\x01\x17\x00\
        \x26\x00\x01k\x00\x01v\x26\x00\x01k\x00\x00\
        \x00\x01c\x00\x04pass";
    check_connect(packet, |connect| {
        assert_eq!(connect.version, Version::V5);
        assert_eq!(connect.client_id, "c");
        assert!(!connect.clean);
        assert_eq!(connect.keep_alive_s, 10);
        assert_eq!(connect.session_expiry_s, 3600);
        assert_eq!(connect.receive_maximum, 20);
        assert_eq!(connect.maximum_packet_size, Some(4096));
        assert_eq!(connect.topic_alias_maximum, 10);
        assert_eq!(connect.user_properties.iter().collect::<Vec<_>>(), USER);
        assert_eq!((connect.username, connect.password), (None, Some(&b"pass"[..])));
    });
    check_connect(CONNECT_V5, |connect| {
        assert_eq!(connect.session_expiry_s, 0);
        assert_eq!(connect.receive_maximum, 65_535);
    });
}

#[test]
fn connack() {
    let check = |connect: &[u8], limits: &Limits, assigned: Option<&str>, expected: &[u8]| {
        let mut connection = Connection::new();
        let mut out = b"before".to_vec();
        connection.step(limits, connect, &mut out).unwrap();
        connection.accept(limits, assigned, &mut out);
        assert_eq!(&out[6..], expected, "{:02X?}", &out[6..]);
        assert!(connection.is_connected());
    };
    // 3.1.1 section 3.2: no session present, accepted. A keep alive cannot be imposed.
    check(CONNECT_V311, &LIMITS, None, b"\x20\x02\x00\x00");
    check(CONNECT_V311, &Limits { keep_alive_s_max: 30, ..LIMITS }, None, b"\x20\x02\x00\x00");
    // Section 3.2.2.3: Receive Maximum 3, Maximum QoS 1, Maximum Packet Size 256, Topic Alias
    // Maximum 2, then no wildcards, no subscription identifiers, no shared subscriptions.
    check(
        CONNECT_V5,
        &LIMITS,
        None,
        b"\x20\x16\x00\x00\x13\x21\x00\x03\x24\x01\x27\x00\x00\x01\x00\x22\x00\x02\x28\x00\x29\x00\x2A\x00",
    );
    // Without aliases; the client's 60 s are above 30 s: Server Keep Alive.
    check(
        CONNECT_V5,
        &Limits { keep_alive_s_max: 30, topic_alias_maximum: 0, ..LIMITS },
        None,
        b"\x20\x16\x00\x00\x13\x21\x00\x03\x24\x01\x27\x00\x00\x01\x00\x28\x00\x29\x00\x2A\x00\x13\x00\x1E",
    );
    // Session Expiry Interval 3600 was asked: 0 is granted (section 3.2.2.3.2). An empty client
    // identifier: one is assigned.
    check(
        b"\x10\x12\x00\x04MQTT\x05\x00\x00\x3C\x05\x11\x00\x00\x0E\x10\x00\x00",
        &LIMITS,
        Some("auto-1"),
        b"\x20\x24\x00\x00\x21\x11\x00\x00\x00\x00\x21\x00\x03\x24\x01\x27\x00\x00\x01\x00\
          \x12\x00\x06auto-1\x22\x00\x02\x28\x00\x29\x00\x2A\x00",
    );
}

#[test]
fn a_connack_that_just_fits() {
    // 24 bytes, whatever waits in the output already; with an assigned identifier room for the
    // longest is wanted: 91 bytes.
    let mut out = vec![0; 100];
    let check = |bytes: u8, client_id: &[u8], fits: bool, out: &mut Vec<u8>| {
        let mut packet = connect_v5(&[0x27, 0, 0, 0, bytes]);
        packet.truncate(packet.len() - 3);
        packet.extend_from_slice(client_id);
        packet[1] = (packet.len() - 2) as u8;
        let step = Connection::new().step(&LIMITS, &packet, out).map(|(bytes, _)| bytes);
        assert_eq!(step.map_err(|v| v.reject).is_ok(), fits);
        assert_eq!(out.len(), 100);
    };
    check(24, b"\x00\x01c", true, &mut out);
    check(23, b"\x00\x01c", false, &mut out);
    check(91, b"\x00\x00", true, &mut out);
    check(90, b"\x00\x00", false, &mut out);
}

#[test]
fn the_longest_assigned_identifier_fits_the_connack() {
    let mut connection = Connection::new();
    let mut out = Vec::new();
    let connect = b"\x10\x0D\x00\x04MQTT\x05\x02\x00\x3C\x00\x00\x00";
    connection.step(&LIMITS, connect, &mut out).unwrap();
    connection.accept(&LIMITS, Some(&"x".repeat(ASSIGNED_CLIENT_ID_BYTES_MAX)), &mut out);
    assert_eq!(out[0], 0x20);
    assert_eq!(usize::from(out[1]), out.len() - 2);
    assert_eq!(usize::from(out[4]), out.len() - 5);
}

#[test]
fn publish_v311() {
    // 3.1.1 section 3.3: QoS 0; QoS 1 with identifier 10, DUP and RETAIN; no payload at all.
    check(CONNECT_V311, b"\x30\x07\x00\x03a/bhi", Event::Publish(MESSAGE), b"");
    let message =
        Publish { qos: Qos::AtLeastOnce, dup: true, retain: true, packet_id: 10, ..MESSAGE };
    check(CONNECT_V311, b"\x3B\x09\x00\x03a/b\x00\x0Ahi", Event::Publish(message), b"");
    let message = Publish { qos: Qos::AtLeastOnce, retain: true, packet_id: 10, ..MESSAGE };
    check(CONNECT_V311, b"\x33\x09\x00\x03a/b\x00\x0Ahi", Event::Publish(message), b"");
    let message = Publish { retain: true, ..MESSAGE };
    check(CONNECT_V311, b"\x31\x07\x00\x03a/bhi", Event::Publish(message), b"");
    let empty = Publish { payload: b"", ..MESSAGE };
    check(CONNECT_V311, b"\x30\x05\x00\x03a/b", Event::Publish(empty), b"");
    // A payload may be any bytes, a topic any characters but NUL, '+' and '#'.
    let topic = "/$ä /\u{1}\u{10FFFF}";
    let body = [b"\x00\x0B", topic.as_bytes(), b"\x00\xFF+#"].concat();
    let packet = [&[0x30, body.len() as u8], &body[..]].concat();
    let message = Publish { topic, payload: b"\x00\xFF+#", ..MESSAGE };
    check(CONNECT_V311, &packet, Event::Publish(message), b"");
}

#[test]
fn publish_v5() {
    // Section 3.3.2.3: no properties.
    check(CONNECT_V5, b"\x30\x08\x00\x03a/b\x00hi", Event::Publish(MESSAGE), b"");
    // Each property that a client may send.
    let packet = b"\x32\x33\x00\x03a/b\x00\x0A\x29\
        \x01\x01\x02\x00\x00\x00\x3C\x03\x00\x04text\x08\x00\x03r/t\x09\x00\x02\x00\xFF\
        \x23\x00\x02\x26\x00\x01k\x00\x01v\x26\x00\x01k\x00\x00hi";
    let mut connection = connected(CONNECT_V5, &LIMITS);
    let mut out = Vec::new();
    let (bytes, event) = connection.step(&LIMITS, packet, &mut out).unwrap();
    let Event::Publish(publish) = event else { panic!("{event:?}") };
    assert_eq!(bytes, packet.len());
    assert_eq!(publish.user_properties.iter().collect::<Vec<_>>(), USER);
    let expected = Publish {
        qos: Qos::AtLeastOnce,
        packet_id: 10,
        payload_is_text: true,
        message_expiry_s: Some(60),
        content_type: Some("text"),
        response_topic: Some("r/t"),
        correlation_data: Some(b"\x00\xFF"),
        user_properties: publish.user_properties,
        ..MESSAGE
    };
    assert_eq!(publish, expected);
}

#[test]
fn a_message_is_a_view() {
    let packet = b"\x30\x08\x00\x03a/b\x00hi".to_vec();
    let within = |bytes: &[u8]| packet.as_ptr_range().contains(&bytes.as_ptr());
    let mut connection = connected(CONNECT_V5, &LIMITS);
    let (_, event) = connection.step(&LIMITS, &packet, &mut Vec::new()).unwrap();
    let Event::Publish(publish) = event else { panic!("{event:?}") };
    assert!(within(publish.topic.as_bytes()) && within(publish.payload));
}

#[test]
fn topic_aliases() {
    // Section 3.3.2.3.4: set alias 1, use it, set it again, use it.
    let mut connection = connected(CONNECT_V5, &LIMITS);
    let mut out = Vec::new();
    let mut check = |packet: &[u8], topic: &str, payload: &[u8]| {
        let (_, event) = connection.step(&LIMITS, packet, &mut out).unwrap();
        assert_eq!(event, Event::Publish(Publish { topic, payload, ..MESSAGE }));
    };
    check(b"\x30\x0A\x00\x03a/b\x03\x23\x00\x011", "a/b", b"1");
    check(b"\x30\x07\x00\x00\x03\x23\x00\x012", "a/b", b"2");
    check(b"\x30\x08\x00\x01c\x03\x23\x00\x013", "c", b"3");
    check(b"\x30\x07\x00\x00\x03\x23\x00\x014", "c", b"4");
}

#[test]
fn puback() {
    let check = |connect: &[u8], publish: &[u8], matched: bool, expected: &[u8]| {
        let mut connection = connected(connect, &LIMITS);
        let mut out = Vec::new();
        connection.step(&LIMITS, publish, &mut out).unwrap();
        assert_eq!(connection.in_flight(), 1);
        connection.acknowledge(0x1234, matched, &mut out);
        assert_eq!(out, expected);
        assert_eq!(connection.in_flight(), 0);
    };
    // 3.1.1 section 3.4; section 3.4.2.1.
    check(CONNECT_V311, b"\x32\x06\x00\x01t\x12\x34!", true, b"\x40\x02\x12\x34");
    check(CONNECT_V311, b"\x32\x06\x00\x01t\x12\x34!", false, b"\x40\x02\x12\x34");
    check(CONNECT_V5, b"\x32\x07\x00\x01t\x12\x34\x00!", true, b"\x40\x02\x12\x34");
    check(CONNECT_V5, b"\x32\x07\x00\x01t\x12\x34\x00!", false, b"\x40\x03\x12\x34\x10");
}

#[test]
fn subscribe_is_refused() {
    // 3.1.1 sections 3.8 and 3.9: two filters, two failures.
    let packet = b"\x82\x0A\x00\x07\x00\x01#\x00\x00\x01+\x01";
    let refused = |filters| Event::SubscribeRefused { filters };
    check(CONNECT_V311, packet, refused(2), b"\x90\x04\x00\x07\x80\x80");
    // Sections 3.8 and 3.9: a subscription identifier, a shared subscription, all options.
    let packet = b"\x82\x12\x00\x07\x02\x0B\x05\x00\x0A$share/g/#\x29";
    check(CONNECT_V5, packet, refused(1), b"\x90\x04\x00\x07\x00\x83");
}

#[test]
fn unsubscribe_is_answered() {
    // 3.1.1 section 3.11 has no payload; section 3.11 has a code a filter.
    let packet = b"\xA2\x08\x00\x07\x00\x01#\x00\x01+";
    check(CONNECT_V311, packet, Event::Handled, b"\xB0\x02\x00\x07");
    let packet = b"\xA2\x09\x00\x07\x00\x00\x01#\x00\x01+";
    check(CONNECT_V5, packet, Event::Handled, b"\xB0\x05\x00\x07\x00\x11\x11");
}

#[test]
fn ping() {
    // Sections 3.12 and 3.13.
    for connect in [CONNECT_V311, CONNECT_V5] {
        check(connect, b"\xC0\x00", Event::Handled, b"\xD0\x00");
    }
}

#[test]
fn disconnect_from_the_client() {
    let bye = |with_will| Event::Disconnected { with_will };
    check(CONNECT_V311, b"\xE0\x00", bye(false), b"");
    // Section 3.14.2.1: no reason code, normal, with will message, with a reason string.
    check(CONNECT_V5, b"\xE0\x00", bye(false), b"");
    check(CONNECT_V5, b"\xE0\x01\x00", bye(false), b"");
    check(CONNECT_V5, b"\xE0\x02\x04\x00", bye(true), b"");
    check(CONNECT_V5, b"\xE0\x07\x80\x05\x1F\x00\x02oh", bye(true), b"");
    check(CONNECT_V5, b"\xE0\x07\x00\x05\x11\x00\x00\x00\x00", bye(false), b"");

    let mut connection = connected(CONNECT_V5, &LIMITS);
    let mut out = Vec::new();
    connection.step(&LIMITS, b"\x32\x07\x00\x01t\x12\x34\x00!", &mut out).unwrap();
    connection.step(&LIMITS, b"\xE0\x00", &mut out).unwrap();
    assert!(!connection.is_connected());
    let after = connection.step(&LIMITS, b"\xC0\x00\xC0", &mut out).unwrap();
    assert_eq!(after, (3, Event::NeedMore { packet_bytes: None }), "what follows is ignored");
    connection.acknowledge(0x1234, true, &mut out);
    assert!(out.is_empty(), "nothing is sent after a DISCONNECT");
}

#[test]
fn disconnect_from_the_server() {
    let check = |connect: &[u8], text: &str, expected: &[u8]| {
        let mut connection = connected(connect, &LIMITS);
        let mut out = Vec::new();
        connection.disconnect(Reason::SessionTakenOver, text, &mut out);
        assert_eq!(out, expected, "{out:02X?}");
        assert!(!connection.is_connected());
    };
    check(CONNECT_V311, "bye", b"");
    check(CONNECT_V5, "", b"\xE0\x02\x8E\x00");
    check(CONNECT_V5, "bye", b"\xE0\x08\x8E\x06\x1F\x00\x03bye");
    // Request Problem Information 0: no string (section 3.1.2.11.7).
    check(&connect_v5(b"\x17\x00"), "bye", b"\xE0\x02\x8E\x00");
    // Maximum Packet Size 24 is just enough for CONNACK; the string is left out (MQTT-3.14.2-3).
    let small = connect_v5(b"\x27\x00\x00\x00\x18");
    check(
        &small,
        &"x".repeat(17),
        &[b"\xE0\x16\x8E\x14\x1F\x00\x11", &[b'x'; 17][..]].concat()[..],
    );
    check(&small, &"x".repeat(18), b"\xE0\x02\x8E\x00");

    let mut out = Vec::new();
    let mut connection = Connection::new();
    connection.disconnect(Reason::ServerShuttingDown, "", &mut out);
    connection.refuse(Reason::ServerBusy, "", &mut out);
    assert!(out.is_empty(), "nobody is spoken to before CONNECT");
}

#[test]
fn refusals() {
    let check = |connect: &[u8], reason: Reason, text: &str, expected: &[u8]| {
        let mut connection = Connection::new();
        let mut out = Vec::new();
        connection.step(&LIMITS, connect, &mut out).unwrap();
        connection.refuse(reason, text, &mut out);
        assert_eq!(out, expected, "{out:02X?}");
        let after = connection.step(&LIMITS, b"\xC0\x00", &mut out).unwrap();
        assert_eq!(after, (2, Event::NeedMore { packet_bytes: None }));
    };
    // 3.1.1 section 3.2.2.3: return codes 3 and 5; none fits a takeover, so no CONNACK.
    check(CONNECT_V311, Reason::ServerBusy, "later", b"\x20\x02\x00\x03");
    check(CONNECT_V311, Reason::NotAuthorized, "", b"\x20\x02\x00\x05");
    check(CONNECT_V311, Reason::SessionTakenOver, "", b"");
    // Section 3.2.2.2.
    check(CONNECT_V5, Reason::ServerBusy, "", b"\x20\x03\x00\x89\x00");
    check(CONNECT_V5, Reason::ServerBusy, "later", b"\x20\x0B\x00\x89\x08\x1F\x00\x05later");
    check(&connect_v5(b"\x17\x00"), Reason::ServerBusy, "later", b"\x20\x03\x00\x89\x00");
}

#[test]
fn keep_alive() {
    let check = |connect: &[u8], keep_alive_s_max: u16, expected: Option<u64>| {
        let limits = Limits { keep_alive_s_max, ..LIMITS };
        assert_eq!(connected(connect, &limits).keep_alive(), expected);
    };
    let none_v311 = b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x00\x00\x01c";
    let none_v5 = b"\x10\x0E\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x01c";
    check(CONNECT_V311, 0, Some(90_000_000_000));
    check(CONNECT_V5, 0, Some(90_000_000_000));
    check(CONNECT_V5, 60, Some(90_000_000_000));
    check(CONNECT_V5, 1, Some(1_500_000_000));
    check(none_v5, 0, None);
    check(none_v5, 20, Some(30_000_000_000));
    check(none_v311, 20, None);
    check(CONNECT_V311, 20, Some(90_000_000_000));
    assert_eq!(Connection::new().keep_alive(), None);
}

#[test]
fn a_message_that_finds_no_room_is_taken_back() {
    let mut connection = connected(CONNECT_V5, &LIMITS);
    let mut out = Vec::new();
    let packet = b"\x32\x0A\x00\x01t\x12\x34\x03\x23\x00\x01!";
    for _ in 0..10 {
        let (_, event) = connection.step(&LIMITS, packet, &mut out).unwrap();
        let Event::Publish(Publish { qos, .. }) = event else { panic!("{event:?}") };
        connection.retract(qos);
    }
    assert_eq!(connection.in_flight(), 0);
}

#[test]
fn a_connection_is_small_and_moves_between_shards() {
    fn check<T: Send>() {
        assert!(size_of::<T>() <= 24);
    }
    check::<Connection>();
}
