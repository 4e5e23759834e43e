//! A dead letter as a record of `_deadletter` has it, and as the message that goes out again.
//!
//! In: a record. Out: an MQTT 5 PUBLISH on `$tidegate/redrive/RULE/TOPIC`, which the engine takes for
//! the message that came at first (`shard::redrive`). Nothing of it is interpreted here.

use crate::record::batch::RecordView;

/// What a rule could not evaluate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub rule: String,
    pub partition: i32,
    pub offset: i64,
    /// When the message came at first, milliseconds since 1970.
    pub received_ms: i64,
    pub topic: String,
    /// Who sent it at first.
    pub client_id: String,
    pub reason: String,
    qos: u8,
    retain: bool,
    content_type: Option<String>,
    properties: Vec<(String, String)>,
    payload: Vec<u8>,
}

impl DeadLetter {
    /// `None` where it is none: a rule, a topic or a client is missing.
    pub fn read(partition: i32, record: &RecordView<'_>) -> Option<Self> {
        let mut headers = Vec::new();
        for (name, value) in record.headers() {
            headers.push((std::str::from_utf8(name).ok()?, std::str::from_utf8(value).ok()?));
        }
        // The last three are the rule's, the first ones the engine's; between them are the device's,
        // which may have any names.
        let rules = headers.split_off(headers.len().checked_sub(3)?);
        let [("rule", rule), ("position", _), ("reason", reason)] = rules[..] else { return None };
        let mut rest = &headers[..];
        let mut take = |name: &str| match rest {
            [(first, value), more @ ..] if *first == name => {
                rest = more;
                Some((*value).to_owned())
            }
            _ => None,
        };
        let topic = take("mqtt.topic")?;
        let (qos, retain) = (take("mqtt.qos")?, take("mqtt.retain")?);
        let (client_id, content_type) = (take("mqtt.client_id"), take("mqtt.content_type"));
        let key = record.key.and_then(|key| std::str::from_utf8(key).ok());
        let properties = rest.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        Some(Self {
            rule: rule.to_owned(),
            partition,
            offset: record.offset.0 as i64,
            received_ms: record.timestamp_ms,
            topic,
            client_id: client_id.or_else(|| key.map(str::to_owned))?,
            reason: reason.to_owned(),
            qos: u8::from(qos != "0"),
            retain: retain != "0",
            content_type,
            properties,
            payload: record.value.unwrap_or_default().to_vec(),
        })
    }

    /// The packet that brings it again, at QoS 1 (MQTT 5, section 3.3).
    pub fn packet(&self, packet_id: u16) -> Vec<u8> {
        let mut properties = Vec::new();
        if let Some(content_type) = &self.content_type {
            properties.push(0x03);
            push_text(&mut properties, content_type);
        }
        properties.push(0x09);
        let origin = format!("{} {} {}", self.received_ms, self.qos, self.client_id);
        push_text(&mut properties, &origin);
        for (name, value) in &self.properties {
            properties.push(0x26);
            push_text(&mut properties, name);
            push_text(&mut properties, value);
        }
        let mut body = Vec::with_capacity(self.payload.len() + 256);
        push_text(&mut body, &format!("$tidegate/redrive/{}/{}", self.rule, self.topic));
        body.extend_from_slice(&packet_id.to_be_bytes());
        push_length(&mut body, properties.len());
        body.extend_from_slice(&properties);
        body.extend_from_slice(&self.payload);
        let mut packet = vec![0x32 | u8::from(self.retain)];
        push_length(&mut packet, body.len());
        packet.extend_from_slice(&body);
        packet
    }

    /// Whether topic and origin are longer with what stands before them than MQTT has room for.
    pub fn is_too_long(&self) -> bool {
        let longest = self.rule.len() + self.topic.len().max(self.client_id.len());
        longest + 64 > usize::from(u16::MAX)
    }
}

/// Texts of packets had as many bytes before; see [`DeadLetter::is_too_long`] for the others.
fn push_text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// A variable byte integer (section 1.5.5).
fn push_length(out: &mut Vec<u8>, mut length: usize) {
    while length >= 0x80 {
        out.push(length as u8 | 0x80);
        length >>= 7;
    }
    out.push(length as u8);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::batch::{BatchBuilder, BatchFinisher, RecordParts, for_each_record};
    use crate::record::{Compression, Offset};

    fn letter(headers: &[(&str, &str)]) -> Option<DeadLetter> {
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes())).collect();
        let parts = RecordParts {
            key: Some(b"press 1"),
            value: Some(b"21.5 degrees"),
            timestamp_ms: 17,
            headers: headers.iter().copied(),
        };
        let mut builder = BatchBuilder::default();
        builder.append(Offset(5), &parts, 1 << 20);
        let mut found = None;
        builder.drain(|batch, _| {
            let mut out = vec![0; batch.len()];
            BatchFinisher::default().finish(batch, Compression::None, 1, &mut out);
            for_each_record(&out, &mut Vec::new(), |record| {
                found = DeadLetter::read(3, &record);
                true
            })
            .unwrap();
        });
        found
    }

    const MINE: [(&str, &str); 3] =
        [("mqtt.topic", "plant/a"), ("mqtt.qos", "0"), ("mqtt.retain", "1")];
    const RULES: [(&str, &str); 3] =
        [("rule", "hot"), ("position", "a.sql:1:2"), ("reason", "no number")];

    #[test]
    fn a_record_becomes_the_message_that_it_was() {
        // A device may name its properties as the engine does.
        let device =
            [("mqtt.content_type", "text/plain"), ("rule", "theirs"), ("a", "1"), ("a", "2")];
        let letter = letter(&[&MINE[..], &device, &RULES].concat()).unwrap();
        assert_eq!((&*letter.rule, letter.partition, letter.offset), ("hot", 3, 5));
        assert_eq!((&*letter.client_id, &*letter.reason), ("press 1", "no number"));
        let expected = [
            b"\x33\x67\x00\x1d$tidegate/redrive/hot/plant/a\x00\x07\x39".as_slice(),
            b"\x03\x00\x0atext/plain\x09\x00\x0c17 0 press 1\x26\x00\x04rule\x00\x06theirs",
            b"\x26\x00\x01a\x00\x011\x26\x00\x01a\x00\x01221.5 degrees",
        ];
        assert_eq!(letter.packet(7), expected.concat());
    }

    #[test]
    fn who_sent_it_stands_in_the_key_or_in_a_header() {
        let header = [("mqtt.client_id", "press 2")];
        let found = letter(&[&MINE[..], &header, &RULES].concat()).unwrap();
        assert_eq!((&*found.client_id, found.properties.len()), ("press 2", 0));
    }

    #[test]
    fn what_is_no_dead_letter_is_left_alone() {
        assert_eq!(letter(&MINE), None);
        assert_eq!(letter(&RULES), None);
        assert_eq!(letter(&RULES[..2]), None);
    }
}
