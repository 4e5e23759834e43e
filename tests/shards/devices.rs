//! Devices and their connections, as TCP would carry them.

use std::collections::{HashMap, VecDeque};

use crate::ledger::{Ledger, NUMBER_BYTES};
use crate::packets::{self, Answer, Contents};
use crate::records;
use crate::setup::{Place, Setup};

pub struct Device {
    pub client_id: String,
    /// 4 or 5.
    pub version: u8,
    /// The newest connection.
    pub link: Option<usize>,
    sequence: u32,
    packet_id: u16,
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It did not.
    Open,
    /// The device had said everything whole.
    Whole,
    /// In the middle of a packet, by an error, or because another connection took over.
    Broken,
    /// The server stops.
    Stopped,
}

/// One connection.
pub struct Link {
    pub device: usize,
    version: u8,
    pub end: End,
    pub to_server: Vec<u8>,
    /// Bytes of `to_server` that the server has received.
    pub received: usize,
    /// The device ends its side behind `to_server`.
    pub ended: bool,
    /// A shard has accepted it.
    pub accepted: bool,
    /// The network holds back what either side sends.
    pub stalled: bool,
    /// The server has closed.
    pub closed: bool,
    from_server: Vec<u8>,
    connected: bool,
    /// Packet identifier and message, in the order of their sending.
    pub unacknowledged: VecDeque<(u16, usize)>,
    pub sent: Vec<usize>,
    aliases: HashMap<u8, String>,
    pub pings: usize,
}

/// A message that a device is to publish.
#[derive(Debug, Clone)]
pub struct Wish {
    pub contents: Contents,
    pub size: Size,
    pub alias: Option<u8>,
}

/// How large a payload is to be; it is cut to what the largest packet takes.
#[derive(Debug, Clone, Copy)]
pub enum Size {
    Bytes(usize),
    /// Of the largest packet.
    Sixteenths(usize),
}

impl Link {
    pub fn new(device: &Device, index: usize) -> Self {
        Self {
            device: index,
            version: device.version,
            end: End::Open,
            to_server: packets::connect(device.version, &device.client_id),
            received: 0,
            ended: false,
            accepted: false,
            stalled: false,
            closed: false,
            from_server: Vec::new(),
            connected: false,
            unacknowledged: VecDeque::new(),
            sent: Vec::new(),
            aliases: HashMap::new(),
            pings: 0,
        }
    }

    /// Bytes that the server has not received.
    pub fn unread(&self) -> &[u8] {
        &self.to_server[self.received..]
    }

    /// Whether the server would receive something, be it the end.
    pub fn is_readable(&self) -> bool {
        !self.stalled && (self.ended || self.received < self.to_server.len())
    }

    /// The device can send.
    pub fn is_writable(&self) -> bool {
        !self.ended && !self.closed && self.end == End::Open
    }

    /// The device ends its side.
    pub fn finish(&mut self, end: End) {
        self.ended = true;
        if self.end == End::Open {
            self.end = end;
        }
    }

    /// Takes what the server sends.
    pub fn receive(
        &mut self,
        bytes: &[u8],
        ledger: &mut Ledger,
        stopping: bool,
        end_of: impl Fn(Place) -> u64,
    ) {
        self.from_server.extend_from_slice(bytes);
        while let Some(answer) = packets::take_answer(&mut self.from_server) {
            match answer {
                Answer::Connack(accepted) => {
                    assert!(!self.connected, "connected twice");
                    assert!(accepted || stopping, "a device is refused");
                    self.connected = accepted;
                    if !accepted {
                        self.finish(End::Stopped);
                    }
                }
                Answer::Puback(packet_id, matched) => {
                    let Some((expected, number)) = self.unacknowledged.pop_front() else {
                        panic!("PUBACK {packet_id}, and nothing waits");
                    };
                    assert_eq!(packet_id, expected, "acknowledgements in order");
                    // MQTT 3.1.1 cannot tell.
                    let wanted = !ledger.messages[number].places.is_empty() || self.version == 4;
                    assert_eq!(matched, wanted, "whether a stream wants {number}");
                    ledger.acknowledge(number, &end_of);
                }
                Answer::Pingresp => {
                    assert!(self.pings > 0, "nobody asked");
                    self.pings -= 1;
                }
                Answer::Disconnect => {
                    let expected = self.end != End::Open || stopping;
                    assert!(expected, "the server lets go of a device");
                    self.finish(End::Stopped);
                }
            }
        }
    }

    /// The server has ended its side: the device does likewise.
    pub fn on_server_end(&mut self, stopping: bool) {
        assert!(self.end != End::Open || stopping, "the server lets go of a device");
        self.finish(End::Stopped);
    }
}

impl Device {
    pub fn new(index: usize, version: u8) -> Self {
        Self {
            client_id: format!("device-{index}"),
            version,
            link: None,
            sequence: 0,
            packet_id: 0,
        }
    }

    /// Publishes something new on `link`, if the window has room for it.
    pub fn publish(
        &mut self,
        setup: &Setup,
        ledger: &mut Ledger,
        (index, link): (usize, &mut Link),
        wish: &Wish,
    ) {
        self.sequence += 1;
        let mut contents = wish.contents.clone();
        if self.version == 4 {
            contents.content_type = None;
            contents.properties.clear();
        }
        let number = ledger.next_number();
        let bytes = match wish.size {
            Size::Bytes(bytes) => bytes,
            Size::Sixteenths(parts) => setup.packet_bytes_max / 16 * parts,
        };
        if bytes < NUMBER_BYTES {
            // The payload has no room for the number.
            contents.topic = format!("{}/{number}", contents.topic);
        }
        self.put(
            setup,
            ledger,
            (index, link),
            (self.sequence, false),
            contents,
            (bytes, wish.alias),
        );
    }

    /// Sends again what was not acknowledged on `old`, on the connection that came after it.
    pub fn publish_again(
        &mut self,
        setup: &Setup,
        ledger: &mut Ledger,
        old: &[usize],
        (index, link): (usize, &mut Link),
    ) {
        for &number in old {
            let message = &ledger.messages[number];
            if message.payload.len() < NUMBER_BYTES {
                // The same topic could not carry the number of the second transmission.
                continue;
            }
            let (sequence, contents) = (message.sequence, message.contents.clone());
            let payload_bytes = message.payload.len();
            self.put(
                setup,
                ledger,
                (index, link),
                (sequence, true),
                contents,
                (payload_bytes, None),
            );
        }
    }

    fn put(
        &mut self,
        setup: &Setup,
        ledger: &mut Ledger,
        (index, link): (usize, &mut Link),
        (sequence, again): (u32, bool),
        mut contents: Contents,
        (bytes, alias): (usize, Option<u8>),
    ) {
        let window = usize::from(setup.receive_maximum);
        if self.version == 5 && link.unacknowledged.len() >= window {
            contents.qos = 0;
        }
        let alias = alias.filter(|_| self.version == 5).map(|alias| {
            let said = link.aliases.insert(alias, contents.topic.clone());
            (alias, said.as_ref() == Some(&contents.topic))
        });
        if contents.qos > 0 {
            self.packet_id = self.packet_id % 60_000 + 1;
        }
        let number = ledger.next_number();
        let head = packets::publish_head(self.version, &contents, self.packet_id, alias);
        let most = packets::payload_bytes_max(head.len(), setup.packet_bytes_max);
        let payload = records::payload(number, bytes.min(most));
        let packet = packets::publish(&contents, again, &head, &payload);
        assert!(packet.len() <= setup.packet_bytes_max);
        link.to_server.extend_from_slice(&packet);
        if contents.qos > 0 {
            link.unacknowledged.push_back((self.packet_id, number));
        }
        link.sent.push(number);
        assert_eq!(ledger.send((link.device, sequence, index), contents, payload), number);
    }
}
