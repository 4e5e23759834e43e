//! DISCONNECT from a client (section 3.14), and the last words of the server.
//!
//! In: the body of a DISCONNECT. Out: its reason code. And the other way round: a reason and a
//! sentence become the CONNACK or DISCONNECT of MQTT 5 that says them, within what the client takes.

use super::codec::{Reader, Version, packet, packet_bytes, put_text, put_varint, varint_bytes};
use super::properties::{self, Allowed, Value, id};
use super::reasons::Violation;

/// The reason code of a client's DISCONNECT. `session_expiry_asked`: whether its CONNECT asked for
/// a session that outlives the connection.
pub(super) fn read(
    body: &[u8],
    version: Version,
    session_expiry_asked: bool,
    user_properties_max: u16,
) -> Result<u8, Violation> {
    let mut reader = Reader::new(body);
    if version == Version::V311 || reader.is_empty() {
        reader.finish()?;
        return Ok(0); // normal disconnection, section 3.14.2.1
    }
    let code = reader.byte()?;
    // Those that section 3.14.2.1 gives to clients.
    if !matches!(code, 0x00 | 0x04 | 0x80..=0x83 | 0x90 | 0x93..=0x99) {
        return Err(Violation::protocol("a reason code that a client's DISCONNECT cannot have"));
    }
    if !reader.is_empty() {
        properties::read(&mut reader, Allowed::DISCONNECT, user_properties_max, |p, value| {
            match (p, value) {
                // Section 3.14.2.2.2
                (id::SESSION_EXPIRY_INTERVAL, Value::FourBytes(1..)) if !session_expiry_asked => {
                    Err(Violation::protocol("DISCONNECT asks for a session that CONNECT did not"))
                }
                _ => Ok(()),
            }
        })?;
    }
    reader.finish()?;
    Ok(code)
}

/// The packet that ends a connection in MQTT 5.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LastWord {
    /// A CONNACK that refuses.
    Connack,
    /// A DISCONNECT.
    Disconnect,
}

/// Appends the packet with reason code and, where `text` is not empty, a Reason String. What is
/// larger than `client_packet_bytes_max` loses the string, then is not sent.
pub(super) fn put_last_word(
    word: LastWord,
    code: u8,
    text: &str,
    client_packet_bytes_max: u32,
    out: &mut Vec<u8>,
) {
    let head: &[u8] = match word {
        LastWord::Connack => &[0, code], // no session present
        LastWord::Disconnect => &[code],
    };
    let packet_type = match word {
        LastWord::Connack => packet::CONNACK,
        LastWord::Disconnect => packet::DISCONNECT,
    };
    let remaining = |properties: usize| head.len() + varint_bytes(properties) + properties;
    let fits = |properties| packet_bytes(remaining(properties)) <= client_packet_bytes_max as usize;

    let with_text = 3 + text.len();
    let properties = match text.len() {
        1..=0xFFFF if fits(with_text) => with_text,
        _ => 0,
    };
    if !fits(properties) {
        return;
    }
    out.push(packet_type << 4);
    put_varint(remaining(properties), out);
    out.extend_from_slice(head);
    put_varint(properties, out);
    if properties > 0 {
        out.push(id::REASON_STRING);
        put_text(text, out);
    }
}
