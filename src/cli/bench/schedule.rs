//! The open loop: when every message is meant to be sent, whatever the broker does.
//!
//! In: a rate and the time. Out: which messages are due. Pure arithmetic; times are nanoseconds
//! since the schedule's start. The invariant: message `n` is meant for `n / rate`, none is skipped
//! and none waits for another's acknowledgement.

/// Message numbers and their intended times.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    rate_per_s: u64,
}

impl Schedule {
    /// Evenly spaced messages, `rate_per_s` (at least 1) a second.
    pub fn new(rate_per_s: u64) -> Self {
        Self { rate_per_s: rate_per_s.max(1) }
    }

    /// When message `number` is meant to be sent. Exact: no error adds up.
    #[inline]
    pub fn intended_ns(self, number: u64) -> u64 {
        let (seconds, rest) = (number / self.rate_per_s, number % self.rate_per_s);
        seconds * 1_000_000_000 + rest * 1_000_000_000 / self.rate_per_s
    }
}

/// Walks a schedule as time passes.
#[derive(Debug, Clone, Copy)]
pub struct Due {
    schedule: Schedule,
    next: u64,
    next_ns: u64,
}

impl Due {
    /// From the first message.
    pub fn new(schedule: Schedule) -> Self {
        Self { schedule, next: 0, next_ns: schedule.intended_ns(0) }
    }

    /// The next message whose time has come, with its intended time. Call until `None`.
    #[inline]
    pub fn next(&mut self, now_ns: u64) -> Option<(u64, u64)> {
        if self.next_ns > now_ns {
            return None;
        }
        let due = (self.next, self.next_ns);
        self.next += 1;
        self.next_ns = self.schedule.intended_ns(self.next);
        Some(due)
    }
}

/// Send lag from which on the generator itself distorts what it measures: 99th percentile.
pub const LAG_P99_NS_MAX: u64 = 100_000;

/// The same for the 99.9th percentile.
pub const LAG_P999_NS_MAX: u64 = 1_000_000;

/// Did the generator keep its own schedule? Lag is how long a message that was due, on a
/// connection that could send, waited for the generator. What waits because the broker does not
/// read or acknowledge is not lag; either is part of the latency.
pub fn fell_behind(lag_p99_ns: u64, lag_p999_ns: u64) -> bool {
    lag_p99_ns > LAG_P99_NS_MAX || lag_p999_ns > LAG_P999_NS_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intended_times() {
        fn check(rate: u64, number: u64, expected_ns: u64) {
            assert_eq!(Schedule::new(rate).intended_ns(number), expected_ns);
        }
        check(1, 5, 5_000_000_000);
        check(2_000, 0, 0);
        check(2_000, 1, 500_000);
        check(2_000, 2_000 * 3600, 3_600_000_000_000);
        check(3, 1, 333_333_333);
        check(3, 3, 1_000_000_000);
        check(3, 3_000_001, 1_000_000_333_333_333);
        check(1_700_000, 1_700_001, 1_000_000_588);
        check(0, 1, 1_000_000_000);
    }

    #[test]
    fn late_messages_are_all_due_at_once_with_their_own_times() {
        let mut due = Due::new(Schedule::new(1_000));
        assert_eq!(due.next(0), Some((0, 0)));
        assert_eq!(due.next(999_999), None);
        // The generator was away for 3 ms: nothing is skipped, nothing is rescheduled.
        let late: Vec<_> = std::iter::from_fn(|| due.next(3_100_000)).collect();
        assert_eq!(late, [(1, 1_000_000), (2, 2_000_000), (3, 3_000_000)]);
        assert_eq!(due.next(3_999_999), None);
        assert_eq!(due.next(4_000_000), Some((4, 4_000_000)));
    }

    #[test]
    fn small_lags_are_no_reproach() {
        assert!(!fell_behind(LAG_P99_NS_MAX, LAG_P999_NS_MAX));
        assert!(fell_behind(LAG_P99_NS_MAX + 1, LAG_P999_NS_MAX));
        assert!(fell_behind(0, LAG_P999_NS_MAX + 1));
    }
}
