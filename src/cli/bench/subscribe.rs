//! MQTT subscribers beside the load: how long from a message's send to whoever subscribed to it.
//!
//! In: payloads that carry a tag and the time that their latency counts from, as PUBLISH packets of
//! the broker. Out: latencies until the packet has been taken from the socket. They live on the
//! generator's threads, in its ring, so that nobody has to be woken to see a message; with QoS 1
//! each is acknowledged at the end of the turn. The invariant: every subscription was granted before
//! the first message is sent. A slow subscriber is a thread of its own that mostly sleeps.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use super::BenchError;
use super::connecting::CONNECT_TIMEOUT;
use super::consume::origin_ns;
use super::load::{BUFFER_GROUP, Load};
use super::measure::Measurement;
use super::plan::{Plan, Scenario};
use super::report::SlowReport;
use super::wire::{self, Malformed, Reassembly, Version, packet};
use crate::driver::socket_ring::{Completion, SlotId, SocketRing};

/// Marks the completions of subscribers.
pub const SUBSCRIBER_BIT: u64 = 1 << 33;
/// Marks the completions of what they send.
const PUBACKS_BIT: u64 = 1 << 34;
/// Room for acknowledgements, to begin with.
const PUBACKS_BYTES: usize = 4096;

/// A slow subscriber takes so much...
const SLOW_BYTES: usize = 4096;
/// ... and rests so long.
pub const SLOW_REST: Duration = Duration::from_millis(100);

/// The subscribers of one generator thread.
pub struct Subscribers {
    all: Vec<Subscriber>,
    /// Those with acknowledgements to send.
    listed: Vec<u32>,
    tag: u64,
    version: Version,
    one_to_one: bool,
    pub received: Measurement,
    pub lost: u32,
}

struct Subscriber {
    socket: TcpStream,
    reassembly: Reassembly,
    /// PUBACKs that wait for the slot.
    pubacks: Vec<u8>,
    slot: SlotId,
    sending: bool,
    listed: bool,
    lost: bool,
}

impl Subscribers {
    /// None yet. What they receive is counted as the load's acknowledgements are.
    pub fn new(plan: &Plan, tag: u64, received: Measurement) -> Self {
        Self {
            all: Vec::new(),
            listed: Vec::new(),
            tag,
            version: plan.version,
            one_to_one: plan.scenario == Scenario::OneToOne,
            received,
            lost: 0,
        }
    }

    /// A message of the schedule is due: each of its subscribers here shall see it.
    #[inline]
    pub fn message_due(&mut self, intended_ns: u64, own: bool) {
        let count = match self.one_to_one {
            true => u64::from(own),
            false => self.all.len() as u64,
        };
        if count > 0 {
            self.received.messages_due(intended_ns, count);
        }
    }

    #[inline]
    fn completed(&mut self, ring: &mut SocketRing, completion: Completion, now_ns: u64) {
        let index = completion.user_data as u32;
        let one = &mut self.all[index as usize];
        if completion.user_data & PUBACKS_BIT != 0 {
            one.sending = false;
            if completion.result.is_err() {
                self.lose(index);
            }
        } else {
            let mut alive = match completion.result {
                Ok(len) => len > 0,
                Err(errno) => errno == libc::ENOBUFS,
            };
            if let (Some(buffer), Ok(len)) = (completion.buffer, completion.result) {
                let (tag, version) = (self.tag, self.version);
                let received = &mut self.received;
                let took = one.reassembly.feed(ring.buffer(buffer, len), |first, body| {
                    take(tag, version, first, body, &mut one.pubacks, |origin_ns| {
                        received.acknowledged(origin_ns, now_ns);
                    })
                });
                alive &= took.is_ok();
                ring.recycle(buffer);
            }
            if !alive {
                self.lose(index);
            } else if !completion.more {
                let fd = one.socket.as_raw_fd();
                ring.recv_multishot(fd, BUFFER_GROUP, SUBSCRIBER_BIT | u64::from(index));
            }
        }
        self.list(index);
    }

    #[inline]
    fn list(&mut self, index: u32) {
        let one = &mut self.all[index as usize];
        if !one.pubacks.is_empty() && !one.sending && !one.listed && !one.lost {
            one.listed = true;
            self.listed.push(index);
        }
    }

    #[inline]
    fn acknowledge(&mut self, ring: &mut SocketRing) {
        for index in self.listed.drain(..) {
            let one = &mut self.all[index as usize];
            one.listed = false;
            let Some(out) = ring.slot_mut(one.slot) else { continue };
            std::mem::swap(out, &mut one.pubacks);
            one.pubacks.clear();
            one.sending = true;
            let user_data = SUBSCRIBER_BIT | PUBACKS_BIT | u64::from(index);
            ring.send_slot(one.socket.as_raw_fd(), one.slot, user_data);
        }
    }

    #[cold]
    fn lose(&mut self, index: u32) {
        let one = &mut self.all[index as usize];
        self.lost += u32::from(!one.lost);
        one.lost = true;
    }
}

/// Takes one packet: tells the origin of a message that has the tag, and adds its acknowledgement.
#[inline]
fn take(
    tag: u64,
    version: Version,
    first: u8,
    body: &[u8],
    pubacks: &mut Vec<u8>,
    origin: impl FnOnce(u64),
) -> Result<(), Malformed> {
    if first & 0xF0 != packet::PUBLISH {
        return Err(Malformed);
    }
    let (packet_id, payload) = wire::publication(version, first, body)?;
    if let Some([high, low]) = packet_id {
        pubacks.extend_from_slice(&[packet::PUBACK, 2, high, low]);
    }
    if let Some(origin_ns) = origin_ns(payload, tag) {
        origin(origin_ns);
    }
    Ok(())
}

impl Load<'_> {
    /// Opens this thread's subscribers, one after the other, and waits until each is granted what
    /// it subscribes to.
    pub fn subscribe(&mut self) -> Result<(), BenchError> {
        let Some(subscribers) = &mut self.subscribers else { return Ok(()) };
        for index in 0..self.share.count(self.plan.subscribers) {
            let socket = open(self.plan, self.share.global(index))?;
            self.ring.recv_multishot(
                socket.as_raw_fd(),
                BUFFER_GROUP,
                SUBSCRIBER_BIT | u64::from(index),
            );
            subscribers.all.push(Subscriber {
                socket,
                reassembly: Reassembly::with_capacity(4096),
                pubacks: Vec::with_capacity(PUBACKS_BYTES),
                slot: self.ring.add_send_slot(PUBACKS_BYTES),
                sending: false,
                listed: false,
                lost: false,
            });
        }
        Ok(())
    }

    /// A completion of a subscriber.
    #[inline]
    pub fn subscriber_completed(&mut self, completion: Completion, now_ns: u64) {
        if let Some(subscribers) = &mut self.subscribers {
            subscribers.completed(&mut self.ring, completion, now_ns);
        }
    }

    /// One send a subscriber for all its acknowledgements of this turn.
    #[inline]
    pub fn send_pubacks(&mut self) {
        if let Some(subscribers) = &mut self.subscribers {
            subscribers.acknowledge(&mut self.ring);
        }
    }
}

impl Drop for Subscribers {
    /// Says goodbye, as the publishers do.
    fn drop(&mut self) {
        for one in self.all.iter_mut().filter(|one| !one.lost && !one.sending) {
            let _ = one.socket.set_nonblocking(true);
            let _ = one.socket.write_all(&[packet::DISCONNECT, 0]);
        }
    }
}

/// Connects and subscribes.
fn open(plan: &Plan, subscriber: u32) -> Result<TcpStream, BenchError> {
    let client_id = format!("{}subscriber-{subscriber}", plan.client_prefix);
    subscribed(plan, &client_id, &plan.filter(subscriber))
}

fn subscribed(plan: &Plan, client_id: &str, filter: &str) -> Result<TcpStream, BenchError> {
    let unreachable = |error| BenchError::Unreachable(plan.address, error);
    let mut socket =
        TcpStream::connect_timeout(&plan.address, CONNECT_TIMEOUT).map_err(unreachable)?;
    let mut exchange = || -> io::Result<Result<(), BenchError>> {
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(CONNECT_TIMEOUT))?;
        socket.write_all(&wire::connect(plan.version, client_id, plan.keep_alive_s()))?;
        let (first, body) = read_packet(&mut socket)?;
        let reply = wire::connect_reply(plan.version, &body).map_err(malformed)?;
        if first != packet::CONNACK || reply.code != 0 {
            return Ok(Err(BenchError::Refused(reply.code)));
        }
        socket.write_all(&wire::subscribe(plan.version, filter, plan.qos))?;
        loop {
            // What was retained may come first.
            let (first, body) = read_packet(&mut socket)?;
            if first == packet::SUBACK {
                let code = wire::subscribe_reply(plan.version, &body).map_err(malformed)?;
                let refused = || BenchError::SubscriptionRefused(filter.to_owned(), code);
                return Ok(if code >= 0x80 { Err(refused()) } else { Ok(()) });
            }
        }
    };
    exchange().map_err(|error| BenchError::Subscriber(filter.to_owned(), error))??;
    Ok(socket)
}

fn malformed(error: Malformed) -> io::Error {
    io::Error::other(error)
}

/// One packet and not a byte more: first byte and body.
fn read_packet(socket: &mut TcpStream) -> io::Result<(u8, Vec<u8>)> {
    let mut packet = None;
    let mut reassembly = Reassembly::default();
    while packet.is_none() {
        let mut byte = [0];
        socket.read_exact(&mut byte)?;
        let each = |first, body: &[u8]| {
            packet = Some((first, body.to_vec()));
            Ok(())
        };
        reassembly.feed(&byte, each).map_err(malformed)?;
    }
    packet.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
}

/// A subscriber to everything that takes 4 KiB and rests for 100 ms, over and over.
#[derive(Debug)]
pub struct Slow {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<SlowReport>,
}

impl Slow {
    /// Subscribes, and reads from now on.
    ///
    /// # Errors
    /// When it cannot connect, or the broker refuses.
    pub fn start(plan: &Plan) -> Result<Self, BenchError> {
        let client_id = format!("{}slow", plan.client_prefix);
        let socket = subscribed(plan, &client_id, &plan.filter(0))?;
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, version) = (Arc::clone(&stop), plan.version);
        let thread = std::thread::spawn(move || read_slowly(socket, version, &stopped));
        Ok(Self { stop, thread })
    }

    /// Ends it: what it has seen.
    pub fn finish(self) -> SlowReport {
        // Relaxed: the flag carries nothing else.
        self.stop.store(true, Ordering::Relaxed);
        let joined = self.thread.join();
        joined.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }
}

fn read_slowly(mut socket: TcpStream, version: Version, stop: &AtomicBool) -> SlowReport {
    let mut seen = SlowReport::of_subscriber();
    let mut reassembly = Reassembly::with_capacity(SLOW_BYTES);
    let (mut bytes, mut pubacks) = ([0; SLOW_BYTES], Vec::new());
    let _ = socket.set_read_timeout(Some(SLOW_REST));
    while !stop.load(Ordering::Relaxed) {
        match socket.read(&mut bytes) {
            Ok(len) if len > 0 => {
                let took = reassembly.feed(&bytes[..len], |first, body| {
                    seen.messages += 1;
                    take(0, version, first, body, &mut pubacks, |_| ())
                });
                seen.closed_by_broker = took.is_err() || socket.write_all(&pubacks).is_err();
                pubacks.clear();
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => seen.closed_by_broker = true,
        }
        if seen.closed_by_broker {
            return seen;
        }
        std::thread::sleep(SLOW_REST);
    }
    seen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_with_the_tag_tells_its_origin_and_is_acknowledged() {
        let mut payload = [0; 20];
        super::super::consume::stamp(&mut payload, 9, 77);
        let (mut pubacks, mut origins) = (Vec::new(), Vec::new());
        let mut each = |tag: u64, first: u8, head: &[u8]| {
            let body = [head, payload.as_slice()].concat();
            take(tag, Version::V311, first, &body, &mut pubacks, |origin| origins.push(origin))
        };
        assert_eq!(each(9, 0x32, b"\x00\x01t\x01\x02"), Ok(()));
        assert_eq!(each(9, 0x30, b"\x00\x01t"), Ok(()));
        assert_eq!(each(8, 0x30, b"\x00\x01t"), Ok(()));
        assert_eq!(each(9, packet::PINGRESP, b""), Err(Malformed));
        assert_eq!((pubacks.as_slice(), origins), (b"\x40\x02\x01\x02".as_slice(), vec![77, 77]));
    }
}
