//! A histogram as the text that HdrHistogram's own tools read and plot (.hgrm), and as the few
//! points that a plot needs.
//!
//! In: a histogram of nanoseconds. Out: text in microseconds, or (quantile, microseconds). Pure.

use std::fmt::Write;

use hdrhistogram::Histogram;

/// As HdrHistogram's `outputPercentileDistribution`: five ticks each half distance to 100 %.
pub fn text(histogram: &Histogram<u64>) -> String {
    let mut out = format!(
        "{:>12} {:>14} {:>10} {:>14}\n\n",
        "Value", "Percentile", "TotalCount", "1/(1-Percentile)"
    );
    let mut total = 0;
    for step in histogram.iter_quantiles(5) {
        total += step.count_since_last_iteration();
        let value_us = step.value_iterated_to() as f64 / 1e3;
        let quantile = step.quantile_iterated_to();
        // Writing to a string cannot fail.
        let _ = write!(out, "{value_us:12.3} {quantile:2.12} {total:10}");
        if quantile < 1.0 {
            let _ = write!(out, " {:14.2}", 1.0 / (1.0 - quantile));
        }
        out.push('\n');
    }
    let _ = writeln!(
        out,
        "#[Mean    = {:12.3}, StdDeviation   = {:12.3}]\n#[Max     = {:12.3}, Total count    = {:12}]\n\
         #[Buckets = {:12}, SubBuckets     = {:12}]",
        histogram.mean() / 1e3,
        histogram.stdev() / 1e3,
        histogram.max() as f64 / 1e3,
        histogram.len(),
        histogram.buckets(),
        2_u32 << (histogram.sigfig() * 10).div_ceil(3),
    );
    out
}

/// Points of the curve of percentiles, eight to each factor of ten in `1 / (1 - quantile)`, as far
/// as there are messages to tell, and the maximum.
pub fn curve(histogram: &Histogram<u64>) -> Vec<(f64, f64)> {
    if histogram.is_empty() {
        return Vec::new();
    }
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    let quantiles = (0..).map(|step| 1.0 - 10_f64.powf(-f64::from(step) / 8.0));
    let told = |quantile: &f64| (1.0 - quantile) * histogram.len() as f64 >= 1.0;
    let mut points: Vec<_> = quantiles.take_while(told).map(|q| (q, at(q))).collect();
    let last = 1.0 - 1.0 / (histogram.len() + 1) as f64;
    points.push((last, histogram.max() as f64 / 1e3));
    points
}

#[cfg(test)]
mod tests {
    use super::super::measure::histogram;
    use super::*;

    fn thousand() -> Histogram<u64> {
        let mut it = histogram();
        (1..=1000).for_each(|n| it.record(n * 1_000).unwrap());
        it
    }

    #[test]
    fn text_has_the_columns_of_hdrhistogram() {
        let text = text(&thousand());
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[0].split_whitespace().count(), 4);
        let rows: Vec<Vec<f64>> = lines
            .iter()
            .skip(2)
            .take_while(|line| !line.starts_with('#'))
            .map(|line| line.split_whitespace().map(|n| n.parse().unwrap()).collect())
            .collect();
        assert!(rows.len() > 20);
        assert!(
            rows.windows(2).all(|w| w[0][0] <= w[1][0] && w[0][1] <= w[1][1] && w[0][2] <= w[1][2])
        );
        let half = rows.iter().find(|row| row[1] == 0.5).unwrap();
        assert!((half[0] - 500.0).abs() < 1.0 && (half[2] - 500.0).abs() < 2.0 && half[3] == 2.0);
        assert_eq!(rows.last().unwrap()[1..], [1.0, 1000.0]);
        assert!(
            text.contains("#[Max     =     1000.447, Total count    =         1000]"),
            "{text}"
        );
    }

    #[test]
    fn a_curve_ends_where_nothing_is_known() {
        let points = curve(&thousand());
        assert_eq!(points.len(), 24 + 1 + 1);
        assert!((points[8].1 - 900.0).abs() < 1.0, "p90 is {:?}", points[8]);
        assert!(points.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1));
        assert!(curve(&histogram()).is_empty());
    }
}
