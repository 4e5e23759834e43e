//! A message on its way into the log: what its record is made of, on the shard where it arrived or
//! on the one that owns its partition.

use crate::ingest::mqtt::{Publish, UserProperties};
use crate::record::PartitionBy;
use crate::record::batch::{Headers, RecordParts};
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
    pub fn record(
        &self,
        (by, compacted): (PartitionBy, bool),
        timestamp_ms: i64,
    ) -> RecordParts<'a, MessageHeaders<'a>> {
        let own_key = self.extras.key();
        RecordParts {
            key: match (own_key, by) {
                (Key::Is(key), _) => Some(key),
                (Key::None, _) | (Key::Unsaid, PartitionBy::None) => None,
                (Key::Unsaid, PartitionBy::Client) => Some(self.client_id),
                (Key::Unsaid, PartitionBy::Topic) => Some(self.topic),
            },
            value: (!compacted || !self.payload.is_empty()).then_some(self.payload),
            timestamp_ms: self.extras.timestamp_ms().unwrap_or(timestamp_ms),
            headers: MessageHeaders {
                message: *self,
                names_client: by != PartitionBy::Client || own_key != Key::Unsaid,
            },
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

/// The headers of a message's record.
#[derive(Debug, Clone, Copy)]
pub struct MessageHeaders<'a> {
    message: Message<'a>,
    /// The client identifier is not the key.
    names_client: bool,
}

impl<'a> Headers<'a> for MessageHeaders<'a> {
    #[inline]
    fn visit(&self, mut each: impl FnMut(&'a [u8], &'a [u8])) {
        let digit = |number: u8| -> &'static [u8] {
            [b"0".as_slice(), b"1", b"2"][usize::from(number.min(2))]
        };
        let message = &self.message;
        each(b"mqtt.topic", message.topic);
        each(b"mqtt.qos", digit(message.qos));
        each(b"mqtt.retain", digit(u8::from(message.retain)));
        if self.names_client {
            each(b"mqtt.client_id", message.client_id);
        }
        if let Some(content_type) = message.content_type {
            each(b"mqtt.content_type", content_type);
        }
        for (name, value) in message.user_properties.iter() {
            each(name, value);
        }
        for (name, value) in message.extras.headers() {
            each(name, value);
        }
    }
}
