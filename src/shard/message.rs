//! A message on its way into the log: what its record is made of, on the shard where it arrived or
//! on the one that owns its partition.

use crate::ingest::mqtt::{Publish, UserProperties};
use crate::record::PartitionBy;
use crate::record::batch::{Headers, RecordParts};

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
        }
    }

    /// The record in a stream that is partitioned by `by`. Its key is what partitions it; the client
    /// identifier is a header where it is not the key. Where the stream is `compacted` an empty
    /// payload deletes the key.
    pub fn record(
        &self,
        (by, compacted): (PartitionBy, bool),
        timestamp_ms: i64,
    ) -> RecordParts<'a, MessageHeaders<'a>> {
        RecordParts {
            key: match by {
                PartitionBy::Client => Some(self.client_id),
                PartitionBy::Topic => Some(self.topic),
                PartitionBy::None => None,
            },
            value: (!compacted || !self.payload.is_empty()).then_some(self.payload),
            timestamp_ms,
            headers: MessageHeaders { message: *self, names_client: by != PartitionBy::Client },
        }
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
    }
}
