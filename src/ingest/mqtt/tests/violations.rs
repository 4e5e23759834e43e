//! What a client may not do, what it is told, and what is counted.

use super::*;

/// A CONNECT that must fail with this kind, answered with these bytes.
#[track_caller]
fn check_connect(packet: &[u8], reject: Reject, reply: &[u8]) {
    let mut connection = Connection::new();
    let mut out = Vec::new();
    let violation = connection.step(&LIMITS, packet, &mut out).unwrap_err();
    assert_eq!(violation.reject, reject, "{violation}");
    assert_eq!(violation.label(), reject.label());
    connection.reply(&violation, &mut out);
    // Reason strings are for people; what is checked is the code.
    match reply {
        [0x20, 3, 0, code, 0] => assert_eq!((out[0], out[3]), (0x20, *code), "{out:02X?}"),
        _ => assert_eq!(out, reply, "{out:02X?}"),
    }
    assert!(!connection.is_connected());
    let after = connection.step(&LIMITS, packet, &mut out).unwrap();
    assert_eq!(after, (packet.len(), Event::NeedMore { packet_bytes: None }));
}

/// A packet that must fail with this kind after CONNECT; in 5 the DISCONNECT has its reason code.
#[track_caller]
fn check(connect: &[u8], packet: &[u8], reject: Reject) {
    let mut connection = connected(connect, &LIMITS);
    let mut out = Vec::new();
    let violation = connection.step(&LIMITS, packet, &mut out).unwrap_err();
    assert_eq!(violation.reject, reject, "{violation} for {packet:02X?}");
    assert!(out.is_empty(), "no reply but the last word");
    connection.reply(&violation, &mut out);
    match connection.version() {
        Version::V311 => assert!(out.is_empty()),
        Version::V5 => assert_eq!((out[0], out[2]), (0xE0, violation.reason() as u8)),
    }
    assert!(!connection.is_connected());
}

#[track_caller]
fn check_both(packet: &[u8], reject: Reject) {
    check(CONNECT_V311, packet, reject);
    check(CONNECT_V5, packet, reject);
}

const SILENCE: &[u8] = b"";

#[test]
fn what_is_no_connect() {
    // MQTT-3.1.0-1; the first byte is enough.
    check_connect(b"GET / HTTP/1.1\r\n", Reject::ConnectExpected, SILENCE);
    check_connect(b"\x16\x03\x01", Reject::ConnectExpected, SILENCE); // a TLS handshake
    check_connect(b"\xC0\x00", Reject::ConnectExpected, SILENCE);
    check_connect(b"\x30", Reject::ConnectExpected, SILENCE);
    check_connect(b"\x00", Reject::ConnectExpected, SILENCE);
    check_connect(b"\x11\x00", Reject::ConnectExpected, SILENCE); // MQTT-2.1.3-1
    check_connect(b"\x10\xFF\xFF\xFF\xFF", Reject::Malformed, SILENCE);
    check_connect(b"\x10\xFF\xFF\x7F", Reject::PacketTooLarge, SILENCE);
    check_connect(b"\x10\x00", Reject::Malformed, SILENCE);
    check_connect(b"\x10\x07\x00\x04MQTX\x04", Reject::ProtocolError, SILENCE); // MQTT-3.1.2-1
    check_connect(b"\x10\x06\x00\x04MQTT", Reject::Malformed, SILENCE);
}

#[test]
fn protocol_levels() {
    let unsupported = Reject::UnsupportedProtocolVersion;
    // 3.1, 3.1.1 as a bridge (bit 7), level 0 and 3: return code 1 (3.1.1: MQTT-3.1.2-2).
    check_connect(
        b"\x10\x0F\x00\x06MQIsdp\x03\x02\x00\x3C\x00\x01c",
        unsupported,
        b"\x20\x02\x00\x01",
    );
    for level in [0x00, 0x03, 0x80, 0x84] {
        let packet = [b"\x10\x0D\x00\x04MQTT", &[level][..], b"\x02\x00\x3C\x00\x01c"].concat();
        check_connect(&packet, unsupported, b"\x20\x02\x00\x01");
    }
    // What comes after 5: 0x84 (MQTT-3.1.2-2).
    for level in [0x06, 0x7F, 0x85, 0x86] {
        let packet = [b"\x10\x0D\x00\x04MQTT", &[level][..], b"\x02\x00\x3C\x00\x01c"].concat();
        check_connect(&packet, unsupported, b"\x20\x03\x00\x84\x00");
    }
}

#[test]
fn connect_flags() {
    let flags_v311 =
        |flags: u8| [b"\x10\x0D\x00\x04MQTT\x04", &[flags][..], b"\x00\x3C\x00\x01c"].concat();
    let flags_v5 =
        |flags: u8| [b"\x10\x0E\x00\x04MQTT\x05", &[flags][..], b"\x00\x3C\x00\x00\x01c"].concat();
    // Reserved bit (MQTT-3.1.2-3), will QoS (-11) and will retain (-13) without a will, will QoS 3
    // (-12), flags that promise fields which are not there.
    for flags in [0x03, 0x0A, 0x12, 0x22, 0x1E, 0x82, 0xC2, 0x06] {
        check_connect(&flags_v311(flags), Reject::Malformed, SILENCE);
        check_connect(&flags_v5(flags), Reject::Malformed, b"\x20\x03\x00\x81\x00");
    }
    // 3.1.1 MQTT-3.1.2-22: a password needs a user name.
    let packet = b"\x10\x10\x00\x04MQTT\x04\x42\x00\x3C\x00\x01c\x00\x01p";
    check_connect(packet, Reject::Malformed, SILENCE);
}

#[test]
fn connect_that_does_not_end_where_it_says() {
    for whole in [CONNECT_V311, CONNECT_V5] {
        let mut longer = whole.to_vec();
        longer.push(0);
        longer[1] += 1;
        let reply: &[u8] = if whole == CONNECT_V5 { b"\x20\x03\x00\x81\x00" } else { SILENCE };
        check_connect(&longer, Reject::Malformed, reply);
        for bytes in 9..whole.len() - 2 {
            let mut shorter = whole[..2 + bytes].to_vec();
            shorter[1] = bytes as u8;
            check_connect(&shorter, Reject::Malformed, reply);
        }
    }
}

#[test]
fn connect_properties() {
    let check = |properties: &[u8], reject: Reject| {
        let code = reject.reason() as u8;
        check_connect(&connect_v5(properties), reject, &[0x20, 3, 0, code, 0]);
    };
    check(b"\x21\x00\x00", Reject::ProtocolError); // Receive Maximum 0
    check(b"\x27\x00\x00\x00\x00", Reject::ProtocolError); // Maximum Packet Size 0
    check(b"\x17\x02", Reject::ProtocolError); // Request Problem Information 2
    check(b"\x19\x02", Reject::ProtocolError); // Request Response Information 2
    check(b"\x16\x00\x01x", Reject::ProtocolError); // data without a method
    check(b"\x22\x00\x01\x22\x00\x01", Reject::ProtocolError); // twice
    check(b"\x01\x01", Reject::Malformed); // a PUBLISH property
    check(b"\x12\x00\x01c", Reject::Malformed); // the server's
    check(b"\x15\x00\x05PLAIN", Reject::AuthenticationMethod);
    check(b"\x15\x00\x05PLAIN\x16\x00\x01x", Reject::AuthenticationMethod);
    check(&b"\x26\x00\x01k\x00\x01v".repeat(4), Reject::QuotaExceeded);
    // A client that does not take CONNACK (24 bytes here) is told so in 5 bytes, or not at all.
    check(b"\x27\x00\x00\x00\x17", Reject::PacketTooLarge);
    let deaf = connect_v5(b"\x27\x00\x00\x00\x04");
    check_connect(&deaf, Reject::PacketTooLarge, SILENCE);
}

#[test]
fn what_connect_asks_in_vain() {
    // A will: 3.1.1 return code 3, 5 Implementation specific error with a reason string.
    let packet = b"\x10\x14\x00\x04MQTT\x04\x06\x00\x3C\x00\x01c\x00\x01w\x00\x02ok";
    check_connect(packet, Reject::Will, b"\x20\x02\x00\x03");
    let packet = b"\x10\x1B\x00\x04MQTT\x05\x2E\x00\x3C\x00\x00\x01c\x05\x18\x00\x00\x00\x05\x00\x01w\x00\x02ok";
    let reply = b"\x20\x21\x00\x83\x1E\x1F\x00\x1Bwills are not supported yet";
    check_connect(packet, Reject::Will, reply);
    // A will that is itself malformed.
    let packet =
        b"\x10\x18\x00\x04MQTT\x05\x06\x00\x3C\x00\x00\x01c\x02\x23\x00\x00\x01w\x00\x02ok";
    check_connect(packet, Reject::Malformed, b"\x20\x03\x00\x81\x00");

    // A client identifier of 9 bytes where 8 are allowed, one that is not UTF-8, and an empty one
    // without a clean session (3.1.1 MQTT-3.1.3-8).
    let packet = b"\x10\x15\x00\x04MQTT\x04\x02\x00\x3C\x00\x09123456789";
    check_connect(packet, Reject::ClientIdNotValid, b"\x20\x02\x00\x02");
    let packet = b"\x10\x16\x00\x04MQTT\x05\x02\x00\x3C\x00\x00\x09123456789";
    check_connect(packet, Reject::ClientIdNotValid, b"\x20\x03\x00\x85\x00");
    let packet = b"\x10\x0E\x00\x04MQTT\x05\x02\x00\x3C\x00\x00\x01\xFF";
    check_connect(packet, Reject::Malformed, b"\x20\x03\x00\x81\x00");
    let packet = b"\x10\x0C\x00\x04MQTT\x04\x00\x00\x3C\x00\x00";
    check_connect(packet, Reject::ClientIdNotValid, b"\x20\x02\x00\x02");
}

#[test]
fn packets_that_a_client_may_not_send() {
    check(CONNECT_V311, CONNECT_V311, Reject::ProtocolError); // MQTT-3.1.0-2
    check(CONNECT_V5, CONNECT_V5, Reject::ProtocolError);
    check_both(b"\x20\x02\x00\x00", Reject::ProtocolError); // CONNACK
    check_both(b"\x40\x02\x00\x01", Reject::ProtocolError); // PUBACK
    check_both(b"\x50\x02\x00\x01", Reject::ProtocolError); // PUBREC
    check_both(b"\x62\x02\x00\x01", Reject::ProtocolError); // PUBREL
    check_both(b"\x70\x02\x00\x01", Reject::ProtocolError); // PUBCOMP
    check_both(b"\x90\x03\x00\x01\x00", Reject::ProtocolError); // SUBACK
    check_both(b"\xB0\x02\x00\x01", Reject::ProtocolError); // UNSUBACK
    check_both(b"\xD0\x00", Reject::ProtocolError); // PINGRESP
    check_both(b"\x00\x00", Reject::Malformed);
    check(CONNECT_V311, b"\xF0\x00", Reject::Malformed);
    check(CONNECT_V5, b"\xF0\x00", Reject::ProtocolError); // AUTH without a method in CONNECT
}

#[test]
fn fixed_headers() {
    // Reserved flags (MQTT-2.1.3-1), remaining length.
    for first in [0x80, 0x83, 0xA0, 0xA6, 0xC1, 0xE8] {
        check_both(&[first], Reject::Malformed);
    }
    check_both(b"\x30\x80\x80\x80\x80", Reject::Malformed);
    check(CONNECT_V5, b"\xC0\x80\x00", Reject::Malformed); // MQTT-1.5.5-1
    let mut connection = connected(CONNECT_V311, &LIMITS);
    let (bytes, _) = connection.step(&LIMITS, b"\xC0\x80\x00", &mut Vec::new()).unwrap();
    assert_eq!(bytes, 3, "3.1.1 does not ask for the shortest length");
    // 256 bytes are allowed, 257 are not; the fixed header says so.
    check_both(b"\x30\xFE\x01", Reject::PacketTooLarge);
    let mut connection = connected(CONNECT_V5, &LIMITS);
    let event = connection.step(&LIMITS, b"\x30\xFD\x01", &mut Vec::new()).unwrap();
    assert_eq!(event, (0, Event::NeedMore { packet_bytes: Some(256) }));
    // Packets with more or less than they have fields.
    check_both(b"\xC0\x01\x00", Reject::Malformed);
    check(CONNECT_V311, b"\xE0\x01\x00", Reject::Malformed);
}

#[test]
fn publish() {
    let v5 = |packet: &[u8], reject| check(CONNECT_V5, packet, reject);
    check_both(b"\x36", Reject::Malformed); // QoS 3, MQTT-3.3.1-4
    check_both(b"\x38", Reject::Malformed); // DUP with QoS 0, MQTT-3.3.1-2
    check_both(b"\x34", Reject::QosNotSupported); // MQTT-3.2.2-11
    check_both(b"\x32\x06\x00\x01t\x00\x00\x00", Reject::ProtocolError); // identifier 0
    check_both(b"\x32\x04\x00\x01t\x01", Reject::Malformed);
    check_both(b"\x30\x00", Reject::Malformed);
    check_both(b"\x30\x04\x00\x05ab", Reject::Malformed); // the topic reaches out of the packet
    check_both(b"\x30\x03\x00\x00\x00", Reject::ProtocolError); // empty topic
    check_both(b"\x30\x06\x00\x03a/#\x00", Reject::TopicNameInvalid); // MQTT-3.3.2-2
    check_both(b"\x30\x06\x00\x03+/a\x00", Reject::TopicNameInvalid);
    check_both(b"\x30\x06\x00\x03a\0b\x00", Reject::Malformed);
    check_both(b"\x30\x06\x00\x03a\xFFb\x00", Reject::Malformed);
    v5(b"\x30\x03\x00\x01t", Reject::Malformed); // no property length
    v5(b"\x30\x04\x00\x01t\x01", Reject::Malformed);
    v5(b"\x30\x07\x00\x01t\x03\x23\x00\x00", Reject::TopicAliasInvalid);
    v5(b"\x30\x07\x00\x01t\x03\x23\x00\x03", Reject::TopicAliasInvalid);
    v5(b"\x30\x06\x00\x00\x03\x23\x00\x01", Reject::ProtocolError); // never set
    v5(b"\x30\x06\x00\x01t\x02\x0B\x01", Reject::ProtocolError); // MQTT-3.3.4-6
    v5(b"\x30\x06\x00\x01t\x02\x01\x02", Reject::ProtocolError); // payload format 2
    v5(b"\x30\x08\x00\x01t\x04\x01\x01\x01\x01", Reject::ProtocolError); // twice
    v5(b"\x30\x08\x00\x01t\x04\x08\x00\x01+", Reject::TopicNameInvalid); // MQTT-3.3.2-14
    v5(b"\x30\x07\x00\x01t\x03\x13\x00\x01", Reject::Malformed); // the server's property
    v5(b"\x30\x05\x00\x01t\x81\x00", Reject::Malformed); // 1, not in the fewest bytes
    let many = [b"\x30\x20\x00\x01t\x1C", &b"\x26\x00\x01k\x00\x01v".repeat(4)[..]].concat();
    v5(&many, Reject::QuotaExceeded);
    let long = [b"\x30\x28\x00\x21", &[b'a'; 33][..], b"\x03\x23\x00\x01\x00"].concat();
    v5(&long[..42], Reject::QuotaExceeded); // 33 bytes behind aliases where 32 are allowed
}

#[test]
fn receive_maximum() {
    // MQTT-3.3.4-7: three may be in flight, acknowledged ones are not.
    let packet = |connect| match connect {
        CONNECT_V5 => b"\x32\x06\x00\x01t\x00\x01\x00".to_vec(),
        _ => b"\x32\x05\x00\x01t\x00\x01".to_vec(),
    };
    let mut out = Vec::new();
    let mut connection = connected(CONNECT_V5, &LIMITS);
    for _ in 0..3 {
        connection.step(&LIMITS, &packet(CONNECT_V5), &mut out).unwrap();
    }
    connection.acknowledge(1, true, &mut out);
    connection.step(&LIMITS, &packet(CONNECT_V5), &mut out).unwrap();
    let (_, event) = connection.step(&LIMITS, b"\x30\x04\x00\x01t\x00", &mut out).unwrap();
    assert!(matches!(event, Event::Publish(_)), "QoS 0 is not counted");
    let violation = connection.step(&LIMITS, &packet(CONNECT_V5), &mut out).unwrap_err();
    assert_eq!(violation.reject, Reject::ReceiveMaximumExceeded);

    let mut connection = connected(CONNECT_V311, &LIMITS);
    for _ in 0..1000 {
        connection.step(&LIMITS, &packet(CONNECT_V311), &mut out).unwrap();
    }
    assert_eq!(connection.in_flight(), 1000, "3.1.1 knows no such limit");
}

#[test]
fn subscriptions() {
    let v5 = |packet: &[u8], reject| check(CONNECT_V5, packet, reject);
    let v311 = |packet: &[u8], reject| check(CONNECT_V311, packet, reject);
    v311(b"\x82\x02\x00\x01", Reject::ProtocolError); // no filter, MQTT-3.8.3-2
    v5(b"\x82\x03\x00\x01\x00", Reject::ProtocolError);
    v311(b"\xA2\x02\x00\x01", Reject::ProtocolError); // MQTT-3.10.3-2
    v5(b"\xA2\x03\x00\x01\x00", Reject::ProtocolError);
    v311(b"\x82\x06\x00\x00\x00\x01#\x00", Reject::ProtocolError); // identifier 0
    v311(b"\xA2\x05\x00\x00\x00\x01#", Reject::ProtocolError);
    v311(b"\x82\x05\x00\x01\x00\x00\x00", Reject::ProtocolError); // empty filter
    v311(b"\x82\x05\x00\x01\x00\x01#", Reject::Malformed); // no options
    v311(b"\x82\x06\x00\x01\x00\x01#\x04", Reject::Malformed); // reserved, 3.1.1 MQTT-3-8.3-4
    v311(b"\x82\x06\x00\x01\x00\x01#\x03", Reject::ProtocolError); // QoS 3
    v5(b"\x82\x07\x00\x01\x00\x00\x01#\x40", Reject::Malformed); // MQTT-3.8.3-5
    v5(b"\x82\x07\x00\x01\x00\x00\x01#\x30", Reject::ProtocolError); // retain handling 3
    v5(b"\x82\x10\x00\x01\x00\x00\x0A$share/g/#\x04", Reject::ProtocolError); // MQTT-3.8.3-4
    v5(b"\x82\x09\x00\x01\x02\x0B\x00\x00\x01#\x00", Reject::ProtocolError); // identifier 0
    v5(b"\xA2\x08\x00\x01\x02\x0B\x01\x00\x01#", Reject::Malformed);
}

#[test]
fn acknowledgements_that_the_client_does_not_take() {
    // Maximum Packet Size 24: a SUBACK is 5 bytes and a code for each filter, so that 19 fit.
    let mut connection = connected(&connect_v5(b"\x27\x00\x00\x00\x18"), &LIMITS);
    let mut out = Vec::new();
    for (filters, bytes) in [(19, 24), (20, 0)] {
        let mut packet = vec![0x82, (3 + 4 * filters) as u8, 0, 1, 0];
        packet.extend(b"\x00\x01#\x00".repeat(filters));
        out.clear();
        let (_, event) = connection.step(&LIMITS, &packet, &mut out).unwrap();
        assert_eq!(event, Event::SubscribeRefused { filters });
        assert_eq!(out.len(), bytes);
    }
}

#[test]
fn disconnects() {
    let v5 = |packet: &[u8], reject| check(CONNECT_V5, packet, reject);
    // Section 3.14.2.1, table 3-13: the codes that a client may send.
    let clients =
        [0x00, 0x04, 0x80, 0x81, 0x82, 0x83, 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99];
    for code in 0..=255 {
        let mut connection = connected(CONNECT_V5, &LIMITS);
        let packet = [0xE0, 1, code];
        let step = connection.step(&LIMITS, &packet, &mut Vec::new());
        match clients.contains(&code) {
            true => assert_eq!(step, Ok((3, Event::Disconnected { with_will: code != 0 }))),
            false => assert_eq!(step.unwrap_err().reject, Reject::ProtocolError),
        }
    }
    v5(b"\xE0\x03\x00\x00\x00", Reject::Malformed);
    v5(b"\xE0\x07\x00\x05\x11\x00\x00\x00\x01", Reject::ProtocolError); // section 3.14.2.2.2
    v5(b"\xE0\x07\x00\x05\x1C\x00\x02ok", Reject::Malformed); // Server Reference is the server's
}

#[test]
fn accept_without_connect_is_a_bug() {
    let accept = || Connection::new().accept(&LIMITS, None, &mut Vec::new());
    assert!(std::panic::catch_unwind(accept).is_err());
}
