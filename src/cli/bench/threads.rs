//! Several generator threads: each with its share of the connections, its own ring and its core.
//!
//! In: a plan. Out: one report of all threads together. Connection `n` belongs to thread `n` modulo
//! the threads; the schedule is one, each thread sends what its connections have of it. The
//! invariant: all begin at one moment, when every connection of every thread is accepted, or none
//! does. After that they share nothing.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{Scope, ScopedJoinHandle};
use std::time::{Instant, SystemTime};

use super::load::{Load, Part};
use super::plan::{Plan, Scenario};
use super::report::{Report, SlowReport};
use super::subscribe::Slow;
use super::{BenchError, consume, pin, process};

/// Which connections are a thread's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Share {
    pub thread: u32,
    pub threads: u32,
}

impl Share {
    /// Of a generator that is one thread.
    pub const WHOLE: Self = Self { thread: 0, threads: 1 };

    /// How many of so many are its own.
    pub fn count(self, connections: u32) -> u32 {
        connections.saturating_sub(self.thread).div_ceil(self.threads)
    }

    /// Its `index`th connection among all.
    pub fn global(self, index: u32) -> u32 {
        self.thread + index * self.threads
    }

    /// A connection's place among its own.
    #[inline]
    pub fn local(self, connection: u32) -> Option<u32> {
        (connection % self.threads == self.thread).then_some(connection / self.threads)
    }
}

/// Where the threads wait for one another.
#[derive(Debug)]
pub struct Start {
    threads: u32,
    ready: AtomicU32,
    failed: AtomicBool,
    moment: Arc<OnceLock<Instant>>,
}

impl Start {
    pub fn new(threads: u32) -> Self {
        Self {
            threads,
            ready: AtomicU32::new(0),
            failed: AtomicBool::new(false),
            moment: Arc::default(),
        }
    }

    /// Waits until all threads are here: the moment at which time begins. `None` when one of them
    /// will never come.
    pub fn wait(&self) -> Option<Instant> {
        // The counter orders nothing but itself; the moment comes through the OnceLock.
        self.ready.fetch_add(1, Ordering::AcqRel);
        while self.ready.load(Ordering::Acquire) < self.threads {
            if self.failed.load(Ordering::Relaxed) {
                return None;
            }
            std::thread::yield_now();
        }
        Some(*self.moment.get_or_init(Instant::now))
    }

    fn give_up(&self) {
        self.failed.store(true, Ordering::Relaxed);
    }
}

/// Runs the plan on a thread for each core that it names; on the calling thread where it names none.
///
/// # Errors
/// When the consumer cannot read, the broker cannot be reached or refuses, or a ring fails. Lost connections and missing
/// acknowledgements are in the report.
pub fn run(plan: &Plan) -> Result<Report, BenchError> {
    let usage = plan
        .process
        .map(|pid| process::usage(pid).map_err(|error| BenchError::Process(pid, error)));
    let rss_before_bytes = usage.transpose()?.map_or(0, |usage| usage.rss_bytes);
    let start = Start::new(plan.threads());
    let tag = plan.is_read().then(tag);
    let consume = |slow: bool| {
        let options = plan.consume.clone().zip(tag);
        let started = options.map(|(options, tag)| {
            consume::start(&consume::Options { slow, ..options }, tag, &start.moment)
        });
        started.transpose().map_err(BenchError::Consumer)
    };
    let slowly = plan.scenario == Scenario::SlowConsumer;
    let (consumer, slow_consumer) = (consume(false)?, if slowly { consume(true)? } else { None });
    let slow_subscriber =
        (slowly && plan.subscribers > 0).then(|| Slow::start(plan)).transpose()?;
    let mut report = Report::of_parts(plan, parts(plan, tag, &start)?, rss_before_bytes);
    if let Some(slow) = slow_subscriber {
        report.slow = Some(slow.finish());
    }
    if let Some(slow) = slow_consumer {
        let read = slow.finish().map_err(BenchError::Consumer)?;
        report.slow = Some(SlowReport::of_consumer(read.records));
    }
    if let Some(consumer) = consumer {
        let client = consumer.client();
        let read = consumer.finish().map_err(BenchError::Consumer)?;
        report.consumed(client, &read.latencies);
    }
    Ok(report)
}

/// Another one in every run.
fn tag() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    since.as_nanos() as u64 ^ u64::from(std::process::id()) << 48
}

fn parts(plan: &Plan, tag: Option<u64>, start: &Start) -> Result<Vec<Part>, BenchError> {
    let parts = if plan.cores.is_empty() {
        vec![part(plan, Share::WHOLE, tag, start)]
    } else {
        std::thread::scope(|scope| {
            let spawned: Vec<_> =
                (0..plan.threads()).map(|thread| spawn(scope, plan, thread, tag, start)).collect();
            spawned.into_iter().map(join).collect()
        })
    };
    // What made the others give up comes before their giving up.
    let (parts, failures): (Vec<_>, Vec<_>) = parts.into_iter().partition(Result::is_ok);
    let mut failures: Vec<_> = failures.into_iter().filter_map(Result::err).collect();
    failures.sort_by_key(|error| matches!(error, BenchError::GaveUp));
    match failures.into_iter().next() {
        Some(error) => Err(error),
        None => Ok(parts.into_iter().flatten().collect()),
    }
}

fn spawn<'scope>(
    scope: &'scope Scope<'scope, '_>,
    plan: &'scope Plan,
    thread: u32,
    tag: Option<u64>,
    start: &'scope Start,
) -> ScopedJoinHandle<'scope, Result<Part, BenchError>> {
    scope.spawn(move || {
        let core = plan.cores[thread as usize];
        let pinned = pin(core).map_err(|_| BenchError::Pin(core));
        let share = Share { thread, threads: plan.threads() };
        let result = pinned.and_then(|()| part(plan, share, tag, start));
        if result.is_err() {
            start.give_up();
        }
        result
    })
}

fn join(thread: ScopedJoinHandle<'_, Result<Part, BenchError>>) -> Result<Part, BenchError> {
    thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn part(plan: &Plan, share: Share, tag: Option<u64>, start: &Start) -> Result<Part, BenchError> {
    let mut load = Load::new(plan, share, tag)?;
    load.subscribe()?;
    load.connect()?;
    load.measure(start.wait().ok_or(BenchError::GaveUp)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_every_connection_once() {
        for (connections, threads) in [(10, 1), (10, 3), (3, 3), (7, 2)] {
            let mut all = Vec::new();
            for thread in 0..threads {
                let share = Share { thread, threads };
                for index in 0..share.count(connections) {
                    let global = share.global(index);
                    assert_eq!(share.local(global), Some(index));
                    assert_eq!(share.local(global + 1).is_some(), threads == 1);
                    all.push(global);
                }
            }
            all.sort_unstable();
            assert_eq!(all, (0..connections).collect::<Vec<_>>());
        }
    }

    #[test]
    fn threads_begin_together_or_not_at_all() {
        let both = Start::new(2);
        let (here, there) = std::thread::scope(|scope| {
            let other = scope.spawn(|| both.wait());
            (both.wait(), other.join().unwrap())
        });
        assert!(here.is_some() && here == there);
        let broken = Start::new(2);
        broken.give_up();
        assert_eq!(broken.wait(), None);
    }
}
