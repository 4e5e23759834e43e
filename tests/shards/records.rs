//! The records of messages: what a message becomes in a place, and whose a record is.

use tidegate::record::PartitionBy;
use tidegate::record::batch::RecordView;

use crate::ledger::{Message, NUMBER_BYTES};
use crate::packets::Contents;
use crate::setup::{Place, Setup};

/// The payload of message `number`: its number, then bytes that follow from it.
pub fn payload(number: usize, bytes: usize) -> Vec<u8> {
    const RUN: [u8; 251] = {
        let mut run = [0; 251];
        let mut at = 0;
        while at < run.len() {
            run[at] = at as u8;
            at += 1;
        }
        run
    };
    let mut out = Vec::with_capacity(bytes + RUN.len());
    out.extend_from_slice(&(number as u32).to_le_bytes());
    out.extend_from_slice(&RUN[number % RUN.len()..]);
    while out.len() < bytes {
        out.extend_from_slice(&RUN);
    }
    out.truncate(bytes);
    out
}

/// The message that a record is of.
pub fn number_of(record: &RecordView<'_>) -> Option<usize> {
    if let Some(number) = record.value.and_then(|value| value.first_chunk::<NUMBER_BYTES>()) {
        return Some(u32::from_le_bytes(*number) as usize);
    }
    let (_, topic) = record.headers().find(|(name, _)| *name == b"mqtt.topic")?;
    std::str::from_utf8(topic).ok()?.rsplit_once('/')?.1.parse().ok()
}

/// The key of a message's record.
pub fn key_of<'a>(by: PartitionBy, client_id: &'a str, contents: &'a Contents) -> Option<&'a str> {
    match by {
        PartitionBy::Client => Some(client_id),
        PartitionBy::Topic => Some(contents.topic.as_str()),
        PartitionBy::None => None,
    }
}

/// A record holds what its message says.
pub fn check_contents(
    setup: &Setup,
    place: Place,
    message: &Message,
    client_id: &str,
    record: &RecordView<'_>,
) {
    let (contents, by) = (&message.contents, setup.streams[place.stream].by);
    let key = key_of(by, client_id, contents);
    assert_eq!(record.key, key.map(str::as_bytes), "key in {place:?} of {message:?}");
    let deletes = setup.is_compacted(place.stream) && message.payload.is_empty();
    let same = record.value == (!deletes).then_some(message.payload.as_slice());
    assert!(same, "value in {place:?} of {:?}: {:?}", message.contents, record.value);
    let digit = |n: u8| if n == 0 { "0" } else { "1" };
    let mut headers = vec![
        ("mqtt.topic", contents.topic.as_str()),
        ("mqtt.qos", digit(contents.qos)),
        ("mqtt.retain", digit(u8::from(contents.retain))),
    ];
    headers.extend((by != PartitionBy::Client).then_some(("mqtt.client_id", client_id)));
    headers.extend(contents.content_type.as_deref().map(|text| ("mqtt.content_type", text)));
    headers.extend(contents.properties.iter().map(|(n, v)| (n.as_str(), v.as_str())));
    let headers = headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let shown = || (place, &message.contents, record.headers().collect::<Vec<_>>());
    assert!(record.headers().eq(headers), "headers of {:?}", shown());
}
