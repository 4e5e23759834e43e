//! SUBSCRIBE and UNSUBSCRIBE (sections 3.8 and 3.10), which are read and refused.
//!
//! In: the body of the packet. Out: SUBACK or UNSUBACK appended to the output, one code a filter.
//! Deliberately absent: subscriptions. A packet that breaks the specification is a violation all
//! the same, so that no client grows used to what will not work later.

use super::codec::{Reader, Version, packet, packet_bytes, put_varint};
use super::properties::{self, Allowed, Value, id};
use super::reasons::Violation;

/// A client that may not be told more than `client_packet_bytes_max` at once.
pub(super) struct Peer {
    pub version: Version,
    pub client_packet_bytes_max: u32,
    pub user_properties_max: u16,
}

/// Refuses every filter of a SUBSCRIBE; returns how many there were.
pub(super) fn refuse(peer: &Peer, body: &[u8], out: &mut Vec<u8>) -> Result<usize, Violation> {
    let mut reader = Reader::new(body);
    let packet_id = reader.packet_id()?;
    if peer.version == Version::V5 {
        properties::read(&mut reader, Allowed::SUBSCRIBE, peer.user_properties_max, |p, value| {
            match (p, value) {
                (id::SUBSCRIPTION_IDENTIFIER, Value::Varint(0)) => {
                    Err(Violation::protocol("subscription identifier 0"))
                }
                _ => Ok(()),
            }
        })?;
    }
    let filters = count(&mut reader, |reader| {
        let filter = filter(reader)?;
        check_options(peer.version, filter, reader.byte()?)
    })?;
    let code = match peer.version {
        Version::V311 => 0x80, // Failure
        Version::V5 => 0x83,   // Implementation specific error
    };
    put_acknowledgement(peer, packet::SUBACK, packet_id, Some((filters, code)), out);
    Ok(filters)
}

/// Answers an UNSUBSCRIBE: there was no such subscription.
pub(super) fn unsubscribe(peer: &Peer, body: &[u8], out: &mut Vec<u8>) -> Result<(), Violation> {
    let mut reader = Reader::new(body);
    let packet_id = reader.packet_id()?;
    if peer.version == Version::V5 {
        let max = peer.user_properties_max;
        properties::read(&mut reader, Allowed::UNSUBSCRIBE, max, |_, _| Ok(()))?;
    }
    let filters = count(&mut reader, |reader| filter(reader).map(drop))?;
    let codes = match peer.version {
        Version::V311 => None,                // 3.1.1 section 3.11: no payload
        Version::V5 => Some((filters, 0x11)), // No subscription existed
    };
    put_acknowledgement(peer, packet::UNSUBACK, packet_id, codes, out);
    Ok(())
}

fn filter<'a>(reader: &mut Reader<'a>) -> Result<&'a str, Violation> {
    match reader.text()? {
        "" => Err(Violation::protocol("an empty topic filter")), // MQTT-4.7.3-1
        filter => Ok(filter),
    }
}

/// Subscription options (section 3.8.3.1); in 3.1.1 only the QoS (3.1.1 section 3.8.3).
fn check_options(version: Version, filter: &str, options: u8) -> Result<(), Violation> {
    let reserved = match version {
        Version::V311 => 0xFC,
        Version::V5 => 0xC0,
    };
    if options & reserved != 0 {
        Err(Violation::malformed("a reserved bit of the subscription options is set"))
    } else if options & 0x03 == 3 {
        Err(Violation::protocol("a subscription asks for QoS 3"))
    } else if options & 0x30 == 0x30 {
        Err(Violation::protocol("retain handling 3"))
    } else if options & 0x04 != 0 && filter.starts_with("$share/") {
        Err(Violation::protocol("no local on a shared subscription")) // MQTT-3.8.3-4
    } else {
        Ok(())
    }
}

/// Reads entries to the packet's end: at least one (MQTT-3.8.3-2, MQTT-3.10.3-2).
fn count<'a>(
    reader: &mut Reader<'a>,
    mut entry: impl FnMut(&mut Reader<'a>) -> Result<(), Violation>,
) -> Result<usize, Violation> {
    let mut filters = 0;
    while !reader.is_empty() {
        entry(reader)?;
        filters += 1;
    }
    match filters {
        0 => Err(Violation::protocol("no topic filter")),
        _ => Ok(filters),
    }
}

/// Appends the acknowledgement, unless it is larger than the client takes.
fn put_acknowledgement(
    peer: &Peer,
    packet_type: u8,
    packet_id: u16,
    codes: Option<(usize, u8)>,
    out: &mut Vec<u8>,
) {
    let (filters, code) = codes.unwrap_or((0, 0));
    let properties = usize::from(peer.version == Version::V5);
    let remaining = 2 + properties + filters;
    if packet_bytes(remaining) > peer.client_packet_bytes_max as usize {
        return; // MQTT-3.1.2-25: not sent, as if it had been
    }
    out.push(packet_type << 4);
    put_varint(remaining, out);
    out.extend_from_slice(&packet_id.to_be_bytes());
    if properties == 1 {
        out.push(0);
    }
    out.resize(out.len() + filters, code);
}
