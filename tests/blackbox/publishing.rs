//! Real MQTT publishers, and what each Kafka consumer reads of them.

use crate::clients::{
    CONSUMERS, Record, any_consumer, has, has_consumer, has_python, mosquitto_pub, paho_publish,
    read_all,
};
use crate::engine::{Engine, Setup, scratch, wait_until};

/// Reads until `count` records are there: QoS 0 is acknowledged by nobody.
fn read_at_least(engine: &Engine, count: usize) -> Vec<Record> {
    let consumer = any_consumer().expect("the test asked for a consumer");
    wait_until("the records to be readable", || {
        let records = read_all(consumer, engine, "telemetry");
        (records.len() >= count).then_some(records)
    })
}

#[test]
fn mosquitto_pub_speaks_both_versions_and_both_qos() {
    if !has("mosquitto_pub") || any_consumer().is_none() {
        return;
    }
    let scratch = scratch();
    let engine = Setup::new(scratch.path()).start();
    for version in ["mqttv311", "mqttv5"] {
        for qos in ["0", "1"] {
            let id = format!("{version}-qos{qos}");
            let text = format!("hello from {id}");
            let mut arguments = vec!["-V", version, "-i", &id, "-q", qos, "-t", "plant/7/temp"];
            arguments.extend(["-m", &text]);
            if qos == "1" {
                arguments.push("-r");
            }
            if version == "mqttv5" {
                arguments.extend(["-D", "publish", "content-type", "text/plain"]);
                arguments.extend(["-D", "publish", "user-property", "site", "north"]);
            }
            mosquitto_pub(&engine, &arguments);
        }
    }
    let records = read_at_least(&engine, 4);
    assert_eq!(records.len(), 4, "{records:#?}");
    for record in records {
        let (version, qos) = record.key.split_once("-qos").expect("the key is the client id");
        assert_eq!(record.text(), format!("hello from {}", record.key));
        assert_eq!(record.header("mqtt.topic"), Some("plant/7/temp"));
        assert_eq!(record.header("mqtt.qos"), Some(qos));
        let retained = record.header("mqtt.retain").expect("every record has mqtt.retain");
        assert_eq!(["1", "true"].contains(&retained), qos == "1", "retain is {retained}");
        let is_five = version == "mqttv5";
        assert_eq!(record.header("mqtt.content_type"), is_five.then_some("text/plain"));
        assert_eq!(record.header("site"), is_five.then_some("north"));
    }
    engine.stop();
}

#[test]
fn paho_is_acknowledged_and_every_consumer_reads_the_same() {
    if !has_python() {
        return;
    }
    let scratch = scratch();
    let engine = Setup::new(scratch.path()).start();
    let mut acknowledged = Vec::new();
    for version in ["3", "5"] {
        let prefix = format!("paho{version}");
        let mut arguments = vec!["--version", version, "--device-prefix", &prefix];
        arguments.extend(["--devices", "5", "--count", "200"]);
        if version == "5" {
            arguments.extend(["--content-type", "text/plain", "--user-property", "unit=°C"]);
        }
        let published = paho_publish(&engine, &arguments);
        assert_eq!(published.len(), 1000);
        acknowledged.extend(published);
    }
    // An acknowledged message is readable at once: what was acknowledged is committed.
    let mut seen: Option<Vec<Record>> = None;
    for consumer in CONSUMERS {
        if !has_consumer(consumer) {
            continue;
        }
        let records = read_all(consumer, &engine, "telemetry");
        assert_eq!(records.len(), acknowledged.len(), "{consumer:?}");
        check_sequences(&records, &acknowledged);
        match &seen {
            None => seen = Some(records),
            Some(first) => assert!(*first == records, "{consumer:?} reads something else"),
        }
    }
    engine.stop();
}

/// Each device's messages are there once, in the order of its sequence, in one partition.
fn check_sequences(records: &[Record], acknowledged: &[(String, u64, String)]) {
    let mut devices: Vec<&str> = acknowledged.iter().map(|(device, ..)| device.as_str()).collect();
    devices.sort_unstable();
    devices.dedup();
    for device in devices {
        let own: Vec<&Record> = records.iter().filter(|record| record.key == device).collect();
        let expected: Vec<&str> = acknowledged
            .iter()
            .filter(|(name, ..)| name == device)
            .map(|(.., payload)| payload.as_str())
            .collect();
        assert_eq!(own.iter().map(|record| record.text()).collect::<Vec<_>>(), expected);
        assert!(own.iter().all(|record| record.partition == own[0].partition));
        assert!(own.windows(2).all(|pair| pair[0].offset < pair[1].offset));
        let topic = format!("plant/{device}/state");
        assert!(own.iter().all(|record| record.header("mqtt.topic") == Some(&topic)));
        if device.starts_with("paho5") {
            assert!(own.iter().all(|record| record.header("unit") == Some("°C")));
        }
    }
}

#[test]
fn paho_at_qos_0_arrives() {
    if !has_python() {
        return;
    }
    let scratch = scratch();
    let engine = Setup::new(scratch.path()).start();
    paho_publish(&engine, &["--qos", "0", "--count", "50", "--version", "3"]);
    let records = read_at_least(&engine, 50);
    let expected: Vec<String> = (0..50).map(|seq| format!("paho-0:{seq}")).collect();
    assert_eq!(records.iter().map(|record| record.text()).collect::<Vec<_>>(), expected);
    engine.stop();
}
