//! Several shards, their devices, and what must hold between them.

use tidegate::log::Needs;
use tidegate::log::recovery::Recovered;
use tidegate::log::start::{self, Started};
use tidegate::observe::HoldCause;
use tidegate::record::ShardId;
use tidegate::ring::lane;
use tidegate::shard::{Clock, Crossing, Way};

use crate::devices::{Device, End, Link, Wish};
use crate::disk::Disk;
use crate::disk_files::DiskFiles;
use crate::ledger::{Ledger, Loss};
use crate::node::{Around, Node, Stopping, index_of};
use crate::packets;
use crate::random::Random;
use crate::setup::{Place, Setup};

/// Rounds in which nothing came of anything, after which nothing ever will.
const IDLE_ROUNDS_MAX: usize = 300;

/// How a device leaves.
#[derive(Debug, Clone, Copy)]
pub enum Leave {
    /// DISCONNECT, then the end.
    Goodbye,
    /// The end, behind the last packet.
    End,
    /// The end in the middle of a packet.
    Cut,
    /// An error: what the server has not received is lost.
    Reset,
}

/// A start, as its shards see it.
#[derive(Default)]
pub struct Begun {
    pub generation: u32,
    pub starts: u32,
    pub seed: u64,
    pub recovered: Recovered,
    pub needs: Needs,
    /// The age clock when the monotonic clock stood at `base_ns`.
    age_ms: u64,
    base_ns: u64,
}

pub struct World {
    pub setup: Setup,
    pub disk: Disk,
    /// The shards; none while no process runs.
    pub nodes: Vec<Node>,
    pub begun: Begun,
    pub devices: Vec<Device>,
    pub links: Vec<Link>,
    pub ledger: Ledger,
    pub random: Random,
    ends: Vec<u64>,
    stopping: bool,
    /// The worst that happened since the last start.
    loss: Loss,
    pub now_ns: u64,
    /// The wall clock beyond the monotonic one.
    pub wall_ms: i64,
}

impl World {
    /// Devices take turns in speaking MQTT 3.1.1 and 5; they connect when they are used first.
    pub fn new(setup: &Setup, devices: usize, seed: u64) -> Self {
        let devices: Vec<_> =
            (0..devices).map(|index| Device::new(index, 4 + (index % 2) as u8)).collect();
        let client_ids = devices.iter().map(|device| device.client_id.clone()).collect();
        let mut world = Self {
            disk: Disk::new(seed),
            nodes: Vec::new(),
            begun: Begun::default(),
            devices,
            links: Vec::new(),
            ledger: Ledger::new(setup, client_ids),
            random: Random(seed),
            ends: Vec::new(),
            stopping: false,
            loss: Loss::Process,
            now_ns: 0,
            wall_ms: 1_700_000_000_000,
            setup: setup.clone(),
        };
        assert!(world.start(setup.shards, usize::MAX), "a new directory");
        world
    }

    fn clock(&self) -> Clock {
        let now_ms = self.now_ns / 1_000_000;
        Clock {
            now_ns: self.now_ns,
            wall_ms: self.wall_ms + now_ms as i64,
            age_ms: self.begun.age_ms + now_ms - self.begun.base_ns / 1_000_000,
        }
    }

    /// A process starts with so many shards, on what the last one left. It is interrupted after so
    /// many calls to the disk. Whether it accepts.
    pub fn start(&mut self, shards: u32, calls: usize) -> bool {
        let mut setup = Setup { shards, ..self.setup.clone() };
        let wanted = setup.wanted(self.clock().wall_ms);
        let files = DiskFiles::new(&mut self.disk, calls);
        let random = &mut self.random;
        let started = match start::start(&files, &wanted, &mut || random.next()) {
            Ok(started) => started,
            Err(cause) => {
                assert!(files.may_fail(), "a start fails: {cause}");
                return false;
            }
        };
        setup.partitions_there = Some(started.manifest.partitions);
        self.setup = setup;
        self.begin(started);
        self.first_segments(calls)
    }

    fn begin(&mut self, started: Started) {
        let Started { manifest, recovered, .. } = started;
        self.begun = Begun {
            generation: manifest.current.generation,
            starts: manifest.starts,
            seed: manifest.current.seed,
            needs: recovered.needs(self.setup.shards),
            recovered,
            age_ms: manifest.age_ms,
            base_ns: self.now_ns,
        };
        self.ledger.age_ms = self.clock().age_ms;
        // Without harm nothing is taken for damage.
        let damages = &self.begun.recovered.damages;
        assert!(self.ledger.harmed || damages.is_empty(), "{damages:?}");
        self.ends = vec![0; self.setup.streams.len() * self.setup.partitions() as usize];
        for (index, ways) in ways(&self.setup).into_iter().enumerate() {
            self.nodes.push(Node::new(&self.setup, index, ways, &self.begun, &mut self.disk));
        }
    }

    /// Nothing is accepted before every log has a segment to write. Whether all have one.
    fn first_segments(&mut self, steps: usize) -> bool {
        for index in 0..self.nodes.len() {
            for step in 0.. {
                let node = &mut self.nodes[index];
                match node.first_segment(&mut self.disk, &mut self.random) {
                    _ if step >= steps => return self.crash(Loss::Process),
                    Some(true) => break,
                    Some(false) => return self.crash(Loss::Process),
                    None => {}
                }
            }
        }
        let loss = std::mem::replace(&mut self.loss, Loss::Process);
        self.take_stock(loss);
        self.ledger.begin(&self.setup);
        true
    }

    /// The process ends, in the middle of whatever it does. Returns false: nothing runs.
    pub fn crash(&mut self, loss: Loss) -> bool {
        self.nodes.iter_mut().for_each(|node| node.storage.crash(&mut self.disk));
        self.nodes.clear();
        if loss == Loss::Power {
            self.disk.cut_power();
        }
        self.ledger.crashed(&self.disk);
        self.loss = self.loss.max(loss);
        self.stopping = false;
        for link in &mut self.links {
            link.end = End::Broken;
            link.ended = true;
            link.closed = true;
        }
        false
    }

    /// A device connects to any shard. One that is connected takes over from itself. It does not
    /// while nobody has accepted its last connection: the shards know in which order they accepted,
    /// not in which order two connections waited for that.
    pub fn connect(&mut self, device: usize, shard: usize, again: bool) {
        let old = self.devices[device].link.map(|old| &self.links[old]);
        if self.stopping || old.is_some_and(|old| !old.accepted && !old.closed) {
            return;
        }
        let index = self.links.len();
        let mut link = Link::new(&self.devices[device], device);
        if let Some(old) = self.devices[device].link.replace(index) {
            let old = &mut self.links[old];
            // What it had said goodbye to may still be under way.
            if !old.closed {
                old.end = End::Broken;
            }
            let numbers: Vec<_> = old.unacknowledged.iter().map(|(_, number)| *number).collect();
            if again {
                let device = &mut self.devices[device];
                device.publish_again(&self.setup, &mut self.ledger, &numbers, (index, &mut link));
            }
        }
        self.links.push(link);
        self.nodes[shard].sockets.connect(index);
    }

    /// The device's connection, if it can send.
    pub fn link(&mut self, device: usize) -> Option<usize> {
        let index = self.devices[device].link?;
        self.links[index].is_writable().then_some(index)
    }

    pub fn publish(&mut self, device: usize, wish: &Wish) {
        if self.link(device).is_none() {
            let shard = self.random.below(self.nodes.len());
            self.connect(device, shard, true);
        }
        if let Some(index) = self.link(device) {
            let link = (index, &mut self.links[index]);
            self.devices[device].publish(&self.setup, &mut self.ledger, link, wish);
        }
    }

    pub fn ping(&mut self, device: usize) {
        if let Some(index) = self.link(device) {
            self.links[index].to_server.extend_from_slice(&packets::PINGREQ);
            self.links[index].pings += 1;
        }
    }

    /// A device leaves. An earlier connection of it may still be on its way to its shard.
    pub fn leave(&mut self, device: usize, how: Leave) {
        let Some(index) = self.link(device) else { return };
        let link = &mut self.links[index];
        let whole = link.to_server.len();
        match how {
            Leave::Goodbye => link.to_server.extend_from_slice(&packets::DISCONNECT),
            Leave::End => {}
            Leave::Cut => {
                let unread = link.unread().len();
                link.to_server.truncate(whole - self.random.below(unread + 1));
            }
            Leave::Reset => link.to_server.truncate(link.received),
        }
        let broken = link.to_server.len() < whole;
        link.finish(if broken { End::Broken } else { End::Whole });
    }

    /// Something for one node to do, with everything around it.
    fn with<R>(&mut self, shard: usize, work: impl FnOnce(&mut Node, &mut Around<'_>) -> R) -> R {
        self.now_ns += 1_000;
        let clock = self.clock();
        self.ledger.age_ms = clock.age_ms;
        let mut around = Around {
            setup: &self.setup,
            links: &mut self.links,
            ledger: &mut self.ledger,
            random: &mut self.random,
            ends: &mut self.ends,
            stopping: self.stopping,
            tell: Vec::new(),
            leaving: Vec::new(),
            needs: &self.begun.needs,
            clock,
        };
        let result = work(&mut self.nodes[shard], &mut around);
        let (tell, leaving) = (around.tell, around.leaving);
        for hand_over in leaving {
            let node = &mut self.nodes[hand_over.to.index()];
            if node.stopping == Stopping::Finished {
                self.links[hand_over.link].closed = true;
                self.links[hand_over.link].finish(End::Stopped);
            } else {
                node.handed_over.push_back(hand_over);
                node.awake = true;
            }
        }
        for shard in tell {
            self.nodes[shard.index()].awake = true;
        }
        result
    }

    /// One step of a shard's turn, if it is awake. Whether it was.
    pub fn step(&mut self, shard: usize) -> bool {
        let awake = self.nodes[shard].is_awake(&self.links);
        if awake {
            self.with(shard, Node::step);
        }
        awake
    }

    /// A shard goes on to the end of its turn, if it is awake.
    pub fn turn(&mut self, shard: usize) {
        if self.nodes[shard].is_awake(&self.links) {
            while !self.with(shard, Node::step) {}
        }
    }

    /// The disk takes a step of what a shard asks it for. Whether the process goes on.
    pub fn disk(&mut self, shard: usize) -> bool {
        self.nodes[shard].disk(&mut self.disk, &mut self.random, &mut self.ledger)
    }

    /// A shard takes other rules, which make the same records, between two messages.
    pub fn reload(&mut self, shard: usize) {
        let node = &mut self.nodes[shard];
        if let Some(running) = &mut node.shard {
            let version = node.metrics.rules_version.value() + 1;
            running.change(self.setup.rules(version, &mut self.random));
            node.awake = true;
        }
    }

    /// A shard does what is done now and then.
    pub fn keep_house(&mut self, shard: usize) {
        self.with(shard, |node, around| node.keep_house(around));
    }

    /// All but `except` turn and commit until nothing changes. Nobody is woken who would sleep.
    pub fn settle_without(&mut self, except: &[usize]) {
        let shards: Vec<_> = (0..self.nodes.len()).filter(|i| !except.contains(i)).collect();
        let (mut idle, mut before) = (0, self.progress());
        while idle < IDLE_ROUNDS_MAX {
            let mut changed = false;
            for &shard in &shards {
                changed |= !self.nodes[shard].storage.is_idle();
                // Sometimes more gathers for a commit.
                if self.random.below(3) > 0 {
                    assert!(self.disk(shard), "a commit fails");
                }
                // Mostly others have their turns between its steps.
                let steps = 1 + self.random.below(9);
                changed |= (0..steps).fold(false, |changed, _| self.step(shard) | changed);
            }
            if !changed {
                return;
            }
            let now = self.progress();
            idle = if now == before { idle + 1 } else { 0 };
            before = now;
        }
        panic!("no end: {}", self.describe());
    }

    /// Counts that stand still when nothing comes of anything.
    fn progress(&self) -> [usize; 5] {
        let links = self.links.iter();
        let received = links.clone().map(|link| link.received).sum();
        let closed = links.filter(|link| link.closed).count();
        let storage = self.nodes.iter().flat_map(|node| node.storage.counts).sum::<u64>() as usize;
        [received, closed, self.ledger.acknowledged, self.ledger.commits(), storage]
    }

    /// Everybody turns and commits until nothing changes; then nobody waits for anything.
    pub fn settle(&mut self) {
        self.settle_without(&[]);
        self.check_rest();
    }

    /// All shards stop.
    pub fn stop(&mut self) {
        self.stopping = true;
        self.nodes.iter_mut().for_each(|node| node.awake = true);
        self.settle_without(&[]);
        let finished = self.nodes.iter().all(|node| node.stopping == Stopping::Finished);
        assert!(finished, "a stop does not end: {}", self.describe());
        self.check_stopped();
    }

    /// What holds when nobody has anything to do.
    fn check_rest(&mut self) {
        let state = self.describe();
        for (index, link) in self.links.iter().enumerate() {
            if matches!(link.end, End::Open | End::Whole) {
                assert_eq!(link.unread(), [0; 0], "link {index}: {state}");
                for &number in &link.sent {
                    let places = self.ledger.messages[number].places.len();
                    let recorded = self.ledger.recorded(number);
                    assert_eq!(recorded, places, "message {number} of link {index} is in the log");
                }
            }
            let newest = self.devices[link.device].link.map(|newest| &self.links[newest]);
            if link.end == End::Open {
                assert!(!link.closed, "link {index}");
                let waiting = (link.unacknowledged.len(), link.pings);
                assert_eq!(waiting, (0, 0), "link {index} waits: {state}");
            } else if link.ended || newest.is_some_and(|newest| newest.end == End::Open) {
                assert!(link.closed, "link {index} ended or was taken over: {state}");
            }
        }
        self.ledger.check_acknowledged(&[]);
        self.check_credits();
    }

    /// Credits are all back, and so are receive buffers.
    fn check_credits(&mut self) {
        let mut granted_by = vec![0; self.nodes.len()];
        for shard in 0..self.nodes.len() {
            self.keep_house(shard);
            let node = &self.nodes[shard];
            let buffers = usize::from(self.setup.receive_buffers());
            assert_eq!(node.sockets.buffers(), (buffers, 0), "receive buffers");
            assert_eq!(node.metrics.ring.pinned_buffers.value(), 0);
            assert_eq!(node.metrics.mqtt.held.value(), 0, "connections are held");
            let open = self.links.iter().filter(|link| !link.closed).count() as u64;
            assert!(node.metrics.mqtt.connections.value() <= open);
            for (to, way) in node.metrics.ring.ways.iter().enumerate() {
                if to == node.index {
                    continue;
                }
                assert_eq!(way.held.value(), 0, "connections wait for {to}");
                assert_eq!(way.records.value(), way.settled.value(), "records to {to}");
                let (granted, spent) = (way.granted_bytes.value(), way.spent_bytes.value());
                let free = granted.checked_sub(spent).expect("spent no more than was granted");
                let standing = self.setup.credit_bytes as u64;
                let expected = standing / 2 + 1..=standing;
                assert!(
                    expected.contains(&free),
                    "{free} of {standing} from {} to {to}",
                    node.index
                );
                granted_by[to] += free;
            }
        }
        // Who sleeps may not have seen yet that some of it is back.
        self.nodes.iter_mut().for_each(|node| node.awake = true);
        self.settle_without(&[]);
        for (node, free) in self.nodes.iter_mut().zip(granted_by) {
            assert_eq!(node.shard().log().kept_room(), free, "room kept by {}", node.index);
        }
        self.check_ends();
    }

    /// The logs hold what was read when it was sealed, and no more.
    fn check_ends(&self) {
        for stream in 0..self.setup.streams.len() {
            for partition in 0..self.setup.partitions() {
                let place = Place { stream, partition };
                let end = self.ends[index_of(&self.setup, place)];
                assert_eq!(self.ledger.end(place), end, "records in {place:?}");
            }
        }
    }

    /// What holds when all shards have stopped.
    fn check_stopped(&self) {
        let gave_up = self.nodes.iter().filter(|node| node.gave_up).map(|node| node.index);
        let gave_up: Vec<_> = gave_up.collect();
        self.ledger.check_acknowledged(&gave_up);
        if !gave_up.is_empty() {
            return;
        }
        self.check_ends();
        for (index, link) in self.links.iter().enumerate() {
            assert!(link.closed, "link {index}");
            if link.end != End::Stopped {
                continue;
            }
            for &number in &link.sent {
                let message = &self.ledger.messages[number];
                let recorded = self.ledger.recorded(number);
                let whole = recorded == message.places.len();
                assert!(recorded == 0 || whole, "message {number} is in {recorded} places");
                let owed = recorded > 0 && message.contents.qos > 0;
                assert!(!owed || message.acknowledged, "message {number} was taken");
            }
        }
    }

    /// How often connections were held for `cause`.
    pub fn holds(&self, cause: HoldCause) -> u64 {
        self.nodes.iter().map(|node| node.metrics.mqtt.holds.value(cause)).sum()
    }

    /// Who waits for what.
    pub fn describe(&mut self) -> String {
        let mut out = String::new();
        for shard in 0..self.nodes.len() {
            self.keep_house(shard);
            let node = &mut self.nodes[shard];
            out += &format!("\n{}", node.describe());
        }
        for (index, link) in self.links.iter().enumerate().filter(|(_, link)| !link.closed) {
            let (unread, waiting) = (link.unread().len(), &link.unacknowledged);
            out += &format!("\nlink {index}: {:?}, {unread} unread, waiting {waiting:?}", link.end);
        }
        out
    }
}

/// By shard, its ways to and from all others.
fn ways(setup: &Setup) -> Vec<Vec<Way>> {
    let shards = setup.shards as usize;
    let mut ways: Vec<Vec<Way>> = (0..shards).map(|_| Vec::new()).collect();
    for a in 0..shards {
        for b in a + 1..shards {
            let (to_b, from_a) = lane::<Crossing>(setup.ring_slots);
            let (to_a, from_b) = lane::<Crossing>(setup.ring_slots);
            ways[a].push(Way { peer: ShardId(b as u32), to: to_b, from: from_b });
            ways[b].push(Way { peer: ShardId(a as u32), to: to_a, from: from_a });
        }
    }
    ways
}
