//! The ways between shards: doors to knock at, rings for connections, lanes for records; and the way
//! from the engine to a shard that runs, for changes of its rules.
//!
//! The engine's thread makes the doors; each shard's own pinned thread makes the rings that lead to
//! it, so that their memory is near its core, and gives the sending ends to the others.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};

use super::sockets::HandOver;
use crate::record::ShardId;
use crate::ring::{Consumer, Door, Outbound, Producer, lane, ring};
use crate::shard::{Change, Crossing, Shard, Way};

/// Connections that may be on their way from one shard to another.
const HAND_OVERS: usize = 1024;
/// Changes that a shard may not have taken yet.
const CHANGES: usize = 4;

/// The ways between one shard and the others, but for the lanes of records, which the shard has.
pub struct Ways {
    id: ShardId,
    /// Connections to each other shard.
    to: Vec<(ShardId, Producer<HandOver>)>,
    /// Connections from each other shard.
    from: Vec<Consumer<HandOver>>,
    /// From the engine.
    changes: Consumer<Change>,
    doors: Vec<Arc<Door>>,
    /// Shards that must be told of something.
    tell: Vec<ShardId>,
}

impl Ways {
    /// Whether there is no other shard.
    pub fn is_empty(&self) -> bool {
        self.to.is_empty()
    }

    /// This shard's own door.
    pub fn door(&self) -> &Door {
        &self.doors[self.id.index()]
    }

    /// Whether a connection or a change has come.
    pub fn has_arrived(&mut self) -> bool {
        self.from.iter_mut().any(|from| !from.is_empty()) || !self.changes.is_empty()
    }

    /// The next change that the engine wants.
    pub fn next_change(&mut self) -> Option<Change> {
        self.changes.pop()
    }

    /// The next connection that has come.
    pub fn next_arrived(&mut self) -> Option<HandOver> {
        self.from.iter_mut().find_map(Consumer::pop)
    }

    /// Hands connections over to their shards; those that find a full ring stay in `leaving`.
    pub fn send_away(&mut self, leaving: &mut Vec<(ShardId, HandOver)>) {
        for (to, hand_over) in std::mem::take(leaving) {
            let Some((_, way)) = self.to.iter_mut().find(|(shard, _)| *shard == to) else {
                continue;
            };
            match way.push(hand_over) {
                Ok(()) => self.tell.push(to),
                Err(back) => leaving.push((to, back)),
            }
        }
    }

    /// Lets other shards see what there is for them from `shard`. Returns how many of them slept and
    /// were woken.
    pub fn tell(&mut self, shard: &mut Shard) -> u64 {
        shard.publish_to_others(&mut self.tell);
        self.tell.sort_unstable();
        self.tell.dedup();
        self.tell.drain(..).filter(|shard| self.doors[shard.index()].notify()).count() as u64
    }
}

/// What other threads ring to wake a shard: an eventfd for each of the two places where it sleeps. One
/// for both would not do: a place that hands a wake-up on to the other signals an eventfd from within
/// an eventfd's wake-up, which the kernel puts off for tens of milliseconds.
pub struct Bell {
    /// Read by the ring of the sockets.
    pub in_ring: OwnedFd,
    /// Read by glommio.
    pub in_glommio: OwnedFd,
    sleeps_in_glommio: AtomicBool,
}

impl Bell {
    fn new() -> io::Result<Self> {
        let (in_ring, in_glommio) = (eventfd()?, eventfd()?);
        Ok(Self { in_ring, in_glommio, sleeps_in_glommio: AtomicBool::new(false) })
    }

    /// The shard is about to lie down, in glommio or in the ring of its sockets. Whoever sees it lie
    /// sees this too: the door's flag, stored after it, orders them. Who rings where it lay before saw
    /// an earlier sleep, and what it had to tell is seen when the shard looks once more after lying
    /// down.
    pub fn sleep_in_glommio(&self, yes: bool) {
        self.sleeps_in_glommio.store(yes, Ordering::Relaxed);
    }

    fn ring(&self) {
        let in_glommio = self.sleeps_in_glommio.load(Ordering::Relaxed);
        knock(if in_glommio { &self.in_glommio } else { &self.in_ring });
    }
}

/// What leads to a shard from outside.
pub struct Entrance {
    id: ShardId,
    doors: Vec<Arc<Door>>,
    bell: Arc<Bell>,
    changes: Consumer<Change>,
    /// To each shard: the sending ends of the ways that lead here.
    offer: Vec<mpsc::Sender<SendingEnds>>,
    /// From each other shard: the sending ends of the ways that lead there.
    collect: mpsc::Receiver<SendingEnds>,
}

/// What a shard needs to send something to another one.
struct SendingEnds {
    to: ShardId,
    connections: Producer<HandOver>,
    records: Outbound<Crossing>,
}

/// The engine's handle on all shards.
#[derive(Clone)]
pub struct Stopper {
    stop: Arc<AtomicBool>,
    doors: Vec<Arc<Door>>,
}

impl Stopper {
    /// Tells every shard to stop: what was taken is committed and acknowledged first.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
        for door in &self.doors {
            door.notify();
        }
    }

    /// Set when the engine stops.
    pub fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.stop)
    }
}

/// The engine's way to one shard, for changes.
pub struct ChangeWay {
    changes: Producer<Change>,
    door: Arc<Door>,
}

impl ChangeWay {
    /// Sends a change, and wakes the shard. Whether there was room: a shard that has not taken so
    /// many is stuck.
    pub fn send(&mut self, change: Change) -> bool {
        let sent = self.changes.push(change).is_ok();
        self.door.notify();
        sent
    }
}

/// Doors of `shards` shards, and what they make their rings with; how to stop them, and the ways for
/// changes by shard.
///
/// # Errors
/// The kernel's, when it gives no eventfd.
pub fn entrances(shards: u32) -> io::Result<(Vec<Entrance>, Stopper, Vec<ChangeWay>)> {
    let mut doors = Vec::new();
    let mut bells = Vec::new();
    let mut changes_to = Vec::new();
    let mut changes_from = Vec::new();
    for _ in 0..shards {
        let (to, from) = ring::<Change>(CHANGES);
        changes_to.push(to);
        changes_from.push(from);
        let bell = Arc::new(Bell::new()?);
        bells.push(Arc::clone(&bell));
        doors.push(Arc::new(Door::new(move || bell.ring())));
    }
    let stopper = Stopper { stop: Arc::new(AtomicBool::new(false)), doors: doors.clone() };
    let (offer, collect): (Vec<_>, Vec<_>) = (0..shards).map(|_| mpsc::channel()).unzip();
    let change_ways = changes_to.into_iter().zip(&doors);
    let change_ways =
        change_ways.map(|(changes, door)| ChangeWay { changes, door: Arc::clone(door) });
    let change_ways = change_ways.collect();
    let entrances = bells.into_iter().zip(collect).zip(changes_from).enumerate();
    let entrances = entrances.map(|(id, ((bell, collect), changes))| Entrance {
        id: ShardId(id as u32),
        doors: doors.clone(),
        bell,
        changes,
        offer: offer.clone(),
        collect,
    });
    Ok((entrances.collect(), stopper, change_ways))
}

fn eventfd() -> io::Result<OwnedFd> {
    // SAFETY: no pointers.
    let raw = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor is new and owned by nothing else.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

impl Entrance {
    /// Makes the rings that lead here, on the calling thread, so that their memory is near its core;
    /// gives their sending ends to the others and waits for theirs. `None` when another shard has
    /// failed, which says so itself.
    pub fn make_ways(self, slots: usize) -> Option<(Ways, Vec<Way>, Arc<Bell>)> {
        let others = || (0..self.doors.len() as u32).map(ShardId).filter(|id| *id != self.id);
        let mut connections_from = Vec::new();
        let mut records_from = Vec::new();
        for peer in others() {
            let (connections, consumer) = ring::<HandOver>(HAND_OVERS);
            let (records, inbound) = lane::<Crossing>(slots);
            let ends = SendingEnds { to: self.id, connections, records };
            self.offer[peer.index()].send(ends).ok()?;
            connections_from.push(consumer);
            records_from.push((peer, inbound));
        }
        // Whoever fails before its turn leaves no sender behind, and nobody waits for it.
        drop(self.offer);
        let mut connections_to = Vec::new();
        let mut ways = Vec::new();
        for _ in others() {
            let ends = self.collect.recv().ok()?;
            let from = records_from.iter().position(|(peer, _)| *peer == ends.to)?;
            let (peer, from) = records_from.swap_remove(from);
            connections_to.push((peer, ends.connections));
            ways.push(Way { peer, to: ends.records, from });
        }
        let ends = Ways {
            id: self.id,
            to: connections_to,
            from: connections_from,
            changes: self.changes,
            doors: self.doors,
            tell: Vec::new(),
        };
        Some((ends, ways, self.bell))
    }
}

fn knock(eventfd: &OwnedFd) {
    let one = 1_u64;
    // SAFETY: eight bytes of a live value are read. The counter cannot overflow: the sleeper takes
    // it down to 0 at each wake-up.
    unsafe { libc::write(eventfd.as_raw_fd(), std::ptr::from_ref(&one).cast(), 8) };
}
