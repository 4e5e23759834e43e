//! The ring between two shards next to others: rtrb, crossbeam's ArrayQueue and glommio's
//! shared_channel, all in one run.
//!
//! `cargo bench --bench rings` (`-- --quick` for a first look). Two threads on the first two cores
//! that the process may use; a machine with one core measures nothing. *Throughput* is items a
//! second from one core to the other; a *round trip* is a batch that goes over one queue and comes
//! back over another. A batch is what is published at once; the other side takes what is there.
//! Nobody sleeps: who waits spins, glommio's executors too (`spin_before_park`). Queues without a
//! call for batches push and pop one by one; rtrb does both ways. Every end lies in cache lines of
//! its own, and items are read where they lie if the queue lets one. The table at the end is of
//! rounds in which the queues alternate, and the one to be believed: numbers of different runs, or of
//! different minutes, do not compare.

use std::hint::{black_box, spin_loop};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use core_affinity::CoreId;
use criterion::{Criterion, SamplingMode, Throughput};
use crossbeam_queue::ArrayQueue;
use glommio::channels::shared_channel::{self, SharedReceiver, SharedSender};
use glommio::{LocalExecutorBuilder, Placement};

use tidegate::ring::{Consumer, Producer, ring};

/// Slots of every queue.
const SLOTS: usize = 1024;
/// Rounds of the table in which the queues alternate.
const ROUNDS: usize = 41;

/// What crosses, with its number in it.
trait Item: Copy + Send + 'static {
    fn numbered(number: u64) -> Self;
    fn number(&self) -> u64;
}

impl Item for u64 {
    #[inline]
    fn numbered(number: u64) -> Self {
        number
    }

    #[inline]
    fn number(&self) -> u64 {
        *self
    }
}

/// A cache line, as a record between shards is (`shard::crossing`).
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Line([u64; 8]);

impl Item for Line {
    #[inline]
    fn numbered(number: u64) -> Self {
        Self([number; 8])
    }

    #[inline]
    fn number(&self) -> u64 {
        self.0[7]
    }
}

/// A queue of one producer and one consumer.
trait Queue<T: Item> {
    type Tx: Send;
    type Rx: Send;
    fn pair() -> (Self::Tx, Self::Rx);
    /// Pushes the items with the `count` numbers from `first` on, or as many as there is room for.
    /// How many those were.
    fn push(tx: &mut Self::Tx, first: u64, count: u64) -> u64;
    /// Pops what is there, of which the first must have the number `first`. How many those were.
    fn pop(rx: &mut Self::Rx, first: u64) -> u64;
}

#[inline]
fn take<T: Item>(item: &T, expected: u64) {
    assert_eq!(black_box(item).number(), expected, "the queue lost or doubled an item");
}

/// An end in cache lines of its own: two ends next to one another in a test's memory would be a
/// pessimism that no queue deserves.
#[repr(align(128))]
struct Apart<E>(E);

fn apart<A, B>((tx, rx): (A, B)) -> (Box<Apart<A>>, Box<Apart<B>>) {
    (Box::new(Apart(tx)), Box::new(Apart(rx)))
}

struct Tidegate;

impl<T: Item> Queue<T> for Tidegate {
    type Tx = Box<Apart<Producer<T>>>;
    type Rx = Box<Apart<Consumer<T>>>;

    fn pair() -> (Self::Tx, Self::Rx) {
        apart(ring(SLOTS))
    }

    #[inline]
    fn push(tx: &mut Self::Tx, first: u64, count: u64) -> u64 {
        if count == 1 {
            return u64::from(tx.0.push(T::numbered(first)).is_ok());
        }
        let staged = tx.0.stage_from(&mut (first..first + count).map(T::numbered));
        tx.0.publish();
        staged as u64
    }

    #[inline]
    fn pop(rx: &mut Self::Rx, first: u64) -> u64 {
        let mut next = first;
        rx.0.take_while(|item| {
            take(item, next);
            next += 1;
            true
        });
        rx.0.release();
        next - first
    }
}

/// The same, one by one.
struct TidegateSingly;

impl<T: Item> Queue<T> for TidegateSingly {
    type Tx = Box<Apart<Producer<T>>>;
    type Rx = Box<Apart<Consumer<T>>>;

    fn pair() -> (Self::Tx, Self::Rx) {
        apart(ring(SLOTS))
    }

    #[inline]
    fn push(tx: &mut Self::Tx, first: u64, count: u64) -> u64 {
        (0..count).take_while(|i| tx.0.push(T::numbered(first + i)).is_ok()).count() as u64
    }

    #[inline]
    fn pop(rx: &mut Self::Rx, first: u64) -> u64 {
        let mut taken = 0;
        while let Some(item) = rx.0.pop() {
            take(&item, first + taken);
            taken += 1;
        }
        taken
    }
}

/// rtrb, one by one.
struct Rtrb;

impl<T: Item> Queue<T> for Rtrb {
    type Tx = Box<Apart<rtrb::Producer<T>>>;
    type Rx = Box<Apart<rtrb::Consumer<T>>>;

    fn pair() -> (Self::Tx, Self::Rx) {
        apart(rtrb::RingBuffer::new(SLOTS))
    }

    #[inline]
    fn push(tx: &mut Self::Tx, first: u64, count: u64) -> u64 {
        (0..count).take_while(|i| tx.0.push(T::numbered(first + i)).is_ok()).count() as u64
    }

    #[inline]
    fn pop(rx: &mut Self::Rx, first: u64) -> u64 {
        let mut taken = 0;
        while let Ok(item) = rx.0.pop() {
            take(&item, first + taken);
            taken += 1;
        }
        taken
    }
}

/// rtrb, by its chunks, whose items are read in place.
struct RtrbChunks;

impl<T: Item> Queue<T> for RtrbChunks {
    type Tx = Box<Apart<rtrb::Producer<T>>>;
    type Rx = Box<Apart<rtrb::Consumer<T>>>;

    fn pair() -> (Self::Tx, Self::Rx) {
        apart(rtrb::RingBuffer::new(SLOTS))
    }

    #[inline]
    fn push(tx: &mut Self::Tx, first: u64, count: u64) -> u64 {
        let slots = match tx.0.write_chunk_uninit(count as usize) {
            Ok(chunk) => return fill(chunk, first),
            Err(rtrb::chunks::ChunkError::TooFewSlots(slots)) => slots,
        };
        tx.0.write_chunk_uninit(slots).map_or(0, |chunk| fill(chunk, first))
    }

    #[inline]
    fn pop(rx: &mut Self::Rx, first: u64) -> u64 {
        let slots = rx.0.slots();
        rx.0.read_chunk(slots).map_or(0, |chunk| drain(chunk, first))
    }
}

#[inline]
fn fill<T: Item>(chunk: rtrb::chunks::WriteChunkUninit<'_, T>, first: u64) -> u64 {
    chunk.fill_from_iter((first..).map(T::numbered)) as u64
}

#[inline]
fn drain<T: Item>(chunk: rtrb::chunks::ReadChunk<'_, T>, first: u64) -> u64 {
    let (front, back) = chunk.as_slices();
    let mut taken = 0;
    for item in front.iter().chain(back) {
        take(item, first + taken);
        taken += 1;
    }
    chunk.commit_all();
    taken
}

struct Crossbeam;

impl<T: Item> Queue<T> for Crossbeam {
    type Tx = Arc<ArrayQueue<T>>;
    type Rx = Arc<ArrayQueue<T>>;

    fn pair() -> (Self::Tx, Self::Rx) {
        let queue = Arc::new(ArrayQueue::new(SLOTS));
        (Arc::clone(&queue), queue)
    }

    #[inline]
    fn push(tx: &mut Self::Tx, first: u64, count: u64) -> u64 {
        (0..count).take_while(|i| tx.push(T::numbered(first + i)).is_ok()).count() as u64
    }

    #[inline]
    fn pop(rx: &mut Self::Rx, first: u64) -> u64 {
        let mut taken = 0;
        while let Some(item) = rx.pop() {
            take(&item, first + taken);
            taken += 1;
        }
        taken
    }
}

/// Pushes `count` items, whatever it takes.
#[inline]
fn push_all<T: Item, Q: Queue<T>>(tx: &mut Q::Tx, first: u64, count: u64) {
    let mut pushed = 0;
    while pushed < count {
        match Q::push(tx, first + pushed, count - pushed) {
            0 => spin_loop(),
            more => pushed += more,
        }
    }
}

#[inline]
fn pop_all<T: Item, Q: Queue<T>>(rx: &mut Q::Rx, first: u64, count: u64) {
    let mut popped = 0;
    while popped < count {
        match Q::pop(rx, first + popped) {
            0 => spin_loop(),
            more => popped += more,
        }
    }
}

/// Runs both sides on a core each; the time of `here` from where both are ready.
fn on_two_cores(here: impl FnOnce() + Send, there: impl FnOnce() + Send) -> Duration {
    let cores = two_cores().expect("`main` looked");
    let ready = Barrier::new(2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            core_affinity::set_for_current(cores[1]);
            ready.wait();
            there();
        });
        let here = scope.spawn(|| {
            core_affinity::set_for_current(cores[0]);
            ready.wait();
            let begun = Instant::now();
            here();
            begun.elapsed()
        });
        here.join().expect("a side of the benchmark panicked")
    })
}

fn two_cores() -> Option<[CoreId; 2]> {
    core_affinity::get_core_ids()?.get(..2)?.try_into().ok()
}

/// The time until `items` have crossed, in batches of `batch`.
fn throughput<T: Item, Q: Queue<T>>(items: u64, batch: u64) -> Duration {
    let (mut tx, mut rx) = Q::pair();
    on_two_cores(
        || pop_all::<T, Q>(&mut rx, 0, items),
        || {
            for first in (0..items).step_by(batch as usize) {
                push_all::<T, Q>(&mut tx, first, batch.min(items - first));
            }
        },
    )
}

/// The time of `trips` batches that go over and come back.
fn round_trips<T: Item, Q: Queue<T>>(trips: u64, batch: u64) -> Duration {
    let ((mut to, mut from), (mut back_to, mut back_from)) = (Q::pair(), Q::pair());
    on_two_cores(
        || {
            for first in (0..trips).map(|trip| trip * batch) {
                push_all::<T, Q>(&mut to, first, batch);
                pop_all::<T, Q>(&mut back_from, first, batch);
            }
        },
        || {
            for first in (0..trips).map(|trip| trip * batch) {
                pop_all::<T, Q>(&mut from, first, batch);
                push_all::<T, Q>(&mut back_to, first, batch);
            }
        },
    )
}

/// An executor as the engine's driver makes it (ARCHITECTURE.md says why without a preemption
/// timer), but one that spins.
fn glommio_executor(core: CoreId) -> LocalExecutorBuilder {
    LocalExecutorBuilder::new(Placement::Fixed(core.id))
        .preempt_timer(Duration::from_secs(86_400))
        .spin_before_park(Duration::from_secs(10))
}

/// As `round_trips` where there is a way back, else as `throughput`.
fn glommio_run<T: Item>(count: u64, batch: u64, there_and_back: bool) -> Duration {
    type Ends<T> = (SharedSender<T>, SharedReceiver<T>);
    let cores = two_cores().expect("`main` looked");
    let ((to, from), (back_to, back_from)): (Ends<T>, Ends<T>) =
        (shared_channel::new_bounded(SLOTS), shared_channel::new_bounded(SLOTS));
    let items = if there_and_back { count * batch } else { count };
    let far = glommio_executor(cores[1]).spawn(move || async move {
        let (from, back) = (from.connect().await, back_to.connect().await);
        back.send(T::numbered(0)).await.expect("the other side listens");
        for first in (0..items).step_by(batch as usize) {
            let end = items.min(first + batch);
            for number in first..end {
                take(&from.recv().await.expect("the other side sends"), number);
            }
            for number in (first..end).filter(|_| there_and_back) {
                back.send(T::numbered(number)).await.expect("the other side listens");
            }
        }
        back.send(T::numbered(items)).await.expect("the other side listens");
    });
    let near = glommio_executor(cores[0]).spawn(move || async move {
        let (to, back) = (to.connect().await, back_from.connect().await);
        back.recv().await.expect("the other side is ready");
        let begun = Instant::now();
        for first in (0..items).step_by(batch as usize) {
            let end = items.min(first + batch);
            for number in first..end {
                to.send(T::numbered(number)).await.expect("the other side listens");
            }
            for number in (first..end).filter(|_| there_and_back) {
                take(&back.recv().await.expect("the other side sends"), number);
            }
        }
        back.recv().await.expect("the other side has taken everything");
        begun.elapsed()
    });
    let (far, near) = (far.expect("glommio starts"), near.expect("glommio starts"));
    far.join().expect("a side of the benchmark panicked");
    near.join().expect("a side of the benchmark panicked")
}

/// Runs so many items or round trips; how long that took.
type Run = fn(u64) -> Duration;

/// What is measured, and each queue's way to do it.
fn cases<T: Item>() -> Vec<(String, Vec<(&'static str, Run)>)> {
    let bytes = size_of::<T>();
    let mut cases = Vec::new();
    macro_rules! case {
        ($what:literal, $measure:ident, $batch:literal, $back:literal) => {
            cases.push((
                format!("{}, {bytes}-byte items, batches of {}", $what, $batch),
                vec![
                    ("tidegate", (|n| $measure::<T, Tidegate>(n, $batch)) as Run),
                    ("tidegate singly", |n| $measure::<T, TidegateSingly>(n, $batch)),
                    ("rtrb", |n| $measure::<T, Rtrb>(n, $batch)),
                    ("rtrb chunks", |n| $measure::<T, RtrbChunks>(n, $batch)),
                    ("ArrayQueue", |n| $measure::<T, Crossbeam>(n, $batch)),
                    ("glommio", |n| glommio_run::<T>(n, $batch, $back)),
                ],
            ));
        };
    }
    case!("throughput", throughput, 1, false);
    case!("throughput", throughput, 32, false);
    case!("round trip", round_trips, 1, true);
    case!("round trip", round_trips, 32, true);
    cases
}

fn measure(c: &mut Criterion, what: &str, queues: &[(&'static str, Run)]) {
    let mut group = c.benchmark_group(what);
    group.sampling_mode(SamplingMode::Flat).sample_size(10);
    group.warm_up_time(Duration::from_millis(300)).measurement_time(Duration::from_secs(1));
    group.throughput(Throughput::Elements(1));
    for (queue, run) in queues {
        group.bench_function(*queue, |bencher| bencher.iter_custom(run));
    }
    group.finish();
}

/// Every queue in turn, round after round, each for some milliseconds: where a machine's cores are
/// (and whose they are) changes from second to second on a virtual one, and hits neighbours alike.
/// Prints medians, and in brackets the median of what the faster way of rtrb took in the same round
/// divided by what the queue took.
fn print_alternating(what: &str, queues: &[(&'static str, Run)]) {
    const ROUND: Duration = Duration::from_millis(8);
    let counts: Vec<u64> = queues
        .iter()
        .map(|(_, run)| {
            let probe = 2_000;
            let time = run(probe).max(Duration::from_nanos(1));
            ((ROUND.as_nanos() * u128::from(probe) / time.as_nanos()) as u64).max(32)
        })
        .collect();
    let mut rounds: Vec<Vec<f64>> = Vec::new();
    for _ in 0..ROUNDS {
        let timed = queues.iter().zip(&counts);
        let ns = timed.map(|((_, run), count)| run(*count).as_nanos() as f64 / *count as f64);
        rounds.push(ns.collect());
    }
    let rtrb: Vec<usize> =
        (0..queues.len()).filter(|at| queues[*at].0.starts_with("rtrb")).collect();
    print!("{what:<45}");
    for (at, (queue, _)) in queues.iter().enumerate() {
        let fastest = |round: &[f64]| rtrb.iter().map(|at| round[*at]).fold(f64::MAX, f64::min);
        let ns = median(rounds.iter().map(|round| round[at]).collect());
        let ratio = median(rounds.iter().map(|round| fastest(round) / round[at]).collect());
        print!("  {queue} {ns:.1} ({ratio:.2})");
    }
    println!();
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    if two_cores().is_none() {
        println!("SKIPPED: rings are measured between two cores, and this process may use one");
        return;
    }
    let cases = [cases::<u64>(), cases::<Line>()].concat();
    let mut criterion = Criterion::default().configure_from_args();
    for (what, queues) in &cases {
        measure(&mut criterion, what, queues);
    }
    criterion.final_summary();
    println!(
        "\nns an item or round trip, and in brackets the faster rtrb's time ÷ that (more is faster)"
    );
    for (what, queues) in &cases {
        print_alternating(what, queues);
    }
}
