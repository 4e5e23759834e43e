//! Lookup tables from a file that its owner changes, spoils and takes away while messages run.

use crate::clients::{any_consumer, read_all, skipped};
use crate::engine::{Engine, Setup, run, scratch, wait_until};
use crate::wire::{Publish, Version, Wire};

const RULES: &str = "
CREATE TABLE devices FROM 'devices.csv' KEY id;
CREATE STREAM hot AS SELECT clientid() AS device, temp FROM 'plant/#' WHERE temp > 30;
CREATE STREAM tagged AS SELECT s.*, d.owner FROM hot AS s JOIN devices AS d ON d.id = s.device;
CREATE STREAM all_of_them AS SELECT s.temp, d.* FROM hot AS s LEFT JOIN devices AS d ON d.id = s.device";
const FIRST: &str = "id,owner\ndev-1,Ann\ndev-2,Bob\n";

fn setup(scratch: &std::path::Path, csv: &str) -> Setup {
    std::fs::create_dir_all(scratch.join("rules")).unwrap();
    std::fs::write(scratch.join("rules/all.sql"), RULES).unwrap();
    std::fs::write(scratch.join("rules/devices.csv"), csv).unwrap();
    Setup::new(scratch)
        .config("rules = [\"rules/*.sql\"]\n[[stream]]\nname = \"raw\"\ntopics = [\"raw/#\"]\n")
}

fn publish(engine: &Engine, temp: u32) {
    for client in ["dev-1", "dev-2", "dev-3", "dev-4"] {
        let mut wire = Wire::connect_as(engine.ports.mqtt, Version::V5, client);
        let payload = format!("{{\"temp\":{temp}}}");
        assert_eq!(wire.publish_acknowledged(&Publish::new("plant/1", 1, payload.as_bytes())), 0);
    }
}

fn await_metric(engine: &Engine, name: &str, value: f64) {
    wait_until(name, || (engine.metric(name, "table=\"devices\"") == value).then_some(()));
}

#[test]
fn a_table_changes_while_messages_run() {
    let Some(consumer) = any_consumer() else { return skipped("there is no Kafka consumer") };
    let scratch = scratch();
    let mut engine = setup(scratch.path(), FIRST).argument(&["--shards", "2"]).start();
    let csv = scratch.path().join("rules/devices.csv");
    let texts = |engine: &Engine, topic: &str, of: &str| {
        let records = read_all(consumer, engine, topic);
        let of = |record: &str| record.contains(of);
        let mut texts: Vec<String> =
            records.iter().map(|r| r.text().to_owned()).filter(|text| of(text)).collect();
        texts.sort_unstable();
        texts
    };
    let tagged = |temp: u32, rows: &[(&str, &str)]| -> Vec<String> {
        let text = |(device, owner): &(&str, &str)| {
            format!("{{\"device\":\"{device}\",\"temp\":{temp},\"owner\":\"{owner}\"}}")
        };
        rows.iter().map(text).collect()
    };
    assert_eq!(engine.metric("tidegate_table_rows", ""), 2.0);
    publish(&engine, 31);
    let first = [("dev-1", "Ann"), ("dev-2", "Bob")];
    assert_eq!(texts(&engine, "tagged", ":31"), tagged(31, &first));
    let rows = [
        r#"{"temp":31,"id":"dev-1","owner":"Ann"}"#,
        r#"{"temp":31,"id":"dev-2","owner":"Bob"}"#,
        r#"{"temp":31,"id":null,"owner":null}"#,
        r#"{"temp":31,"id":null,"owner":null}"#,
    ];
    assert_eq!(texts(&engine, "all_of_them", ":31"), rows);

    // A new version, put in the place of the old one.
    let beside = csv.with_extension("new");
    std::fs::write(&beside, "owner,id,more\n\"Eve, \"\"E\"\"\",dev-1,x\nDan,dev-3,\nFay,dev-5,\n")
        .unwrap();
    std::fs::rename(&beside, &csv).unwrap();
    await_metric(&engine, "tidegate_table_loads_total", 2.0);
    assert_eq!(engine.metric("tidegate_table_rows", ""), 3.0);
    publish(&engine, 32);
    let second = [("dev-1", r#"Eve, \"E\""#), ("dev-3", "Dan")];
    assert_eq!(texts(&engine, "tagged", ":32"), tagged(32, &second));

    // Wrong, empty and missing files change nothing.
    std::fs::write(&csv, "id,owner\ndev-1,Ann\ndev-1,Bob\n").unwrap();
    await_metric(&engine, "tidegate_table_load_failures_total", 1.0);
    let said = engine.said();
    let why = "devices.csv:3:1: the id dev-1 is in line 2 already; keys are unique";
    assert!(said.contains("table devices stays as it was: ") && said.contains(why), "{said}");
    std::fs::File::options().write(true).open(&csv).unwrap().set_len(0).unwrap();
    await_metric(&engine, "tidegate_table_load_failures_total", 2.0);
    publish(&engine, 33);
    std::fs::remove_file(&csv).unwrap();
    await_metric(&engine, "tidegate_table_load_failures_total", 3.0);
    publish(&engine, 34);
    engine.assert_running();
    assert_eq!(texts(&engine, "tagged", ":33"), tagged(33, &second));
    assert_eq!(texts(&engine, "tagged", ":34"), tagged(34, &second));

    std::fs::write(&csv, FIRST).unwrap();
    await_metric(&engine, "tidegate_table_loads_total", 3.0);
    publish(&engine, 35);
    assert_eq!(texts(&engine, "tagged", ":35"), tagged(35, &first));
    // Private files have no names.
    let there = std::fs::read_dir(scratch.path().join("data")).unwrap();
    let names: Vec<_> = there.map(|entry| entry.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().contains("table")), "{names:?}");
    engine.stop();
}

#[test]
fn wrong_tables_do_not_start_and_the_commands_know_tables() {
    let scratch = scratch();
    let (code, said) = setup(scratch.path(), "id,owner\ndev-1,\"Ann\n").refused();
    assert_eq!(code, 2, "{said}");
    assert!(
        said.contains("rules/devices.csv:2:7: the quote that begins here has no end"),
        "{said}"
    );
    setup(scratch.path(), FIRST);
    let rules = scratch.path().join("rules/all.sql").display().to_string();
    let (code, out, error) = run(&["rules", "check", &rules]);
    assert!(
        code == 0 && out.starts_with("3 rule(s) are right: hot, tagged, all_of_them\n"),
        "{out}{error}"
    );
    assert!(
        out.contains("table devices: 2 row(s) of ") && out.ends_with("rules/devices.csv\n"),
        "{out}"
    );
    let (code, out, _) = run(&["rules", "explain", &rules]);
    assert!(code == 0 && out.contains("  join       devices, d.id = payload.device\n"), "{out}");
    let samples = scratch.path().join("samples.jsonl").display().to_string();
    std::fs::write(&samples, r#"{"topic":"plant/1","clientid":"dev-2","payload":{"temp":40}}"#)
        .unwrap();
    let (code, out, error) = run(&["rules", "try", "--rule", &rules, "--input", &samples]);
    let expected = r#"tagged {"device":"dev-2","temp":40,"owner":"Bob"}"#;
    assert!(code == 0 && out.contains(expected), "{out}{error}");
}
