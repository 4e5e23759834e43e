//! Runs the clients that others wrote: mosquitto_pub, paho-mqtt, kcat, confluent-kafka and
//! kafka-python, and reads what they print.
//!
//! A client that is not installed skips the test, loudly; with TIDEGATE_REQUIRE_CLIENTS=1 (CI) it
//! fails it. Python comes from TIDEGATE_PYTHON, else from the environment that scripts/clients.sh
//! makes under target/, else from the path.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::OnceLock;

use serde_json::Value;

use crate::engine::Engine;

/// A consumer that reads a topic from the start to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consumer {
    Kcat,
    Confluent,
    KafkaPython,
}

pub const CONSUMERS: [Consumer; 3] = [Consumer::Kcat, Consumer::Confluent, Consumer::KafkaPython];

/// A record as a Kafka client saw it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Record {
    pub partition: u32,
    pub offset: i64,
    pub timestamp: i64,
    /// Empty where there is none.
    pub key: String,
    pub has_key: bool,
    pub headers: Vec<(String, String)>,
    pub value: Vec<u8>,
}

impl Record {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.value).expect("this value is text")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(held, _)| held == name).map(|(_, value)| value.as_str())
    }
}

/// Says that a test cannot run here; in CI that is a failure. Past the harness's capture, because
/// a skipped test must be seen.
pub fn skipped(reason: &str) {
    let required = std::env::var("TIDEGATE_REQUIRE_CLIENTS").is_ok_and(|value| value == "1");
    assert!(!required, "TIDEGATE_REQUIRE_CLIENTS=1, but {reason}");
    skipped_anyway(reason);
}

/// `skipped` for what even CI may lack (open files, root).
pub fn skipped_anyway(reason: &str) {
    let test = std::thread::current().name().unwrap_or("a test").to_owned();
    let _ = writeln!(std::io::stderr(), "SKIPPED: {test}: {reason}");
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let mut folders = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    folders.find_map(|folder| Some(folder.join(program)).filter(|file| file.is_file()))
}

/// Whether a program is there; says that the test is skipped when it is not.
pub fn has(program: &str) -> bool {
    let found = on_path(program).is_some();
    if !found {
        skipped(&format!("{program} not found"));
    }
    found
}

/// The Python that has all three client libraries.
fn python() -> Option<&'static Path> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    let found = PYTHON.get_or_init(|| {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
        let mut candidates = Vec::new();
        candidates.extend(std::env::var_os("TIDEGATE_PYTHON").map(PathBuf::from));
        candidates.extend(target.map(|target| target.join("clients/bin/python")));
        candidates.extend(on_path("python3"));
        candidates.into_iter().find(|python| {
            let imports = ["-c", "import paho.mqtt, confluent_kafka, kafka"];
            let status = Command::new(python).args(imports).stderr(Stdio::null()).status();
            status.is_ok_and(|status| status.success())
        })
    });
    found.as_deref()
}

/// Whether the Python clients are there; says that the test is skipped when they are not.
pub fn has_python() -> bool {
    let found = python().is_some();
    if !found {
        skipped(
            "Python with paho-mqtt, confluent-kafka and kafka-python not found: run scripts/clients.sh",
        );
    }
    found
}

/// Whether a consumer is there.
pub fn has_consumer(consumer: Consumer) -> bool {
    match consumer {
        Consumer::Kcat => has("kcat"),
        Consumer::Confluent | Consumer::KafkaPython => has_python(),
    }
}

fn script(name: &str) -> Command {
    let python = python().expect("the test asked has_python");
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let mut command = Command::new(python);
    // No __pycache__ in the tree.
    command.arg("-B").arg(folder.join(name)).stdin(Stdio::null());
    command
}

/// Runs a client to its end; panics with what it said when it fails.
fn output(command: &mut Command) -> Vec<u8> {
    let done = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?} left with {}:\n{said}", done.status);
    done.stdout
}

/// mosquitto_pub with arguments beside host and port.
pub fn mosquitto_pub(engine: &Engine, arguments: &[&str]) {
    let mut command = Command::new("mosquitto_pub");
    command.args(["-h", "127.0.0.1", "-p", &engine.ports.mqtt.to_string()]).args(arguments);
    output(&mut command);
}

/// tests/clients/publish.py: what paho saw acknowledged, as (device, sequence, payload).
pub fn paho_publish(engine: &Engine, arguments: &[&str]) -> Vec<(String, u64, String)> {
    let mut command = script("publish.py");
    command.args(["--port", &engine.ports.mqtt.to_string()]).args(arguments);
    let lines = String::from_utf8(output(&mut command)).unwrap();
    let acknowledged = lines.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        let word = |name: &str| line[name].as_str().unwrap().to_owned();
        (word("device"), line["seq"].as_u64().unwrap(), word("payload"))
    });
    acknowledged.collect()
}

/// Everything in a topic, in each partition's order, partitions ascending.
pub fn read_all(consumer: Consumer, engine: &Engine, topic: &str) -> Vec<Record> {
    read_on(consumer, engine, topic, &BTreeMap::new())
}

/// `read_all` of what is behind `from`, the offset at which a partition is read on; the others are
/// read from their starts.
pub fn read_on(
    consumer: Consumer,
    engine: &Engine,
    topic: &str,
    from: &BTreeMap<u32, i64>,
) -> Vec<Record> {
    let mut records = match consumer {
        Consumer::Kcat => {
            let mut records = kcat_records(&output(&mut kcat(engine, topic)));
            // kcat begins in all partitions alike.
            records.retain(|record| Some(&record.offset) >= from.get(&record.partition));
            records
        }
        Consumer::Confluent | Consumer::KafkaPython => {
            let mut command = script("consume.py");
            command.args(["--library", library(consumer)]);
            command.args(["--bootstrap", &engine.bootstrap(), "--topic", topic]);
            command.args(["--from", &serde_json::to_string(from).unwrap()]);
            let lines = String::from_utf8(output(&mut command)).unwrap();
            lines.lines().map(|line| python_record(&serde_json::from_str(line).unwrap())).collect()
        }
    };
    // Stable: the order within a partition stays as the client gave it.
    records.sort_by_key(|record: &Record| record.partition);
    records
}

/// The consumer that tests use when any will do: confluent-kafka, else kcat.
pub fn any_consumer() -> Option<Consumer> {
    if python().is_some() {
        return Some(Consumer::Confluent);
    }
    has("kcat").then_some(Consumer::Kcat)
}

/// The offset that ListOffsets gives for a time, by partition; -1 where nothing is that late.
pub fn offsets_at(consumer: Consumer, engine: &Engine, topic: &str, time_ms: i64) -> Vec<i64> {
    let mut command = script("consume.py");
    command.args(["--library", library(consumer), "--time", &time_ms.to_string()]);
    command.args(["--bootstrap", &engine.bootstrap(), "--topic", topic]);
    let lines = String::from_utf8(output(&mut command)).unwrap();
    let offsets = lines.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["offset"].as_i64().unwrap()
    });
    offsets.collect()
}

/// What a consumer met at one offset.
#[derive(Debug, PartialEq, Eq)]
pub enum Passage {
    Record,
    /// Kafka's error code, and the offset.
    Error(i64, u64),
}

impl Passage {
    pub fn error(&self) -> Option<(i64, u64)> {
        match *self {
            Self::Record => None,
            Self::Error(code, at) => Some((code, at)),
        }
    }
}

/// tests/clients/read_through.py: a partition from the start to the end, going on `step` offsets
/// behind every error, with one of the Python libraries.
pub fn read_through(
    consumer: Consumer,
    engine: &Engine,
    topic: &str,
    partition: u32,
    step: u64,
) -> Vec<Passage> {
    let mut command = script("read_through.py");
    command.args(["--library", library(consumer)]);
    command.args(["--bootstrap", &engine.bootstrap(), "--topic", topic]);
    command.args(["--partition", &partition.to_string(), "--step", &step.to_string()]);
    let lines = String::from_utf8(output(&mut command)).unwrap();
    let passages = lines.lines().map(|line| {
        let line: Value = serde_json::from_str(line).unwrap();
        match line["code"].as_i64() {
            Some(code) => Passage::Error(code, line["at"].as_u64().unwrap()),
            None => Passage::Record,
        }
    });
    passages.collect()
}

/// The offsets that kcat reads of a partition from one on, and what it said when it ended before the
/// end.
pub fn kcat_from(
    engine: &Engine,
    topic: &str,
    partition: u32,
    from: u64,
) -> (Vec<u64>, Option<String>) {
    let mut command = Command::new("kcat");
    command.args(["-C", "-q", "-e", "-b", &engine.bootstrap(), "-t", topic, "-f", "%o\\n"]);
    command.args(["-p", &partition.to_string(), "-o", &from.to_string()]);
    let done = command.output().expect("kcat runs");
    let offsets = String::from_utf8(done.stdout).unwrap();
    let offsets = offsets.lines().map(|line| line.parse().unwrap()).collect();
    let said = String::from_utf8(done.stderr).unwrap();
    (offsets, (!done.status.success()).then_some(said))
}

/// The partitions that kafka-python chooses for keys.
pub fn partitions_of(keys: &[&str], partitions: u32) -> Vec<u32> {
    let mut command = script("partition.py");
    command.args(["--partitions", &partitions.to_string()]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    // Closed at the end of the statement, which ends the script.
    child.stdin.take().unwrap().write_all((keys.join("\n") + "\n").as_bytes()).unwrap();
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success(), "partition.py left with {}", done.status);
    let numbers = String::from_utf8(done.stdout).unwrap();
    numbers.lines().map(|line| line.parse().unwrap()).collect()
}

fn library(consumer: Consumer) -> &'static str {
    match consumer {
        Consumer::Kcat => panic!("kcat is not a Python library"),
        Consumer::Confluent => "confluent",
        Consumer::KafkaPython => "kafka-python",
    }
}

fn python_record(line: &Value) -> Record {
    let bytes = |value: &Value| value.as_str().map(unhex).unwrap_or_default();
    let text = |value: &Value| String::from_utf8(bytes(value)).expect("this is text");
    let headers = line["headers"].as_array().unwrap().iter();
    Record {
        partition: line["partition"].as_u64().unwrap() as u32,
        offset: line["offset"].as_i64().unwrap(),
        timestamp: line["timestamp"].as_i64().unwrap(),
        key: text(&line["key"]),
        has_key: !line["key"].is_null(),
        headers: headers
            .map(|pair| (pair[0].as_str().unwrap().to_owned(), text(&pair[1])))
            .collect(),
        value: bytes(&line["value"]),
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        _ => panic!("{byte} is no hexadecimal digit"),
    };
    text.as_bytes().chunks(2).map(|pair| digit(pair[0]) << 4 | digit(pair[1])).collect()
}

/// Lengths before the bytes, so that any payload can be read back.
const KCAT_FORMAT: &str = "%p %o %T %K %S %h\\n%k%s\\n";

fn kcat(engine: &Engine, topic: &str) -> Command {
    let mut command = Command::new("kcat");
    command.args(["-C", "-q", "-e", "-b", &engine.bootstrap(), "-t", topic, "-o", "beginning"]);
    command.args(["-X", "fetch.message.max.bytes=2097152", "-f", KCAT_FORMAT]);
    command
}

fn kcat_records(mut bytes: &[u8]) -> Vec<Record> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let line_end = bytes.iter().position(|byte| *byte == b'\n').expect("a whole line");
        let line = std::str::from_utf8(&bytes[..line_end]).unwrap();
        let mut words = line.splitn(6, ' ');
        let mut number = || words.next().unwrap().parse::<i64>().unwrap();
        let (partition, offset, timestamp) = (number(), number(), number());
        // -1 where there is none.
        let (key, value) = (number(), number().max(0) as usize);
        let (has_key, key) = (key >= 0, key.max(0) as usize);
        let headers = words.next().unwrap_or_default();
        let body = &bytes[line_end + 1..];
        records.push(Record {
            partition: partition as u32,
            offset,
            timestamp,
            key: String::from_utf8(body[..key].to_vec()).unwrap(),
            has_key,
            headers: headers
                .split(',')
                .filter_map(|pair| pair.split_once('='))
                .map(|(name, value)| (name.to_owned(), value.to_owned()))
                .collect(),
            value: body[key..key + value].to_vec(),
        });
        bytes = &body[key + value + 1..];
    }
    records
}

/// A consumer that stands at the end of a topic and waits for what comes.
#[derive(Debug)]
pub struct Follower {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Follower {
    /// Starts it and returns when it stands at the end of every partition.
    pub fn start(consumer: Consumer, engine: &Engine, topic: &str, count: usize) -> Self {
        let mut command = script("consume.py");
        command.args(["--library", library(consumer), "--follow", &count.to_string()]);
        command.args(["--bootstrap", &engine.bootstrap(), "--topic", topic]);
        let mut child = command.stdout(Stdio::piped()).spawn().expect("the follower starts");
        let lines = BufReader::new(child.stdout.take().expect("its output"));
        let mut follower = Self { child, lines };
        let ready = follower.line().expect("the follower gets ready");
        assert_eq!(ready["ready"], true, "{ready}");
        follower
    }

    fn line(&mut self) -> Option<Value> {
        let mut line = String::new();
        let count = self.lines.read_line(&mut line).expect("the follower's output");
        (count > 0).then(|| serde_json::from_str(&line).expect("a line of JSON"))
    }

    /// The next record; the script's own time-out ends the wait.
    pub fn record(&mut self) -> Record {
        python_record(&self.line().expect("one more record"))
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let mut rest = String::new();
        let _ = self.lines.read_to_string(&mut rest);
        let _ = self.child.wait();
    }
}
