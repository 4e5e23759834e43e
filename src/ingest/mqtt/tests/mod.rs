//! Tests of the whole station, through its public face: what the shard sees.

use super::*;

mod golden;
mod random;
mod violations;

/// Limits small enough that tests reach them.
pub(super) const LIMITS: Limits = Limits {
    packet_bytes_max: 256,
    receive_maximum: 3,
    topic_alias_maximum: 2,
    topic_alias_bytes_max: 32,
    user_properties_max: 3,
    client_id_bytes_max: 8,
    keep_alive_s_max: 0,
};

/// CONNECT of 3.1.1: clean session, client identifier "c", keep alive 60.
pub(super) const CONNECT_V311: &[u8] = b"\x10\x0D\x00\x04MQTT\x04\x02\x00\x3C\x00\x01c";
/// The same in 5.
pub(super) const CONNECT_V5: &[u8] = b"\x10\x0E\x00\x04MQTT\x05\x02\x00\x3C\x00\x00\x01c";

/// A connection that has been accepted.
pub(super) fn connected(connect: &[u8], limits: &Limits) -> Connection {
    let mut connection = Connection::new();
    let mut out = Vec::new();
    let (bytes, event) = connection.step(limits, connect, &mut out).unwrap();
    assert_eq!(bytes, connect.len());
    assert!(matches!(event, Event::Connect(_)), "{event:?}");
    connection.accept(limits, None, &mut out);
    connection
}

/// CONNECT of `version` with these properties (5 only), client identifier "c".
pub(super) fn connect_v5(properties: &[u8]) -> Vec<u8> {
    let mut packet = b"\x10\x00\x00\x04MQTT\x05\x02\x00\x3C".to_vec();
    packet.push(properties.len() as u8);
    packet.extend_from_slice(properties);
    packet.extend_from_slice(b"\x00\x01c");
    packet[1] = (packet.len() - 2) as u8;
    packet
}
