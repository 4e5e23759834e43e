//! Fixed buckets that one thread fills and the control thread reads: a Prometheus histogram.
//!
//! The bucket of a value is found without a search: a scale has at most one bound in each power of
//! two, so the value's highest bit leaves two candidates and one comparison decides.

use super::Counter;

/// The most bounds that a scale may have.
const BOUNDS_MAX: usize = 26;

/// The upper bounds of a distribution's buckets, ascending, each at least twice the one before.
#[derive(Debug)]
pub struct Scale {
    bounds: &'static [u64],
    /// For each number of significant bits: the first bound that a value of that size can meet.
    first: [u8; 65],
}

/// Nanoseconds, 100 ns to 10 s in steps 1, 2.5, 5.
pub static SECONDS: Scale = Scale::new(&[
    100,
    250,
    500,
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    500_000_000,
    1_000_000_000,
    2_500_000_000,
    5_000_000_000,
    10_000_000_000,
]);

/// Bytes of one write, 512 B to 128 MiB in steps of 4.
pub static BYTES: Scale = Scale::new(&[
    512,
    2_048,
    8_192,
    32_768,
    131_072,
    524_288,
    2_097_152,
    8_388_608,
    33_554_432,
    134_217_728,
]);

/// Records of one commit, 1 to 262,144 in steps of 4.
pub static RECORDS: Scale = Scale::new(&[1, 4, 16, 64, 256, 1_024, 4_096, 16_384, 65_536, 262_144]);

impl Scale {
    const fn new(bounds: &'static [u64]) -> Self {
        assert!(!bounds.is_empty() && bounds.len() <= BOUNDS_MAX && bounds[0] > 0);
        let mut at = 1;
        while at < bounds.len() {
            assert!(bounds[at] >= 2 * bounds[at - 1], "one bound a power of two at most");
            at += 1;
        }
        let mut first = [0u8; 65];
        let mut bits = 0;
        while bits <= 64 {
            // The smallest value that has so many significant bits.
            let smallest = if bits == 0 { 0 } else { 1u64 << (bits - 1) };
            let mut bound = 0;
            while bound < bounds.len() && bounds[bound] < smallest {
                bound += 1;
            }
            first[bits] = bound as u8;
            bits += 1;
        }
        Self { bounds, first }
    }

    /// The upper bounds, inclusive, ascending; the last bucket has none and takes the rest.
    pub fn bounds(&self) -> &'static [u64] {
        self.bounds
    }

    /// The bucket of `value`: the first whose bound is not below it.
    #[inline]
    fn bucket(&self, value: u64) -> usize {
        let first = self.first[64 - value.leading_zeros() as usize] as usize;
        match self.bounds.get(first) {
            Some(&bound) if value > bound => first + 1,
            _ => first,
        }
    }
}

/// How often values fell into each bucket of a scale, and their sum. One thread writes it.
#[derive(Debug)]
pub struct Distribution {
    scale: &'static Scale,
    buckets: [Counter; BOUNDS_MAX + 1],
    sum: Counter,
}

impl Distribution {
    /// An empty distribution.
    pub fn new(scale: &'static Scale) -> Self {
        Self { scale, buckets: std::array::from_fn(|_| Counter::new()), sum: Counter::new() }
    }

    /// Counts `value`.
    #[inline]
    pub fn record(&self, value: u64) {
        self.record_many(value, 1);
    }

    /// Counts `value` as often as `count` says.
    #[inline]
    pub fn record_many(&self, value: u64, count: u64) {
        self.buckets[self.scale.bucket(value)].add(count);
        self.sum.add(value.wrapping_mul(count));
    }

    /// The scale's bounds.
    pub fn bounds(&self) -> &'static [u64] {
        self.scale.bounds
    }

    /// How many values each bucket took, the one without a bound last.
    pub fn counts(&self) -> impl Iterator<Item = u64> {
        self.buckets[..=self.scale.bounds.len()].iter().map(Counter::value)
    }

    /// The sum of all values, in the scale's unit.
    pub fn sum(&self) -> u64 {
        self.sum.value()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(scale: &'static Scale) {
        let slow = |value| scale.bounds.iter().take_while(|bound| **bound < value).count();
        let edges = scale.bounds.iter().flat_map(|b| [b - 1, *b, b + 1]);
        let powers = (0..64).flat_map(|bit| [(1u64 << bit) - 1, 1 << bit, (1 << bit) + 1]);
        for value in edges.chain(powers).chain([0, u64::MAX]) {
            assert_eq!(scale.bucket(value), slow(value), "{value}");
        }
    }

    #[test]
    fn the_bucket_is_the_first_that_is_not_below() {
        check(&SECONDS);
        check(&BYTES);
        check(&RECORDS);
    }

    #[test]
    fn sum_and_counts_add_up() {
        let records = Distribution::new(&RECORDS);
        records.record(1);
        records.record_many(5, 3);
        records.record(1 << 40);
        let expected = [1, 0, 3, 0, 0, 0, 0, 0, 0, 0, 1];
        assert_eq!(records.counts().collect::<Vec<_>>(), expected);
        assert_eq!(records.sum(), 16 + (1 << 40));
    }
}
