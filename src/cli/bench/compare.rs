//! Reports side by side as text: medians of rounds, and how they stand to one another.
//!
//! In: JSON reports with names; what is called `name.1`, `name.2` are rounds of `name`. Out: a table
//! with a block for each name in the order in which they came: medians, the lowest and highest of
//! the rounds, and the ratios of its medians to those of the names that are compared against. The
//! invariant: a figure stands there only where every round has it; a warning of any round is told.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;

use super::runs::{Spread, collect};

/// One column: where its figure stands in a report, its title, and what a unit is of the figure's.
struct Column {
    path: &'static str,
    title: &'static str,
    unit: f64,
}

const fn column(path: &'static str, title: &'static str, unit: f64) -> Column {
    Column { path, title, unit }
}

/// Columns that no report has are left out.
const COLUMNS: [Column; 17] = [
    column("acknowledgements_per_s", "answered/s", 1.0),
    column("connects_per_s", "accepted/s", 1.0),
    column("latency.p50_us", "p50 µs", 1.0),
    column("latency.p99_us", "p99 µs", 1.0),
    column("latency.p99.9_us", "p99.9 µs", 1.0),
    column("floor.ratio_p50", "p50 × floor", 1.0),
    column("floor.ratio_p99.9", "p99.9 × fl.", 1.0),
    column("subscriber.latency.p50_us", "subscr. p50", 1.0),
    column("subscriber.latency.p99_us", "subscr. p99", 1.0),
    column("consumer.latency.p50_us", "consum. p50", 1.0),
    column("consumer.latency.p99_us", "consum. p99", 1.0),
    column("process.cpu_ns_per_message", "CPU ns/msg", 1.0),
    column("process.cpu_cores", "CPU %", 0.01),
    column("process.rss_bytes", "MiB", 1048576.0),
    column("process.rss_bytes_a_connection", "KiB/conn.", 1024.0),
    column("open_loop.lag.p99.9_us", "lag p99.9 µs", 1.0),
    column("generator_idle_share", "load idle %", 0.01),
];

/// The rounds of one name.
struct Rounds<'a> {
    name: String,
    spreads: BTreeMap<String, Spread>,
    reports: Vec<&'a Value>,
}

/// The table. Its lines are made when it is shown.
pub struct Table<'a> {
    rounds: Vec<Rounds<'a>>,
    against: Vec<String>,
}

impl<'a> Table<'a> {
    /// Of `inputs` (name and report); ratios are to the names in `against`, or where that is empty
    /// to the first one.
    pub fn new(inputs: impl Iterator<Item = (&'a str, &'a Value)>, against: &[String]) -> Self {
        let mut named: Vec<(String, Vec<&Value>)> = Vec::new();
        for (name, report) in inputs {
            for (name, run) in runs(name, report) {
                match named.iter_mut().find(|(known, _)| *known == name) {
                    Some((_, rounds)) => rounds.push(run),
                    None => named.push((name, vec![run])),
                }
            }
        }
        let rounds: Vec<_> = named
            .into_iter()
            .map(|(name, reports)| Rounds { name, spreads: spreads(&reports), reports })
            .collect();
        let first = || rounds.iter().take(1).map(|rounds| rounds.name.clone()).collect();
        let against = if against.is_empty() { first() } else { against.to_vec() };
        Self { rounds, against }
    }
}

/// The single runs that a report is made of, with the name of what they measure.
fn runs<'a>(name: &str, report: &'a Value) -> Vec<(String, &'a Value)> {
    let name = match name.rsplit_once('.') {
        Some((name, round)) if round.parse::<u32>().is_ok() => name,
        _ => name,
    };
    if let Some(runs) = report["runs"].as_array() {
        return runs.iter().map(|run| (name.to_owned(), run)).collect();
    }
    let Some(steps) = report["steps"].as_array() else { return vec![(name.to_owned(), report)] };
    let step = |step: &'a Value| {
        (format!("{name} {:.0} %", step["percent"].as_f64().unwrap_or(0.0)), &step["report"])
    };
    let saturation = (format!("{name} closed"), &report["saturation"]);
    std::iter::once(saturation).chain(steps.iter().map(step)).collect()
}

fn spreads(reports: &[&Value]) -> BTreeMap<String, Spread> {
    let mut figures: BTreeMap<String, Vec<f64>> = BTreeMap::new();
    for report in reports {
        collect(report, "", &mut figures);
    }
    let everywhere = figures.into_iter().filter(|(_, values)| values.len() == reports.len());
    everywhere.filter_map(|(path, values)| Some((path, Spread::of(values)?))).collect()
}

impl Rounds<'_> {
    fn line(
        &self,
        f: &mut fmt::Formatter<'_>,
        title: &str,
        columns: &[&Column],
        cell: impl Fn(&Spread, &Column) -> Option<String>,
    ) -> fmt::Result {
        write!(f, "{title:<26}")?;
        for column in columns {
            let cell = self.spreads.get(column.path).and_then(|spread| cell(spread, column));
            write!(f, "{:>14}", cell.unwrap_or_default())?;
        }
        writeln!(f)
    }

    fn warnings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, report) in self.reports.iter().enumerate() {
            for warning in report["warnings"].as_array().into_iter().flatten() {
                let text = warning.as_str().unwrap_or_default();
                writeln!(f, "  WARNING, round {}: {text}", index + 1)?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let somebody = |column: &&Column| {
            self.rounds.iter().any(|rounds| rounds.spreads.contains_key(column.path))
        };
        let columns: Vec<_> = COLUMNS.iter().filter(somebody).collect();
        write!(f, "{:<26}", "")?;
        columns.iter().try_for_each(|column| write!(f, "{:>14}", column.title))?;
        writeln!(f)?;
        for rounds in &self.rounds {
            rounds.line(f, &rounds.name, &columns, |spread, column| {
                Some(short(spread.median / column.unit))
            })?;
            if rounds.reports.len() > 1 {
                let title = format!("  lowest–highest of {}", rounds.reports.len());
                rounds.line(f, &title, &columns, |spread, column| {
                    let [min, max] = [spread.min, spread.max].map(|v| short(v / column.unit));
                    Some(format!("{min}–{max}"))
                })?;
            }
            let compared = |other: &&Rounds<'_>| {
                other.name != rounds.name && self.against.contains(&other.name)
            };
            for other in self.rounds.iter().filter(compared) {
                let title = format!("  ÷ {}", other.name);
                rounds.line(f, &title, &columns, |spread, column| {
                    let median = other.spreads.get(column.path)?.median;
                    (median != 0.0).then(|| format!("{:.2}", spread.median / median))
                })?;
            }
            rounds.warnings(f)?;
        }
        Ok(())
    }
}

/// Three significant digits and what multiplies them.
fn short(value: f64) -> String {
    let digits = |value: f64| match value.abs() {
        v if v >= 99.95 => format!("{value:.0}"),
        v if v >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    };
    match value.abs() {
        v if v >= 999_500.0 => format!("{}M", digits(value / 1e6)),
        v if v >= 9_995.0 => format!("{}k", digits(value / 1e3)),
        _ => digits(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn run(rate: u64, p50: f64) -> Value {
        json!({"acknowledgements_per_s": rate, "latency": {"p50_us": p50}, "warnings": []})
    }

    fn table(inputs: &[(&str, Value)], against: &[&str]) -> String {
        let against: Vec<_> = against.iter().map(|name| (*name).to_owned()).collect();
        Table::new(inputs.iter().map(|(name, report)| (*name, report)), &against).to_string()
    }

    fn words(line: &str) -> Vec<&str> {
        line.split_whitespace().collect()
    }

    #[test]
    fn rounds_are_joined_and_stand_to_the_first_name() {
        let text = table(&[("a.1", run(10, 3.0)), ("b", run(40, 1.0)), ("a.2", run(30, 5.0))], &[]);
        let lines: Vec<_> = text.lines().map(words).collect();
        assert_eq!(lines[0], ["answered/s", "p50", "µs"]);
        assert_eq!(lines[1], ["a", "20.0", "4.00"]);
        assert_eq!(lines[2], ["lowest–highest", "of", "2", "10.0–30.0", "3.00–5.00"]);
        assert_eq!(lines[3], ["b", "40.0", "1.00"]);
        assert_eq!(lines[4], ["÷", "a", "2.00", "0.25"]);
        assert_eq!(lines.len(), 5);
    }

    #[test]
    fn ratios_are_to_the_names_that_were_asked_for() {
        let inputs = [("a", run(10, 1.0)), ("b", run(20, 1.0)), ("c", run(40, 1.0))];
        let text = table(&inputs, &["a", "b"]);
        let ratios: Vec<_> = text.lines().filter(|line| line.contains('÷')).map(words).collect();
        assert_eq!(ratios[0], ["÷", "b", "0.50", "1.00"]);
        assert_eq!(ratios[1], ["÷", "a", "2.00", "1.00"]);
        assert_eq!((ratios[2][2], ratios[3][2]), ("4.00", "2.00"));
    }

    #[test]
    fn what_is_missing_in_a_round_is_no_figure_and_warnings_are_told() {
        let noisy = json!({"latency": {"p50_us": 2}, "warnings": ["too noisy to conclude: x"]});
        let text = table(&[("a.1", run(10, 1.0)), ("a.2", noisy)], &[]);
        assert!(!text.contains("answered"), "{text}");
        assert!(text.contains("WARNING, round 2: too noisy to conclude: x"), "{text}");
    }

    #[test]
    fn sweeps_and_repeated_runs_are_taken_apart() {
        let steps = json!([{"percent": 50.0, "report": run(5, 1.0)}]);
        let sweep = json!({"saturation": run(10, 2.0), "steps": steps});
        let text = table(&[("s", sweep), ("r", json!({"runs": [run(1, 1.0), run(3, 1.0)]}))], &[]);
        let begins = |what: &str| text.lines().any(|line| line.starts_with(what));
        assert!(begins("s closed") && begins("s 50 %") && begins("r  "), "{text}");
        assert!(text.contains("of 2"), "{text}");
    }

    #[test]
    fn numbers_are_short() {
        for (value, expected) in [
            (0.0, "0.00"),
            (1.234, "1.23"),
            (99.94, "99.9"),
            (999.4, "999"),
            (9_994.0, "9994"),
            (10_000.0, "10.0k"),
            (1_005_000.0, "1.00M"),
            (123_456_789.0, "123M"),
        ] {
            assert_eq!(short(value), expected, "{value}");
        }
    }
}
