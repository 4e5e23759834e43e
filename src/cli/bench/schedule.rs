//! The open loop: when every message is meant to be sent, and by whom, whatever the broker does.
//!
//! In: a rate, its shape, and the time. Out: which messages are due. Pure arithmetic; times are
//! nanoseconds since the schedule's start. The invariant: each message has one intended time and
//! one connection, none is skipped and none waits for another's acknowledgement.

const SECOND_NS: u64 = 1_000_000_000;

/// A burst is so many times the rate...
pub const BURST_FACTOR: u64 = 10;
/// ... for one second of so many, ...
pub const BURST_PERIOD_S: u64 = 10;
/// ... from this second on.
const BURST_AT_S: u64 = 4;

/// Of so many messages in a row...
const SKEW_OF: u64 = 10;
/// ... the first connection sends these.
const SKEW_FIRST: u64 = 9;

/// Message numbers, their intended times and their connections.
#[derive(Debug, Clone, Copy)]
pub struct Schedule {
    rate_per_s: u64,
    connections: u64,
    bursts: bool,
    skewed: bool,
}

impl Schedule {
    /// Evenly spaced messages, `rate_per_s` (at least 1) a second over the connections in turn.
    pub fn even(rate_per_s: u64, connections: u64) -> Self {
        let (rate_per_s, connections) = (rate_per_s.max(1), connections.max(1));
        Self { rate_per_s, connections, bursts: false, skewed: false }
    }

    /// With a second of ten times the rate in every ten.
    pub fn with_bursts(self) -> Self {
        Self { bursts: true, ..self }
    }

    /// The first connection has 90 % of the messages, where there is another one.
    pub fn with_skew(self) -> Self {
        Self { skewed: self.connections > 1, ..self }
    }

    /// When message `number` is meant to be sent. Exact: no error adds up.
    #[inline]
    pub fn intended_ns(self, number: u64) -> u64 {
        if !self.bursts {
            return time_ns(number, self.rate_per_s);
        }
        let rate = self.rate_per_s;
        let a_period = (BURST_PERIOD_S - 1 + BURST_FACTOR) * rate;
        let (period, number) = (number / a_period, number % a_period);
        let (before, in_burst) = (BURST_AT_S * rate, BURST_FACTOR * rate);
        let in_period = if number < before {
            time_ns(number, rate)
        } else if number < before + in_burst {
            BURST_AT_S * SECOND_NS + time_ns(number - before, in_burst)
        } else {
            (BURST_AT_S + 1) * SECOND_NS + time_ns(number - before - in_burst, rate)
        };
        period * BURST_PERIOD_S * SECOND_NS + in_period
    }

    /// Which connection sends message `number`.
    #[inline]
    pub fn connection_of(self, number: u64) -> u64 {
        if !self.skewed {
            number % self.connections
        } else if number % SKEW_OF < SKEW_FIRST {
            0
        } else {
            1 + number / SKEW_OF % (self.connections - 1)
        }
    }

    /// The number of a connection's `nth` message, from 0.
    #[inline]
    pub fn number_of(self, connection: u64, nth: u64) -> u64 {
        if !self.skewed {
            connection + nth * self.connections
        } else if connection == 0 {
            nth / SKEW_FIRST * SKEW_OF + nth % SKEW_FIRST
        } else {
            (connection - 1 + nth * (self.connections - 1)) * SKEW_OF + SKEW_FIRST
        }
    }
}

#[inline]
fn time_ns(number: u64, rate_per_s: u64) -> u64 {
    let (seconds, rest) = (number / rate_per_s, number % rate_per_s);
    seconds * SECOND_NS + rest * SECOND_NS / rate_per_s
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

    /// The next message whose time has come: its connection and its intended time. Call until
    /// `None`.
    #[inline]
    pub fn next(&mut self, now_ns: u64) -> Option<(u64, u64)> {
        if self.next_ns > now_ns {
            return None;
        }
        let due = (self.schedule.connection_of(self.next), self.next_ns);
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
            assert_eq!(Schedule::even(rate, 3).intended_ns(number), expected_ns);
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
    fn a_burst_is_a_second_of_ten_times_the_rate_and_the_rest_is_even() {
        let schedule = Schedule::even(100, 1).with_bursts();
        let mut a_second = [0; 23];
        for number in 0..19 * 100 * 3 {
            let second = schedule.intended_ns(number) / SECOND_NS;
            if let Some(count) = a_second.get_mut(second as usize) {
                *count += 1;
            }
        }
        let expected: [i32; 23] =
            std::array::from_fn(|second| if second % 10 == 4 { 1000 } else { 100 });
        assert_eq!(a_second, expected);
        let ordered = |n| schedule.intended_ns(n) < schedule.intended_ns(n + 1);
        assert!((0..5_000).all(ordered));
    }

    #[test]
    fn each_connection_knows_its_own_messages() {
        let even = Schedule::even(10, 7);
        for schedule in [even, even.with_skew(), Schedule::even(10, 1).with_skew()] {
            let mut sent = [0; 7];
            for number in 0..1000 {
                let connection = schedule.connection_of(number);
                let nth = &mut sent[connection as usize];
                assert_eq!(schedule.number_of(connection, *nth), number);
                *nth += 1;
            }
        }
        let of_first = (0..1000).filter(|n| even.with_skew().connection_of(*n) == 0).count();
        assert_eq!(of_first, 900);
    }

    #[test]
    fn late_messages_are_all_due_at_once_with_their_own_times() {
        let mut due = Due::new(Schedule::even(1_000, 3));
        assert_eq!(due.next(0), Some((0, 0)));
        assert_eq!(due.next(999_999), None);
        // The generator was away for 3 ms: nothing is skipped, nothing is rescheduled.
        let late: Vec<_> = std::iter::from_fn(|| due.next(3_100_000)).collect();
        assert_eq!(late, [(1, 1_000_000), (2, 2_000_000), (0, 3_000_000)]);
        assert_eq!(due.next(3_999_999), None);
        assert_eq!(due.next(4_000_000), Some((1, 4_000_000)));
    }

    #[test]
    fn small_lags_are_no_reproach() {
        assert!(!fell_behind(LAG_P99_NS_MAX, LAG_P999_NS_MAX));
        assert!(fell_behind(LAG_P99_NS_MAX + 1, LAG_P999_NS_MAX));
        assert!(fell_behind(0, LAG_P999_NS_MAX + 1));
    }
}
