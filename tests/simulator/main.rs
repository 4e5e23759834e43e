//! The simulator: seeded worlds of one to four shards with their logs, rings and connections, over a
//! simulated disk, network and clock; they crash at any step, and start again.
//!
//! In: seeds. Out: how much was simulated, or the first seed that fails, with the step, what did not
//! hold, and the command that replays it to the letter. It drives the stations that run in
//! production as `src/driver` does. The world is that of `tests/shards`, which tries schedules
//! without crashes. Deliberately absent: threads within a world, real files, real sockets.

#![allow(dead_code)] // the world can do more than either of the two asks of it

#[path = "../shards/commits.rs"]
mod commits;
#[path = "../shards/compaction.rs"]
mod compaction;
#[path = "../shards/devices.rs"]
mod devices;
#[path = "../shards/disk.rs"]
mod disk;
#[path = "../shards/disk_files.rs"]
mod disk_files;
#[path = "../shards/ledger.rs"]
mod ledger;
#[path = "../shards/node.rs"]
mod node;
#[path = "../shards/packets.rs"]
mod packets;
#[path = "../shards/random.rs"]
mod random;
#[path = "../shards/reading.rs"]
mod reading;
#[path = "../shards/records.rs"]
mod records;
#[path = "../shards/setup.rs"]
mod setup;
#[path = "../shards/sockets.rs"]
mod sockets;
#[path = "../shards/storage.rs"]
mod storage;
#[path = "../shards/world.rs"]
mod world;

mod case;
mod hunt;
#[cfg(feature = "mutations")]
mod mutations;
mod run;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;

use hunt::{Failure, Hunt};

/// Seeds that a plain `cargo test` tries.
const SEEDS: u64 = 200;
/// Seeds that are simulated twice.
const TWICE: u64 = 10;
/// Seeds that failed once, with a word why.
const REGRESSIONS: &str = include_str!("regressions.txt");

/// Simulates crashes, restarts and faults of disk and network, from seeds.
#[derive(Debug, Parser)]
#[command(name = "tidegate-sim")]
struct Arguments {
    /// Replays one seed.
    #[arg(long)]
    seed: Option<u64>,
    /// Prints every step of it.
    #[arg(long, requires = "seed")]
    trace: bool,
    /// How many seeds.
    #[arg(long)]
    seeds: Option<u64>,
    /// The first seed.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Threads; all cores by default.
    #[arg(long)]
    jobs: Option<usize>,
    /// Ends after so many seconds, if the seeds take longer.
    #[arg(long)]
    seconds: Option<u64>,
    /// Looks for the bugs that the engine has on purpose, one after the other.
    #[cfg(feature = "mutations")]
    #[arg(long)]
    mutations: bool,
    /// What cargo passes on to tests.
    #[arg(hide = true, trailing_var_arg = true, allow_hyphen_values = true)]
    rest: Vec<String>,
}

fn main() -> ExitCode {
    hunt::quiet_panics();
    let arguments = Arguments::parse();
    if let Some(seed) = arguments.seed {
        return replay(seed, arguments.trace);
    }
    let hunt = Hunt {
        from: arguments.from,
        seeds: arguments.seeds.unwrap_or(SEEDS),
        jobs: arguments.jobs.unwrap_or_else(|| {
            std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
        }),
        until: arguments.seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds)),
        #[cfg(feature = "mutations")]
        bug: None,
    };
    #[cfg(feature = "mutations")]
    if arguments.mutations {
        return if mutations::find_all(&hunt) { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    if arguments.seeds.is_none() && arguments.seconds.is_none() && arguments.from == 0 {
        return tests(&hunt);
    }
    match hunt.run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => fail(&failure),
    }
}

fn replay(seed: u64, trace: bool) -> ExitCode {
    match hunt::try_seed(seed, trace) {
        Ok(figures) => {
            println!("seed {seed} holds: {figures:?}");
            ExitCode::SUCCESS
        }
        Err(failure) => fail(&failure),
    }
}

fn fail(failure: &Failure) -> ExitCode {
    println!("{failure}");
    ExitCode::FAILURE
}

/// What `cargo test` runs, told as its other tests are.
fn tests(hunt: &Hunt) -> ExitCode {
    let begun = Instant::now();
    type Test<'a> = &'a dyn Fn() -> Result<(), Failure>;
    let tests: [(&str, Test<'_>); 3] = [
        ("seeds_that_failed_once", &|| {
            hunt::regressions(REGRESSIONS)
                .try_for_each(|seed| hunt::try_seed(seed, false).map(drop))
        }),
        ("the_same_seed_is_the_same_run", &|| (0..TWICE).try_for_each(hunt::try_twice)),
        ("seeds", &|| hunt.run()),
    ];
    println!("\nrunning {} tests", tests.len());
    let mut failed = 0;
    for (name, test) in tests {
        match test() {
            Ok(()) => println!("test {name} ... ok"),
            Err(failure) => {
                failed += 1;
                println!("test {name} ... FAILED\n{failure}");
            }
        }
    }
    let (word, passed) = (if failed == 0 { "ok" } else { "FAILED" }, tests.len() - failed);
    println!(
        "\ntest result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; \
         0 filtered out; finished in {:.2}s\n",
        begun.elapsed().as_secs_f64()
    );
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
