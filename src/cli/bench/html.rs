//! Reports as one HTML page: percentile plot, throughput–latency curve, time series, side by side.
//!
//! In: JSON reports of `tidegate bench` (one run, several runs, or a sweep), each with a name. Out:
//! a page that needs nothing else: no network, no fonts, no libraries; the script in `report.html`
//! draws. The invariant: nothing that stands in a report can end the script element it lies in.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;

use super::BenchError;
use super::compare::Table;

const TEMPLATE: &str = include_str!("report.html");
const DATA: &str = "@DATA@";

/// Put reports side by side: as a table of medians and ratios, or on one HTML page
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    /// What `tidegate bench --json` has printed, a file a report; its name is the file's, and
    /// NAME.1.json, NAME.2.json are rounds of NAME
    #[arg(required = true, value_name = "FILE.json")]
    reports: Vec<PathBuf>,
    /// Write a page instead of the table
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// The table's ratios are to this report (repeatable); the first one by default
    #[arg(long, value_name = "NAME")]
    against: Vec<String>,
}

#[derive(Serialize)]
struct Input {
    name: String,
    report: Value,
}

/// Reads the reports; writes the page or prints the table.
///
/// # Errors
/// When a file cannot be read or written, or is no report.
pub fn run(args: &Args) -> Result<(), BenchError> {
    let names = names(&args.reports);
    let read = |(path, name): (&PathBuf, String)| Ok(Input { name, report: read(path)? });
    let inputs = args.reports.iter().zip(names).map(read).collect::<Result<Vec<_>, _>>()?;
    match &args.html {
        Some(path) => write(path, &page(&inputs)?)?,
        None => {
            let named = inputs.iter().map(|input| (input.name.as_str(), &input.report));
            print!("{}", Table::new(named, &args.against));
        }
    }
    Ok(())
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

/// The names of the files, with what their folders do not have in common.
fn names(paths: &[PathBuf]) -> Vec<String> {
    let folder = |path: &PathBuf| path.parent().unwrap_or(Path::new("")).to_owned();
    let mut common = paths.first().map(folder).unwrap_or_default();
    while !paths.iter().all(|path| path.starts_with(&common)) {
        if !common.pop() {
            // The root, which a relative path does not have.
            common = PathBuf::new();
        }
    }
    let name = |path: &PathBuf| {
        let name = path.with_extension("");
        name.strip_prefix(&common).unwrap_or(&name).to_string_lossy().into_owned()
    };
    paths.iter().map(name).collect()
}

fn read(path: &Path) -> Result<Value, BenchError> {
    let text = std::fs::read_to_string(path);
    let text = text.map_err(|error| BenchError::NoReport(path.to_owned(), error.to_string()))?;
    let report: Value = serde_json::from_str(&text)
        .map_err(|error| BenchError::NoReport(path.to_owned(), error.to_string()))?;
    if !is_report(&report) {
        let what = "no report of `tidegate bench --json` for a load".to_owned();
        return Err(BenchError::NoReport(path.to_owned(), what));
    }
    Ok(report)
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
    fn reports_have_the_names_of_files_and_of_folders_where_those_differ() {
        fn check(paths: &[&str], expected: &[&str]) {
            assert_eq!(names(&paths.iter().map(PathBuf::from).collect::<Vec<_>>()), expected);
        }
        check(&["r/a.1.json", "r/b.json"], &["a.1", "b"]);
        check(&["r/on/9/a.json", "r/off/9/a.json"], &["on/9/a", "off/9/a"]);
        check(&["/r/9/a.1.json", "b.json"], &["/r/9/a.1", "b"]);
        check(&["a.json"], &["a"]);
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
