//! Many seeds on all cores, until one fails.

use std::cell::RefCell;
use std::fmt;
use std::panic::{self, AssertUnwindSafe};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::run::{Figures, run};

/// Which seeds, and how.
#[derive(Clone)]
pub struct Hunt {
    pub from: u64,
    pub seeds: u64,
    pub jobs: usize,
    pub until: Option<Instant>,
    /// The bug that the engine has, on purpose.
    #[cfg(feature = "mutations")]
    pub bug: Option<tidegate::mutation::Mutation>,
}

/// A seed for which something does not hold.
#[derive(Debug)]
pub struct Failure {
    pub seed: u64,
    pub step: u64,
    pub what: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seed, step, what } = self;
        writeln!(f, "seed {seed}, step {step}: {what}")?;
        write!(f, "replay: cargo test --release --test simulator -- --seed {seed} --trace")
    }
}

thread_local! {
    /// What the last panic of this thread said.
    static SAID: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Panics are told by whoever catches them.
pub fn quiet_panics() {
    panic::set_hook(Box::new(|info| {
        let said = info.to_string();
        SAID.with_borrow_mut(|last| *last = said);
    }));
}

/// Simulates one seed.
pub fn try_seed(seed: u64, trace: bool) -> Result<Figures, Failure> {
    let mut figures = Figures::default();
    let ran = panic::catch_unwind(AssertUnwindSafe(|| run(seed, trace, &mut figures)));
    match ran {
        Ok(()) => Ok(figures),
        Err(_) => Err(Failure { seed, step: figures.steps, what: SAID.with_borrow(String::clone) }),
    }
}

/// Simulates one seed twice: the same happens.
pub fn try_twice(seed: u64) -> Result<(), Failure> {
    let (first, second) = (try_seed(seed, false)?, try_seed(seed, false)?);
    if first.hash == second.hash {
        return Ok(());
    }
    let what = "it is another run each time".to_owned();
    Err(Failure { seed, step: first.steps, what })
}

/// The seeds of a list: one a line, followed by why it stands there.
pub fn regressions(list: &str) -> impl Iterator<Item = u64> {
    let lines = list.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    lines.map(|line| {
        let seed = line.split_whitespace().next().and_then(|seed| seed.parse().ok());
        seed.unwrap_or_else(|| panic!("no seed: {line}"))
    })
}

impl Hunt {
    /// Simulates all seeds and prints how much that was.
    pub fn run(&self) -> Result<(), Failure> {
        let begun = Instant::now();
        let (all, seeds, failure) = self.search();
        let (seconds, crashes) = (begun.elapsed().as_secs_f64(), all.crashes as f64);
        println!(
            "{seeds} seeds, {} steps, {} crashes, {} starts, {} acknowledged, {} records checked \
             ({} crossed; segments filled, deleted, used again, moved: {:?}; {} fenced ranges; \
             {} reloads), \
             {seconds:.1} s, {:.0} crashes/s",
            all.steps,
            all.crashes,
            all.starts,
            all.acknowledged,
            all.checked,
            all.crossed,
            all.segments,
            all.fenced,
            all.reloads,
            crashes / seconds
        );
        failure.map_or(Ok(()), Err)
    }

    /// Simulates seeds until one fails: what they came to, how many they were, and which failed.
    pub fn search(&self) -> (Figures, u64, Option<Failure>) {
        let next = AtomicU64::new(self.from);
        let found = Mutex::new(None::<Failure>);
        let (mut all, mut seeds) = (Figures::default(), 0);
        std::thread::scope(|scope| {
            let work = || self.work(&next, &found);
            let threads: Vec<_> = (0..self.jobs).map(|_| scope.spawn(work)).collect();
            for thread in threads {
                let (figures, count) = thread.join().expect("it catches");
                all.add(&figures);
                seeds += count;
            }
        });
        (all, seeds, found.into_inner().expect("nobody panics with it"))
    }

    fn work(&self, next: &AtomicU64, found: &Mutex<Option<Failure>>) -> (Figures, u64) {
        #[cfg(feature = "mutations")]
        tidegate::mutation::select(self.bug);
        let (mut all, mut seeds) = (Figures::default(), 0);
        loop {
            // Relaxed: a number that each thread takes once; nothing hangs on it.
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let late = self.until.is_some_and(|until| Instant::now() >= until);
            if seed >= self.from.saturating_add(self.seeds) || late {
                return (all, seeds);
            }
            match try_seed(seed, false) {
                Ok(figures) => {
                    all.add(&figures);
                    seeds += 1;
                }
                Err(failure) => {
                    next.store(u64::MAX - self.jobs as u64, Ordering::Relaxed);
                    found.lock().expect("nobody panics with it").get_or_insert(failure);
                }
            }
        }
    }
}
