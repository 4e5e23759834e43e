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

/// Latencies over the floor.
#[derive(Debug, Clone, Serialize)]
pub struct AgainstFloor {
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
    pub fn new(floor: Floor, latency: &Percentiles, steal_share: f64) -> Self {
        let hiccups = [floor.hiccups_engine_core, floor.hiccups_load_core];
        Self {
            ratio_p50: latency.p50_us / floor.sum_p50_us,
            ratio_p99: latency.p99_us / floor.sum_p99_us,
            ratio_p999: latency.p999_us / floor.sum_p999_us,
            noise: Noise::judge(&hiccups, steal_share.max(floor.steal_share)),
            measured: floor,
        }
    }
}

impl fmt::Display for AgainstFloor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let floor = &self.measured;
        writeln!(
            f,
            "floor          p50 {:.1}  p99 {:.1}  p99.9 {:.1} µs (round trip, write, flush)",
            floor.sum_p50_us, floor.sum_p99_us, floor.sum_p999_us
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
}
