//! Logs that do not commit for a while: who has something for such a shard waits and loses nothing,
//! and nobody else waits. The driver delays commits as long as a file, the gate, is there.

use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use crate::clients::{any_consumer, read_all};
use crate::engine::{Engine, Setup, scratch, wait_until};
use crate::partitioning::names_on;
use crate::sequences;
use crate::wire::{Connect, Look, PINGREQ, PINGRESP, PUBACK, Publish, Version, Wire};

/// Small limits, so that little is enough to reach them all.
const CONFIG: &str = r##"
partitions = 8

[mqtt]
packet_bytes_max = "64KiB"
held_bytes_max = "64KiB"
send_bytes_max = "16KiB"
receive_maximum = 64
unacknowledged_max = 1024

[log]
segment_bytes = "8MiB"
segments_ahead = 1
buffer_bytes = "1MiB"
batch_bytes_max = "192KiB"
tail_cache_bytes = "256KiB"
read_cache_bytes = "256KiB"

[receive]
buffers = 64
kafka_buffers = 8

[[stream]]
name = "by_topic"
partition_by = "topic"
"##;

/// Several of these in each buffer, and one fits what is read from a held connection.
const HEAVY_BYTES: usize = 32 << 10;

/// As long as it is there, the shards that were started with it do not commit.
struct Gate(PathBuf);

impl Gate {
    fn shut(scratch: &Path) -> Self {
        let path = scratch.join("gate");
        std::fs::write(&path, "").unwrap();
        Self(path)
    }

    fn delay(&self, shard: u32) -> String {
        format!("--inject-commit-delay={shard}=1h@{}", self.0.display())
    }

    fn open(&self) {
        std::fs::remove_file(&self.0).unwrap();
    }
}

/// A device that sends `count` messages as fast as the engine takes them.
struct Sender {
    client: String,
    topic: String,
    wire: Wire,
    payload_bytes: usize,
    count: u64,
    /// Messages that were begun, and what the socket has not taken of the last.
    sent: u64,
    unsent: Vec<u8>,
    acknowledged: u64,
}

impl Sender {
    fn connect(port: u16, version: Version, (client, topic): (String, String)) -> Self {
        let connect = Connect { keep_alive_s: 0, ..Connect::new(version, &client) };
        let (wire, _) = Wire::connect(port, &connect);
        let (payload_bytes, count, sent, unsent, acknowledged) = (1, 0, 0, Vec::new(), 0);
        Self { client, topic, wire, payload_bytes, count, sent, unsent, acknowledged }
    }

    /// Devices of shard `from` of `shards`, with topics that lie on shard `to`.
    fn crowd(
        engine: &Engine,
        version: Version,
        (from, to, shards): (u32, u32, u32),
        (prefix, count): (&str, usize),
    ) -> Vec<Self> {
        let (client, topic) = (format!("{prefix}-{from}{to}-"), format!("{prefix}/{from}{to}/"));
        let (clients, topics) = (names_on(from, shards, &client), names_on(to, shards, &topic));
        let names = clients.zip(topics).take(count);
        names.map(|names| Self::connect(engine.ports.mqtt, version, names)).collect()
    }

    fn load(&mut self, count: u64, payload_bytes: usize) {
        (self.count, self.payload_bytes) = (self.count + count, payload_bytes);
    }

    /// Gives the socket what it takes without waiting. An MQTT 5 device keeps to the Receive
    /// Maximum, one of 3.1.1 has none.
    fn push(&mut self) {
        self.wire.stream.set_nonblocking(true).unwrap();
        loop {
            let window = if self.wire.version == Version::V5 { 64 } else { u64::MAX };
            let may_send = self.sent < self.count && self.sent - self.acknowledged < window;
            if self.unsent.is_empty() && may_send {
                let mut payload = self.sent.to_string().into_bytes();
                payload.resize(self.payload_bytes.max(payload.len()), b'.');
                let publish = Publish::new(&self.topic, packet_id(self.sent), &payload);
                self.unsent = publish.bytes(self.wire.version);
                self.sent += 1;
            }
            if self.unsent.is_empty() {
                break;
            }
            match self.wire.stream.write(&self.unsent) {
                Ok(bytes) => drop(self.unsent.drain(..bytes)),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("{}: {error}", self.client),
            }
        }
        self.wire.stream.set_nonblocking(false).unwrap();
    }

    /// Takes the acknowledgements that have come.
    fn pull(&mut self) {
        loop {
            match self.wire.look() {
                Look::Packet(packet) => {
                    assert_eq!((packet.kind(), packet.reason()), (PUBACK, 0), "{packet:?}");
                    assert_eq!(packet.id(), packet_id(self.acknowledged), "{}", self.client);
                    self.acknowledged += 1;
                }
                Look::Nothing => return,
                Look::Ended => panic!("{}: the engine closed the connection", self.client),
            }
        }
    }
}

fn packet_id(seq: u64) -> u16 {
    (seq % 65_535) as u16 + 1
}

/// Lets all of them send and hear until `done`.
fn drive<T>(what: &str, senders: &mut [Sender], mut done: impl FnMut(&[Sender]) -> Option<T>) -> T {
    wait_until(what, || {
        senders.iter_mut().for_each(Sender::push);
        senders.iter_mut().for_each(Sender::pull);
        done(senders)
    })
}

fn drive_to_the_end(what: &str, senders: &mut [Sender]) {
    drive(what, senders, |senders| {
        senders.iter().all(|sender| sender.acknowledged == sender.count).then_some(())
    });
}

/// Lets all of them send until the engine holds `held` connections and takes nothing more.
fn drive_until_held(engine: &Engine, senders: &mut [Sender], held: usize) {
    let (mut taken, mut looks) = (0.0, 0);
    drive("connections to be held and pushed back", senders, |_| {
        let now = engine.metric("mqtt_received_bytes", "");
        looks = if now == taken { looks + 1 } else { 0 };
        taken = now;
        let holds = engine.metric("mqtt_connections_held", "") == held as f64;
        (holds && looks >= 20).then_some(())
    });
}

fn acknowledged(senders: &[Sender]) -> Vec<(String, u64)> {
    senders.iter().map(|sender| (sender.client.clone(), sender.acknowledged)).collect()
}

/// What the banner says that the engine takes, with so many MQTT connections.
fn planned_bytes(engine: &Engine, connections: usize) -> u64 {
    let said = engine.said();
    let line = said.lines().find(|line| line.starts_with("  memory ")).expect("a plan");
    let before = |unit: &str| -> u64 {
        let words: Vec<&str> = line.split_whitespace().collect();
        let at = words.iter().position(|word| *word == unit).expect("a unit");
        words[at - 1].parse().expect("a number")
    };
    (before("MiB") << 20) + connections as u64 * (before("KiB") << 10)
}

/// The state of the way from shard 0 to shard 1; published every second or so.
fn on_the_way(engine: &Engine, name: &str) -> f64 {
    engine.metric(&format!("tidegate_ring_{name}"), "shard=\"0\",to=\"1\"")
}

#[test]
fn a_shard_that_does_not_commit_holds_only_who_talks_to_it() {
    let Some(consumer) = any_consumer() else { return };
    let scratch = scratch();
    let gate = Gate::shut(scratch.path());
    let mut setup = Setup::new(scratch.path()).config(CONFIG);
    setup.arguments.clear();
    let engine = setup.argument(&["--shards", "2", &gate.delay(1)]).start();
    let (before, mut stuck) = (engine.resident_bytes_peak(), Vec::new());

    // More than the plan has room for, from both shards, until TCP pushes back.
    for from in 0..2 {
        stuck.extend(Sender::crowd(&engine, Version::V311, (from, 1, 2), ("heavy", 4)));
    }
    stuck.iter_mut().for_each(|sender| sender.load(96, HEAVY_BYTES));
    let heavy = stuck.len();
    drive_until_held(&engine, &mut stuck, heavy);

    // Devices with less in flight than is read from a held connection, and more than the room that
    // may be left where a heavy message finds none: they are held, and hear that the engine lives.
    for from in 0..2 {
        stuck.extend(Sender::crowd(&engine, Version::V5, (from, 1, 2), ("light", 4)));
    }
    stuck[heavy..].iter_mut().for_each(|sender| sender.load(40, 1 << 10));
    let all = stuck.len();
    drive_until_held(&engine, &mut stuck, all);
    for sender in &mut stuck[heavy..] {
        assert_eq!((sender.sent, sender.unsent.len()), (40, 0), "it has sent what it may");
        for _ in 0..3 {
            sender.wire.send(&PINGREQ);
            assert_eq!(sender.wire.packet().kind(), PINGRESP);
        }
    }
    assert!(stuck.iter().all(|sender| sender.acknowledged == 0), "nothing was committed");

    let offered = (heavy * 96 * HEAVY_BYTES) as u64;
    let planned = planned_bytes(&engine, all);
    let taken = engine.resident_bytes_peak() - before;
    println!("{} KiB more for {} offered, {} planned", taken >> 10, offered >> 10, planned >> 10);
    assert!(offered > planned, "{offered} bytes are no load for a plan of {planned}");
    assert!(taken <= planned, "{taken} bytes more, {planned} are planned");

    // What waits, and for whom.
    wait_until("the metrics of the way to shard 1", || {
        (on_the_way(&engine, "held_connections") == (all / 2) as f64).then_some(())
    });
    assert!(on_the_way(&engine, "waits_total") >= (all / 2) as f64);
    assert!(on_the_way(&engine, "records_total") > 0.0);
    assert_eq!(on_the_way(&engine, "settled_records_total"), 0.0);
    for cause in ["ring", "log_buffer"] {
        let holds = engine.metric("mqtt_holds_total", &format!("cause=\"{cause}\""));
        assert!(holds >= (all / 2) as f64, "{cause}: {holds}");
    }
    assert_eq!(engine.metric("tidegate_ring_waits_total", "to=\"0\""), 0.0);

    // Who has nothing for shard 1's log goes on, also on shard 1's connections, and is read.
    let mut free = Vec::new();
    for from in 0..2 {
        free.extend(Sender::crowd(&engine, Version::V5, (from, 0, 2), ("free", 4)));
    }
    free.iter_mut().for_each(|sender| sender.load(500, 100));
    drive_to_the_end("those who talk to shard 0 only", &mut free);
    let records = read_all(consumer, &engine, "by_topic");
    assert_eq!(records.len(), free.len() * 500, "nothing of shard 1 can be read");
    sequences::check(&records, &acknowledged(&free));
    stuck.iter_mut().for_each(Sender::pull);
    assert!(stuck.iter().all(|sender| sender.acknowledged == 0), "and the gate was shut all along");

    gate.open();
    drive_to_the_end("everything to be acknowledged", &mut stuck);
    wait_until("nobody to be held", || {
        (engine.metric("connections_held", "") + on_the_way(&engine, "held") == 0.0).then_some(())
    });
    stuck.append(&mut free);
    sequences::check(&read_all(consumer, &engine, "by_topic"), &acknowledged(&stuck));
    engine.stop();
}

const BY_CLIENT_TOO: &str = "[[stream]]\nname = \"by_client\"\n";

/// Every shard's devices send to the next shard's log as well as to their own, until every log and
/// every lane is full; a cycle that must not become a deadlock.
fn all_full_at_once(shards: u32) {
    let Some(consumer) = any_consumer() else { return };
    let scratch = scratch();
    let gate = Gate::shut(scratch.path());
    let mut setup = Setup::new(scratch.path()).config(&format!("{CONFIG}\n{BY_CLIENT_TOO}"));
    setup.arguments = ["--shards".to_owned(), shards.to_string()].to_vec();
    setup.arguments.extend((0..shards).map(|shard| gate.delay(shard)));
    let engine = setup.start();
    let mut senders = Vec::new();
    let crowds = [(Version::V311, "heavy", 96, HEAVY_BYTES), (Version::V5, "light", 100, 1 << 10)];
    for (version, name, count, bytes) in crowds {
        let before = senders.len();
        for from in 0..shards {
            let way = (from, (from + 1) % shards, shards);
            senders.extend(Sender::crowd(&engine, version, way, (name, 2)));
        }
        senders[before..].iter_mut().for_each(|sender| sender.load(count, bytes));
        let all = senders.len();
        drive_until_held(&engine, &mut senders, all);
    }
    assert!(senders.iter().all(|sender| sender.acknowledged == 0), "nothing was committed");

    gate.open();
    drive_to_the_end("everything to be acknowledged", &mut senders);
    for stream in ["by_topic", "by_client"] {
        let records = read_all(consumer, &engine, stream);
        sequences::check(&records, &acknowledged(&senders));
        let sent: u64 = senders.iter().map(|sender| sender.count).sum();
        assert_eq!(records.len() as u64, sent, "{stream}: each message once");
    }
    engine.stop();
}

#[test]
fn two_shards_that_are_full_for_one_another_go_on() {
    all_full_at_once(2);
}

#[test]
fn three_shards_that_are_full_in_a_circle_go_on() {
    all_full_at_once(3);
}
