//! The null sink: an MQTT server that acknowledges and forgets.
//!
//! In: connections. Out: CONNACK, PUBACK, PINGRESP, and nothing else happens. It shows what the
//! load generator and the kernel's TCP can do at most, and what a message costs at least. Runs on
//! the calling thread, on a socket ring like the engine's. Absent: sessions, durability, QoS 2,
//! limits; it trusts its publishers and is for measurements only.

use std::io;
use std::net::TcpListener;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::wire::{Malformed, Reassembly, Version, packet};
use crate::driver::socket_ring::{Completion, Options, SlotId, SocketRing, Wait, set_nodelay};

const BUFFER_GROUP: u16 = 0;
const ACCEPT: u64 = u32::MAX as u64;
const CANCEL: u64 = ACCEPT - 1;
const SEND_BIT: u64 = 1 << 32;
const CLOSE_BIT: u64 = 1 << 33;

/// Serves until `stop` (looked at ten times a second). Returns how many messages it acknowledged.
///
/// # Errors
/// When the ring cannot be made or fails.
pub fn serve(listener: &TcpListener, stop: &AtomicBool) -> io::Result<u64> {
    // Inherited by what is accepted.
    set_nodelay(listener.as_raw_fd())?;
    let mut ring = SocketRing::new(Options { entries: 4096, cq_entries: 16384 })?;
    ring.add_buffers(BUFFER_GROUP, 256, 16 << 10)?;
    ring.accept_multishot(listener.as_raw_fd(), ACCEPT);
    let mut sink = NullSink { ring, clients: Vec::new(), free: vec![], listed: vec![], count: 0 };
    // Relaxed: the flag carries nothing else.
    while !stop.load(Ordering::Relaxed) {
        let timeout = Some(Duration::from_millis(100));
        sink.ring.enter(Wait::For { count: 1, timeout })?;
        while let Some(completion) = sink.ring.next_completion() {
            sink.completed(listener.as_raw_fd(), completion);
        }
        sink.answer();
    }
    Ok(sink.count)
}

struct NullSink {
    ring: SocketRing,
    clients: Vec<Client>,
    /// Clients whose place can be taken.
    free: Vec<usize>,
    /// Clients with answers to send.
    listed: Vec<usize>,
    count: u64,
}

struct Client {
    fd: RawFd,
    version: Version,
    reassembly: Reassembly,
    /// Answers that wait for the slot.
    answers: Vec<u8>,
    slot: SlotId,
    sending: bool,
    receiving: bool,
    listed: bool,
}

impl NullSink {
    #[inline]
    fn completed(&mut self, listener: RawFd, completion: Completion) {
        let index = completion.user_data as u32 as usize;
        if completion.user_data == ACCEPT {
            if let Ok(fd) = completion.result {
                self.accepted(fd.cast_signed());
            }
            if !completion.more {
                self.ring.accept_multishot(listener, ACCEPT);
            }
        } else if completion.user_data == CANCEL {
            // The receive's own completion is what counts.
        } else if completion.user_data & CLOSE_BIT != 0 {
            self.free.push(index);
        } else if completion.user_data & SEND_BIT != 0 {
            self.clients[index].sending = false;
            self.list_or_close(index);
        } else {
            self.received(index, completion);
        }
    }

    fn accepted(&mut self, fd: RawFd) {
        let index = self.free.pop().unwrap_or(self.clients.len());
        if index == self.clients.len() {
            self.clients.push(Client {
                fd,
                version: Version::V311,
                reassembly: Reassembly::with_capacity(4096),
                answers: Vec::with_capacity(4096),
                slot: self.ring.add_send_slot(4096),
                sending: false,
                receiving: true,
                listed: false,
            });
        } else {
            let client = &mut self.clients[index];
            client.fd = fd;
            client.reassembly = Reassembly::with_capacity(4096);
            client.answers.clear();
            client.receiving = true;
        }
        self.ring.recv_multishot(fd, BUFFER_GROUP, index as u64);
    }

    #[inline]
    fn received(&mut self, index: usize, completion: Completion) {
        let client = &mut self.clients[index];
        let mut alive = match completion.result {
            Ok(len) => len > 0,
            Err(errno) => errno == libc::ENOBUFS,
        };
        if let (Some(buffer), Ok(len)) = (completion.buffer, completion.result) {
            let Client { reassembly, answers, version, .. } = client;
            let bytes = self.ring.buffer(buffer, len);
            let count = &mut self.count;
            let answered = reassembly.feed(bytes, |first, body| {
                *count += u64::from(first & 0xF0 == packet::PUBLISH);
                answer(version, answers, first, body)
            });
            self.ring.recycle(buffer);
            alive &= answered.is_ok();
        }
        if alive && !completion.more {
            self.ring.recv_multishot(client.fd, BUFFER_GROUP, index as u64);
        } else if !alive && completion.more {
            // A packet that cannot be: end the stream, the receive's last completion follows.
            self.ring.cancel(index as u64, CANCEL);
        } else if !alive {
            client.receiving = false;
        }
        self.list_or_close(index);
    }

    #[inline]
    fn list_or_close(&mut self, index: usize) {
        let client = &mut self.clients[index];
        if !client.receiving && !client.sending {
            if client.fd >= 0 {
                self.ring.close(client.fd, CLOSE_BIT | index as u64);
                client.fd = -1;
            }
        } else if !client.answers.is_empty() && !client.sending && !client.listed {
            client.listed = true;
            self.listed.push(index);
        }
    }

    /// One send a client for all its answers of this turn.
    #[inline]
    fn answer(&mut self) {
        for index in self.listed.drain(..) {
            let client = &mut self.clients[index];
            client.listed = false;
            if client.sending || !client.receiving || client.answers.is_empty() {
                continue;
            }
            if let Some(bytes) = self.ring.slot_mut(client.slot) {
                std::mem::swap(bytes, &mut client.answers);
                client.answers.clear();
                client.sending = true;
                self.ring.send_slot(client.fd, client.slot, SEND_BIT | index as u64);
            }
        }
    }
}

#[inline]
fn answer(
    version: &mut Version,
    answers: &mut Vec<u8>,
    first: u8,
    body: &[u8],
) -> Result<(), Malformed> {
    match first & 0xF0 {
        packet::PUBLISH if first & 0x06 == 0x02 => {
            let topic_bytes = body.first_chunk().ok_or(Malformed)?;
            let at = 2 + usize::from(u16::from_be_bytes(*topic_bytes));
            let id = body.get(at..at + 2).ok_or(Malformed)?;
            answers.extend_from_slice(&[packet::PUBACK, 2, id[0], id[1]]);
        }
        packet::PUBLISH if first & 0x06 == 0 => {}
        packet::CONNECT => {
            // Two bytes of length, "MQTT", the level.
            *version = if body.get(6) == Some(&5) { Version::V5 } else { Version::V311 };
            let reply: &[u8] = match version {
                Version::V311 => &[packet::CONNACK, 2, 0, 0],
                Version::V5 => &[packet::CONNACK, 3, 0, 0, 0],
            };
            answers.extend_from_slice(reply);
        }
        packet::PINGREQ => answers.extend_from_slice(&[packet::PINGRESP, 0]),
        packet::DISCONNECT => {}
        _ => return Err(Malformed),
    }
    Ok(())
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{SocketAddr, TcpStream};
    use std::sync::Arc;
    use std::thread::JoinHandle;

    /// A null sink on a thread of its own.
    pub struct Sink {
        pub address: SocketAddr,
        stop: Arc<AtomicBool>,
        thread: Option<JoinHandle<u64>>,
    }

    impl Sink {
        pub fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").unwrap();
            let address = listener.local_addr().unwrap();
            let stop = Arc::new(AtomicBool::new(false));
            let seen = Arc::clone(&stop);
            let thread = std::thread::spawn(move || serve(&listener, &seen).unwrap());
            Self { address, stop, thread: Some(thread) }
        }

        /// How many messages it acknowledged.
        pub fn stop(mut self) -> u64 {
            self.stop.store(true, Ordering::Relaxed);
            self.thread.take().unwrap().join().unwrap()
        }
    }

    impl Drop for Sink {
        fn drop(&mut self) {
            self.stop.store(true, Ordering::Relaxed);
        }
    }

    fn exchange(input: &[u8], expected: &[u8]) {
        let sink = Sink::start();
        let mut client = TcpStream::connect(sink.address).unwrap();
        client.write_all(input).unwrap();
        let mut got = vec![0; expected.len()];
        client.read_exact(&mut got).unwrap();
        assert_eq!(got, expected);
    }

    #[test]
    fn golden_answers() {
        exchange(b"\x10\x0e\x00\x04MQTT\x04\x02\x00\x00\x00\x02c1", b"\x20\x02\x00\x00");
        exchange(
            b"\x10\x0f\x00\x04MQTT\x05\x02\x00\x00\x00\x00\x02c1\xc0\x00",
            b"\x20\x03\x00\x00\x00\xd0\x00",
        );
        exchange(b"\x32\x08\x00\x03a/b\x01\x02x\x30\x03\x00\x01a", b"");
        exchange(b"\x32\x08\x00\x03a/b\x01\x02x\xc0\x00", b"\x40\x02\x01\x02\xd0\x00");
    }

    #[test]
    fn what_is_not_mqtt_ends_the_connection() {
        let sink = Sink::start();
        let mut client = TcpStream::connect(sink.address).unwrap();
        client.write_all(b"\xf0\x00").unwrap();
        assert_eq!(client.read(&mut [0; 8]).unwrap_or(0), 0);
    }
}
