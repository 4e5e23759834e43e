//! PUBLISH from a client (section 3.3) and its PUBACK (section 3.4).
//!
//! In: the first byte and the body of a PUBLISH. Out: a [`Publish`] that borrows from it. This is
//! the hot path: one look at the topic, none at the payload, no allocation. Topic aliases are
//! resolved by the connection, which knows them.

use super::codec::{self, Reader, Version, packet};
use super::properties::{self, Allowed, UserProperties, Value, id};
use super::reasons::{Reject, Violation};

/// How sure the client wants to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Qos {
    /// 0: not acknowledged.
    AtMostOnce = 0,
    /// 1: acknowledged with PUBACK.
    AtLeastOnce = 1,
}

/// A message: a view into the bytes that came, except for a topic that stands for an alias.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Publish<'a> {
    /// Never empty, without wildcards and U+0000.
    pub topic: &'a str,
    /// As it came; nobody has looked at it.
    pub payload: &'a [u8],
    /// 0 or 1.
    pub qos: Qos,
    /// The client wants it kept for later subscribers.
    pub retain: bool,
    /// The client may have sent it before.
    pub dup: bool,
    /// What to acknowledge; 0 for QoS 0.
    pub packet_id: u16,
    /// The client says that the payload is UTF-8 (Payload Format Indicator 1). Not checked.
    pub payload_is_text: bool,
    /// Message Expiry Interval.
    pub message_expiry_s: Option<u32>,
    /// Content Type.
    pub content_type: Option<&'a str>,
    /// Response Topic.
    pub response_topic: Option<&'a str>,
    /// Correlation Data.
    pub correlation_data: Option<&'a [u8]>,
    /// In the order in which they came.
    pub user_properties: UserProperties<'a>,
}

/// What the first byte of a PUBLISH must be (section 3.3.1); needs nothing that comes later.
#[inline]
pub(super) fn check_flags(first: u8) -> Result<(), Violation> {
    match first >> 1 & 3 {
        0 if first & 0x08 != 0 => Err(Violation::malformed("DUP is set on a QoS 0 message")),
        0 | 1 => Ok(()),
        2 => Err(Violation::new(Reject::QosNotSupported, "QoS 2 is not supported yet")),
        _ => Err(Violation::malformed("QoS 3")),
    }
}

/// A topic name (section 4.7): a well-formed string without wildcards. Empty ones pass.
#[inline]
fn topic_name(bytes: &[u8]) -> Result<&str, Violation> {
    // One pass without a branch for each byte, so that the compiler makes vectors of it.
    let flawed =
        bytes.iter().fold(false, |flawed, &b| flawed | (b == 0) | (b == b'+') | (b == b'#'));
    match std::str::from_utf8(bytes) {
        Ok(name) if !flawed => Ok(name),
        _ => Err(topic_flaw(bytes)),
    }
}

#[cold]
fn topic_flaw(bytes: &[u8]) -> Violation {
    match codec::text(bytes) {
        Err(violation) => violation,
        Ok(_) => Violation::new(Reject::TopicNameInvalid, "a topic name contains a wildcard"),
    }
}

impl<'a> Publish<'a> {
    /// Reads the body of a PUBLISH whose first byte passed [`check_flags`]. The topic may be empty
    /// where the alias, which comes second, is given.
    #[inline]
    pub(super) fn read(
        first: u8,
        body: &'a [u8],
        version: Version,
        user_properties_max: u16,
    ) -> Result<(Self, Option<u16>), Violation> {
        let mut reader = Reader::new(body);
        let topic = topic_name(reader.binary()?)?;
        let (qos, packet_id) = match first >> 1 & 3 {
            0 => (Qos::AtMostOnce, 0),
            _ => (Qos::AtLeastOnce, reader.packet_id()?),
        };
        let mut publish = Self {
            topic,
            payload: &[],
            qos,
            retain: first & 0x01 != 0,
            dup: first & 0x08 != 0,
            packet_id,
            payload_is_text: false,
            message_expiry_s: None,
            content_type: None,
            response_topic: None,
            correlation_data: None,
            user_properties: UserProperties::default(),
        };
        let mut alias = None;
        if version == Version::V5 {
            match reader.rest() {
                // No properties, as nearly always.
                [0, ..] => drop(reader.byte()),
                _ => alias = publish.read_properties(&mut reader, user_properties_max)?,
            }
        }
        if topic.is_empty() && alias.is_none() {
            return Err(Violation::protocol("an empty topic name without a topic alias"));
        }
        publish.payload = reader.rest();
        Ok((publish, alias))
    }

    fn read_properties(
        &mut self,
        reader: &mut Reader<'a>,
        user_properties_max: u16,
    ) -> Result<Option<u16>, Violation> {
        let mut alias = None;
        self.user_properties =
            properties::read(reader, Allowed::PUBLISH, user_properties_max, |property, value| {
                match (property, value) {
                    (id::PAYLOAD_FORMAT_INDICATOR, Value::Byte(byte)) => {
                        self.payload_is_text = properties::flag(byte)?;
                    }
                    (id::MESSAGE_EXPIRY_INTERVAL, Value::FourBytes(s)) => {
                        self.message_expiry_s = Some(s);
                    }
                    (id::CONTENT_TYPE, Value::Text(text)) => self.content_type = Some(text),
                    (id::RESPONSE_TOPIC, Value::Text(text)) => {
                        self.response_topic = Some(topic_name(text.as_bytes())?); // MQTT-3.3.2-14
                    }
                    (id::CORRELATION_DATA, Value::Binary(data)) => {
                        self.correlation_data = Some(data);
                    }
                    (id::TOPIC_ALIAS, Value::TwoBytes(number)) => alias = Some(number),
                    // MQTT-3.3.4-6
                    (id::SUBSCRIPTION_IDENTIFIER, _) => {
                        return Err(Violation::protocol(
                            "a subscription identifier in a client's PUBLISH",
                        ));
                    }
                    _ => {}
                }
                Ok(())
            })?;
        Ok(alias)
    }
}

/// PUBACK, success: in both versions (in 5 the reason code 0 is left out, section 3.4.2.1).
#[inline]
pub(super) fn puback(packet_id: u16) -> [u8; 4] {
    let [high, low] = packet_id.to_be_bytes();
    [packet::PUBACK << 4, 2, high, low]
}

/// PUBACK, MQTT 5: taken, but nobody wants it (0x10, No matching subscribers).
pub(super) fn puback_no_match(packet_id: u16) -> [u8; 5] {
    let [high, low] = packet_id.to_be_bytes();
    [packet::PUBACK << 4, 3, high, low, 0x10]
}
