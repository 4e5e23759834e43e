//! The control plane as a client sees it, over plain TCP.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Instant, SystemTime};

use super::*;
use crate::observe::{Close, EngineInfo, Reject, ShardState, Station, StationTimes, StreamInfo};
use crate::record::{Durability, PartitionId, StreamId, StreamName};

fn registry() -> Arc<Registry> {
    let stream = |name: &str| StreamInfo {
        name: StreamName::try_from(name.to_owned()).unwrap(),
        durability: Durability::Fsync,
        is_rule: name == "events",
    };
    Arc::new(Registry::new(EngineInfo {
        version: "1.2.3",
        shards: 2,
        partitions: 8,
        streams: vec![stream("telemetry"), stream("events")],
        started: SystemTime::UNIX_EPOCH,
    }))
}

fn started(registry: &Arc<Registry>) -> ControlHandle {
    start("127.0.0.1:0".parse().unwrap(), Arc::clone(registry), Reloading::default(), None).unwrap()
}

/// Status line and body of a GET.
fn get(control: &ControlHandle, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(control.address()).unwrap();
    let host = control.address();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

/// Samples by name with labels, after every line was held against the format.
fn parse(body: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let mut current = ("", "");
    let mut helped = "";
    for line in body.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            helped = rest.split_once(' ').expect("a help text").0;
        } else if let Some(rest) = line.strip_prefix("# TYPE ") {
            current = rest.split_once(' ').expect("a type");
            assert_eq!(current.0, helped, "HELP before TYPE");
            assert!(["counter", "gauge", "histogram"].contains(&current.1), "{line}");
            assert_eq!(current.1 == "counter", current.0.ends_with("_total"), "{line}");
        } else {
            let (series, value) = line.rsplit_once(' ').expect("a value");
            let name = series.split_once('{').map_or(series, |(name, _)| name);
            let suffix = name.strip_prefix(current.0).expect("samples follow their TYPE");
            let suffixes: &[&str] = match current.1 {
                "histogram" => &["_bucket", "_sum", "_count"],
                _ => &[""],
            };
            assert!(suffixes.contains(&suffix), "{line}");
            let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
            assert!(samples.insert(series.to_owned(), value).is_none(), "twice: {series}");
        }
    }
    samples
}

#[test]
fn a_scrape_shows_what_the_shards_published() {
    let registry = registry();
    let control = started(&registry);
    let shard = &registry.shards()[1];
    shard.mqtt.connections.set(7);
    shard.mqtt.messages[1].add(40);
    shard.mqtt.rejects.increment(Reject::PacketTooLarge);
    shard.mqtt.closed.add(Close::KeepAlive, 2);
    shard.log.commit_records.record(12);
    shard.log.flushed.set(8192);
    let partition = PartitionId(5);
    let events = shard.stream(StreamId(1));
    events.records.add(3);
    events.partition(partition.row(2)).high_watermark.set(99);
    let way = &shard.ring.ways[0];
    way.records.add(31);
    way.granted_bytes.publish(70_000);
    way.spent_bytes.publish(4_500);
    way.waits.increment();
    way.held.set(2);
    way.settled.publish(30);
    shard.ring.pinned_buffers.set(3);
    shard.ring.arrived.add(17);
    registry.set_tables(["devices"].into_iter())[0].rows.set(12);
    let mut times = StationTimes::new();
    times.record(shard, Station::Flush, 120_000);
    times.publish_all(shard);

    let (head, body) = get(&control, "/metrics");
    assert!(head.starts_with("HTTP/1.1 200 OK"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    let samples = parse(&body);
    let check = |series: &str, expected: f64| {
        let value = samples.get(series).unwrap_or_else(|| panic!("{series} is missing"));
        assert!((value - expected).abs() <= expected / 100.0, "{series} is {value}");
    };
    check("tidegate_info{version=\"1.2.3\"}", 1.0);
    check("tidegate_mqtt_connections{shard=\"0\"}", 0.0);
    check("tidegate_mqtt_connections{shard=\"1\"}", 7.0);
    check("tidegate_mqtt_messages_received_total{shard=\"1\",qos=\"1\"}", 40.0);
    check("tidegate_mqtt_rejects_total{shard=\"1\",reason=\"packet_too_large\"}", 1.0);
    check("tidegate_mqtt_connections_closed_total{shard=\"1\",reason=\"keep_alive\"}", 2.0);
    check("tidegate_log_commit_records_bucket{shard=\"1\",le=\"4\"}", 0.0);
    check("tidegate_log_commit_records_bucket{shard=\"1\",le=\"16\"}", 1.0);
    check("tidegate_log_position_bytes{shard=\"1\",reached=\"flushed\"}", 8192.0);
    check("tidegate_stream_records_total{shard=\"1\",stream=\"events\"}", 3.0);
    let labels = "{shard=\"1\",stream=\"events\",partition=\"5\"}";
    check(&format!("tidegate_partition_high_watermark{labels}"), 99.0);
    let labels = "shard=\"1\",station=\"flush\"";
    check(&format!("tidegate_station_duration_seconds_count{{{labels}}}"), 1.0);
    check(&format!("tidegate_station_duration_seconds_sum{{{labels}}}"), 120e-6);
    check(&format!("tidegate_station_duration_seconds_bucket{{{labels},le=\"0.0001\"}}"), 0.0);
    check(&format!("tidegate_station_duration_seconds_bucket{{{labels},le=\"0.00025\"}}"), 1.0);
    check(&format!("tidegate_station_recent_seconds{{{labels},percentile=\"99.9\"}}"), 120e-6);
    let way = "{shard=\"1\",to=\"0\"}";
    check(&format!("tidegate_ring_records_total{way}"), 31.0);
    check(&format!("tidegate_ring_granted_bytes_total{way}"), 70_000.0);
    check(&format!("tidegate_ring_spent_bytes_total{way}"), 4_500.0);
    check(&format!("tidegate_ring_waits_total{way}"), 1.0);
    check(&format!("tidegate_ring_held_connections{way}"), 2.0);
    check(&format!("tidegate_ring_settled_records_total{way}"), 30.0);
    check("tidegate_ring_records_total{shard=\"0\",to=\"1\"}", 0.0);
    let own = |series: &&String| series.contains("{shard=\"1\",to=\"1\"}");
    assert_eq!(samples.keys().find(own), None, "a shard has no way to itself");
    check("tidegate_ring_pinned_buffers{shard=\"1\"}", 3.0);
    check("tidegate_ring_arrived_records_total{shard=\"1\"}", 17.0);
    check("tidegate_table_rows{table=\"devices\"}", 12.0);
    assert!(samples["process_resident_memory_bytes"] > 1e6);
    control.stop();
}

#[test]
fn health_and_readiness_answer_with_the_reason() {
    let registry = registry();
    let control = started(&registry);
    let check = |path: &str, status: &str, body: &str| {
        let answer = get(&control, path);
        assert!(answer.0.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer:?}");
        assert_eq!(answer.1, body, "{path}");
    };
    check("/healthz", "200", "ok\n");
    check("/readyz", "503", "shard 0: starting\n");
    registry.shards().iter().for_each(|shard| shard.enter(ShardState::Serving));
    check("/readyz", "200", "ok\n");
    registry.shards()[1].enter(ShardState::DiskFull);
    check("/healthz", "503", "shard 1: disk full\n");
    check("/readyz", "200", "ok\n");
    let (head, body) = get(&control, "/");
    assert!(head.contains("content-type: text/html"), "{head}");
    assert!(["/healthz", "/readyz", "/metrics", "1.2.3"].iter().all(|w| body.contains(w)));
    assert!(get(&control, "/nothing").0.starts_with("HTTP/1.1 404 "));
}

#[test]
fn a_taken_port_is_an_error_at_start() {
    let registry = registry();
    let control = started(&registry);
    let error =
        start(control.address(), Arc::clone(&registry), Reloading::default(), None).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
}

#[test]
fn stopping_does_not_wait_for_silent_clients() {
    let control = started(&registry());
    let address = control.address();
    let mut silent = TcpStream::connect(address).unwrap();
    silent.write_all(b"GET /metr").unwrap();
    get(&control, "/healthz");
    let start = Instant::now();
    control.stop();
    assert!(start.elapsed() < STOP_MAX * 3, "{:?}", start.elapsed());
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn the_control_thread_keeps_to_its_cores() {
    let core = cores::allowed().unwrap().iter().last().unwrap();
    let cores = Some(CoreSet::from_iter([core]));
    let control =
        start("127.0.0.1:0".parse().unwrap(), registry(), Reloading::default(), cores).unwrap();
    get(&control, "/healthz");
    let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
    let confined = tasks
        .filter_map(|task| std::fs::read_to_string(task.path().join("status")).ok())
        .filter(|status| status.contains("Name:\tcontrol\n"))
        .any(|status| status.contains(&format!("Cpus_allowed_list:\t{core}\n")));
    assert!(confined);
    control.stop();
}

/// The first two columns of the tables in docs/metrics.md are the metrics' names and types.
#[test]
fn the_document_lists_every_metric() {
    let document = include_str!("../../docs/metrics.md");
    let rows = document.lines().filter_map(|line| line.strip_prefix("| `"));
    let documented: Vec<(&str, &str)> = rows
        .map(|row| {
            let (name, rest) = row.split_once("` | ").expect("a name and a type");
            (name, rest.split_once(" | ").expect("a type").0)
        })
        .collect();
    assert_eq!(documented, metric_names().collect::<Vec<_>>());
}

/// Reloads as it is told.
struct Told(Result<Reloaded, Refused>);

impl Reload for Told {
    fn reload(&self) -> Result<Reloaded, Refused> {
        self.0.clone()
    }
}

#[test]
fn reloads_are_answered_as_json_and_as_text() {
    let registry = registry();
    let reloading = Reloading::default();
    let address = "127.0.0.1:0".parse().unwrap();
    let control = start(address, Arc::clone(&registry), Arc::clone(&reloading), None).unwrap();
    let post = |accept: &str| {
        let mut stream = TcpStream::connect(control.address()).unwrap();
        write!(
            stream,
            "POST /api/rules/reload HTTP/1.1\r\nHost: x\r\nAccept: {accept}\r\nContent-Length: 0\r\n\
             Connection: close\r\n\r\n"
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().to_owned(), body.to_owned())
    };
    let (status, body) = post("*/*");
    assert_eq!(status, "503");
    assert_eq!(body, "{\"errors\":[{\"message\":\"the engine is still starting\"}]}\n");
    let wrong = |file: Option<&str>, text: &str| Wrong {
        file: file.map(str::to_owned),
        line: file.map(|_| 3),
        column: file.map(|_| 7),
        message: "no".to_owned(),
        text: text.to_owned(),
    };
    let refused = Refused::Rules(vec![wrong(Some("a.sql"), "a.sql:3:7: no"), wrong(None, "no")]);
    assert!(reloading.set(Arc::new(Told(Err(refused)))).is_ok());
    let (status, body) = post("application/json");
    let expected = "{\"errors\":[{\"column\":7,\"file\":\"a.sql\",\"line\":3,\"message\":\"no\"},\
                    {\"message\":\"no\"}]}\n";
    assert_eq!((status.as_str(), body.as_str()), ("422", expected));
    let (status, body) = post("text/plain");
    assert_eq!((status.as_str(), body.as_str()), ("422", "a.sql:3:7: no\nno\n"));
    let (head, _) = get(&control, "/api/rules/reload");
    assert!(head.starts_with("HTTP/1.1 405"), "{head}");
}
