//! The accounting of one measurement: which acknowledgements count, and their latencies.
//!
//! In: acknowledgements and sends with their times. Out: histograms and counts. No I/O; times are
//! nanoseconds of the generator's clock. The invariant: in the open loop every message meant for
//! the window counts once, acknowledged or not; in the closed loop every acknowledgement that came
//! inside the window does.

use hdrhistogram::Histogram;
use serde::Serialize;

/// Longer latencies are recorded as this.
const LATENCY_NS_MAX: u64 = 3_600_000_000_000;

/// Which messages count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CountBy {
    /// Closed loop: when the acknowledgement came.
    Arrival,
    /// Open loop: when the message was meant to be sent.
    Intention,
}

/// What came in one second of the window.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Second {
    /// When it ended, from the window's start.
    pub at_s: f64,
    pub acknowledgements: u64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub max_us: f64,
}

/// Latencies and counts of a window of time.
#[derive(Debug)]
pub struct Measurement {
    count_by: CountBy,
    start_ns: u64,
    end_ns: u64,
    begun: bool,
    latency: Histogram<u64>,
    lag: Histogram<u64>,
    /// Of what came since the last second was over, coarse so that its end costs little.
    second: Histogram<u64>,
    seconds: Vec<Second>,
    /// Acknowledgements that came inside the window.
    pub arrived: u64,
    /// Messages meant for the window (open loop).
    pub intended: u64,
    /// Messages meant for the window and acknowledged, whenever (open loop).
    pub answered: u64,
    /// Acknowledgements that said no (MQTT 5 reason codes from 0x80 on), whenever.
    pub refused: u64,
    /// Messages meant for the window that had no acknowledgement in the end.
    pub unacknowledged: u64,
}

impl Measurement {
    /// Nothing counts until [`open`](Self::open).
    /// It has room for so many seconds.
    pub fn new(count_by: CountBy, seconds: u64) -> Self {
        Self {
            count_by,
            start_ns: u64::MAX,
            end_ns: u64::MAX,
            begun: false,
            latency: histogram(),
            lag: histogram(),
            second: of_precision(2),
            seconds: Vec::with_capacity(seconds as usize + 1),
            arrived: 0,
            intended: 0,
            answered: 0,
            refused: 0,
            unacknowledged: 0,
        }
    }

    /// Of nothing.
    pub fn none() -> Self {
        Self::new(CountBy::Arrival, 0)
    }

    /// Takes in what another thread has measured of the same window. Seconds are joined one by one;
    /// their percentiles become those of the slower thread.
    pub fn add(&mut self, other: &Self) {
        // The bounds are the same for all.
        let _ = self.latency.add(&other.latency);
        let _ = self.lag.add(&other.lag);
        for (second, more) in self.seconds.iter_mut().zip(&other.seconds) {
            second.acknowledgements += more.acknowledgements;
            second.p50_us = second.p50_us.max(more.p50_us);
            second.p99_us = second.p99_us.max(more.p99_us);
            second.max_us = second.max_us.max(more.max_us);
        }
        self.arrived += other.arrived;
        self.intended += other.intended;
        self.answered += other.answered;
        self.refused += other.refused;
        self.unacknowledged += other.unacknowledged;
    }

    /// When the window is; told before it begins.
    pub fn open(&mut self, start_ns: u64, end_ns: u64) {
        self.start_ns = start_ns;
        self.end_ns = end_ns;
    }

    /// The window begins: seconds are kept from now on.
    pub fn begin(&mut self) {
        self.begun = true;
        self.second.reset();
    }

    /// The window ends earlier or later than planned.
    pub fn close(&mut self, end_ns: u64) {
        self.end_ns = end_ns;
    }

    /// Whether a time lies inside the window.
    #[inline]
    pub fn holds(&self, time_ns: u64) -> bool {
        (self.start_ns..self.end_ns).contains(&time_ns)
    }

    /// A message is meant for this time.
    #[inline]
    pub fn message_due(&mut self, intended_ns: u64) {
        self.intended += u64::from(self.holds(intended_ns));
    }

    /// The same for so many who shall see it.
    #[inline]
    pub fn messages_due(&mut self, intended_ns: u64, count: u64) {
        self.intended += if self.holds(intended_ns) { count } else { 0 };
    }

    /// A message meant for this time left so much later than the generator could have sent it.
    #[inline]
    pub fn sent(&mut self, intended_ns: u64, lag_ns: u64) {
        if self.holds(intended_ns) {
            self.lag.saturating_record(lag_ns);
        }
    }

    /// An acknowledgement came.
    #[inline]
    pub fn acknowledged(&mut self, origin_ns: u64, now_ns: u64) {
        self.second.saturating_record(now_ns.saturating_sub(origin_ns));
        let (arrived, intended) = (self.holds(now_ns), self.holds(origin_ns));
        self.arrived += u64::from(arrived);
        let counts = match self.count_by {
            CountBy::Arrival => arrived,
            CountBy::Intention => intended,
        };
        if counts {
            self.answered += 1;
            self.latency.saturating_record(now_ns.saturating_sub(origin_ns));
        }
    }

    /// A message was never acknowledged: in the open loop it counts with the time that it has
    /// waited, so that what is lost does not flatter.
    pub fn never_acknowledged(&mut self, origin_ns: u64, now_ns: u64) {
        if self.count_by == CountBy::Intention && self.holds(origin_ns) {
            self.unacknowledged += 1;
            self.latency.saturating_record(now_ns.saturating_sub(origin_ns));
        }
    }

    /// About a second is over, inside the window or before it.
    pub fn second_over(&mut self, now_ns: u64) -> Second {
        let p = Percentiles::of(&self.second);
        let second = Second {
            at_s: now_ns.saturating_sub(self.start_ns) as f64 / 1e9,
            acknowledgements: p.count,
            p50_us: p.p50_us,
            p99_us: p.p99_us,
            max_us: p.max_us,
        };
        if self.begun && self.seconds.len() < self.seconds.capacity() {
            self.seconds.push(second);
        }
        self.second.reset();
        second
    }

    /// The seconds of the window that are over.
    pub fn seconds(&self) -> &[Second] {
        &self.seconds
    }

    /// Everything meant for the window is acknowledged.
    pub fn is_complete(&self) -> bool {
        self.answered >= self.intended
    }

    /// The latencies, in nanoseconds.
    pub fn latency(&self) -> &Histogram<u64> {
        &self.latency
    }

    /// The generator's own lateness (open loop).
    pub fn lag(&self) -> Percentiles {
        Percentiles::of(&self.lag)
    }
}

impl Default for Measurement {
    fn default() -> Self {
        Self::none()
    }
}

/// A histogram for latencies in nanoseconds: three significant digits.
pub fn histogram() -> Histogram<u64> {
    of_precision(3)
}

fn of_precision(digits: u8) -> Histogram<u64> {
    match Histogram::new_with_bounds(1, LATENCY_NS_MAX, digits) {
        Ok(histogram) => histogram,
        Err(error) => unreachable!("constant bounds: {error}"),
    }
}

/// What is printed of a distribution, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Percentiles {
    pub count: u64,
    pub min_us: f64,
    pub mean_us: f64,
    pub p50_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    #[serde(rename = "p99.9_us")]
    pub p999_us: f64,
    #[serde(rename = "p99.99_us")]
    pub p9999_us: f64,
    pub max_us: f64,
}

impl Percentiles {
    /// Of a histogram of nanoseconds; zeros when it is empty.
    pub fn of(histogram: &Histogram<u64>) -> Self {
        let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            count: histogram.len(),
            min_us: histogram.min() as f64 / 1e3,
            mean_us: histogram.mean() / 1e3,
            p50_us: at(0.5),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p999_us: at(0.999),
            p9999_us: at(0.9999),
            max_us: histogram.max() as f64 / 1e3,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn closed_loop_counts_what_arrives_inside_the_window() {
        let mut it = Measurement::new(CountBy::Arrival, 1);
        it.acknowledged(1, 5);
        it.open(100, 200);
        it.acknowledged(90, 99);
        it.acknowledged(90, 110);
        it.acknowledged(150, 199);
        it.acknowledged(150, 200);
        it.never_acknowledged(150, 300);
        assert_eq!((it.arrived, it.answered, it.unacknowledged), (2, 2, 0));
        assert_eq!(it.latency().len(), 2);
        assert_eq!((it.latency().min(), it.latency().max()), (20, 49));
    }

    #[test]
    fn open_loop_counts_what_was_meant_for_the_window_also_when_it_never_came() {
        let mut it = Measurement::new(CountBy::Intention, 1);
        it.open(100, 200);
        for intended in [90, 110, 120, 199, 200] {
            it.message_due(intended);
            it.sent(intended, 7);
        }
        assert_eq!((it.intended, it.lag().count), (3, 3));
        it.acknowledged(90, 130);
        it.acknowledged(110, 130);
        it.acknowledged(120, 250);
        assert!(!it.is_complete());
        it.never_acknowledged(199, 1_199);
        it.never_acknowledged(200, 1_200);
        assert_eq!((it.arrived, it.answered, it.unacknowledged), (2, 2, 1));
        assert_eq!((it.latency().len(), it.latency().max()), (3, 1_000));
    }

    #[test]
    fn percentiles_of_nothing_are_zeros() {
        assert_eq!(Percentiles::of(&histogram()).max_us, 0.0);
        assert_eq!(Percentiles::of(&histogram()).p50_us, 0.0);
    }

    #[test]
    fn seconds_of_the_window_are_kept_one_by_one() {
        let mut it = Measurement::new(CountBy::Arrival, 2);
        it.acknowledged(0, 1_000);
        assert_eq!(it.second_over(2_000).acknowledgements, 1);
        it.acknowledged(2_000, 2_500);
        it.open(3_000, 2_000_003_000);
        it.begin();
        it.acknowledged(3_000, 5_000);
        // Two digits.
        assert!((it.second_over(1_000_003_000).max_us - 2.0).abs() < 0.02);
        it.second_over(2_000_003_000);
        let counts: Vec<_> = it.seconds().iter().map(|s| (s.at_s, s.acknowledgements)).collect();
        assert_eq!(counts, [(1.0, 1), (2.0, 0)]);
    }
}
