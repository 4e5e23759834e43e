//! The throughput–latency curve: what a broker can do, then its latency at parts of that.
//!
//! In: a plan and a range of percentages. Out: a closed-loop run that saturates the broker, and an
//! open-loop run at each percentage of the rate that it had. Beyond 100 % an open loop must fall
//! behind: what is not acknowledged by the end is in the latencies with the time that it waited.

use std::fmt;

use serde::Serialize;

use super::BenchError;
use super::floor::Floor;
use super::plan::{LoopKind, Plan, Scenario};
use super::report::Report;
use super::runs::Outcome;
use super::threads;

/// Percentages of the saturation, evenly spaced.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Range {
    from: f64,
    to: f64,
}

impl std::str::FromStr for Range {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let percent = |part: &str| {
            let number = part.strip_suffix('%')?.parse::<f64>().ok()?;
            (number > 0.0 && number <= 1_000.0).then_some(number)
        };
        let ends = text.split_once("..").and_then(|(from, to)| percent(from).zip(percent(to)));
        match ends {
            Some((from, to)) if from < to => Ok(Self { from, to }),
            _ => Err(format!("{text:?} is not a range like 10%..110%")),
        }
    }
}

impl Range {
    /// `points` (at least 2) percentages, both ends among them.
    pub fn percentages(self, points: u32) -> impl Iterator<Item = f64> {
        let step = (self.to - self.from) / f64::from(points.max(2) - 1);
        (0..points.max(2)).map(move |point| self.from + step * f64::from(point))
    }
}

/// The curve.
#[derive(Debug, Serialize)]
pub struct Sweep {
    pub saturation: Report,
    pub steps: Vec<Step>,
}

/// One point of it.
#[derive(Debug, Serialize)]
pub struct Step {
    /// Of the saturation.
    pub percent: f64,
    pub report: Report,
}

/// Measures the curve.
///
/// # Errors
/// Those of [`threads::run`].
pub fn measure(
    plan: &Plan,
    floor: Option<&Floor>,
    in_flight_max: u16,
    percentages: impl Iterator<Item = f64>,
) -> Result<Sweep, BenchError> {
    let closed = Plan { scenario: Scenario::FanIn, ..plan.clone() };
    tell(plan, "saturation, closed loop");
    let saturation = threads::run(&closed)?.against(floor.cloned());
    let mut steps = Vec::new();
    for percent in percentages {
        let rate = saturation.acknowledgements_per_s * percent / 100.0;
        let rate_per_s = (rate.round() as u64).max(1);
        tell(plan, &format!("{percent:.0} %: {rate_per_s}/s, open loop"));
        let loop_kind = LoopKind::Open { rate_per_s, in_flight_max };
        let report = threads::run(&Plan { loop_kind, ..plan.clone() })?.against(floor.cloned());
        steps.push(Step { percent, report });
    }
    Ok(Sweep { saturation, steps })
}

fn tell(plan: &Plan, what: &str) {
    if plan.progress {
        eprintln!("{what}");
    }
}

impl Sweep {
    /// Every run that belongs to it.
    pub fn reports(&self) -> impl Iterator<Item = &Report> {
        std::iter::once(&self.saturation).chain(self.steps.iter().map(|step| &step.report))
    }

    /// Nothing was lost or refused, and what was asked for within the saturation was answered.
    pub fn is_whole(&self) -> bool {
        let answered = |step: &Step| {
            let report = &step.report;
            report.is_whole()
                || step.percent >= 100.0 && report.connections_lost == 0 && report.refused == 0
        };
        self.saturation.is_whole() && self.steps.iter().all(answered)
    }
}

impl fmt::Display for Sweep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.saturation)?;
        writeln!(
            f,
            "{:>6}{:>12}{:>14}{:>12}{:>12}{:>12}{:>12}{:>10}{:>18}",
            "",
            "intended/s",
            "acknowledged/s",
            "p50 µs",
            "p99 µs",
            "p99.9 µs",
            "max µs",
            "CPU ns",
            "× floor p50, p99.9"
        )?;
        for Step { percent, report } in &self.steps {
            let latency = &report.latency;
            let cpu = report.process.as_ref().map(|p| format!("{:.0}", p.cpu_ns_per_message));
            let floor = report.floor.as_ref();
            let floor = floor.map(|f| format!("{:.2} {:.2}", f.ratio_p50, f.ratio_p999));
            let none = || "-".to_owned();
            writeln!(
                f,
                "{percent:>5.0}%{:>12}{:>14.0}{:>12.1}{:>12.1}{:>12.1}{:>12.1}{:>10}{:>18}",
                report.open_loop.as_ref().map_or(0, |open| open.rate_per_s),
                report.acknowledgements_per_s,
                latency.p50_us,
                latency.p99_us,
                latency.p999_us,
                latency.max_us,
                cpu.unwrap_or_else(none),
                floor.unwrap_or_else(none)
            )?;
            for warning in report.warnings() {
                writeln!(f, "       WARNING: {warning}")?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges() {
        fn check(text: &str, points: u32, expected: Option<&[f64]>) {
            let range = text.parse::<Range>().ok();
            let found = range.map(|range| range.percentages(points).collect::<Vec<_>>());
            assert_eq!(found.as_deref(), expected, "{text}");
        }
        check("10%..110%", 3, Some(&[10.0, 60.0, 110.0]));
        check("50%..100%", 2, Some(&[50.0, 100.0]));
        check("2.5%..5%", 2, Some(&[2.5, 5.0]));
        for none in ["10..110%", "10%-110%", "0%..50%", "90%..50%", "10%..", "-5%..5%"] {
            check(none, 2, None);
        }
    }

    #[test]
    fn a_curve_goes_from_low_to_high() {
        let sink = super::super::null_sink::tests::Sink::start();
        let line = ["--sweep", "1%..3%", "--warmup", "10ms", "--duration", "100ms", "--quiet"];
        let mut plan = super::super::args::tests::parsed(&line).unwrap().plan().unwrap();
        plan.address = sink.address;
        let sweep = measure(&plan, None, 100, [1.0, 3.0].into_iter()).unwrap();
        assert_eq!(sweep.reports().count(), 3);
        assert!(sweep.saturation.window.is_some());
        let rates = |step: &Step| step.report.open_loop.as_ref().unwrap().rate_per_s;
        let asked: Vec<u64> = sweep.steps.iter().map(rates).collect();
        let expected = [0.01, 0.03]
            .map(|part| (sweep.saturation.acknowledgements_per_s * part).round() as u64);
        assert_eq!(asked, expected);
        assert!(sweep.is_whole());
        assert_eq!(sweep.to_string().lines().filter(|line| line.contains('%')).count(), 3);
    }
}
