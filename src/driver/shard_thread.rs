//! The loop of one shard's thread: one place that turns, one place that sleeps.
//!
//! A turn takes what storage, other shards and time have brought, does what the shard asks for,
//! enters the socket ring once, and begins the next commit if none is under way. When a turn leaves
//! nothing to do the thread sleeps: in the ring of the commits, while one is under way and the disk is
//! quick (what arrives meanwhile gathers and goes with the next commit), else in the ring of the
//! sockets, for anything. While glommio has tasks (cold reads, segments being made) it sleeps in
//! glommio instead, where their completions are seen.
//!
//! Falling asleep must not lose a wake-up. Other threads ring a bell where the thread sleeps, if it said
//! that it does, and it looks once more after saying so: see `ring::Door` and `Bell`. In the ring of
//! the sockets that bell is one read that is always armed, and a commit of a slow disk is waited for by
//! a poll of its ring. In glommio both rings write an eventfd of which one read is always armed: it is
//! enabled, and then only rings without completions and without deferred work let the thread sleep; the
//! kernel notes deferred work (TASKRUN) before it looks whether to signal the eventfd.

#![allow(unsafe_code)]

mod house;

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use glommio::io::BufferedFile;

use super::alarm::Alarm;
use super::commits::{Done, Part};
use super::signal::Signal;
use super::sockets::{HandOver, Sockets};
use super::storage::{Event, SealedBuffer, Storage};
use super::ways::{Bell, Ways};
use crate::config::Spin;
use crate::log::Needs;
use crate::observe::{ShardState, Station};
use crate::record::ShardId;
use crate::shard::{Clock, Request, Shard};

/// While commits take no longer than this, sockets wait for the one that is under way.
const COMMIT_WAIT_MAX: Duration = Duration::from_millis(1);
/// How long sockets wait at the most for a commit when the disk turns slow.
const STALL_MAX: Duration = Duration::from_millis(20);
/// How long glommio may wait for its reactor while there is other work: when it has tasks, and when
/// it has none.
const REACT_EVERY: Duration = Duration::from_micros(200);
const REACT_EVERY_IDLE: Duration = Duration::from_secs(1);
/// A wait that only the reactor ends, and no longer than a turn of it takes.
const REACT_WAIT: Duration = Duration::from_micros(1);
/// How often retention looks; nobody sleeps longer.
const EXPIRE_EVERY: Duration = Duration::from_secs(1);
/// How long a refused segment waits for another try.
const SEGMENT_RETRY: Duration = Duration::from_millis(500);
/// How long goodbyes may take at a stop.
const GOODBYE_MAX: Duration = Duration::from_secs(3);

/// What a shard's thread runs with.
pub struct ShardThread {
    /// The stations.
    pub shard: Shard,
    /// The sockets.
    pub sockets: Sockets,
    /// The files.
    pub storage: Storage,
    /// Raised by tasks of glommio: those of storage and those that wake the loop.
    pub signal: Rc<Signal>,
    /// Other shards.
    pub ways: Ways,
    /// What others wake this thread with.
    pub bell: Arc<Bell>,
    /// Set when the engine stops.
    pub stop: Arc<AtomicBool>,
    /// How long to poll before sleeping.
    pub spin: Spin,
    /// Segments of older generations that are still needed.
    pub needs: Arc<Needs>,
    /// The age clock at `base`.
    pub age_ms: u64,
    /// Where the monotonic clock begins.
    pub base: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stopping {
    No,
    /// What was taken is being committed and acknowledged.
    Committing,
    /// Connections are being closed.
    Leaving(Instant),
}

struct Turning {
    thread: ShardThread,
    alarm: Alarm,
    events: Vec<Event>,
    requests: Vec<Request>,
    log_requests: Vec<crate::log::Request>,
    leaving: Vec<(ShardId, HandOver)>,
    stopping: Stopping,
    last_event: Instant,
    last_reaction: Instant,
    /// The last commit took no longer than sockets may wait, and the one under way has not kept
    /// them waiting for longer than they may at all.
    disk_is_quick: bool,
    committing_since: Instant,
    publish_at: Instant,
    expire_at: Instant,
    retry_segment_at: Option<Instant>,
    /// The last try failed, and that was said.
    segment_refused: bool,
    /// Since when publishers are held back because the disk is full.
    starved_since: Option<Instant>,
}

/// Runs a shard until the engine stops and everything it took is committed and acknowledged.
/// `ready` is told once the log's first segment can be written.
///
/// # Errors
/// Those of the socket ring and of the first segment, before `ready`. What fails later ends the
/// process.
pub async fn run(mut thread: ShardThread, ready: impl FnOnce()) -> io::Result<()> {
    let alarm = Alarm::new()?;
    thread.arm_wakes(&alarm)?;
    let now = Instant::now();
    let mut turning = Turning {
        thread,
        alarm,
        events: Vec::new(),
        requests: Vec::new(),
        log_requests: Vec::new(),
        leaving: Vec::new(),
        stopping: Stopping::No,
        last_event: now,
        last_reaction: now,
        disk_is_quick: true,
        committing_since: now,
        publish_at: now,
        expire_at: now,
        retry_segment_at: None,
        segment_refused: false,
        starved_since: None,
    };
    turning.first_segment().await?;
    turning.thread.sockets.listen();
    turning.thread.shard.metrics().enter(ShardState::Serving);
    ready();
    if let Err(cause) = turning.turn_until_stopped().await {
        // Before anything of it is dropped: other shards look at what was sent to them in place.
        eprintln!("tidegate: a shard cannot go on: {cause}");
        std::process::abort();
    }
    Ok(())
}

impl ShardThread {
    /// Wakes the loop where it sleeps. In glommio: when the rings have something, another thread rings
    /// or the alarm goes off.
    fn arm_wakes(&mut self, alarm: &Alarm) -> io::Result<()> {
        self.sockets.wake_on(self.bell.in_ring.try_clone()?);
        let in_glommio = self.bell.in_glommio.as_raw_fd();
        self.sockets.ring().register_eventfd(in_glommio)?;
        self.sockets.ring().disable_eventfd();
        self.storage.commits().register_eventfd(in_glommio)?;
        self.wake_on(self.bell.in_glommio.try_clone()?);
        self.wake_on(alarm.descriptor()?);
        Ok(())
    }

    fn wake_on(&self, fd: OwnedFd) {
        let signal = Rc::clone(&self.signal);
        glommio::spawn_local(async move {
            // SAFETY: the descriptor is open and owned by nothing else; glommio closes it.
            let file = unsafe { BufferedFile::from_raw_fd(fd.into_raw_fd()) };
            loop {
                match file.read_at(0, 8).await {
                    Ok(_) => signal.raise(),
                    Err(cause) => {
                        eprintln!("tidegate: reading what wakes a shard failed: {cause}");
                        std::process::abort();
                    }
                }
            }
        })
        .detach();
    }
}

impl Turning {
    /// Waits for the first segment; nothing can be taken before.
    async fn first_segment(&mut self) -> io::Result<()> {
        self.tell_time();
        self.ask_storage();
        while self.thread.shard.log().ready_segments() == 0 {
            self.alarm.set(STALL_MAX)?;
            self.thread.signal.wait().await;
            self.thread.storage.take_events(&mut self.events);
            for event in std::mem::take(&mut self.events) {
                if let Event::SegmentRefused(cause) = event {
                    return Err(cause);
                }
                self.on_event(event);
            }
            self.ask_storage();
        }
        Ok(())
    }

    async fn turn_until_stopped(&mut self) -> io::Result<()> {
        loop {
            let mut happened = self.gather();
            self.apply();
            self.tell_others();
            happened += self.thread.sockets.turn(&mut self.thread.shard)?;
            self.tell_others();
            self.begin_commit();
            self.apply();
            self.tell_others();
            self.thread.shard.metrics().turns.turns.increment();
            if self.is_finished() {
                self.let_storage_end().await?;
                return Ok(());
            }
            if happened > 0 {
                self.last_event = Instant::now();
            }
            if self.thread.sockets.has_work() || self.spins() {
                self.thread.storage.commits().submit()?;
            } else if self.thread.shard.log().is_committing() && self.disk_is_quick {
                self.thread.shard.metrics().turns.sleeps.increment();
                self.thread.storage.commits().wait(STALL_MAX)?;
                // Once a commit, and not once a turn: a disk that hangs must not make each turn slow.
                self.disk_is_quick = self.committing_since.elapsed() < STALL_MAX;
            } else {
                self.thread.storage.commits().submit()?;
                self.sleep().await?;
            }
            self.react_now_and_then().await?;
        }
    }

    /// Gives glommio's reactor its turn, without which the completions of its rings are not seen.
    /// It costs several system calls, so not every turn. Yielding would not do: a task queue with a
    /// runnable task never lets the reactor have its turn.
    async fn react_now_and_then(&mut self) -> io::Result<()> {
        let every = if self.thread.storage.is_idle() { REACT_EVERY_IDLE } else { REACT_EVERY };
        if self.last_reaction.elapsed() >= every {
            self.react(REACT_WAIT).await?;
            self.last_reaction = Instant::now();
        }
        Ok(())
    }

    /// Waits in glommio for a timer of its own. The alarm is set because glommio can sleep on tasks
    /// that could run, and nothing else may come.
    async fn react(&mut self, time: Duration) -> io::Result<()> {
        self.alarm.set(STALL_MAX)?;
        glommio::timer::sleep(time).await;
        Ok(())
    }

    fn spins(&self) -> bool {
        match self.thread.spin {
            Spin::Off => false,
            Spin::For(time) => self.last_event.elapsed() < time,
            Spin::Always => true,
        }
    }

    fn tell_time(&mut self) {
        let now = self.thread.base.elapsed();
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.thread.shard.set_clock(Clock {
            now_ns: now.as_nanos() as u64,
            wall_ms: wall.as_millis() as i64,
            age_ms: self.thread.age_ms + now.as_millis() as u64,
        });
    }

    /// Takes what storage, other shards and time have brought. Returns how much.
    fn gather(&mut self) -> usize {
        self.tell_time();
        let mut count = 0;
        self.thread.storage.take_events(&mut self.events);
        let mut events = std::mem::take(&mut self.events);
        for event in events.drain(..) {
            count += 1;
            self.on_event(event);
        }
        self.events = events;
        while let Some(arrived) = self.thread.ways.next_arrived() {
            count += 1;
            self.thread.sockets.take_in(&mut self.thread.shard, arrived);
        }
        while let Some(change) = self.thread.ways.next_change() {
            count += 1;
            self.thread.shard.change(change);
        }
        count += self.thread.shard.take_from_others() as usize;
        self.thread.shard.on_timer();
        self.keep_house();
        if self.thread.stop.load(Ordering::Relaxed) {
            self.stop();
        }
        count
    }

    fn on_event(&mut self, event: Event) {
        let shard = &mut self.thread.shard;
        match event {
            Event::Committed(done) => self.on_committed(done),
            Event::Read(request, bytes) => shard.on_read(request, bytes),
            Event::SegmentReady(key) => {
                shard.log().on_segment_ready(key);
                self.retry_segment_at = None;
                self.segment_refused = false;
            }
            Event::SegmentRefused(cause) => {
                if !std::mem::replace(&mut self.segment_refused, true) {
                    tracing::warn!("the next segment cannot be made, trying again: {cause}");
                }
                shard.log().on_segment_refused();
                self.retry_segment_at = Some(Instant::now() + SEGMENT_RETRY);
            }
            Event::IndexWritten(key) => shard.log().on_index_written(key),
            Event::StartsSaved => shard.log().on_starts_saved(),
            Event::Moved(moved) => shard.log().on_moved(&moved),
            Event::Cleaned(ended) => self.on_cleaned(&ended),
        }
    }

    fn on_committed(&mut self, done: Done) {
        let shard = &mut self.thread.shard;
        self.disk_is_quick = done.since_begun <= COMMIT_WAIT_MAX;
        let station = if done.part == Part::Write { Station::Write } else { Station::Flush };
        if let Some(took) = done.took {
            shard.record_time(station, took.as_nanos() as u64);
        }
        match done.part {
            Part::Write => {
                shard.on_written();
            }
            Part::Flush => {
                let started = Instant::now();
                shard.on_flushed();
                shard.record_time(Station::Acknowledge, started.elapsed().as_nanos() as u64);
            }
        }
    }

    /// Does what the shard, its log and its connections ask for.
    fn apply(&mut self) {
        self.thread.shard.take_requests(&mut self.requests);
        let mut requests = std::mem::take(&mut self.requests);
        for request in requests.drain(..) {
            self.thread.sockets.apply(&mut self.thread.shard, request);
        }
        self.requests = requests;
        self.ask_storage();
        self.send_away();
    }

    fn ask_storage(&mut self) {
        self.thread.shard.log().take_requests(&mut self.log_requests);
        for request in self.log_requests.drain(..) {
            self.thread.storage.start(request);
        }
    }

    /// Hands connections over to their shards; those that find a full ring wait for the next turn.
    fn send_away(&mut self) {
        self.thread.sockets.take_leaving(&mut self.leaving);
        if !self.leaving.is_empty() {
            self.thread.ways.send_away(&mut self.leaving);
        }
    }

    /// Lets other shards see what there is for them, and wakes those of them that sleep.
    fn tell_others(&mut self) {
        if !self.thread.ways.is_empty() {
            let woken = self.thread.ways.tell(&mut self.thread.shard);
            self.thread.shard.metrics().ring.wakes_sent.add(woken);
        }
    }

    /// Seals what has gathered and begins to write it, if no commit is under way.
    fn begin_commit(&mut self) {
        let none_ready = self.thread.shard.log().ready_segments() == 0;
        self.thread.storage.hurry(none_ready);
        let Some(bytes) = self.thread.shard.log().commit_bytes() else { return };
        let Some(mut buffer) = self.thread.storage.buffer(bytes) else { return };
        self.tell_time();
        let started = Instant::now();
        let Some(commit) = self.thread.shard.seal(buffer.as_bytes_mut()) else { return };
        self.thread.shard.record_time(Station::Seal, started.elapsed().as_nanos() as u64);
        let sealed = SealedBuffer::new(buffer, commit.bytes);
        self.committing_since = Instant::now();
        self.thread.storage.commit(commit, &sealed);
        self.thread.shard.on_sealed(Rc::new(sealed));
    }

    /// Sleeps until something happens.
    async fn sleep(&mut self) -> io::Result<()> {
        let in_glommio = !self.thread.storage.is_idle();
        self.thread.bell.sleep_in_glommio(in_glommio);
        self.thread.ways.door().lie_down();
        if in_glommio {
            self.thread.sockets.ring().enable_eventfd();
            self.thread.storage.commits().enable_eventfd();
        } else if let Some(ring) = self.thread.storage.commits().waited_for() {
            self.thread.sockets.wake_on_completion(ring);
        }
        // Between enabling an eventfd and looking at its ring; pairs with the kernel's atomic update
        // of the ring's flags, after which it looks whether the eventfd is enabled.
        std::sync::atomic::fence(Ordering::SeqCst);
        let left = self.thread.sockets.has_work()
            || self.thread.storage.commits().has_news()
            || self.thread.ways.has_arrived()
            || self.thread.shard.has_news_from_others()
            || !self.leaving.is_empty()
            || (self.thread.stop.load(Ordering::Relaxed) && self.stopping == Stopping::No);
        if !left {
            self.thread.shard.metrics().turns.sleeps.increment();
            let limit = self.sleep_limit();
            if in_glommio {
                self.alarm.set(limit)?;
                self.thread.signal.wait().await;
            } else {
                self.thread.sockets.wait(limit)?;
            }
            self.thread.shard.metrics().turns.wakes.increment();
        }
        self.thread.ways.door().get_up();
        self.thread.sockets.ring().disable_eventfd();
        self.thread.storage.commits().disable_eventfd();
        Ok(())
    }

    /// How long the thread may sleep when nothing happens.
    fn sleep_limit(&self) -> Duration {
        let now = self.thread.base.elapsed().as_nanos() as u64;
        let timer = self.thread.shard.next_timer_ns().map(|due| due.saturating_sub(now));
        let limit = timer.map_or(EXPIRE_EVERY, Duration::from_nanos).min(EXPIRE_EVERY);
        match self.retry_segment_at {
            Some(_) => limit.min(SEGMENT_RETRY),
            None if self.stopping != Stopping::No => limit.min(STALL_MAX),
            None => limit,
        }
    }

    /// Takes the next step of an orderly stop, when the last one is done.
    fn stop(&mut self) {
        match self.stopping {
            Stopping::No => {
                self.thread.shard.metrics().enter(ShardState::Stopping);
                self.thread.sockets.stop_listening();
                self.thread.shard.begin_stop();
                self.stopping = Stopping::Committing;
            }
            Stopping::Committing if self.thread.shard.is_settled() => {
                self.thread.shard.disconnect_all();
                self.stopping = Stopping::Leaving(Instant::now());
            }
            Stopping::Committing
                if self.segment_refused && self.thread.shard.log().is_starved() =>
            {
                // The disk is full: what waits was not acknowledged and will be sent again.
                self.thread.shard.give_up();
                self.thread.shard.disconnect_all();
                self.stopping = Stopping::Leaving(Instant::now());
            }
            Stopping::Committing | Stopping::Leaving(_) => {}
        }
    }

    /// Waits for the tasks of storage, for a while: the disk may be full or dead.
    async fn let_storage_end(&mut self) -> io::Result<()> {
        let since = Instant::now();
        while !self.thread.storage.is_idle() && since.elapsed() < GOODBYE_MAX {
            self.react(Duration::from_millis(1)).await?;
        }
        Ok(())
    }

    fn is_finished(&mut self) -> bool {
        match self.stopping {
            Stopping::Leaving(since) => {
                let gone = self.thread.shard.connections() == 0 || since.elapsed() > GOODBYE_MAX;
                // Other shards may still look at what was sent to them, in this one's memory.
                gone && self.thread.shard.is_let_go()
            }
            _ => false,
        }
    }
}
