//! A counter and a gauge with one writer and any number of readers.
//!
//! Ordering: every access is relaxed. Each cell is a number that means something alone: no reader
//! infers from one cell what another must hold, so there is nothing to publish together and no
//! partner to pair with. An aligned 64-bit access does not tear, so a reader sees a value that the
//! writer did store, at most a moment old. Because only one thread writes a cell, its load and its
//! store need not be one atomic step: nobody can write in between. On x86-64 and AArch64 the
//! addition is a plain load, add and store, without a locked instruction.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// A number that only grows. One thread writes it.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// A counter at 0.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Adds `count`; only ever called on the thread that owns the counter.
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(count), Relaxed);
    }

    /// Adds one; only ever called on the thread that owns the counter.
    #[inline]
    pub fn increment(&self) {
        self.add(1);
    }

    /// Takes over a total that the owner counts elsewhere; it must never shrink.
    #[inline]
    pub fn publish(&self, total: u64) {
        debug_assert!(total >= self.0.load(Relaxed), "a counter never shrinks");
        self.0.store(total, Relaxed);
    }

    /// The count so far.
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// A number that grows and shrinks. One thread writes it.
#[derive(Debug, Default)]
pub struct Gauge(AtomicU64);

impl Gauge {
    /// A gauge at 0.
    pub const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Takes the value over; only ever called on the thread that owns the gauge.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Adds `count`; only ever called on the thread that owns the gauge.
    #[inline]
    pub fn add(&self, count: u64) {
        self.set(self.value().wrapping_add(count));
    }

    /// Takes `count` away; the gauge must hold as much.
    #[inline]
    pub fn sub(&self, count: u64) {
        debug_assert!(self.value() >= count, "a gauge never falls below 0");
        self.set(self.value().saturating_sub(count));
    }

    /// The value now.
    #[inline]
    pub fn value(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_writer_loses_nothing_while_others_read() {
        let counter = Counter::new();
        std::thread::scope(|scope| {
            scope.spawn(|| (0..100_000).for_each(|_| counter.add(3)));
            let mut before = 0;
            while before < 300_000 {
                let now = counter.value();
                assert!(now >= before && now.is_multiple_of(3), "{before} then {now}");
                before = now;
            }
        });
        assert_eq!(counter.value(), 300_000);
    }

    #[test]
    fn gauges_go_both_ways() {
        let gauge = Gauge::new();
        gauge.add(5);
        gauge.sub(2);
        assert_eq!(gauge.value(), 3);
        gauge.set(9);
        assert_eq!(gauge.value(), 9);
    }
}
