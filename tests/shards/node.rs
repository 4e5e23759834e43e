//! One shard, and what the driver does for it, from memory: sockets, receive buffers that are
//! overwritten as soon as they are free, commits that end when the schedule says so.
//!
//! A turn is that of `src/driver/shard_thread.rs`, in steps between which others may have theirs. A
//! shard that found nothing to do sleeps, and only what would wake its thread wakes it.

use std::collections::VecDeque;
use std::rc::Rc;
use std::sync::Arc;

use tidegate::log::frame::{self, Entry};
use tidegate::log::segment::SegmentHeader;
use tidegate::log::{self, Commit, LogStarts};
use tidegate::observe::ShardMetrics;
use tidegate::record::{PartitionId, ShardId, StreamId};
use tidegate::shard::{Clock, ConnId, Protocol, Request, Shard};

use crate::devices::{End, Link};
use crate::ledger::Ledger;
use crate::random::Random;
use crate::setup::{Place, Setup};

/// What stands in a receive buffer that is free; no message has it.
const FREE: u8 = 0xFE;

/// What a node touches beside itself.
pub struct Around<'a> {
    pub setup: &'a Setup,
    pub links: &'a mut [Link],
    pub ledger: &'a mut Ledger,
    pub random: &'a mut Random,
    /// The next offset of every place, as its owner last said.
    pub ends: &'a mut [u64],
    pub stopping: bool,
    /// Shards that are told of something.
    pub tell: Vec<ShardId>,
    /// Connections that go to other shards, with what they sent.
    pub leaving: Vec<(ShardId, HandOver)>,
    /// The monotonic clock that all shards share.
    pub now_ns: u64,
}

/// A connection on its way to another shard.
pub struct HandOver {
    pub link: usize,
    bytes: Vec<u8>,
    accepted_ns: u64,
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
    sending: Option<Vec<u8>>,
    send_again: bool,
    shut_down: bool,
    closing: bool,
}

/// The commit that is under way.
struct UnderWay {
    commit: Commit,
    written: bool,
}

#[derive(Debug, Clone, Copy)]
enum Event {
    Written,
    Flushed,
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
    /// No segment can be made.
    pub disk_full: bool,
    segment_refused: bool,
    pub awake: bool,
    step: Step,
    /// Others are to see what the last step brought.
    publishes: bool,
    sockets: Vec<Option<Socket>>,
    accepted: VecDeque<usize>,
    pub handed_over: VecDeque<HandOver>,
    receive: Vec<Vec<u8>>,
    free: VecDeque<u16>,
    kept: Vec<bool>,
    under_way: Option<UnderWay>,
    events: Vec<Event>,
    raised: bool,
    requests: Vec<Request>,
    log_requests: Vec<log::Request>,
    scratch: Vec<u16>,
}

impl Node {
    pub fn new(setup: &Setup, index: usize, shard: Shard, metrics: Arc<ShardMetrics>) -> Self {
        let buffers = setup.receive_buffers();
        Self {
            index,
            shard: Some(shard),
            metrics,
            stopping: Stopping::No,
            gave_up: false,
            disk_full: false,
            segment_refused: false,
            awake: true,
            step: Step::Gather,
            publishes: false,
            sockets: Vec::new(),
            accepted: VecDeque::new(),
            handed_over: VecDeque::new(),
            receive: (0..buffers).map(|_| vec![FREE; setup.receive_bytes]).collect(),
            free: (0..buffers).collect(),
            kept: vec![false; usize::from(buffers)],
            under_way: None,
            events: Vec::new(),
            raised: false,
            requests: Vec::new(),
            log_requests: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// A device connects to this shard.
    pub fn accept(&mut self, link: usize) {
        self.accepted.push_back(link);
    }

    /// Receive buffers that records on their way refer to.
    pub fn kept_buffers(&self) -> usize {
        self.kept.iter().filter(|kept| **kept).count()
    }

    pub fn free_buffers(&self) -> usize {
        self.free.len()
    }

    /// Whether a commit waits for the disk.
    pub fn is_committing(&self) -> bool {
        self.under_way.is_some()
    }

    /// Whether the thread would turn.
    pub fn is_awake(&self, links: &[Link]) -> bool {
        let stops = !matches!(self.stopping, Stopping::No | Stopping::Finished);
        self.shard.is_some()
            && (self.awake
                || self.raised
                || stops
                || self.step != Step::Gather
                || self.has_work(links))
    }

    /// Whether the kernel has something for the sockets.
    fn has_work(&self, links: &[Link]) -> bool {
        !self.accepted.is_empty()
            || self.sockets.iter().flatten().any(|socket| {
                socket.cancelled
                    || socket.sending.is_some()
                    || socket.shut_down
                    || socket.closing
                    || (socket.armed && links[socket.link].is_readable())
            })
    }

    /// The disk takes the next step of the commit that is under way.
    pub fn disk(&mut self, ledger: &mut Ledger) {
        let Some(under_way) = &mut self.under_way else { return };
        let commit = under_way.commit;
        if !under_way.written {
            under_way.written = true;
            ledger.written(self.index);
            self.events.push(Event::Written);
            // As the driver's storage: it goes with the news of the flush, where nobody waits.
            self.raised |= !commit.flush || commit.tell_written;
            if !commit.flush {
                self.under_way = None;
            }
        } else {
            ledger.flushed(self.index);
            self.events.push(Event::Flushed);
            self.raised = true;
            self.under_way = None;
        }
    }

    /// The next step of a turn. Whether the turn is over.
    pub fn step(&mut self, around: &mut Around<'_>) -> bool {
        if self.shard.is_none() {
            return true;
        }
        let now_ns = around.now_ns;
        let clock = Clock { now_ns, wall_ms: 1_700_000_000_000, age_ms: now_ns / 1_000_000 };
        self.shard().set_clock(clock);
        self.step = match self.step {
            // What the step before brought: others may have their turns between the two.
            next if std::mem::take(&mut self.publishes) => {
                self.shard().publish_to_others(&mut around.tell);
                next
            }
            Step::Gather => {
                self.gather(around);
                self.apply(around);
                self.publishes = true;
                Step::Sockets
            }
            Step::Sockets => {
                self.turn_sockets(around);
                self.publishes = true;
                Step::Commit
            }
            Step::Commit => {
                self.begin_commit(around);
                self.apply(around);
                self.publishes = true;
                Step::Sleep
            }
            Step::Sleep => {
                self.step = Step::Gather;
                self.sleep(around);
                return true;
            }
        };
        self.note_ends(around);
        false
    }

    /// Sleeps if there is nothing to do; a shard that has stopped goes.
    fn sleep(&mut self, around: &mut Around<'_>) {
        if self.is_finished() {
            self.finish(around);
        } else {
            self.awake = self.has_work(around.links)
                || !self.handed_over.is_empty()
                || self.shard().has_news_from_others()
                || (around.stopping && self.stopping == Stopping::No);
        }
    }

    pub fn shard(&mut self) -> &mut Shard {
        self.shard.as_mut().expect("it runs")
    }

    /// Publishes what is published now and then.
    pub fn publish_metrics(&mut self, starts: &LogStarts) {
        if let Some(shard) = &mut self.shard {
            shard.expire(starts);
        }
    }

    fn gather(&mut self, around: &mut Around<'_>) {
        self.raised = false;
        for event in std::mem::take(&mut self.events) {
            match event {
                Event::Written => drop(self.shard().on_written()),
                Event::Flushed => self.shard().on_flushed(),
            }
        }
        while let Some(arrived) = self.handed_over.pop_front() {
            let id = self.shard().on_handed_over(&arrived.bytes, arrived.accepted_ns);
            self.insert(id, arrived.link);
        }
        self.shard().take_from_others();
        self.shard().on_timer();
        if around.stopping {
            self.stop(around);
        }
    }

    fn stop(&mut self, around: &mut Around<'_>) {
        if self.stopping == Stopping::No {
            for link in self.accepted.drain(..) {
                around.links[link].closed = true;
                around.links[link].finish(End::Stopped);
            }
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
        self.receive.iter_mut().for_each(|buffer| buffer.fill(FREE));
        for arrived in self.handed_over.drain(..) {
            around.links[arrived.link].closed = true;
            around.links[arrived.link].finish(End::Stopped);
        }
    }

    fn insert(&mut self, id: ConnId, link: usize) {
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

    /// Does what the shard and its log ask for.
    fn apply(&mut self, around: &mut Around<'_>) {
        let mut requests = std::mem::take(&mut self.requests);
        self.shard().take_requests(&mut requests);
        for request in requests.drain(..) {
            match request {
                Request::ReceiveOnce(id) => self.want(id, Want::Once),
                Request::Receive(id) => self.want(id, Want::Many),
                Request::StopReceiving(id) => self.want(id, Want::Nothing),
                Request::Send(id) => self.send(id, around),
                Request::ShutDown(id) => self.socket(id).shut_down = true,
                Request::Close(id) => self.socket(id).closing = true,
                Request::HandOff { conn, to, bytes, accepted_ns } => {
                    let socket = self.sockets[conn.index()].take().expect("it is open");
                    assert!(!socket.armed && socket.sending.is_none(), "it moves at rest");
                    self.shard().on_closed(conn);
                    let link = socket.link;
                    around.leaving.push((to, HandOver { link, bytes, accepted_ns }));
                }
            }
        }
        self.requests = requests;
        let mut log_requests = std::mem::take(&mut self.log_requests);
        self.shard().log().take_requests(&mut log_requests);
        if self.segment_refused && !self.disk_full {
            self.segment_refused = false;
            self.shard().log().retry_segment();
        }
        for request in log_requests.drain(..) {
            let disk_full = self.disk_full;
            let log = self.shard().log();
            match request {
                log::Request::MakeSegment(_) if disk_full => {
                    log.on_segment_refused();
                    self.segment_refused = true;
                }
                log::Request::MakeSegment(key) => log.on_segment_ready(key),
                log::Request::WriteIndex { key, .. } => log.on_index_written(key),
                log::Request::Read(read) => panic!("nobody reads: {read:?}"),
                log::Request::Delete(key) => panic!("nothing expires, but {key:?} does"),
            }
        }
        self.log_requests = log_requests;
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
    fn send(&mut self, id: ConnId, around: &mut Around<'_>) {
        let socket = self.socket(id);
        if socket.sending.is_some() {
            socket.send_again = true;
            return;
        }
        if socket.closing {
            return;
        }
        let link = socket.link;
        let sent = self.shard().take_output(id, Vec::new());
        if sent.is_empty() {
            return;
        }
        self.note_ends(around);
        let (setup, ends) = (around.setup, &*around.ends);
        let end_of = |place| ends[index_of(setup, place)];
        around.links[link].receive(&sent, around.ledger, around.stopping, end_of);
        self.socket(id).sending = Some(sent);
    }

    fn turn_sockets(&mut self, around: &mut Around<'_>) {
        let mut free = std::mem::take(&mut self.scratch);
        self.shard().take_free_buffers(&mut free);
        for buffer in free.drain(..) {
            let kept = std::mem::take(&mut self.kept[usize::from(buffer)]);
            assert!(kept, "receive buffer {buffer} comes back, and nobody kept it");
            self.recycle(buffer);
        }
        self.scratch = free;
        if self.stopping == Stopping::No {
            while let Some(link) = self.accepted.pop_front() {
                around.links[link].accepted = true;
                let id = self.shard().on_accepted(Protocol::Mqtt);
                self.insert(id, link);
            }
        }
        let first = around.random.below(self.sockets.len());
        for turn in 0..self.sockets.len() {
            let id = ConnId(((first + turn) % self.sockets.len()) as u32);
            for _ in 0..1 + around.random.below(4) {
                if self.sockets[id.index()].is_some() {
                    self.complete(id, around);
                }
            }
        }
    }

    fn recycle(&mut self, buffer: u16) {
        self.receive[usize::from(buffer)].fill(FREE);
        self.free.push_back(buffer);
    }

    /// One completion of a socket, if there is one.
    fn complete(&mut self, id: ConnId, around: &mut Around<'_>) {
        let has_buffers = !self.free.is_empty();
        let socket = self.socket(id);
        let link = &mut around.links[socket.link];
        if let Some(sent) = socket.sending.take() {
            let again = std::mem::take(&mut socket.send_again);
            self.shard().on_sent(id, sent.len());
            if again {
                self.send(id, around);
            }
        } else if socket.closing {
            link.closed = true;
            self.sockets[id.index()] = None;
            self.shard().on_closed(id);
        } else if std::mem::take(&mut socket.shut_down) {
            link.on_server_end(around.stopping);
        } else if socket.armed && has_buffers && !link.unread().is_empty() {
            // A cancelled receive may have brought something before.
            if !self.socket(id).cancelled || around.random.below(2) == 0 {
                self.received(id, around);
            }
            self.disarm(id);
        } else if socket.armed && link.unread().is_empty() && link.ended {
            socket.armed = false;
            socket.cancelled = false;
            self.shard().on_end(id);
        } else if socket.cancelled {
            self.disarm(id);
        }
    }

    /// A receive that was asked for once, or was cancelled, is over.
    fn disarm(&mut self, id: ConnId) {
        let Some(socket) = self.sockets[id.index()].as_mut() else { return };
        let over = std::mem::take(&mut socket.cancelled) || socket.want == Want::Once;
        if socket.want == Want::Once {
            socket.want = Want::Nothing;
        }
        socket.armed &= !over || socket.want != Want::Nothing;
    }

    /// Bytes come, in a receive buffer.
    fn received(&mut self, id: ConnId, around: &mut Around<'_>) {
        let Some(buffer) = self.free.pop_front() else { return };
        let link = self.socket(id).link;
        let link = &mut around.links[link];
        let memory = &mut self.receive[usize::from(buffer)];
        let most = memory.len().min(link.unread().len());
        let bytes = match around.random.below(3) {
            0 => 1 + around.random.below(most),
            _ => most,
        };
        memory[..bytes].copy_from_slice(&link.unread()[..bytes]);
        link.received += bytes;
        let shard = self.shard.as_mut().expect("it runs");
        if shard.on_received(id, &self.receive[usize::from(buffer)][..bytes], buffer) {
            self.kept[usize::from(buffer)] = true;
        } else {
            self.recycle(buffer);
        }
    }

    fn begin_commit(&mut self, around: &mut Around<'_>) {
        let Some(bytes) = self.shard().log().commit_bytes() else { return };
        let mut out = vec![0; bytes];
        let Some(commit) = self.shard().seal(&mut out) else { return };
        assert!(self.under_way.is_none(), "two commits under way");
        assert!(commit.bytes <= bytes);
        let (_, header, _) = match commit.position {
            0 => SegmentHeader::read(&out).map_or((0, 0, 0), |(_, bytes, crc)| (0, bytes, crc)),
            _ => (0, 0, 0),
        };
        let frame = frame::read(&out[header..commit.bytes]).expect("a frame");
        let batches = frame.entries().filter_map(|entry| match entry.expect("an entry") {
            Entry::Batch { stream, partition, batch, .. } => {
                Some((Place { stream: stream as usize, partition }, batch))
            }
            Entry::Reservation { .. } => None,
        });
        around.ledger.sealed(self.index, commit.segment.sequence, batches);
        self.under_way = Some(UnderWay { commit, written: false });
        self.shard().on_sealed(Rc::new(out));
    }

    /// What it has to do, and what it waits for.
    pub fn describe(&mut self) -> String {
        let (index, free, step) = (self.index, self.free.len(), self.step);
        let held = self.metrics.mqtt.held.value();
        let mut out = format!("shard {index}: {step:?}, {free} buffers free, {held} held");
        out += &format!(", {:?}, awake {}", self.stopping, self.awake);
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

    /// Notes the next offset of all places of this shard, and that room which was promised is there.
    fn note_ends(&mut self, around: &mut Around<'_>) {
        let setup = around.setup;
        let shard = self.shard.as_mut().expect("it runs");
        let log = shard.log();
        for stream in 0..setup.streams.len() {
            for partition in (self.index as u32..setup.partitions()).step_by(setup.shards as usize)
            {
                let bounds = log.bounds(StreamId(stream as u32), PartitionId(partition));
                let next = bounds.expect("its own").next.0;
                around.ends[index_of(setup, Place { stream, partition })] = next;
            }
        }
        let (waiting, promised) = (log.waiting_bytes(), log.kept_room() as usize);
        let room = setup.log_buffer_bytes();
        assert!(waiting + promised <= room, "{waiting} wait, {promised} are promised, of {room}");
        assert!(promised <= room / 2, "{promised} of {room} are promised");
    }
}

pub fn index_of(setup: &Setup, place: Place) -> usize {
    place.stream * setup.partitions() as usize + place.partition as usize
}
