//! What a seed chooses: the shards, the streams, the faults of its disk and network, and how likely
//! each step is. Each seed has some of the faults only, so that one does not hide what another finds.

use tidegate::record::{Compression, Durability, PartitionBy};

use crate::devices::{Size, Wish};
use crate::disk::Faults;
use crate::packets::Contents;
use crate::random::Random;
use crate::setup::{Setup, Stream};
use crate::world::Leave;

/// Steps of a seed, about.
const STEPS: usize = 1_500;
/// Kinds of steps; see [`Kind`].
const KINDS: usize = 13;

/// A step of the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Publish,
    Ping,
    Connect,
    Leave,
    Turn,
    Step,
    Disk,
    Consume,
    House,
    /// Time passes.
    Pass,
    /// A network stalls or goes on.
    Stall,
    /// A disk has no room, is slow, or is well again.
    Trouble,
    /// Something that is on the disk is harmed.
    Harm,
}

const ALL: [Kind; KINDS] = [
    Kind::Publish,
    Kind::Ping,
    Kind::Connect,
    Kind::Leave,
    Kind::Turn,
    Kind::Step,
    Kind::Disk,
    Kind::Consume,
    Kind::House,
    Kind::Pass,
    Kind::Stall,
    Kind::Trouble,
    Kind::Harm,
];

/// What one seed simulates.
#[derive(Debug, Clone)]
pub struct Case {
    pub setup: Setup,
    pub devices: usize,
    /// How often the process runs.
    pub runs: usize,
    /// Steps of a run at the most.
    pub steps_max: usize,
    pub faults: Faults,
    /// Something on the disk is harmed by other things than the faults of writes.
    pub harms: bool,
    pub power_cuts: bool,
    pub kills: bool,
    pub stops: bool,
    pub other_shards: bool,
    pub interrupted_starts: bool,
    /// Rules fill some streams, and are read again.
    pub rules: bool,
    weights: [usize; KINDS],
}

fn yes(random: &mut Random) -> bool {
    random.below(2) == 0
}

fn one<T: Copy>(random: &mut Random, of: &[T]) -> T {
    of[random.below(of.len())]
}

/// Mostly none; else a few of ten thousand.
fn rate(random: &mut Random, most: usize) -> u32 {
    if yes(random) { 0 } else { 1 + random.below(most) as u32 }
}

impl Case {
    pub fn new(random: &mut Random) -> Self {
        let harmful = random.below(4) == 0;
        let mut faults = Faults::default();
        if yes(random) {
            faults.read_errors = rate(random, 300);
            faults.write_errors = rate(random, 200);
            faults.flush_errors = rate(random, 200);
            faults.other_errors = rate(random, 300);
        }
        if harmful {
            faults.lies = rate(random, 1_000);
            faults.misdirected = rate(random, 500);
        }
        // Short runs crash often, long ones fill segments and let go of them.
        let steps_max = one(random, &[20, 60, 120, 400, 1_200]);
        let power_cuts = random.below(4) > 0;
        // Chosen apart, so that what a seed chose before these were there it chooses still.
        let mut apart = Random(random.0 ^ 0xc1ea);
        let mut setup = setup(random);
        setup.tail_cache = apart.below(4) > 0;
        setup.clean_live_max_percent = one(&mut apart, &[90, 90, 50, 10]);
        if apart.below(4) == 0 {
            compact(&mut setup, &mut apart);
        }
        let rules = yes(&mut apart);
        if rules {
            setup.streams.iter_mut().for_each(|stream| stream.by_rule = yes(&mut apart));
        }
        let mut case = Self {
            setup,
            devices: 1 + random.below(6),
            runs: 2 + random.below(2 * STEPS / steps_max),
            steps_max,
            faults,
            harms: harmful && (!faults.harm() || yes(random)),
            power_cuts,
            kills: !power_cuts || yes(random),
            stops: yes(random),
            other_shards: yes(random),
            interrupted_starts: yes(random),
            rules,
            weights: [0; KINDS],
        };
        case.weights = case.weights(random);
        case
    }

    fn weights(&self, random: &mut Random) -> [usize; KINDS] {
        ALL.map(|kind| {
            let (most, always) = match kind {
                Kind::Publish => (30, true),
                Kind::Ping | Kind::Leave => (3, false),
                Kind::Connect => (5, false),
                Kind::Turn => (30, false),
                Kind::Step => (40, true),
                Kind::Disk => (60, true),
                Kind::Consume => (10, false),
                Kind::House => (8, false),
                Kind::Pass | Kind::Trouble | Kind::Stall => (2, false),
                Kind::Harm if self.harms => return 1,
                Kind::Harm => return 0,
            };
            if always || yes(random) { 1 + random.below(most) } else { 0 }
        })
    }

    /// The next step.
    pub fn kind(&self, random: &mut Random) -> Kind {
        let mut at = random.below(self.weights.iter().sum());
        for (kind, weight) in ALL.into_iter().zip(self.weights) {
            if at < weight {
                return kind;
            }
            at -= weight;
        }
        Kind::Step
    }

    /// Whether what was durable is harmed.
    pub fn is_harmful(&self) -> bool {
        self.harms || self.faults.harm()
    }
}

fn setup(random: &mut Random) -> Setup {
    let streams = 1 + random.below(3);
    let streams = (0..streams).map(|_| stream(random)).collect();
    Setup {
        shards: 1 + random.below(4) as u32,
        partitions_there: None,
        streams,
        packet_bytes_max: 256 + random.below(768),
        ring_slots: 4 << random.below(4),
        credit_bytes: 256 + random.below(2_048),
        log_slack: random.below(2_048),
        segment_factor: 1 + random.below(2) as u64,
        zeros: random.below(3) > 0,
        retention: yes(random).then(|| {
            let bytes = one(random, &[0, 1_000, 5_000, 20_000, u64::MAX]);
            (bytes, one(random, &[1_000, 3_600_000, u64::MAX]))
        }),
        compaction: None,
        compact_keys_max: 1,
        clean_live_max_percent: 90,
        tail_cache: true,
        receive_factor: 1 + random.below(2) as u16,
        receive_bytes: 16 + random.below(496),
        receive_maximum: 1 + random.below(20) as u16,
        unacknowledged_slack: random.below(20) as u32,
        held_bytes_max: 512 + random.below(4_096),
    }
}

/// The first stream is compacted.
fn compact(setup: &mut Setup, random: &mut Random) {
    setup.compaction = Some(one(random, &[0, 1_000, 3_600_000]));
    setup.compact_keys_max = one(random, &[1, 3, 100]);
    let by = one(random, &[PartitionBy::Client, PartitionBy::Client, PartitionBy::Topic]);
    setup.streams[0] = Stream { filter: "#", by, ..setup.streams[0] };
}

fn stream(random: &mut Random) -> Stream {
    Stream {
        filter: one(random, &["#", "#", "a/#", "+/x/#", "b/y/+", "a/x/#"]),
        by: one(random, &[PartitionBy::Topic, PartitionBy::Client, PartitionBy::None]),
        durability: one(
            random,
            &[Durability::Fsync, Durability::Fsync, Durability::Write, Durability::Memory],
        ),
        compression: one(random, &[Compression::None, Compression::None, Compression::Lz4]),
        by_rule: false,
    }
}

/// A message; where `deletes` says so now and then one without a payload.
pub fn wish(random: &mut Random, deletes: bool) -> Wish {
    let topic = format!(
        "{}/{}/{}",
        one(random, &["a", "b", "c"]),
        one(random, &["x", "y"]),
        random.below(6)
    );
    let contents = Contents {
        topic,
        qos: u8::from(random.below(4) > 0),
        retain: random.below(8) == 0,
        content_type: (random.below(8) == 0).then(|| "text/plain".to_owned()),
        properties: (0..random.below(3)).map(|n| (format!("n{n}"), "v".to_owned())).collect(),
    };
    let size = match random.below(12) {
        0..8 => Size::Bytes(random.below(100)),
        8..11 => Size::Sixteenths(1 + random.below(15)),
        _ => Size::Sixteenths(16),
    };
    let size = if deletes && random.below(6) == 0 { Size::Bytes(0) } else { size };
    Wish { contents, size, alias: yes(random).then(|| 1 + random.below(3) as u8) }
}

/// How a device leaves.
pub fn leave(random: &mut Random) -> Leave {
    one(random, &[Leave::Goodbye, Leave::End, Leave::Cut, Leave::Reset])
}
