//! Credits and messages are conserved whatever the schedule: granted = spent + free, nothing is lost
//! or doubled, and everything moves on as long as anybody reads.
//!
//! Toy shards (toy_shard.rs) are called in random order, in one thread; then each is called as long
//! as it has something to do or was told, until none is. So a wake-up that is not asked for shows as
//! a letter that never leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use proptest::prelude::*;

use super::toy_shard::{self, Letter, Options, ToyShard, check_at_rest};

/// One call of one shard.
#[derive(Debug, Clone)]
enum Step {
    Write { connection: usize, to: Vec<usize>, price: u64 },
    Send(usize),
    Receive(usize),
    Commit,
    Grant,
    Publish,
    StopReading,
    ReadAgain,
}

struct World {
    shards: Vec<ToyShard>,
    reads: Vec<bool>,
    alive: Arc<AtomicI64>,
}

impl World {
    fn new(shards: usize, options: Options) -> Self {
        let alive = Arc::new(AtomicI64::new(0));
        let reads = vec![true; shards];
        Self { shards: toy_shard::shards(shards, options, &alive), reads, alive }
    }

    fn take(&mut self, shard: usize, step: Step) {
        let (toy, reads) = (&mut self.shards[shard], &mut self.reads[shard]);
        match step {
            Step::Write { connection, mut to, price } => {
                to.retain(|other| *other != shard);
                if !to.is_empty() {
                    toy.write(connection, Letter { to, price });
                }
            }
            Step::Send(limit) => drop(toy.send(limit)),
            Step::Receive(limit) if *reads => drop(toy.receive(limit)),
            Step::Commit if *reads => toy.commit(),
            Step::Grant if *reads => toy.grant(),
            Step::Receive(_) | Step::Commit | Step::Grant => {}
            // Nobody sleeps yet.
            Step::Publish => toy.publish(|_| {}),
            Step::StopReading => *reads = false,
            Step::ReadAgain => *reads = true,
        }
    }

    /// Calls who is awake until all sleep. Who finds nothing to do in its last look sleeps, and is
    /// awake again when it is told.
    fn settle(&mut self) {
        let mut awake = vec![true; self.shards.len()];
        let mut turns = 0;
        while let Some(id) = awake.iter().position(|awake| *awake) {
            turns += 1;
            assert!(turns < 100_000, "they wake one another for ever");
            let (shard, reads) = (&mut self.shards[id], self.reads[id]);
            if reads {
                shard.receive(usize::MAX);
                shard.commit();
                shard.grant();
            }
            shard.send(usize::MAX);
            let mut told = Vec::new();
            shard.publish(|other| told.push(other));
            awake[id] = !shard.is_idle(reads);
            told.into_iter().for_each(|other| awake[other] = true);
        }
    }

    fn unsent(&self) -> usize {
        self.shards.iter().map(|shard| shard.unsent().count()).sum()
    }

    /// What holds when all sleep and all have read.
    fn check_all_arrived(&mut self) {
        assert_eq!(self.unsent(), 0, "who reads lets others send");
        check_at_rest(&mut self.shards);
        assert_eq!(self.alive.load(Ordering::Relaxed), 0, "all that was sent was taken");
    }
}

const PRICE_MAX: u64 = 9;

fn options() -> impl Strategy<Value = Options> {
    (1_usize..=8, 0_u64..=12).prop_map(|(slots, standing)| Options {
        slots,
        standing,
        price_max: PRICE_MAX,
        room: 0,
    })
}

fn step(shards: usize) -> impl Strategy<Value = (usize, Step)> {
    let to = prop::sample::subsequence((0..shards).collect::<Vec<_>>(), 1..=shards);
    let write = (0_usize..3, to, 1..=PRICE_MAX).prop_map(|(connection, to, price)| Step::Write {
        connection,
        to,
        price,
    });
    let step = prop_oneof![
        6 => write,
        3 => (1_usize..4).prop_map(Step::Send),
        3 => (1_usize..4).prop_map(Step::Receive),
        2 => Just(Step::Commit),
        3 => Just(Step::Grant),
        3 => Just(Step::Publish),
        1 => Just(Step::StopReading),
        1 => Just(Step::ReadAgain),
    ];
    (0..shards, step)
}

/// Shards, options and a schedule.
fn schedule() -> impl Strategy<Value = (usize, Options, Vec<(usize, Step)>)> {
    (1_usize..=4, options()).prop_flat_map(|(shards, options)| {
        let steps = prop::collection::vec(step(shards), 0..200);
        (Just(shards), Just(options.with_room_for_all(shards)), steps)
    })
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    #[cfg_attr(miri, ignore = "takes Miri too long; the other tests show it the same accesses")]
    fn nothing_is_lost_whatever_the_schedule((shards, options, steps) in schedule()) {
        let mut world = World::new(shards, options);
        for (shard, step) in steps {
            world.take(shard, step);
        }
        // First those that read now: who does not is in the way of nothing but what is for it.
        world.settle();
        for letter in world.shards.iter().flat_map(ToyShard::first_letters) {
            prop_assert!(letter.to.iter().any(|to| !world.reads[*to]), "stuck: {letter:?}");
        }
        // Then all of them.
        world.reads.fill(true);
        world.settle();
        world.check_all_arrived();
    }
}

fn small() -> Options {
    Options { slots: 1, standing: 2, price_max: 4, room: 0 }
}

fn letter(to: &[usize], price: u64) -> Letter {
    Letter { to: to.to_vec(), price }
}

#[test]
fn both_directions_full_at_once() {
    let mut world = World::new(2, small().with_room_for_all(2));
    for shard in 0..2 {
        for _ in 0..5 {
            world.shards[shard].write(0, letter(&[1 - shard], 4));
        }
    }
    // Nobody reads until neither can send.
    world.reads.fill(false);
    for shard in &mut world.shards {
        shard.grant();
    }
    world.settle();
    assert_eq!(world.unsent(), 10, "the standing credit is too little");
    world.reads.fill(true);
    world.shards.iter_mut().for_each(ToyShard::grant);
    world.reads.fill(false);
    world.settle();
    assert_eq!(world.unsent(), 8, "both lanes are full");
    world.reads.fill(true);
    world.settle();
    world.check_all_arrived();
}

#[test]
fn a_letter_for_all_takes_all_its_credits_or_none() {
    let mut world = World::new(4, small().with_room_for_all(4));
    world.shards[0].write(0, letter(&[1, 2, 3], 4));
    world.shards[0].write(1, letter(&[1], 4));
    world.reads[2] = false;
    world.settle();
    let sent = |world: &World| {
        [1, 2, 3].map(|to| world.shards[0].ways[to].as_ref().expect("another").outbound.sent())
    };
    assert_eq!(sent(&world), [1, 0, 0], "one of three does not read: none of them has the letter");
    world.reads[2] = true;
    world.settle();
    assert_eq!(sent(&world), [2, 1, 1]);
    world.check_all_arrived();
}

#[test]
fn who_never_reads_stops_nobody_else() {
    let mut world = World::new(3, small().with_room_for_all(3));
    world.reads[2] = false;
    for _ in 0..50 {
        world.shards[0].write(0, letter(&[1], 3));
        world.shards[0].write(1, letter(&[2], 3));
        world.shards[1].write(0, letter(&[0], 4));
        world.shards[2].write(0, letter(&[0, 1], 1));
    }
    world.settle();
    assert!(world.shards[0].unsent().all(|letter| letter.to == [2]));
    assert_eq!(world.unsent(), 50, "all but what is for the one that does not read");
    world.reads[2] = true;
    world.settle();
    world.check_all_arrived();
}

/// The relation that the configuration has to check: a buffer has room for the dearest letter of
/// each of the others at once. With less, two that send to the same two wait for one another.
#[test]
fn room_for_each_sender_is_needed() {
    let crossed = |room: u64| {
        let options = Options { slots: 4, standing: 0, price_max: 4, room };
        let mut world = World::new(4, options);
        for sender in [2, 3] {
            world.shards[sender].write(0, letter(&[0, 1], 4));
            world.shards[sender].send(1);
        }
        // Each of the two receivers hears another sender first.
        for (sender, receiver) in [(3, 1), (2, 0)] {
            world.shards[sender].publish(|_| {});
            world.shards[receiver].grant();
        }
        world.settle();
        world
    };
    assert_eq!(crossed(7).unsent(), 2, "neither has all that it needs, and neither gives way");
    crossed(8).check_all_arrived();
}
