//! Starting a shard: its thread, pinned, with everything of it made and first touched there.

use std::io;
use std::rc::Rc;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use glommio::{LocalExecutorBuilder, Placement};

use super::shard_thread::{self, ShardThread};
use super::signal::Signal;
use super::sockets::{self, Sockets};
use super::storage::{self, Storage};
use super::ways::{Entrance, Stopper};
use super::{cores, data_dir, socket_ring};
use crate::config::Spin;
use crate::log::recovery::Recovered;
use crate::log::{self, Log, Needs};
use crate::record::ShardId;
use crate::shard::{self, Shard};

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
    /// Segments of older generations that are still needed.
    pub needs: Arc<Needs>,
    /// The age clock at `base`.
    pub age_ms: u64,
    /// Where the monotonic clock begins.
    pub base: Instant,
    /// Random bits of this start, which the manifest keeps.
    pub log_seed: u64,
    /// Random bits, for names that clients are given.
    pub seed: u64,
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
    ready: mpsc::Sender<(ShardId, Result<(), String>)>,
) -> io::Result<JoinHandle<()>> {
    let (stop, id) = (stopper.flag(), launch.shard.shard);
    let name = format!("shard-{}", launch.shard.shard.0);
    std::thread::Builder::new().name(name).spawn(move || {
        let tell = ready.clone();
        // The engine waits for it; were it gone, so is the process.
        let result = run(launch, entrance, stop, move || drop(tell.send((id, Ok(())))));
        if let Err(Some(cause)) = result {
            // Where nobody listens any more, another shard has failed and the process ends.
            let _ = ready.send((id, Err(cause)));
        }
    })
}

fn run(
    launch: Launch,
    entrance: Entrance,
    stop: Arc<AtomicBool>,
    ready: impl FnOnce() + 'static,
) -> Result<(), Option<String>> {
    cores::pin(launch.core).map_err(|cause| cause.to_string())?;
    let (ends, ways, bell) = entrance.make_ways(launch.shard.ring_slots).ok_or(None)?;
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(IO_MEMORY)
        .ring_depth(RING_DEPTH)
        .preempt_timer(PREEMPT)
        .make()
        .map_err(|cause| format!("glommio cannot start on core {}: {cause}", launch.core))?;
    let served = executor.run(async move {
        let signal = Rc::new(Signal::default());
        let log = Log::new(launch.log, &launch.recovered, &launch.needs, launch.log_seed);
        let sockets = Sockets::new(launch.sockets).map_err(|cause| explain(&cause))?;
        let manifest = data_dir::manifest_path(&launch.storage.dir);
        Storage::probe_polling(&manifest).await.map_err(|cause| cause.to_string())?;
        let storage = Storage::new(launch.storage, Rc::clone(&signal));
        let thread = ShardThread {
            shard: Shard::new(launch.shard, log, ways, launch.seed),
            sockets,
            storage: storage.map_err(|cause| explain(&cause))?,
            signal,
            ways: ends,
            bell,
            stop,
            spin: launch.spin,
            needs: launch.needs,
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
