//! Dead letters: a rule fails, is mended while the engine runs, and gets once more what it could not
//! evaluate; nobody else gets anything twice.

use crate::clients::{Record, any_consumer, read_all, skipped};
use crate::engine::{Engine, Setup, run, scratch};
use crate::wire::{Publish, Version, Wire, push_text};

const BROKEN: &str = "
CREATE STREAM plain AS SELECT * FROM 'plant/#';
CREATE STREAM hot WITH (headers=(site)) AS
SELECT clientid() AS device, cast(temp AS FLOAT) AS temp, received_at() AS at, topic(2) AS site,
       user_property('unit') AS unit
FROM 'plant/#' PARTITION BY site;
CREATE STREAM very_hot AS SELECT device, temp FROM hot WHERE temp > 90;
CREATE STREAM cold AS SELECT cast(temp AS FLOAT) AS temp FROM 'plant/#';";

/// A comma where a point should be is put right.
fn mended() -> String {
    let mended = "cast(replace(temp, ',', '.') AS FLOAT) AS temp, received_at()";
    BROKEN.replace("cast(temp AS FLOAT) AS temp, received_at()", mended)
}

fn redrive(engine: &Engine, more: &[&str]) -> (i32, String, String) {
    let (kafka, mqtt) = (engine.bootstrap(), format!("127.0.0.1:{}", engine.ports.mqtt));
    run(&[&["rules", "redrive", "--kafka", &kafka, "--mqtt", &mqtt][..], more].concat())
}

fn texts(records: &[Record]) -> Vec<&str> {
    let mut texts: Vec<&str> = records.iter().map(Record::text).collect();
    texts.sort_unstable();
    texts
}

fn check(shards: &str) {
    let Some(consumer) = any_consumer() else { return skipped("there is no Kafka consumer") };
    let scratch = scratch();
    let state = scratch.path().join("state.json").display().to_string();
    let rules = scratch.path().join("all.sql");
    std::fs::write(&rules, BROKEN).unwrap();
    let setup = Setup::new(scratch.path()).config("rules = [\"all.sql\"]\n");
    let engine = setup.argument(&["--shards", shards]).start();
    let devices: Vec<String> = (0..6).map(|n| format!("press {n}")).collect();
    for (n, device) in devices.iter().enumerate() {
        let mut wire = Wire::connect_as(engine.ports.mqtt, Version::V5, device);
        let mut properties = vec![0x26];
        push_text(&mut properties, "unit");
        push_text(&mut properties, "C");
        for (id, temp) in [(1, format!("9{n},5")), (2, format!("{n}.25"))] {
            let payload = format!("{{\"temp\":\"{temp}\"}}");
            let topic = format!("plant/s{n}");
            let publish =
                Publish { properties: &properties, ..Publish::new(&topic, id, payload.as_bytes()) };
            assert_eq!(wire.publish_acknowledged(&publish), 0);
        }
    }
    let dead = read_all(consumer, &engine, "_deadletter");
    assert_eq!(dead.len(), 12, "`hot` and `cold` cannot read six messages");
    assert_eq!(read_all(consumer, &engine, "hot").len(), 6);

    let (code, out, error) = redrive(&engine, &["--state", &state, "--dry-run"]);
    assert_eq!(code, 0, "{out}{error}");
    assert_eq!(out.lines().filter(|line| line.contains(" hot plant/s")).count(), 6, "{out}");
    assert!(out.ends_with("cold: 6 to be redriven\nhot: 6 to be redriven\n"), "{out}");

    std::fs::write(&rules, mended()).unwrap();
    assert_eq!(engine.post("/api/rules/reload", "*/*").unwrap().0, 200);
    let with = ["--state", &state, "--rule", "hot"];
    let (code, out, error) = redrive(&engine, &with);
    assert_eq!((code, out.as_str()), (0, "hot: 6 redriven\n"), "{error}");

    let hot = read_all(consumer, &engine, "hot");
    assert_eq!(hot.len(), 12);
    for (n, device) in devices.iter().enumerate() {
        let letter = dead.iter().find(|dead| dead.key == *device).unwrap();
        let expected = format!(
            "{{\"device\":\"{device}\",\"temp\":9{n}.5,\"at\":{},\"site\":\"s{n}\",\"unit\":\"C\"}}",
            letter.timestamp
        );
        let of: Vec<_> = hot.iter().filter(|record| record.text() == expected).collect();
        let [record] = of[..] else { panic!("{expected} in {:?}", texts(&hot)) };
        assert_eq!(record.key, format!("s{n}"));
        assert_eq!(record.header("mqtt.topic"), Some(&*format!("plant/s{n}")));
        assert_eq!(record.header("mqtt.client_id"), Some(&**device));
        assert_eq!((record.header("unit"), record.header("site")), (Some("C"), Some(&*record.key)));
        let others = hot.iter().filter(|other| other.key == record.key);
        assert!(others.clone().all(|other| other.partition == record.partition));
        assert_eq!(others.count(), 2);
    }
    assert_eq!(read_all(consumer, &engine, "very_hot").len(), 6, "who reads the rule gets it too");
    assert_eq!(read_all(consumer, &engine, "plain").len(), 12, "and nobody else");
    assert_eq!(read_all(consumer, &engine, "cold").len(), 6);
    assert_eq!(read_all(consumer, &engine, "_deadletter").len(), 12);

    // Again: what was redriven is known.
    let (code, out, _) = redrive(&engine, &with);
    assert_eq!((code, out.as_str()), (0, "no dead letters\n"));
    assert_eq!(read_all(consumer, &engine, "hot").len(), 12);

    // What fails again is a dead letter again, with the time of its first arrival.
    let (code, out, error) = redrive(&engine, &["--state", &state]);
    assert_eq!(code, 0, "{error}");
    assert!(out.starts_with("cold: 6 redriven\n6 new dead letter(s) came"), "{out}");
    let again = read_all(consumer, &engine, "_deadletter");
    assert_eq!(again.len(), 18);
    for device in &devices {
        let times = again.iter().filter(|letter| letter.key == *device);
        let times: std::collections::BTreeSet<_> = times.map(|letter| letter.timestamp).collect();
        assert_eq!(times.len(), 1, "{device}");
    }
    // A rule that is gone gets nothing, and its dead letters stay.
    std::fs::write(&rules, mended().replace("STREAM cold", "STREAM colder")).unwrap();
    assert_eq!(engine.post("/api/rules/reload", "*/*").unwrap().0, 200);
    let (code, out, error) = redrive(&engine, &["--state", &state]);
    assert_eq!(code, 1, "{out}");
    assert!(out.contains("cold: 0 redriven, 6 left: no rule cold reads"), "{out}{error}");
    engine.stop();
}

#[test]
fn dead_letters_come_again_on_one_shard() {
    check("1");
}

#[test]
fn dead_letters_come_again_on_three_shards() {
    check("3");
}
