//! Properties of MQTT 5 (section 2.2.2).
//!
//! In: the property section of one packet. Out: each property once, checked and borrowed, in one
//! pass: is it known, is it allowed on this packet, did it come before, are its strings well-formed.
//! No allocation, whatever their number; user properties stay where they are and are walked again
//! by whoever wants them.

use super::codec::Reader;
use super::reasons::{Reject, Violation};

/// Property identifiers (section 2.2.2.2, table 2-4). All are below 64, so that a set of them is
/// one word.
pub(super) mod id {
    pub const PAYLOAD_FORMAT_INDICATOR: u8 = 0x01;
    pub const MESSAGE_EXPIRY_INTERVAL: u8 = 0x02;
    pub const CONTENT_TYPE: u8 = 0x03;
    pub const RESPONSE_TOPIC: u8 = 0x08;
    pub const CORRELATION_DATA: u8 = 0x09;
    pub const SUBSCRIPTION_IDENTIFIER: u8 = 0x0B;
    pub const SESSION_EXPIRY_INTERVAL: u8 = 0x11;
    pub const ASSIGNED_CLIENT_IDENTIFIER: u8 = 0x12;
    pub const SERVER_KEEP_ALIVE: u8 = 0x13;
    pub const AUTHENTICATION_METHOD: u8 = 0x15;
    pub const AUTHENTICATION_DATA: u8 = 0x16;
    pub const REQUEST_PROBLEM_INFORMATION: u8 = 0x17;
    pub const WILL_DELAY_INTERVAL: u8 = 0x18;
    pub const REQUEST_RESPONSE_INFORMATION: u8 = 0x19;
    pub const REASON_STRING: u8 = 0x1F;
    pub const RECEIVE_MAXIMUM: u8 = 0x21;
    pub const TOPIC_ALIAS_MAXIMUM: u8 = 0x22;
    pub const TOPIC_ALIAS: u8 = 0x23;
    pub const MAXIMUM_QOS: u8 = 0x24;
    pub const USER_PROPERTY: u8 = 0x26;
    pub const MAXIMUM_PACKET_SIZE: u8 = 0x27;
    pub const WILDCARD_SUBSCRIPTION_AVAILABLE: u8 = 0x28;
    pub const SUBSCRIPTION_IDENTIFIERS_AVAILABLE: u8 = 0x29;
    pub const SHARED_SUBSCRIPTION_AVAILABLE: u8 = 0x2A;
}

/// A set of property identifiers: those that a client may send in one kind of packet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Allowed(u64);

impl Allowed {
    pub const CONNECT: Self = Self::of(&[
        id::SESSION_EXPIRY_INTERVAL,
        id::AUTHENTICATION_METHOD,
        id::AUTHENTICATION_DATA,
        id::REQUEST_PROBLEM_INFORMATION,
        id::REQUEST_RESPONSE_INFORMATION,
        id::RECEIVE_MAXIMUM,
        id::TOPIC_ALIAS_MAXIMUM,
        id::USER_PROPERTY,
        id::MAXIMUM_PACKET_SIZE,
    ]);
    pub const WILL: Self = Self::of(&[
        id::PAYLOAD_FORMAT_INDICATOR,
        id::MESSAGE_EXPIRY_INTERVAL,
        id::CONTENT_TYPE,
        id::RESPONSE_TOPIC,
        id::CORRELATION_DATA,
        id::WILL_DELAY_INTERVAL,
        id::USER_PROPERTY,
    ]);
    pub const PUBLISH: Self = Self::of(&[
        id::PAYLOAD_FORMAT_INDICATOR,
        id::MESSAGE_EXPIRY_INTERVAL,
        id::CONTENT_TYPE,
        id::RESPONSE_TOPIC,
        id::CORRELATION_DATA,
        id::SUBSCRIPTION_IDENTIFIER, // valid on the packet, but not from a client: see publish.rs
        id::TOPIC_ALIAS,
        id::USER_PROPERTY,
    ]);
    pub const SUBSCRIBE: Self = Self::of(&[id::SUBSCRIPTION_IDENTIFIER, id::USER_PROPERTY]);
    pub const UNSUBSCRIBE: Self = Self::of(&[id::USER_PROPERTY]);
    pub const DISCONNECT: Self =
        Self::of(&[id::SESSION_EXPIRY_INTERVAL, id::REASON_STRING, id::USER_PROPERTY]);

    const fn of(ids: &[u8]) -> Self {
        let mut set = 0;
        let mut index = 0;
        while index < ids.len() {
            set |= 1 << ids[index];
            index += 1;
        }
        Self(set)
    }
}

/// The value of one property, by its type on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Value<'a> {
    Byte(u8),
    TwoBytes(u16),
    FourBytes(u32),
    Varint(usize),
    Text(&'a str),
    Binary(&'a [u8]),
    /// Two strings, well-formed; they are read where they lie ([`UserProperties`]).
    Pair,
}

/// Reads the value that follows identifier `property`: of those that a client may send.
#[inline]
fn value<'a>(property: u8, reader: &mut Reader<'a>) -> Result<Value<'a>, Violation> {
    match property {
        id::USER_PROPERTY => {
            reader.text()?;
            reader.text()?;
            Ok(Value::Pair)
        }
        id::TOPIC_ALIAS | id::RECEIVE_MAXIMUM | id::TOPIC_ALIAS_MAXIMUM => {
            reader.two_bytes().map(Value::TwoBytes)
        }
        id::CONTENT_TYPE | id::RESPONSE_TOPIC | id::REASON_STRING | id::AUTHENTICATION_METHOD => {
            reader.text().map(Value::Text)
        }
        id::PAYLOAD_FORMAT_INDICATOR
        | id::REQUEST_PROBLEM_INFORMATION
        | id::REQUEST_RESPONSE_INFORMATION => reader.byte().map(Value::Byte),
        id::MESSAGE_EXPIRY_INTERVAL
        | id::SESSION_EXPIRY_INTERVAL
        | id::WILL_DELAY_INTERVAL
        | id::MAXIMUM_PACKET_SIZE => reader.four_bytes().map(Value::FourBytes),
        id::CORRELATION_DATA | id::AUTHENTICATION_DATA => reader.binary().map(Value::Binary),
        id::SUBSCRIPTION_IDENTIFIER => reader.varint().map(Value::Varint),
        _ => Err(NOT_ALLOWED),
    }
}

// Section 2.2.2.2: an identifier that is not valid for its packet type makes the packet malformed.
const NOT_ALLOWED: Violation =
    Violation::malformed("a property is unknown or does not belong on this packet");

/// Reads a whole property section, its length first, and shows each property but the user
/// properties to `visit`. Returns the user properties, at most `user_properties_max`.
#[inline]
pub(super) fn read<'a>(
    packet: &mut Reader<'a>,
    allowed: Allowed,
    user_properties_max: u16,
    mut visit: impl FnMut(u8, Value<'a>) -> Result<(), Violation>,
) -> Result<UserProperties<'a>, Violation> {
    let bytes = packet.varint()?;
    let mut reader = Reader::new(packet.take(bytes)?);
    let mut seen = 0_u64;
    let mut user = UserProperties::default();
    while !reader.is_empty() {
        let from_here = reader.rest();
        let property = reader.byte()?;
        let bit = 1_u64.checked_shl(u32::from(property)).unwrap_or(0);
        if allowed.0 & bit == 0 {
            return Err(NOT_ALLOWED);
        }
        let value = value(property, &mut reader)?;
        if property == id::USER_PROPERTY {
            if user.count == 0 {
                user.bytes = from_here;
            }
            user.count += 1;
            if user.count > u32::from(user_properties_max) {
                return Err(Violation::new(Reject::QuotaExceeded, "too many user properties"));
            }
            continue;
        }
        if seen & bit != 0 {
            return Err(Violation::protocol("a property comes twice"));
        }
        seen |= bit;
        visit(property, value)?;
    }
    Ok(user)
}

/// A property that is a byte and means yes (1) or no (0).
pub(super) fn flag(byte: u8) -> Result<bool, Violation> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Violation::protocol("a property that is 0 or 1 has another value")),
    }
}

/// The user properties of one packet, in the order in which they came: a view into the packet, as
/// cheap to copy as a slice, and walked as often as one likes.
#[derive(Clone, Copy, Default)]
pub struct UserProperties<'a> {
    /// A checked property section from the first user property on; empty when `count == 0`.
    bytes: &'a [u8],
    count: u32,
}

impl<'a> UserProperties<'a> {
    /// None at all.
    pub const NONE: Self = Self { bytes: &[], count: 0 };

    /// What [`UserProperties::from_parts`] makes it of again.
    pub fn parts(&self) -> (&'a [u8], u32) {
        (self.bytes, self.count)
    }

    /// What `parts` were taken from. Other bytes yield fewer properties, and no harm.
    pub fn from_parts(bytes: &'a [u8], count: u32) -> Self {
        Self { bytes, count }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.count as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Names and values, well-formed UTF-8; a name may come more than once.
    #[inline]
    pub fn iter(&self) -> UserPropertiesIter<'a> {
        UserPropertiesIter { reader: Reader::new(self.bytes), left: self.count }
    }
}

impl std::fmt::Debug for UserProperties<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let text = String::from_utf8_lossy;
        f.debug_list().entries(self.iter().map(|(name, value)| (text(name), text(value)))).finish()
    }
}

impl PartialEq for UserProperties<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<'a> IntoIterator for UserProperties<'a> {
    type Item = (&'a [u8], &'a [u8]);
    type IntoIter = UserPropertiesIter<'a>;

    fn into_iter(self) -> UserPropertiesIter<'a> {
        self.iter()
    }
}

/// Walks [`UserProperties`].
#[derive(Debug, Clone)]
pub struct UserPropertiesIter<'a> {
    reader: Reader<'a>,
    left: u32,
}

impl<'a> Iterator for UserPropertiesIter<'a> {
    type Item = (&'a [u8], &'a [u8]);

    #[inline]
    fn next(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        while self.left > 0 {
            // The section was checked when the packet was read: none of these fails, and no string
            // needs another look.
            let property = self.reader.byte().ok()?;
            if property == id::USER_PROPERTY {
                self.left -= 1;
                return Some((self.reader.binary().ok()?, self.reader.binary().ok()?));
            }
            value(property, &mut self.reader).ok()?;
        }
        None
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left as usize, Some(self.left as usize))
    }
}

impl ExactSizeIterator for UserPropertiesIter<'_> {}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(properties: &[u8]) -> Vec<u8> {
        [&[properties.len() as u8], properties].concat()
    }

    #[test]
    fn one_pass_says_all() {
        let check = |allowed: Allowed, properties: &[u8], expected: Result<usize, Reject>| {
            let bytes = section(properties);
            let read = read(&mut Reader::new(&bytes), allowed, 2, |_, _| Ok(()));
            assert_eq!(read.map(|u| u.len()).map_err(|v| v.reject), expected, "{bytes:02X?}");
        };
        let user = b"\x26\x00\x01k\x00\x01v";
        check(Allowed::PUBLISH, b"", Ok(0));
        check(Allowed::PUBLISH, user, Ok(1));
        check(Allowed::PUBLISH, &user.repeat(2), Ok(2));
        check(Allowed::PUBLISH, &user.repeat(3), Err(Reject::QuotaExceeded));
        check(Allowed::PUBLISH, b"\x01\x01", Ok(0));
        check(Allowed::PUBLISH, b"\x01\x01\x01\x01", Err(Reject::ProtocolError));
        check(Allowed::PUBLISH, b"\x11\x00\x00\x00\x01", Err(Reject::Malformed));
        check(Allowed::CONNECT, b"\x11\x00\x00\x00\x01", Ok(0));
        check(Allowed::WILL, b"\x18\x00\x00\x00\x01", Ok(0));
        check(Allowed::CONNECT, b"\x18\x00\x00\x00\x01", Err(Reject::Malformed));
        check(Allowed::SUBSCRIBE, b"\x0B\x80\x01", Ok(0));
        check(Allowed::UNSUBSCRIBE, b"\x0B\x01", Err(Reject::Malformed));
        check(Allowed::DISCONNECT, b"\x1F\x00\x02ok", Ok(0));
        // Unknown, above 63, above 127, cut short, not UTF-8, U+0000 in a user property.
        check(Allowed::PUBLISH, b"\x04\x00", Err(Reject::Malformed));
        check(Allowed::PUBLISH, b"\x42\x00", Err(Reject::Malformed));
        check(Allowed::PUBLISH, b"\xA6\x00\x00", Err(Reject::Malformed));
        check(Allowed::PUBLISH, b"\x26\x00\x01k", Err(Reject::Malformed));
        check(Allowed::PUBLISH, b"\x03\x00\x01\xFF", Err(Reject::Malformed));
        check(Allowed::PUBLISH, b"\x26\x00\x01\x00\x00\x00", Err(Reject::Malformed));
    }

    #[test]
    fn user_properties_are_found_between_the_others() {
        let properties =
            b"\x01\x01\x26\x00\x01a\x00\x011\x03\x00\x01t\x26\x00\x01a\x00\x00\x23\x00\x07";
        let bytes = section(properties);
        let mut others = Vec::new();
        let user = read(&mut Reader::new(&bytes), Allowed::PUBLISH, 9, |property, value| {
            others.push((property, value));
            Ok(())
        })
        .unwrap();
        let expected: [(&[u8], &[u8]); 2] = [(b"a", b"1"), (b"a", b"")];
        assert_eq!(user.iter().collect::<Vec<_>>(), expected);
        assert_eq!(user.iter().len(), 2);
        assert!(!user.is_empty() && UserProperties::NONE.is_empty());
        assert_eq!(user.into_iter().count(), 2);
        assert_eq!(format!("{user:?}"), r#"[("a", "1"), ("a", "")]"#);
        assert_eq!(
            others,
            [
                (id::PAYLOAD_FORMAT_INDICATOR, Value::Byte(1)),
                (id::CONTENT_TYPE, Value::Text("t")),
                (id::TOPIC_ALIAS, Value::TwoBytes(7)),
            ]
        );
    }
}
