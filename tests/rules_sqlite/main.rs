//! Expressions of rules against SQLite: generated ones over generated rows.
//!
//! Each expression is written twice, as a rule has it and as SQLite must have it to mean the same:
//! `/` of two integers is a float in rules, and positions count from 0. What SQLite answers by other
//! rules is not generated, or passed over and counted: where a rule has an error (division by zero,
//! integers that overflow, a constant NULL compared) SQLite has NULL or a float.

#![allow(clippy::unwrap_used)] // a test's panic is its report

mod expressions;

use std::io::Write;
use std::process::{Command, Stdio};

use proptest::strategy::{Strategy, ValueTree};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};
use serde_json::{Value, json};
use tidegate::transform::rules::{Group, Input, Plan, Runner, Target, plan};

use expressions::{Pair, any_row, boolean, number, text};

const EXPRESSIONS: usize = 4_000;

/// What a rule makes of an expression: the value, or the reason why there is none.
fn ours(plan: &Plan, payload: &[u8]) -> Result<Value, String> {
    let roots: Vec<usize> = plan.filters().map(|(_, rule)| rule).collect();
    let group = Group::new(&plan.rules, &roots);
    let mut runner = Runner::default();
    let input = Input::new("t", "c", payload);
    let records = runner.run(plan, &group, &input);
    let record = records.iter().next().unwrap();
    if record.target == Target::DeadLetters {
        let mut headers = records.extras(record).headers();
        let reason = headers.find(|(name, _)| *name == b"reason").unwrap().1;
        return Err(String::from_utf8_lossy(reason).into_owned());
    }
    let body: Value = serde_json::from_slice(records.body(record).unwrap()).unwrap();
    Ok(body["v"].clone())
}

/// SQLite's values of all expressions over their rows.
fn theirs(rows: &[(Pair, Value)]) -> Option<Vec<Value>> {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/sqlite_values.py");
    let mut lines = Vec::new();
    for (pair, row) in rows {
        writeln!(lines, "{}", json!({ "sql": pair.theirs, "columns": row })).unwrap();
    }
    let child = Command::new("python3")
        .args(["-B", script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn();
    let mut child = child.ok()?;
    let mut input = child.stdin.take()?;
    // On a thread of its own, so that neither side waits for the other with a full pipe.
    let writer = std::thread::spawn(move || input.write_all(&lines));
    let output = child.wait_with_output().ok()?;
    writer.join().unwrap().ok()?;
    let text = String::from_utf8(output.stdout).unwrap();
    let values: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    (output.status.success() && values.len() == rows.len()).then_some(values)
}

/// SQLite has no booleans but 1 and 0, and its sums of floats may differ in the last places.
fn is_same(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Bool(ours), _) => theirs.as_i64() == Some(i64::from(*ours)),
        (Value::Number(ours), Value::Number(theirs)) => {
            let (ours, theirs) = (ours.as_f64().unwrap(), theirs.as_f64().unwrap());
            (ours - theirs).abs() <= 1e-12 * ours.abs().max(theirs.abs()) + 1e-12
        }
        _ => ours == theirs,
    }
}

#[test]
fn expressions_have_the_values_that_sqlite_gives_them() {
    let seed = RngAlgorithm::ChaCha;
    let rng = TestRng::deterministic_rng(seed);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let expression = proptest::prop_oneof![number(), text(), boolean()];
    let one = (expression, any_row());
    let generate = |_| one.new_tree(&mut runner).unwrap().current();
    let rows: Vec<(Pair, Value)> = (0..EXPRESSIONS).map(generate).collect();
    let Some(theirs) = theirs(&rows) else {
        println!("SKIPPED: expressions against SQLite: python3 with sqlite3 is not here");
        return;
    };
    let (mut same, mut errors, mut wrong) = (0, 0, Vec::new());
    for ((pair, row), theirs) in rows.iter().zip(&theirs) {
        let sql = format!("CREATE STREAM s AS SELECT {} AS v FROM 't'", pair.ours);
        // Constants are folded, so that some errors come when the rule is planned.
        let found = match plan(&[("r.sql".into(), sql)], &[]) {
            Ok(plan) => ours(&plan, row.to_string().as_bytes()),
            Err(problems) => Err(format!("{problems:?}")),
        };
        match found {
            Ok(value) if is_same(&value, theirs) => same += 1,
            Ok(value) => wrong.push(format!(
                "{}\n  of {row}\n  is {value}; SQLite says {theirs} for {}",
                pair.ours, pair.theirs
            )),
            Err(reason) => {
                let known = ["division by zero", "out of range", "write IS NULL or IS NOT NULL"];
                assert!(known.iter().any(|part| reason.contains(part)), "{}: {reason}", pair.ours);
                errors += 1;
            }
        }
    }
    let shown: Vec<&str> = wrong.iter().take(20).map(String::as_str).collect();
    assert!(wrong.is_empty(), "{} of {EXPRESSIONS} differ:\n{}", wrong.len(), shown.join("\n"));
    println!("{same} of {EXPRESSIONS} expressions are the same, {errors} have no value");
    assert!(same > EXPRESSIONS / 2, "{errors} of {EXPRESSIONS} have no value");
}
