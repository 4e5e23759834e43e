//! A message on its way into the log: what its record is made of, on the shard where it arrived or
//! on the one that owns its partition.

use crate::ingest::mqtt::{Publish, UserProperties};
use crate::record::batch::{Headers, HeadersSize, RecordParts, write_header};
use crate::record::{PartitionBy, varint};
use crate::transform::Made;
use crate::transform::rules::{Extras, Input, Key, Properties};

/// Bytes of a record beside its parts, with the names of its headers, roughly.
const RECORD_OVERHEAD: usize = 256;

/// The parts of a message, wherever they lie.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    pub client_id: &'a [u8],
    pub topic: &'a [u8],
    pub payload: &'a [u8],
    /// 0, 1 or 2.
    pub qos: u8,
    pub retain: bool,
    pub content_type: Option<&'a [u8]>,
    pub user_properties: UserProperties<'a>,
    /// What a rule says of its record.
    pub extras: Extras<'a>,
    /// A rule has made the payload or the extras: they lie in memory that the next message uses
    /// again, not in the packet.
    pub is_made: bool,
}

impl<'a> Message<'a> {
    /// What `client_id` has published.
    pub fn of(client_id: &'a str, publish: &Publish<'a>) -> Self {
        Self {
            client_id: client_id.as_bytes(),
            topic: publish.topic.as_bytes(),
            payload: publish.payload,
            qos: publish.qos as u8,
            retain: publish.retain,
            content_type: publish.content_type.map(str::as_bytes),
            user_properties: publish.user_properties,
            extras: Extras::default(),
            is_made: false,
        }
    }

    /// What a rule has made of this message.
    pub fn made(&self, made: &Made<'a>) -> Self {
        Self {
            payload: made.value.unwrap_or(self.payload),
            extras: made.extras,
            is_made: made.value.is_some() || !made.extras.bytes().is_empty(),
            ..*self
        }
    }

    /// Bytes that must be copied so that the record can go to another shard.
    pub fn made_bytes(&self) -> usize {
        if self.is_made { self.payload.len() + self.extras.bytes().len() } else { 0 }
    }

    /// The record in a stream that is partitioned by `by`. Its key is what partitions it; the client
    /// identifier is a header where it is not the key. Where the stream is `compacted` an empty
    /// payload deletes the key.
    #[inline]
    pub fn record<'m>(
        &'m self,
        (by, compacted): (PartitionBy, bool),
        timestamp_ms: i64,
    ) -> RecordParts<'a, MessageHeaders<'m, 'a>> {
        let own_key = self.extras.key();
        let names_client = by != PartitionBy::Client || own_key != Key::Unsaid;
        RecordParts {
            key: match (own_key, by) {
                (Key::Is(key), _) => Some(key),
                (Key::None, _) | (Key::Unsaid, PartitionBy::None) => None,
                (Key::Unsaid, PartitionBy::Client) => Some(self.client_id),
                (Key::Unsaid, PartitionBy::Topic) => Some(self.topic),
            },
            value: (!compacted || !self.payload.is_empty()).then_some(self.payload),
            timestamp_ms: self.extras.timestamp_ms().unwrap_or(timestamp_ms),
            headers: MessageHeaders::of(self, names_client),
        }
    }
}

/// A message as rules see it; its topic and client id are text, as MQTT has them.
pub fn input<'a>(
    publish: &Publish<'a>,
    (client_id, username): (&'a str, Option<&'a str>),
    properties: &'a dyn Properties,
    received_ms: i64,
) -> Input<'a> {
    Input {
        topic: publish.topic,
        client_id,
        payload: publish.payload,
        qos: publish.qos as u8,
        retain: publish.retain,
        username,
        content_type: publish.content_type,
        properties,
        received_ms,
        overhead_bytes: RECORD_OVERHEAD
            + publish.topic.len()
            + client_id.len()
            + publish.content_type.map_or(0, str::len)
            + publish.user_properties.parts().0.len(),
    }
}

impl Properties for UserProperties<'_> {
    fn first(&self, name: &str) -> Option<&str> {
        let mut found = self.iter().filter(|(known, _)| *known == name.as_bytes());
        found.next().and_then(|(_, value)| std::str::from_utf8(value).ok())
    }
}

/// The headers of a message's record: `mqtt.topic`, `mqtt.qos`, `mqtt.retain`, and what not every
/// message has.
#[derive(Debug, Clone, Copy)]
pub struct MessageHeaders<'m, 'a> {
    message: &'m Message<'a>,
    /// The client identifier is not the key.
    names_client: bool,
    size: HeadersSize,
}

/// What comes before a topic, but for its length, as it stands in a record.
const BEFORE_TOPIC: &[u8] = b"\x14mqtt.topic";
/// `mqtt.qos` and `mqtt.retain` as they stand in a record, by QoS and retain.
const FLAGS: [[&[u8; 25]; 2]; 3] = [
    [b"\x10mqtt.qos\x020\x16mqtt.retain\x020", b"\x10mqtt.qos\x020\x16mqtt.retain\x021"],
    [b"\x10mqtt.qos\x021\x16mqtt.retain\x020", b"\x10mqtt.qos\x021\x16mqtt.retain\x021"],
    [b"\x10mqtt.qos\x022\x16mqtt.retain\x020", b"\x10mqtt.qos\x022\x16mqtt.retain\x021"],
];

impl<'m, 'a> MessageHeaders<'m, 'a> {
    #[inline]
    fn of(message: &'m Message<'a>, names_client: bool) -> Self {
        let topic = varint::size(message.topic.len() as i64) + message.topic.len();
        let mut size = HeadersSize::new(3, BEFORE_TOPIC.len() + topic + FLAGS[0][0].len());
        let unmeasured = Self { message, names_client, size };
        unmeasured.visit_others(|name, value| size.add(name, value));
        Self { size, ..unmeasured }
    }

    /// Those that not every message has.
    #[inline]
    fn visit_others(&self, mut each: impl FnMut(&'a [u8], &'a [u8])) {
        let message = self.message;
        if self.names_client {
            each(b"mqtt.client_id", message.client_id);
        }
        if let Some(content_type) = message.content_type {
            each(b"mqtt.content_type", content_type);
        }
        let others = message.user_properties.iter().chain(message.extras.headers());
        others.for_each(|(name, value)| each(name, value));
    }
}

impl<'a> Headers<'a> for MessageHeaders<'_, 'a> {
    #[inline]
    fn size(&self) -> HeadersSize {
        self.size
    }

    #[inline]
    fn write(&self, out: &mut Vec<u8>) {
        let Message { topic, qos, retain, .. } = *self.message;
        out.extend_from_slice(BEFORE_TOPIC);
        varint::write(out, topic.len() as i64);
        out.extend_from_slice(topic);
        out.extend_from_slice(FLAGS[usize::from(qos.min(2))][usize::from(retain)]);
        self.visit_others(|name, value| write_header(out, name, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_stand_in_the_record_as_their_names_and_values_would() {
        let long = "site/".repeat(40);
        // Two properties as MQTT has them, without the byte that says so.
        let properties = b"\x26\x00\x04unit\x00\x01C\x26\x00\x01k\x00\x00";
        let properties = UserProperties::from_parts(properties, 2);
        for (qos, retain, topic) in [(0, false, "a"), (1, true, "plant/7"), (2, false, &long)] {
            for (by, content_type) in
                [(PartitionBy::Client, None), (PartitionBy::Topic, Some("text/plain"))]
            {
                let message = Message {
                    client_id: b"press-7",
                    topic: topic.as_bytes(),
                    payload: b"{}",
                    qos,
                    retain,
                    content_type: content_type.map(str::as_bytes),
                    user_properties: properties,
                    extras: Extras::default(),
                    is_made: false,
                };
                let (qos, retain) = (qos.to_string(), u8::from(retain).to_string());
                let mut wanted: Vec<(&[u8], &[u8])> = vec![
                    (b"mqtt.topic", topic.as_bytes()),
                    (b"mqtt.qos", qos.as_bytes()),
                    (b"mqtt.retain", retain.as_bytes()),
                ];
                if by == PartitionBy::Topic {
                    wanted.push((b"mqtt.client_id", b"press-7"));
                }
                wanted.extend(content_type.map(|it| (&b"mqtt.content_type"[..], it.as_bytes())));
                wanted.extend([(&b"unit"[..], &b"C"[..]), (b"k", b"")]);
                let headers = message.record((by, false), 1).headers;
                let (mut written, mut expected) = (Vec::new(), Vec::new());
                headers.write(&mut written);
                wanted.iter().copied().write(&mut expected);
                assert_eq!(written, expected, "{message:?}");
                assert_eq!(headers.size(), wanted.iter().copied().size());
                assert_eq!(headers.size(), HeadersSize::new(wanted.len(), written.len()));
            }
        }
    }
}
