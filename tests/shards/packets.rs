//! What devices send, and how what they receive is told apart.

/// What a device publishes.
#[derive(Debug, Clone, Default)]
pub struct Contents {
    pub topic: String,
    pub qos: u8,
    pub retain: bool,
    pub content_type: Option<String>,
    pub properties: Vec<(String, String)>,
}

fn text(out: &mut Vec<u8>, text: &str) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn varint(out: &mut Vec<u8>, mut rest: usize) {
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// A packet whose body begins with `head` and ends with `tail`.
fn packet(first: u8, head: &[u8], tail: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(5 + head.len() + tail.len());
    out.push(first);
    varint(&mut out, head.len() + tail.len());
    out.extend_from_slice(head);
    out.extend_from_slice(tail);
    out
}

/// A CONNECT without keep alive; `version` is 4 or 5.
pub fn connect(version: u8, client_id: &str) -> Vec<u8> {
    let mut body = Vec::new();
    text(&mut body, "MQTT");
    body.extend_from_slice(&[version, 2, 0, 0]);
    if version == 5 {
        body.push(0);
    }
    text(&mut body, client_id);
    packet(0x10, &body, &[])
}

pub const PINGREQ: [u8; 2] = [0xC0, 0];
pub const DISCONNECT: [u8; 2] = [0xE0, 0];

/// A PUBLISH but for its payload. In MQTT 5 with a topic alias, whose topic may have been said
/// before.
pub fn publish_head(
    version: u8,
    contents: &Contents,
    packet_id: u16,
    alias: Option<(u8, bool)>,
) -> Vec<u8> {
    let mut head = Vec::new();
    let said = alias.is_some_and(|(_, said)| said);
    text(&mut head, if said { "" } else { &contents.topic });
    if contents.qos > 0 {
        head.extend_from_slice(&packet_id.to_be_bytes());
    }
    if version == 5 {
        let mut properties = Vec::new();
        for (at, (name, value)) in contents.properties.iter().enumerate() {
            // Other properties may stand between those of the user.
            if at == 1 {
                put_others(&mut properties, contents, alias);
            }
            properties.push(0x26);
            text(&mut properties, name);
            text(&mut properties, value);
        }
        if contents.properties.len() < 2 {
            put_others(&mut properties, contents, alias);
        }
        varint(&mut head, properties.len());
        head.extend_from_slice(&properties);
    }
    head
}

fn put_others(out: &mut Vec<u8>, contents: &Contents, alias: Option<(u8, bool)>) {
    if let Some(content_type) = &contents.content_type {
        out.push(0x03);
        text(out, content_type);
    }
    if let Some((alias, _)) = alias {
        out.extend_from_slice(&[0x23, 0, alias]);
    }
}

pub fn publish(contents: &Contents, again: bool, head: &[u8], payload: &[u8]) -> Vec<u8> {
    let again = again && contents.qos > 0;
    let first = 0x30 | u8::from(again) << 3 | contents.qos << 1 | u8::from(contents.retain);
    packet(first, head, payload)
}

/// The largest payload behind `head_bytes` in a packet of `packet_bytes_max`.
pub fn payload_bytes_max(head_bytes: usize, packet_bytes_max: usize) -> usize {
    let size = |payload: usize| {
        let mut length = Vec::new();
        varint(&mut length, head_bytes + payload);
        1 + length.len() + head_bytes + payload
    };
    let mut payload = packet_bytes_max.saturating_sub(head_bytes);
    while payload > 0 && size(payload) > packet_bytes_max {
        payload -= 1;
    }
    payload
}

/// What a server says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Whether it accepts.
    Connack(bool),
    /// Which message, and whether a stream wanted it.
    Puback(u16, bool),
    Pingresp,
    Disconnect,
}

/// Takes the first answer from the front of `input`, if it is there as a whole.
pub fn take_answer(input: &mut Vec<u8>) -> Option<Answer> {
    let (&first, &length) = (input.first()?, input.get(1)?);
    assert!(length < 0x80, "answers are short");
    let body = input.get(2..2 + usize::from(length))?;
    let answer = match first {
        0x20 => Answer::Connack(body[1] == 0),
        0x40 => Answer::Puback(u16::from_be_bytes([body[0], body[1]]), body.get(2) != Some(&0x10)),
        0xD0 => Answer::Pingresp,
        0xE0 => Answer::Disconnect,
        _ => panic!("no answer of a server: {first:#x}"),
    };
    input.drain(..2 + usize::from(length));
    Some(answer)
}
