//! Connections that move from shard to shard.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd};

use super::Sockets;
use crate::shard::{ConnId, Protocol, Shard};

/// A connection on its way to the shard that owns it.
pub struct HandOver {
    /// The socket.
    pub fd: OwnedFd,
    /// What the client sent so far.
    pub bytes: Vec<u8>,
    /// When it was accepted.
    pub accepted_ns: u64,
}

impl Sockets {
    /// Takes in a connection that came from another shard.
    pub fn take_in(&mut self, shard: &mut Shard, arrived: HandOver) {
        let fd = arrived.fd.into_raw_fd();
        let id = shard.on_handed_over(&arrived.bytes, arrived.accepted_ns);
        self.insert(id, fd, Protocol::Mqtt);
    }

    /// Forgets a connection that moves to another shard.
    pub(super) fn let_go(&mut self, shard: &mut Shard, id: ConnId) -> Option<OwnedFd> {
        shard.on_closed(id);
        let socket = self.sockets.get_mut(id.index()).and_then(Option::take)?;
        assert_eq!(socket.pending, 0, "a connection moves with nothing under way");
        // SAFETY: the descriptor came from accept, is open, and is owned by nothing else now.
        Some(unsafe { OwnedFd::from_raw_fd(socket.fd) })
    }
}
