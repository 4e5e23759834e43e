//! Starting a shard: its thread, pinned, with everything of it made and first touched there.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use glommio::{LocalExecutorBuilder, Placement};

use super::shard_thread::{self, ShardThread, Ways};
use super::signal::Signal;
use super::sockets::{self, HandOver, Sockets};
use super::storage::{self, Storage};
use super::{cores, data_dir, socket_ring};
use crate::config::Spin;
use crate::log::recovery::Recovered;
use crate::log::{self, Log, LogStarts};
use crate::record::ShardId;
use crate::ring::{Door, Outbound, Producer, lane, ring};
use crate::shard::{self, Crossing, Shard, Way};

/// Connections that may be on their way from one shard to another.
const HAND_OVERS: usize = 1024;
/// glommio registers so many bytes of I/O memory; the log's buffers are from the heap, as readers at
/// the tail keep them.
const IO_MEMORY: usize = 64 << 10;
const RING_DEPTH: usize = 256;
/// glommio's preemption timer, out of the way: when it goes off between the reactor's turn and the
/// tasks' (the thread was not on its core meanwhile), glommio 0.9 takes runnable tasks for none and
/// sleeps on them. The loop reaches the reactor by itself instead; see `shard_thread`.
const PREEMPT: Duration = Duration::from_secs(24 * 3600);

/// Everything that a shard's thread needs to begin.
pub struct Launch {
    /// The core to run on.
    pub core: usize,
    /// The shard's options.
    pub shard: shard::Options,
    /// The log's.
    pub log: log::Options,
    /// What recovery found.
    pub recovered: Arc<Recovered>,
    /// The sockets'.
    pub sockets: sockets::Options,
    /// The files'.
    pub storage: storage::Options,
    /// How long to poll before sleeping.
    pub spin: Spin,
    /// Log start offsets of all shards.
    pub starts: Arc<LogStarts>,
    /// The age clock at `base`.
    pub age_ms: u64,
    /// Where the monotonic clock begins.
    pub base: Instant,
    /// Random bits of this start.
    pub seed: u64,
}

/// What leads to a shard from outside.
pub struct Entrance {
    id: ShardId,
    doors: Vec<Arc<Door>>,
    eventfd: OwnedFd,
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
}

/// Doors of `shards` shards, and what they make their rings with.
///
/// # Errors
/// The kernel's, when it gives no eventfd.
pub fn entrances(shards: u32) -> io::Result<(Vec<Entrance>, Stopper)> {
    let mut doors = Vec::new();
    let mut eventfds = Vec::new();
    for _ in 0..shards {
        let eventfd = eventfd()?;
        let knocker = eventfd.try_clone()?;
        doors.push(Arc::new(Door::new(move || knock(&knocker))));
        eventfds.push(eventfd);
    }
    let stopper = Stopper { stop: Arc::new(AtomicBool::new(false)), doors: doors.clone() };
    let (offer, collect): (Vec<_>, Vec<_>) = (0..shards).map(|_| mpsc::channel()).unzip();
    let entrances = eventfds.into_iter().zip(collect).enumerate();
    let entrances = entrances.map(|(id, (eventfd, collect))| Entrance {
        id: ShardId(id as u32),
        doors: doors.clone(),
        eventfd,
        offer: offer.clone(),
        collect,
    });
    Ok((entrances.collect(), stopper))
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
    fn make_ways(self, slots: usize) -> Option<(Ways, Vec<Way>, OwnedFd)> {
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
        let door = Arc::clone(&self.doors[self.id.index()]);
        let ends = Ways { to: connections_to, from: connections_from, doors: self.doors, door };
        Some((ends, ways, self.eventfd))
    }
}

fn knock(eventfd: &OwnedFd) {
    let one = 1_u64;
    // SAFETY: eight bytes of a live value are read. The counter cannot overflow: the sleeper takes
    // it down to 0 at each wake-up.
    unsafe { libc::write(eventfd.as_raw_fd(), std::ptr::from_ref(&one).cast(), 8) };
}

/// Starts the thread of a shard. `ready` gets one message: that it accepts, or why it cannot; none
/// where another shard cannot start.
///
/// # Errors
/// The system's, when it gives no thread.
pub fn start(
    launch: Launch,
    entrance: Entrance,
    stopper: &Stopper,
    ready: mpsc::Sender<Result<(), String>>,
) -> io::Result<JoinHandle<()>> {
    let stop = Arc::clone(&stopper.stop);
    let name = format!("shard-{}", launch.shard.shard.0);
    std::thread::Builder::new().name(name).spawn(move || {
        let accepts = Arc::new(AtomicBool::new(false));
        let (told, tell) = (Arc::clone(&accepts), ready.clone());
        let result = run(launch, entrance, stop, move || {
            told.store(true, Ordering::Relaxed);
            // The engine waits for it; were it gone, so is the process.
            let _ = tell.send(Ok(()));
        });
        let Err(Some(cause)) = result else { return };
        if accepts.load(Ordering::Relaxed) {
            eprintln!("tidegate: a shard cannot go on: {cause}");
            std::process::abort();
        }
        // Where nobody listens any more, another shard has failed and the process ends.
        let _ = ready.send(Err(cause));
    })
}

fn run(
    launch: Launch,
    entrance: Entrance,
    stop: Arc<AtomicBool>,
    ready: impl FnOnce() + 'static,
) -> Result<(), Option<String>> {
    cores::pin(launch.core).map_err(|cause| cause.to_string())?;
    let (ends, ways, eventfd) = entrance.make_ways(launch.shard.ring_slots).ok_or(None)?;
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(IO_MEMORY)
        .ring_depth(RING_DEPTH)
        .preempt_timer(PREEMPT)
        .make()
        .map_err(|cause| format!("glommio cannot start on core {}: {cause}", launch.core))?;
    let served = executor.run(async move {
        let signal = Rc::new(Signal::default());
        let log = Log::new(launch.log, &launch.recovered, launch.seed);
        let sockets = Sockets::new(launch.sockets).map_err(|cause| explain(&cause))?;
        let manifest = data_dir::manifest_path(&launch.storage.dir);
        Storage::probe_polling(&manifest).await.map_err(|cause| cause.to_string())?;
        let thread = ShardThread {
            shard: Shard::new(launch.shard, log, ways, launch.seed),
            sockets,
            storage: Storage::new(launch.storage, Rc::clone(&signal)),
            signal,
            ways: ends,
            eventfd,
            stop,
            spin: launch.spin,
            starts: launch.starts,
            age_ms: launch.age_ms,
            base: launch.base,
        };
        shard_thread::run(thread, ready).await.map_err(|cause| cause.to_string())
    });
    served.map_err(Some)
}

/// The text of what the socket ring says, with its remedy where it has one.
fn explain(cause: &io::Error) -> String {
    match cause.get_ref().and_then(|inner| inner.downcast_ref::<socket_ring::RingUnavailable>()) {
        Some(unavailable) => unavailable.to_string(),
        None => format!("the socket ring cannot be made: {cause}"),
    }
}
