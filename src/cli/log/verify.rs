//! `tidegate log verify`: reads everything and names what does not hold.
//!
//! Comes in: a directory. Goes out: a line a fault, and a verdict; with `--json` one object.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Instant;

use serde::Serialize;

use super::Error;
use super::examined::{Examined, Fault, Lost};
use super::inventory::Directory;
use super::progress::bytes;
use crate::cli::Failure;
use crate::cli::failure::print;

/// Read everything and name what is damaged
///
/// Checks every frame, every record batch with its records, the order of the segments, the offsets
/// of every partition, the index files, the log starts and the copy of the manifest. Takes the time that the disk takes to read it all.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The data directory
    dir: PathBuf,
    /// One JSON object: what was read, faults (file, byte, fault, and the offsets that each took),
    /// everything that is lost, torn tails
    #[arg(long)]
    json: bool,
}

/// What is printed as JSON; the fields in this order.
#[derive(Serialize)]
struct Report<'a> {
    sound: bool,
    segments: usize,
    bytes: u64,
    batches: u64,
    records: u64,
    seconds: f64,
    faults: &'a [Fault],
    /// Everything that damage took, also what an earlier start told of already.
    lost: &'a [Lost],
    torn_tails: Vec<(String, u64)>,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<(), Failure> {
    let failed = |error: Error| Failure::at_run_time(&error);
    let directory = Directory::open(&args.dir).map_err(failed)?;
    let begun = Instant::now();
    let examined = Examined::take(&directory).map_err(failed)?;
    let torn = examined.found.recovery.torn.iter().map(|(key, at)| (key.path(), *at));
    let report = Report {
        sound: examined.faults.is_empty(),
        segments: examined.found.recovery.recovered.segments.len(),
        bytes: examined.bytes,
        batches: examined.found.batches,
        records: examined.found.records,
        seconds: begun.elapsed().as_secs_f64(),
        faults: &examined.faults,
        lost: &examined.lost,
        torn_tails: torn.collect(),
    };
    if args.json {
        let json = serde_json::to_string(&report).map_err(|error| Failure::at_run_time(&error))?;
        print(&format!("{json}\n"))?;
    } else {
        print(&text(&report))?;
    }
    if report.sound {
        return Ok(());
    }
    Err(failed(Error::Faults { dir: directory.path, count: examined.faults.len() }))
}

fn text(report: &Report<'_>) -> String {
    let mut out = faults(report.faults);
    for (file, byte) in &report.torn_tails {
        let _ = writeln!(out, "{file}, byte {byte}: a torn tail, which was never acknowledged");
    }
    let told: Vec<_> = report.faults.iter().flat_map(|fault| &fault.lost).collect();
    for lost in report.lost.iter().filter(|lost| !told.contains(lost)) {
        let _ = writeln!(out, "lost before, as an earlier start or repair told: {lost}");
    }
    let verdict = match report.faults.len() {
        0 => "sound".to_owned(),
        1 => "1 fault".to_owned(),
        count => format!("{count} faults"),
    };
    let Report { segments, batches, records, .. } = report;
    let rate = bytes((report.bytes as f64 / report.seconds.max(1e-3)) as u64);
    let read = bytes(report.bytes);
    let _ = writeln!(
        out,
        "{verdict}: {records} records in {batches} batches in {segments} segments; {read} read in \
         {:.1} s, {rate}/s",
        report.seconds
    );
    out
}

/// A line a fault, and one for each range that it took.
pub fn faults(faults: &[Fault]) -> String {
    let mut out = String::new();
    for fault in faults {
        let _ = writeln!(out, "{}, byte {}: {}", fault.file, fault.byte, fault.fault);
        for lost in &fault.lost {
            let _ = writeln!(out, "  lost there: {lost}");
        }
    }
    out
}
