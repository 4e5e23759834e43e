//! The Prometheus text format, version 0.0.4: HELP, TYPE, then one line a sample.

use std::fmt::{Display, Write};

use crate::observe::Distribution;

/// What kind of number a metric is, as the TYPE line names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A label's name and value.
pub(super) type Pair<'a> = (&'a str, &'a dyn Display);

/// Where the samples of one metric go.
#[derive(Debug)]
pub(super) struct Samples<'a> {
    name: &'static str,
    text: &'a mut String,
}

impl<'a> Samples<'a> {
    /// Begins the metric `name` in `text`.
    pub(super) fn begin(text: &'a mut String, name: &'static str, kind: Kind, help: &str) -> Self {
        text.push_str("# HELP ");
        text.push_str(name);
        text.push(' ');
        // A help text may hold quotes, but neither backslash nor line feed as they are.
        escape(text, help, false);
        text.push_str("\n# TYPE ");
        text.push_str(name);
        text.push(' ');
        text.push_str(kind.name());
        text.push('\n');
        Self { name, text }
    }

    /// One sample.
    pub(super) fn value(&mut self, labels: &[Pair<'_>], value: impl Display) {
        self.line("", labels, None, value);
    }

    /// All samples of a histogram; its unit times `scale` is the metric's.
    pub(super) fn distribution(
        &mut self,
        labels: &[Pair<'_>],
        distribution: &Distribution,
        scale: f64,
    ) {
        let mut count = 0;
        let mut bounds = distribution.bounds().iter();
        for bucket in distribution.counts() {
            count += bucket;
            match bounds.next() {
                Some(bound) => {
                    let bound = *bound as f64 * scale;
                    self.line("_bucket", labels, Some(("le", &bound)), count);
                }
                None => self.line("_bucket", labels, Some(("le", &"+Inf")), count),
            }
        }
        self.line("_sum", labels, None, distribution.sum() as f64 * scale);
        // The sum of the buckets that were read, so that the two agree whatever was added since.
        self.line("_count", labels, None, count);
    }

    fn line(
        &mut self,
        suffix: &str,
        labels: &[Pair<'_>],
        last: Option<Pair<'_>>,
        value: impl Display,
    ) {
        self.text.push_str(self.name);
        self.text.push_str(suffix);
        let mut separator = '{';
        for (name, value) in labels.iter().copied().chain(last) {
            self.text.push(separator);
            separator = ',';
            self.text.push_str(name);
            self.text.push_str("=\"");
            escape(self.text, &value.to_string(), true);
            self.text.push('"');
        }
        if separator == ',' {
            self.text.push('}');
        }
        // Writing to a String cannot fail.
        let _ = writeln!(self.text, " {value}");
    }
}

fn escape(text: &mut String, value: &str, quotes: bool) {
    for character in value.chars() {
        match character {
            '\\' => text.push_str("\\\\"),
            '\n' => text.push_str("\\n"),
            '"' if quotes => text.push_str("\\\""),
            other => text.push(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::RECORDS;

    #[test]
    fn samples_are_written_as_the_format_wants() {
        let check = |labels: &[Pair<'_>], expected: &str| {
            let mut text = String::new();
            Samples::begin(&mut text, "a_total", Kind::Counter, "A \"b\"\nc\\.").value(labels, 7);
            let head = "# HELP a_total A \"b\"\\nc\\\\.\n# TYPE a_total counter\n";
            assert_eq!(text, format!("{head}{expected}\n"));
        };
        check(&[], "a_total 7");
        check(&[("shard", &0)], "a_total{shard=\"0\"} 7");
        check(&[("a", &"x\"y\\z\n"), ("b", &"ä")], "a_total{a=\"x\\\"y\\\\z\\n\",b=\"ä\"} 7");
    }

    #[test]
    fn histograms_are_cumulative_and_scaled() {
        let records = Distribution::new(&RECORDS);
        records.record_many(4, 2);
        records.record(1 << 40);
        let mut text = String::new();
        let mut samples = Samples::begin(&mut text, "h", Kind::Histogram, "H.");
        samples.distribution(&[("s", &1)], &records, 0.5);
        let lines: Vec<&str> = text.lines().skip(2).collect();
        assert_eq!(lines.len(), 10 + 1 + 2);
        assert_eq!(lines[0], "h_bucket{s=\"1\",le=\"0.5\"} 0");
        assert_eq!(lines[1], "h_bucket{s=\"1\",le=\"2\"} 2");
        assert_eq!(lines[9], "h_bucket{s=\"1\",le=\"131072\"} 2");
        assert_eq!(lines[10], "h_bucket{s=\"1\",le=\"+Inf\"} 3");
        assert_eq!(lines[11], "h_sum{s=\"1\"} 549755813892");
        assert_eq!(lines[12], "h_count{s=\"1\"} 3");
    }
}
