//! Rings, lanes, credits and doors on real threads, for as long as one likes: `scripts/soak-rings.sh`.
//!
//! Rounds with random numbers of threads, slots, credits, letters and batch sizes, one after the
//! other until the time is over. In a round of *rings*, two threads push and pop and drop their ends
//! at a random moment; in a round of *lanes*, two to four toy shards (toy_shard.rs) send one another
//! letters, sleep behind their doors whenever there is nothing to do, and now and then abandon a
//! lane. Checked: order, loss, doubling, drops, conservation of credits, and that everyone is woken:
//! a thread that nobody wakes ends the soak after `PATIENCE`.
//!
//! `TIDEGATE_SOAK_SECONDS` says how long (a second otherwise), `TIDEGATE_SOAK_SEED` repeats the
//! choices, though not the timing, of an earlier soak.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread::{self, Thread};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::toy_shard::{self, Alive, Dice, Letter, Options, ToyShard, check_at_rest};
use super::{Door, ring};

/// How long a round may take. It takes milliseconds; only one that hangs takes this long.
const PATIENCE: Duration = Duration::from_secs(120);

/// What was done, over all rounds.
#[derive(Default)]
struct Sums {
    ring_rounds: Sum,
    values: Sum,
    lane_rounds: Sum,
    parcels: Sum,
    refused: Sum,
    sleeps: Sum,
    knocks: Sum,
    abandoned: Sum,
}

#[derive(Default)]
struct Sum(AtomicU64);

impl Sum {
    fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.load(Ordering::Relaxed).fmt(f)
    }
}

impl fmt::Display for Sums {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} rounds of rings ({} values), {} rounds of lanes ({} parcels, {} refused for want of \
             a slot or of credit, {} sleeps, {} knocks, {} lanes abandoned)",
            self.ring_rounds,
            self.values,
            self.lane_rounds,
            self.parcels,
            self.refused,
            self.sleeps,
            self.knocks,
            self.abandoned,
        )
    }
}

/// Runs the parts of a round on a thread each and waits for what they return.
fn on_threads<T: Send + 'static>(parts: Vec<Part<T>>, what: &str) -> Vec<T> {
    let (done, all_done) = mpsc::channel();
    let count = parts.len();
    for (index, part) in parts.into_iter().enumerate() {
        let done = done.clone();
        thread::spawn(move || done.send((index, part())));
    }
    drop(done);
    let mut results: Vec<Option<T>> = (0..count).map(|_| None).collect();
    for _ in 0..count {
        // Miri finds a deadlock by itself, and its clock is not ours.
        let next = if cfg!(miri) {
            all_done.recv().map_err(|_| "panicked")
        } else {
            all_done.recv_timeout(PATIENCE).map_err(|missing| match missing {
                mpsc::RecvTimeoutError::Timeout => "was not woken",
                mpsc::RecvTimeoutError::Disconnected => "panicked",
            })
        };
        let (index, result) = next.unwrap_or_else(|how| panic!("a thread {how}: {what}"));
        results[index] = Some(result);
    }
    results.into_iter().flatten().collect()
}

/// About how many values or letters a thread sends in a round.
const SIZE: u64 = if cfg!(miri) { 20 } else { 3_000 };

type Part<T> = Box<dyn FnOnce() -> T + Send>;

/// Pushes and pops on two threads, in random batches, until both ends are dropped.
fn ring_round(seed: u64, sums: &Sums) {
    let mut dice = Dice(seed);
    let alive = Arc::new(AtomicI64::new(0));
    let slots = 1 << dice.below(8);
    let (mut producer, mut consumer) = ring::<(u64, Box<Alive>)>(slots);
    let (to_push, to_take) = (1 + dice.below(SIZE), 1 + dice.below(SIZE));
    let is_over = Arc::new(AtomicBool::new(false));
    let (pushing_over, taking_over) = (Arc::clone(&is_over), is_over);
    let (mut pushing_dice, mut taking_dice) = (Dice(dice.below(u64::MAX)), dice);
    let count = Arc::clone(&alive);
    let pushing = move || {
        let mut number = 0;
        let mut value = (number, Box::new(Alive::new(&count)));
        while number < to_push && !pushing_over.load(Ordering::Relaxed) {
            for _ in 0..=pushing_dice.below(2 * slots as u64) {
                value = producer.stage(value).err().unwrap_or_else(|| {
                    number += 1;
                    (number, Box::new(Alive::new(&count)))
                });
                assert_eq!(value.0, number, "what is refused is handed back");
            }
            // Now and then what was staged waits for the next batch, or is never published.
            if pushing_dice.below(8) > 0 && !producer.publish() {
                thread::yield_now();
            }
        }
        pushing_over.store(true, Ordering::Relaxed);
        0
    };
    let taking = move || {
        let mut number = 0;
        while number < to_take {
            let mut left = taking_dice.below(2 * slots as u64);
            if taking_dice.below(2) == 0 {
                consumer.take_while(|(taken, _alive)| {
                    let wanted = left > 0;
                    left = left.saturating_sub(1);
                    assert_eq!(*taken, number, "lost, doubled, out of order");
                    number += u64::from(wanted);
                    wanted
                });
            } else {
                while left > 0
                    && let Some((taken, _alive)) = consumer.take()
                {
                    left -= 1;
                    assert_eq!(taken, number, "lost, doubled, out of order");
                    number += 1;
                }
            }
            if taking_dice.below(8) > 0 && !consumer.release() {
                if taking_over.load(Ordering::Relaxed) && consumer.is_empty() {
                    break;
                }
                thread::yield_now();
            }
        }
        taking_over.store(true, Ordering::Relaxed);
        number
    };
    let parts: Vec<Part<u64>> = vec![Box::new(pushing), Box::new(taking)];
    let taken = on_threads(parts, "a ring");
    assert_eq!(alive.load(Ordering::Relaxed), 0, "a value was leaked or dropped twice");
    sums.ring_rounds.add(1);
    sums.values.add(taken.iter().sum());
}

/// Where a shard's thread sleeps, and its door.
struct Bed {
    door: Door,
    sleeper: Arc<OnceLock<Thread>>,
}

impl Bed {
    fn new() -> Self {
        let sleeper = Arc::new(OnceLock::<Thread>::new());
        let to_wake = Arc::clone(&sleeper);
        let knock = move || to_wake.get().expect("it lies down after it came").unpark();
        Self { door: Door::new(knock), sleeper }
    }
}

/// Calls the parts of one shard until everything is sent and settled.
fn run_shard(mut shard: ToyShard, mut dice: Dice, beds: &[Bed], sums: &Sums) -> ToyShard {
    let bed = &beds[shard.id];
    bed.sleeper.set(thread::current()).expect("one thread a shard");
    let batch = 1 + dice.below(50);
    let abandons = dice.below(4) == 0;
    let tell = |other: usize| sums.knocks.add(u64::from(beds[other].door.notify()));
    loop {
        shard.receive(1 + dice.below(batch) as usize);
        if dice.below(3) > 0 {
            shard.commit();
        }
        shard.grant();
        shard.send(1 + dice.below(batch) as usize);
        shard.publish(tell);
        shard.close(tell);
        if abandons && dice.below(500) == 0 {
            let other = dice.below(beds.len() as u64) as usize;
            if shard.abandon(other) {
                tell(other);
                sums.abandoned.add(1);
            }
        }
        if shard.is_done() {
            return shard;
        }
        if shard.is_idle(true) {
            bed.door.lie_down();
            if shard.is_idle(true) && !shard.is_done() {
                sums.sleeps.add(1);
                thread::park();
            }
            bed.door.get_up();
        }
    }
}

/// Shards on a thread each send one another letters until all are settled.
fn lane_round(seed: u64, sums: &Arc<Sums>) {
    let mut dice = Dice(seed);
    let alive = Arc::new(AtomicI64::new(0));
    let count = 2 + dice.below(3) as usize;
    let price_max = 1 + dice.below(100);
    let standing = dice.below(4) * dice.below(100);
    let options = Options { slots: 1 << dice.below(8), standing, price_max, room: 0 };
    let options = options.with_room_for_all(count);
    let mut shards = toy_shard::shards(count, options, &alive);
    for shard in &mut shards {
        let connections = 1 + dice.below(4) as usize;
        for number in 0..dice.below(SIZE) {
            let to = (0..count).filter(|other| *other != shard.id && dice.below(2) == 0).collect();
            let price = 1 + dice.below(price_max);
            shard.write(number as usize % connections, Letter { to, price });
        }
    }
    let beds: Arc<Vec<Bed>> = Arc::new((0..count).map(|_| Bed::new()).collect());
    let part = |shard: ToyShard| -> Part<ToyShard> {
        let (beds, sums) = (Arc::clone(&beds), Arc::clone(sums));
        let dice = Dice(dice.below(u64::MAX));
        Box::new(move || run_shard(shard, dice, &beds, &sums))
    };
    let parts = shards.into_iter().map(part).collect();
    let mut shards = on_threads(parts, &format!("{options:?}"));
    check_at_rest(&mut shards);
    sums.lane_rounds.add(1);
    sums.parcels
        .add(shards.iter().flat_map(|shard| &shard.ways).flatten().map(|way| way.taken).sum());
    sums.refused.add(shards.iter().map(|shard| shard.refused).sum());
    drop(shards);
    assert_eq!(alive.load(Ordering::Relaxed), 0, "a parcel was leaked or dropped twice");
}

fn number(name: &str) -> Option<u64> {
    Some(std::env::var(name).ok()?.parse().unwrap_or_else(|_| panic!("{name} is not a number")))
}

#[test]
fn soak() {
    let limit = Duration::from_secs(number("TIDEGATE_SOAK_SECONDS").unwrap_or(1));
    let seed = number("TIDEGATE_SOAK_SEED").unwrap_or_else(|| {
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64)
    });
    let begun = Instant::now();
    let (mut dice, sums, mut minutes) = (Dice(seed), Arc::new(Sums::default()), 0);
    println!("soak: TIDEGATE_SOAK_SEED={seed}, for {} s", limit.as_secs());
    for round in 0_u64.. {
        ring_round(dice.below(u64::MAX), &sums);
        lane_round(dice.below(u64::MAX), &sums);
        // Miri is slow and its clock is not ours: it has a number of rounds.
        if if cfg!(miri) { round == 2 } else { begun.elapsed() >= limit } {
            break;
        }
        if begun.elapsed().as_secs() / 60 > minutes {
            minutes = begun.elapsed().as_secs() / 60;
            println!("soak: after {minutes} min: {sums}");
        }
    }
    println!("soak: passed after {} s: {sums}", begun.elapsed().as_secs());
}
