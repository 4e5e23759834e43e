//! What rules cost: filter and projection of a JSON payload, next to sonic-rs fetching the same
//! fields alone; and a topic among 10, 1,000 and 100,000 filters.
//!
//! `cargo bench --bench rules` (`-- --quick` for a first look). Times are of one thread; a rule's time
//! is all of it: fields, WHERE, the record as JSON.

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use sonic_rs::{PointerTree, pointer};

use tidegate::record::StreamId;
use tidegate::transform::rules::{Group, Input, Limits, Plan, Runner, plan};
use tidegate::transform::{TopicCache, TopicTable};

const RULE: &str = "CREATE STREAM hot AS
    SELECT clientid() AS device, ts, temp * 1.8 + 32 AS temp_f, gps.lat, gps.lon
    FROM 'plant/#' WHERE temp > 30";

/// A reading as devices send it, of about `bytes`; what is not asked for stands between and behind.
fn payload(bytes: usize, temp: f64) -> String {
    let head = format!(
        r#"{{"id":"press-7","ts":1700000000123,"seq":48123,"temp":{temp},"hum":41.25,"status":"running \"ok\"","tags":["#
    );
    let mut text = head;
    let mut tag = 0;
    while text.len() + 62 < bytes {
        let comma = if tag == 0 { "" } else { "," };
        text.push_str(&format!("{comma}{{\"k{tag}\":{}}}", tag * 37 % 1000));
        tag += 1;
    }
    text + r#"],"gps":{"alt":512,"lat":48.13743,"lon":11.57549}}"#
}

fn input<'a>(payload: &'a str) -> Input<'a> {
    Input::new("plant/7/temp", "press-7", payload.as_bytes())
}

fn planned(sql: &str) -> Plan {
    plan(&[("rules.sql".to_owned(), sql.to_owned())], &[]).unwrap_or_else(|p| panic!("{p:?}"))
}

fn rules(c: &mut Criterion) {
    let plan = planned(RULE);
    let group = Group::new(&plan.rules, &[0]);
    let mut tree = PointerTree::new();
    tree.add_path(pointer!["temp"].iter());
    tree.add_path(pointer!["ts"].iter());
    tree.add_path(pointer!["gps", "lat"].iter());
    tree.add_path(pointer!["gps", "lon"].iter());
    for bytes in [256, 2048] {
        let mut benches = c.benchmark_group(format!("payload of {bytes} bytes"));
        benches.throughput(Throughput::Bytes(bytes as u64));
        for (name, temp) in [("passes", 31.5), ("dropped", 21.5)] {
            let text = payload(bytes, temp);
            let mut runner = Runner::new(Limits::default());
            benches.bench_function(format!("rule, {name}"), |b| {
                b.iter(|| {
                    black_box(runner.run(&plan, &group, &input(black_box(&text)))).iter().len()
                });
            });
        }
        let text = payload(bytes, 31.5);
        benches.bench_function("reference: sonic_rs::get_many of the same fields", |b| {
            b.iter(|| sonic_rs::get_many(black_box(text.as_bytes()), &tree).map(|f| f.len()));
        });
        benches.bench_function("reference: serde_json::Value", |b| {
            b.iter(|| {
                serde_json::from_slice::<serde_json::Value>(black_box(text.as_bytes())).is_ok()
            });
        });
        benches.finish();
    }
    let text = payload(256, 31.5);
    let mut benches = c.benchmark_group("rules on one topic, 256 bytes");
    for count in [1, 10, 100] {
        let sql: String = (0..count)
            .map(|n| {
                format!(
                    "CREATE STREAM s{n} AS SELECT ts, temp + {n} AS t FROM 'a' WHERE hum > {n};"
                )
            })
            .collect();
        let plan = planned(&sql);
        let group = Group::new(&plan.rules, &(0..count).collect::<Vec<_>>());
        let mut runner = Runner::new(Limits::default());
        benches.throughput(Throughput::Elements(count as u64));
        benches.bench_function(format!("{count}"), |b| {
            b.iter(|| black_box(runner.run(&plan, &group, &input(black_box(&text)))).iter().len());
        });
    }
    benches.finish();
}

fn topics(c: &mut Criterion) {
    let mut benches = c.benchmark_group("topic among filters");
    for count in [10_usize, 1_000, 100_000] {
        let filters: Vec<_> = (0..count)
            .map(|n| {
                let filter = match n % 4 {
                    0 => format!("plant/{n}/+/temp"),
                    1 => format!("plant/{n}/line/#"),
                    2 => format!("+/{n}/line/3/temp"),
                    _ => format!("site/{}/{n}", n % 50),
                };
                (filter, StreamId(n as u32))
            })
            .collect();
        let table = TopicTable::new(filters);
        let topics: Vec<_> =
            (0..64).map(|n| format!("plant/{}/line/temp", n * count / 64)).collect();
        let mut cache = TopicCache::default();
        let mut at = 0;
        benches.bench_function(format!("{count}, another topic each time"), |b| {
            b.iter(|| {
                at = (at + 1) % topics.len();
                table.look(black_box(&topics[at]), &mut cache);
                table.streams(&topics[at], &cache).len()
            });
        });
        benches.bench_function(format!("{count}, the same topic"), |b| {
            b.iter(|| {
                table.look(black_box(&topics[1]), &mut cache);
                table.streams(&topics[1], &cache).len()
            });
        });
    }
    benches.finish();
}

criterion_group!(benches, rules, topics);
criterion_main!(benches);
