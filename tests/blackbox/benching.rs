//! `tidegate bench` on a real engine, and its subscribers on a real Mosquitto: what it sends is
//! answered, and who reads along reads it.

use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::clients::has;
use crate::engine::{Ports, Setup, run, scratch, wait_until};

#[test]
fn the_load_is_acknowledged_and_its_consumer_reads_every_message() {
    for compression in ["none", "lz4"] {
        let scratch = scratch();
        let stream = format!(
            "[[stream]]\nname = \"plant\"\ntopics = [\"bench/#\"]\ncompression = \"{compression}\"\n"
        );
        let engine = Setup::new(scratch.path()).config(&stream).start();
        let (mqtt, kafka) = (format!("127.0.0.1:{}", engine.ports.mqtt), engine.bootstrap());
        let mut line = vec!["bench", "--connect", &mqtt, "--connections", "5", "--rate", "500"];
        line.extend(["--warmup", "100ms", "--duration", "1s", "--drain", "60s", "--quiet"]);
        line.extend(["--consume-kafka", &kafka, "--stream", "plant", "--json"]);
        line.extend(["--payload", if compression == "lz4" { "zeros" } else { "random" }]);
        let (code, report, said) = run(&line);
        assert_eq!(code, 0, "{said}");
        let report: Value = serde_json::from_str(&report).unwrap();
        let number = |path: &str| report.pointer(path).and_then(Value::as_u64).unwrap();
        assert_eq!(number("/open_loop/unacknowledged"), 0);
        assert_eq!(number("/consumer/unread"), 0);
        assert!(number("/consumer/latency/count") >= number("/open_loop/intended"));
        engine.stop();
    }
}

#[test]
fn a_stream_that_is_not_there_is_said() {
    let scratch = scratch();
    let engine = Setup::new(scratch.path()).start();
    let (mqtt, kafka) = (format!("127.0.0.1:{}", engine.ports.mqtt), engine.bootstrap());
    let line = ["bench", "--connect", &mqtt, "--consume-kafka", &kafka, "--stream", "nothing"];
    let (code, _, said) = run(&line);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("the Kafka consumer: Metadata answered"), "{said}");
    engine.stop();
}

/// A Mosquitto with a queue without bounds. It is ended when the value goes.
struct Mosquitto {
    child: Child,
    address: String,
}

impl Mosquitto {
    fn start(folder: &Path) -> Self {
        let port = Ports::free().mqtt;
        let file = folder.join("mosquitto.conf");
        let limits = "max_inflight_messages 0\nmax_queued_messages 0\npersistence false";
        let text = format!("listener {port} 127.0.0.1\nallow_anonymous true\n{limits}\n");
        std::fs::write(&file, text).unwrap();
        // Debian keeps it where only root looks.
        let path = format!("{}:/usr/sbin:/usr/local/sbin", std::env::var("PATH").unwrap());
        let child = Command::new("sh")
            .args(["-c", "exec mosquitto -c \"$0\""])
            .arg(&file)
            .env("PATH", path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let address = format!("127.0.0.1:{port}");
        wait_until("Mosquitto to listen", || TcpStream::connect(&address).ok());
        Self { child, address }
    }
}

impl Drop for Mosquitto {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A short load with these flags, which must end well: its report.
fn report(address: &str, flags: &[&str]) -> Value {
    let mut line = vec!["bench", "--connect", address, "--warmup", "100ms", "--duration", "1s"];
    line.extend(["--drain", "60s", "--quiet", "--json"]);
    line.extend(flags);
    let (code, report, said) = run(&line);
    assert_eq!(code, 0, "{flags:?}: {said}");
    serde_json::from_str(&report).unwrap()
}

fn number(report: &Value, path: &str) -> u64 {
    report.pointer(path).and_then(Value::as_u64).unwrap_or_else(|| panic!("{path} in {report}"))
}

#[test]
fn subscribers_receive_every_message_of_a_real_broker() {
    if !has("mosquitto") {
        return;
    }
    let scratch = scratch();
    let mosquitto = Mosquitto::start(scratch.path());
    let check = |flags: &[&str], copies: u64| {
        let report = report(&mosquitto.address, flags);
        let intended = number(&report, "/open_loop/intended");
        assert!((399..=401).contains(&intended), "{intended}");
        assert_eq!(number(&report, "/subscriber/unreceived"), 0);
        assert_eq!(number(&report, "/subscriber/latency/count"), copies * intended);
        report
    };
    for qos in ["0", "1"] {
        for version in ["3.1.1", "5"] {
            let flags = ["--rate", "400", "--qos", qos, "--mqtt-version", version];
            check(&[&flags[..], &["--connections", "5", "--subscribe", "3"]].concat(), 3);
            check(&[&flags[..], &["--scenario", "one-to-one", "--connections", "4"]].concat(), 1);
        }
    }
    let fan_out = ["--rate", "400", "--scenario", "fan-out", "--subscribe", "20"];
    assert_eq!(number(&check(&fan_out, 20), "/connections"), 1);
    // Two threads on one core, for machines that have one.
    check(&["--rate", "400", "--subscribe", "3", "--core", "0,0", "--connections", "4"], 3);
    let slow = ["--rate", "400", "--scenario", "slow-consumer", "--subscribe", "2"];
    let slow = check(&[&slow[..], &["--payload-bytes", "1024"]].concat(), 2);
    assert!(number(&slow, "/slow/messages") > 0, "{slow}");
}

#[test]
fn without_a_rate_subscribers_are_told_what_they_received_meanwhile() {
    if !has("mosquitto") {
        return;
    }
    let scratch = scratch();
    let mosquitto = Mosquitto::start(scratch.path());
    let flags = ["--window", "2", "--connections", "3", "--subscribe", "1"];
    let report = report(&mosquitto.address, &flags);
    assert!(number(&report, "/subscriber/latency/count") > 0);
    assert_eq!(report["subscriber"]["unreceived"], Value::Null);
}

#[test]
fn a_refused_subscription_is_said() {
    let scratch = scratch();
    let engine = Setup::new(scratch.path()).start();
    let mqtt = format!("127.0.0.1:{}", engine.ports.mqtt);
    for (version, code) in [("3.1.1", "0x80"), ("5", "0x83")] {
        let line =
            ["bench", "--connect", &mqtt, "--subscribe", "1", "--mqtt-version", version, "--quiet"];
        let (status, _, said) = run(&line);
        assert_eq!(status, 1, "{said}");
        let expected = format!("refused the subscription to \"bench/+\" with code {code}");
        assert!(said.contains(&expected) && said.contains("--consume-kafka"), "{said}");
    }
    engine.stop();
}

#[test]
fn a_slow_kafka_consumer_reads_beside_a_quick_one() {
    let scratch = scratch();
    let stream = "[[stream]]\nname = \"plant\"\ntopics = [\"bench/#\"]\n";
    let engine = Setup::new(scratch.path()).config(stream).start();
    let (mqtt, kafka) = (format!("127.0.0.1:{}", engine.ports.mqtt), engine.bootstrap());
    let mut flags = vec!["--scenario", "slow-consumer", "--consume-kafka", &kafka];
    flags.extend(["--stream", "plant", "--rate", "400", "--connections", "4"]);
    let report = report(&mqtt, &flags);
    assert_eq!(number(&report, "/consumer/unread"), 0);
    assert!(number(&report, "/slow/messages") > 0, "{report}");
    let client = report["consumer"]["client"].as_str().unwrap();
    let expected = if cfg!(feature = "librdkafka") { "librdkafka" } else { "own" };
    assert!(client.starts_with(expected), "{client}");
    engine.stop();
}

#[test]
fn a_client_that_is_not_in_this_build_is_said() {
    let line = ["bench", "--consume-kafka", "h:1", "--stream", "s", "--consumer", "librdkafka"];
    let (code, _, said) = run(&line);
    assert_eq!(code, if cfg!(feature = "librdkafka") { 1 } else { 2 }, "{said}");
    let expected = if cfg!(feature = "librdkafka") { "Kafka consumer" } else { "--features" };
    assert!(said.contains(expected), "{said}");
}
