//! As much of MQTT 3.1.1 and 5 as publishers, subscribers and a null sink need, written apart from
//! the engine's codec so that the two check each other.
//!
//! In: what to say, or bytes as they arrive. Out: packets. Plain functions, no I/O. Absent: every
//! packet that QoS 0 and 1 do not need.

use std::fmt;

/// The protocol level of CONNECT.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// 3.1.1
    V311,
    /// 5.0
    V5,
}

impl Version {
    /// The protocol level byte (MQTT 5 section 3.1.2.2).
    pub fn level(self) -> u8 {
        match self {
            Self::V311 => 4,
            Self::V5 => 5,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::V5 { "5" } else { "3.1.1" })
    }
}

impl std::str::FromStr for Version {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "3.1.1" | "311" | "3" | "4" => Ok(Self::V311),
            "5" | "5.0" => Ok(Self::V5),
            other => Err(format!("{other:?} is not 3.1.1 or 5")),
        }
    }
}

/// First bytes of the packets used here (type and flags).
pub mod packet {
    pub const CONNECT: u8 = 0x10;
    pub const CONNACK: u8 = 0x20;
    /// Type only: the flags say DUP, QoS and RETAIN.
    pub const PUBLISH: u8 = 0x30;
    pub const PUBACK: u8 = 0x40;
    pub const SUBSCRIBE: u8 = 0x82;
    pub const SUBACK: u8 = 0x90;
    pub const PINGREQ: u8 = 0xC0;
    pub const PINGRESP: u8 = 0xD0;
    pub const DISCONNECT: u8 = 0xE0;
}

/// The peer broke the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the peer sent what is not MQTT")]
pub struct Malformed;

/// The largest packet that is put together here; what comes to a publisher is small, and the null
/// sink's publishers are our own.
const PACKET_BYTES_MAX: usize = 2 << 20;

/// CONNECT with a clean session; a keep-alive of 0 is none.
pub fn connect(version: Version, client_id: &str, keep_alive_s: u16) -> Vec<u8> {
    let mut body = Vec::with_capacity(16 + client_id.len());
    push_string(&mut body, "MQTT");
    body.extend_from_slice(&[version.level(), 0x02]);
    body.extend_from_slice(&keep_alive_s.to_be_bytes());
    if version == Version::V5 {
        body.push(0); // no properties
    }
    push_string(&mut body, client_id);
    with_header(packet::CONNECT, &body, 0)
}

/// A PUBLISH up to its payload, and where its packet identifier goes.
#[derive(Debug, Clone)]
pub struct PublishHead {
    bytes: Box<[u8]>,
    /// Index of the packet identifier's two bytes; QoS 0 has none.
    packet_id_at: Option<usize>,
}

impl PublishHead {
    /// Of packets with this topic and payloads of so many bytes.
    pub fn new(version: Version, qos: u8, topic: &str, payload_bytes: usize) -> Self {
        let mut body = Vec::with_capacity(5 + topic.len());
        push_string(&mut body, topic);
        let in_body = body.len();
        if qos > 0 {
            body.extend_from_slice(&[0, 0]);
        }
        if version == Version::V5 {
            body.push(0); // no properties
        }
        let bytes = with_header(packet::PUBLISH | qos << 1, &body, payload_bytes);
        let packet_id_at = (qos > 0).then(|| bytes.len() - body.len() + in_body);
        Self { bytes: bytes.into(), packet_id_at }
    }

    /// Its own bytes, without the payload.
    pub fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Appends it with this identifier; the payload has to follow.
    #[inline]
    pub fn append(&self, out: &mut Vec<u8>, packet_id: u16) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        if let Some(at) = self.packet_id_at {
            out[start + at..start + at + 2].copy_from_slice(&packet_id.to_be_bytes());
        }
    }
}

/// What a CONNACK said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConnectReply {
    /// 0: accepted. Otherwise the return code (3.1.1) or reason code (5).
    pub code: u8,
    /// How many QoS 1 publications the server takes at once.
    pub receive_max: u16,
    /// The largest packet that it takes, in bytes.
    pub packet_bytes_max: u32,
}

/// Reads a CONNACK's body.
pub fn connect_reply(version: Version, body: &[u8]) -> Result<ConnectReply, Malformed> {
    let code = *body.get(1).ok_or(Malformed)?;
    let (mut receive_max, mut packet_bytes_max) = (u16::MAX, u32::MAX);
    if version == Version::V5 && body.len() > 2 {
        let (bytes, used) = variable_integer(&body[2..])?.ok_or(Malformed)?;
        let mut rest = body[2 + used..].get(..bytes).ok_or(Malformed)?;
        while let Some((&id, after)) = rest.split_first() {
            let size = property_bytes(id, after)?;
            if id == 0x21 {
                receive_max = u16::from_be_bytes([after[0], after[1]]);
            } else if id == 0x27 {
                packet_bytes_max = u32::from_be_bytes([after[0], after[1], after[2], after[3]]);
            }
            rest = &after[size..];
        }
    }
    Ok(ConnectReply { code, receive_max, packet_bytes_max })
}

/// The packet identifier of the one SUBSCRIBE that a subscriber sends.
const SUBSCRIBE_ID: u16 = 1;

/// SUBSCRIBE to one filter.
pub fn subscribe(version: Version, filter: &str, qos: u8) -> Vec<u8> {
    let mut body = Vec::with_capacity(6 + filter.len());
    body.extend_from_slice(&SUBSCRIBE_ID.to_be_bytes());
    if version == Version::V5 {
        body.push(0); // no properties
    }
    push_string(&mut body, filter);
    body.push(qos);
    with_header(packet::SUBSCRIBE, &body, 0)
}

/// What a SUBACK's body says of its one filter: the QoS granted, or from 0x80 on why not.
pub fn subscribe_reply(version: Version, body: &[u8]) -> Result<u8, Malformed> {
    let rest = body.get(2..).ok_or(Malformed)?;
    after_properties(version, rest)?.first().copied().ok_or(Malformed)
}

/// A PUBLISH as a subscriber sees it: its packet identifier, which QoS 0 has none of, and its
/// payload.
#[inline]
pub fn publication(
    version: Version,
    first: u8,
    body: &[u8],
) -> Result<(Option<[u8; 2]>, &[u8]), Malformed> {
    let topic_bytes = body.first_chunk().ok_or(Malformed)?;
    let rest = body.get(2 + usize::from(u16::from_be_bytes(*topic_bytes))..).ok_or(Malformed)?;
    let (packet_id, rest) = match first & 0x06 {
        0 => (None, rest),
        _ => rest.split_first_chunk().map(|(id, rest)| (Some(*id), rest)).ok_or(Malformed)?,
    };
    Ok((packet_id, after_properties(version, rest)?))
}

/// What follows the properties, of which only MQTT 5 has any.
#[inline]
fn after_properties(version: Version, bytes: &[u8]) -> Result<&[u8], Malformed> {
    if version == Version::V311 {
        return Ok(bytes);
    }
    let (len, used) = variable_integer(bytes)?.ok_or(Malformed)?;
    bytes.get(used + len..).ok_or(Malformed)
}

/// Bytes of a CONNACK property after its identifier (MQTT 5 section 2.2.2.2).
fn property_bytes(id: u8, after: &[u8]) -> Result<usize, Malformed> {
    let string_bytes = |at: usize| {
        let len = after.get(at..at + 2).ok_or(Malformed)?;
        Ok(2 + usize::from(u16::from_be_bytes([len[0], len[1]])))
    };
    let size = match id {
        0x24 | 0x25 | 0x28 | 0x29 | 0x2A => 1,
        0x13 | 0x21 | 0x22 => 2,
        0x11 | 0x27 => 4,
        0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => string_bytes(0)?,
        0x26 => {
            let name = string_bytes(0)?;
            name + string_bytes(name)?
        }
        _ => return Err(Malformed),
    };
    if after.len() < size { Err(Malformed) } else { Ok(size) }
}

/// Cuts a byte stream into packets; only a packet that was split is copied.
#[derive(Debug, Default)]
pub struct Reassembly {
    partial: Vec<u8>,
}

impl Reassembly {
    /// With room for split packets of so many bytes.
    pub fn with_capacity(bytes: usize) -> Self {
        Self { partial: Vec::with_capacity(bytes) }
    }

    /// Calls `each` with the first byte and the body of every packet that `bytes` completes.
    #[inline]
    pub fn feed(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(u8, &[u8]) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        let mut rest = bytes;
        if !self.partial.is_empty() && !self.complete(&mut rest, &mut each)? {
            return Ok(());
        }
        while let Some((header, total)) = frame(rest)? {
            if rest.len() < total {
                break;
            }
            each(rest[0], &rest[header..total])?;
            rest = &rest[total..];
        }
        self.partial.extend_from_slice(rest);
        Ok(())
    }

    /// Completes the split packet; `false` when more bytes are needed.
    fn complete(
        &mut self,
        rest: &mut &[u8],
        each: &mut impl FnMut(u8, &[u8]) -> Result<(), Malformed>,
    ) -> Result<bool, Malformed> {
        loop {
            // Until the length is known, byte by byte.
            let (missing, header) = match frame(&self.partial)? {
                Some((header, total)) => (total - self.partial.len(), Some(header)),
                None => (1, None),
            };
            if missing == 0 {
                let header = header.unwrap_or(0);
                each(self.partial[0], &self.partial[header..])?;
                self.partial.clear();
                return Ok(true);
            }
            if rest.is_empty() {
                return Ok(false);
            }
            let (now, later) = rest.split_at(missing.min(rest.len()));
            self.partial.extend_from_slice(now);
            *rest = later;
        }
    }
}

/// Bytes of the fixed header and of the whole packet, once they can be told.
#[inline]
fn frame(bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    if bytes.len() < 2 {
        return Ok(None);
    }
    let Some((len, used)) = variable_integer(&bytes[1..])? else { return Ok(None) };
    if len > PACKET_BYTES_MAX {
        return Err(Malformed);
    }
    Ok(Some((1 + used, 1 + used + len)))
}

/// Value and size of a variable byte integer, once it is complete.
#[inline]
fn variable_integer(bytes: &[u8]) -> Result<Option<(usize, usize)>, Malformed> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    if bytes.len() >= 4 { Err(Malformed) } else { Ok(None) }
}

fn push_string(out: &mut Vec<u8>, text: &str) {
    // Names are made here and short.
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// A packet whose body is `body` and `more_bytes` that the caller appends.
fn with_header(first: u8, body: &[u8], more_bytes: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(5 + body.len());
    bytes.push(first);
    let mut len = body.len() + more_bytes;
    while len >= 0x80 {
        bytes.push(len as u8 | 0x80);
        len >>= 7;
    }
    bytes.push(len as u8);
    bytes.extend_from_slice(body);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_packets() {
        assert_eq!(
            connect(Version::V311, "c1", 0),
            *b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x00\x00\x02c1"
        );
        assert_eq!(
            connect(Version::V5, "c1", 60),
            *b"\x10\x0f\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x02c1"
        );
        fn check(head: PublishHead, packet_id: u16, expected: &[u8]) {
            let mut out = b"before".to_vec();
            head.append(&mut out, packet_id);
            assert_eq!(out[6..], *expected);
            assert_eq!(head.size(), expected.len());
        }
        let head = PublishHead::new(Version::V311, 1, "a/b", 3);
        check(head, 0x0102, b"\x32\x0a\x00\x03a/b\x01\x02");
        let head = PublishHead::new(Version::V5, 1, "a/b", 200);
        check(head, 9, b"\x32\xd0\x01\x00\x03a/b\x00\x09\x00");
        check(PublishHead::new(Version::V311, 0, "a/b", 3), 9, b"\x30\x08\x00\x03a/b");
        check(PublishHead::new(Version::V5, 0, "a/b", 0), 9, b"\x30\x06\x00\x03a/b\x00");
    }

    #[test]
    fn packets_are_the_same_however_they_are_cut() {
        let mut stream = connect(Version::V5, "client", 0);
        PublishHead::new(Version::V311, 1, "t", 300).append(&mut stream, 1);
        stream.extend_from_slice(&[1; 300]);
        stream.extend_from_slice(&[packet::PINGREQ, 0, packet::PUBACK, 2, 0, 5]);
        let whole = cut(&stream, stream.len());
        assert_eq!(whole.len(), 4);
        assert_eq!(whole[3], (packet::PUBACK, vec![0, 5]));
        for size in 1..20 {
            assert_eq!(cut(&stream, size), whole, "pieces of {size}");
        }
    }

    fn cut(stream: &[u8], size: usize) -> Vec<(u8, Vec<u8>)> {
        let mut reassembly = Reassembly::default();
        let mut packets = Vec::new();
        for piece in stream.chunks(size) {
            let each = |first: u8, body: &[u8]| {
                packets.push((first, body.to_vec()));
                Ok(())
            };
            reassembly.feed(piece, each).unwrap();
        }
        packets
    }

    #[test]
    fn lengths_beyond_four_bytes_are_malformed() {
        let fed = Reassembly::default().feed(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 1], |_, _| Ok(()));
        assert_eq!(fed, Err(Malformed));
    }

    #[test]
    fn subscriptions() {
        let golden = *b"\x82\x08\x00\x01\x00\x03a/+\x01";
        assert_eq!(subscribe(Version::V311, "a/+", 1), golden);
        assert_eq!(subscribe(Version::V5, "a/+", 0), *b"\x82\x09\x00\x01\x00\x00\x03a/+\x00");
        assert_eq!(subscribe_reply(Version::V311, &[0, 1, 0x80]), Ok(0x80));
        assert_eq!(subscribe_reply(Version::V5, &[0, 1, 2, 9, 9, 0x83]), Ok(0x83));
        assert_eq!(subscribe_reply(Version::V5, &[0, 1, 2, 9]), Err(Malformed));
    }

    #[test]
    fn publications() {
        fn check(version: Version, first: u8, body: &[u8], expected: Option<(Option<u8>, &[u8])>) {
            let found = publication(version, first, body).ok();
            assert_eq!(found.map(|(id, payload)| (id.map(|id| id[1]), payload)), expected);
        }
        check(Version::V311, 0x32, b"\x00\x01t\x00\x07pay", Some((Some(7), b"pay")));
        check(Version::V311, 0x30, b"\x00\x01tpay", Some((None, b"pay")));
        check(Version::V5, 0x32, b"\x00\x01t\x00\x07\x02..pay", Some((Some(7), b"pay")));
        check(Version::V5, 0x30, b"\x00\x01t\x00", Some((None, b"")));
        check(Version::V5, 0x30, b"\x00\x01t", None);
        check(Version::V311, 0x32, b"\x00\x01t\x00", None);
        check(Version::V311, 0x30, b"\x00\x09t", None);
    }

    #[test]
    fn connect_replies() {
        fn check(version: Version, body: &[u8], expected: Result<(u8, u16), Malformed>) {
            let reply = connect_reply(version, body).map(|r| (r.code, r.receive_max));
            assert_eq!(reply, expected);
        }
        check(Version::V311, &[0, 0], Ok((0, u16::MAX)));
        check(Version::V311, &[0, 5], Ok((5, u16::MAX)));
        check(Version::V5, &[0, 0, 0], Ok((0, u16::MAX)));
        let properties = [0, 0, 11, 0x22, 0, 10, 0x12, 0, 1, b'x', 0x21, 0, 20];
        check(Version::V5, &properties[..13], Err(Malformed));
        let mut properties = properties;
        properties[2] = 10;
        check(Version::V5, &properties, Ok((0, 20)));
        check(Version::V311, &[0], Err(Malformed));
    }
}
