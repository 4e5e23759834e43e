//! The primitives of the wire: fixed header, remaining length, integers, strings.
//!
//! In: bytes of one packet. Out: views into them, or a [`Violation`]. Every read is checked against
//! the end of the packet, so that no length in a packet can reach beyond it. No allocation; the
//! writers append to the connection's output.

use super::reasons::Violation;

/// Which MQTT a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// Protocol level 4.
    V311,
    /// Protocol level 5.
    V5,
}

/// Packet types as they stand in the upper half of a packet's first byte (section 2.1.2).
pub(super) mod packet {
    pub const CONNECT: u8 = 1;
    pub const CONNACK: u8 = 2;
    pub const PUBLISH: u8 = 3;
    pub const PUBACK: u8 = 4;
    pub const SUBSCRIBE: u8 = 8;
    pub const SUBACK: u8 = 9;
    pub const UNSUBSCRIBE: u8 = 10;
    pub const UNSUBACK: u8 = 11;
    pub const PINGREQ: u8 = 12;
    pub const PINGRESP: u8 = 13;
    pub const DISCONNECT: u8 = 14;
    pub const AUTH: u8 = 15;
}

const ENDS_EARLY: Violation = Violation::malformed("the packet ends before its last field");

/// A variable byte integer (section 1.5.5): value and encoded size, `None` while bytes are missing.
/// Whether it is the shortest encoding is left to the caller: only MQTT 5 asks for it.
#[inline]
pub(super) fn varint(bytes: &[u8]) -> Result<Option<(usize, usize)>, Violation> {
    let mut value = 0;
    for (index, &byte) in bytes.iter().take(4).enumerate() {
        value |= usize::from(byte & 0x7F) << (7 * index);
        if byte & 0x80 == 0 {
            return Ok(Some((value, index + 1)));
        }
    }
    match bytes.len() {
        0..4 => Ok(None),
        _ => Err(Violation::malformed("a variable byte integer is longer than four bytes")),
    }
}

/// Appends `value < 2^28` as a variable byte integer.
pub(super) fn put_varint(mut value: usize, out: &mut Vec<u8>) {
    debug_assert!(value < 1 << 28);
    while value >= 0x80 {
        out.push((value & 0x7F) as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Size of `value < 2^28` as a variable byte integer.
pub(super) fn varint_bytes(value: usize) -> usize {
    match value {
        0..0x80 => 1,
        0x80..0x4000 => 2,
        0x4000..0x20_0000 => 3,
        _ => 4,
    }
}

/// Size of a whole packet of which `remaining` bytes follow the fixed header.
pub(super) fn packet_bytes(remaining: usize) -> usize {
    1 + varint_bytes(remaining) + remaining
}

/// Appends a string with its length; `text` is at most 65,535 bytes.
pub(super) fn put_text(text: &str, out: &mut Vec<u8>) {
    debug_assert!(text.len() <= usize::from(u16::MAX));
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// A UTF-8 string as section 1.5.4 wants it: well-formed, no surrogates, no U+0000.
#[inline]
pub(super) fn text(bytes: &[u8]) -> Result<&str, Violation> {
    let text = std::str::from_utf8(bytes)
        .map_err(|_| Violation::malformed("a string is not well-formed UTF-8"))?;
    if bytes.contains(&0) {
        return Err(Violation::malformed("a string contains U+0000"));
    }
    Ok(text)
}

/// Reads the fields of one packet, or of one section of it, front to back.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[inline]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read.
    #[inline]
    pub fn rest(&self) -> &'a [u8] {
        self.rest
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    #[inline]
    fn chunk<const N: usize>(&mut self) -> Result<[u8; N], Violation> {
        let (chunk, rest) = self.rest.split_first_chunk::<N>().ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(*chunk)
    }

    #[inline]
    pub fn byte(&mut self) -> Result<u8, Violation> {
        self.chunk().map(|[byte]| byte)
    }

    #[inline]
    pub fn two_bytes(&mut self) -> Result<u16, Violation> {
        self.chunk().map(u16::from_be_bytes)
    }

    #[inline]
    pub fn four_bytes(&mut self) -> Result<u32, Violation> {
        self.chunk().map(u32::from_be_bytes)
    }

    /// A variable byte integer inside a packet; MQTT 5 only, so the shortest encoding is required
    /// (MQTT-1.5.5-1).
    #[inline]
    pub fn varint(&mut self) -> Result<usize, Violation> {
        let (value, bytes) = varint(self.rest)?.ok_or(ENDS_EARLY)?;
        if bytes > 1 && self.rest[bytes - 1] == 0 {
            return Err(NOT_SHORTEST);
        }
        self.rest = &self.rest[bytes..];
        Ok(value)
    }

    #[inline]
    pub fn take(&mut self, bytes: usize) -> Result<&'a [u8], Violation> {
        let (taken, rest) = self.rest.split_at_checked(bytes).ok_or(ENDS_EARLY)?;
        self.rest = rest;
        Ok(taken)
    }

    /// Binary data with its two-byte length (section 1.5.6).
    #[inline]
    pub fn binary(&mut self) -> Result<&'a [u8], Violation> {
        let bytes = self.two_bytes()?;
        self.take(usize::from(bytes))
    }

    /// A UTF-8 string with its two-byte length (section 1.5.4).
    #[inline]
    pub fn text(&mut self) -> Result<&'a str, Violation> {
        text(self.binary()?)
    }

    /// A packet identifier, which is never 0 (MQTT-2.2.1-3).
    #[inline]
    pub fn packet_id(&mut self) -> Result<u16, Violation> {
        match self.two_bytes()? {
            0 => Err(Violation::protocol("packet identifier 0")),
            id => Ok(id),
        }
    }

    /// Nothing may follow.
    #[inline]
    pub fn finish(&self) -> Result<(), Violation> {
        match self.rest {
            [] => Ok(()),
            _ => Err(Violation::malformed("bytes follow the packet's last field")),
        }
    }
}

/// A variable byte integer with bytes to spare, which MQTT 5 forbids (MQTT-1.5.5-1).
pub(super) const NOT_SHORTEST: Violation =
    Violation::malformed("a variable byte integer is not encoded in the fewest bytes");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variable_byte_integers() {
        // Section 1.5.5, table 1-1: the bounds of each size.
        let check = |bytes: &[u8], value: usize| {
            assert_eq!(varint(bytes), Ok(Some((value, bytes.len()))));
            let mut out = Vec::new();
            put_varint(value, &mut out);
            assert_eq!(out, bytes);
            assert_eq!(varint_bytes(value), bytes.len());
        };
        check(&[0x00], 0);
        check(&[0x7F], 127);
        check(&[0x80, 0x01], 128);
        check(&[0xFF, 0x7F], 16_383);
        check(&[0x80, 0x80, 0x01], 16_384);
        check(&[0xFF, 0xFF, 0x7F], 2_097_151);
        check(&[0x80, 0x80, 0x80, 0x01], 2_097_152);
        check(&[0xFF, 0xFF, 0xFF, 0x7F], 268_435_455);

        for whole in [&[0x80, 0x01][..], &[0xFF, 0xFF, 0xFF, 0x7F]] {
            for cut in 0..whole.len() {
                assert_eq!(varint(&whole[..cut]), Ok(None));
            }
        }
        assert!(varint(&[0x80, 0x80, 0x80, 0x80]).is_err());
        assert!(varint(&[0xFF, 0xFF, 0xFF, 0xFF, 0x01]).is_err());
        assert_eq!(Reader::new(&[0x80, 0x00]).varint(), Err(NOT_SHORTEST));
    }

    #[test]
    fn strings() {
        let check = |bytes: &[u8], valid: bool| {
            assert_eq!(text(bytes).is_ok(), valid, "{bytes:02X?}");
        };
        check(b"", true);
        check("A\u{2A6D4}".as_bytes(), true); // section 1.5.4, figure 1-2
        check(&[0xEF, 0xBB, 0xBF], true); // U+FEFF is kept (MQTT-1.5.4-3)
        check(b"a\0b", false); // MQTT-1.5.4-2
        check(&[0xED, 0xA0, 0x80], false); // U+D800 (MQTT-1.5.4-1)
        check(&[0xC0, 0x80], false); // U+0000, overlong
        check(&[0xF4, 0x90, 0x80, 0x80], false); // above U+10FFFF
        check(&[0xFF], false);
    }

    #[test]
    fn reads_stop_at_the_end() {
        assert!(Reader::new(&[]).byte().is_err());
        assert!(Reader::new(&[1]).two_bytes().is_err());
        assert!(Reader::new(&[1, 2, 3]).four_bytes().is_err());
        assert!(Reader::new(&[0, 3, b'a', b'b']).text().is_err());
        assert!(Reader::new(&[0, 0]).packet_id().is_err());
        assert!(Reader::new(&[0]).finish().is_err());
        assert_eq!(Reader::new(&[0, 2, b'a', b'b', b'c']).text(), Ok("ab"));
    }
}
