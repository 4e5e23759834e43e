//! Rules that are read again while messages come: each message by one version of all rules, none
//! lost, none doubled, no connection dropped; and what is wrong changes nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::Value;

use crate::clients::{Record, any_consumer, read_all, skipped};
use crate::engine::{Engine, Setup, run, scratch, wait_until};
use crate::wire::{Publish, Version, Wire};

const RELOAD: &str = "/api/rules/reload";
const PUBLISHERS: usize = 3;
/// Rules of the start, and so many times others.
const VERSIONS: u64 = 6;

fn write_rules(scratch: &Path, sql: &str) {
    std::fs::create_dir_all(scratch.join("rules")).unwrap();
    // As an editor does it: never half a file.
    std::fs::write(scratch.join("rules/new"), sql).unwrap();
    std::fs::rename(scratch.join("rules/new"), scratch.join("rules/all.sql")).unwrap();
}

fn setup(scratch: &Path, sql: &str) -> Setup {
    write_rules(scratch, sql);
    Setup::new(scratch).config("rules = [\"rules/*.sql\"]\n")
}

fn reload(engine: &Engine) -> (u16, Value) {
    let (status, body) = engine.post(RELOAD, "*/*").unwrap();
    (status, serde_json::from_str(&body).unwrap_or_else(|_| panic!("no JSON: {body}")))
}

fn publish(engine: &Engine, client: &str, messages: &[(&str, &str)]) {
    let mut wire = Wire::connect_as(engine.ports.mqtt, Version::V5, client);
    for (at, (topic, payload)) in messages.iter().enumerate() {
        let publish = Publish::new(topic, at as u16 + 1, payload.as_bytes());
        wire.publish_acknowledged(&publish);
    }
}

fn texts(records: &[Record]) -> Vec<&str> {
    let mut texts: Vec<&str> = records.iter().map(Record::text).collect();
    texts.sort_unstable();
    texts
}

/// Version `v` of the rules: one stream that all of them make, whose records go to partitions of other
/// shards, and one more stream for each version so far.
fn rules_of(version: u64) -> String {
    let mut sql = format!(
        "CREATE STREAM out AS SELECT clientid() AS c, n, {version} AS v FROM 't/#'
         PARTITION BY n;\n"
    );
    for since in 1..=version {
        sql += &format!(
            "CREATE STREAM since_{since} AS SELECT clientid() AS c, n FROM 't/#' PARTITION BY n;\n"
        );
    }
    sql
}

/// (client, number), with the version where there is one.
fn numbers(records: &[Record]) -> Vec<((String, u64), u64)> {
    let number = |record: &Record| {
        let value: Value = serde_json::from_str(record.text()).unwrap();
        let client = value["c"].as_str().unwrap().to_owned();
        ((client, value["n"].as_u64().unwrap()), value["v"].as_u64().unwrap_or(0))
    };
    records.iter().map(number).collect()
}

#[test]
fn reloads_under_load_lose_and_double_nothing() {
    let Some(consumer) = any_consumer() else { return skipped("there is no Kafka consumer") };
    let scratch = scratch();
    let engine = setup(scratch.path(), &rules_of(1)).argument(&["--shards", "2"]).start();
    let version = AtomicU64::new(1);
    // Also where a reload fails the publishers come to an end.
    struct Last<'a>(&'a AtomicU64);
    impl Drop for Last<'_> {
        fn drop(&mut self) {
            self.0.store(VERSIONS, Ordering::Relaxed);
        }
    }
    let sent: Vec<u64> = std::thread::scope(|scope| {
        let publishers: Vec<_> = (0..PUBLISHERS)
            .map(|publisher| {
                let (engine, version) = (&engine, &version);
                scope.spawn(move || {
                    let client = format!("device-{publisher}");
                    let mut wire = Wire::connect_as(engine.ports.mqtt, Version::V5, &client);
                    let mut sent = 0;
                    // So many under each version at the least.
                    for wanted in 1..=VERSIONS {
                        let mut here = 0;
                        while here < 40 || version.load(Ordering::Relaxed) < wanted {
                            let payload = format!("{{\"n\":{sent}}}");
                            let id = (sent % 60_000) as u16 + 1;
                            let publish = Publish::new("t/x", id, payload.as_bytes());
                            assert_eq!(wire.publish_acknowledged(&publish), 0);
                            sent += 1;
                            here += 1;
                        }
                    }
                    sent
                })
            })
            .collect();
        let last = Last(&version);
        for next in 2..=VERSIONS {
            write_rules(scratch.path(), &rules_of(next));
            let (status, told) = reload(&engine);
            assert_eq!(status, 200, "{told}");
            assert_eq!((&told["version"], &told["rules"]), (&next.into(), &(next + 1).into()));
            assert_eq!(told["added"], serde_json::json!([format!("since_{next}")]));
            assert_eq!(told["changed"], serde_json::json!(["out"]));
            version.store(next, Ordering::Relaxed);
        }
        drop(last);
        publishers.into_iter().map(|publisher| publisher.join().unwrap()).collect()
    });
    let all: BTreeSet<_> = sent
        .iter()
        .enumerate()
        .flat_map(|(client, count)| (0..*count).map(move |n| (format!("device-{client}"), n)))
        .collect();
    let out = numbers(&read_all(consumer, &engine, "out"));
    assert_eq!(out.len(), all.len(), "none twice");
    let by: BTreeMap<_, _> = out.into_iter().collect();
    assert_eq!(by.keys().cloned().collect::<BTreeSet<_>>(), all, "every one once");
    assert_eq!(by.values().copied().collect::<BTreeSet<_>>().len() as u64, VERSIONS);
    for client in 0..PUBLISHERS {
        let client = format!("device-{client}");
        let mine = by.iter().filter(|((c, _), _)| *c == client).map(|(_, version)| *version);
        assert!(mine.is_sorted(), "a device's shard goes on from version to version");
    }
    for since in 1..=VERSIONS {
        let records = numbers(&read_all(consumer, &engine, &format!("since_{since}")));
        let found: BTreeSet<_> = records.iter().map(|(number, _)| number.clone()).collect();
        assert_eq!(found.len(), records.len(), "none twice");
        let expected = by.iter().filter(|(_, version)| **version >= since);
        assert_eq!(found, expected.map(|(number, _)| number.clone()).collect(), "since {since}");
    }
    // Nobody had to connect again, and counters went on.
    let accepted = engine.metric("tidegate_mqtt_connections_accepted_total", "");
    assert_eq!(accepted, PUBLISHERS as f64);
    let passed = engine.metric("tidegate_rule_passed_total", "rule=\"out\"");
    assert_eq!(passed, all.len() as f64);
    assert_eq!(engine.metric("tidegate_rules_version", ""), 2.0 * VERSIONS as f64);
    // Streams that came meanwhile are there after a crash.
    let before = read_all(consumer, &engine, "since_3");
    let engine = engine.kill().start();
    assert_eq!(read_all(consumer, &engine, "since_3"), before);
    publish(&engine, "later", &[("t/x", r#"{"n":1}"#)]);
    assert_eq!(read_all(consumer, &engine, "since_3").len(), before.len() + 1);
    engine.stop();
}

#[test]
fn wrong_rules_leave_the_old_ones() {
    let Some(consumer) = any_consumer() else { return skipped("there is no Kafka consumer") };
    let scratch = scratch();
    let good = "CREATE STREAM doubled AS SELECT n * 2 AS m FROM 't'";
    let engine = setup(scratch.path(), good).start();
    let wrong = "CREATE STREAM doubled AS SELECT n * 3 AS m FROM 't';
                 CREATE STREAM other AS SELECT clientidd() AS c FROM 't'";
    write_rules(scratch.path(), wrong);
    let (status, told) = reload(&engine);
    assert_eq!(status, 422, "{told}");
    let error = &told["errors"][0];
    assert!(error["file"].as_str().unwrap().ends_with("rules/all.sql"), "{told}");
    assert_eq!((&error["line"], &error["column"]), (&2.into(), &48.into()), "{told}");
    let message = "there is no function clientidd; did you mean clientid?";
    assert_eq!(error["message"], message);
    let (status, text) = engine.post(RELOAD, "text/plain").unwrap();
    assert!(status == 422 && text.ends_with(&format!("all.sql:2:48: {message}\n")), "{text}");
    let http = format!("127.0.0.1:{}", engine.ports.http);
    let (code, _, said) = run(&["rules", "reload", "--http", &http]);
    assert!(code == 2 && said.ends_with(&format!("all.sql:2:48: {message}\n")), "{code} {said}");
    publish(&engine, "c", &[("t", r#"{"n":1}"#)]);
    assert_eq!(engine.metric("tidegate_rules_last_reload_successful", ""), 0.0);
    // By signal it is the same.
    engine.signal("HUP");
    let failures = || engine.metric("tidegate_rules_reload_failures_total", "");
    wait_until("the fourth failure", || (failures() == 4.0).then_some(()));
    assert!(engine.said().contains("all.sql:2:48: there is no function"), "{}", engine.said());
    publish(&engine, "c", &[("t", r#"{"n":2}"#)]);
    assert_eq!(texts(&read_all(consumer, &engine, "doubled")), [r#"{"m":2}"#, r#"{"m":4}"#]);

    std::fs::remove_file(scratch.path().join("rules/all.sql")).unwrap();
    let (status, told) = reload(&engine);
    assert!(status == 422 && told["errors"][0]["message"].is_string(), "{told}");

    write_rules(scratch.path(), &good.replace('2', "4"));
    engine.signal("HUP");
    let reloads = || engine.metric("tidegate_rules_last_reload_successful", "");
    wait_until("the reload", || (reloads() == 1.0).then_some(()));
    publish(&engine, "c", &[("t", r#"{"n":3}"#)]);
    assert!(texts(&read_all(consumer, &engine, "doubled")).contains(&r#"{"m":12}"#));
    assert_eq!(engine.metric("tidegate_rule_matched_total", "rule=\"doubled\""), 3.0);
    assert_eq!(engine.metric("tidegate_rules_reloads_total", ""), 6.0);
    let (code, said, _) = run(&["rules", "reload", "--http", &http]);
    let expected = "version 3: 1 rule(s); added: none; removed: none; changed: none\n";
    assert_eq!((code, said.as_str()), (0, expected));
    engine.stop();
}

#[test]
fn rules_go_and_come_again_and_promises_stay() {
    let Some(consumer) = any_consumer() else { return skipped("there is no Kafka consumer") };
    let scratch = scratch();
    let both = "CREATE STREAM a AS SELECT n FROM 't';
                CREATE STREAM b WITH (durability='write') AS SELECT n FROM 't'";
    let engine = setup(scratch.path(), both).argument(&["--shards", "2"]).start();
    publish(&engine, "c", &[("t", r#"{"n":1}"#)]);
    write_rules(scratch.path(), "CREATE STREAM a WITH (retention='1d') AS SELECT n FROM 't'");
    let (status, told) = reload(&engine);
    assert_eq!((status, &told["removed"]), (200, &serde_json::json!(["b"])), "{told}");
    assert_eq!(told["changed"], serde_json::json!(["a"]));
    publish(&engine, "c", &[("t", r#"{"n":2}"#)]);
    assert_eq!(read_all(consumer, &engine, "b").len(), 1);
    // What it promises is fixed as long as the engine runs.
    let flushed = both.replace("'write'", "'fsync'");
    write_rules(scratch.path(), &flushed);
    let (status, told) = reload(&engine);
    let message = "stream b: durability was 'write' and would be 'fsync': that needs a restart of \
                   the engine";
    assert_eq!((status, &told["errors"][0]["message"]), (422, &message.into()), "{told}");
    assert_eq!(told["errors"][0]["line"], 2);
    write_rules(scratch.path(), both);
    assert_eq!(reload(&engine).0, 200);
    publish(&engine, "c", &[("t", r#"{"n":3}"#)]);
    assert_eq!(texts(&read_all(consumer, &engine, "b")), [r#"{"n":1}"#, r#"{"n":3}"#]);
    assert_eq!(texts(&read_all(consumer, &engine, "a")).len(), 3);

    write_rules(scratch.path(), &flushed);
    let engine = engine.stop().start();
    assert_eq!(texts(&read_all(consumer, &engine, "b")), [r#"{"n":1}"#, r#"{"n":3}"#]);
    // No rules at all, and from none to some.
    write_rules(scratch.path(), "");
    let (status, told) = reload(&engine);
    assert_eq!((status, &told["rules"]), (200, &0.into()), "{told}");
    publish(&engine, "c", &[("t", r#"{"n":4}"#)]);
    write_rules(scratch.path(), &flushed);
    assert_eq!(reload(&engine).0, 200);
    publish(&engine, "c", &[("t", r#"{"n":5}"#)]);
    let expected = [r#"{"n":1}"#, r#"{"n":3}"#, r#"{"n":5}"#];
    assert_eq!(texts(&read_all(consumer, &engine, "b")), expected);
    engine.stop();
}

/// A stream that came by a reload promises what any other does: what was flushed is there after a
/// crash, of one in memory no offset is given twice, and the tools find nothing wrong.
#[test]
fn streams_that_come_by_a_reload_are_whole_after_a_crash() {
    let Some(consumer) = any_consumer() else { return skipped("there is no Kafka consumer") };
    let scratch = scratch();
    let engine = setup(scratch.path(), "").argument(&["--shards", "2"]).start();
    let sql = "CREATE STREAM kept WITH (compression='lz4') AS SELECT n FROM 't' PARTITION BY n;
               CREATE STREAM lost WITH (durability='memory') AS SELECT n FROM 't' PARTITION BY n";
    write_rules(scratch.path(), sql);
    assert_eq!(reload(&engine).0, 200);
    let payloads: Vec<_> = (0..40).map(|n| format!("{{\"n\":{n}}}")).collect();
    let messages: Vec<_> = payloads.iter().map(|payload| ("t", payload.as_str())).collect();
    publish(&engine, "c", &messages);
    let kept = read_all(consumer, &engine, "kept");
    let given = read_all(consumer, &engine, "lost");
    assert_eq!((kept.len(), given.len()), (40, 40));
    let setup = engine.kill();
    let (code, out, error) = run(&["log", "verify", &setup.data_dir.display().to_string()]);
    assert_eq!(code, 0, "{out}{error}");
    let engine = setup.start();
    assert_eq!(read_all(consumer, &engine, "kept"), kept);
    let left = read_all(consumer, &engine, "lost");
    publish(&engine, "c", &messages);
    let after = read_all(consumer, &engine, "lost");
    let new: Vec<_> = after.iter().filter(|record| !left.contains(record)).collect();
    assert_eq!(new.len(), 40);
    for record in new {
        let given = given.iter().filter(|given| given.partition == record.partition);
        let last = given.map(|given| given.offset).max();
        assert!(last.is_none_or(|last| record.offset > last), "{record:?} after {last:?}");
    }
    engine.stop();
}

/// Tables come with a reload, are watched since, and go with another; a wrong one refuses it.
#[test]
fn tables_come_and_go_by_a_reload() {
    let Some(consumer) = any_consumer() else { return skipped("there is no Kafka consumer") };
    const HOT: &str = "CREATE STREAM hot AS SELECT clientid() AS device, n FROM 'plant/#';";
    let tagged = format!(
        "CREATE TABLE devices FROM 'devices.csv' KEY id; {HOT}
         CREATE STREAM tagged AS SELECT h.n, d.owner FROM hot AS h JOIN devices AS d ON d.id = h.device"
    );
    let scratch = scratch();
    let engine = setup(scratch.path(), HOT).argument(&["--shards", "2"]).start();
    let write = |text: &str| {
        let csv = scratch.path().join("rules/devices.csv");
        std::fs::write(csv.with_extension("new"), text).unwrap();
        std::fs::rename(csv.with_extension("new"), csv).unwrap();
    };
    let send = |n: u32| {
        for client in ["dev-1", "dev-2"] {
            publish(&engine, client, &[("plant/1", &format!("{{\"n\":{n}}}"))]);
        }
    };
    send(1);
    write("id,owner\ndev-1,Ann\n");
    write_rules(scratch.path(), &tagged);
    assert_eq!(reload(&engine).0, 200);
    assert_eq!(engine.metric("tidegate_table_rows", "table=\"devices\""), 1.0);
    send(2);
    write("id,owner\ndev-1,Bob\ndev-2,Eve\n");
    let loads = || engine.metric("tidegate_table_loads_total", "table=\"devices\"") == 2.0;
    wait_until("the table's new version", || loads().then_some(()));
    send(3);

    write("id,owner\ndev-1,Ann\ndev-1,Bob\n");
    let (status, answer) = reload(&engine);
    assert_eq!(status, 422, "{answer}");
    assert!(answer.to_string().contains("the id dev-1 is in line 2 already"), "{answer}");
    send(4);

    write_rules(scratch.path(), HOT);
    assert_eq!(reload(&engine).0, 200);
    assert!(
        !engine.get("/metrics").unwrap().1.contains("tidegate_table_rows{"),
        "no table is left"
    );
    send(5);
    let expected = [
        r#"{"n":2,"owner":"Ann"}"#,
        r#"{"n":3,"owner":"Bob"}"#,
        r#"{"n":3,"owner":"Eve"}"#,
        r#"{"n":4,"owner":"Bob"}"#,
        r#"{"n":4,"owner":"Eve"}"#,
    ];
    assert_eq!(texts(&read_all(consumer, &engine, "tagged")), expected);
    assert_eq!(read_all(consumer, &engine, "hot").len(), 10);
}
