//! The sockets of a shard, from memory: what the driver's do, and receive buffers that are
//! overwritten as soon as the shard does not keep them or says that they are free.

use std::collections::VecDeque;

use tidegate::record::ShardId;
use tidegate::shard::{ConnId, Protocol, Request, Shard};

use crate::devices::{End, Link};
use crate::node::Around;
use crate::setup::Setup;

/// What stands in a receive buffer that is free; no message has it.
const FREE: u8 = 0xFE;

/// A connection on its way to another shard.
pub struct HandOver {
    pub to: ShardId,
    pub link: usize,
    pub bytes: Vec<u8>,
    pub accepted_ns: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    Nothing,
    Once,
    Many,
}

#[derive(Debug)]
struct Socket {
    link: usize,
    want: Want,
    /// A receive is with the kernel.
    armed: bool,
    /// It was cancelled; what has come already is still passed on.
    cancelled: bool,
    /// Their completion is to come.
    sending: Option<Vec<u8>>,
    send_again: bool,
    shut_down: bool,
    closing: bool,
}

pub struct Sockets {
    sockets: Vec<Option<Socket>>,
    /// Connections that wait to be accepted.
    backlog: VecDeque<usize>,
    memory: Vec<Vec<u8>>,
    free: VecDeque<u16>,
    kept: Vec<bool>,
    scratch: Vec<u16>,
}

impl Sockets {
    pub fn new(setup: &Setup) -> Self {
        let buffers = setup.receive_buffers();
        Self {
            sockets: Vec::new(),
            backlog: VecDeque::new(),
            memory: (0..buffers).map(|_| vec![FREE; setup.receive_bytes]).collect(),
            free: (0..buffers).collect(),
            kept: vec![false; usize::from(buffers)],
            scratch: Vec::new(),
        }
    }

    /// A device connects.
    pub fn connect(&mut self, link: usize) {
        self.backlog.push_back(link);
    }

    /// Receive buffers that are free, and those that records on their way refer to.
    pub fn buffers(&self) -> (usize, usize) {
        (self.free.len(), self.kept.iter().filter(|kept| **kept).count())
    }

    /// Whether the kernel has something for the shard.
    pub fn has_work(&self, links: &[Link]) -> bool {
        !self.backlog.is_empty()
            || self.sockets.iter().flatten().any(|socket| {
                socket.cancelled
                    || (socket.sending.is_some() && !links[socket.link].stalled)
                    || socket.shut_down
                    || socket.closing
                    || (socket.armed && links[socket.link].is_readable())
            })
    }

    /// Nobody is accepted any more.
    pub fn stop_listening(&mut self, links: &mut [Link]) {
        for link in self.backlog.drain(..) {
            links[link].closed = true;
            links[link].finish(End::Stopped);
        }
    }

    pub fn insert(&mut self, id: ConnId, link: usize) {
        if self.sockets.len() <= id.index() {
            self.sockets.resize_with(id.index() + 1, || None);
        }
        let replaced = self.sockets[id.index()].replace(Socket {
            link,
            want: Want::Nothing,
            armed: false,
            cancelled: false,
            sending: None,
            send_again: false,
            shut_down: false,
            closing: false,
        });
        assert!(replaced.is_none(), "{id:?} is in use: {replaced:?}");
    }

    /// Does what the shard asks for.
    pub fn apply(&mut self, shard: &mut Shard, request: Request, around: &mut Around<'_>) {
        match request {
            Request::ReceiveOnce(id) => self.want(id, Want::Once),
            Request::Receive(id) => self.want(id, Want::Many),
            Request::StopReceiving(id) => self.want(id, Want::Nothing),
            Request::Send(id) => self.send(shard, id, around),
            Request::ShutDown(id) => self.socket(id).shut_down = true,
            Request::Close(id) => self.socket(id).closing = true,
            Request::HandOff { conn, to, bytes, accepted_ns } => {
                let socket = self.sockets[conn.index()].take().expect("it is open");
                assert!(!socket.armed && socket.sending.is_none(), "it moves at rest");
                shard.on_closed(conn);
                let link = socket.link;
                around.leaving.push(HandOver { to, link, bytes, accepted_ns });
            }
        }
    }

    fn socket(&mut self, id: ConnId) -> &mut Socket {
        self.sockets[id.index()].as_mut().expect("it is open")
    }

    fn want(&mut self, id: ConnId, want: Want) {
        let socket = self.socket(id);
        socket.want = want;
        match want {
            Want::Nothing => socket.cancelled = socket.armed,
            Want::Once | Want::Many => socket.armed |= !socket.closing,
        }
    }

    /// Bytes leave; their completion comes later.
    fn send(&mut self, shard: &mut Shard, id: ConnId, around: &mut Around<'_>) {
        let socket = self.socket(id);
        if socket.sending.is_some() {
            socket.send_again = true;
        } else if !socket.closing {
            let sent = shard.take_output(id, Vec::new());
            if !sent.is_empty() {
                around.deliver(socket.link, &sent, shard);
                socket.sending = Some(sent);
            }
        }
    }

    /// One turn: buffers that are free again, then what the kernel has.
    pub fn turn(&mut self, shard: &mut Shard, around: &mut Around<'_>) {
        let mut free = std::mem::take(&mut self.scratch);
        shard.take_free_buffers(&mut free);
        for buffer in free.drain(..) {
            let kept = std::mem::take(&mut self.kept[usize::from(buffer)]);
            assert!(kept, "receive buffer {buffer} comes back, and nobody kept it");
            self.recycle(buffer);
        }
        self.scratch = free;
        while let Some(link) = self.backlog.pop_front() {
            around.links[link].accepted = true;
            let id = shard.on_accepted(Protocol::Mqtt);
            self.insert(id, link);
        }
        let first = around.random.below(self.sockets.len());
        for turn in 0..self.sockets.len() {
            let id = ConnId(((first + turn) % self.sockets.len()) as u32);
            for _ in 0..1 + around.random.below(4) {
                if self.sockets[id.index()].is_some() {
                    self.complete(shard, id, around);
                }
            }
        }
    }

    fn recycle(&mut self, buffer: u16) {
        self.memory[usize::from(buffer)].fill(FREE);
        self.free.push_back(buffer);
    }

    /// One completion of a socket, if there is one.
    fn complete(&mut self, shard: &mut Shard, id: ConnId, around: &mut Around<'_>) {
        let has_buffers = !self.free.is_empty();
        let socket = self.socket(id);
        let link = &mut around.links[socket.link];
        if let Some(sent) = socket.sending.take_if(|_| !link.stalled) {
            let again = std::mem::take(&mut socket.send_again);
            shard.on_sent(id, sent.len());
            if again {
                self.send(shard, id, around);
            }
        } else if socket.closing {
            link.closed = true;
            self.sockets[id.index()] = None;
            shard.on_closed(id);
        } else if std::mem::take(&mut socket.shut_down) {
            link.on_server_end(around.stopping);
        } else if socket.armed && has_buffers && link.is_readable() && !link.unread().is_empty() {
            // A cancelled receive may have brought something before.
            if !socket.cancelled || around.random.below(2) == 0 {
                self.receive(shard, id, around);
            }
            self.socket(id).disarm();
        } else if socket.armed && link.is_readable() && link.unread().is_empty() {
            socket.armed = false;
            socket.cancelled = false;
            shard.on_end(id);
        } else if socket.cancelled {
            socket.disarm();
        }
    }

    /// Bytes come, in a receive buffer.
    fn receive(&mut self, shard: &mut Shard, id: ConnId, around: &mut Around<'_>) {
        let Some(buffer) = self.free.pop_front() else { return };
        let link = &mut around.links[self.socket(id).link];
        let memory = &mut self.memory[usize::from(buffer)];
        let most = memory.len().min(link.unread().len());
        let bytes = match around.random.below(3) {
            0 => 1 + around.random.below(most),
            _ => most,
        };
        memory[..bytes].copy_from_slice(&link.unread()[..bytes]);
        link.received += bytes;
        if shard.on_received(id, &self.memory[usize::from(buffer)][..bytes], buffer) {
            self.kept[usize::from(buffer)] = true;
        } else {
            self.recycle(buffer);
        }
    }

    /// The shard's memory is gone, and so is this.
    pub fn finish(&mut self) {
        self.memory.iter_mut().for_each(|buffer| buffer.fill(FREE));
    }
}

impl Socket {
    /// A receive that was asked for once, or was cancelled, is over.
    fn disarm(&mut self) {
        let over = std::mem::take(&mut self.cancelled) || self.want == Want::Once;
        if self.want == Want::Once {
            self.want = Want::Nothing;
        }
        self.armed &= !over || self.want != Want::Nothing;
    }
}
