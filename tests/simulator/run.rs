//! One seed: the process runs, ends in one way or another, and starts on what it left, again and
//! again; in the end all faults stop, and everybody must get on.

use tidegate::observe::HoldCause;

use crate::case::{Case, Kind, leave, wish};
use crate::ledger::Loss;
use crate::random::Random;
use crate::setup::Place;
use crate::world::World;

/// Calls to the disk after which a start that is to be interrupted is.
const CALLS_MAX: usize = 120;
/// Starts that fail in a row before the faults stop.
const STARTS_MAX: usize = 20;

/// What a seed came to.
#[derive(Debug, Clone, Copy, Default)]
pub struct Figures {
    pub steps: u64,
    pub crashes: u64,
    pub starts: u64,
    pub acknowledged: u64,
    pub checked: u64,
    pub crossed: u64,
    /// Segments that were filled, deleted, used again, and moved.
    pub segments: [u64; 4],
    pub fenced: u64,
    pub held: u64,
    /// Times that a shard took other rules.
    pub reloads: u64,
    /// Of everything that happened: the same seed has the same.
    pub hash: u64,
}

impl Figures {
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.crashes += other.crashes;
        self.starts += other.starts;
        self.acknowledged += other.acknowledged;
        self.checked += other.checked;
        self.crossed += other.crossed;
        for (count, other) in self.segments.iter_mut().zip(other.segments) {
            *count += other;
        }
        self.fenced += other.fenced;
        self.held += other.held;
        self.reloads += other.reloads;
        self.hash = self.hash.rotate_left(5) ^ other.hash;
    }
}

/// A seed under way.
pub struct Run<'a> {
    case: Case,
    world: World,
    random: Random,
    /// When rules are read again; apart, so that all else stays what a seed chose before.
    reloads: Random,
    /// By shard: its disk is slow.
    slow: [bool; 4],
    figures: &'a mut Figures,
    trace: bool,
}

/// Simulates a seed; what holds is asserted. `figures` tells how far it came, also when it fails.
pub fn run(seed: u64, trace: bool, figures: &mut Figures) {
    let mut random = Random(seed.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(1));
    let case = Case::new(&mut random);
    if trace {
        println!("{case:#?}");
    }
    let mut world = World::new(&case.setup, case.devices, random.next());
    world.disk.faults = case.faults;
    world.ledger.harmed = case.is_harmful();
    let reloads = Random(seed ^ 0x5e1f);
    let mut run = Run { world, random, reloads, slow: [false; 4], figures, trace, case };
    for _ in 0..run.case.runs {
        let steps = 1 + run.random.below(run.case.steps_max);
        let lives = (0..steps).all(|_| run.step());
        run.end(lives);
        run.start();
    }
    run.finish();
}

impl Run<'_> {
    fn tell(&mut self, text: impl FnOnce() -> String) {
        if self.trace {
            println!("{:6} {}", self.figures.steps, text());
        }
    }

    /// Adds what can be seen to the hash.
    fn note(&mut self) {
        let ledger = &self.world.ledger;
        let mut mixed = [
            self.random.0,
            self.world.random.0,
            ledger.acknowledged as u64,
            ledger.checked,
            ledger.commits() as u64,
            self.world.disk.digest(),
        ];
        for part in &mut mixed {
            self.figures.hash = Random(self.figures.hash ^ *part).next();
        }
    }

    /// One step. Whether the process lives.
    fn step(&mut self) -> bool {
        self.figures.steps += 1;
        let random = &mut self.random;
        let kind = self.case.kind(random);
        let shard = random.below(self.world.nodes.len());
        let device = random.below(self.case.devices);
        self.tell(|| format!("{kind:?}, shard {shard}, device {device}"));
        if self.case.rules && self.reloads.one_in(15) {
            self.figures.reloads += 1;
            self.world.reload(shard);
        }
        let (world, random) = (&mut self.world, &mut self.random);
        let mut lives = true;
        match kind {
            Kind::Publish => {
                let wish = wish(random, self.case.setup.compaction.is_some());
                (0..1 + random.below(6)).for_each(|_| world.publish(device, &wish));
            }
            Kind::Ping => world.ping(device),
            Kind::Connect => world.connect(device, shard, random.below(8) > 0),
            Kind::Leave => world.leave(device, leave(random)),
            Kind::Turn => world.turn(shard),
            Kind::Step => {
                world.step(shard);
            }
            Kind::Disk => {
                let steps = 1 + random.below(4);
                let works = !self.slow[shard] || random.below(10) == 0;
                lives = !works || (0..steps).all(|_| world.disk(shard));
            }
            Kind::Consume => {
                let place = Place {
                    stream: random.below(world.setup.streams.len()),
                    partition: random.below(world.setup.partitions() as usize) as u32,
                };
                world.consume(place);
            }
            Kind::House => world.keep_house(shard),
            Kind::Pass => world.now_ns += 1_000_000 << random.below(24),
            Kind::Stall => {
                if let Some(link) = world.devices[device].link {
                    world.links[link].stalled ^= true;
                }
            }
            Kind::Trouble => match random.below(2) {
                0 => world.nodes[shard].storage.full ^= true,
                _ => self.slow[shard] ^= true,
            },
            Kind::Harm => {
                let harmed = world.disk.harm();
                self.tell(|| format!("harmed: {harmed:?}"));
            }
        }
        self.note();
        lives
    }

    /// The process ends; `lives` is false where it has ended by itself.
    fn end(&mut self, lives: bool) {
        let random = &mut self.random;
        let loss = match self.case.power_cuts && (!self.case.kills || random.below(2) == 0) {
            true => Loss::Power,
            false => Loss::Process,
        };
        if lives && self.case.stops && random.below(4) == 0 {
            self.tell(|| "stop".to_owned());
            self.calm(true);
            self.world.stop();
            self.calm(false);
            let nodes = self.world.nodes.len();
            for _ in 0..self.random.below(40) {
                let shard = self.random.below(nodes);
                self.world.disk(shard);
            }
        }
        self.tell(|| format!("crash: {loss:?}"));
        self.count();
        self.figures.crashes += 1;
        self.world.crash(loss);
        self.note();
    }

    fn count(&mut self) {
        for node in &mut self.world.nodes {
            let counts = std::mem::take(&mut node.storage.counts);
            self.figures.segments.iter_mut().zip(counts).for_each(|(all, count)| *all += count);
            self.figures.crossed += node.metrics.ring.arrived.value();
            let holds = &node.metrics.mqtt.holds;
            self.figures.held += holds.value(HoldCause::DiskFull) + holds.value(HoldCause::Ring);
        }
        self.figures.fenced += self.world.begun.recovered.holes().count() as u64;
        self.figures.acknowledged = self.world.ledger.acknowledged as u64;
        self.figures.checked = self.world.ledger.checked;
    }

    /// A process starts, at once or after some that are interrupted.
    fn start(&mut self) {
        for tries in 0.. {
            let shards = match self.case.other_shards {
                true => 1 + self.random.below(4) as u32,
                false => self.case.setup.shards,
            };
            let interrupted = self.case.interrupted_starts && self.random.below(4) == 0;
            let calls = match interrupted && tries < STARTS_MAX {
                true => 1 + self.random.below(CALLS_MAX),
                false => usize::MAX,
            };
            self.calm(tries >= STARTS_MAX);
            self.figures.starts += 1;
            let started = self.world.start(shards, calls);
            let state = (shards, self.world.begun.generation, started);
            self.tell(|| format!("shards, generation, started: {state:?}"));
            self.note();
            if started {
                break;
            }
            let loss = if self.case.power_cuts { Loss::Power } else { Loss::Process };
            self.figures.crashes += 1;
            self.world.crash(loss);
        }
        self.calm(false);
        let damages = self.world.begun.recovered.damages.clone();
        if !damages.is_empty() {
            self.tell(|| format!("{damages:?}"));
        }
    }

    /// Whether faults stop for a while.
    fn calm(&mut self, calm: bool) {
        self.world.disk.calm = calm;
        if calm {
            self.slow = [false; 4];
            self.world.links.iter_mut().for_each(|link| link.stalled = false);
            self.world.nodes.iter_mut().for_each(|node| node.storage.full = false);
        }
    }

    /// All faults stop: whatever was sent is acknowledged, and everything is there.
    fn finish(&mut self) {
        self.tell(|| "all faults stop".to_owned());
        self.calm(true);
        for device in 0..self.case.devices {
            let shard = self.random.below(self.world.nodes.len());
            self.world.connect(device, shard, true);
        }
        self.world.settle();
        self.world.read_all();
        self.world.stop();
        self.count();
        self.figures.crashes += 1;
        self.world.crash(if self.case.power_cuts { Loss::Power } else { Loss::Process });
        assert!(self.world.start(self.case.setup.shards, usize::MAX), "the last start");
        self.figures.starts += 1;
        self.count();
        self.note();
    }
}
