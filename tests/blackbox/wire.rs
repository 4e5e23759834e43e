//! A small MQTT client over a blocking socket: exactly what a test wants on the wire, valid or not.
//!
//! Written from the OASIS specifications (3.1.1 and 5.0) and on purpose not from src/ingest: two
//! readings of one specification find each other's mistakes. Bytes are built by hand, answers come
//! back as `Packet`s. No background thread, no keep-alive pings: a test sends what it wants to.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

pub const CONNACK: u8 = 2;
pub const PUBACK: u8 = 4;
pub const SUBACK: u8 = 9;
pub const PINGRESP: u8 = 13;
pub const DISCONNECT: u8 = 14;

/// A whole PINGREQ.
pub const PINGREQ: [u8; 2] = [0xc0, 0];

/// How long a test waits for an answer before it calls the engine silent.
pub const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V311,
    V5,
}

/// A control packet as it came: the first byte and what the remaining length covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub first: u8,
    pub body: Vec<u8>,
}

impl Packet {
    pub fn kind(&self) -> u8 {
        self.first >> 4
    }

    /// The packet identifier of a PUBACK or SUBACK.
    pub fn id(&self) -> u16 {
        u16::from_be_bytes([self.body[0], self.body[1]])
    }

    /// The reason code of a CONNACK, PUBACK or DISCONNECT; absent means success.
    pub fn reason(&self) -> u8 {
        let at = match self.kind() {
            CONNACK => 1,
            PUBACK => 2,
            _ => 0,
        };
        self.body.get(at).copied().unwrap_or(0)
    }

    /// A property of a version 5 CONNACK, as the bytes of its value.
    pub fn connack_property(&self, wanted: u8) -> Option<Vec<u8>> {
        assert_eq!(self.kind(), CONNACK);
        let (length, used) = variable_length(&self.body[2..])?;
        let mut rest = &self.body[2 + used..2 + used + length];
        while let Some((&id, after)) = rest.split_first() {
            let bytes = property_bytes(id, after);
            if id == wanted {
                return Some(after[..bytes].to_vec());
            }
            rest = &after[bytes..];
        }
        None
    }

    /// A two- or four-byte integer property of a CONNACK.
    pub fn connack_number(&self, wanted: u8) -> Option<u32> {
        let bytes = self.connack_property(wanted)?;
        Some(bytes.iter().fold(0, |number, byte| number << 8 | u32::from(*byte)))
    }

    /// A string property of a CONNACK.
    pub fn connack_text(&self, wanted: u8) -> Option<String> {
        let bytes = self.connack_property(wanted)?;
        Some(String::from_utf8(bytes[2..].to_vec()).expect("a property's text is UTF-8"))
    }
}

/// How many bytes the value of a CONNACK property takes (MQTT 5, 2.2.2.2).
fn property_bytes(id: u8, value: &[u8]) -> usize {
    let text = |at: usize| 2 + usize::from(u16::from_be_bytes([value[at], value[at + 1]]));
    match id {
        0x24 | 0x25 | 0x28 | 0x29 | 0x2a => 1,
        0x13 | 0x21 | 0x22 => 2,
        0x11 | 0x27 => 4,
        0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => text(0),
        0x26 => text(0) + text(text(0)),
        _ => panic!("property {id:#04x} does not belong in a CONNACK"),
    }
}

fn variable_length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    for (i, byte) in bytes.iter().take(4).enumerate() {
        length |= usize::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Some((length, i + 1));
        }
    }
    None
}

pub fn push_length(out: &mut Vec<u8>, mut length: usize) {
    loop {
        let byte = (length & 0x7f) as u8;
        length >>= 7;
        out.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            return;
        }
    }
}

pub fn push_text(out: &mut Vec<u8>, text: &str) {
    out.extend((text.len() as u16).to_be_bytes());
    out.extend(text.as_bytes());
}

/// A whole packet from its first byte and body.
pub fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![first];
    push_length(&mut out, body.len());
    out.extend(body);
    out
}

/// What a CONNECT says. `extra` is appended to the payload (will fields, user name).
#[derive(Debug, Clone)]
pub struct Connect<'a> {
    pub version: Version,
    pub client_id: &'a str,
    pub clean: bool,
    pub keep_alive_s: u16,
    pub flags: u8,
    pub properties: &'a [u8],
    pub extra: &'a [u8],
}

impl<'a> Connect<'a> {
    pub fn new(version: Version, client_id: &'a str) -> Self {
        Self {
            version,
            client_id,
            clean: true,
            keep_alive_s: 60,
            flags: 0,
            properties: &[],
            extra: &[],
        }
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut body = Vec::new();
        push_text(&mut body, "MQTT");
        body.push(if self.version == Version::V5 { 5 } else { 4 });
        body.push(self.flags | if self.clean { 2 } else { 0 });
        body.extend(self.keep_alive_s.to_be_bytes());
        if self.version == Version::V5 {
            push_length(&mut body, self.properties.len());
            body.extend(self.properties);
        }
        push_text(&mut body, self.client_id);
        body.extend(self.extra);
        packet(0x10, &body)
    }
}

/// What a PUBLISH says. QoS 0 has no packet identifier.
#[derive(Debug, Clone)]
pub struct Publish<'a> {
    pub topic: &'a str,
    pub qos: u8,
    pub retain: bool,
    pub id: u16,
    pub properties: &'a [u8],
    pub payload: &'a [u8],
}

impl<'a> Publish<'a> {
    pub fn new(topic: &'a str, id: u16, payload: &'a [u8]) -> Self {
        Self { topic, qos: 1, retain: false, id, properties: &[], payload }
    }

    pub fn bytes(&self, version: Version) -> Vec<u8> {
        let mut body = Vec::with_capacity(self.payload.len() + self.topic.len() + 16);
        push_text(&mut body, self.topic);
        if self.qos > 0 {
            body.extend(self.id.to_be_bytes());
        }
        if version == Version::V5 {
            push_length(&mut body, self.properties.len());
            body.extend(self.properties);
        }
        body.extend(self.payload);
        packet(0x30 | self.qos << 1 | u8::from(self.retain), &body)
    }
}

/// What a look at a connection shows.
#[derive(Debug)]
pub enum Look {
    Packet(Packet),
    /// Nothing whole has come so far.
    Nothing,
    /// The engine closed it, or it broke.
    Ended,
}

/// One connection. Reads are blocking with a deadline; end of stream is an answer, not an error.
#[derive(Debug)]
pub struct Wire {
    pub stream: TcpStream,
    pub version: Version,
    received: Vec<u8>,
}

impl Wire {
    /// A TCP connection that has said nothing yet.
    pub fn open(port: u16, version: Version) -> std::io::Result<Self> {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let stream = TcpStream::connect_timeout(&address, ANSWER_TIMEOUT)?;
        stream.set_nodelay(true)?;
        stream.set_write_timeout(Some(ANSWER_TIMEOUT))?;
        Ok(Self { stream, version, received: Vec::new() })
    }

    /// Opens, sends CONNECT and returns the connection with its CONNACK, which must accept.
    pub fn connect(port: u16, connect: &Connect) -> (Self, Packet) {
        let mut wire = Self::open(port, connect.version).expect("the MQTT port accepts");
        wire.send(&connect.bytes());
        let answer = wire.packet();
        assert_eq!(
            (answer.kind(), answer.reason()),
            (CONNACK, 0),
            "CONNECT was refused: {answer:?}"
        );
        (wire, answer)
    }

    pub fn connect_as(port: u16, version: Version, client_id: &str) -> Self {
        Self::connect(port, &Connect::new(version, client_id)).0
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the connection takes bytes");
    }

    /// Sends to a peer that may close on it: a broken pipe is for the next read to tell.
    pub fn send_unheard(&mut self, bytes: &[u8]) {
        let _ = self.stream.write_all(bytes);
    }

    pub fn publish(&mut self, publish: &Publish) {
        let bytes = publish.bytes(self.version);
        self.send(&bytes);
    }

    /// Publishes at QoS 1 and waits for the PUBACK, whose reason it returns.
    pub fn publish_acknowledged(&mut self, publish: &Publish) -> u8 {
        self.publish(publish);
        let answer = self.packet();
        assert_eq!((answer.kind(), answer.id()), (PUBACK, publish.id), "{answer:?}");
        answer.reason()
    }

    /// The next packet; panics when the engine closes or stays silent.
    pub fn packet(&mut self) -> Packet {
        match self.read(ANSWER_TIMEOUT) {
            Ok(Some(packet)) => packet,
            Ok(None) => panic!("the engine closed the connection where a packet was due"),
            Err(error) => panic!("no packet came: {error}"),
        }
    }

    /// Asserts that the engine ends this connection, and returns the reason of its DISCONNECT
    /// if it sent one (version 5 only).
    pub fn closed(&mut self) -> Option<u8> {
        let mut reason = None;
        loop {
            match self.read(ANSWER_TIMEOUT) {
                Ok(Some(packet)) if packet.kind() == DISCONNECT => reason = Some(packet.reason()),
                Ok(Some(packet)) if packet.kind() == CONNACK => reason = Some(packet.reason()),
                Ok(Some(_)) => {}
                Ok(None) => return reason,
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return reason,
                Err(error) => panic!("the engine did not close the connection: {error}"),
            }
        }
    }

    /// The next packet, or None at the end of the stream. `TimedOut` when nothing came in time.
    pub fn read(&mut self, timeout: Duration) -> std::io::Result<Option<Packet>> {
        let deadline = Instant::now() + timeout;
        loop {
            if let Some(packet) = self.buffered() {
                return Ok(Some(packet));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(None),
                Ok(count) => self.received.extend(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// The next packet if it is there already. For tests that play many devices in one thread.
    pub fn look(&mut self) -> Look {
        if let Some(packet) = self.buffered() {
            return Look::Packet(packet);
        }
        let mut chunk = [0; 16 * 1024];
        self.stream.set_nonblocking(true).expect("a socket that does not block");
        let got = self.stream.read(&mut chunk);
        self.stream.set_nonblocking(false).expect("a socket that blocks");
        match got {
            Ok(0) => Look::Ended,
            Ok(count) => {
                self.received.extend(&chunk[..count]);
                self.buffered().map_or(Look::Nothing, Look::Packet)
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => Look::Nothing,
            Err(error) if error.kind() == ErrorKind::Interrupted => Look::Nothing,
            Err(_) => Look::Ended,
        }
    }

    fn buffered(&mut self) -> Option<Packet> {
        let first = *self.received.first()?;
        let (length, used) = variable_length(&self.received[1..])?;
        let end = 1 + used + length;
        if self.received.len() < end {
            return None;
        }
        let body = self.received[1 + used..end].to_vec();
        self.received.drain(..end);
        Some(Packet { first, body })
    }
}
