//! What a storm of connects has shown, for people (Display) and for programs (JSON).
//!
//! In: the plan and the times of its connects. Out: text. The names of JSON fields carry their
//! units.

use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::floor::Floor;
use super::hgrm;
use super::measure::Percentiles;
use super::plan::{LoopKind, Plan};
use super::process::{Usage, cpu_ns_between};
use super::report::{ProcessReport, steal_share, stolen, too_noisy};
use super::runs::Outcome;
use super::verdict::{AgainstFloor, Needs, write_floor};

/// What a storm of connects has shown.
#[derive(Debug, Clone, Serialize)]
pub struct StormReport {
    pub address: String,
    pub mqtt_version: String,
    pub scenario: &'static str,
    pub connections: u32,
    /// Connects begun each second, where a rate was asked for.
    pub rate_per_s: Option<u64>,
    /// From the first connect to the last CONNACK.
    pub duration_s: f64,
    pub connects_per_s: f64,
    /// From the beginning of TCP's connect, or with a rate from its intended time, to the CONNACK.
    pub latency: Percentiles,
    /// (quantile, microseconds), for a plot.
    pub latency_curve: Vec<(f64, f64)>,
    #[serde(skip)]
    pub latencies: Histogram<u64>,
    /// TCP's connect alone.
    pub tcp: Percentiles,
    pub steal_ms: f64,
    /// Per message means per connect here.
    pub process: Option<ProcessReport>,
    /// Where the floor was measured right before.
    pub floor: Option<AgainstFloor>,
    /// What to know before the figures are believed.
    pub warnings: Vec<String>,
}

/// The times of a storm.
#[derive(Debug)]
pub struct StormTimes {
    pub duration_ns: u64,
    pub steal_ns: u64,
    pub histogram: Histogram<u64>,
    pub tcp: Percentiles,
}

impl StormReport {
    /// `usage`: of the process under test, before and after.
    pub fn new(plan: &Plan, times: &StormTimes, usage: Option<&(Usage, Usage)>) -> Self {
        let rate_per_s = match plan.loop_kind {
            LoopKind::Open { rate_per_s, .. } => Some(rate_per_s),
            LoopKind::Closed { .. } => None,
        };
        let process = usage.map(|(before, after)| {
            let cpu_ns = cpu_ns_between(before, after);
            let connects = u64::from(plan.connections);
            ProcessReport::new(cpu_ns, times.duration_ns, connects, after)
                .grown_from(before.rss_bytes, plan)
        });
        let duration_s = times.duration_ns as f64 / 1e9;
        Self {
            address: plan.address.to_string(),
            mqtt_version: plan.version.to_string(),
            scenario: plan.scenario.name(),
            connections: plan.connections,
            rate_per_s,
            duration_s,
            connects_per_s: f64::from(plan.connections) / duration_s.max(1e-9),
            latency: Percentiles::of(&times.histogram),
            latency_curve: hgrm::curve(&times.histogram),
            latencies: times.histogram.clone(),
            tcp: times.tcp,
            steal_ms: times.steal_ns as f64 / 1e6,
            process,
            floor: None,
            warnings: Vec::new(),
        }
    }

    /// Next to a floor that was measured right before, and with what to know about it all.
    pub fn against(mut self, floor: Option<Floor>) -> Self {
        let steal = steal_share(self.steal_ms, self.duration_s);
        let needs = Needs::TcpConnect(self.tcp);
        self.floor = floor.map(|floor| AgainstFloor::new(floor, needs, &self.latency, steal));
        self.warnings.extend(stolen(self.steal_ms, self.duration_s));
        self.warnings.extend(too_noisy(self.floor.as_ref()));
        self
    }
}

impl Outcome for StormReport {
    fn latencies(&self) -> &Histogram<u64> {
        &self.latencies
    }

    /// A storm that is not whole has no report.
    fn is_whole(&self) -> bool {
        true
    }

    fn warnings(&self) -> &[String] {
        &self.warnings
    }
}

impl fmt::Display for StormReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, MQTT {}, {}, ", self.address, self.mqtt_version, self.scenario)?;
        writeln!(f, "{} connections in {:.2} s", self.connections, self.duration_s)?;
        let asked = self.rate_per_s.map_or(String::new(), |rate| format!(" (asked for {rate}/s)"));
        writeln!(f, "accepted       {:.0}/s{asked}", self.connects_per_s)?;
        writeln!(f, "CONNACK        {}", self.latency)?;
        writeln!(f, "TCP connect    {}", self.tcp)?;
        if let Some(process) = &self.process {
            writeln!(f, "process        {process}")?;
        }
        write_floor(f, self.floor.as_ref())?;
        self.warnings.iter().try_for_each(|warning| writeln!(f, "WARNING: {warning}"))
    }
}
