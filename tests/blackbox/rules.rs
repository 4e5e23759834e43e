//! Rules from real MQTT clients to real Kafka consumers: filtered, reshaped, routed, refused.

use crate::clients::{Record, any_consumer, has, mosquitto_pub, read_all, skipped};
use crate::engine::{Engine, Setup, run, scratch};
use crate::partitioning::{PARTITIONS, partition_of};
use crate::wire::{Publish, Version, Wire};

const CONFIG: &str =
    "rules = [\"rules/*.sql\"]\n[[stream]]\nname = \"raw\"\ntopics = [\"raw/#\"]\n";

const RULES: &str = "
CREATE STREAM hot WITH (compression='lz4', headers=(unit)) AS
SELECT clientid() AS device, topic(2) AS site, temp * 1.8 + 32 AS temp_f, unit
FROM 'plant/+/sensor/#'
WHERE temp > 30 AND site <> 'lab'
PARTITION BY site;

CREATE STREAM alarms AS SELECT device, temp_f FROM hot WHERE temp_f > 120;

CREATE STREAM readings WITH (key = r.id, timestamp = r.at) AS
SELECT r.* FROM 'batch/#', UNNEST(readings) AS r;

CREATE STREAM copies AS SELECT * FROM raw WHERE n % 2 = 0;";

fn setup(scratch: &std::path::Path, rules: &str) -> Setup {
    std::fs::create_dir_all(scratch.join("rules")).unwrap();
    std::fs::write(scratch.join("rules/all.sql"), rules).unwrap();
    Setup::new(scratch).config(CONFIG)
}

fn publish(engine: &Engine, client: &str, messages: &[(&str, &str)]) {
    let mut wire = Wire::connect_as(engine.ports.mqtt, Version::V5, client);
    for (at, (topic, payload)) in messages.iter().enumerate() {
        let publish = Publish::new(topic, at as u16 + 1, payload.as_bytes());
        assert_eq!(wire.publish_acknowledged(&publish), 0, "{topic} {payload}");
    }
}

fn texts(records: &[Record]) -> Vec<&str> {
    let mut texts: Vec<&str> = records.iter().map(Record::text).collect();
    texts.sort_unstable();
    texts
}

/// Everything that rules do, with `shards` shards, where records of one key meet in one partition,
/// whichever shard made them.
fn check(shards: &str) {
    let Some(consumer) = any_consumer() else { return skipped("there is no Kafka consumer") };
    let scratch = scratch();
    let engine = setup(scratch.path(), RULES).argument(&["--shards", shards]).start();
    for client in ["press-1", "press-2", "press-3", "press-4", "press-5"] {
        publish(
            &engine,
            client,
            &[
                ("plant/north/sensor/a", r#"{"temp": 31.5, "unit": "C"}"#),
                ("plant/south/sensor/a/b", r#"{"temp": 50, "unit": "C"}"#),
                ("plant/lab/sensor/a", r#"{"temp": 99}"#),
                ("plant/north/sensor/a", r#"{"temp": 30}"#),
                ("plant/north/sensor/a", "{}"),
            ],
        );
    }
    let hot = read_all(consumer, &engine, "hot");
    assert_eq!(hot.len(), 10);
    for record in &hot {
        assert!(["north", "south"].contains(&&*record.key), "{record:?}");
        assert_eq!(record.partition, partition_of(&record.key, PARTITIONS), "{record:?}");
        assert_eq!(record.header("unit"), Some("C"));
        assert!(record.header("mqtt.client_id").unwrap().starts_with("press-"));
    }
    let first = r#"{"device":"press-1","site":"north","temp_f":88.7,"unit":"C"}"#;
    assert!(texts(&hot).contains(&first), "{:?}", texts(&hot));
    let alarms = read_all(consumer, &engine, "alarms");
    assert_eq!(alarms.len(), 5);
    assert_eq!(texts(&alarms)[0], r#"{"device":"press-1","temp_f":122.0}"#);

    let batch =
        r#"{"readings":[{"id":"x","at":1000,"v":1},{"id":"y","at":2000,"v":[2, "\u00e4"]}]}"#;
    publish(&engine, "gateway", &[("batch/1", batch)]);
    let mut readings = read_all(consumer, &engine, "readings");
    readings.sort_by(|a, b| a.key.cmp(&b.key));
    assert_eq!(
        texts(&readings),
        [r#"{"id":"x","at":1000,"v":1}"#, r#"{"id":"y","at":2000,"v":[2, "\u00e4"]}"#]
    );
    let keys: Vec<_> = readings.iter().map(|r| (r.key.as_str(), r.timestamp)).collect();
    assert_eq!(keys, [("x", 1000), ("y", 2000)]);

    publish(&engine, "plain", &[("raw/1", r#"{"n": 1}"#), ("raw/2", r#" {"n":2 } "#)]);
    assert_eq!(read_all(consumer, &engine, "raw").len(), 2);
    assert_eq!(texts(&read_all(consumer, &engine, "copies")), [r#" {"n":2 } "#]);

    let broken =
        [("plant/north/sensor/a", "21.5 degrees"), ("plant/north/sensor/b", r#"{"temp":"x"}"#)];
    publish(&engine, "broken", &broken);
    let dead = read_all(consumer, &engine, "_deadletter");
    assert_eq!(texts(&dead), ["21.5 degrees", r#"{"temp":"x"}"#]);
    for record in &dead {
        assert_eq!((record.key.as_str(), record.header("rule")), ("broken", Some("hot")));
        let position = record.header("position").unwrap();
        assert!(position.contains("rules/all.sql:"), "{position}");
        assert!(record.header("reason").unwrap().len() > 10, "{record:?}");
        assert!(record.header("mqtt.topic").unwrap().starts_with("plant/north/sensor/"));
    }
    let rule = |name: &str| engine.metric(name, "rule=\"hot\"");
    assert_eq!(rule("tidegate_rule_matched_total"), 27.0);
    assert_eq!(rule("tidegate_rule_passed_total"), 10.0);
    assert_eq!(rule("tidegate_rule_errors_total"), 2.0);
    engine.stop();
}

#[test]
fn rules_on_one_shard() {
    check("1");
}

#[test]
fn rules_on_three_shards() {
    check("3");
}

#[test]
fn mosquitto_pub_to_a_rule_to_kcat() {
    if !has("mosquitto_pub") || !has("kcat") {
        return skipped("mosquitto_pub or kcat is not installed");
    }
    let scratch = scratch();
    let engine = setup(scratch.path(), RULES).start();
    for temp in ["29", "32", "33"] {
        let payload = format!("{{\"temp\": {temp}}}");
        let words = ["-q", "1", "-i", "m", "-t", "plant/7/sensor/a", "-m", &payload];
        mosquitto_pub(&engine, &words);
    }
    let records = read_all(crate::clients::Consumer::Kcat, &engine, "hot");
    let expected = [89.6, 91.4]
        .map(|temp| format!("{{\"device\":\"m\",\"site\":\"7\",\"temp_f\":{temp},\"unit\":null}}"));
    assert_eq!(texts(&records), expected);
    // What is acknowledged is there after a crash, also what a rule has made.
    let engine = engine.kill().start();
    assert_eq!(read_all(crate::clients::Consumer::Kcat, &engine, "hot"), records);
    engine.stop();
}

/// A message that would make more than the log takes at once is a dead letter, and the connection
/// goes on.
#[test]
fn too_many_records_of_one_message() {
    let Some(consumer) = any_consumer() else { return skipped("there is no Kafka consumer") };
    let scratch = scratch();
    let engine = setup(scratch.path(), RULES).argument(&["--shards", "2"]).start();
    let element = r#"{"id":"k","at":1}"#;
    let many = format!("{{\"readings\":[{}]}}", vec![element; 20_000].join(","));
    let few = format!("{{\"readings\":[{}]}}", [element; 3].join(","));
    publish(&engine, "g", &[("batch/1", &many), ("batch/2", &few)]);
    assert_eq!(read_all(consumer, &engine, "readings").len(), 3);
    let dead = read_all(consumer, &engine, "_deadletter");
    assert_eq!(dead.len(), 1);
    assert!(dead[0].header("reason").unwrap().contains("more records"), "{:?}", dead[0].headers);
    engine.stop();
}

#[test]
fn wrong_rules_do_not_start() {
    let scratch = scratch();
    let wrong = "CREATE STREAM a AS SELECT clientidd() AS c FROM 'x'";
    let (code, said) = setup(scratch.path(), wrong).refused();
    assert_eq!(code, 2, "{said}");
    assert!(
        said.contains("all.sql:1:27: there is no function clientidd; did you mean clientid?"),
        "{said}"
    );
}

#[test]
fn the_commands_check_explain_and_try() {
    let scratch = scratch();
    setup(scratch.path(), RULES);
    let path = |name: &str| scratch.path().join(name).display().to_string();
    let rules = path("rules/all.sql");
    // `copies` reads a stream of the configuration.
    let config = path("data.toml");
    for words in [vec!["check", "--config", &config], vec!["check", &rules, "--config", &config]] {
        let (code, out, error) = run(&[&["rules"], &words[..]].concat());
        let expected = "4 rule(s) are right: hot, alarms, readings, copies\n";
        assert_eq!((code, out.as_str()), (0, expected), "{error}");
    }
    let (code, out, _) = run(&["rules", "explain", "--config", &config]);
    assert!(code == 0 && out.contains("  where      (payload.temp > 30) AND"), "{out}");

    let example = |name: &str| format!("{}/scripts/rules/{name}.sql", env!("CARGO_MANIFEST_DIR"));
    for name in ["cold-chain", "factory", "weather"] {
        let (code, out, error) = run(&["rules", "check", &example(name)]);
        assert!(code == 0 && out.contains(" are right: "), "{name}: {out}{error}");
    }
    // Bytes as base64: Sparkplug B.
    let (rules_of, samples_of) = (example("factory"), example("factory").replace("sql", "jsonl"));
    let (code, out, error) = run(&["rules", "try", "--rule", &rules_of, "--input", &samples_of]);
    assert!(out.contains("temperatures {\"device\":\"press-7\",\"celsius\":74.25}"), "{out}");
    // One is meant to have no value.
    assert!(code == 1 && error.contains("9 message(s)"), "{error}");
    assert!(error.contains("12 record(s), 1 error(s)"), "{error}");

    let one =
        "CREATE STREAM s AS SELECT a + 1 AS b FROM 'x/+' WHERE a <> 3 PARTITION BY clientid()";
    std::fs::write(path("one.sql"), one).unwrap();
    let samples = "{\"a\": 1}\n{\"topic\":\"x/1\",\"clientid\":\"c\",\"payload\":{\"a\":2}}\n\
        {\"topic\":\"y\",\"payload\":{\"a\":2}}\n{\"topic\":\"x/1\",\"payload\":\"{\\\"a\\\":\\\"t\\\"}\"}\n";
    std::fs::write(path("samples.jsonl"), samples).unwrap();
    let words = ["rules", "try", "--rule", &path("one.sql"), "--input", &path("samples.jsonl")];
    let (code, out, error) = run(&words);
    let expected = "s {\"b\":2}  key=sample\ns {\"b\":3}  key=c\nerror ";
    assert!(code == 1 && out.starts_with(expected), "{out}{error}");
    assert!(out.contains("one.sql:1:27: s: + takes numbers, not text: {\"a\":\"t\"}"), "{out}");
    assert!(error.contains("4 message(s)") && error.contains("ns a message"), "{error}");
}
