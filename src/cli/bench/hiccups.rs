//! Scheduling hiccups: how long a thread that only spins is kept from its core.
//!
//! In: a core and a time. Out: the longest gap between two looks at the clock in each millisecond,
//! over all milliseconds: at the 99.9th percentile, what one millisecond in a thousand has at
//! least. Interrupts, other threads, and the host that runs this machine make them; nothing that is
//! measured here can have a better tail. A gap that covers several milliseconds counts in each.

use std::io;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::measure::{Percentiles, histogram};
use super::pin;

const SLOT_NS: u64 = 1_000_000;

/// Spins on every one of `cores` at once.
///
/// # Errors
/// When a thread cannot be pinned.
pub fn measure(cores: &[usize], duration: Duration) -> io::Result<Vec<Percentiles>> {
    let spin_on = |&core: &usize| {
        std::thread::spawn(move || {
            pin(core)?;
            Ok(Percentiles::of(&spin(duration)))
        })
    };
    let threads: Vec<_> = cores.iter().map(spin_on).collect();
    let joined = threads
        .into_iter()
        .map(|thread| thread.join().map_err(|_| io::Error::other("a spinning thread panicked"))?);
    joined.collect()
}

fn spin(duration: Duration) -> Histogram<u64> {
    let mut slots = Slots { gaps: histogram(), longest_ns: 0, left_ns: SLOT_NS };
    let start = Instant::now();
    let mut before = start;
    while before - start < duration {
        std::hint::spin_loop();
        let now = Instant::now();
        slots.gap((now - before).as_nanos() as u64);
        before = now;
    }
    slots.gaps
}

struct Slots {
    gaps: Histogram<u64>,
    /// Of the millisecond that runs.
    longest_ns: u64,
    left_ns: u64,
}

impl Slots {
    /// A gap, which begins in the running millisecond and may end in a later one.
    #[inline]
    fn gap(&mut self, gap_ns: u64) {
        self.longest_ns = self.longest_ns.max(gap_ns);
        let mut rest_ns = gap_ns;
        while rest_ns >= self.left_ns {
            rest_ns -= self.left_ns;
            self.gaps.saturating_record(self.longest_ns);
            // What is left of the gap keeps the next millisecond from its core too.
            self.longest_ns = rest_ns;
            self.left_ns = SLOT_NS;
        }
        self.left_ns -= rest_ns;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_millisecond_has_its_longest_gap() {
        let mut slots = Slots { gaps: histogram(), longest_ns: 0, left_ns: SLOT_NS };
        let mut values = |gaps: &[u64]| {
            slots.gaps.reset();
            gaps.iter().for_each(|&gap| slots.gap(gap));
            let all = slots.gaps.iter_recorded();
            all.flat_map(|step| {
                std::iter::repeat_n(
                    step.value_iterated_to() / 10_000,
                    step.count_at_value() as usize,
                )
            })
            .collect::<Vec<_>>()
        };
        assert_eq!(values(&[400_000, 300_000]), [0; 0]);
        assert_eq!(values(&[300_000]), [40]);
        assert_eq!(values(&[900_000, 100_000]), [90]);
        // Three and a half milliseconds: in the first, the second, the third, and what is left.
        assert_eq!(values(&[3_500_000]), [150, 250, 350]);
        assert_eq!(values(&[500_000]), [50]);
    }

    #[test]
    fn spinning_tells_every_millisecond() {
        let found = measure(&[0, 0], Duration::from_millis(30)).unwrap();
        assert_eq!(found.len(), 2);
        // The last millisecond may be under way still; two threads share the core, so gaps are long.
        assert!(found.iter().all(|p| p.count >= 25 && p.max_us > 0.0), "{found:?}");
        assert!(measure(&[99_999], Duration::ZERO).is_err());
    }
}
