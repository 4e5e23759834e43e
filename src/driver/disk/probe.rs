//! How long a commit takes on this disk, over space that was zero-filled and at a growing end.
//!
//! Each sample is what a small commit is: one block by direct I/O, then fdatasync. The two kinds
//! take turns, so that another's load on the disk meets both alike. On a machine that is busy
//! with something else the samples tell how long this thread waited for a core, and nothing about
//! the disk; then the way is taken that costs most disks least, which is overwriting.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::open_direct;

/// Space that the probe takes at most; it is given back.
pub(super) const BYTES: u64 = 4 << 20;

/// Samples of each kind, unless the time is up before.
const SAMPLES: usize = 32;
/// Fewer than these say nothing, however slow the disk is.
const SAMPLES_MIN: usize = 3;
/// One kind's samples before it is the other's turn.
const TURN: usize = 4;
const TIME: Duration = Duration::from_millis(150);

/// How much faster overwriting must be to be worth filling segments with zeros, in percent.
const GAIN_MIN: u64 = 120;

/// A median further than this above the fastest, in percent, was made by something else than the
/// disk.
const UNSTEADY_MIN: u64 = 250;

const PREFIX: &str = ".tidegate-probe-";

/// How the log makes its segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prepare {
    /// Zero-filled ahead, so that a commit overwrites.
    Zero,
    /// Not at all: a commit makes the file longer.
    Append,
}

/// Times of one kind of commit, in nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// How many were made.
    pub writes: usize,
    /// The fastest.
    pub min: u64,
    /// The middle one.
    pub median: u64,
    /// The slowest.
    pub max: u64,
}

/// What the probe measured, and what follows. Shown as a sentence for the start banner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Probe {
    /// Write and flush over zero-filled space.
    pub overwrite: Timing,
    /// Write and flush at the end of a file that grows.
    pub append: Timing,
    /// The way to take: the faster one, and overwriting where that cannot be told.
    pub prepare: Prepare,
}

impl Probe {
    /// Measures in `directory`, with blocks of `block` bytes (a power of two).
    pub(super) fn run(directory: &Path, block: usize) -> io::Result<Self> {
        let mut memory = vec![0; 2 * block];
        let start = memory.as_ptr().align_offset(block);
        let buffer = &mut memory[start..start + block];

        let zeros = Scratch::new(directory, "zero");
        let (filled, grown) = (open_direct(zeros.path())?, Scratch::new(directory, "append"));
        for index in 0..SAMPLES {
            filled.write_all_at(buffer, (index * block) as u64)?;
        }
        filled.sync_all()?;
        let growing = open_direct(grown.path())?;
        growing.sync_all()?;

        // Not zeros: some devices know these and do not write them.
        buffer.iter_mut().enumerate().for_each(|(at, byte)| *byte = (at * 31 + at / 256) as u8);
        let deadline = Instant::now() + TIME;
        let (mut overwrite, mut append) = (Vec::new(), Vec::new());
        while append.len() < SAMPLES {
            take_turn(&filled, buffer, &mut overwrite, deadline)?;
            take_turn(&growing, buffer, &mut append, deadline)?;
            if append.len() >= SAMPLES_MIN && Instant::now() >= deadline {
                break;
            }
        }
        Ok(Self::judge(Timing::of(overwrite), Timing::of(append)))
    }

    fn judge(overwrite: Timing, append: Timing) -> Self {
        let faster = overwrite.median * GAIN_MIN <= append.median * 100;
        let unsteady = !overwrite.is_steady() || !append.is_steady();
        let prepare = if faster || unsteady { Prepare::Zero } else { Prepare::Append };
        Self { overwrite, append, prepare }
    }
}

fn take_turn(
    file: &File,
    buffer: &[u8],
    times: &mut Vec<u64>,
    deadline: Instant,
) -> io::Result<()> {
    for _ in 0..TURN.min(SAMPLES - times.len()) {
        let start = Instant::now();
        if times.len() >= SAMPLES_MIN && start >= deadline {
            break;
        }
        file.write_all_at(buffer, (times.len() * buffer.len()) as u64)?;
        file.sync_data()?;
        times.push(u64::try_from(start.elapsed().as_nanos()).unwrap_or(u64::MAX));
    }
    Ok(())
}

impl Timing {
    /// Of at least one time.
    fn of(mut times: Vec<u64>) -> Self {
        times.sort_unstable();
        let writes = times.len();
        Self { writes, min: times[0], median: times[writes / 2], max: times[writes - 1] }
    }

    fn is_steady(&self) -> bool {
        self.median * 100 < self.min * UNSTEADY_MIN
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (overwrite, append) = (Shown(self.overwrite.median), Shown(self.append.median));
        if !self.overwrite.is_steady() || !self.append.is_steady() {
            let (fastest, slowest) = (Shown(self.overwrite.min), Shown(self.overwrite.max));
            return write!(
                f,
                "write+flush {fastest} to {slowest}, median {overwrite}: the machine is too busy \
                 to tell more; segments are zero-filled ahead"
            );
        }
        match self.prepare {
            Prepare::Zero => write!(
                f,
                "write+flush {overwrite} over zero-filled space ({append} appending): \
                 segments are zero-filled ahead"
            ),
            Prepare::Append => write!(
                f,
                "write+flush {append} appending ({overwrite} over zero-filled space): \
                 segments grow as they are written"
            ),
        }
    }
}

/// Nanoseconds as a person reads them.
struct Shown(u64);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            ns if ns < 10_000 => write!(f, "{:.1} µs", ns as f64 / 1e3),
            ns if ns < 10_000_000 => write!(f, "{} µs", ns / 1_000),
            ns => write!(f, "{} ms", ns / 1_000_000),
        }
    }
}

/// The name of a file that is gone when this is dropped.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn new(directory: &Path, purpose: &str) -> Self {
        Self(directory.join(format!("{PREFIX}{}-{purpose}", std::process::id())))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Where it fails, the next start removes it.
        let _ = fs::remove_file(&self.0);
    }
}

/// Removes what probes of processes that crashed have left.
pub(super) fn remove_stale(directory: &Path) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timing(median: u64) -> Timing {
        Timing { writes: 1, min: median, median, max: median }
    }

    #[test]
    fn the_verdict_is_told_with_its_numbers() {
        let check = |overwrite: u64, append: u64, expected: &str| {
            let probe = Probe::judge(timing(overwrite), timing(append));
            assert_eq!(probe.to_string(), expected);
        };
        check(
            118_000,
            184_000,
            "write+flush 118 µs over zero-filled space (184 µs appending): \
             segments are zero-filled ahead",
        );
        check(
            100_000,
            119_000,
            "write+flush 119 µs appending (100 µs over zero-filled space): \
             segments grow as they are written",
        );
        check(
            9_000,
            12_000_000,
            "write+flush 9.0 µs over zero-filled space (12 ms appending): \
             segments are zero-filled ahead",
        );
    }

    #[test]
    fn a_busy_machine_decides_nothing() {
        let noisy = Timing { writes: 20, min: 200_000, median: 4_000_000, max: 8_000_000 };
        let probe = Probe::judge(noisy, timing(4_000_000));
        assert_eq!(probe.prepare, Prepare::Zero);
        let text = probe.to_string();
        assert!(text.starts_with("write+flush 200 µs to 8000 µs, median 4000 µs: "), "{text}");
    }

    #[test]
    fn the_median_is_the_middle() {
        let timing = Timing::of(vec![5, 1, 9]);
        assert_eq!((timing.min, timing.median, timing.max, timing.writes), (1, 5, 9, 3));
    }
}
