//! A record on its way to another shard: where its parts lie in the sender's memory, and what keeps
//! them there.
//!
//! The invariant: what a [`Crossing`] points to is not changed and not freed until its slot has come
//! back. The sender keeps it: a receive buffer or a detached assembly buffer is *pinned*, the client
//! identifier is counted, a topic that only an alias named and what a rule has made are copied.
#![allow(unsafe_code)]

use std::rc::Rc;

use slab::Slab;

use super::message::Message;
use crate::ingest::mqtt::UserProperties;
use crate::record::{PartitionId, StreamId};
use crate::transform::rules::Extras;

/// Memory beside receive buffers that records on their way may keep, in one shard: detached assembly
/// buffers and copies. Each lane has its part; one message more it always takes.
pub const OWNED_BYTES_MAX: usize = 4 << 20;
/// Assembly buffers that are kept to be used again, and the largest of them.
const SPARE_MAX: usize = 16;
const SPARE_BYTES_MAX: usize = 64 << 10;
/// Topic buffers that are kept to be used again, and the largest of them.
const SPARE_TOPICS_MAX: usize = 1024;
const SPARE_TOPIC_BYTES_MAX: usize = 256;
/// Buffers of what rules have made that are kept to be used again, and the largest of them.
const SPARE_MADE_MAX: usize = 256;
const SPARE_MADE_BYTES_MAX: usize = 4096;

/// One record in a ring: the whole slot, 64 bytes, in a cache line of its own.
#[repr(align(64))]
pub struct Crossing {
    payload: *const u8,
    topic: *const u8,
    client_id: *const u8,
    /// Null where there is none.
    content_type: *const u8,
    properties: *const u8,
    payload_bytes: u32,
    properties_bytes: u32,
    topic_bytes: u16,
    client_id_bytes: u16,
    content_type_bytes: u16,
    property_count: u16,
    stream: u16,
    partition: u16,
    /// Behind the payload; 0 for a message of which no rule says anything.
    extras_bytes: u16,
    qos: u8,
    retain: bool,
}

// SAFETY: the receiver only reads what the pointers point to, and only until it gives the slot back;
// until then the sender neither changes nor frees it.
unsafe impl Send for Crossing {}

impl Crossing {
    /// `message` for a partition of `stream`. `None` where a length or number is beyond what a slot
    /// holds, which MQTT's own limits and the configuration rule out.
    pub fn new(message: &Message<'_>, stream: StreamId, partition: PartitionId) -> Option<Self> {
        let (properties, property_count) = message.user_properties.parts();
        let content_type = message.content_type;
        Some(Self {
            payload: message.payload.as_ptr(),
            topic: message.topic.as_ptr(),
            client_id: message.client_id.as_ptr(),
            content_type: content_type.map_or(std::ptr::null(), <[u8]>::as_ptr),
            properties: properties.as_ptr(),
            payload_bytes: message.payload.len().try_into().ok()?,
            properties_bytes: properties.len().try_into().ok()?,
            topic_bytes: message.topic.len().try_into().ok()?,
            client_id_bytes: message.client_id.len().try_into().ok()?,
            content_type_bytes: content_type.map_or(0, <[u8]>::len).try_into().ok()?,
            property_count: property_count.try_into().ok()?,
            stream: stream.0.try_into().ok()?,
            partition: partition.0.try_into().ok()?,
            extras_bytes: message.extras.bytes().len().try_into().ok()?,
            qos: message.qos,
            retain: message.retain,
        })
    }

    /// The payload and the extras behind it lie in a copy of them at `copy`.
    pub fn take_payload_from(&mut self, copy: *const u8) {
        self.payload = copy;
    }

    /// Where the record belongs.
    pub fn place(&self) -> (StreamId, PartitionId) {
        (StreamId(u32::from(self.stream)), PartitionId(u32::from(self.partition)))
    }

    /// The topic lies in a copy of it at `copy`.
    pub fn take_topic_from(&mut self, copy: *const u8) {
        self.topic = copy;
    }

    /// Looks at the message. A receiver has a crossing only by reference, from a slot that it has
    /// not given back.
    pub fn look<R>(&self, look: impl FnOnce(&Message<'_>) -> R) -> R {
        // SAFETY: each pointer and length came from a slice that the sender keeps as it is until the
        // slot is given back, and that needs the lane which `self` borrows from.
        let slice = |at: *const u8, bytes: usize| unsafe { std::slice::from_raw_parts(at, bytes) };
        let content_type = (!self.content_type.is_null())
            .then(|| slice(self.content_type, usize::from(self.content_type_bytes)));
        let properties = slice(self.properties, self.properties_bytes as usize);
        let count = u32::from(self.property_count);
        // With extras there is one copy of both, the payload first (`Lanes::send`).
        let (payload, extras) =
            slice(self.payload, self.payload_bytes as usize + usize::from(self.extras_bytes))
                .split_at(self.payload_bytes as usize);
        look(&Message {
            client_id: slice(self.client_id, usize::from(self.client_id_bytes)),
            topic: slice(self.topic, usize::from(self.topic_bytes)),
            payload,
            qos: self.qos,
            retain: self.retain,
            content_type,
            user_properties: UserProperties::from_parts(properties, count),
            extras: Extras::new(extras),
            is_made: false,
        })
    }
}

/// What a slot that is on its way keeps in place.
pub struct Kept {
    /// The buffer in which the packet lies.
    pub packet: Pin,
    /// This slot is the first of a row that keeps `packet`: bytes of memory that are kept with it,
    /// 0 for a receive buffer.
    pub row: Option<usize>,
    /// A copy of the topic, where the packet does not have it, and its bytes.
    pub topic: Option<(Pin, usize)>,
    /// A copy of what a rule has made, and its bytes.
    pub made: Option<(Pin, usize)>,
    /// The client identifier.
    #[allow(dead_code)] // Held, not read.
    pub client_id: Rc<str>,
}

/// A pinned buffer's number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pin(usize);

/// Where the bytes lie that are being looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    /// In memory that cannot be kept.
    Passing,
    /// In a receive buffer, pinned or not.
    Receive(u16, Option<Pin>),
    /// In an assembly buffer that will be detached when it is pinned.
    Assembly(usize, Option<Pin>),
}

enum Memory {
    Receive(u16),
    Assembly(Vec<u8>),
    Topic(Vec<u8>),
    Made(Vec<u8>),
}

struct Pinned {
    count: usize,
    memory: Memory,
}

/// The buffers that records on their way lie in.
pub struct Pins {
    pinned: Slab<Pinned>,
    source: Source,
    /// Receive buffers, not recycled while they are pinned.
    receive: usize,
    free: Vec<u16>,
    spare: Vec<Vec<u8>>,
    spare_topics: Vec<Vec<u8>>,
    spare_made: Vec<Vec<u8>>,
}

impl Pins {
    pub fn new() -> Self {
        Self {
            pinned: Slab::new(),
            source: Source::Passing,
            receive: 0,
            free: Vec::new(),
            spare: Vec::new(),
            spare_topics: Vec::new(),
            spare_made: Vec::new(),
        }
    }

    /// What is looked at next lies in receive buffer `buffer`.
    pub fn begin_received(&mut self, buffer: u16) {
        self.source = Source::Receive(buffer, None);
    }

    /// Whether the receive buffer was pinned: it comes back by [`Pins::take_free`].
    pub fn end_received(&mut self) -> bool {
        let source = std::mem::replace(&mut self.source, Source::Passing);
        matches!(source, Source::Receive(_, Some(_))) && !mutated!(BufferUsedEarly)
    }

    /// What is looked at next lies in an assembly buffer of `capacity` bytes. Returns what to end
    /// it with.
    pub fn begin_assembled(&mut self, capacity: usize) -> Before {
        Before(std::mem::replace(&mut self.source, Source::Assembly(capacity, None)))
    }

    /// The assembly buffer is over: where it was pinned it is kept here, and its rest from
    /// `consumed` on is returned in another.
    pub fn end_assembled(
        &mut self,
        before: Before,
        mut buffer: Vec<u8>,
        consumed: usize,
    ) -> Vec<u8> {
        let source = std::mem::replace(&mut self.source, before.0);
        let Source::Assembly(_, Some(pin)) = source else {
            buffer.drain(..consumed);
            return buffer;
        };
        let mut rest = Vec::new();
        if consumed < buffer.len() {
            rest = self.spare.pop().unwrap_or_default();
            rest.extend_from_slice(&buffer[consumed..]);
        }
        self.pinned[pin.0].memory = Memory::Assembly(buffer);
        rest
    }

    /// Whether what is looked at cannot be kept in place at all.
    pub fn is_passing(&self) -> bool {
        self.source == Source::Passing
    }

    /// Bytes of the assembly buffer that is looked at; 0 for a receive buffer.
    pub fn assembly_bytes(&self) -> usize {
        match self.source {
            Source::Assembly(capacity, _) => capacity,
            Source::Passing | Source::Receive(..) => 0,
        }
    }

    /// The buffer that is looked at, if it is pinned.
    pub fn current(&self) -> Option<Pin> {
        match self.source {
            Source::Passing => None,
            Source::Receive(_, pin) | Source::Assembly(_, pin) => pin,
        }
    }

    /// Keeps what is looked at once more.
    pub fn pin(&mut self) -> Option<Pin> {
        let memory = match self.source {
            Source::Passing => return None,
            Source::Receive(_, Some(pin)) | Source::Assembly(_, Some(pin)) => {
                self.pinned[pin.0].count += 1;
                return Some(pin);
            }
            Source::Receive(buffer, None) => {
                self.receive += 1;
                Memory::Receive(buffer)
            }
            // The buffer itself comes when it has been looked through.
            Source::Assembly(..) => Memory::Assembly(Vec::new()),
        };
        let pin = Pin(self.pinned.insert(Pinned { count: 1, memory }));
        match &mut self.source {
            Source::Receive(_, current) | Source::Assembly(_, current) => *current = Some(pin),
            Source::Passing => {}
        }
        Some(pin)
    }

    /// Keeps a copy of a topic: where it lies, and its pin.
    pub fn keep_copy(&mut self, bytes: &[u8]) -> (*const u8, Pin) {
        let mut copy = self.spare_topics.pop().unwrap_or_default();
        copy.extend_from_slice(bytes);
        let at = copy.as_ptr();
        (at, Pin(self.pinned.insert(Pinned { count: 1, memory: Memory::Topic(copy) })))
    }

    /// Keeps a copy of what a rule has made, one part behind the other.
    pub fn keep_made(&mut self, parts: [&[u8]; 2]) -> (*const u8, Pin) {
        let mut copy = self.spare_made.pop().unwrap_or_default();
        parts.iter().for_each(|part| copy.extend_from_slice(part));
        let at = copy.as_ptr();
        (at, Pin(self.pinned.insert(Pinned { count: 1, memory: Memory::Made(copy) })))
    }

    /// Lets go of a buffer once.
    pub fn unpin(&mut self, pin: Pin) {
        let pinned = &mut self.pinned[pin.0];
        pinned.count -= 1;
        if pinned.count > 0 {
            return;
        }
        match self.pinned.remove(pin.0).memory {
            Memory::Receive(buffer) => {
                self.receive -= 1;
                self.free.push(buffer);
            }
            Memory::Assembly(buffer) => put_by(&mut self.spare, buffer, SPARE_MAX, SPARE_BYTES_MAX),
            Memory::Made(copy) => {
                put_by(&mut self.spare_made, copy, SPARE_MADE_MAX, SPARE_MADE_BYTES_MAX);
            }
            Memory::Topic(copy) => {
                put_by(&mut self.spare_topics, copy, SPARE_TOPICS_MAX, SPARE_TOPIC_BYTES_MAX);
            }
        }
    }

    /// Receive buffers that nothing refers to any more.
    pub fn take_free(&mut self, into: &mut Vec<u16>) {
        into.append(&mut self.free);
    }

    /// Receive buffers that are pinned.
    pub fn receive_buffers(&self) -> usize {
        self.receive
    }
}

/// Keeps a buffer to be used again, if it is not too large and not one too many.
fn put_by(spare: &mut Vec<Vec<u8>>, mut buffer: Vec<u8>, count_max: usize, bytes_max: usize) {
    if spare.len() < count_max && buffer.capacity() <= bytes_max {
        buffer.clear();
        spare.push(buffer);
    }
}

/// What was looked at before an assembly buffer.
pub struct Before(Source);
