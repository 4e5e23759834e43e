//! Reports as one HTML page: percentile plot, throughput–latency curve, time series, side by side.
//!
//! In: JSON reports of `tidegate bench` (one run, several runs, or a sweep), each with a name. Out:
//! a page that needs nothing else: no network, no fonts, no libraries; the script in `report.html`
//! draws. The invariant: nothing that stands in a report can end the script element it lies in.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::BenchError;

const TEMPLATE: &str = include_str!("report.html");
const DATA: &str = "@DATA@";

/// Put reports side by side on one HTML page
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// What `tidegate bench --json` has printed, a file a report; its name is the file's
    #[arg(required = true, value_name = "FILE.json")]
    reports: Vec<PathBuf>,
    /// The page to write
    #[arg(long, value_name = "FILE")]
    html: PathBuf,
}

#[derive(Serialize)]
struct Input {
    name: String,
    report: Value,
}

/// Reads the reports and writes the page.
///
/// # Errors
/// When a file cannot be read or written, or is no report.
pub fn run(args: &Args) -> Result<(), BenchError> {
    let inputs = args.reports.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
    write(&args.html, &page(&inputs)?)
}

/// Writes the page of one report.
///
/// # Errors
/// When the file cannot be written.
pub fn write_one(path: &Path, name: &str, report: &impl Serialize) -> Result<(), BenchError> {
    let report = serde_json::to_value(report).map_err(BenchError::Json)?;
    write(path, &page(&[Input { name: name.to_owned(), report }])?)
}

fn write(path: &Path, text: &str) -> Result<(), BenchError> {
    std::fs::write(path, text).map_err(|error| BenchError::File(path.to_owned(), error))
}

fn read(path: &Path) -> Result<Input, BenchError> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| BenchError::NoReport(path.to_owned(), error.to_string()))?;
    let report: Value = serde_json::from_str(&text)
        .map_err(|error| BenchError::NoReport(path.to_owned(), error.to_string()))?;
    if !is_report(&report) {
        let what = "no report of `tidegate bench --json` for a load".to_owned();
        return Err(BenchError::NoReport(path.to_owned(), what));
    }
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    Ok(Input { name, report })
}

/// One run, several, or a sweep.
fn is_report(value: &Value) -> bool {
    let run = |value: &Value| value["latency"]["p50_us"].is_number();
    let all = |value: &Value, of: fn(&Value) -> &Value| {
        value.as_array().is_some_and(|list| list.iter().all(|each| run(of(each))))
    };
    run(value)
        || all(&value["runs"], |each| each)
        || run(&value["saturation"]) && all(&value["steps"], |each| &each["report"])
}

fn page(inputs: &[Input]) -> Result<String, BenchError> {
    let data = serde_json::to_string(inputs).map_err(BenchError::Json)?;
    Ok(TEMPLATE.replacen(DATA, &data.replace('<', "\\u003c"), 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_page_holds_its_reports_and_needs_nothing_else() {
        let report = json!({"latency": {"p50_us": 1.5}});
        let page = page(&[Input { name: "</script><b>".to_owned(), report }]).unwrap();
        let data = page.split_once("type=\"application/json\">").unwrap().1;
        let data: Value = serde_json::from_str(data.split_once("</script>").unwrap().0).unwrap();
        assert_eq!(data[0]["name"], "</script><b>");
        assert_eq!(data[0]["report"]["latency"]["p50_us"], 1.5);
        for outside in ["http:", "https:", "src=", "@import", "url("] {
            assert!(!page.contains(outside), "{outside}");
        }
    }

    #[test]
    fn what_is_a_report() {
        let run = json!({"latency": {"p50_us": 1}});
        assert!(is_report(&run));
        assert!(is_report(&json!({"runs": [run, run]})));
        assert!(is_report(&json!({"saturation": run, "steps": [{"report": run}]})));
        assert!(!is_report(&json!({"saturation": run, "steps": [run]})));
        assert!(!is_report(&json!({"runs": [1]})));
        assert!(!is_report(&json!([])));
    }
}
