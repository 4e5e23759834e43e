//! The sockets of one shard: what its stations ask for, on the socket ring.
//!
//! In: requests of the shard and completions of the ring. Out: calls of the shard. A socket's number
//! is the shard's connection id; it is closed, and the number used again, only after the last
//! completion of everything that was asked for it. Bytes being sent belong to the socket until their
//! completion.
#![allow(unsafe_code)]

mod moving;
mod socket_options;
mod wake;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::open_connections::OpenConnections;
use super::socket_ring::{self, BufferId, Completion, SocketRing, Wait};
use crate::observe::Station;
use crate::record::ShardId;
use crate::shard::{ConnId, Protocol, Request, Shard};
pub use moving::HandOver;
use socket_options::set_options;
use wake::Wake;

/// Buffer groups of the ring.
const MQTT_BUFFERS: u16 = 1;
const KAFKA_BUFFERS: u16 = 2;
/// Send buffers above this are not kept when they are empty.
const SPARE_BYTES_MAX: usize = 64 << 10;

/// What a shard's sockets are told once.
pub struct Options {
    /// The shard's MQTT listener; the others listen on the same port.
    pub mqtt: OwnedFd,
    /// The shard's Kafka listener.
    pub kafka: OwnedFd,
    /// Bytes of a receive buffer.
    pub buffer_bytes: u32,
    /// Receive buffers for MQTT, a power of two.
    pub mqtt_buffers: u16,
    /// Receive buffers for Kafka, a power of two.
    pub kafka_buffers: u16,
    /// Connections of the whole engine, by protocol.
    pub open: Arc<OpenConnections>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    Nothing,
    Once,
    Many,
}

struct Socket {
    fd: RawFd,
    protocol: Protocol,
    want: Want,
    receiving: bool,
    /// The receive under way is a multishot one.
    multishot: bool,
    /// Being sent; not touched until the completion.
    sending: Vec<u8>,
    is_sending: bool,
    send_again: bool,
    spare: Vec<u8>,
    shut_down: bool,
    closing: bool,
    /// The close is under way.
    closed: bool,
    /// Requests that have not had their last completion.
    pending: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Op {
    AcceptMqtt,
    AcceptKafka,
    Receive,
    Send,
    /// A cancel or a shutdown: nothing but its end matters.
    Other,
    Close,
    Ignored,
    /// The bell was rung.
    Wake,
    /// The ring of the commits has something.
    Committed,
}

const OPS: [Op; 9] = [
    Op::AcceptMqtt,
    Op::AcceptKafka,
    Op::Receive,
    Op::Send,
    Op::Other,
    Op::Close,
    Op::Ignored,
    Op::Wake,
    Op::Committed,
];

fn user_data(op: Op, id: ConnId) -> u64 {
    (op as u64) << 32 | u64::from(id.0)
}

/// The sockets of one shard.
pub struct Sockets {
    ring: SocketRing,
    wake: Option<Wake>,
    /// The ring of the commits is polled.
    polls_commits: bool,
    /// The ring was entered since the last turn.
    entered: bool,
    options: Options,
    sockets: Vec<Option<Socket>>,
    /// Receives to be armed again at the next turn: there were no buffers.
    starved: Vec<ConnId>,
    /// Scratch: receive buffers that come back from other shards.
    free: Vec<u16>,
    /// Connections that go to other shards.
    leaving: Vec<(ShardId, HandOver)>,
    accepting: bool,
    /// Accepts that failed are armed again at this time, by protocol.
    accept_again: [Option<Instant>; 2],
}

impl Sockets {
    /// The ring with its buffers, listening.
    ///
    /// # Errors
    /// Those of [`SocketRing::new`] and [`SocketRing::add_buffers`].
    pub fn new(options: Options) -> io::Result<Self> {
        let sizes = socket_ring::Options { entries: 4096, cq_entries: 16384 };
        let mut ring = SocketRing::new(sizes)?;
        ring.add_buffers(MQTT_BUFFERS, options.mqtt_buffers, options.buffer_bytes)?;
        ring.add_buffers(KAFKA_BUFFERS, options.kafka_buffers, options.buffer_bytes)?;
        Ok(Self {
            ring,
            wake: None,
            polls_commits: false,
            entered: false,
            options,
            sockets: Vec::new(),
            starved: Vec::new(),
            free: Vec::new(),
            leaving: Vec::new(),
            accepting: false,
            accept_again: [None; 2],
        })
    }

    /// Begins to accept.
    pub fn listen(&mut self) {
        self.accepting = true;
        self.accept(Protocol::Mqtt);
        self.accept(Protocol::Kafka);
    }

    fn accept(&mut self, protocol: Protocol) {
        let (fd, op) = match protocol {
            Protocol::Mqtt => (self.options.mqtt.as_raw_fd(), Op::AcceptMqtt),
            Protocol::Kafka => (self.options.kafka.as_raw_fd(), Op::AcceptKafka),
        };
        self.ring.accept_multishot(fd, user_data(op, ConnId(0)));
    }

    /// Accepts no more.
    pub fn stop_listening(&mut self) {
        self.accepting = false;
        for fd in [self.options.mqtt.as_raw_fd(), self.options.kafka.as_raw_fd()] {
            self.ring.cancel_fd(fd, user_data(Op::Ignored, ConnId(0)));
        }
    }

    /// The ring, for sleeping elsewhere.
    pub fn ring(&mut self) -> &mut SocketRing {
        &mut self.ring
    }

    /// Whether another turn would bring something, or has something to submit.
    pub fn has_work(&self) -> bool {
        self.ring.has_deferred_work() || self.ring.has_unsubmitted() || !self.starved.is_empty()
    }

    /// Connections that go to other shards, since the last call.
    pub fn take_leaving(&mut self, into: &mut Vec<(ShardId, HandOver)>) {
        into.append(&mut self.leaving);
    }

    /// One turn: one enter, then everything that it brought goes to the shard. Returns how many
    /// completions there were.
    ///
    /// # Errors
    /// Those of [`SocketRing::enter`].
    pub fn turn(&mut self, shard: &mut Shard) -> io::Result<usize> {
        shard.take_free_buffers(&mut self.free);
        for buffer in self.free.drain(..) {
            self.ring.recycle(BufferId::from(buffer));
        }
        for id in std::mem::take(&mut self.starved) {
            self.arm(id);
        }
        for protocol in [Protocol::Mqtt, Protocol::Kafka] {
            let again = &mut self.accept_again[protocol as usize];
            if self.accepting && again.is_some_and(|at| at <= Instant::now()) {
                *again = None;
                self.accept(protocol);
            }
        }
        let entered = std::mem::take(&mut self.entered);
        if !entered || self.ring.has_unsubmitted() || self.ring.has_deferred_work() {
            self.ring.enter(Wait::No)?;
        }
        let mut count = 0;
        while let Some(completion) = self.ring.next_completion() {
            count += 1;
            self.complete(shard, completion);
        }
        Ok(count)
    }

    fn complete(&mut self, shard: &mut Shard, completion: Completion) {
        let id = ConnId(completion.user_data as u32);
        match OPS[(completion.user_data >> 32) as usize] {
            Op::AcceptMqtt => self.accepted(shard, Protocol::Mqtt, completion),
            Op::AcceptKafka => self.accepted(shard, Protocol::Kafka, completion),
            Op::Receive => self.received(shard, id, completion),
            Op::Send => self.sent(shard, id, completion.result),
            Op::Other => self.ended(id),
            Op::Close => self.closed(shard, id),
            Op::Ignored => {}
            Op::Wake => self.arm_wake(),
            Op::Committed => self.polls_commits = false,
        }
    }

    fn accepted(&mut self, shard: &mut Shard, protocol: Protocol, completion: Completion) {
        match completion.result {
            Ok(fd) => {
                let fd = fd as RawFd;
                if !self.accepting || !self.options.open.admit(protocol) {
                    // Nothing was promised yet; the client sees its connection closed.
                    self.ring.close(fd, user_data(Op::Ignored, ConnId(0)));
                } else {
                    set_options(fd);
                    let id = shard.on_accepted(protocol);
                    self.insert(id, fd, protocol);
                }
            }
            Err(errno) if self.accepting => {
                let error = io::Error::from_raw_os_error(errno);
                tracing::warn!("accepting a connection failed: {error}");
            }
            Err(_) => {}
        }
        if !completion.more && self.accepting {
            // Out of descriptors, most likely: at once would fail at once.
            let again = Instant::now() + Duration::from_millis(100);
            self.accept_again[protocol as usize] = Some(again);
        }
    }

    fn insert(&mut self, id: ConnId, fd: RawFd, protocol: Protocol) {
        if self.sockets.len() <= id.index() {
            self.sockets.resize_with(id.index() + 1, || None);
        }
        self.sockets[id.index()] = Some(Socket {
            fd,
            protocol,
            want: Want::Nothing,
            receiving: false,
            multishot: false,
            sending: Vec::new(),
            is_sending: false,
            send_again: false,
            spare: Vec::new(),
            shut_down: false,
            closing: false,
            closed: false,
            pending: 0,
        });
    }

    fn received(&mut self, shard: &mut Shard, id: ConnId, completion: Completion) {
        let socket = self.sockets.get_mut(id.index()).and_then(Option::as_mut);
        let open = socket.as_ref().is_some_and(|socket| !socket.closing);
        let bytes = completion.result.unwrap_or(0);
        if let Some(buffer) = completion.buffer {
            // Records on their way to another shard may refer to it.
            let mut kept = false;
            if open && bytes > 0 {
                let started = Instant::now();
                let received = self.ring.buffer(buffer, bytes);
                kept = shard.on_received(id, received, buffer.into());
                shard.record_time(Station::Ingest, started.elapsed().as_nanos() as u64);
            }
            if !kept {
                self.ring.recycle(buffer);
            }
        }
        if completion.more {
            return;
        }
        if let Some(socket) = self.sockets.get_mut(id.index()).and_then(Option::as_mut) {
            socket.receiving = false;
            if socket.want == Want::Once && bytes > 0 {
                socket.want = Want::Nothing;
            }
        }
        self.ended(id);
        match completion.result {
            Ok(0) if open => shard.on_end(id),
            Ok(_) | Err(libc::ECANCELED) => self.arm(id),
            Err(libc::ENOBUFS) => {
                shard.metrics().turns.buffers_exhausted.increment();
                self.starved.push(id);
            }
            Err(_) if open => shard.on_end(id),
            Err(_) => {}
        }
    }

    fn sent(&mut self, shard: &mut Shard, id: ConnId, result: Result<u32, i32>) {
        let Some(socket) = self.sockets.get_mut(id.index()).and_then(Option::as_mut) else {
            return;
        };
        let whole = socket.sending.len();
        socket.is_sending = false;
        let mut sent = std::mem::take(&mut socket.sending);
        if sent.capacity() <= SPARE_BYTES_MAX {
            sent.clear();
            socket.spare = sent;
        }
        let failed = result.is_err() || result.is_ok_and(|bytes| (bytes as usize) < whole);
        shard.on_sent(id, whole);
        if failed {
            // MSG_WAITALL: fewer bytes mean a broken connection.
            socket.send_again = false;
            shard.on_end(id);
        } else if std::mem::take(&mut socket.send_again) {
            self.send(shard, id);
        }
        self.ended(id);
    }

    /// A request on the socket has had its last completion.
    fn ended(&mut self, id: ConnId) {
        if let Some(socket) = self.sockets.get_mut(id.index()).and_then(Option::as_mut) {
            socket.pending -= 1;
        }
        self.go_on(id);
    }

    fn closed(&mut self, shard: &mut Shard, id: ConnId) {
        if let Some(socket) = self.sockets.get_mut(id.index()).and_then(Option::take) {
            self.options.open.release(socket.protocol);
        }
        shard.on_closed(id);
    }

    /// Does what the shard asks for.
    pub fn apply(&mut self, shard: &mut Shard, request: Request) {
        match request {
            Request::ReceiveOnce(id) => self.want(id, Want::Once),
            Request::Receive(id) => self.want(id, Want::Many),
            Request::StopReceiving(id) => {
                self.want(id, Want::Nothing);
                if let Some(socket) = self.sockets.get_mut(id.index()).and_then(Option::as_mut)
                    && socket.receiving
                {
                    socket.pending += 1;
                    let target = user_data(Op::Receive, id);
                    self.ring.cancel(target, user_data(Op::Other, id));
                }
            }
            Request::Send(id) => self.send(shard, id),
            Request::ShutDown(id) => {
                if let Some(socket) = self.sockets.get_mut(id.index()).and_then(Option::as_mut) {
                    socket.shut_down = true;
                }
                self.go_on(id);
            }
            Request::Close(id) => self.close(id),
            Request::HandOff { conn, to, bytes, accepted_ns } => {
                if let Some(fd) = self.let_go(shard, conn) {
                    self.leaving.push((to, HandOver { fd, bytes, accepted_ns }));
                }
            }
        }
    }

    fn want(&mut self, id: ConnId, want: Want) {
        if let Some(socket) = self.sockets.get_mut(id.index()).and_then(Option::as_mut) {
            socket.want = want;
        }
        self.arm(id);
    }

    /// Asks the kernel for what is wanted, if nothing is under way.
    fn arm(&mut self, id: ConnId) {
        let Some(socket) = self.sockets.get_mut(id.index()).and_then(Option::as_mut) else {
            return;
        };
        if socket.receiving || socket.closing || socket.want == Want::Nothing {
            return;
        }
        let group = match socket.protocol {
            Protocol::Mqtt => MQTT_BUFFERS,
            Protocol::Kafka => KAFKA_BUFFERS,
        };
        socket.receiving = true;
        socket.pending += 1;
        socket.multishot = socket.want == Want::Many;
        if socket.multishot {
            self.ring.recv_multishot(socket.fd, group, user_data(Op::Receive, id));
        } else {
            self.ring.recv_once(socket.fd, group, user_data(Op::Receive, id));
        }
    }

    fn send(&mut self, shard: &mut Shard, id: ConnId) {
        let Some(socket) = self.sockets.get_mut(id.index()).and_then(Option::as_mut) else {
            return;
        };
        if socket.is_sending {
            socket.send_again = true;
            return;
        }
        if socket.closing {
            return;
        }
        let bytes = shard.take_output(id, std::mem::take(&mut socket.spare));
        if bytes.is_empty() {
            socket.spare = bytes;
            return;
        }
        socket.sending = bytes;
        socket.is_sending = true;
        socket.pending += 1;
        let (start, len) = (socket.sending.as_ptr(), socket.sending.len() as u32);
        // SAFETY: `sending` is not touched while `is_sending`, and a socket is dropped only after
        // its last completion, or after the ring: `ring` is the first field of `Sockets`.
        unsafe { self.ring.send(socket.fd, start, len, user_data(Op::Send, id)) };
    }

    fn close(&mut self, id: ConnId) {
        let Some(socket) = self.sockets.get_mut(id.index()).and_then(Option::as_mut) else {
            return;
        };
        if socket.closing {
            return;
        }
        socket.closing = true;
        socket.want = Want::Nothing;
        if socket.pending > 0 {
            socket.pending += 1;
            self.ring.cancel_fd(socket.fd, user_data(Op::Other, id));
        }
        self.go_on(id);
    }

    /// Ends what waits for the last send or the last completion.
    fn go_on(&mut self, id: ConnId) {
        let Some(socket) = self.sockets.get_mut(id.index()).and_then(Option::as_mut) else {
            return;
        };
        if socket.closing && socket.pending == 0 && !socket.closed {
            socket.closed = true;
            self.ring.close(socket.fd, user_data(Op::Close, id));
        } else if socket.shut_down && !socket.is_sending && !socket.closing {
            socket.shut_down = false;
            socket.pending += 1;
            self.ring.shutdown(socket.fd, libc::SHUT_WR, user_data(Op::Other, id));
        }
    }
}
