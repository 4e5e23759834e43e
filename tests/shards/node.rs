//! One shard, and what the driver does for it, from memory; commits end when the schedule says so.
//!
//! A turn is that of `src/driver/shard_thread.rs`, in steps between which others may have theirs. A
//! shard that found nothing to do sleeps, and only what would wake its thread wakes it.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use tidegate::log::frame::{self, Entry};
use tidegate::log::segment::SegmentHeader;
use tidegate::log::{self, Log, Needs};
use tidegate::observe::ShardMetrics;
use tidegate::record::{PartitionId, ShardId, SharedBytes, StreamId};
use tidegate::shard::{Clock, Request, Shard, Way};

use crate::commits::Sealed;
use crate::devices::{End, Link};
use crate::disk::Disk;
use crate::ledger::Ledger;
use crate::random::Random;
use crate::setup::{Place, Setup};
use crate::sockets::{HandOver, Sockets};
use crate::storage::{self, Event, Storage};
use crate::world::Begun;

/// What a node touches beside itself.
pub struct Around<'a> {
    pub setup: &'a Setup,
    pub links: &'a mut [Link],
    pub ledger: &'a mut Ledger,
    pub needs: &'a Needs,
    pub random: &'a mut Random,
    /// The next offset of every place, as its owner last said.
    pub ends: &'a mut [u64],
    pub stopping: bool,
    /// Shards that are told of something.
    pub tell: Vec<ShardId>,
    /// Connections that go to other shards, with what they sent.
    pub leaving: Vec<HandOver>,
    /// The monotonic clock that all shards share.
    pub clock: Clock,
}

impl Around<'_> {
    /// What a shard sends arrives at the device.
    pub fn deliver(&mut self, link: usize, bytes: &[u8], shard: &mut Shard) {
        self.look_at(shard.log());
        let (setup, ends) = (self.setup, &*self.ends);
        let end_of = |place| ends[index_of(setup, place)];
        self.links[link].receive(bytes, self.ledger, self.stopping, end_of);
    }

    /// Notes the offsets of a log. It is within its limits, and the room that is promised in it is
    /// there.
    pub fn look_at(&mut self, log: &Log) {
        let (setup, shard) = (self.setup, log.options().shard.0);
        for stream in 0..setup.streams.len() {
            for partition in (shard..setup.partitions()).step_by(setup.shards as usize) {
                let bounds = log.bounds(StreamId(stream as u32), PartitionId(partition));
                let bounds = bounds.expect("its own");
                let place = Place { stream, partition };
                self.ends[index_of(setup, place)] = bounds.next.0;
                self.ledger.shows(place, bounds.start.0, bounds.committed.end().0);
            }
        }
        let (waiting, promised) = (log.waiting_bytes(), log.kept_room() as usize);
        let room = setup.log_buffer_bytes();
        assert!(waiting + promised <= room, "{waiting} wait, {promised} are promised, of {room}");
        assert!(promised <= room / 2, "{promised} of {room} are promised");
        // The newest piece of the tail stays whatever its size, and two extents.
        let options = log.options();
        let most = (
            options.tail_cache_bytes + options.segment_bytes as usize,
            options.read_cache_bytes + 2 * options.segment_bytes as usize,
        );
        let cached = log.cached_bytes();
        assert!(cached.0 <= most.0 && cached.1 <= most.1, "{cached:?} are cached, of {most:?}");
    }
}

/// The step of a turn that comes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Gather,
    Sockets,
    Commit,
    Sleep,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopping {
    No,
    Committing,
    Leaving,
    Finished,
}

pub struct Node {
    pub index: usize,
    /// `None` when it has finished, and its memory is gone.
    pub shard: Option<Shard>,
    pub metrics: Arc<ShardMetrics>,
    pub stopping: Stopping,
    pub gave_up: bool,
    pub storage: Storage,
    segment_refused: bool,
    /// What readers met, and was told.
    pub damages: u64,
    pub awake: bool,
    step: Step,
    /// Others are to see what the last step brought.
    publishes: bool,
    pub sockets: Sockets,
    pub handed_over: VecDeque<HandOver>,
    requests: Vec<Request>,
    log_requests: Vec<log::Request>,
}

impl Node {
    pub fn new(
        setup: &Setup,
        index: usize,
        ways: Vec<Way>,
        begun: &Begun,
        disk: &mut Disk,
    ) -> Self {
        let (mut shard, metrics) = setup.shard(index as u32, ways, begun);
        let storage = storage::Options {
            shard: index as u32,
            shards: setup.shards,
            generation: begun.generation,
            segment_bytes: shard.log().options().segment_bytes,
            zeros: setup.zeros,
            spares_max: 1,
        };
        Self {
            index,
            shard: Some(shard),
            metrics,
            stopping: Stopping::No,
            gave_up: false,
            storage: Storage::new(storage, disk),
            segment_refused: false,
            damages: 0,
            awake: true,
            step: Step::Gather,
            publishes: false,
            sockets: Sockets::new(setup),
            handed_over: VecDeque::new(),
            requests: Vec::new(),
            log_requests: Vec::new(),
        }
    }

    /// Whether the thread would turn.
    pub fn is_awake(&self, links: &[Link]) -> bool {
        let stops = !matches!(self.stopping, Stopping::No | Stopping::Finished);
        self.shard.is_some()
            && (self.awake
                || self.storage.raised
                || stops
                || self.step != Step::Gather
                || self.sockets.has_work(links))
    }

    /// The first segment is made, before anything is accepted: whether it is there, or cannot be.
    pub fn first_segment(&mut self, disk: &mut Disk, random: &mut Random) -> Option<bool> {
        self.ask_storage();
        self.storage.step(disk, random);
        for event in std::mem::take(&mut self.storage.events) {
            if matches!(event, Event::SegmentRefused) {
                return Some(false);
            }
            self.on_event(event);
        }
        (self.shard().log().ready_segments() > 0).then_some(true)
    }

    /// The disk takes a step of something that it is asked for. Whether the process goes on.
    pub fn disk(&mut self, disk: &mut Disk, random: &mut Random, ledger: &mut Ledger) -> bool {
        let step = self.storage.step(disk, random);
        match step {
            storage::Step::Written => ledger.written(self.index),
            storage::Step::Flushed => ledger.flushed(self.index),
            storage::Step::Nothing | storage::Step::Died => {}
        }
        step != storage::Step::Died
    }

    /// The next step of a turn. Whether the turn is over.
    pub fn step(&mut self, around: &mut Around<'_>) -> bool {
        if self.shard.is_none() {
            return true;
        }
        self.shard().set_clock(around.clock);
        self.step = match self.step {
            // What the step before brought: others may have their turns between the two.
            next if std::mem::take(&mut self.publishes) => {
                self.shard().publish_to_others(&mut around.tell);
                next
            }
            Step::Gather => {
                self.gather(around);
                around.look_at(self.shard().log());
                self.apply(around);
                self.publishes = true;
                Step::Sockets
            }
            Step::Sockets => {
                let shard = self.shard.as_mut().expect("it runs");
                self.sockets.turn(shard, around);
                self.publishes = true;
                Step::Commit
            }
            Step::Commit => {
                self.begin_commit(around);
                self.apply(around);
                around.look_at(self.shard().log());
                self.publishes = true;
                Step::Sleep
            }
            Step::Sleep => {
                self.step = Step::Gather;
                self.sleep(around);
                return true;
            }
        };
        around.look_at(self.shard().log());
        false
    }

    /// Sleeps if there is nothing to do; a shard that has stopped goes.
    fn sleep(&mut self, around: &mut Around<'_>) {
        if self.is_finished() {
            self.finish(around);
        } else {
            self.awake = self.sockets.has_work(around.links)
                || !self.handed_over.is_empty()
                || self.shard().has_news_from_others()
                || (around.stopping && self.stopping == Stopping::No);
        }
    }

    pub fn shard(&mut self) -> &mut Shard {
        self.shard.as_mut().expect("it runs")
    }

    /// Does what is done now and then.
    pub fn keep_house(&mut self, around: &mut Around<'_>) {
        if let Some(shard) = &mut self.shard {
            let mut damages = Vec::new();
            shard.log().take_damages(&mut damages);
            self.damages += damages.len() as u64;
            shard.set_clock(around.clock);
            shard.expire(around.needs);
            shard.publish_metrics();
            around.look_at(shard.log());
        }
    }

    fn gather(&mut self, around: &mut Around<'_>) {
        self.storage.raised = false;
        for event in std::mem::take(&mut self.storage.events) {
            self.on_event(event);
        }
        while let Some(arrived) = self.handed_over.pop_front() {
            let id = self.shard().on_handed_over(&arrived.bytes, arrived.accepted_ns);
            self.sockets.insert(id, arrived.link);
        }
        self.shard().take_from_others();
        self.shard().on_timer();
        if self.segment_refused && !self.storage.full {
            self.segment_refused = false;
            self.shard().log().retry_segment();
        }
        if around.stopping {
            self.stop(around);
        }
    }

    pub fn on_event(&mut self, event: Event) {
        let shard = self.shard.as_mut().expect("it runs");
        match event {
            Event::Written => drop(shard.on_written()),
            Event::Flushed => shard.on_flushed(),
            Event::Read(request, bytes) => shard.on_read(request, bytes),
            Event::SegmentReady(key) => shard.log().on_segment_ready(key),
            Event::SegmentRefused => {
                shard.log().on_segment_refused();
                self.segment_refused = true;
            }
            Event::IndexWritten(key) => shard.log().on_index_written(key),
            Event::StartsSaved => shard.log().on_starts_saved(),
            Event::Moved(moved) => shard.log().on_moved(&moved),
            Event::Cleaned(ended) => shard.log().on_cleaned(&ended),
        }
    }

    fn stop(&mut self, around: &mut Around<'_>) {
        if self.stopping == Stopping::No {
            self.sockets.stop_listening(around.links);
            self.shard().begin_stop();
            self.stopping = Stopping::Committing;
        } else if self.stopping == Stopping::Committing {
            let settled = self.shard().is_settled();
            let full = self.segment_refused && self.shard().log().is_starved();
            if settled || full {
                if !settled {
                    self.gave_up = true;
                    self.shard().give_up();
                }
                self.shard().disconnect_all();
                self.stopping = Stopping::Leaving;
            }
        }
    }

    fn is_finished(&mut self) -> bool {
        self.stopping == Stopping::Leaving
            && self.shard().connections() == 0
            && self.shard().is_let_go()
    }

    /// The thread ends: its memory is gone.
    fn finish(&mut self, around: &mut Around<'_>) {
        self.stopping = Stopping::Finished;
        self.shard = None;
        self.sockets.finish();
        for arrived in self.handed_over.drain(..) {
            around.links[arrived.link].closed = true;
            around.links[arrived.link].finish(End::Stopped);
        }
    }

    /// Does what the shard and its log ask for.
    fn apply(&mut self, around: &mut Around<'_>) {
        let mut requests = std::mem::take(&mut self.requests);
        self.shard().take_requests(&mut requests);
        for request in requests.drain(..) {
            let shard = self.shard.as_mut().expect("it runs");
            self.sockets.apply(shard, request, around);
        }
        self.requests = requests;
        self.ask_storage();
    }

    pub fn ask_storage(&mut self) {
        let mut requests = std::mem::take(&mut self.log_requests);
        self.shard().log().take_requests(&mut requests);
        requests.drain(..).for_each(|request| self.storage.start(request));
        self.log_requests = requests;
    }

    fn begin_commit(&mut self, around: &mut Around<'_>) {
        let Some(bytes) = self.shard().log().commit_bytes() else { return };
        let mut out = vec![0; bytes];
        let Some(commit) = self.shard().seal(&mut out) else { return };
        assert!(commit.bytes <= bytes);
        // A segment begins with a header of its own.
        let header = (commit.position == 0).then(|| SegmentHeader::read(&out).expect("a header"));
        let (front, header) = header.map_or((0, None), |(_, bytes, crc)| (bytes, Some(crc)));
        let frame = frame::read(&out[front..commit.bytes]).expect("a frame");
        let batches = frame.entries().filter_map(|entry| match entry.expect("an entry") {
            Entry::Batch { stream, partition, batch, .. } => {
                Some((Place { stream: stream as usize, partition }, batch))
            }
            Entry::Reservation { .. } | Entry::Range { .. } => None,
        });
        let at = commit.position as usize + front;
        let (segment, bytes, crc) = (commit.segment, commit.bytes - front, frame.crc);
        let sealed = Sealed { segment, at, bytes, crc, header };
        around.ledger.sealed(self.index, sealed, batches);
        let bytes: SharedBytes = Rc::new(out);
        self.storage.commit(commit, Rc::clone(&bytes));
        self.shard().on_sealed(bytes);
    }

    /// What it has to do, and what it waits for.
    pub fn describe(&mut self) -> String {
        let (index, free, step) = (self.index, self.sockets.buffers().0, self.step);
        let held = self.metrics.mqtt.held.value();
        let mut out = format!("shard {index}: {step:?}, {free} buffers free, {held} held");
        out += &format!(", {:?}, awake {}", self.stopping, self.awake);
        out += &format!(", storage {:?}", self.storage.describe());
        if let Some(shard) = &mut self.shard {
            let log = shard.log();
            let (waiting, promised) = (log.waiting_bytes(), log.kept_room());
            out += &format!(", {waiting} bytes wait, {promised} promised");
        }
        for (to, way) in self.metrics.ring.ways.iter().enumerate().filter(|(to, _)| *to != index) {
            let (sent, settled) = (way.records.value(), way.settled.value());
            let (granted, spent) = (way.granted_bytes.value(), way.spent_bytes.value());
            let held = way.held.value();
            out += &format!("; to {to}: {sent} sent, {settled} settled, {granted} granted, ");
            out += &format!("{spent} spent, {held} held");
        }
        out
    }
}

pub fn index_of(setup: &Setup, place: Place) -> usize {
    place.stream * setup.partitions() as usize + place.partition as usize
}
