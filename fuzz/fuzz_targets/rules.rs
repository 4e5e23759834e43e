//! Arbitrary text as a file of rules, and arbitrary bytes as the payload that goes through them: a
//! plan or problems, records or dead letters, no panic; a record that a rule wrote is JSON where the
//! payload is.
//!
//! The first zero byte of the fuzzer's data ends the rules; what follows it is the payload, and the
//! text of every lookup table.

#![no_main]

use std::path::Path;

use libfuzzer_sys::fuzz_target;
use tidegate::transform::rules::tables::Text;
use tidegate::transform::rules::{Group, Input, Limits, Runner, plan_with};

fuzz_target!(|data: &[u8]| {
    let end = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let Ok(sql) = std::str::from_utf8(&data[..end]) else { return };
    let payload = data.get(end + 1..).unwrap_or_default();
    let read = |_: &Path, _| Ok(Text { bytes: payload.to_vec(), ..Text::default() });
    let Ok(plan) = plan_with(&[("fuzz.sql".to_owned(), sql.to_owned())], &[], &read) else {
        return;
    };
    let mut all: Vec<usize> = plan.filters().map(|(_, rule)| rule).collect();
    all.dedup();
    let group = Group::new(&plan.rules, &all);
    let input =
        Input { received_ms: 1, overhead_bytes: 100, ..Input::new("a/b/c", "fuzz", payload) };
    let mut runner = Runner::new(Limits { records_max: 64, bytes_max: 1 << 16 });
    let records = runner.run(&plan, &group, &input);
    assert!(records.iter().len() <= 65, "{} records", records.iter().len());
});
