//! A rule (filter, projection, a calculation) next to the same one in VRL, the language in which
//! Vector reshapes events.
//!
//! `cargo run --release --manifest-path benches/vrl/Cargo.toml`. Both take the bytes of a JSON payload
//! and give the bytes of a JSON record, on one thread; VRL's `parse_json` and `encode_json` are what is
//! called here: serde_json into and out of its values. Rounds alternate; printed are the medians and
//! the median of the ratios.

use std::hint::black_box;
use std::time::Instant;

use tidegate::transform::rules::{Group, Input, Limits, Plan, Runner, plan};
use vrl::compiler::runtime::Runtime;
use vrl::compiler::{Program, TargetValue, TimeZone, compile};
use vrl::value::{Secrets, Value};

const RULE: &str = "CREATE STREAM hot AS
    SELECT clientid() AS device, ts, temp * 1.8 + 32 AS temp_f, gps.lat, gps.lon
    FROM 'plant/#' WHERE temp > 30";
const SAME: &str = r#"
    if (.temp > 30) ?? false {
        . = {
            "device": %client_id,
            "ts": .ts,
            "temp_f": ((.temp * 1.8) ?? 0.0) + 32.0,
            "lat": .gps.lat,
            "lon": .gps.lon
        }
    } else {
        abort
    }
"#;
const ROUNDS: usize = 31;
const MESSAGES: usize = 2_000;
const CLIENT: &str = "press-7";

/// A reading as devices send it, of about `bytes`; what is not asked for stands between and behind.
fn payload(bytes: usize, temp: f64) -> String {
    let mut text = format!(
        r#"{{"id":"press-7","ts":1700000000123,"seq":48123,"temp":{temp},"hum":41.25,"status":"running \"ok\"","tags":["#
    );
    let mut tag = 0;
    while text.len() + 62 < bytes {
        let comma = if tag == 0 { "" } else { "," };
        text.push_str(&format!("{comma}{{\"k{tag}\":{}}}", tag * 37 % 1000));
        tag += 1;
    }
    text + r#"],"gps":{"alt":512,"lat":48.13743,"lon":11.57549}}"#
}

struct Tidegate {
    plan: Plan,
    group: Group,
    runner: Runner,
}

impl Tidegate {
    fn new() -> Self {
        let plan = plan(&[("rules.sql".to_owned(), RULE.to_owned())], &[]).expect("a rule");
        let group = Group::new(&plan.rules, &[0]);
        Self { plan, group, runner: Runner::new(Limits::default()) }
    }

    fn run(&mut self, payload: &str) -> Option<Vec<u8>> {
        let input = Input::new("plant/7/temp", CLIENT, payload.as_bytes());
        let records = self.runner.run(&self.plan, &self.group, &input);
        records.iter().next().and_then(|record| records.body(record)).map(<[u8]>::to_vec)
    }
}

struct Vrl {
    program: Program,
    runtime: Runtime,
    metadata: Value,
}

impl Vrl {
    fn new() -> Self {
        let program = compile(SAME, &[]).unwrap_or_else(|problems| panic!("{problems:?}")).program;
        let metadata = Value::from(serde_json::json!({ "client_id": CLIENT }));
        Self { program, runtime: Runtime::default(), metadata }
    }

    fn run(&mut self, payload: &str) -> Option<Vec<u8>> {
        let value: Value = serde_json::from_slice(payload.as_bytes()).ok()?;
        let metadata = self.metadata.clone();
        let mut target = TargetValue { value, metadata, secrets: Secrets::default() };
        let zone = TimeZone::default();
        let ended = self.runtime.resolve(&mut target, &self.program, &zone);
        self.runtime.clear();
        ended.ok()?;
        serde_json::to_vec(&target.value).ok()
    }
}

fn ns_a_message(mut run: impl FnMut() -> Option<Vec<u8>>) -> f64 {
    let begun = Instant::now();
    for _ in 0..MESSAGES {
        black_box(run());
    }
    begun.elapsed().as_nanos() as f64 / MESSAGES as f64
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let (mut ours, mut theirs) = (Tidegate::new(), Vrl::new());
    println!("ns a message, and how many times as long VRL takes");
    for bytes in [256, 2048] {
        for (what, temp) in [("passes", 31.5), ("dropped", 21.5)] {
            let text = payload(bytes, temp);
            let as_json = |record: Option<Vec<u8>>| {
                record.map(|it| serde_json::from_slice::<serde_json::Value>(&it).expect("JSON"))
            };
            assert_eq!(as_json(ours.run(&text)), as_json(theirs.run(&text)), "the same record");
            let rounds: Vec<(f64, f64)> = (0..ROUNDS)
                .map(|_| (ns_a_message(|| ours.run(&text)), ns_a_message(|| theirs.run(&text))))
                .collect();
            println!(
                "{bytes:>5} bytes, {what:<8} tidegate {:>7.0}  VRL {:>7.0}  {:>5.1}",
                median(rounds.iter().map(|round| round.0).collect()),
                median(rounds.iter().map(|round| round.1).collect()),
                median(rounds.iter().map(|round| round.1 / round.0).collect()),
            );
        }
    }
}
