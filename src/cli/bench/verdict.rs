//! A load's latencies next to the machine's floor, and whether the machine was quiet enough for
//! them to mean anything.
//!
//! In: the floor that was measured right before, the load's latencies, and the CPU time that the
//! host took away meanwhile. Out: ratios and a verdict. Pure.

use std::fmt;

use serde::Serialize;

use super::floor::Floor;
use super::measure::Percentiles;

/// More of the CPU time taken away by the host than this makes a run worthless.
const STEAL_SHARE_MAX: f64 = 0.01;
/// One millisecond in a hundred with a longer gap than this on a core that only spins: what is
/// measured at p99 is the machine.
const HICCUP_P99_US_MAX: f64 = 100.0;
/// The same for one in a thousand and p99.9.
const HICCUP_P999_US_MAX: f64 = 1_000.0;

/// Was the machine quiet enough?
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Noise {
    pub too_noisy: bool,
    /// Why, where it was not.
    pub reasons: Vec<String>,
}

impl Noise {
    /// `hiccups`: of each core that matters. `steal_share`: of all CPUs' time.
    pub fn judge(hiccups: &[Percentiles], steal_share: f64) -> Self {
        let mut reasons = Vec::new();
        if steal_share > STEAL_SHARE_MAX {
            reasons.push(format!("the host took {:.1} % of the CPU time", steal_share * 100.0));
        }
        let worst = |rank: fn(&Percentiles) -> f64| hiccups.iter().map(rank).fold(0.0, f64::max);
        let (p99, p999) = (worst(|p| p.p99_us), worst(|p| p.p999_us));
        if p99 > HICCUP_P99_US_MAX {
            reasons.push(format!("hiccups of {p99:.0} µs in one millisecond of a hundred"));
        }
        if p999 > HICCUP_P999_US_MAX {
            reasons.push(format!("hiccups of {p999:.0} µs in one millisecond of a thousand"));
        }
        Self { too_noisy: !reasons.is_empty(), reasons }
    }
}

impl fmt::Display for Noise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.too_noisy {
            write!(f, "too noisy to conclude: {}", self.reasons.join("; "))
        } else {
            f.write_str("quiet enough")
        }
    }
}

/// What an answer cannot be faster than.
#[derive(Debug, Clone, Copy)]
pub enum Needs {
    /// Whoever promises durability writes and flushes before it answers.
    WriteAndFlush,
    /// Nothing is promised (QoS 0, pings): a round trip is all.
    RoundTrip,
    /// A connection is made first.
    TcpConnect(Percentiles),
}

impl Needs {
    fn words(self) -> &'static str {
        match self {
            Self::WriteAndFlush => "round trip, write, flush",
            Self::RoundTrip => "round trip",
            Self::TcpConnect(_) => "TCP connect, round trip",
        }
    }

    /// The floor at one rank.
    fn at(self, floor: &Floor, rank: fn(&Percentiles) -> f64) -> f64 {
        let round_trip = rank(&floor.round_trip);
        match self {
            Self::WriteAndFlush => round_trip + rank(&floor.write_flush),
            Self::RoundTrip => round_trip,
            Self::TcpConnect(connect) => round_trip + rank(&connect),
        }
    }
}

/// Latencies over the floor.
#[derive(Debug, Clone, Serialize)]
pub struct AgainstFloor {
    /// What the floor is the sum of.
    pub of: &'static str,
    pub p50_us: f64,
    pub p99_us: f64,
    #[serde(rename = "p99.9_us")]
    pub p999_us: f64,
    /// The load's p50 over the floor's, and so on.
    pub ratio_p50: f64,
    pub ratio_p99: f64,
    #[serde(rename = "ratio_p99.9")]
    pub ratio_p999: f64,
    /// Over the floor's measurement and the load.
    pub noise: Noise,
    pub measured: Floor,
}

impl AgainstFloor {
    /// `steal_share`: during the load.
    pub fn new(floor: Floor, needs: Needs, latency: &Percentiles, steal_share: f64) -> Self {
        let hiccups = [floor.hiccups_engine_core, floor.hiccups_load_core];
        let p50_us = needs.at(&floor, |p| p.p50_us);
        let p99_us = needs.at(&floor, |p| p.p99_us);
        let p999_us = needs.at(&floor, |p| p.p999_us);
        Self {
            of: needs.words(),
            p50_us,
            p99_us,
            p999_us,
            ratio_p50: latency.p50_us / p50_us,
            ratio_p99: latency.p99_us / p99_us,
            ratio_p999: latency.p999_us / p999_us,
            noise: Noise::judge(&hiccups, steal_share.max(floor.steal_share)),
            measured: floor,
        }
    }
}

/// The last lines of a report, also where no floor was measured.
pub fn write_floor(f: &mut fmt::Formatter<'_>, floor: Option<&AgainstFloor>) -> fmt::Result {
    match floor {
        Some(floor) => write!(f, "{floor}"),
        None => writeln!(
            f,
            "floor          not measured (--floor-data DIR): no verdict on this machine"
        ),
    }
}

impl fmt::Display for AgainstFloor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "floor          p50 {:.1}  p99 {:.1}  p99.9 {:.1} µs ({})",
            self.p50_us, self.p99_us, self.p999_us, self.of
        )?;
        writeln!(
            f,
            "over the floor p50 {:.2} ×  p99 {:.2} ×  p99.9 {:.2} ×",
            self.ratio_p50, self.ratio_p99, self.ratio_p999
        )?;
        writeln!(f, "machine        {}", self.noise)
    }
}

#[cfg(test)]
mod tests {
    use super::super::measure::histogram;
    use super::*;

    fn hiccups(gaps_us: &[u64]) -> Percentiles {
        let mut it = histogram();
        (0..10_000).for_each(|_| it.record(5_000).unwrap());
        gaps_us.iter().for_each(|gap| it.record_n(gap * 1_000, 60).unwrap());
        Percentiles::of(&it)
    }

    #[test]
    fn what_makes_a_machine_too_noisy() {
        fn check(gaps_us: &[u64], steal_share: f64, expected: &[&str]) {
            let noise = Noise::judge(&[hiccups(&[]), hiccups(gaps_us)], steal_share);
            assert_eq!(noise.reasons.len(), expected.len(), "{noise}");
            assert!(noise.reasons.iter().zip(expected).all(|(r, e)| r.contains(e)), "{noise}");
            assert_eq!(noise.too_noisy, !expected.is_empty());
        }
        check(&[], 0.0, &[]);
        // 60 of ten thousand: beyond p99, and p99.9 is short enough.
        check(&[900], 0.009, &[]);
        check(&[2_000], 0.0, &["of a thousand"]);
        check(&[110, 120, 130], 0.0, &["of a hundred"]);
        check(&[2_000, 2_000, 2_000], 0.02, &["2.0 %", "of a hundred", "of a thousand"]);
    }

    #[test]
    fn a_floor_is_the_sum_of_what_an_answer_needs() {
        let all = |us: u64| {
            let mut it = histogram();
            it.record(us * 1_000).unwrap();
            Percentiles::of(&it)
        };
        let floor = Floor {
            round_trip_sleeping: all(1),
            round_trip_spinning: all(1),
            round_trip: all(20),
            write_flush: all(100),
            sum_p50_us: 120.0,
            sum_p99_us: 120.0,
            sum_p999_us: 120.0,
            hiccups_engine_core: all(3),
            hiccups_load_core: all(3),
            steal_share: 0.0,
            noise: Noise::judge(&[], 0.0),
        };
        let check = |needs: Needs, expected_us: f64, words: &str| {
            let against = AgainstFloor::new(floor.clone(), needs, &all(240), 0.0);
            assert!((against.p50_us / expected_us - 1.0).abs() < 0.01, "{against}");
            assert!((against.ratio_p999 * against.p999_us - 240.0).abs() < 1.0, "{against}");
            assert!(against.to_string().contains(words), "{against}");
        };
        check(Needs::WriteAndFlush, 120.0, "flush");
        check(Needs::RoundTrip, 20.0, "(round trip)");
        check(Needs::TcpConnect(all(30)), 50.0, "TCP connect");
    }
}
