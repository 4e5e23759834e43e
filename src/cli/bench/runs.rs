//! Several runs of one load, and how far their figures lie apart.
//!
//! In: reports. Out: for each figure of them the median and the lowest and highest, for people and
//! as JSON. The invariant: a figure is told only where every run has it. Time series and settings
//! are no figures.

use std::collections::BTreeMap;
use std::fmt;

use hdrhistogram::Histogram;
use serde::Serialize;
use serde_json::Value;

use super::BenchError;
use super::measure::histogram;

/// What one run of any load has shown.
pub trait Outcome: Serialize + fmt::Display {
    /// All latencies, in nanoseconds.
    fn latencies(&self) -> &Histogram<u64>;
    /// What to know before its figures are believed.
    fn warnings(&self) -> &[String];
    /// Nothing was lost, refused or left unanswered.
    fn is_whole(&self) -> bool;
}

/// The latencies of all runs together.
pub fn all_latencies<R: Outcome>(runs: &[R]) -> Histogram<u64> {
    let mut all = histogram();
    for run in runs {
        // The bounds are the same for all.
        let _ = all.add(run.latencies());
    }
    all
}

/// One figure over all runs.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Spread {
    pub median: f64,
    pub min: f64,
    pub max: f64,
}

impl Spread {
    /// `None` of nothing.
    pub fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        let (low, high) = ((values.len() - 1) / 2, values.len() / 2);
        Some(Self { median: f64::midpoint(values[low], values[high]), min, max })
    }
}

/// Runs with their spread.
#[derive(Debug, Serialize)]
pub struct Runs<R> {
    /// By the path of the figure in a report, as `latency.p50_us`.
    pub spread: BTreeMap<String, Spread>,
    pub runs: Vec<R>,
}

impl<R: Serialize> Runs<R> {
    /// # Errors
    /// When a report cannot be made into JSON.
    pub fn new(runs: Vec<R>) -> Result<Self, BenchError> {
        let mut figures: BTreeMap<String, Vec<f64>> = BTreeMap::new();
        for run in &runs {
            let value = serde_json::to_value(run).map_err(BenchError::Json)?;
            collect(&value, "", &mut figures);
        }
        let everywhere = figures.into_iter().filter(|(_, values)| values.len() == runs.len());
        let spread = everywhere.filter_map(|(path, values)| Some((path, Spread::of(values)?)));
        Ok(Self { spread: spread.collect(), runs })
    }
}

/// Every number of a report, by its path.
pub fn collect(value: &Value, path: &str, figures: &mut BTreeMap<String, Vec<f64>>) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                collect(field, &path, figures);
            }
        }
        Value::Number(number) => {
            figures.entry(path.to_owned()).or_default().extend(number.as_f64());
        }
        _ => {}
    }
}

/// What people read first: path, name, unit, and what a unit is of the figure's.
const FIGURES: [(&str, &str, &str, f64); 12] = [
    ("acknowledgements_per_s", "acknowledged", "/s", 1.0),
    ("connects_per_s", "accepted", "/s", 1.0),
    ("latency.p50_us", "latency p50", "µs", 1.0),
    ("latency.p90_us", "latency p90", "µs", 1.0),
    ("latency.p99_us", "latency p99", "µs", 1.0),
    ("latency.p99.9_us", "latency p99.9", "µs", 1.0),
    ("latency.p99.99_us", "latency p99.99", "µs", 1.0),
    ("latency.max_us", "latency max", "µs", 1.0),
    ("process.cpu_ns_per_message", "CPU a message", "ns", 1.0),
    ("process.rss_bytes", "resident", "MiB", 1048576.0),
    ("process.rss_bytes_a_connection", "a connection", "KiB", 1024.0),
    ("generator_idle_share", "generator idle", "%", 0.01),
];

impl<R: fmt::Display> fmt::Display for Runs<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, run) in self.runs.iter().enumerate() {
            writeln!(f, "run {}: {run}", index + 1)?;
        }
        writeln!(f, "{:<16}{:>14}{:>14}{:>14}", "all runs", "median", "lowest", "highest")?;
        for (path, name, unit, scale) in FIGURES {
            let Some(spread) = self.spread.get(path) else { continue };
            let [median, min, max] = [spread.median, spread.min, spread.max].map(|v| v / scale);
            writeln!(f, "{name:<16}{median:>14.1}{min:>14.1}{max:>14.1} {unit}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_spread_is_the_median_between_the_extremes() {
        fn check(values: &[f64], expected: Option<(f64, f64, f64)>) {
            let spread = Spread::of(values.to_vec());
            assert_eq!(spread.map(|s| (s.median, s.min, s.max)), expected);
        }
        check(&[], None);
        check(&[7.0], Some((7.0, 7.0, 7.0)));
        check(&[9.0, 1.0, 2.0], Some((2.0, 1.0, 9.0)));
        check(&[4.0, 1.0, 2.0, 9.0], Some((3.0, 1.0, 9.0)));
    }

    #[test]
    fn figures_are_found_by_their_path_where_every_run_has_them() {
        let run = |p50: f64, process: Value| {
            serde_json::json!({
                "latency": {"p50_us": p50, "p99.9_us": 2.0 * p50},
                "process": process, "mqtt_version": "5", "seconds": [1, 2],
            })
        };
        let busy = serde_json::json!({"rss_bytes": 2097152});
        let runs = Runs::new(vec![run(3.0, busy), run(5.0, Value::Null)]).unwrap();
        let found: Vec<_> = runs.spread.iter().map(|(path, s)| (path.as_str(), s.median)).collect();
        assert_eq!(found, [("latency.p50_us", 4.0), ("latency.p99.9_us", 8.0)]);
        let text = runs.to_string();
        assert!(text.contains("latency p99.9") && text.contains("6.0          10.0 µs"), "{text}");
    }
}
