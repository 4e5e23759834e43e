//! Random schedules.

use std::cell::RefCell;

use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};
use tidegate::observe::HoldCause;
use tidegate::record::{Compression, Durability, PartitionBy};

use crate::devices::{Size, Wish};
use crate::packets::Contents;
use crate::setup::{Setup, Stream};
use crate::world::{Leave, World};

const DEVICES: usize = 6;

#[derive(Debug, Clone)]
enum Op {
    /// So many messages, alike.
    Publish(usize, Wish, usize),
    Ping(usize),
    /// To any shard; whether what was not acknowledged is sent again.
    Connect(usize, usize, bool),
    Leave(usize, Leave),
    /// A whole turn of a shard.
    Turn(usize),
    /// A step of one.
    Step(usize),
    /// The disk of a shard writes or flushes.
    Disk(usize),
    /// All but one go on as long as they can.
    Without(usize),
    /// A shard takes other rules.
    Reload(usize),
}

#[derive(Debug, Clone)]
struct Case {
    setup: Setup,
    seed: u64,
    first: Vec<Op>,
    second: Vec<Op>,
    /// Shards whose disks are full in the end.
    full_disks: Vec<bool>,
}

fn topics() -> impl Strategy<Value = String> {
    (0..3_u8, 0..2_u8, 0..6_u8)
        .prop_map(|(a, b, c)| format!("{}/{}/{c}", (b'a' + a) as char, (b'x' + b) as char))
}

/// Sizes of payloads, and of packets that are as large as they may be.
fn sizes() -> impl Strategy<Value = Size> {
    prop_oneof![
        8 => (0..100_usize).prop_map(Size::Bytes),
        3 => (1..16_usize).prop_map(Size::Sixteenths),
        1 => Just(Size::Sixteenths(16)),
    ]
}

fn wishes() -> impl Strategy<Value = Wish> {
    let property = ("[a-z]{0,3}", "[a-z]{0,10}");
    (
        (topics(), 0..4_u8, any::<bool>()),
        proptest::option::of("[a-z]{0,12}"),
        proptest::collection::vec(property, 0..5),
        sizes(),
        proptest::option::of(1..4_u8),
    )
        .prop_map(|((topic, qos, retain), content_type, properties, size, alias)| {
            let qos = qos.min(1);
            let contents = Contents { topic, qos, retain, content_type, properties };
            Wish { contents, size, alias }
        })
}

fn leaves() -> impl Strategy<Value = Leave> {
    prop_oneof![Just(Leave::Goodbye), Just(Leave::End), Just(Leave::Cut), Just(Leave::Reset)]
}

fn ops() -> impl Strategy<Value = Vec<Op>> {
    // Taken modulo the number of shards.
    let shard = || 0..12_usize;
    let op = prop_oneof![
        20 => (0..DEVICES, wishes(), 1..8_usize)
            .prop_map(|(device, wish, count)| Op::Publish(device, wish, count)),
        2 => (0..DEVICES).prop_map(Op::Ping),
        4 => (0..DEVICES, shard(), any::<bool>())
            .prop_map(|(device, shard, again)| Op::Connect(device, shard, again)),
        2 => (0..DEVICES, leaves()).prop_map(|(device, how)| Op::Leave(device, how)),
        20 => shard().prop_map(Op::Turn),
        40 => shard().prop_map(Op::Step),
        8 => shard().prop_map(Op::Disk),
        2 => shard().prop_map(Op::Without),
        3 => shard().prop_map(Op::Reload),
    ];
    proptest::collection::vec(op, 0..120)
}

fn streams() -> impl Strategy<Value = Vec<Stream>> {
    let filter = prop_oneof![
        4 => Just("#"), 2 => Just("a/#"), 2 => Just("+/x/#"), 1 => Just("b/y/+"), 1 => Just("a/x/#")
    ];
    let by = prop_oneof![
        5 => Just(PartitionBy::Topic), 2 => Just(PartitionBy::Client), 1 => Just(PartitionBy::None)
    ];
    let durability =
        prop_oneof![Just(Durability::Fsync), Just(Durability::Write), Just(Durability::Memory)];
    let compression = prop_oneof![3 => Just(Compression::None), 1 => Just(Compression::Lz4)];
    let kept = (durability, compression);
    let stream = (filter, by, kept, any::<bool>()).prop_map(|(filter, by, kept, by_rule)| {
        let (durability, compression) = kept;
        Stream { filter, by, durability, compression, by_rule }
    });
    proptest::collection::vec(stream, 1..4)
}

/// Small ones mostly; some with packets so large that the memory for detached buffers runs out.
fn setups() -> impl Strategy<Value = Setup> {
    let small = (256..2_048_usize, 256..4_096_usize, 0..4_096_usize, 16..512_usize);
    let large = (
        400_000..1_500_000_usize,
        4_000_000..8_000_000_usize,
        0..4_000_000_usize,
        10_000..60_000_usize,
    );
    let sizes = prop_oneof![15 => small, 1 => large];
    let limits = (1..20_u16, 0..20_u32, 512..8_192_usize);
    (1..5_u32, streams(), sizes, 0..4_u32, (1..4_u64, 1..3_u16), limits).prop_map(
        |(shards, streams, sizes, slots, (segment_factor, receive_factor), limits)| Setup {
            // A message for all streams fits a ring.
            ring_slots: 4 << slots,
            shards,
            streams,
            packet_bytes_max: sizes.0,
            credit_bytes: sizes.1,
            log_slack: sizes.2,
            segment_factor,
            receive_factor,
            receive_bytes: sizes.3,
            receive_maximum: limits.0,
            unacknowledged_slack: limits.1,
            held_bytes_max: limits.2,
            ..Setup::default()
        },
    )
}

fn cases() -> impl Strategy<Value = Case> {
    let full = proptest::collection::vec(proptest::bool::weighted(0.1), 4);
    (setups(), any::<u64>(), ops(), ops(), full).prop_map(
        |(setup, seed, first, second, full_disks)| Case { setup, seed, first, second, full_disks },
    )
}

fn apply(world: &mut World, op: &Op) {
    let shards = world.nodes.len();
    match op {
        Op::Publish(device, wish, count) => {
            (0..*count).for_each(|_| world.publish(*device, wish));
        }
        Op::Ping(device) => world.ping(*device),
        Op::Connect(device, shard, again) => world.connect(*device, *shard % shards, *again),
        Op::Leave(device, how) => world.leave(*device, *how),
        Op::Turn(shard) => world.turn(*shard % shards),
        Op::Step(shard) => {
            world.step(*shard % shards);
        }
        Op::Disk(shard) => assert!(world.disk(*shard % shards), "a commit fails"),
        Op::Reload(shard) => world.reload(*shard % shards),
        Op::Without(shard) => world.settle_without(&[*shard % shards]),
    }
}

/// How often what is hard to reach was reached.
#[derive(Debug, Default)]
struct Reached {
    messages: usize,
    acknowledged: usize,
    crossed: u64,
    hand_offs: u64,
    taken_over: u64,
    held_by_log: u64,
    held_by_ring: u64,
    held_by_window: u64,
    held_by_disk: u64,
    kept_buffers: usize,
    gave_up: usize,
    /// Times that a shard took other rules, and records that rules made.
    reloads: u64,
    made: u64,
}

impl Reached {
    fn add(&mut self, world: &World) {
        self.messages += world.ledger.messages.len();
        self.acknowledged += world.ledger.acknowledged;
        for node in &world.nodes {
            self.crossed += node.metrics.ring.arrived.value();
            self.hand_offs += node.metrics.ring.hand_offs.value();
            self.taken_over += node.metrics.mqtt.taken_over.value();
            self.gave_up += usize::from(node.gave_up);
            self.reloads += node.metrics.changes.value();
            let rules = node.metrics.streams.iter().map(|stream| &stream.rule);
            self.made += rules.map(|rule| rule.passed.value()).sum::<u64>();
        }
        self.held_by_log += world.holds(HoldCause::LogBuffer);
        self.held_by_ring += world.holds(HoldCause::Ring);
        self.held_by_window += world.holds(HoldCause::Unacknowledged);
        self.held_by_disk += world.holds(HoldCause::DiskFull);
    }

    /// A full disk is too rare to count on; it has a test of its own.
    fn is_enough(&self) -> bool {
        let holds = [self.held_by_log, self.held_by_ring, self.held_by_window];
        let others = [self.crossed, self.hand_offs, self.taken_over, self.reloads, self.made];
        holds.iter().chain(&others).all(|count| *count > 0) && self.kept_buffers > 0
    }
}

fn run(case: &Case, reached: &mut Reached) {
    let mut world = World::new(&case.setup, DEVICES, case.seed);
    for op in &case.first {
        apply(&mut world, op);
        let kept = world.nodes.iter().map(|node| node.sockets.buffers().1).max().unwrap_or(0);
        assert!(kept <= case.setup.pinned_buffers_max());
        reached.kept_buffers = reached.kept_buffers.max(kept);
    }
    world.settle();
    for (node, full) in world.nodes.iter_mut().zip(&case.full_disks) {
        node.storage.full = *full;
    }
    for op in &case.second {
        apply(&mut world, op);
    }
    world.stop();
    reached.add(&world);
}

#[test]
fn whatever_the_schedule_what_is_acknowledged_is_there() {
    // No files: a failing schedule is printed.
    let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::default() };
    let many = config.cases >= 128;
    let reached = RefCell::new(Reached::default());
    let result = TestRunner::new(config).run(&cases(), |case| {
        run(&case, &mut reached.borrow_mut());
        Ok(())
    });
    let reached = reached.into_inner();
    println!("{reached:?}");
    match result {
        Ok(()) => assert!(reached.is_enough() || !many, "{reached:?}"),
        // On one line: the schedules are long.
        Err(TestError::Fail(reason, case)) => panic!("{reason}\nwith {case:?}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}
