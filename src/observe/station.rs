//! How long each station takes: recorded by the shard, once or twice for a receive buffer or a
//! commit, never a message.
//!
//! A record goes into two places. The fixed buckets that Prometheus adds up over time and shards
//! are shared cells and written at once (three plain additions), so there is nothing to copy later
//! and a scrape is never stale. The hdrhistogram is the shard's own and gives the percentiles,
//! which buckets of factor 2.5 cannot; it covers the interval since its last summary. Deriving
//! the buckets from the histogram instead would save about 2 ns a record and cost a walk over
//! thousands of counts at each publication, which is a stall that a message in the queue feels.
//!
//! Two significant digits (1 %) and 32-bit counts keep a histogram at 15 KiB; three would take
//! 200 KiB for each station and push the data path out of the L2 cache at each summary. The range
//! is bounded and resizing is off, so that recording never allocates; longer times count as the
//! longest.

use hdrhistogram::Histogram;

use super::label::{Label, labels};
use super::{Distribution, Gauge, SECONDS, ShardMetrics};

labels! {
    /// The stations of the data path, in the order in which a message meets them.
    Station {
        /// A receive buffer through decoding and append.
        Ingest => "ingest",
        /// The batches of a commit into its aligned buffer: checksums, compression, the copy.
        Seal => "seal",
        /// A commit's write, from submission to completion, where it was seen apart from its flush:
        /// one in sixteen at the least.
        Write => "write",
        /// A commit's flush, likewise.
        Flush => "flush",
        /// From the arrival of a commit's oldest message to its durability.
        Commit => "commit",
        /// The acknowledgements of a commit into the send buffers.
        Acknowledge => "acknowledge",
        /// A Kafka Fetch from its arrival, or from the data that it waited for, to its response.
        Fetch => "fetch",
    }
}

/// The longest time that is told apart, in nanoseconds: one minute.
const NS_MAX: u64 = 60_000_000_000;

/// The quantiles that a summary publishes; the last is the maximum.
pub const QUANTILES: [f64; 4] = [0.5, 0.99, 0.999, 1.0];

/// One station's times, as the control thread reads them.
#[derive(Debug)]
pub struct StationSummary {
    /// All times since the start, in nanoseconds.
    pub times: Distribution,
    /// The `QUANTILES` of the last interval in which the station worked, in nanoseconds.
    pub quantiles: [Gauge; QUANTILES.len()],
}

impl Default for StationSummary {
    fn default() -> Self {
        Self {
            times: Distribution::new(&SECONDS),
            quantiles: std::array::from_fn(|_| Gauge::new()),
        }
    }
}

/// One shard's clock book; stays on the shard's thread.
#[derive(Debug)]
pub struct StationTimes {
    intervals: [Histogram<u32>; Station::COUNT],
    /// The station whose summary is due next, `0 <= next < Station::COUNT`.
    next: usize,
}

impl Default for StationTimes {
    fn default() -> Self {
        Self::new()
    }
}

impl StationTimes {
    /// An empty book; the only place that allocates.
    pub fn new() -> Self {
        let interval = || {
            let mut histogram = Histogram::new_with_bounds(1, NS_MAX, 2)
                .expect("1 ns to 1 min with 2 digits are valid bounds");
            histogram.auto(false);
            histogram
        };
        Self { intervals: std::array::from_fn(|_| interval()), next: 0 }
    }

    /// Counts that `station` took `ns`.
    #[inline]
    pub fn record(&mut self, metrics: &ShardMetrics, station: Station, ns: u64) {
        self.record_many(metrics, station, ns, 1);
    }

    /// Counts that `station` took `ns` for each of `count`.
    #[inline]
    pub fn record_many(&mut self, metrics: &ShardMetrics, station: Station, ns: u64, count: u32) {
        metrics.stations[station.index()].times.record_many(ns, u64::from(count));
        self.intervals[station.index()].saturating_record_n(ns.max(1), count);
    }

    /// Publishes the quantiles of the next station in turn and begins its next interval.
    ///
    /// The shard calls it every 200 ms or so: then each station has an interval of a second and a
    /// half. A call walks 15 KiB at most, about 2 µs, and allocates nothing. A station that did
    /// nothing keeps its quantiles.
    pub fn publish_next(&mut self, metrics: &ShardMetrics) {
        let station = self.next;
        self.next = (station + 1) % Station::COUNT;
        let interval = &mut self.intervals[station];
        if interval.is_empty() {
            return;
        }
        for (gauge, quantile) in metrics.stations[station].quantiles.iter().zip(QUANTILES) {
            gauge.set(interval.value_at_quantile(quantile));
        }
        interval.reset();
    }

    /// Publishes what every station has recorded and begins all intervals anew; for the end of a
    /// run and for tests.
    pub fn publish_all(&mut self, metrics: &ShardMetrics) {
        (0..Station::COUNT).for_each(|_| self.publish_next(metrics));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_live_and_quantiles_follow_the_summary() {
        let metrics = ShardMetrics::new(1, 1, 1);
        let mut times = StationTimes::new();
        (1..=1_000).for_each(|us| times.record(&metrics, Station::Flush, us * 1_000));
        let flush = &metrics.stations[Station::Flush.index()];
        assert_eq!(flush.times.counts().sum::<u64>(), 1_000);
        assert_eq!(flush.times.sum(), 500_500_000);
        assert_eq!(flush.quantiles[0].value(), 0);
        times.publish_all(&metrics);
        let check = |index: usize, expected: u64| {
            let value = flush.quantiles[index].value();
            assert!(value.abs_diff(expected) <= expected / 100, "{value} is not {expected}");
        };
        check(0, 500_000);
        check(1, 990_000);
        check(2, 999_000);
        check(3, 1_000_000);
    }

    #[test]
    fn an_idle_interval_keeps_the_quantiles_and_a_new_one_starts_empty() {
        let metrics = ShardMetrics::new(1, 1, 1);
        let mut times = StationTimes::new();
        let median = || metrics.stations[Station::Write.index()].quantiles[0].value();
        times.record_many(&metrics, Station::Write, 1_000, 5);
        times.publish_all(&metrics);
        let first = median();
        times.publish_all(&metrics);
        assert_eq!(median(), first);
        times.record(&metrics, Station::Write, 100_000);
        times.publish_all(&metrics);
        assert!(median().abs_diff(100_000) <= 1_000, "{}", median());
    }

    #[test]
    fn times_beyond_the_range_count_as_the_longest() {
        let metrics = ShardMetrics::new(1, 1, 1);
        let mut times = StationTimes::new();
        times.record(&metrics, Station::Commit, u64::MAX);
        times.record(&metrics, Station::Commit, 0);
        times.publish_all(&metrics);
        let longest = metrics.stations[Station::Commit.index()].quantiles[3].value();
        assert!(longest.abs_diff(NS_MAX) <= NS_MAX / 100 * 2, "{longest}");
    }
}
